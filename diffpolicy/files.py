"""Atomic writing of files, and locks on folders."""

import errno
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffpolicy.errors import DiffpolicyError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report system errors with `path` instead of a temporary name, and defer Ctrl-C to the end."""
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
    """Lock a folder; return the descriptor that holds the lock until it is closed.

    A crash closes it as well. Raises DiffpolicyError(refusal) if another process has the lock.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DiffpolicyError(refusal) from None
    except OSError as error:  # some network file systems cannot lock folders
        text = "warning: %s cannot be locked (%s); only one process may write"
        logging.getLogger("diffpolicy").warning(text, folder, error.strerror)
    return descriptor


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a run folder; raise DiffpolicyError if another process trains in it."""
    refusal = f"another process is training in {folder}; wait for it, or choose another --out"
    descriptor = lock(folder, refusal)
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """True if a process holds the lock of a folder."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # some network file systems cannot lock folders
        return False
    finally:
        os.close(descriptor)
    return False


def remove_partials(folder: Path) -> None:
    """Remove temporary files of processes that no longer exist."""
    for path in _abandoned(folder):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def remove_partial_folders(target: Path) -> None:
    """Remove temporary folders for `target` of processes that no longer exist."""
    for path in _abandoned(target.parent):
        if path.is_dir() and path.name.rpartition(".")[0].rpartition(".")[0] == f".{target.name}":
            shutil.rmtree(path)


def _abandoned(folder: Path) -> list[Path]:
    found = [(path, path.name.split(".")[-2]) for path in folder.glob(".*.partial")]
    return [path for path, process in found if process.isdecimal() and not is_alive(int(process))]


def is_alive(process: int) -> bool:
    """True for a process of this machine, of any user."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then rename the result to `path`.

    After a crash or on a full disk the previous content of `path` remains. The temporary file is
    removed unless the process was killed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        _check_regular(path)
        _make_folder(path.parent)
        try:
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _check_regular(path: Path) -> None:
    """Refuse a device or a pipe, such as /dev/null: a renamed file would take its place."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "is a device or a pipe; a regular file was expected")


def _make_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is a file; a folder was expected for")
    path.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, as it is encoded: the text is never held whole."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)

    write_atomically(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be written to `path`; to be called before long work."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder; a file was expected")
        _check_regular(path)
        _make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
