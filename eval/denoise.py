"""`diffpolicy denoise`: pictures of x_t and x̂0 over the denoising steps of several budgets."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.environment.monitored import by_key
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line
from diffpolicy.sampling.grids import NAMED
from diffpolicy.specification import NO_ENVIRONMENT
from diffpolicy.terminal.output import say

from .data_config import DenoiseConfig
from .measure.held_out import held_out
from .measure.steps import steps_of
from .report.figure import png

COLUMNS = 6
FRAME_MS, LAST_FRAME_MS = 120, 1500
DPI = 80


@dataclass(frozen=True)
class Trajectory:
    """States of one budget from noise to actions, in the units of the actions."""

    name: str
    times: list[int]  # [K], the timesteps
    xs: np.ndarray  # [K + 1, B, ticks, D_a], the noise first
    x0s: np.ndarray  # [K, B, ticks, D_a]

    def at(self, progress: float) -> tuple[np.ndarray, np.ndarray | None, str]:
        """x_t, x̂0 (None before the first step) and a label, at a progress of 0 to 1."""
        k = round(progress * len(self.times))
        level = f"t = {self.times[k]}" if k < len(self.times) else "clean"
        return (
            self.xs[k],
            self.x0s[k - 1] if k else None,
            f"after {k} step{'s' * (k != 1)}, {level}",
        )


def denoise(config: DenoiseConfig) -> None:
    """Write the GIF and, beside it, a PNG strip."""
    strip_path = config.out.with_suffix(".png")
    if config.out.suffix != ".gif":
        raise DiffpolicyError(f"--out must be a .gif; got {config.out.name}")
    for path in (config.out, strip_path):
        check_writable(path)
    trajectories = trace(config)
    write_bytes(config.out, gif(trajectories))
    write_bytes(strip_path, png(draw_strip(trajectories)))
    print(f"wrote {config.out} and {strip_path}")


def trace(config: DenoiseConfig) -> list[Trajectory]:
    """Trajectory of every budget from one observation and the same noise."""
    checkpoint = load_policy(config.run)
    history = _history(config, checkpoint)
    named = config.grid in (None, *NAMED)
    steps = steps_of(config.ddim_steps, checkpoint.specification)
    budgets = steps if named else [None]  # a list fixes its steps
    samplings = [Sampling(ddim_steps=k, grid=config.grid) for k in budgets]
    policies = [Policy(checkpoint, sampling) for sampling in samplings]
    rng = np.random.default_rng(config.seed)
    noise = rng.standard_normal(policies[0].noise_shape(config.chunks), np.float32)
    found = []
    for policy in policies:
        say(audit_line(policy.chain))
        xs, x0s = policy.states(history, noise)
        times = [t for t, _ in policy.chain.grid]
        found.append(Trajectory(policy.chain.name, times, xs, x0s))
    return found


def _history(config: DenoiseConfig, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """One history {key: [B, T_o, …]} for all chunks: of the environment, or of the demonstrations.

    The first observation fills it: of the seed's episode, or of the first held-out demonstration.
    """
    specification = checkpoint.specification
    task = specification.task
    if config.data or task.env_id == NO_ENVIRONMENT:
        data = held_out(config.run, checkpoint, config.data)
        row = np.concatenate([[0], data.ends])[data.episodes[0]]
        say(f"{data.path}: first observation of episode {data.episodes[0]}")
        seen = {key: values[row] for key, values in data.observations.items()}
    else:
        env = environment.make(task.env_id, task.env_kwargs, camera=task.camera)
        environment.check_fit(env, task)
        seen = by_key(env.reset(seed=config.seed)[0])
        env.close()
    before = config.chunks, specification.horizons.observation
    return {k: np.broadcast_to(seen[k], (*before, *seen[k].shape)) for k in task.observations}


def draw_strip(trajectories: Sequence[Trajectory]) -> Figure:
    """Two rows for each budget, x_t and x̂0, from noise on the left to actions on the right.

    Columns are equal shares of the steps; a short budget is drawn only where it changes.
    """
    figure, axes = plt.subplots(
        2 * len(trajectories),
        COLUMNS,
        figsize=(2.2 * COLUMNS, 4.2 * len(trajectories)),
        squeeze=False,
        constrained_layout=True,
    )
    for row, trajectory in enumerate(trajectories):
        drawn = ""
        for column, progress in enumerate(np.linspace(0, 1, COLUMNS)):
            pair, where = axes[2 * row : 2 * row + 2, column], trajectory.at(progress)[2]
            if where == drawn:
                for axis in pair:
                    axis.axis("off")
            else:
                _draw_moment(pair, trajectory, progress)
            drawn = where
    return figure


def gif(trajectories: Sequence[Trajectory]) -> bytes:
    """One frame for each step of the longest budget; others advance at the same share."""
    count = max(len(t.times) for t in trajectories)
    frames = []
    for k in tqdm(range(count + 1), desc="draw", unit="frame"):
        figure, axes = plt.subplots(
            len(trajectories),
            2,
            figsize=(7, 3.4 * len(trajectories)),
            squeeze=False,
            constrained_layout=True,
            dpi=DPI,
        )
        for row, trajectory in zip(axes, trajectories, strict=True):
            _draw_moment(row, trajectory, k / count)
        frames.append(Image.open(io.BytesIO(png(figure, DPI))).convert("P"))
    buffer = io.BytesIO()
    durations = [FRAME_MS] * count + [LAST_FRAME_MS]
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def _draw_moment(axes, trajectory: Trajectory, progress: float) -> None:
    """Draw x_t on the first of two axes, x̂0 on the second."""
    x, x0, where = trajectory.at(progress)
    _draw_chunks(axes[0], trajectory, x)
    axes[0].set_title(f"{trajectory.name}: x_t {where}", fontsize=7)
    if x0 is None:
        axes[1].axis("off")
    else:
        _draw_chunks(axes[1], trajectory, x0)
    axes[1].set_title("x̂0", fontsize=7)


def _draw_chunks(axis, trajectory: Trajectory, chunks: np.ndarray) -> None:
    """Draw chunks [B, ticks, D_a] as paths in the plane if D_a is 2, else over the ticks."""
    plane = chunks.shape[-1] == 2
    low, high = _limits(trajectory)
    for chunk in chunks:
        if plane:
            axis.plot(*chunk.T, lw=0.7, alpha=0.6, color="#3b6fb6")
            axis.scatter(*chunk.T, c=np.arange(len(chunk)), cmap="viridis", s=5)
        else:
            axis.set_prop_cycle(None)
            axis.plot(chunk, lw=0.8, alpha=0.6)
    axis.set_ylim(low[-1] if plane else low.min(), high[-1] if plane else high.max())
    if plane:
        axis.set_xlim(low[0], high[0])
        axis.set_aspect("equal")
    axis.tick_params(labelsize=6)


def _limits(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Limits of all pictures of a budget: the range of x̂0, widened by half of it at each end."""
    low, high = (f(trajectory.x0s, axis=(0, 1, 2)) for f in (np.min, np.max))
    margin = 0.5 * (high - low) + 1e-6
    return low - margin, high + margin
