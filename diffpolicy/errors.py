"""DiffpolicyError, the only exception for bad input."""


class DiffpolicyError(Exception):
    """Bad input, described in one line: "X is not a …; expected …; got …; try …".

    The command line prints the message and exits with status 2.
    """


class EngineUnavailable(DiffpolicyError):
    """An engine that cannot be built here, or whose actions differ from those of eager."""


def one_line(error: Exception) -> str:
    """Message of a foreign library's exception, without line breaks, of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
