"""Policies as control and evaluation see them: observation histories in, action chunks out.

Shapes: B batch, T_o observation horizon, T_p prediction horizon, D_a action dimensions.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead
from diffpolicy.late.plan import Plan
from diffpolicy.specification import Horizons


class ChunkSource(Protocol):
    """Anything that maps observation histories to action chunks; `Policy` is one.

    It must be picklable to run in worker processes; `External` wraps one that is not. A result
    depends on the arguments alone, and a row of it on the same row of them.
    """

    @property
    def horizons(self) -> Horizons:
        """T_o, T_p and T_a in control ticks."""
        ...

    def noise_shape(self, batch: int) -> tuple[int, ...]:
        """[draws, B, …]: shape of the noise of one call; (0, B) for a source without noise."""
        ...

    def __call__(self, observation: dict[str, np.ndarray], noise: np.ndarray, /) -> np.ndarray:
        """{key: [B, T_o, …]} and standard normal noise to actions [B, T_p - T_o + 1, D_a].

        The first action belongs to the newest observation.
        """
        ...


@runtime_checkable
class Observing(Protocol):
    """Optional part of a chunk source: the keys that it observes; else it gets all.

    A mapping gives the `ObservationSpec` of each.
    """

    observations: Collection[str]


def observed_by(
    source: ChunkSource, observation: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The keys of an observation that a source is given, in the source's order."""
    keys = source.observations if isinstance(source, Observing) else observation
    if missing := [key for key in keys if key not in observation]:
        raise DiffpolicyError(
            f"the policy observes {', '.join(keys)}; the environment has no {', '.join(missing)}, "
            f"but {', '.join(observation)}"
        )
    return {key: observation[key] for key in keys}


@runtime_checkable
class Planning(Protocol):
    """Optional part of a chunk source: a strategy for late chunks, else the stale head is dropped.

    If `late.plans`, its call takes a third argument: the plan of each row, None for a chunk that
    control waits for.
    """

    @property
    def late(self) -> DropHead:
        """Strategy for late chunks."""
        ...

    def __call__(
        self,
        observation: dict[str, np.ndarray],
        noise: np.ndarray,
        plans: Sequence[Plan | None],
        /,
    ) -> np.ndarray:
        """See `ChunkSource`."""
        ...


def late_of(source: ChunkSource) -> DropHead:
    """Strategy for late chunks of a source; one that has none drops the stale head."""
    return source.late if isinstance(source, Planning) else DropHead()


def planning(source: ChunkSource) -> Planning | None:
    """The source if its calls depend on plans."""
    return source if isinstance(source, Planning) and source.late.plans else None


@runtime_checkable
class Correcting(Protocol):
    """Optional part of a chunk source: it corrects single actions. None in its place: it does not.

    A row of a result depends on the same row of the arguments, and on B, alone.
    """

    def correct(
        self, observation: dict[str, np.ndarray], actions: np.ndarray, index: np.ndarray, /
    ) -> np.ndarray:
        """{key: [B, T_o, …]}, actions [B, D_a] and their rows [B] in chunks to actions [B, D_a]."""
        ...


def correcting(source: ChunkSource) -> Correcting | None:
    """The source if it corrects actions."""
    return source if isinstance(source, Correcting) else None


@runtime_checkable
class Engined(Protocol):
    """Optional part of a chunk source: engines that are built before episodes run."""

    name: str  # identity across processes

    def engine(self, batch: int = 1) -> Any:
        """The engine for calls of this batch size."""
        ...

    def prepare(self, batch: int = 1) -> str:
        """Build all that calls of this batch size need; the name of the engine."""
        ...

    def with_engine(self, name: str) -> Self:
        """The same source on another engine."""
        ...


def build_engine(source: ChunkSource, batch: int = 1) -> str | None:
    """Build the engine for a batch size now and return its name; None without engines."""
    return source.prepare(batch) if isinstance(source, Engined) else None


def on_one_engine(source: ChunkSource, batch: int = 1) -> ChunkSource:
    """The source with its engine for a batch size chosen, for use in another process."""
    return source.with_engine(source.engine(batch).name) if isinstance(source, Engined) else source
