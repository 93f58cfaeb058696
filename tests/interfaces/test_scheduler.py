"""DDIMScheduler: diffusers' golden numbers, its files, and parity with it wherever it is right."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden import RAMP, REVERSED, by_time, half
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy import DDIMScheduler
from diffpolicy.sampling.ddim import ddim_row
from diffpolicy.sampling.steps import move, read

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")


def chain(scheduler, model, steps, x=RAMP, skip=0, **options):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps[skip:]:
        x = scheduler.step(model(x, t), t, x, **options).prev_sample
    return x


@pytest.mark.parametrize(
    ("config", "model", "steps", "options", "total"),
    [
        ({}, by_time, 10, {}, 172.0067),
        ({"prediction_type": "v_prediction"}, by_time, 10, {}, 52.5302),
        ({"beta_start": 0.01}, by_time, 10, {}, 149.8295),
        ({"beta_start": 0.01, "set_alpha_to_one": False}, by_time, 10, {}, 149.0784),
        ({}, by_time, 10, {"eta": 1.0, "variance_noise": REVERSED}, 354.7376),
        ({"timestep_spacing": "trailing"}, by_time, 10, {}, 170.0350),
        ({"timestep_spacing": "linspace"}, by_time, 10, {}, 169.4642),
        ({"timestep_spacing": "trailing"}, by_time, 13, {}, 175.936),
        ({}, half, 10, {}, 383.2662),
        ({}, half, 10, {"use_clipped_model_output": True}, 634.9082),
        ({"timestep_spacing": "trailing"}, half, 10, {}, 333.5137),
        ({"timestep_spacing": "trailing"}, half, 10, {"use_clipped_model_output": True}, 641.8164),
    ],
)
def test_golden_sums(config, model, steps, options, total):
    x = chain(DDIMScheduler(**config), model, steps, **options)
    assert x.dtype == torch.float32
    assert x.abs().sum().item() == pytest.approx(total, abs=1e-2)
    assert x.abs().mean().item() == pytest.approx(total / 768, abs=1e-3)


def test_golden_sum_from_noise_added_on_the_way():
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    x = scheduler.add_noise(RAMP, REVERSED, scheduler.timesteps[8:9])
    assert chain(scheduler, by_time, 10, x, skip=8).abs().sum().item() == pytest.approx(
        354.5418, abs=1e-2
    )


def test_golden_timesteps_and_variances():
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [801, 601, 401, 201, 1]
    golden = {(0, 0): 0, (420, 400): 0.14771, (980, 960): 0.32460, (999, 998): 0.02}
    for levels, variance in golden.items():
        assert float(scheduler._get_variance(*levels)) == pytest.approx(variance, abs=1e-5)


# Parity, over whatever both can be told

configs = st.fixed_dictionaries(
    {
        "num_train_timesteps": st.sampled_from([10, 50, 100, 1000]),
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        "prediction_type": st.sampled_from(["epsilon", "sample", "v_prediction"]),
        "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace"]),
        "clip_sample": st.booleans(),
        "clip_sample_range": st.sampled_from([0.5, 1.0, 3.0]),
        "thresholding": st.booleans(),
        "dynamic_thresholding_ratio": st.sampled_from([0.5, 0.995]),
        "sample_max_value": st.sampled_from([1.0, 2.0]),
        "set_alpha_to_one": st.booleans(),
        "steps_offset": st.sampled_from([0, 1]),
    }
)
steppings = st.fixed_dictionaries(
    {"eta": st.sampled_from([0.0, 0.3, 1.0]), "use_clipped_model_output": st.booleans()}
)


def both(config, steps, **more):
    """Ours and theirs, theirs given our table: its own is float32, and wrong by up to 2e-4."""
    ours, theirs = DDIMScheduler(**config, **more), diffusers.DDIMScheduler(**config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-2, atol=1e-5)
    theirs.alphas_cumprod = torch.from_numpy(ours._table)
    theirs.final_alpha_cumprod = torch.tensor(ours._final, dtype=torch.float64)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(steps)
    return ours, theirs


def same(ours, theirs):
    for name in ("prev_sample", "pred_original_sample"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


@settings(max_examples=400)
@given(configs, steppings, st.data())
def test_parity_with_diffusers(config, stepping, data):
    """Timesteps, x_s and x̂0. Where its formula leaves the grid, ours follows the grid."""
    offset = config["steps_offset"] * (config["timestep_spacing"] == "leading")
    T = config["num_train_timesteps"]
    steps = data.draw(st.integers(1, T - offset))
    ours, theirs = both(config, steps)
    formula, _ = both(config, steps, prev_timestep="formula")
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()[:steps]
    seed = data.draw(st.integers(0, 1000))
    x, output, z = torch.randn(
        3, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    i = data.draw(st.integers(0, steps - 1))
    t = int(ours.timesteps[i])
    arguments = {**stepping, "variance_noise": z}
    expected = theirs.step(output, t, x, **arguments)
    same(formula.step(output, t, x, **arguments), expected)
    following = int(ours.timesteps[i + 1]) if i + 1 < steps else -1
    jumped = t - T // steps
    if following == jumped or (following < 0 and jumped < 0):
        same(ours.step(output, t, x, **arguments), expected)
    else:
        assert config["timestep_spacing"] != "leading" or offset
        right = theirs_to(theirs, config, following, (output, t, x), arguments)
        same(ours.step(output, t, x, **arguments), right)


def theirs_to(theirs, config, following, inputs, arguments):
    """Its step to the level that follows on the grid, which is put where its formula looks."""
    output, t, x = inputs
    if following < 0:
        theirs.num_inference_steps = 1
        assert t - config["num_train_timesteps"] < 0
        return theirs.step(output, t, x, **arguments)
    wanted = theirs.alphas_cumprod[following]
    jumped = t - config["num_train_timesteps"] // theirs.num_inference_steps
    if jumped < 0:
        theirs.final_alpha_cumprod = wanted
    else:
        theirs.alphas_cumprod = theirs.alphas_cumprod.clone()
        theirs.alphas_cumprod[jumped] = wanted
    return theirs.step(output, t, x, **arguments)


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_where_diffusers_leaves_the_grid(spacing):
    """T = 100, S = 7: at some steps it goes to a level that the next one does not start from."""
    ours = DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    ours.set_timesteps(7)
    theirs = diffusers.DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    theirs.set_timesteps(7)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    x, output = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    grid = ours.timesteps.tolist()
    left = 0
    for t, s in pairwise(grid):
        row = ddim_row(ours._level(t), ours._level(s), clip=1.0)
        core = move(x, output, read(x, output, row), row)
        torch.testing.assert_close(ours.step(output, t, x).prev_sample, core)
        left += t - 100 // 7 != s
        if t - 100 // 7 != s:
            assert not torch.allclose(theirs.step(output, t, x).prev_sample, core, atol=1e-5)
    assert left


@pytest.mark.parametrize(("T", "steps"), [(100, 29), (100, 31), (1000, 484), (1000, 932)])
def test_exactly_the_steps_asked_for(T, steps):
    """Its trailing spacing makes one more where rounding errors let it, at timestep -1."""
    ours, theirs = both({"num_train_timesteps": T, "timestep_spacing": "trailing"}, steps)
    assert len(ours.timesteps) == steps
    assert theirs.timesteps.tolist() == [*ours.timesteps.tolist(), -1]


@settings(max_examples=100)
@given(configs, st.integers(0, 1000))
def test_noise_and_velocity_are_diffusers_own(config, seed):
    ours, theirs = both(config, 5)
    generator = torch.Generator().manual_seed(seed)
    x, ε = torch.randn(2, 3, 4, 2, dtype=torch.float64, generator=generator)
    t = torch.randint(config["num_train_timesteps"], (3,), generator=generator)
    torch.testing.assert_close(ours.add_noise(x, ε, t), theirs.add_noise(x, ε, t))
    torch.testing.assert_close(ours.get_velocity(x, ε, t), theirs.get_velocity(x, ε, t))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_zero_terminal_snr_is_theirs(schedule):
    config = {"beta_schedule": schedule, "rescale_betas_zero_snr": True}
    ours, theirs = DDIMScheduler(**config), diffusers.DDIMScheduler(**config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)
    assert ours.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("bounded", [{}, {"clip_sample": True}, {"thresholding": True}])
@pytest.mark.parametrize("zero", [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.1, 1.0]}])
def test_epsilon_says_nothing_of_x0_at_zero_snr(prediction, bounded, zero):
    """It has to be clipped there, or x0 or v predicted; a quantile of infinities is none."""
    config = {"clip_sample": False, "prediction_type": prediction, **bounded, **zero}
    if "trained_betas" in zero:
        config["num_train_timesteps"] = 2
    if prediction == "epsilon" and "clip_sample" not in bounded:
        with pytest.raises(ValueError, match="says nothing of x0: predict x0 or v, or clip"):
            DDIMScheduler(**config)
    else:
        scheduler = DDIMScheduler(**config, timestep_spacing="trailing")
        assert chain(scheduler, half, 2, RAMP + 0.1).isfinite().all()


def test_as_it_comes_diffusers_gives_the_same_chain():
    """Untouched, float32, its defaults: 50 steps with the same generator."""
    chains = []
    for scheduler in (DDIMScheduler(), diffusers.DDIMScheduler()):
        generator = torch.Generator().manual_seed(3)
        chains.append(chain(scheduler, by_time, 50, eta=0.7, generator=generator))
    torch.testing.assert_close(*chains, rtol=1e-5, atol=1e-5)


# The object


def test_what_callers_read_from_it():
    scheduler = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2")
    assert len(scheduler) == 100 == scheduler.config.num_train_timesteps
    assert scheduler.config["beta_schedule"] == "squaredcos_cap_v2"
    assert (scheduler.init_noise_sigma, scheduler.order) == (1.0, 1)
    assert scheduler.timesteps.tolist() == list(range(99, -1, -1))
    assert scheduler.scale_model_input(RAMP, 3) is RAMP
    scheduler.set_timesteps(4)
    named = scheduler.step(RAMP, 75, RAMP)
    x, x0 = scheduler.step(RAMP, torch.tensor(75), RAMP, return_dict=False)
    assert torch.equal(named.prev_sample, x) and torch.equal(named[0], x)
    assert torch.equal(named["pred_original_sample"], x0) and torch.equal(named[1], x0)


def test_a_list_of_generators_has_one_for_each_sample():
    samples = []
    for scheduler in (DDIMScheduler(), diffusers.DDIMScheduler()):
        scheduler.set_timesteps(10)
        generators = [torch.Generator().manual_seed(s) for s in range(4)]
        step = scheduler.step(RAMP, 500, RAMP, eta=1.0, generator=generators)
        samples.append(step.prev_sample)
    torch.testing.assert_close(*samples, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("thresholding", [False, True])
def test_samples_keep_their_dtype(dtype, thresholding):
    scheduler = DDIMScheduler(thresholding=thresholding)
    scheduler.set_timesteps(10)
    x = RAMP.to(dtype)
    out = scheduler.step(x, 500, x, eta=1.0, generator=torch.Generator().manual_seed(0))
    assert out.prev_sample.dtype == out.pred_original_sample.dtype == dtype
    assert scheduler.add_noise(x, x, torch.tensor([5])).dtype == dtype


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "cosine"}, "beta_schedule must be one of linear, .* got 'cosine'"),
        ({"prediction_type": "x0"}, "prediction_type must be one of epsilon, sample"),
        ({"timestep_spacing": "karras"}, "timestep_spacing must be one of leading"),
        ({"prev_timestep": "next"}, "prev_timestep must be one of grid, formula"),
    ],
)
def test_unsupported_values_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        DDIMScheduler(**config)


def test_misuse_is_refused():
    scheduler = DDIMScheduler(num_train_timesteps=100, steps_offset=1)
    with pytest.raises(ValueError, match="call set_timesteps before step"):
        scheduler.step(RAMP, 3, RAMP)
    for steps in (0, -1, 101):
        with pytest.raises(
            ValueError, match=f"between 1 and num_train_timesteps = 100; got {steps}"
        ):
            scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match="timesteps reach 100, beyond the chain's last, 99"):
        scheduler.set_timesteps(100)
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="not both"):
        scheduler.step(RAMP, 3, RAMP, 1.0, generator=torch.Generator(), variance_noise=RAMP)
    steep = DDIMScheduler(2, trained_betas=[0.5, 1.5])
    steep.set_timesteps(2)
    with pytest.raises(ValueError, match="every β must lie between 0 and 1"):
        steep.step(RAMP, 1, RAMP)


# Its file

given_config = {
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample_range": 2.0,
    "prediction_type": "v_prediction",
}


def test_files_go_both_ways(tmp_path):
    ours, theirs = DDIMScheduler(**given_config), diffusers.DDIMScheduler(**given_config)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs" / "scheduler")
    read = diffusers.DDIMScheduler.from_pretrained(tmp_path / "ours")
    public = {k: v for k, v in read.config.items() if not k.startswith("_")}
    assert public == {k: v for k, v in theirs.config.items() if not k.startswith("_")}
    back = DDIMScheduler.from_pretrained(tmp_path / "theirs", subfolder="scheduler")
    assert back.config == {**public, "prev_timestep": "grid"}
    assert back.config == DDIMScheduler.from_pretrained(tmp_path / "ours").config


def test_configurations_go_both_ways():
    ours = DDIMScheduler.from_config(diffusers.DDIMScheduler(**given_config).config)
    assert ours.config == DDIMScheduler(**given_config).config
    theirs = diffusers.DDIMScheduler.from_config(ours.config)
    assert theirs.config.clip_sample_range == 2.0
    changed = DDIMScheduler.from_config(ours.config, timestep_spacing="trailing")
    assert changed.config.timestep_spacing == "trailing" and changed.config.clip_sample_range == 2.0


def test_defaults_of_another_class_do_not_come_along():
    """Euler's own default spacing is linspace; what nobody chose takes our default."""
    euler = diffusers.EulerDiscreteScheduler(beta_end=0.01)
    ours = DDIMScheduler.from_config(euler.config)
    assert ours.config.beta_end == 0.01
    assert ours.config.timestep_spacing == "leading"


def test_formula_and_given_betas_are_saved(tmp_path):
    betas = np.linspace(0.1, 0.3, 5)
    scheduler = DDIMScheduler(5, trained_betas=betas, prev_timestep="formula")
    scheduler.save_config(tmp_path)
    read = DDIMScheduler.from_pretrained(tmp_path)
    assert read.config.prev_timestep == "formula"
    np.testing.assert_allclose(read.config.trained_betas, betas)
    np.testing.assert_allclose(read.betas, betas, rtol=1e-5)


def test_a_folder_without_the_file_is_refused(tmp_path):
    with pytest.raises(OSError, match="no scheduler_config"):
        DDIMScheduler.from_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"beta_start": 0.1, "sigmas": 3}))
    with pytest.warns(UserWarning, match="no use for"):
        assert DDIMScheduler.from_pretrained(tmp_path).config.beta_start == 0.1
