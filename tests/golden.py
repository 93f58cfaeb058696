"""The deterministic sample, noise and models of diffusers' own tests; their sums are known."""

import torch

RAMP = (torch.arange(768, dtype=torch.float32) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
REVERSED = (torch.arange(768).flip(0) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)


def by_time(x, t):
    return x * t / (t + 1)


def half(x, *_):
    return 0.5 * x
