"""DDIM against exact denoisers, an independent DDPM, and the numbers of diffusers' own suite."""

import math

import numpy as np
import pytest
import torch
from golden import RAMP, REVERSED, by_time, half
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.sampling.ddim import (
    Reading,
    add_noise,
    ddim_sample,
    ddim_states,
    ddim_step,
    dynamic_threshold,
    make_step,
    make_steps,
    move,
    noise_count,
    read,
    reuse,
    self_conditioned,
    sigma,
    to_x0_and_epsilon,
    training_target,
    with_noise,
)
from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.noise import CLEAN, SCHEDULES, alpha_bar_of, alpha_bar_table

T = 100
TABLE = alpha_bar_table("squaredcos", T)
CLIPPED = Reading(clip=1.0)
PREDICTIONS = ["epsilon", "x0", "v"]

predictions = st.sampled_from(PREDICTIONS)
etas = st.sampled_from([0.0, 0.5, 1.0])
levels = st.floats(1e-4, 1 - 1e-4)
unhurried = settings(deadline=None)  # torch's first call is slow


def trailing(k: int, eta: float = 0.0):
    return make_steps(TABLE, make_grid(T, k), eta)


def gaussian_oracle(steps, mean, std, prediction="epsilon"):
    """The exact denoiser of data ~ N(mean, std²); with std 0, of a point."""

    def denoise(x, k):
        a, b = steps[k].signal_t, steps[k].noise_t
        x0 = mean + a * std**2 / (a**2 * std**2 + b**2) * (x - a * mean)
        ε = (x - a * x0) / b
        return {"epsilon": ε, "x0": x0, "v": a * ε - b * x0}[prediction]

    return denoise


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Laws of one step


@unhurried
@given(levels, predictions, st.integers(0, 100))
def test_every_prediction_says_the_same_of_x0_and_noise(alpha_bar, prediction, seed):
    x0, ε = normal(2, 3, seed=seed)
    level = torch.tensor(alpha_bar, dtype=torch.float64)
    step = make_step(alpha_bar, 1.0)
    output = training_target(x0, ε, level, prediction)
    found = to_x0_and_epsilon(add_noise(x0, ε, level), output, step, prediction)
    torch.testing.assert_close(torch.stack(found), torch.stack([x0, ε]))


@unhurried
@given(levels, etas, predictions, st.sampled_from([None, 1.0]))
def test_a_step_to_the_same_level_changes_nothing(alpha_bar, eta, prediction, clip):
    x, output, z = normal(3, 8)
    step = make_step(alpha_bar, alpha_bar, eta=eta)
    torch.testing.assert_close(ddim_step(x, output, step, Reading(prediction, clip), z), x)


@unhurried
@given(levels, levels, etas)
def test_a_step_keeps_the_variance_of_its_level(one, other, eta):
    earlier, later = max(one, other), min(one, other)
    step = make_step(later, earlier, eta=eta)
    assert step.direction**2 + step.injected**2 == pytest.approx(1 - earlier)
    assert (step.injected > 0) == (eta > 0 and earlier > later)


@unhurried
@given(levels, levels, st.floats(0, 1))
def test_injected_noise_is_proportional_to_eta(one, other, eta):
    t, s = min(one, other), max(one, other)
    assert sigma(t, s, eta) == pytest.approx(eta * sigma(t, s, 1.0))
    assert sigma(1.0, 1.0, eta) == sigma(t, 1.0, eta) == 0


def test_a_clipped_x0_and_its_noise_describe_one_sample():
    x, output = 3 * normal(2, 50)
    step = make_step(0.3, 0.3)
    unclipped, _ = to_x0_and_epsilon(x, output, step, "epsilon")
    assert (unclipped.abs() > 1).any()
    torch.testing.assert_close(ddim_step(x, output, step, CLIPPED), x)
    last = make_step(0.3, 1.0)
    torch.testing.assert_close(ddim_step(x, output, last, CLIPPED), unclipped.clamp(-1, 1))


# Exact denoisers


@unhurried
@given(st.integers(1, T), etas, predictions, st.sampled_from([None, 1.0]), st.floats(-1, 1))
def test_a_point_is_found_at_every_budget(k, eta, prediction, clip, point):
    steps = trailing(k, eta)
    noise = normal(noise_count(steps), 2, 3, 1)
    oracle = gaussian_oracle(steps, point, 0.0, prediction)
    found = ddim_sample(oracle, noise, steps, Reading(prediction, clip))
    torch.testing.assert_close(found, torch.full_like(found, point), rtol=0, atol=1e-9)


def moments(k: int, eta: float, mean: float, std: float) -> tuple[float, float]:
    """Exact mean and deviation of what the sampler makes of N(0, 1) noise.

    The chain is affine in its noise, so one run on unit vectors and zero tells everything.
    """
    steps = trailing(k, eta)
    count = noise_count(steps)
    unit = torch.eye(count, count + 1, dtype=torch.float64)[:, :, None, None]
    *responses, centre = ddim_sample(gaussian_oracle(steps, mean, std), unit, steps).flatten()
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
        steps = make_steps(TABLE, [(t, CLEAN)])
        x = ddim_sample(gaussian_oracle(steps, 0.5, 0.2), noise, steps, CLIPPED)
        return x.mean().item(), x.std().item()

    assert make_grid(T, 1) == [(T - 1, CLEAN)]
    assert one_step(T - 1)[0] == pytest.approx(0.500, abs=5e-4)
    assert one_step(0) == pytest.approx((0.005, 0.714), abs=5e-3)


@pytest.mark.parametrize("start", [0, 3, 8])
def test_added_noise_is_taken_away_again(start):
    steps = trailing(10)[start:]
    x0, ε = normal(2, 4, 16, 2).clamp(-1, 1)
    x = add_noise(x0, ε, torch.tensor(TABLE[steps[0].t]))
    found = ddim_sample(lambda x, k: ε, x[None], steps)
    torch.testing.assert_close(found, x0)


# Noise


def crooked(steps):
    """Some nonlinear denoiser that no law is tuned to."""
    return lambda x, k: torch.tanh(x) + 0.3 * torch.cos(3 * x + steps[k].t)


def test_without_eta_only_the_first_noise_matters():
    steps = trailing(10)
    first, *others = (normal(11, 2, 4, 1, seed=seed) for seed in (1, 2))
    same = torch.cat([first[:1], others[0][1:]])
    a, b, c = (ddim_sample(crooked(steps), x, steps) for x in (first, same, others[0]))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert noise_count(steps) == 1


def test_with_eta_every_noise_but_the_last_matters():
    steps = trailing(10, eta=1.0)
    noise = normal(noise_count(steps), 1, 4, 1)
    assert len(noise) == 11
    reference = ddim_sample(crooked(steps), noise, steps)
    for i in range(10):
        changed = noise.clone()
        changed[i] += 1
        assert not torch.equal(ddim_sample(crooked(steps), changed, steps), reference)
    assert steps[-1].injected == 0


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_all_steps_with_eta_1_are_ancestral_ddpm(schedule, clip):
    """Ho et al., arXiv 2006.11239: x_{t-1} = μ̃(x_t, x̂0) + √β̃ z, eqs. 6 and 7."""
    ᾱ = alpha_bar_table(schedule, T)
    β = 1 - ᾱ / np.array([1.0, *ᾱ[:-1]])
    steps = make_steps(ᾱ, make_grid(T, T), eta=1.0)
    noise = normal(T + 1, 3, 4, 2)
    model = crooked(steps)
    x = noise[0]
    for k, t in enumerate(reversed(range(T))):
        before = ᾱ[t - 1] if t else 1.0
        x0 = (x - math.sqrt(1 - ᾱ[t]) * model(x, k)) / math.sqrt(ᾱ[t])
        x0 = x0 if clip is None else x0.clamp(-clip, clip)
        μ = (
            math.sqrt(before) * β[t] / (1 - ᾱ[t]) * x0
            + math.sqrt(1 - β[t]) * (1 - before) / (1 - ᾱ[t]) * x
        )
        x = μ + math.sqrt((1 - before) / (1 - ᾱ[t]) * β[t]) * noise[k + 1]
    torch.testing.assert_close(ddim_sample(model, noise, steps, Reading(clip=clip)), x)


# Readings


def test_thresholding_is_by_each_sample_s_own_quantile():
    x0 = torch.tensor([[[0.1, -0.5, 0.2, 0.3]], [[4.0, -1.0, 0.5, 3.0]]], dtype=torch.float64)
    out = dynamic_threshold(x0, ratio=1.0, maximum=10.0)
    torch.testing.assert_close(out[0], x0[0])  # s is at least 1
    torch.testing.assert_close(out[1], x0[1] / 4)
    capped = dynamic_threshold(x0, ratio=1.0, maximum=2.0)
    torch.testing.assert_close(capped[1], x0[1].clamp(-2, 2) / 2)
    middle = dynamic_threshold(x0, ratio=0.5, maximum=10.0)
    torch.testing.assert_close(middle[1], x0[1].clamp(-2, 2) / 2)  # the median of 0.5, 1, 3, 4


def test_thresholding_takes_the_place_of_clipping():
    x, output = 3 * normal(2, 5, 7)
    step = make_step(0.3, 0.6)
    both = read(x, output, step, Reading(clip=0.1, threshold=(0.9, 2.0)))
    alone = read(x, output, step, Reading(threshold=(0.9, 2.0)))
    torch.testing.assert_close(both, alone)


def test_epsilon_is_derived_again_only_where_asked():
    x, output = 3 * normal(2, 50, 2)
    step = make_step(0.3, 0.6)
    x0, again = read(x, output, step, Reading(clip=1.0))
    kept, ε = read(x, output, step, Reading(clip=1.0, rederive=False))
    assert torch.equal(x0, kept) and torch.equal(ε, output)
    torch.testing.assert_close(step.signal_t * x0 + step.noise_t * again, x)
    assert not torch.allclose(again, output)


@unhurried
@given(levels, levels, etas, st.floats(0, 2))
def test_the_noise_scale_touches_the_injected_noise_alone(one, other, eta, scale):
    t, s = min(one, other), max(one, other)
    plain, scaled = make_step(t, s, eta=eta), make_step(t, s, eta=eta, noise_scale=scale)
    assert scaled == plain._replace(injected=scale * plain.injected)


def test_states_are_those_of_the_sampler():
    steps = trailing(7, eta=0.5)
    noise = normal(noise_count(steps), 2, 4, 1)
    states = list(ddim_states(crooked(steps), noise, steps, CLIPPED))
    assert len(states) == 7
    assert torch.equal(states[-1][0], ddim_sample(crooked(steps), noise, steps, CLIPPED))
    x, x0 = noise[0], None
    for k, step in enumerate(steps):
        x0, ε = read(x, crooked(steps)(x, k), step, CLIPPED)
        x = move(x0, ε, step, noise[k + 1])
        assert torch.equal(states[k][0], x) and torch.equal(states[k][1], x0)


def test_a_given_start_is_completed_by_whatever_is_injected():
    steps, x = trailing(5, eta=1.0), normal(2, 4, 1)
    drawn = with_noise(x, steps, torch.Generator().manual_seed(1))
    assert drawn.shape == (6, 2, 4, 1)
    assert torch.equal(drawn[0], x)
    assert torch.equal(drawn, with_noise(x, steps, torch.Generator().manual_seed(1)))
    assert torch.equal(with_noise(x, trailing(5)), x[None])


# What wraps a denoiser


def test_reused_steps_ask_nothing_and_repeat_the_last_answer():
    steps, asked = trailing(8), []

    def denoise(x, k):
        asked.append(k)
        return crooked(steps)(x, k)

    cached = reuse(denoise, reused={1, 2, 5})
    for _ in range(2):  # a second chain starts afresh
        asked.clear()
        x = normal(1, 1, 4, 1)
        states = list(ddim_states(cached, x, steps))
        assert asked == [0, 3, 4, 6, 7]
    ε = crooked(steps)(x[0], 0)
    torch.testing.assert_close(states[1][0], ddim_step(states[0][0], ε, steps[1]))


def test_self_conditioning_shows_the_previous_x0_and_starts_with_none():
    steps, seen = trailing(4), []

    def denoise(x, k, x0):
        seen.append(x0)
        return crooked(steps)(x, k)

    model = self_conditioned(denoise, steps, CLIPPED)
    for _ in range(2):
        seen.clear()
        states = list(ddim_states(model, normal(1, 2, 4, 1), steps, CLIPPED))
        assert seen[0] is None
        for shown, (_, x0) in zip(seen[1:], states, strict=False):
            assert torch.equal(shown, x0)


def test_epsilon_at_zero_snr_is_refused_where_nothing_bounds_x0():
    step = make_step(0.0, 0.5)
    x, output = normal(2, 1, 4, 1)
    for reading in (Reading(), Reading(threshold=(0.9, 1.0))):
        with pytest.raises(ValueError, match="zero terminal SNR"):
            ddim_step(x, output, step, reading)
    for reading in (CLIPPED, Reading("x0"), Reading("v")):
        assert ddim_step(x, output, step, reading).isfinite().all()


# Golden numbers: diffusers' own suite, and others worked out independently in its setup

LINEAR = alpha_bar_of(SCHEDULES["linear"](1000))
STEEP = alpha_bar_of(SCHEDULES["linear"](1000, 0.01, 0.02))
AS_DIFFUSERS = Reading(clip=1.0, rederive=False)


@pytest.mark.parametrize(
    ("model", "table", "grid", "reading", "eta", "total"),
    [
        (by_time, LINEAR, make_grid(1000, 10, "leading"), AS_DIFFUSERS, 0, 172.0067),
        (by_time, LINEAR, make_grid(1000, 10, "leading"), Reading("v", 1.0), 0, 52.5302),
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
def test_golden_sums(model, table, grid, reading, eta, total):
    steps = make_steps(table, grid, eta)
    noise = torch.stack([RAMP, *[REVERSED] * len(grid)])
    x = ddim_sample(lambda x, k: model(x, steps[k].t), noise, steps, reading)
    assert x.dtype == torch.float32
    assert x.abs().sum().item() == pytest.approx(total, abs=1e-2)
    assert x.abs().mean().item() == pytest.approx(total / 768, abs=1e-3)


def test_golden_sum_from_noise_added_on_the_way():
    steps = make_steps(LINEAR, make_grid(1000, 10, "leading")[8:])
    x = add_noise(RAMP, REVERSED, torch.tensor(LINEAR[100], dtype=torch.float32))
    found = ddim_sample(lambda x, k: by_time(x, steps[k].t), x[None], steps, AS_DIFFUSERS)
    assert found.abs().sum().item() == pytest.approx(354.5418, abs=1e-2)


@pytest.mark.parametrize(
    ("t", "s", "variance"),
    [(0, 0, 0), (420, 400, 0.14771), (980, 960, 0.32460), (487, 486, 0.00979), (999, 998, 0.02)],
)
def test_golden_variances(t, s, variance):
    assert sigma(LINEAR[t], LINEAR[s], eta=1.0) ** 2 == pytest.approx(variance, abs=1e-5)
