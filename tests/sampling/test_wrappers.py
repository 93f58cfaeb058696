"""Thresholding, reuse and self-conditioning: each changes one thing about a chain and no more."""

import torch
from golden import by_row

from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.noise import alpha_bar_table, levels_of
from diffpolicy.sampling.steps import move, read, states
from diffpolicy.sampling.wrappers import dynamic_threshold, reuse, self_conditioned

TABLE = alpha_bar_table("squaredcos", 100)


def rows_of(k: int, **options):
    return ddim(levels_of(TABLE), make_grid(100, k), **options)


def crooked(x, t):
    return torch.tanh(x) + 0.3 * torch.cos(3 * x + t)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_thresholding_is_by_each_sample_s_own_quantile():
    x0 = torch.tensor([[[0.1, -0.5, 0.2, 0.3]], [[4.0, -1.0, 0.5, 3.0]]], dtype=torch.float64)
    out = dynamic_threshold(x0, ratio=1.0, maximum=10.0)
    torch.testing.assert_close(out[0], x0[0])  # s is at least 1
    torch.testing.assert_close(out[1], x0[1] / 4)
    capped = dynamic_threshold(x0, ratio=1.0, maximum=2.0)
    torch.testing.assert_close(capped[1], x0[1].clamp(-2, 2) / 2)
    middle = dynamic_threshold(x0, ratio=0.5, maximum=10.0)
    torch.testing.assert_close(middle[1], x0[1].clamp(-2, 2) / 2)  # the median of 0.5, 1, 3, 4


def test_reused_steps_cost_no_evaluation_and_repeat_the_last_output():
    rows, asked = rows_of(8), []

    def denoise(x, k):
        asked.append(k)
        return crooked(x, rows[k].t)

    cached = reuse(denoise, reused={1, 2, 5})
    for _ in range(2):  # a second chain starts afresh
        asked.clear()
        noise = normal(1, 1, 4, 1)
        found = list(states(cached, noise, rows))
        assert asked == [0, 3, 4, 6, 7]
    x, ε = found[0][0], crooked(noise[0], rows[0].t)
    torch.testing.assert_close(found[1][0], move(x, ε, read(x, ε, rows[1]), rows[1]))


def test_self_conditioning_shows_the_previous_x0_and_starts_with_none():
    rows, seen = rows_of(4, clip=1.0, rederive=True), []

    def denoise(x, k, x0):
        seen.append(x0)
        return by_row(crooked, rows)(x, k)

    model = self_conditioned(denoise, rows)
    for _ in range(2):
        seen.clear()
        found = list(states(model, normal(1, 2, 4, 1), rows))
        assert seen[0] is None
        for shown, (_, x0) in zip(seen[1:], found, strict=False):
            assert torch.equal(shown, x0)
