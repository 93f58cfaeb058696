"""Native engine for a robot's CPU: the whole sampler in C, compiled on first use, batch 1.

At batch 1 a denoiser is a few matrix-vector products, and PyTorch spends its time on calls. This
engine lists the network's operations with packed weights, and native.c runs the list K times
without returning to Python. It needs a C compiler (`cc`) and a denoiser of diffpolicy.denoisers.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpolicy.engines.job import Job
from diffpolicy.engines.networks import write_program
from diffpolicy.engines.program import FLOATS, Operation, TensorStruct
from diffpolicy.errors import EngineUnavailable
from diffpolicy.files import write_atomically
from diffpolicy.sampling.steps import Row

SOURCE = Path(__file__).with_name("native.c")
FLAGS = (
    *("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-pthread"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math"),
)


DIGEST = hashlib.sha256().digest_size


class RowStruct(ctypes.Structure):
    """A `sampling.steps.Row` without its timestep; mirrors native.c."""

    _fields_ = tuple((name, ctypes.c_float) for name in Row._fields[1:])


class ProgramStruct(ctypes.Structure):
    """The argument of native.c's engine_open; mirrors its `program`."""

    _fields_ = (
        ("tensors", ctypes.POINTER(TensorStruct)),
        ("observe", ctypes.POINTER(Operation)),
        ("denoise", ctypes.POINTER(Operation)),
        *((name, ctypes.c_int64) for name in ("observe_count", "denoise_count")),
        *(
            (name, ctypes.c_int64)
            for name in ("observation", "film", "x", "output", "previous", "earlier")
        ),
        ("time_films", FLOATS),
        ("rows", ctypes.POINTER(RowStruct)),
        *((name, ctypes.c_int64) for name in ("row_count", "threads")),
    )


class NativeEngine:
    """The sampler in C, one sample of the batch after the other, so rows do not affect each other.

    Raises EngineUnavailable without a C compiler, and for other networks.
    """

    name = "native"

    def __init__(self, job: Job):
        denoiser, rows = job.denoiser, job.chain.rows
        library = _library()
        program = write_program(job)
        with torch.inference_mode():
            films = denoiser.time_film(torch.tensor([row.t for row in rows])).numpy()
        struct = ProgramStruct(
            tensors=_array(program.tensors),
            observe=_array(program.observe),
            denoise=_array(program.denoise),
            observe_count=len(program.observe),
            denoise_count=len(program.denoise),
            observation=program.observation,
            film=program.film,
            x=program.x,
            output=program.output,
            previous=program.previous,
            earlier=program.earlier,
            time_films=program.memory(films),
            rows=_array([RowStruct(*row[1:]) for row in rows]),
            row_count=len(rows),
            threads=job.threads,
        )
        self._kept = program, struct
        self._lock, self._process = threading.Lock(), os.getpid()
        self._handle = library.engine_open(ctypes.byref(struct))
        self._run = library.engine_run
        weakref.finalize(self, _close, library, self._handle, self._process)

    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Encoded observation [B, C] and noise -> chunk [B, T_p, D_a]."""
        if os.getpid() != self._process:
            raise EngineUnavailable("a native engine stays in the process it was built in")
        chunks = torch.empty(noise.shape[1:])
        with self._lock:  # one workspace
            for i, chunk in enumerate(chunks):
                seen, drawn = observation[i].contiguous(), noise[:, i].contiguous()
                self._run(self._handle, seen.data_ptr(), drawn.data_ptr(), chunk.data_ptr())
        return chunks


def _close(library: ctypes.CDLL, handle: int, process: int) -> None:
    """End the threads; a forked child has none of them."""
    if os.getpid() == process:
        library.engine_close(handle)


def _array(items: Sequence[Any]) -> Any:
    """The items as a C array."""
    kind: Any = type(items[0])
    return (kind * len(items))(*items)


@cache
def _library() -> ctypes.CDLL:
    """native.c compiled for this machine, once, into the user's cache."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler:
        raise EngineUnavailable(
            "the native engine needs a C compiler; found no `cc` on the path and no $CC"
        )
    source = SOURCE.read_bytes()
    key = hashlib.sha256(source + repr((compiler, FLAGS, processor())).encode()).hexdigest()[:16]
    path = cache_folder() / f"native-{key}.so"
    if not _whole(path):
        write_atomically(path, lambda temporary: _compile(compiler, temporary))
    library = ctypes.CDLL(str(path))
    library.engine_open.restype = ctypes.c_void_p
    library.engine_open.argtypes = [ctypes.c_void_p]
    library.engine_run.argtypes = [ctypes.c_void_p] * 4
    library.engine_run.restype = None
    library.engine_close.argtypes = [ctypes.c_void_p]
    library.engine_close.restype = None
    return library


def _compile(compiler: str, path: Path) -> None:
    command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise _unbuildable(f"the C compiler {compiler!r} does not start: {error}") from error
    if done.returncode:
        raise EngineUnavailable(f"native.c does not compile: {done.stderr.strip()[:500]}")
    code = path.read_bytes()
    path.write_bytes(code + hashlib.sha256(code).digest())  # loaders read no further than the code
    path.chmod(0o700)


def _whole(path: Path) -> bool:
    """True if the compiled code exists, belongs to this user alone and has its digest."""
    if not (path.is_file() and _ours_alone(path)):
        return False
    content = path.read_bytes()
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _ours_alone(path: Path) -> bool:
    """True if the path belongs to this user and nobody else may write there."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _unbuildable(reason: str) -> EngineUnavailable:
    return EngineUnavailable(f"the native engine cannot be built here: {reason}")


def processor() -> str:
    """Name and features of the processor, on which -march=native depends."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    wanted = ("model name", "flags", "Features", "CPU part")
    found = {line.partition(":")[0].strip(): line for line in lines if line.startswith(wanted)}
    return " ".join([platform.machine(), platform.processor(), *found.values()])


def cache_folder() -> Path:
    """The folder for compiled code, accessible to this user alone."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "diffpolicy"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unbuildable(
            f"cannot make {folder} for compiled code ({error.strerror}); set XDG_CACHE_HOME "
            "to another folder"
        ) from error
    if not _ours_alone(folder):
        raise _unbuildable(
            f"{folder} for compiled code belongs to another user or can be written to by others; "
            "make it yours alone, or set XDG_CACHE_HOME to another folder"
        )
    return folder
