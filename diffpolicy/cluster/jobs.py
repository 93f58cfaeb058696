"""Jobs on a Ray cluster: a function and its arguments go to a worker, and its result comes back.

Every machine needs this version of diffpolicy, and the folders of the command at the same paths: a
file system that all share.
"""

import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffpolicy.errors import DiffpolicyError, system_error
from diffpolicy.terminal.output import counted, say
from diffpolicy.version import __version__

RETRIES = 3  # of a job whose worker or machine dies


@dataclass(frozen=True)
class Job:
    """function(*arguments) on a worker.

    name: in messages. folder: one that the job writes, if any. Arguments may be references of
    `ray.put`.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    folder: Path | None = None


def connect() -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS or of this computer, else to a new one here.

    Raises DiffpolicyError if Ray is not installed or no cluster answers.
    """
    if find_spec("ray") is None:
        raise DiffpolicyError("--on ray needs ray; install it with pip install 'diffpolicy[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        return ray
    quiet = {"env_vars": {"TQDM_DISABLE": "1"}}  # bars of several machines would overwrite another
    try:
        ray.init(include_dashboard=False, logging_level=logging.WARNING, runtime_env=quiet)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise DiffpolicyError(
            f"no Ray cluster answers: {_first_line(error)}; start one, or set "
            "RAY_ADDRESS=local for one here"
        ) from error
    nodes = _machines(ray)
    cpus = sum(_cpus(node) for node in nodes)
    say(f"ray: {counted(len(nodes), 'machine')}, {counted(cpus, 'CPU')}")
    return ray


def whole_machine(ray: Any) -> int:
    """CPUs of the largest machines: a job that asks for so many runs there, with no other job."""
    return max((_cpus(node) for node in _machines(ray)), default=0)


def gpus_for(ray: Any, device: str) -> int:
    """1, a GPU for each job, if the cluster has any and the device may be one; else 0."""
    has = any(node["Resources"].get("GPU") for node in _machines(ray))
    return int(has and device != "cpu")


def run_jobs(jobs: Sequence[Job], cpus: int = 1, gpus: int = 0) -> Iterator[tuple[Job, Any]]:
    """Jobs and their results, as they end; the others are stopped when the caller stops.

    A job whose worker or machine dies runs again on another. Raises DiffpolicyError for a job that
    raises it, that the system refuses something, or that loses its workers too often.
    """
    ray = connect()
    if cpus > whole_machine(ray):
        text = "warning: no machine of the Ray cluster has %d CPUs; the jobs wait for one"
        logging.getLogger("diffpolicy").warning(text, cpus)
    work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_work)
    about = __version__, Path.cwd()
    running = {
        work.options(name=job.name).remote(*about, job.folder, job.function, *job.arguments): job
        for job in jobs
    }
    try:
        while running:
            [reference], _ = ray.wait(list(running))
            job = running.pop(reference)
            yield job, _result(ray, job, reference)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _work(
    version: str, here: Path, folder: Path | None, function: Callable[..., Any], *arguments: Any
) -> Any:
    """The job on its worker, in the current folder of the command if this machine has it."""
    machine = platform.node()
    if version != __version__:
        raise DiffpolicyError(
            f"{machine} has diffpolicy {__version__}; expected {version}, as the command has"
        )
    if here.is_dir():
        os.chdir(here)
    if folder and not folder.is_dir():
        raise DiffpolicyError(
            f"{machine} does not see {folder}; expected a file system that all machines share, "
            "with the same paths"
        )
    try:
        return function(*arguments)
    except OSError as error:
        raise DiffpolicyError(f"{machine}: {system_error(error)}") from None
    except MemoryError as error:
        raise DiffpolicyError(f"{machine} has not enough memory: {error}") from None
    except KeyboardInterrupt:
        raise DiffpolicyError(f"interrupted on {machine}; repeat the command") from None


def _result(ray: Any, job: Job, reference: Any) -> Any:
    errors = ray.exceptions
    died = errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        if isinstance(error.cause, DiffpolicyError):
            raise DiffpolicyError(f"{job.name}: {error.cause}") from None
        raise
    except died as error:
        raise DiffpolicyError(
            f"{job.name}: its worker died {1 + RETRIES} times, the last time of: "
            f"{_first_line(error)}"
        ) from None
    except errors.RayError as error:
        raise DiffpolicyError(f"{job.name}: Ray: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """The first line of an error of Ray, or its kind."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _machines(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _cpus(node: dict[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))
