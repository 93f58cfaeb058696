"""DiffpolicyError, the only exception for bad input."""


class DiffpolicyError(Exception):
    """Bad input, described in one line: "X is not a …; expected …; got …; try …".

    The command line prints the message and exits with status 2.
    """
