"""DiffpolicyError, the only exception for bad input, and warnings."""


class DiffpolicyError(Exception):
    """Bad input, described in one line: "X is not a …; expected …; got …; try …".

    The command line prints the message and exits with status 2.
    """


def warn(message: str) -> None:
    """Print a warning as one line on stdout."""
    print(f"warning: {message}")
