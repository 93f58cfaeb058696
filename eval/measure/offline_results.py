"""Result of `diffpolicy offline`: errors of actions on demonstrations, without an environment.

Distances of actions are in standard deviations of the demonstrations' actions (see action_error),
unless a field says otherwise. Shapes: E episodes, S samples, D_a dimensions of an action.
"""

from dataclasses import dataclass, field
from typing import Annotated

from diffpolicy.checked import NOT_EMPTY, Range, shown
from diffpolicy.errors import DiffpolicyError

from ..config import MILLISECONDS
from .computer import Provenance
from .results import Audit, Cameras, Count, Name, Number, Percentiles, Positive, Rate, Source


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over episodes with its 95 % interval; None for fewer than two episodes."""

    mean: Positive
    ci: tuple[Positive, Positive] | None


@dataclass(frozen=True, kw_only=True)
class OfflineProvenance(Provenance):
    """Provenance, demonstrations and options of offline figures.

    episodes: numbers of the episodes in the data, which are told by held_out. observations: those
    that chunks were computed from. sigma [D_a]: standard deviations of the actions, in units of the
    data; 0 for a constant dimension, which does not count.
    """

    run: str
    checkpoint: Source = field(default_factory=Source)
    env: Name
    data: str
    held_out: Name
    episodes: Annotated[list[Count], NOT_EMPTY]
    episodes_in_data: Count
    observations: Count
    pairs: Count
    samples: Annotated[int, Range(1, 10**6)]
    seed: Count
    padded_batch: Count
    control_dt_s: Annotated[float, Range(1e-9, 1e9)]
    observation_horizon: Count
    prediction_horizon: Count
    action_horizon: Count
    sigma: list[Positive]


@dataclass(frozen=True, kw_only=True)
class References:
    """Errors of predictions without a policy, for scale.

    hold, hold_chunk: of repeating the action before the chunk, over the executed actions and over
    the whole chunk. constant: of the mean action of the data. change: mean distance of consecutive
    demonstrated actions.
    """

    hold: Estimate
    hold_chunk: Estimate
    constant: Estimate
    change: Positive


@dataclass(frozen=True, kw_only=True)
class OfflineRow:
    """Figures of one budget.

    error: of the executed actions. error_chunk: of all usable ones. error_of_mean: of the mean over
    the samples of an observation, executed actions. spread: mean distance of two samples; None for
    one. distance: from the sample of the largest budget with the same noise. seam: distance of two
    consecutive chunks at the tick where the second takes over; None where they do not overlap.
    seam_ratio: to the change of the demonstrations. by_dimension [D_a]: error in units of the data.
    episode_errors [E]: the error of each episode. engine: that of the latency; chunk_engine: that
    of the chunks, which come in batches. samples_ms [S]: latencies, which can be replayed.
    """

    name: Name
    ddim_steps: Count
    network_evals: Count
    variant: Name = ""
    audit: Audit
    engine: Name
    chunk_engine: Name
    error: Estimate
    error_chunk: Estimate
    error_of_mean: Estimate
    spread: Estimate | None
    distance: Estimate
    seam: Estimate | None
    seam_ratio: Positive | None
    by_dimension: list[Number]
    episode_errors: list[Positive]
    latency_ms: Percentiles
    encoder_ms: Positive | None = None
    load: Name | None = None  # quiet, disturbed or unknown
    parameters: Count
    precision: Name = "float32"
    cameras: Cameras | None = None
    crop: Rate | None = None
    samples_ms: Annotated[list[float], MILLISECONDS] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class OfflineResult:
    """Result of `diffpolicy offline`; reference: name of the largest budget."""

    provenance: OfflineProvenance
    rows: Annotated[list[OfflineRow], NOT_EMPTY]
    references: References
    reference: Name

    def __post_init__(self):
        count = len(self.provenance.episodes)
        for row in self.rows:
            if len(row.episode_errors) != count:
                raise DiffpolicyError(
                    f"expected an error of each of {count} episodes; {shown(row.name)} has "
                    f"{len(row.episode_errors)}"
                )
