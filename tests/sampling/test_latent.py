"""Encoding undoes decoding, and what lies between two chunks lies between their latents."""

import pytest
import torch
from golden import gaussian

from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.latent import decode, encode, interpolate, slerp
from diffpolicy.sampling.noise import alpha_bar_table, levels_of

TABLE = alpha_bar_table("squaredcos", 1000)
LEVELS = levels_of(TABLE)
MEAN, STD = 0.3, 0.5


def normal(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 16, 2, dtype=torch.float64, generator=generator)


def far(k: int):
    """A grid that leaves out the last, singular level, where x_T tells next to nothing of x_0."""
    return make_grid(1000, k, start=989)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_the_latent_of_a_gaussian_is_its_standard_score(prediction):
    z = normal()
    x_T = encode(
        gaussian(TABLE, MEAN, STD, prediction),
        MEAN + STD * z,
        LEVELS,
        far(990),
        prediction=prediction,
    )
    torch.testing.assert_close(x_T, z, atol=0.02, rtol=0)


def test_decoding_what_was_encoded_gives_it_back_the_better_the_more_steps():
    model, x_0 = gaussian(TABLE, MEAN, STD), MEAN + STD * normal()
    errors = []
    for k in (10, 50, 250, 990):
        x_T = encode(model, x_0, LEVELS, far(k))
        errors.append((decode(model, x_T, LEVELS, far(k)) - x_0).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 < errors[0]


def test_slerp_stays_on_the_sphere_and_keeps_its_ends():
    a, b = normal(1), normal(2)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(-1, 1, 1)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    for fraction in (0.2, 0.5, 0.9):
        between = slerp(a, b, fraction)
        torch.testing.assert_close(between.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
        angle = torch.cosine_similarity(between.flatten(1), a.flatten(1)).acos()
        whole = torch.cosine_similarity(b.flatten(1), a.flatten(1)).acos()
        torch.testing.assert_close(angle, fraction * whole)
    torch.testing.assert_close(slerp(a, a, 0.5), a)


def test_interpolation_goes_from_one_chunk_to_the_other():
    one, other = MEAN + STD * normal(1), MEAN + STD * normal(2)
    path = interpolate(gaussian(TABLE, MEAN, STD), one, other, (0.0, 0.5, 1.0), LEVELS, far(990))
    assert path.shape == (3, 2, 16, 2)
    torch.testing.assert_close(path[[0, 2]], torch.stack([one, other]), atol=0.02, rtol=0)
    middle = MEAN + STD * slerp(normal(1), normal(2), 0.5)
    torch.testing.assert_close(path[1], middle, atol=0.03, rtol=0)
