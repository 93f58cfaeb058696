"""Latency samples of a result file, for `--latency-from`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, Range, validate
from diffpolicy.errors import DiffpolicyError

from ..config import MILLISECONDS
from .result_files import Options, document, validated
from .results import COUNT, Cameras, Name

Load = Literal["quiet", "disturbed", "unknown"] | None


@dataclass(frozen=True)
class NetworkSamples:
    """The part of a row of a run or a net that can be replayed."""

    network_evals: Annotated[int, Range(1, 10**6)]
    parameters: Annotated[int, Range(1, 10**12)]
    engine: Name
    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]
    precision: str = "float32"
    load: Load = "unknown"
    encoder_ms: Annotated[float | None, MILLISECONDS] = None
    cameras: Cameras | None = None
    crop: float | None = None
    gradient_evals: Annotated[int, Range(0, 10**6)] | None = None

    @property
    def evals(self) -> tuple[int, int]:
        """Network evaluations and gradients of a chunk; no gradients if the file tells none."""
        return self.network_evals, self.gradient_evals or 0


@dataclass(frozen=True)
class PolicySamples:
    """The part of a row of a policy of others that can be replayed."""

    policy: str
    ddim_steps: Annotated[int, COUNT]
    engine: Name
    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]
    load: Load = "unknown"
    encoder_ms: Annotated[float | None, MILLISECONDS] = None


@dataclass(frozen=True)
class _Rows:
    """The rows of any result, not read further."""

    rows: list[Options]


Samples = NetworkSamples | PolicySamples


def read_samples(path: Path) -> list[Samples]:
    """The rows of a result that hold latency samples, without those of diffusers' loop.

    Raises DiffpolicyError where there are none.
    """
    try:
        rows = validated(_Rows, document(path), path).rows
        found = [
            validate(
                PolicySamples if row.get("policy") else NetworkSamples,
                row,
                f"{path}: a row",
                others=True,
            )
            for row in rows
            if row.get("samples_ms") and row.get("engine") != "diffusers"
        ]
    except FileNotFoundError as error:
        raise DiffpolicyError(
            f"no latency profile at {path}: there is no such file; `diffpolicy latency --json "
            f"{path}` writes one"
        ) from error
    except (OSError, DiffpolicyError) as error:
        raise DiffpolicyError(
            f"{path} is not a latency profile: {error}; `diffpolicy latency --json` writes one"
        ) from error
    if not found:
        raise DiffpolicyError(f"{path} holds no latency samples")
    return found
