"""Latency samples of a result file, for `--latency-from`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, Range, validate
from diffpolicy.errors import DiffpolicyError

from ..config import MILLISECONDS
from .result_files import Options, document, validated
from .results import COUNT, Cameras, Name


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The part of a row that can be replayed: of a network, or of a policy of others."""

    network_evals: Annotated[int | None, Range(1, 10**6)] = None
    parameters: Annotated[int | None, Range(1, 10**12)] = None
    policy: str | None = None
    ddim_steps: Annotated[int | None, COUNT] = None
    engine: Name
    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]
    precision: str = "float32"
    load: Literal["quiet", "disturbed", "unknown"] | None = "unknown"
    encoder_ms: Annotated[float | None, MILLISECONDS] = None
    cameras: Cameras | None = None
    crop: float | None = None

    def __post_init__(self):
        names = ("ddim_steps",) if self.policy else ("network_evals", "parameters")
        if missing := [name for name in names if getattr(self, name) is None]:
            raise DiffpolicyError(f"it lacks {', '.join(missing)}")


@dataclass(frozen=True)
class _Rows:
    """The rows of any result, not read further."""

    rows: list[Options]


def read_samples(path: Path) -> list[Samples]:
    """The rows of a result that hold latency samples, without those of diffusers' loop.

    Raises DiffpolicyError where there are none.
    """
    try:
        rows = validated(_Rows, document(path), path).rows
        found = [
            validate(Samples, row, f"{path}: a row", others=True)
            for row in rows
            if row.get("samples_ms") and row.get("engine") != "diffusers"
        ]
    except (OSError, DiffpolicyError) as error:
        raise DiffpolicyError(
            f"{path} is not a latency profile: {error}; `diffpolicy latency --json` writes one"
        ) from error
    if not found:
        raise DiffpolicyError(f"{path} holds no latency samples")
    return found
