"""Plans: the actions that are known when an inference starts, for one episode and for a batch.

Row r of a chunk belongs to tick t - (T_o - 1) + r, with t the tick of the newest observation. Rows
before T_o - 1 are executed actions; the rows from there on that the chunk in use still covers will
be executed unless a new chunk arrives first.

Shapes: B batch, T_o observation and T_p prediction horizon, D_a action dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffpolicy.data.normalizer import Normalizer
from diffpolicy.specification import Horizons

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """One episode at the tick of an observation, in the units of the actions.

    executed: the last actions before it, at most T_o - 1, [n, D_a]; planned: those of the chunk in
    use from this tick on, [m, D_a], none before the first chunk and after starvation. delay:
    expected delay of the new chunk in ticks. A chunk that control waits for has no plan (None).
    """

    executed: np.ndarray
    planned: np.ndarray
    delay: int


@dataclass(frozen=True)
class Plans:
    """A batch of plans, normalised.

    actions [B, T_p, D_a]: rows of the new chunk as the plan has them, the last planned row repeated
    after the plan, the first known row before it; zeros if nothing is planned. executed, planned
    [B]: number of known rows before T_o - 1 and from there on. delay [B]: expected delay in ticks.
    waited [B]: True for a chunk that control waits for, which has no plan.
    """

    actions: "Tensor"
    executed: "Tensor"
    planned: "Tensor"
    delay: "Tensor"
    waited: "Tensor"


def gather_plans(
    plans: Sequence[Plan | None], horizons: Horizons, normalizer: Normalizer, action_dim: int
) -> Plans:
    """The batch of plans; the actions and counts of rows that plan nothing are zero."""
    import torch  # here, as control makes plans without it

    ahead = horizons.observation - 1
    actions = np.zeros((len(plans), horizons.prediction, action_dim), np.float32)
    counts = np.zeros((3, len(plans)), np.int64)
    for row, plan in enumerate(plans):
        if plan is None or not len(plan.planned):
            continue
        executed, planned = plan.executed[-ahead:] if ahead else [], plan.planned
        known = np.concatenate([x for x in (executed, planned) if len(x)])
        places = np.arange(horizons.prediction) - ahead + len(executed)
        actions[row] = normalizer.normalize(known[places.clip(0, len(known) - 1)])
        counts[:, row] = len(executed), min(len(planned), horizons.usable), plan.delay
    executed, planned, delay = map(torch.from_numpy, counts)
    waited = torch.tensor([plan is None for plan in plans])
    return Plans(torch.from_numpy(actions), executed, planned, delay, waited)
