"""Trajectories of a teacher: the states of its chain from fresh noise to the chunk.

Shapes: W windows, K steps, T_p rows and D_a dimensions of a chunk.
"""

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from diffpolicy.data.windows import Windows
from diffpolicy.device import check_memory
from diffpolicy.engines import build_encoder
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.policy import Policy
from diffpolicy.training.learner import gather

BATCH, PICTURE_BATCH = 1024, 64


def repeated(windows: Windows, count: int) -> Windows:
    """The windows as often as needed to be at least `count`."""
    times = -(-count // len(windows))
    names = ("newest", "first", "last")
    return replace(windows, **{name: np.tile(getattr(windows, name), times) for name in names})


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
    with tqdm(total=count, desc="teacher", unit="chunk") as bar:
        for index in torch.arange(count).split(batch):
            noise = torch.randn((1, len(index), *shape), generator=generator).half().float()
            passed = [x for x, _ in engine.states(encode(gather(windows, index)[0]), noise)]
            chosen = passed if states else passed[-1:]
            found[index] = torch.stack([noise[0], *chosen], dim=1).half()
            bar.update(len(index))
    return replace(windows, trajectories=found.numpy())
