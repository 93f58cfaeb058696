"""Timestep grids: the noise levels that a budget of K steps visits, as pairs (t, s).

A pair is one step: the network is evaluated at timestep t, and the sample goes to level s. Named
spacings take K of n timesteps, falling; `make_grid` applies them to a part of the chain.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.noise import CLEAN, Level

Grid = list[tuple[int, int]]


def trailing(n: int, k: int) -> list[int]:
    """n, n - n/K, … less 1: evenly spaced, counted down from the end (arXiv 2305.08891, table 2).

    Every budget starts at pure noise, as in training. The arithmetic is that of diffusers, without
    the extra step that its rounding errors can add.
    """
    return (np.arange(n, 0, -n / k).round().astype(int)[:k] - 1).tolist()


def leading(n: int, k: int) -> list[int]:
    """… 2⌊n/K⌋, ⌊n/K⌋, 0: counted up from the start. Fewer steps start later, at less noise."""
    return [i * (n // k) for i in reversed(range(k))]


def linspace(n: int, k: int) -> list[int]:
    """n - 1 down to 0, both ends included; a single step is made at 0."""
    return np.linspace(0, n - 1, k).round().astype(int)[::-1].tolist()


def loop(n: int, k: int) -> list[int]:
    """The integers of linspace(-1, n - 1, K + 1) without -1, as in denoising-diffusion-pytorch.

    Computed in integers, because float32 can repeat a timestep if K is near n.
    """
    return [i * n // k - 1 for i in range(k, 0, -1)]


def quadratic(n: int, k: int) -> list[int]:
    """⌊c i²⌋ with c such that the first step is made at n - 1 (arXiv 2010.02502, appendix D.2).

    Dense at low noise. Large budgets repeat the lowest timesteps.
    """
    return [(n - 1) * i**2 // k**2 for i in range(k, 0, -1)]


DEFAULT_STEPS = 10
SPACINGS = {f.__name__: f for f in (trailing, leading, linspace, loop, quadratic)}
START_SHARE = 10 / 11  # of T - 1, where grids in σ start: 90 of 0 … 99
MOST_SIGMA = 80.0  # of their start (arXiv 2206.00364, table 1)
KARRAS_ρ = 7.0


def log_snr_times(levels: Sequence[Level], k: int) -> list[int]:
    """K timesteps evenly spaced in λ = ln(a/b) from the last level to the first (2211.01095)."""
    λ = np.array([level.log_snr for level in levels])
    return _falling(np.linspace(λ[-1], λ[0], k), λ)


def karras_times(levels: Sequence[Level], k: int) -> list[int]:
    """K timesteps evenly spaced in σ^(1/7), σ = b/a, from the last level (2206.00364, eq. 5)."""
    λ = np.array([level.log_snr for level in levels])
    ends = np.exp(-λ[[-1, 0]]) ** (1 / KARRAS_ρ)
    return _falling(-KARRAS_ρ * np.log(np.linspace(ends[0], ends[1], k)), λ)


def _falling(wanted: np.ndarray, λ: np.ndarray) -> list[int]:
    """The nearest timesteps in λ [T], strictly falling: a repeated one moves down."""
    times = [int(np.abs(λ - at).argmin()) for at in wanted]
    for i in range(1, len(times)):
        times[i] = min(times[i], times[i - 1] - 1)
    for i in reversed(range(len(times))):  # and up again at the end of the chain
        times[i] = max(times[i], len(times) - 1 - i)
    return times


def _usual_start(levels: Sequence[Level]) -> int:
    """10/11 of T - 1, or the last timestep before it with σ ≤ 80."""
    times = range(round(START_SHARE * (len(levels) - 1)), 0, -1)
    return next((t for t in times if levels[t].sigma <= MOST_SIGMA), 0)


LEVEL_SPACINGS = {"lambda": log_snr_times, "karras": karras_times}
OPTIMISED = "optimised"
NAMED = (*SPACINGS, *LEVEL_SPACINGS, OPTIMISED)


def make_level_grid(
    levels: Sequence[Level], ddim_steps: int, spacing: str, start: int | None = None, end: int = 0
) -> Grid:
    """K pairs spaced by noise level from `start`, by default 10/11 of T - 1, down to `end`.

    From the end of the squaredcos schedule, where σ is 2029, most steps would stay above t = 95.
    Raises DiffpolicyError for a start with σ > 80, and as `make_grid`.
    """
    start = _usual_start(levels) if start is None else start
    make_grid(len(levels), ddim_steps, start=start, end=end)  # the same limits
    if levels[start].sigma > MOST_SIGMA:
        raise DiffpolicyError(
            f"the grid {spacing} must start at a noise σ of at most {MOST_SIGMA:g}; t = {start} "
            f"has {levels[start].sigma:.4g}; leave out --start, or give a smaller one"
        )
    return pairs([end + t for t in LEVEL_SPACINGS[spacing](levels[end : start + 1], ddim_steps)])


def pairs(times: Sequence[int], final: int = CLEAN) -> Grid:
    """Falling timesteps as steps, the last one to the level `final`: CLEAN (ᾱ = 1), or 0 (ᾱ_0)."""
    return list(zip(times, [*times[1:], final], strict=True))


def make_grid(
    timesteps: int,
    ddim_steps: int,
    spacing: str = "trailing",
    start: int | None = None,
    end: int = 0,
    final: int = CLEAN,
) -> Grid:
    """K pairs over the timesteps from `start` (by default T - 1) down to `end`.

    The part of the chain between the two is spaced as if it were the whole one. Raises
    DiffpolicyError if it has fewer than K timesteps.
    """
    start = timesteps - 1 if start is None else start
    if not 0 <= end <= start < timesteps:
        raise DiffpolicyError(
            f"a grid must have 0 <= end <= start <= {timesteps - 1}; got start {start}, end {end}"
        )
    levels = start - end + 1
    if not 1 <= ddim_steps <= levels:
        part = f"from {start} to {end}" if levels < timesteps else "of the chain"
        raise DiffpolicyError(
            f"ddim_steps must lie between 1 and the {levels} timesteps {part}; got {ddim_steps}"
        )
    return pairs([end + t for t in SPACINGS[spacing](levels, ddim_steps)], final)


def listed_grid(timesteps: int, times: Sequence[int], final: int = CLEAN) -> Grid:
    """The pairs of explicit timesteps; DiffpolicyError unless in range and strictly falling."""
    falling = all(t > s for t, s in pairwise(times))
    if not times or not falling or times[0] >= timesteps or times[-1] < 0:
        raise DiffpolicyError(
            f"a list of timesteps must fall strictly, from at most {timesteps - 1} to at least 0; "
            f"got {', '.join(map(str, times)) or 'none'}"
        )
    return pairs(times, final)


def parse_grid(
    levels: Sequence[Level], text: str, ddim_steps: int | None, start: int | None, end: int
) -> Grid:
    """The grid of a spacing's name (by default 10 steps) or of a list of timesteps like "85,20".

    A list fixes steps and ends. Raises DiffpolicyError for other texts and misfits.
    """
    timesteps, steps = len(levels), DEFAULT_STEPS if ddim_steps is None else ddim_steps
    if text in SPACINGS:
        return make_grid(timesteps, steps, text, start, end)
    if text in LEVEL_SPACINGS:
        return make_level_grid(levels, steps, text, start, end)
    try:
        times = [int(part) for part in text.split(",")]
    except ValueError:
        names = ", ".join(NAMED)
        raise DiffpolicyError(
            f"a grid must be one of {names}, or timesteps like 85,20; got {text!r}"
        ) from None
    if start is not None or end or ddim_steps not in (None, len(times)):
        raise DiffpolicyError(
            f"the timesteps {text} are a grid of {len(times)} steps with its own ends; leave out "
            "--ddim-steps, --start and --end"
        )
    return listed_grid(timesteps, times)


def duplicates(grid: Grid) -> int:
    """Number of steps that stay at their level: a timestep that is visited again."""
    return sum(t == s for t, s in grid)
