"""Samplers of second order and their grids: golden numbers, parity with diffusers, and laws.

The golden numbers of N(0.5, 0.1²) were worked out independently, in the affine form of the oracle.
"""

import math
from itertools import pairwise

import pytest
import torch
from golden import RAMP, REVERSED, by_row, by_time, gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling import chain as chains
from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.dpm import dpm_solver
from diffpolicy.sampling.grids import (
    karras_times,
    leading,
    linspace,
    log_snr_times,
    make_grid,
    make_level_grid,
    pairs,
    parse_grid,
)
from diffpolicy.sampling.grids import trailing as trailing_times
from diffpolicy.sampling.heun import heun
from diffpolicy.sampling.midpoint import midpoint
from diffpolicy.sampling.noise import (
    CLEAN,
    alpha_bar_of,
    flow_levels,
    level_at,
    levels_of,
    linear_betas,
    make_levels,
)
from diffpolicy.sampling.steps import noise_count, sample
from diffpolicy.sampling.unipc import unipc

T = 100
LEVELS = make_levels("squaredcos", T)
FLOW = flow_levels(160)
SAMPLERS = {"ddim": ddim, "dpm++": dpm_solver, "unipc": unipc, "heun": heun}


def moments(rows, levels=LEVELS, scale=1.0) -> tuple[float, float]:
    """Mean and spread of the samples of N(0.5, 0.1²), exactly: samplers are affine in the noise."""
    count = noise_count(rows)
    inputs = torch.zeros(count, count + 1, 1, 1, dtype=torch.float64)
    for i in range(count):
        inputs[i, i + 1] = scale if i == 0 else 1.0
    x = sample(by_row(gaussian(levels, 0.5, 0.1, "x0"), rows), inputs, rows)[:, 0, 0]
    return float(x[0]), float((x[1:] - x[0]).norm())


def trailing(sampler, k, **options):
    return sampler(LEVELS, make_grid(T, k), prediction="x0", **options)


def from_90(sampler, k, spacing="lambda", **options):
    return sampler(LEVELS, make_level_grid(LEVELS, k, spacing), prediction="x0", **options)


GOLDEN = {  # K: spread with DDIM, 2M, Heun on trailing; DDIM, 2M, UniPC on λ; 2M on Karras; 2M SDE
    1: (0, 0, 0, 0.00143, 0.00143, 0.00143, 0.00143, 0.00143),
    2: (0.00978, 0.00978, 0.10441, 0.02521, 0.02521, 0.02521, 0.02521, 0.02368),
    4: (0.02265, 0.02274, 0.03943, 0.06207, 0.07882, 0.08121, 0.06769, 0.06875),
    8: (0.04299, 0.04383, 0.04874, 0.08114, 0.09674, 0.09970, 0.09570, 0.09241),
    16: (0.06455, 0.06772, 0.07141, 0.08948, 0.09809, 0.09856, 0.09895, 0.09791),
}
MEANS = {
    4: (0.49566, 0.49449, 0.49432),
    8: (0.49433, 0.49324, 0.49303),
    16: (0.49375, 0.49314, 0.49311),
}


@pytest.mark.parametrize("k", GOLDEN)
def test_golden_spreads(k):
    tables = [trailing(s, k) for s in (ddim, dpm_solver, heun)]
    tables += [from_90(s, k) for s in (ddim, dpm_solver, unipc)]
    tables += [from_90(dpm_solver, k, "karras"), from_90(dpm_solver, k, eta=1.0)]
    found = [moments(rows)[1] for rows in tables]
    assert found == pytest.approx(GOLDEN[k], abs=1e-5)


@pytest.mark.parametrize("k", MEANS)
def test_golden_means(k):
    found = [moments(from_90(s, k))[0] for s in (ddim, dpm_solver, unipc)]
    assert found == pytest.approx(MEANS[k], abs=1e-5)


@pytest.mark.parametrize(("k", "std"), [(2, 0.0098), (4, 0.0225), (8, 0.0417), (16, 0.0603)])
def test_golden_spreads_of_ancestral_sampling(k, std):
    assert moments(trailing(ddim, k, eta=1.0))[1] == pytest.approx(std, abs=5e-5)
    assert moments(trailing(ddim, k, eta=1.0, noise_scale=0.0))[1] < 5e-5


def test_the_factor_on_the_start_scales_the_spread():
    assert moments(trailing(ddim, 16), scale=0.5)[1] == pytest.approx(0.0323, abs=5e-5)


@pytest.mark.parametrize(
    ("k", "euler", "half"),
    [(1, 0, 0.0198), (2, 0.0099, 0.0464), (4, 0.0281, 0.0800), (8, 0.0538, 0.0973)],
)
def test_golden_spreads_of_flow_matching(k, euler, half):
    grid = make_grid(160, k)
    for sampler, std in ((ddim, euler), (midpoint, half)):
        rows = sampler(FLOW, grid, prediction="x0")
        assert moments(rows, FLOW) == pytest.approx((0.5, std), abs=6e-5)


# Grids


@pytest.mark.parametrize(
    ("times", "top", "k", "expected"),
    [
        (log_snr_times, 99, 8, [99, 98, 97, 95, 79, 34, 6, 0]),
        (log_snr_times, 99, 4, [99, 98, 51, 0]),
        (log_snr_times, 90, 8, [90, 79, 59, 34, 16, 6, 2, 0]),
        (log_snr_times, 90, 4, [90, 51, 9, 0]),
        (karras_times, 99, 8, [99, 98, 97, 96, 95, 87, 33, 0]),
        (karras_times, 99, 4, [99, 98, 92, 0]),
        (karras_times, 90, 8, [90, 83, 71, 51, 28, 11, 3, 0]),
        (karras_times, 90, 4, [90, 65, 16, 0]),
    ],
)
def test_golden_grids(times, top, k, expected):
    assert times(LEVELS[: top + 1], k) == expected


@given(st.integers(1, 91), st.sampled_from(["lambda", "karras"]))
def test_grids_in_the_noise_level_fall_strictly_to_the_clean_level(k, spacing):
    grid = make_level_grid(LEVELS, k, spacing)
    assert len(grid) == k and grid[0][0] == 90 and grid[-1][1] == CLEAN
    assert all(t > s for t, s in grid)


def test_a_grid_in_the_noise_level_refuses_a_start_of_pure_noise():
    with pytest.raises(DiffpolicyError, match="at most 80; t = 99 has 2029; leave out --start"):
        parse_grid(LEVELS, "lambda", 4, 99, 0)


# Parity with diffusers, in the setup of its own tests

LINEAR = levels_of(alpha_bar_of(linear_betas(1000)))
DIFFUSERS = {  # (K, spacing): Σ|x| of first order, 2M, 2M SDE and UniPC
    (5, "trailing"): (143.4717, 149.8205, 221.0576, 152.7480),
    (10, "trailing"): (170.0350, 185.2649, 397.7043, 187.0229),
    (20, "trailing"): (182.8213, 194.8294, 588.5703, 194.5357),
    (10, "linspace"): (169.9294, 185.0114, 397.1699, 186.7621),
    (10, "leading"): (172.2541, 187.5246, 424.5599, 188.8094),
}


def spaced(k: int, spacing: str) -> list[int]:
    """Timesteps as diffusers' multistep solvers space them: the last of K + 1 is left out."""
    if spacing == "trailing":
        return trailing_times(1000, k)
    return {"leading": leading, "linspace": linspace}[spacing](1000, k + 1)[:-1]


@pytest.mark.parametrize(("k", "spacing"), DIFFUSERS)
def test_golden_sums(k, spacing):
    grid, noise = pairs(spaced(k, spacing)), torch.stack([RAMP, *[REVERSED] * k]).double()
    tables = [ddim(LINEAR, grid, rederive=True), dpm_solver(LINEAR, grid)]
    tables += [dpm_solver(LINEAR, grid, eta=1.0), unipc(LINEAR, grid)]
    found = [sample(by_row(by_time, rows), noise, rows).abs().sum().item() for rows in tables]
    assert found == pytest.approx(DIFFUSERS[k, spacing], rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["dpmsolver++", "sde-dpmsolver++", "unipc"]),
    st.integers(1, 3).map(lambda i: (5, 8, 20)[i - 1]),
    st.sampled_from(["epsilon", "x0", "v"]),
    st.sampled_from(["trailing", "linspace", "leading"]),
)
def test_parity_with_diffusers(kind, k, prediction, spacing):
    diffusers = pytest.importorskip("diffusers")
    names = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
    options = {"prediction_type": names[prediction], "final_sigmas_type": "zero"}
    betas = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    if kind == "unipc":
        options |= {"solver_order": 2, "solver_type": "bh2"}
        theirs = diffusers.UniPCMultistepScheduler(**betas, **options, timestep_spacing=spacing)
    else:
        options |= {"algorithm_type": kind, "euler_at_final": False}
        theirs = diffusers.DPMSolverMultistepScheduler(
            **betas, **options, timestep_spacing=spacing, lower_order_final=True
        )
    theirs.set_timesteps(k)
    assert theirs.timesteps.tolist() == spaced(k, spacing)
    grid = pairs(spaced(k, spacing))
    table = unipc if kind == "unipc" else dpm_solver
    eta = {"eta": 1.0} if kind.startswith("sde") else {}
    rows = table(LINEAR, grid, prediction=prediction, **eta)
    noise = torch.stack([RAMP, *[REVERSED] * k]).double()
    found = sample(by_row(by_time, rows), noise[: noise_count(rows)], rows)
    x = noise[0]
    for t in theirs.timesteps:
        extra = {"variance_noise": noise[1]} if eta else {}
        x = theirs.step(by_time(x, int(t)), t, x, **extra).prev_sample
    scale = x.abs().max().item()
    torch.testing.assert_close(found / scale, x.double() / scale, rtol=0, atol=1e-5)


# Laws


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "lambda", "karras"])
@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_a_point_is_found_by_every_sampler(name, spacing, k):
    grid = parse_grid(LEVELS, spacing, k, None, 0)
    for eta in (0.0, 1.0) if name in ("ddim", "dpm++") else (0.0,):
        rows = SAMPLERS[name](LEVELS, grid, prediction="x0", eta=eta)
        noise = torch.randn(noise_count(rows), 1, 4, 1, dtype=torch.float64)
        x = sample(by_row(gaussian(LEVELS, 0.3, 0.0, "x0"), rows), noise, rows)
        torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", ["squaredcos", "linear", "scaled_linear", "flow"])
@pytest.mark.parametrize("timesteps", [1, 2, 3, 100])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_finite_on_every_grid_of_every_chain(name, timesteps, schedule):
    levels = make_levels(schedule, timesteps)
    for spacing in ("trailing", "linspace", "lambda", "karras"):
        for k in {1, 2, 3, timesteps} & set(range(1, timesteps + 1)):
            try:
                grid = parse_grid(levels, spacing, k, None, 0)
                rows = SAMPLERS[name](levels, grid, prediction="x0")
            except DiffpolicyError:  # no k timesteps with σ ≤ 80, or Heun from pure noise
                continue
            x = torch.randn(1, 1, 4, 1, dtype=torch.float64)
            assert sample(lambda x, k: x.tanh(), x, rows).isfinite().all()


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_two_steps_with_an_unbounded_ε_are_finite_and_those_of_ddim(name):
    x = torch.randn(1, 1, 4, 1, dtype=torch.float64)
    found, expected = (
        sample(by_row(by_time, rows), x, rows)
        for rows in (SAMPLERS[name](LEVELS, make_grid(T, 2)), ddim(LEVELS, make_grid(T, 2)))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("k", "total"), [(5, 175.9120), (10, 190.3362), (20, 193.8885)])
def test_golden_sums_of_heun(k, total):
    rows = heun(LINEAR, make_grid(1000, k))
    found = sample(by_row(by_time, rows), RAMP[None].double(), rows)
    assert found.abs().sum().item() == pytest.approx(total, abs=2e-3)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_up_to_two_steps_the_methods_of_second_order_are_ddim(k, eta):
    grid, options = make_grid(T, k), {"clip": 1.0, "rederive": True, "eta": eta}
    assert dpm_solver(LEVELS, grid, **options) == ddim(LEVELS, grid, **options)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_solver, 2)])
def test_halving_the_steps_in_λ_cuts_the_error_by_the_order(sampler, order):
    """The error of the map from x_T, on levels as fine as the steps need."""

    def spread(k: int) -> float:
        λ = torch.linspace(LEVELS[0].log_snr, LEVELS[90].log_snr, k, dtype=torch.float64)
        fine = levels_of(torch.sigmoid(2 * λ).numpy())
        rows = sampler(fine, pairs(range(k - 1, -1, -1)), prediction="x0")
        return moments(rows, fine)[1]

    limit = spread(4096)
    errors = [abs(spread(k) - limit) for k in (64, 128, 256)]
    for before, after in pairwise(errors):
        assert math.log2(before / after) == pytest.approx(order, abs=0.35)


def test_euler_on_the_levels_of_a_noise_schedule_is_ddim():
    """With u = b/(a+b), x_flow = x/(a+b)."""
    grid = make_grid(T, 8)
    levels = [type(level)(level.signal / sum(level), level.noise / sum(level)) for level in LEVELS]
    assert moments(ddim(levels, grid, prediction="x0"), levels)[1] == pytest.approx(
        moments(ddim(LEVELS, grid, prediction="x0"))[1] * sum(LEVELS[99]), rel=1e-9
    )
    assert [level_at(levels, t).noise for t in (99, 49)] == pytest.approx(
        [0.9995, 0.5031], abs=1e-4
    )


@pytest.mark.parametrize(
    ("sampler", "k", "evals"),
    [("ddim", 5, 5), ("dpm++", 5, 5), ("unipc", 5, 5), ("heun", 5, 9), ("midpoint", 5, 10)],
)
def test_evaluations_that_are_counted_are_those_that_are_made(sampler, k, evals):
    flow = sampler == "midpoint"
    model = ModelConfig(
        schedule="flow" if flow else "squaredcos", prediction="velocity" if flow else "x0"
    )
    chain = chains.make_chain(model, 1.0, Sampling(k, sampler=sampler))
    made = []
    sample(lambda x, row: made.append(row) or x, torch.zeros(1, 1, 4, 1), chain.rows)
    found = chains.audit(chain)
    assert (len(made), found["network_evals"], found["solver_steps"]) == (evals, evals, k)


@pytest.mark.parametrize("sampler", ["unipc", "heun", "midpoint"])
def test_samplers_without_noise_refuse_η(sampler):
    with pytest.raises(DiffpolicyError, match="--eta"):
        chains.make_chain(ModelConfig(), 1.0, Sampling(4, eta=1.0, sampler=sampler))


def test_the_midpoint_method_is_for_flow_matching_alone():
    with pytest.raises(DiffpolicyError, match="--schedule flow"):
        chains.make_chain(ModelConfig(), 1.0, Sampling(4, sampler="midpoint"))
