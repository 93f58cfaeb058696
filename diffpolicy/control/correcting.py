"""Correction of every action in control, by an observation that is newer than its chunk's.

The head is given the observation of the tick before the action's, so it has a whole tick to run.

Shapes: B batch, T_o observation horizon, D_a action dimensions.
"""

from collections.abc import Sequence

import numpy as np

from diffpolicy.control.chunk_source import ChunkSource, correcting
from diffpolicy.control.episode import RunningEpisode, stacked


def corrections(
    source: ChunkSource, episodes: Sequence[RunningEpisode], batch: int
) -> list[np.ndarray | None]:
    """Corrected action [D_a] of each episode's tick, in calls padded to the fixed batch.

    None: the action stays as it is. So at the first tick, which has none before, and where no chunk
    has an action. An action that is not finite ends its episode, as the policy's failure.
    """
    found: list[np.ndarray | None] = [None] * len(episodes)
    if (head := correcting(source)) is None:
        return found
    running = ((i, e) for i, e in enumerate(episodes) if e.before and not e.failure)
    planned = ((i, e.controller.planned(e.tick)) for i, e in running)
    ready = [(i, *action) for i, action in planned if action is not None]
    for first in range(0, len(ready), batch):
        places, actions, rows = zip(*ready[first : first + batch], strict=True)
        given = np.zeros((batch, len(actions[0])), actions[0].dtype)
        given[: len(actions)] = actions
        index = np.zeros(batch, np.int64)
        index[: len(rows)] = rows
        befores = [episodes[i].before for i in places]
        history = {key: stacked([b[key] for b in befores], batch) for key in befores[0]}
        for i, action in zip(places, head.correct(history, given, index), strict=False):
            episodes[i].check_chunk(action[None])
            found[i] = action
    return found
