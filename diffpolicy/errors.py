"""DiffpolicyError, the only exception for bad input."""


class DiffpolicyError(Exception):
    """Bad input, described in one line: "X is not a …; expected …; got …; try …".

    The command line prints the message and exits with status 2.
    """


class EngineUnavailable(DiffpolicyError):
    """An engine that cannot be built here, or whose actions differ from those of eager."""
