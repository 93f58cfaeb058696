"""Windows of (observation history, action chunk), gathered by index.

The horizons, drawn once for T_o = 2, T_p = 8, T_a = 4; row t holds the newest observation:

    row                 t-1   t   t+1  t+2  t+3  t+4  t+5  t+6
    observations         o    o
    predicted actions    p    p    p    p    p    p    p    p
    executed actions          a    a    a    a

So the chunk starts at row t - T_o + 1, and T_p - T_o + 1 of its actions can still be executed.
Rows before an episode's start repeat its first row, rows beyond its end the last one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy.data.stored_pictures import StoredPictures
from diffpolicy.specification import Horizons


@dataclass(frozen=True)
class Windows:
    """Every row of the chosen episodes as the newest observation of one window.

    observations {key: [N, …]} and actions [N, D_a] are numpy arrays, or tensors on any device: the
    same indexing serves both. Pictures may be `StoredPictures`, which are read when indexed.
    newest, first, last [W] are int64 of the same kind: the row of the newest observation and the
    ends of its episode. history [T_o], chunk [T_p]: rows relative to it. trajectories [W, k + 1,
    T_p, D_a]: the states of a teacher's chain and its end, in place of the actions.
    """

    observations: dict[str, Any]
    actions: Any
    newest: Any
    first: Any
    last: Any
    history: Any
    chunk: Any
    horizons: Horizons
    trajectories: Any = None

    def __len__(self) -> int:
        """W, the number of windows."""
        return len(self.newest)

    @property
    def in_memory(self) -> bool:
        """True if no observation is read from disk."""
        return not any(isinstance(x, StoredPictures) for x in self.observations.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the observations and actions in memory."""
        held = [] if self.trajectories is None else [self.trajectories]
        return sum(x.nbytes for x in (*self.observations.values(), self.actions, *held))

    def gather(self, index, rows: slice = slice(None)) -> tuple[dict[str, Any], Any, Any]:
        """index [B] -> observations {key: [B, T_o, …]}, actions [B, T_p, D_a], real [B, T_p] bool.

        rows: of the batch whose observations are gathered; its actions are in any case.
        `real` is False for an action that repeats the first or the last one of its episode. With
        trajectories, these [B, k + 1, T_p, D_a] are returned instead, and all of it is real.
        """
        newest, first, last = (x[index][:, None] for x in (self.newest, self.first, self.last))
        seen = (newest + self.history).clip(first, last)[rows]
        wanted = newest + self.chunk
        rows = wanted.clip(first, last)
        observations = {key: x[seen] for key, x in self.observations.items()}
        if self.trajectories is not None:
            return observations, self.trajectories[index], rows >= first
        return observations, self.actions[rows], rows == wanted

    def to(self, device) -> "Windows":
        """The same windows as tensors on a torch device."""
        import torch

        names = ("actions", "newest", "first", "last", "history", "chunk")
        moved = {name: torch.as_tensor(getattr(self, name), device=device) for name in names}
        seen = {k: torch.as_tensor(x, device=device) for k, x in self.observations.items()}
        held = self.trajectories
        held = None if held is None else torch.as_tensor(held, device=device)
        return Windows(seen, **moved, horizons=self.horizons, trajectories=held)


def make_windows(
    observations: dict[str, np.ndarray],
    actions: np.ndarray,
    episode_ends: np.ndarray,
    horizons: Horizons,
    episodes: np.ndarray | None = None,
) -> Windows:
    """Windows over all rows of the given episodes (all by default); arrays are [N, …]."""
    starts = np.concatenate([[0], episode_ends[:-1]])
    chosen = np.arange(len(episode_ends)) if episodes is None else np.sort(episodes)
    lengths = (episode_ends - starts)[chosen]
    first = np.repeat(starts[chosen], lengths)
    last = np.repeat(episode_ends[chosen] - 1, lengths)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    past = horizons.observation - 1
    newest = first + np.arange(len(first)) - begins
    history, chunk = np.arange(-past, 1), np.arange(-past, horizons.usable)
    return Windows(observations, actions, newest, first, last, history, chunk, horizons)
