"""`python -m diffpolicy`, the same as the command `diffpolicy`."""

from diffpolicy.cli import main

if __name__ == "__main__":
    main()
