"""Trajectories of a teacher: the states of its chain from fresh noise to the chunk.

Shapes: W windows, K steps, T_p rows and D_a dimensions of a chunk.
"""

from dataclasses import replace

import numpy as np
import torch

from diffpolicy.data.windows import Windows
from diffpolicy.device import check_memory
from diffpolicy.engines import build_encoder
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.policy import Policy
from diffpolicy.terminal.progress import progress_bar
from diffpolicy.training.learner import gather

BATCH, PICTURE_BATCH = 1024, 64
DISPLACEMENT = 0.05  # standard deviation, of data scaled to [-1, 1] or to deviation 1
DISPLACED_STREAM = 0xD15  # apart from the noise of the same seed


def repeated(windows: Windows, count: int) -> Windows:
    """The windows as often as needed to be at least `count`."""
    times = -(-count // len(windows))
    names = ("newest", "first", "last")
    return replace(windows, **{name: np.tile(getattr(windows, name), times) for name in names})


def displaced(windows: Windows, count: int, seed: int) -> Windows:
    """Copies of the windows, at least `count` in all, the first one as it is.

    In every other copy the observations of each episode are displaced by one draw of
    N(0, DISPLACEMENT²), in normalised units: a teacher answers beside the demonstrations too.
    Windows with pictures are `repeated`.
    """
    if any(len(values.shape) > 2 for values in windows.observations.values()):
        return repeated(windows, count)
    rows, copies = len(windows.actions), range(-(-count // len(windows)))
    rng = np.random.default_rng([seed, DISPLACED_STREAM])
    moved = {
        key: np.concatenate([values, *(_displaced(windows, values, rng) for _ in copies[1:])])
        for key, values in windows.observations.items()
    }
    names = ("newest", "first", "last")
    parts = {name: [getattr(windows, name) + rows * copy for copy in copies] for name in names}
    index = {name: np.concatenate(found) for name, found in parts.items()}
    actions = np.concatenate([windows.actions] * len(copies))
    return replace(windows, observations=moved, actions=actions, **index)


def _displaced(windows: Windows, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vectors [N, D], those of each episode of the windows with one displacement."""
    starts, of_window = np.unique(windows.first, return_inverse=True)
    offsets = rng.normal(0, DISPLACEMENT, (len(starts), values.shape[1])).astype(values.dtype)
    found = values.copy()
    found[windows.newest] += offsets[of_window]
    return found


def with_trajectories(
    windows: Windows, teacher: Policy, seed: int, *, states: bool = True
) -> Windows:
    """The windows with a trajectory of the teacher each, float16 [W, K + 1, T_p, D_a].

    states: keep all x^(0) … x^(K); else the noise x^(0) and the chunk x^(K) alone. The noise is
    rounded to float16 first, so that it belongs to its chunk exactly. Raises DiffpolicyError if
    they exceed the memory.
    """
    count, shape = len(windows), teacher.noise_shape(len(windows))[2:]
    kept = teacher.network_evals + 1 if states else 2
    what = f"{count:,} trajectories of {kept} states; fewer --teacher-steps need less, it"
    check_memory(2 * count * kept * shape[0] * shape[1], torch.device("cpu"), what)
    found = torch.empty((count, kept, *shape), dtype=torch.float16)
    generator = torch.Generator().manual_seed(seed)
    pictures = any(spec.is_picture for spec in teacher.observations.values())
    batch = min(PICTURE_BATCH if pictures else BATCH, count)
    job = teacher.job(batch)
    encode, engine = build_encoder("eager", job), EagerEngine(job)
    with progress_bar(total=count, desc="teacher", unit="chunk") as bar:
        for index in torch.arange(count).split(batch):
            noise = torch.randn((1, len(index), *shape), generator=generator).half().float()
            passed = [x for x, _ in engine.states(encode(gather(windows, index)[0]), noise)]
            chosen = passed if states else passed[-1:]
            found[index] = torch.stack([noise[0], *chosen], dim=1).half()
            bar.update(len(index))
    return replace(windows, trajectories=found.numpy())
