"""Committed actions as an observation: those that will be executed before a late chunk arrives.

A network with `prefix_max` D > 0 sees them beside the observation of its run, and completes them
(trained real-time chunking, arXiv 2512.05964). Shapes: B batch, T_o and T_p horizons, D_a action
dimensions, m of D actions given.
"""

import torch
from torch import Tensor

COMMITTED = "committed"  # key of the encoder, beside those of the task


def committed(chunk: Tensor, count: Tensor, ahead: int, most: int) -> Tensor:
    """Rows T_o - 1 to T_o - 2 + m of normalised chunks [B, T_p, D_a]: [B, D, D_a + 1].

    count [B]: m, at most D = most. ahead: T_o - 1. The last column is 1 where a row is given; the
    others are zero.
    """
    given = (torch.arange(most, device=count.device) < count[:, None]).to(chunk.dtype)[..., None]
    return torch.cat([chunk[:, ahead : ahead + most] * given, given], dim=-1)


def given_rows(count: Tensor, ahead: int, rows: int) -> Tensor:
    """True for the rows of chunks that m committed actions fill: [B, T_p], with m = count [B]."""
    row = torch.arange(rows, device=count.device)
    return (row >= ahead) & (row < ahead + count[:, None])


def draw_counts(batch: int, most: int, generator: torch.Generator) -> Tensor:
    """m [B] of training: 0 with probability ½, else uniform over 1 to D = most."""
    drawn = {"generator": generator, "device": generator.device}
    count = torch.randint(1, most + 1, (batch,), **drawn)
    return count * (torch.rand(batch, **drawn) < 0.5)
