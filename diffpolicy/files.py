"""Files that are either wholly there or not there at all."""

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffpolicy.errors import DiffpolicyError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system name the path that the user knows, not a temporary one; Ctrl-C waits."""
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    previous = (
        signal.signal(signal.SIGINT, lambda number, _: received.append(number)) if main else None
    )
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, previous)
    if received:
        signal.raise_signal(signal.SIGINT)


def lock(folder: Path, refusal: str) -> int:
    """A descriptor that holds a lock on the folder until it is closed, by a crash or otherwise."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DiffpolicyError(refusal) from None
    except OSError as error:  # some network file systems have no locks for folders
        print(f"warning: {folder} cannot be locked ({error.strerror}); write to it once only")
    return descriptor


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The one process that writes a run; the lock ends with the process, however that ends."""
    refusal = f"another process is training in {folder}; wait for it, or choose another --out"
    descriptor = lock(folder, refusal)
    try:
        yield
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Removes the temporary files of processes that were killed while they wrote."""
    for path in folder.glob(".*.partial"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _alive(int(process)):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary path)`, then renames the result onto `path`.

    A crash or a full disk leaves what stood at `path` before; the temporary file is removed
    unless the process itself was killed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        _make_folder(path.parent)
        try:
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is a file; a folder was expected for")
    path.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def check_writable(path: Path) -> None:
    """Fails now rather than after an hour of measuring."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder; a file was expected")
        _make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
