"""The one error that users see: what was expected, what came, what would do."""


class DiffpolicyError(Exception):
    """Bad input. The command line prints its message as one line and exits with 2."""


class EngineUnavailable(DiffpolicyError):
    """An engine cannot be built here, or its actions differ from those of eager."""
