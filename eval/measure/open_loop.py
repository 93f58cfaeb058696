"""Open loop: chunks of a policy from the observations of demonstrations, beside their actions.

Shapes: W observations, S samples of each, T_p predicted actions, T_u = T_p - T_o + 1 usable ones,
D_a dimensions of an action.
"""

from dataclasses import dataclass

import numpy as np

from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.policy import Policy
from diffpolicy.specification import Horizons
from diffpolicy.terminal.progress import progress_bar

from .held_out import HeldOut

NOISE_STREAM = 0x0FF  # apart from the streams of closed loop


@dataclass(frozen=True)
class OpenLoop:
    """Observations to predict from.

    index [W]: into the windows. number, tick [W]: of the episode in the data, and in the episode.
    episode [W]: position among the chosen episodes. pairs [P, 2]: rows of a chunk and of the one
    that takes over T_a ticks later.
    """

    windows: Windows
    index: np.ndarray
    number: np.ndarray
    episode: np.ndarray
    tick: np.ndarray
    pairs: np.ndarray

    def actions(self) -> tuple[np.ndarray, np.ndarray]:
        """Demonstrated actions [W, T_u, D_a], and [W, T_u] False beyond the end of an episode."""
        past = self.windows.horizons.observation - 1
        _, actions, real = self.windows.gather(self.index)
        return actions[:, past:], real[:, past:]

    def before(self) -> np.ndarray:
        """The demonstrated action before each observation [W, D_a]; the first one at tick 0."""
        rows = self.windows.newest[self.index]
        return self.windows.actions[np.maximum(rows - 1, self.windows.first[self.index])]


def open_loop(data: HeldOut, episodes: np.ndarray, horizons: Horizons, most: int) -> OpenLoop:
    """Up to `most` pairs of consecutive chunks in each episode, evenly spaced."""
    windows = make_windows(data.observations, data.actions, data.ends, horizons, episodes)
    lengths = np.diff(data.ends, prepend=0)[episodes]
    begins = np.cumsum(lengths) - lengths
    index, episode, pairs = [], [], []
    for i, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        ticks, of_episode = paired_ticks(int(length), horizons.action, most)
        pairs.append(of_episode + sum(map(len, index)))
        index.append(begin + ticks)
        episode.append(np.full(len(ticks), i))
    where = np.concatenate(index)
    rows = np.concatenate(episode)
    tick = windows.newest[where] - windows.first[where]
    return OpenLoop(windows, where, episodes[rows], rows, tick, np.concatenate(pairs))


def paired_ticks(length: int, action_horizon: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Ticks [W] of an episode, increasing, and the pairs [P, 2] of them that are T_a apart.

    The earlier ticks of up to `most` pairs are evenly spaced; an episode that is too short for a
    pair has its first tick alone.
    """
    room = length - action_horizon
    if room < 1:
        return np.zeros(1, np.int64), np.empty((0, 2), np.int64)
    first = np.unique(np.linspace(0, room - 1, min(most, room)).round().astype(np.int64))
    ticks = np.union1d(first, first + action_horizon)
    return ticks, np.stack([np.searchsorted(ticks, t) for t in (first, first + action_horizon)], 1)


def sample_chunks(
    policy: Policy, loop: OpenLoop, samples: int, seed: int, batch: int
) -> np.ndarray:
    """Chunks [W, S, T_u, D_a]; the batch has a fixed, padded size, so that they repeat to the bit.

    Noise is keyed by (seed, episode, tick, sample), the same for every budget.
    """
    rows = np.repeat(np.arange(len(loop.index)), samples)
    sample = np.tile(np.arange(samples), len(loop.index))
    found = []
    with progress_bar(total=len(rows), desc=policy.chain.name, unit="chunk", leave=False) as bar:
        for start in range(0, len(rows), batch):
            part = np.minimum(np.arange(start, start + batch), len(rows) - 1)
            count = min(batch, len(rows) - start)
            observations, _, _ = loop.windows.gather(loop.index[rows[part]])
            noise = _noise(policy, loop, rows[part], sample[part], seed)
            found.append(policy(observations, noise)[:count])
            bar.update(count)
    chunks = np.concatenate(found)
    return chunks.reshape(len(loop.index), samples, *chunks.shape[1:])


def _noise(
    policy: Policy, loop: OpenLoop, rows: np.ndarray, sample: np.ndarray, seed: int
) -> np.ndarray:
    """[draws, B, T_p, D_a]; x_T comes first, so samplers with more draws share it."""
    count, _, *chunk = policy.noise_shape(1)
    keys = zip(loop.number[rows], loop.tick[rows], sample, strict=True)
    drawn = [
        np.random.default_rng([seed, *map(int, key), NOISE_STREAM]).standard_normal(
            (count, *chunk), np.float32
        )
        for key in keys
    ]
    return np.stack(drawn, axis=1)
