"""A sampler as a table: one row for each network evaluation, and the loop over the rows.

Every linear sampler is such a table: DDIM, DDPM, DPM-Solver++, EDM's Heun method (two rows a step),
flow matching. Parameterisation and clipping stand in the row, so engines know no method by name.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

Denoise = Callable[[Tensor, int], Tensor]
"""(x [B, T_p, D_a], k) -> the network's output y [B, T_p, D_a] in row k of the table."""


class Row(NamedTuple):
    """One evaluation of the network, y = f(x, t), as Python floats (float64).

        x̂0 = clip((read_x x + read_y y) / read_divisor, ± clip)
        x  ← x x + y y + x0 x̂0 + previous x̂0_previous + earlier x̂0_earlier + z z

    The division comes last because 1/√ᾱ reaches 2029 at the end of the squaredcos schedule: the
    small difference x - √(1-ᾱ) ε̂ is taken first, and at √ᾱ = 0 a clipped x̂0 is ± clip.
    x̂0_previous is the x̂0 of the row before, x̂0_earlier that of the one before it; the first row
    must use neither, the second one not x̂0_earlier.
    """

    t: int
    read_x: float
    read_y: float
    read_divisor: float = 1.0
    clip: float = math.inf
    x: float = 0.0
    y: float = 0.0
    x0: float = 0.0
    previous: float = 0.0
    earlier: float = 0.0
    z: float = 0.0


def read(x: Tensor, y: Tensor, row: Row) -> Tensor:
    """x̂0 [B, …] of the sample x [B, …] and the network's output y [B, …]."""
    x0 = _sum((row.read_x, x), (row.read_y, y)) / row.read_divisor
    return x0 if row.clip == math.inf else x0.clamp(-row.clip, row.clip)


def move(
    x: Tensor,
    y: Tensor,
    x0: Tensor,
    row: Row,
    previous: Tensor | None = None,
    z: Tensor | None = None,
    earlier: Tensor | None = None,
) -> Tensor:
    """The next sample [B, …]; previous, earlier: x̂0 of the rows before, z: noise, if it uses them.

    Raises ValueError if one of them is needed and missing.
    """
    if row.z and z is None:
        raise ValueError("a step with η > 0 needs the noise z")
    if (row.previous and previous is None) or (row.earlier and earlier is None):
        raise ValueError("the first rows of a table cannot use the x̂0 of rows before")
    given = (row.previous, previous), (row.earlier, earlier), (row.z, z)
    optional = [(c, v) for c, v in given if v is not None]
    return _sum((row.x, x), (row.y, y), (row.x0, x0), *optional)


def _sum(*terms: tuple[float, Tensor]) -> Tensor:
    """Σ c v, without the terms that are zero."""
    return reduce(add, [c * v for c, v in terms if c])


def states(denoise: Denoise, noise: Tensor, rows: Sequence[Row]) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, x̂0), each [B, T_p, D_a], after every row, from x = noise[0].

    noise: [noise_count(rows), B, T_p, D_a].
    """
    x, previous, earlier = noise[0], None, None
    for k, row in enumerate(rows):
        y = denoise(x, k)
        x0 = read(x, y, row)
        x = move(x, y, x0, row, previous, noise[k + 1] if row.z else None, earlier)
        previous, earlier = x0, previous
        yield x, x0


def sample(denoise: Denoise, noise: Tensor, rows: Sequence[Row]) -> Tensor:
    """The last sample [B, T_p, D_a] from noise [noise_count(rows), B, T_p, D_a]."""
    x = noise[0]
    for x, _ in states(denoise, noise, rows):  # noqa: B007
        pass
    return x


def noise_count(rows: Sequence[Row]) -> int:
    """Number of noise tensors that K rows use: 1, and K more if any noise is injected."""
    return 1 + len(rows) * any(row.z != 0 for row in rows)


def with_noise(x: Tensor, rows: Sequence[Row], generator: torch.Generator | None = None) -> Tensor:
    """x [B, …] and the noise that the rows inject, drawn at once: [noise_count(rows), B, …]."""
    shape = (noise_count(rows) - 1, *x.shape)
    drawn = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.cat([x[None], drawn])
