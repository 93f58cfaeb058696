"""`python -m diffpolicy`: the command line."""

from diffpolicy.cli import main

if __name__ == "__main__":
    main()
