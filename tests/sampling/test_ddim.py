"""DDIM against exact denoisers, an independent DDPM, and the numbers of diffusers' own suite."""

import math

import numpy as np
import pytest
import torch
from golden import RAMP, REVERSED, by_row, by_time, gaussian, half
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.sampling.ddim import ddim, ddim_row, sigma
from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.noise import (
    BETAS,
    CLEAN,
    Level,
    alpha_bar_of,
    alpha_bar_table,
    level_of,
    levels_of,
)
from diffpolicy.sampling.parameterisation import (
    add_noise,
    epsilon_coefficients,
    target,
    x0_coefficients,
)
from diffpolicy.sampling.steps import move, noise_count, read, sample, states, with_noise

T = 100
TABLE = alpha_bar_table("squaredcos", T)
LEVELS, LEVEL, NOTHING = levels_of(TABLE), level_of(0.3), (level_of(0.0), level_of(0.5))
CLEAR = Level(1.0, 0.0)
CLIPPED = {"clip": 1.0, "rederive": True}
PREDICTIONS = ["epsilon", "x0", "v", "velocity"]

predictions = st.sampled_from(PREDICTIONS)
etas = st.sampled_from([0.0, 0.5, 1.0])
levels = st.floats(1e-4, 1 - 1e-4).map(level_of)
unhurried = settings(deadline=None)  # torch's first call is slow


def trailing(k: int, **options):
    return ddim(LEVELS, make_grid(T, k), **options)


def step(x, y, row, z=None):
    return move(x, y, read(x, y, row), row, z=z)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Laws of one step


@unhurried
@given(levels, predictions, st.integers(0, 100))
def test_every_prediction_says_the_same_of_x0_and_noise(level, prediction, seed):
    x0, ε = normal(2, 3, seed=seed)
    a, b = level
    level = torch.tensor(level, dtype=torch.float64)
    x, y = add_noise(x0, ε, *level), target(x0, ε, *level, prediction)
    p, q, divisor = x0_coefficients(prediction, a, b)
    torch.testing.assert_close((p * x + q * y) / divisor, x0)
    p, q = epsilon_coefficients(prediction, a, b)
    torch.testing.assert_close(p * x + q * y, ε)


@unhurried
@given(levels, etas, predictions, st.sampled_from([{}, CLIPPED]))
def test_a_step_to_the_same_level_changes_nothing(level, eta, prediction, clip):
    x, y, z = normal(3, 8)
    row = ddim_row(level, level, prediction=prediction, eta=eta, **clip)
    torch.testing.assert_close(step(x, y, row, z), x)


@unhurried
@given(levels, levels, etas)
def test_a_step_keeps_the_variance_of_its_level(one, other, eta):
    earlier, later = max(one, other), min(one, other)
    row = ddim_row(later, earlier, eta=eta)
    assert row.y**2 + row.z**2 == pytest.approx(earlier.noise**2)  # x0 and ε: row.x is 0
    assert (row.x, row.x0) == (0, earlier.signal)
    assert (row.z > 0) == (eta > 0 and earlier > later)


@unhurried
@given(levels, levels, st.floats(0, 1))
def test_injected_noise_is_proportional_to_eta(one, other, eta):
    t, s = min(one, other), max(one, other)
    assert sigma(t, s, eta) == pytest.approx(eta * sigma(t, s, 1.0))
    assert sigma(CLEAR, CLEAR, eta) == sigma(t, CLEAR, eta) == 0


@unhurried
@given(levels, levels, etas, predictions)
def test_epsilon_derived_again_from_an_unbounded_x0_is_the_same(one, other, eta, prediction):
    levels, (x, y, z) = (min(one, other), max(one, other)), normal(3, 8)
    once, again = (
        ddim_row(*levels, prediction=prediction, eta=eta, rederive=r) for r in (False, True)
    )
    torch.testing.assert_close(step(x, y, once, z), step(x, y, again, z))


def test_a_clipped_x0_and_its_noise_describe_one_sample():
    x, y = 3 * normal(2, 50)
    unclipped = read(x, y, ddim_row(LEVEL, LEVEL))
    assert (unclipped.abs() > 1).any()
    torch.testing.assert_close(step(x, y, ddim_row(LEVEL, LEVEL, **CLIPPED)), x)
    last = ddim_row(LEVEL, level_of(1.0), **CLIPPED)
    torch.testing.assert_close(step(x, y, last), unclipped.clamp(-1, 1))


def test_epsilon_is_derived_again_only_where_asked():
    x, y = 3 * normal(2, 50, 2)
    again, kept = (ddim_row(LEVEL, level_of(0.6), clip=1.0, rederive=r) for r in (True, False))
    x0 = read(x, y, kept)
    assert torch.equal(x0, read(x, y, again)) and (x0.abs() == 1).any()
    torch.testing.assert_close(step(x, y, kept), 0.6**0.5 * x0 + 0.4**0.5 * y)
    ε = (x - 0.3**0.5 * x0) / 0.7**0.5
    torch.testing.assert_close(step(x, y, again), 0.6**0.5 * x0 + 0.4**0.5 * ε)


@unhurried
@given(levels, levels, etas, st.floats(0, 2))
def test_the_noise_scale_touches_the_injected_noise_alone(one, other, eta, scale):
    t, s = min(one, other), max(one, other)
    plain, scaled = ddim_row(t, s, eta=eta), ddim_row(t, s, eta=eta, noise_scale=scale)
    assert scaled == plain._replace(z=scale * plain.z)


def test_epsilon_at_zero_snr_is_refused_unless_x0_is_clipped():
    x, y = normal(2, 1, 4, 1)
    with pytest.raises(ValueError, match="zero terminal SNR"):
        ddim_row(*NOTHING)
    for options in (CLIPPED, {"clip": 1.0}, {"prediction": "x0"}, {"prediction": "v"}):
        assert step(x, y, ddim_row(*NOTHING, **options)).isfinite().all()


# Exact denoisers


@unhurried
@given(st.integers(1, T), etas, predictions, st.sampled_from([{}, CLIPPED]), st.floats(-1, 1))
def test_a_point_is_found_at_every_budget(k, eta, prediction, clip, point):
    rows = trailing(k, prediction=prediction, eta=eta, **clip)
    noise = normal(noise_count(rows), 2, 3, 1)
    found = sample(by_row(gaussian(TABLE, point, 0.0, prediction), rows), noise, rows)
    torch.testing.assert_close(found, torch.full_like(found, point), rtol=0, atol=1e-9)


def moments(k: int, eta: float, mean: float, std: float) -> tuple[float, float]:
    """Exact mean and deviation of the samples from N(0, 1) noise.

    The chain is affine in its noise, so one run on unit vectors and zero gives both.
    """
    rows = trailing(k, eta=eta)
    count = noise_count(rows)
    unit = torch.eye(count, count + 1, dtype=torch.float64)[:, :, None, None]
    *responses, centre = sample(by_row(gaussian(TABLE, mean, std), rows), unit, rows).flatten()
    return centre.item(), math.sqrt(sum((r - centre).item() ** 2 for r in responses))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("k", [1, 2, 3, 7, 10, 33, 64, T])
def test_a_gaussian_has_its_mean_at_every_budget(k, eta):
    mean, _ = moments(k, eta, mean=0.5, std=0.2)
    assert mean == pytest.approx(0.5, abs=math.sqrt(TABLE[-1]))


@pytest.mark.parametrize(("eta", "shortfall"), [(0.0, 0.05), (1.0, 0.1)])
def test_a_gaussian_s_spread_rises_to_the_true_one(eta, shortfall):
    spreads = [moments(k, eta, mean=0.5, std=0.2)[1] for k in (1, 2, 4, 8, 16, 32, 64, T)]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.01
    assert spreads[-1] == pytest.approx(0.2, rel=shortfall)
    assert all(spread < 0.2 for spread in spreads)


def test_one_step_is_right_from_the_end_of_the_chain_and_wrong_from_its_start():
    """The trap of "leading" spacing: its one step starts at t = 0, where it sees no noise."""
    noise = normal(1, 200_000, 1, 1)

    def one_step(t: int) -> tuple[float, float]:
        rows = ddim(LEVELS, [(t, CLEAN)], **CLIPPED)
        x = sample(by_row(gaussian(TABLE, 0.5, 0.2), rows), noise, rows)
        return x.mean().item(), x.std().item()

    assert make_grid(T, 1) == [(T - 1, CLEAN)]
    assert one_step(T - 1)[0] == pytest.approx(0.500, abs=5e-4)
    assert one_step(0) == pytest.approx((0.005, 0.714), abs=5e-3)


@pytest.mark.parametrize("start", [0, 3, 8])
def test_added_noise_is_taken_away_again(start):
    rows = trailing(10)[start:]
    x0, ε = normal(2, 4, 16, 2).clamp(-1, 1)
    x = add_noise(x0, ε, *torch.tensor(LEVELS[rows[0].t], dtype=torch.float64))
    found = sample(lambda x, k: ε, x[None], rows)
    torch.testing.assert_close(found, x0)


# Noise


def crooked(x, t):
    """Some nonlinear denoiser that no law is tuned to."""
    return torch.tanh(x) + 0.3 * torch.cos(3 * x + t)


def test_without_eta_only_the_first_noise_matters():
    rows = trailing(10)
    first, other = (normal(11, 2, 4, 1, seed=seed) for seed in (1, 2))
    same = torch.cat([first[:1], other[1:]])
    a, b, c = (sample(by_row(crooked, rows), x, rows) for x in (first, same, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert noise_count(rows) == 1


def test_with_eta_every_noise_but_the_last_matters():
    rows = trailing(10, eta=1.0)
    noise = normal(noise_count(rows), 1, 4, 1)
    assert len(noise) == 11
    reference = sample(by_row(crooked, rows), noise, rows)
    for i in range(10):
        changed = noise.clone()
        changed[i] += 1
        assert not torch.equal(sample(by_row(crooked, rows), changed, rows), reference)
    assert rows[-1].z == 0
    with pytest.raises(ValueError, match="needs the noise z"):
        step(noise[0], noise[0], rows[0])


def test_a_given_start_is_completed_by_whatever_is_injected():
    rows, x = trailing(5, eta=1.0), normal(2, 4, 1)
    drawn = with_noise(x, rows, torch.Generator().manual_seed(1))
    assert drawn.shape == (6, 2, 4, 1)
    assert torch.equal(drawn[0], x)
    assert torch.equal(drawn, with_noise(x, rows, torch.Generator().manual_seed(1)))
    assert torch.equal(with_noise(x, trailing(5)), x[None])


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("schedule", sorted(BETAS))
def test_all_steps_with_eta_1_are_ancestral_ddpm(schedule, clip):
    """Ho et al., arXiv 2006.11239: x_{t-1} = μ̃(x_t, x̂0) + √β̃ z, eqs. 6 and 7."""
    ᾱ = alpha_bar_table(schedule, T)
    β = 1 - ᾱ / np.array([1.0, *ᾱ[:-1]])
    rows = ddim(levels_of(ᾱ), make_grid(T, T), clip=clip, rederive=clip is not None, eta=1.0)
    noise = normal(T + 1, 3, 4, 2)
    x = noise[0]
    for k, t in enumerate(reversed(range(T))):
        before = ᾱ[t - 1] if t else 1.0
        x0 = (x - math.sqrt(1 - ᾱ[t]) * crooked(x, t)) / math.sqrt(ᾱ[t])
        x0 = x0 if clip is None else x0.clamp(-clip, clip)
        μ = (
            math.sqrt(before) * β[t] / (1 - ᾱ[t]) * x0
            + math.sqrt(1 - β[t]) * (1 - before) / (1 - ᾱ[t]) * x
        )
        x = μ + math.sqrt((1 - before) / (1 - ᾱ[t]) * β[t]) * noise[k + 1]
    torch.testing.assert_close(sample(by_row(crooked, rows), noise, rows), x)


def test_states_end_with_the_sample_and_the_last_x0():
    rows = trailing(7, eta=0.5, **CLIPPED)
    noise = normal(noise_count(rows), 2, 4, 1)
    found = list(states(by_row(crooked, rows), noise, rows))
    assert len(found) == 7
    assert torch.equal(found[-1][0], sample(by_row(crooked, rows), noise, rows))
    assert torch.equal(found[-1][0], found[-1][1])


# Golden numbers: diffusers' own suite, and others worked out independently in its setup

LINEAR = alpha_bar_of(BETAS["linear"](1000))
STEEP = alpha_bar_of(BETAS["linear"](1000, 0.01, 0.02))
AS_DIFFUSERS = {"clip": 1.0}
VELOCITY = {"prediction": "v", "clip": 1.0}


@pytest.mark.parametrize(
    ("model", "table", "grid", "options", "eta", "total"),
    [
        (by_time, LINEAR, make_grid(1000, 10, "leading"), AS_DIFFUSERS, 0, 172.0067),
        (by_time, LINEAR, make_grid(1000, 10, "leading"), VELOCITY, 0, 52.5302),
        (by_time, STEEP, make_grid(1000, 10, "leading"), AS_DIFFUSERS, 0, 149.8295),
        (by_time, STEEP, make_grid(1000, 10, "leading", final=0), AS_DIFFUSERS, 0, 149.0784),
        (by_time, LINEAR, make_grid(1000, 10, "leading"), AS_DIFFUSERS, 1, 354.7376),
        (by_time, LINEAR, make_grid(1000, 10), AS_DIFFUSERS, 0, 170.0350),
        (by_time, LINEAR, make_grid(1000, 10, "linspace"), AS_DIFFUSERS, 0, 169.4642),
        (by_time, LINEAR, make_grid(1000, 13), AS_DIFFUSERS, 0, 175.936),
        (half, LINEAR, make_grid(1000, 10, "leading"), AS_DIFFUSERS, 0, 383.2662),
        (half, LINEAR, make_grid(1000, 10, "leading"), CLIPPED, 0, 634.9082),
        (half, LINEAR, make_grid(1000, 10), AS_DIFFUSERS, 0, 333.5137),
        (half, LINEAR, make_grid(1000, 10), CLIPPED, 0, 641.8164),
    ],
)
def test_golden_sums(model, table, grid, options, eta, total):
    rows = ddim(levels_of(table), grid, eta=eta, **options)
    noise = torch.stack([RAMP, *[REVERSED] * len(grid)])
    x = sample(by_row(model, rows), noise, rows)
    assert x.dtype == torch.float32
    assert x.abs().sum().item() == pytest.approx(total, abs=1e-2)
    assert x.abs().mean().item() == pytest.approx(total / 768, abs=1e-3)


def test_golden_sum_from_noise_added_on_the_way():
    rows = ddim(levels_of(LINEAR), make_grid(1000, 10, "leading")[8:], **AS_DIFFUSERS)
    x = add_noise(RAMP, REVERSED, *torch.tensor(level_of(LINEAR[100])))
    found = sample(by_row(by_time, rows), x[None], rows)
    assert found.abs().sum().item() == pytest.approx(354.5418, abs=1e-2)


@pytest.mark.parametrize(
    ("t", "s", "variance"),
    [(0, 0, 0), (420, 400, 0.14771), (980, 960, 0.32460), (487, 486, 0.00979), (999, 998, 0.02)],
)
def test_golden_variances(t, s, variance):
    assert sigma(level_of(LINEAR[t]), level_of(LINEAR[s]), eta=1.0) ** 2 == pytest.approx(
        variance, abs=1e-5
    )
