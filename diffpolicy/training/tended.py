"""`python -m diffpolicy.training.tended`: the command line, in a process that ends with its parent.

The parent holds the other end of the standard input. When the parent ends, however it does, the
input ends, and the command is interrupted as by SIGTERM.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from diffpolicy.cli import main


def start(arguments: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command of `diffpolicy` whose output goes to a file; Ctrl-C does not reach it."""
    command = [sys.executable, "-m", __name__, *arguments]
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """End a command that `start` started, in order if it can."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    close(process)


def close(process: subprocess.Popen[bytes]) -> None:
    """Release the standard input of a command that has ended."""
    if process.stdin:
        process.stdin.close()


def _follow_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_follow_parent, daemon=True).start()
    main()
