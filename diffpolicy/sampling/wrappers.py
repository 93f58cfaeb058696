"""Changes to a sampler that no step table can express, for PyTorch loops only.

`reuse` and `self_conditioned` wrap the denoiser of `steps.sample`; `dynamic_threshold` is applied
between `steps.read` and `steps.move`. Other engines run tables alone, so no policy offers these.
"""

from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor

from diffpolicy.sampling.steps import Denoise, Row, read


def dynamic_threshold(x0: Tensor, ratio: float, maximum: float) -> Tensor:
    """Each sample of x0 [B, …] clipped to ±s and divided by s, the `ratio` quantile of its |x0|.

    s lies in [1, maximum] (Imagen, arXiv 2205.11487, sec. 2.3).
    """
    flat = x0.flatten(1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    s = flat.abs().quantile(ratio, dim=1, keepdim=True).clamp(1, maximum)
    return (flat.clamp(-s, s) / s).view_as(x0).to(x0.dtype)


def reuse(denoise: Denoise, reused: Container[int]) -> Denoise:
    """The same denoiser, repeating its last output, without an evaluation, in the rows `reused`."""
    last: Tensor | None = None

    def cached(x: Tensor, k: int) -> Tensor:
        nonlocal last
        if k == 0 or k not in reused or last is None:
            last = denoise(x, k)
        return last

    return cached


def self_conditioned(
    denoise: Callable[[Tensor, int, Tensor | None], Tensor], rows: Sequence[Row]
) -> Denoise:
    """A denoiser that also sees the previous row's x̂0, None at first (arXiv 2208.04202)."""
    previous: Tensor | None = None

    def conditioned(x: Tensor, k: int) -> Tensor:
        nonlocal previous
        y = denoise(x, k, previous if k else None)
        previous = read(x, y, rows[k])
        return y

    return conditioned
