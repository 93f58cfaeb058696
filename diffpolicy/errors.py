"""DiffpolicyError, the only exception for bad input."""


class DiffpolicyError(Exception):
    """Bad input, described in one line: "X is not a …; expected …; got …; try …".

    The command line prints the message and exits with status 2.
    """


class EngineUnavailable(DiffpolicyError):
    """An engine that cannot be built here, or whose actions differ from those of eager."""


class UnknownEnvironment(DiffpolicyError):
    """An environment whose Gymnasium id, `env_id`, nothing registers."""

    def __init__(self, message: str, env_id: str):
        super().__init__(message, env_id)
        self.message, self.env_id = message, env_id

    def __str__(self) -> str:
        return self.message


def one_line(error: Exception) -> str:
    """Message of a foreign library's exception, without line breaks, of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def system_error(error: OSError) -> str:
    """Message of a failed system call: the reason, then the file if there is one."""
    return f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
