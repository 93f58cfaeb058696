"""The four ways people call DDIM give the numbers of the core, and those that each is known for."""

import inspect

import numpy as np
import pytest
import torch
from golden import RAMP, REVERSED, by_row, gaussian, half
from golden import by_time as golden_model
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy import DDIMScheduler
from diffpolicy.interfaces import ddim, loop, notebook
from diffpolicy.sampling.ddim import ddim as ddim_table
from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.noise import CLEAN, alpha_bar_of, alpha_bar_table, levels_of, linear_betas
from diffpolicy.sampling.steps import read, sample
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train

LINEAR = alpha_bar_of(linear_betas(1000))


def total(x: torch.Tensor) -> float:
    return x.abs().sum().item()


def by_time(x, t, *_):
    return golden_model(x, t.view(-1, *[1] * (x.ndim - 1)))


# Functions, as Edifice has them


@pytest.fixture(scope="module")
def example():
    """The example of its documentation."""
    torch.manual_seed(0)
    model = ddim.build(obs_size=287, action_dim=64, action_horizon=8, num_steps=1000)
    schedule = ddim.make_schedule(num_steps=1000)
    return model, schedule, torch.randn(2, 287), torch.randn(2, 8, 64)


@torch.no_grad()
def test_the_documented_example_runs_as_written(example):
    model, schedule, observations, noise = example
    actions = ddim.ddim_sample(
        model, ddim.predict, observations, noise, schedule=schedule, ddim_steps=50, eta=0.0
    )
    assert actions.shape == (2, 8, 64)
    assert actions.isfinite().all() and actions.abs().max() <= 1
    again = ddim.ddim_sample(model, ddim.predict, observations, noise, schedule=schedule)
    assert torch.equal(actions, again)


@torch.no_grad()
def test_parameters_can_be_passed_apart_from_the_function(example):
    model, schedule, observations, noise = example

    def predict_fn(params, inputs):
        return torch.func.functional_call(model, params, tuple(inputs.values()))

    parameters = dict(model.named_parameters())
    arguments = {"schedule": schedule, "ddim_steps": 3}
    apart = ddim.ddim_sample(parameters, predict_fn, observations, noise, **arguments)
    whole = ddim.ddim_sample(model, ddim.predict, observations, noise, **arguments)
    assert torch.equal(apart, whole)


@torch.no_grad()
def test_the_network_is_what_its_documentation_says(example):
    """Concatenate, dense, SiLU, residual blocks, dense, in plain steps."""
    model, _, observations, x = example
    t = torch.tensor([0, 999])
    angles = t[:, None] / 1000 * 10_000 ** (torch.arange(128) / 127)
    time = torch.cat([angles.sin(), angles.cos()], dim=1)
    h = torch.cat([x.flatten(1), time, model.observation(observations)], dim=1)
    h = model.leave(model.blocks(torch.nn.functional.silu(model.enter(h))))
    torch.testing.assert_close(model(x, t, observations), h.view(2, 8, 64), atol=1e-3, rtol=0)
    exact = sum(p.numel() for p in model.parameters())
    assert ddim.param_count() < exact < 1.1 * ddim.param_count()


def test_sizes_and_defaults():
    assert ddim.output_size() == 512
    assert ddim.output_size(action_dim=7, action_horizon=16) == 112
    assert ddim.param_count() == 2_563_840
    assert ddim.recommended_defaults() == {
        **{"action_dim": 64, "action_horizon": 8, "hidden_size": 256, "num_layers": 4},
        **{"num_steps": 1000, "ddim_steps": 50, "eta": 0.0},
    }
    parameters = inspect.signature(ddim.build).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    assert defaults.items() <= ddim.recommended_defaults().items()


def test_the_schedule_is_the_linear_one_in_float64():
    schedule = ddim.make_schedule()
    assert schedule.num_steps == 1000 == len(schedule.betas)
    assert schedule.alphas_cumprod.dtype == torch.float64
    np.testing.assert_allclose(schedule.alphas_cumprod, LINEAR)
    levels = schedule.sqrt_alphas_cumprod**2 + schedule.sqrt_one_minus_alphas_cumprod**2
    torch.testing.assert_close(levels, torch.ones_like(levels))


@given(st.integers(1, 100), st.sampled_from([0.0, 1.0]), st.floats(-1, 1))
def test_functions_find_a_point_at_every_budget(k, eta, point):
    schedule = ddim.make_schedule(100, 1e-3, 0.2)
    oracle = gaussian(schedule.alphas_cumprod, point)
    asked = []

    def predict_fn(_, inputs):
        asked.append(int(inputs["timestep"][0]))
        return oracle(inputs["noisy_actions"], inputs["timestep"])

    start = torch.randn(2, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    found = ddim.ddim_sample(
        None, predict_fn, None, start, schedule=schedule, ddim_steps=k, eta=eta
    )
    torch.testing.assert_close(found, torch.full_like(found, point), rtol=0, atol=1e-9)
    assert asked == [t for t, _ in make_grid(100, k)]


def test_functions_have_the_golden_numbers_they_can_express():
    schedule = ddim.make_schedule()
    for model, expected in ((by_time, 170.0350), (half, 333.5137)):
        x = ddim.ddim_sample(
            None,
            lambda _, i, model=model: model(i["noisy_actions"], i["timestep"]),
            None,
            RAMP,
            schedule=schedule,
            ddim_steps=10,
        )
        assert total(x) == pytest.approx(expected, abs=1e-2)
    x = RAMP
    for t, t_prev in make_grid(1000, 10, "leading"):
        x = ddim.ddim_step(x, by_time(x, torch.tensor([t])), t, t_prev, schedule, 1.0, REVERSED)
    assert total(x) == pytest.approx(354.7376, abs=1e-2)


def test_injected_noise_is_added_and_seeded():
    schedule = ddim.make_schedule()
    arguments = (RAMP, half(RAMP, 0), 500, 400, schedule)
    plain = ddim.ddim_step(*arguments, eta=1.0, noise=torch.zeros_like(RAMP))
    noisy = ddim.ddim_step(*arguments, eta=1.0, noise=REVERSED)
    σ = ((1 - LINEAR[400]) / (1 - LINEAR[500]) * (1 - LINEAR[500] / LINEAR[400])) ** 0.5
    torch.testing.assert_close(noisy - plain, σ * REVERSED)
    assert not torch.equal(ddim.ddim_step(*arguments, eta=1.0), plain)


def test_its_network_trains_like_any_other(balance_store, tmp_path):
    config = TrainConfig(
        data=balance_store,
        out=tmp_path / "run",
        steps=200,
        denoiser="concat",
        prediction="epsilon",
        hidden=64,
        device="cpu",
    )
    train(config)
    losses = [
        float(line.split('"loss": ')[1].split(",")[0])
        for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.8 * losses[0]


# The loop


def test_the_loop_has_the_golden_numbers_it_can_express():
    for model, expected in ((by_time, 170.0350), (half, 641.8164)):
        x = loop.ddim_sample(model, RAMP, LINEAR, 10, auto_normalize=False)
        assert total(x) == pytest.approx(expected, abs=1e-2)


@given(st.integers(1, 99), st.sampled_from(sorted(loop.OBJECTIVES)), st.floats(-1, 1))
def test_the_loop_finds_a_point_at_every_budget(k, objective, point):
    table = alpha_bar_table("squaredcos", 100)
    model = gaussian(table, point, 0.0, loop.OBJECTIVES[objective])
    noise = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    found = loop.ddim_sample(model, noise, table, k, objective=objective, auto_normalize=False)
    torch.testing.assert_close(found, torch.full_like(found, point), rtol=0, atol=1e-9)


def test_the_loop_returns_its_states_and_unnormalises_last():
    arguments = (half, RAMP, LINEAR, 7)
    states = loop.ddim_sample(*arguments, return_all_timesteps=True, auto_normalize=False)
    assert states.shape == (4, 8, 3, 8, 8)
    assert torch.equal(states[:, 0], RAMP)
    last = loop.ddim_sample(*arguments)
    torch.testing.assert_close(last, (states[:, -1] + 1) / 2)
    assert torch.equal(loop.ddim_sample(*arguments, return_all_timesteps=True), (states + 1) / 2)


def test_the_loop_feeds_the_last_x0_back():
    seen = []

    def model(x, t, x_self_cond):
        seen.append(x_self_cond)
        return 0.3 * x

    loop.ddim_sample(model, RAMP, LINEAR, 4, self_condition=True, auto_normalize=False)
    rows = ddim_table(levels_of(LINEAR), make_grid(1000, 4, "loop"), clip=1.0)
    assert seen[0] is None and len(seen) == 4
    torch.testing.assert_close(seen[1], read(RAMP, 0.3 * RAMP, rows[0]))


def test_the_loop_is_ancestral_where_it_takes_every_step():
    table = alpha_bar_table("linear", 20)

    def run(steps, eta=0.0):
        generator = torch.Generator().manual_seed(1)
        return loop.ddim_sample(
            half, RAMP, table, steps, ddim_sampling_eta=eta, generator=generator
        )

    assert torch.equal(run(20), run(20, eta=1.0))
    assert not torch.equal(run(19), run(19, eta=1.0))


# The notebook


@pytest.mark.parametrize(("every", "evals"), [(1, 999), (3, 367), (10, 145)])
def test_the_notebook_s_budgets(every, evals):
    calls = []

    def model(x, t):
        calls.append(int(t[0]))
        return half(x, t)

    found = notebook.ddim_sample(model, RAMP[:1, :1], LINEAR, every=every)
    assert (found.solver_steps, found.network_evals) == (999, evals) == (999, len(calls))
    assert calls[-50:] == list(range(50, 0, -1))
    assert calls[:3] == [999, 999 - every, 999 - 2 * every]
    assert len(found.states) == len(found.predictions) == 999
    assert torch.equal(found.sample, found.states[-1])


def test_nothing_reused_is_the_plain_sampler():
    table = LINEAR[:30]
    grid = [(t, t - 1) for t in range(29, 0, -1)]
    rows = ddim_table(levels_of(table), grid)
    plain = sample(by_row(golden_model, rows), RAMP[None], rows)
    torch.testing.assert_close(notebook.ddim_sample(by_time, RAMP, table, every=1).sample, plain)
    shorter = notebook.ddim_sample(by_time, RAMP, table, dense=5, every=3)
    assert shorter.network_evals == 5 + 8
    assert not torch.equal(shorter.sample, plain)


def test_a_constant_prediction_can_be_reused_for_nothing():
    """A prediction that does not change can be reused without an error."""
    ε = torch.randn(RAMP.shape, generator=torch.Generator().manual_seed(0))
    exact = notebook.ddim_sample(lambda x, t: ε, RAMP, LINEAR, every=1).sample
    skipped = notebook.ddim_sample(lambda x, t: ε, RAMP, LINEAR, every=10).sample
    assert torch.equal(exact, skipped)


# The scheduler's own golden numbers stand in test_scheduler.py; here: one core for all


def test_all_four_agree_where_they_can():
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    x = RAMP
    for t in scheduler.timesteps:
        x = scheduler.step(by_time(x, t[None]), t, x, use_clipped_model_output=True).prev_sample
    looped = loop.ddim_sample(by_time, RAMP, LINEAR, 10, auto_normalize=False)
    rows = ddim_table(levels_of(LINEAR), make_grid(1000, 10), clip=1.0, rederive=True)
    core = sample(by_row(golden_model, rows), RAMP[None], rows)
    assert torch.equal(looped, core)
    torch.testing.assert_close(x, core)
    assert make_grid(1000, 10)[-1][1] == CLEAN
