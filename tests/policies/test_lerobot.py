"""Policies of LeRobot: its own numbers on every engine, both layouts, clear refusals."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_weights import CONDITION, Block, resnet18, unet
from safetensors.torch import load_file, save_file

from diffpolicy.checkpoint import load_policy
from diffpolicy.data.normalizer import identity
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.denoisers.pictures import SpatialSoftmax
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.budgets import load_budgets
from diffpolicy.eval.measure.diffusers_loop import DiffusersLoop
from diffpolicy.policies import lerobot
from diffpolicy.policies.config import ImportPolicyConfig
from diffpolicy.policies.foreign import centred_crop, fold_batch_norms
from diffpolicy.policies.importing import import_policy
from diffpolicy.policy import Policy
from diffpolicy.specification import ObservationSpec

STATE, WORLD = "observation.state", "observation.environment_state"
CONFIG = {
    "type": "diffusion",
    "horizon": 8,
    "n_obs_steps": 2,
    "n_action_steps": 4,
    "input_features": {
        WORLD: {"type": "ENV", "shape": [3]},
        STATE: {"type": "STATE", "shape": [2]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
    "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
    "vision_backbone": "resnet18",
    "crop_shape": None,
    "use_group_norm": True,
    "spatial_softmax_num_keypoints": 4,
    "down_dims": [16, 32],
    "kernel_size": 5,
    "n_groups": 8,
    "diffusion_step_embed_dim": CONDITION,
    "use_film_scale_modulation": True,
    "noise_scheduler_type": "DDIM",
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "clip_sample_range": 1.0,
}
STATISTICS = {
    f"{STATE}.min": [-1.0, 2.0],
    f"{STATE}.max": [3.0, 4.0],
    f"{WORLD}.mean": [1.0, 0.0, 5.0],
    f"{WORLD}.std": [2.0, 0.5, 0.25],
    "action.min": [-2.0, 0.0],
    "action.max": [2.0, 1.0],
}
FILES = ("policy_preprocessor", "policy_postprocessor")


def write(folder: Path, config: dict | None = None, statistics=None, scales=True) -> Path:
    """A small policy of vectors, as LeRobot 0.4 saves it."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    weights = unet(10, 2, scales=scales)
    save_file({f"diffusion.unet.{n}": w for n, w in weights.items()}, folder / "model.safetensors")
    config = CONFIG | (config or {})
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {n: torch.tensor(x) for n, x in (STATISTICS | (statistics or {})).items()}
    for name, kind in zip(FILES, ("normalizer", "unnormalizer"), strict=True):
        file = f"{name}_step_0_{kind}_processor.safetensors"
        save_file(tensors, folder / file)
        step = {
            "registry_name": f"{kind}_processor",
            "config": {"eps": 1e-8, "norm_map": config["normalization_mapping"]},
            "state_file": file,
        }
        device = {"registry_name": "device_processor", "config": {"device": "cpu"}}
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "steps": [step, device]}))
    return folder


def bring(source: Path, out: Path, **options) -> Path:
    facts = {"control_dt": 0.1, "position_targets": True} | options
    import_policy(ImportPolicyConfig(source, out, **facts))
    return out


def older(folder: Path) -> None:
    """Move the statistics of a small policy into its weights, as before LeRobot 0.4."""
    weights = load_file(folder / "model.safetensors")
    for name, values in STATISTICS.items():
        key, _, statistic = name.rpartition(".")
        group = "unnormalize_outputs" if key == "action" else "normalize_inputs"
        weights[f"{group}.buffer_{key.replace('.', '_')}.{statistic}"] = torch.tensor(values)
    save_file(weights, folder / "model.safetensors")
    for path in folder.glob("policy_*"):
        path.unlink()


def oldest(folder: Path) -> None:
    """And describe inputs by shapes and modes by key, as LeRobot's first versions do."""
    older(folder)
    config = {k: v for k, v in CONFIG.items() if k not in ("type", "normalization_mapping")}
    del config["input_features"], config["output_features"]
    modes = {STATE: "min_max", WORLD: "mean_std"}
    config |= {"input_shapes": {STATE: [2], WORLD: [3]}, "output_shapes": {"action": [2]}}
    config |= {
        "input_normalization_modes": modes,
        "output_normalization_modes": {"action": "min_max"},
    }
    (folder / "config.json").write_text(json.dumps(config))


def observation(batch: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        key: rng.standard_normal((batch, 2, size), np.float32)
        for key, size in ((STATE, 2), (WORLD, 3))
    }


@pytest.fixture(scope="module")
def samples() -> Path:
    """Folder with policies that LeRobot saved."""
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    return Path(folder)


@pytest.fixture(scope="module", params=["state", "image"])
def sample(request, samples, tmp_path_factory):
    """Run folder of a policy of LeRobot, and its inputs and outputs there."""
    source = samples / f"lerobot_diffusion_{request.param}"
    run = bring(source, tmp_path_factory.mktemp("lerobot") / request.param)
    return run, np.load(source / "expected.npz")


@pytest.mark.parametrize(
    ("engine", "tolerance"), [("eager", 1e-5), ("native", 1e-4), ("onnx", 1e-4)]
)
@pytest.mark.parametrize("steps", [2, 10])
def test_the_actions_are_those_of_lerobot(sample, engine, tolerance, steps):
    run, expected = sample
    policy = Policy.load(run, ddim_steps=steps, engine=engine)
    conditioning, noise = (torch.from_numpy(expected[k]) for k in ("conditioning", "noise"))
    chunk = policy.engine(3)(conditioning, noise[None]).numpy()
    actions = policy.action_normalizer.unnormalize(chunk)
    close = {"rtol": 0, "atol": tolerance}
    np.testing.assert_allclose(chunk, expected[f"actions_normalised_{steps}"], **close)
    np.testing.assert_allclose(actions, expected[f"actions_{steps}"], **close)


def test_the_network_and_the_conditioning_are_those_of_lerobot(sample):
    """The pictures there are floats, and were not normalised."""
    run, expected = sample
    policy, network = Policy.load(run), Policy.load(run)._denoiser
    noise, conditioning = (torch.from_numpy(expected[k]) for k in ("noise", "conditioning"))
    found = network(noise, torch.full((3,), 37), conditioning)
    np.testing.assert_allclose(found, expected["unet_at_37"], rtol=0, atol=1e-5)
    specs = policy.observations
    plain = {key: identity(3) for key, spec in specs.items() if spec.is_picture}
    encoder = Encoder(policy.specification.model, specs, plain)
    encoder.load_state_dict(network.encoder.state_dict())
    inputs = {key: torch.from_numpy(expected[key]) for key in specs}
    seen = {k: x.movedim(-3, -1) if specs[k].is_picture else x for k, x in inputs.items()}
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(seen), conditioning, rtol=0, atol=1e-5)


def test_observations_are_normalised_as_in_lerobot(sample):
    run, expected = sample
    policy = Policy.load(run)
    for key, spec in policy.observations.items():
        newest, wanted = expected[key][:, -1], expected[f"normalised_newest {key}"]
        normalizer = policy.observation_normalizers.get(key, identity(spec.shape[-1]))
        if spec.is_picture:
            newest, wanted = (np.moveaxis(x, 1, -1) for x in (255 * newest, wanted))
        np.testing.assert_allclose(normalizer.normalize(newest), wanted, rtol=0, atol=1e-5)


def test_the_whole_policy_gives_the_actions_of_lerobot(sample):
    """From observations that normalise to its inputs; pictures are rounded to uint8."""
    run, expected = sample
    policy, inputs = Policy.load(run), {}
    for key, spec in policy.observations.items():
        normalizer = policy.observation_normalizers.get(key, identity(spec.shape[-1]))
        x = np.moveaxis(expected[key], -3, -1) if spec.is_picture else expected[key]
        x = normalizer.unnormalize(x)
        inputs[key] = np.rint(x).astype(np.uint8) if spec.is_picture else x
    pictures = any(spec.is_picture for spec in policy.observations.values())
    found = policy(inputs, expected["noise"][None])
    tolerance = 0.02 if pictures else 1e-5
    np.testing.assert_allclose(found, expected["actions_10"][:, 1:], rtol=0, atol=tolerance)


def test_the_keys_are_in_the_order_of_the_conditioning(tmp_path, samples):
    assert list(lerobot.read(write(tmp_path / "x")).observations) == [STATE, WORLD]
    pictured = lerobot.read(samples / "lerobot_diffusion_image")
    assert list(pictured.observations) == [STATE, "observation.image"]
    assert pictured.observations["observation.image"].crop == (6, 6, 84, 84)


def test_the_run_keeps_its_grid_and_another_can_be_asked_for(tmp_path, call):
    run = bring(write(tmp_path / "source"), tmp_path / "run")
    own, ours = Policy.load(run, ddim_steps=4), Policy.load(run, ddim_steps=4, grid="trailing")
    assert [t for t, _ in own.chain.grid] == [75, 50, 25, 0]
    assert [t for t, _ in ours.chain.grid] == [99, 74, 49, 24]
    assert (own.chain.name, ours.chain.name) == ("4 steps", "4 steps, grid trailing")
    assert own.sampling.grid == "leading" and Policy.load(run, ddim_steps=100, eta=1).chain.ddpm
    out = call("latency", "--run", run, "--ddim-steps", 4, "--engine", "eager", "--seconds", 0.01)
    assert "on the leading grid of the run, at t = 75 50 25 0" in out.out


def test_a_sweep_of_the_run_has_its_grid(tmp_path):
    run = bring(write(tmp_path / "source"), tmp_path / "run")
    options = {"run": run, "ddim_steps": (1, 2), "regression": "none", "engine": "eager"}
    own = [policy.chain.name for policy in load_budgets(SweepConfig(**options))]
    assert own == ["1 step", "2 steps", "DDPM 100"]
    both = load_budgets(SweepConfig(**options, grid=("leading", "trailing"), ddpm=False))
    others = ["1 step, grid trailing", "2 steps, grid trailing"]
    assert [policy.chain.name for policy in both] == ["1 step", "2 steps", *others]


@pytest.mark.parametrize("kind", ["DDIM", "DDPM"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_the_loop_is_that_of_diffusers(tmp_path, kind, prediction):
    """DDIM in 7 steps, and DDPM in all of them with the same noise."""
    schedulers = pytest.importorskip("diffusers.schedulers")
    changes = {"noise_scheduler_type": kind, "prediction_type": prediction}
    run = bring(write(tmp_path / "source", changes), tmp_path / "run")
    steps, eta = (7, 0.0) if kind == "DDIM" else (100, 1.0)
    policy = Policy.load(run, ddim_steps=steps, eta=eta)
    scheduler = getattr(schedulers, f"{kind}Scheduler")(
        100, beta_schedule="squaredcos_cap_v2", prediction_type=prediction
    )
    scheduler.set_timesteps(steps)
    encoded = policy.encode(observation())
    noise = torch.randn(policy.noise_shape(3))
    x, network = noise[0], policy._denoiser
    drawn = iter(noise[1:])
    for t in scheduler.timesteps:
        y = network(x, t.expand(3), encoded)
        if kind == "DDIM":
            x = scheduler.step(y, t, x).prev_sample
        else:  # its own noise, replaced by ours
            torch.manual_seed(0)
            without = scheduler.step(y, t, x).prev_sample
            torch.manual_seed(0)
            own = torch.randn(y.shape)
            σ = scheduler._get_variance(t) ** 0.5 if t > 0 else 0.0
            x = without + σ * (next(drawn) - own)
    found = policy.engine(3)(encoded, noise)
    torch.testing.assert_close(found, x, rtol=0, atol=2e-5)


def test_the_baseline_has_the_grid_of_the_run(tmp_path):
    pytest.importorskip("diffusers")
    checkpoint = load_policy(bring(write(tmp_path / "source"), tmp_path / "run"))
    loop, one = DiffusersLoop(checkpoint, 5, torch.device("cpu")), observation(1)
    torch.manual_seed(3)
    found = loop(one)
    torch.manual_seed(3)
    noise = torch.randn(1, 1, 8, 2).numpy()
    actions = Policy(checkpoint, replace(Policy(checkpoint).sampling, ddim_steps=5))(one, noise)
    np.testing.assert_allclose(found, actions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [older, oldest])
def test_older_layouts_give_the_same_policy(tmp_path, change):
    new, old = write(tmp_path / "new"), write(tmp_path / "old")
    change(old)
    runs = [bring(folder, tmp_path / f"{folder.name} run") for folder in (new, old)]
    noise = np.random.default_rng(1).standard_normal((1, 3, 8, 2), np.float32)
    one, other = (Policy.load(run)(observation(), noise) for run in runs)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_conditioning_that_only_shifts_scales_by_one(tmp_path):
    shift = {"use_film_scale_modulation": False}
    source = write(tmp_path / "source", shift, scales=False)
    run = bring(source, tmp_path / "run")
    same = shutil.copytree(source, tmp_path / "same")
    (same / "config.json").write_text(json.dumps(CONFIG))
    weights = load_file(same / "model.safetensors")
    for name, w in weights.items():
        if "cond_encoder" in name:
            fill = torch.zeros if name.endswith("weight") else torch.ones
            weights[name] = torch.cat([fill(w.shape), w])
    save_file(weights, same / "model.safetensors")
    noise = np.random.default_rng(1).standard_normal((1, 3, 8, 2), np.float32)
    found = [Policy.load(r)(observation(), noise) for r in (run, bring(same, tmp_path / "other"))]
    np.testing.assert_array_equal(*found)


def test_weights_of_a_compiled_network_are_the_same(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    renamed = {name.replace(".unet.", ".unet._orig_mod."): w for name, w in weights.items()}
    save_file(renamed, other / "model.safetensors")
    runs = [load_policy(bring(folder, tmp_path / f"{folder.name} run")) for folder in (one, other)]
    torch.testing.assert_close(*(run.weights for run in runs), rtol=0, atol=0)


def test_actions_are_unnormalised_as_the_postprocessor_does(tmp_path):
    source = write(tmp_path / "source")
    modes = {"norm_map": {"ACTION": "IDENTITY", "STATE": "MEAN_STD"}}
    change_processor(source, "policy_postprocessor", lambda steps: steps[0]["config"].update(modes))
    checkpoint = load_policy(bring(source, tmp_path / "run"))
    np.testing.assert_array_equal(checkpoint.action_normalizer.scale, [1, 1])
    found = checkpoint.observation_normalizers[STATE]
    np.testing.assert_allclose(found.normalize(np.float32([[-1, 2]])), [[-1, -1]])


def test_dimensions_without_change_are_constant(tmp_path, capsys):
    still = {f"{STATE}.max": [3.0, 2.0], "action.max": [-2.0, 1.0]}
    run = bring(write(tmp_path / "source", statistics=still), tmp_path / "run")
    assert f"{STATE}: without change in the training data" in capsys.readouterr().out
    policy = Policy.load(run)
    normal = policy.observation_normalizers[STATE].normalize(np.float32([[1, 2], [3, 2.5]]))
    np.testing.assert_allclose(normal, [[0, -1], [1, -1]], atol=1e-6)
    assert (policy(observation())[..., 0] == -2).all()


@pytest.mark.parametrize(
    ("size", "crop", "top"), [(96, 84, 6), (9, 8, 0), (11, 8, 2), (13, 8, 2), (15, 8, 4), (8, 8, 0)]
)
def test_the_centre_is_the_one_of_torchvision(size, crop, top):
    """round((size - crop) / 2), halves to the even number."""
    assert centred_crop((size, size, 3), crop, crop) == (top, top, crop, crop)
    shape, kept = (size + 32, size + 32, 3), crop + 32
    spec = ObservationSpec(shape, "uint8", "pixels", centred_crop(shape, kept, kept))
    model = lerobot.ModelConfig(encoder="cnn", keypoints=4)
    encoder = Encoder(model, {"image": spec}, {"image": identity(3)})
    pictures = torch.randint(256, (1, *shape), dtype=torch.uint8)
    seen = encoder.inputs[0](pictures)
    expected = pictures[:, top : top + kept, top : top + kept].movedim(-1, 1).float()
    assert torch.equal(seen, expected)


CAMERAS = {f"observation.images.{n}": {"type": "VISUAL", "shape": [3, 48, 40]} for n in "ab"}


@pytest.mark.parametrize("separate", [True, False])
def test_cameras_have_one_encoder_or_several(samples, tmp_path, separate):
    """Two cameras with the weights of the sample's only one."""
    source = write(tmp_path / "source")
    features = {STATE: CONFIG["input_features"][STATE], **CAMERAS}
    config = CONFIG | {
        **{"input_features": features, "crop_shape": [41, 37]},
        **{"use_separate_rgb_encoder_per_camera": separate, "spatial_softmax_num_keypoints": 32},
    }
    (source / "config.json").write_text(json.dumps(config))
    theirs = load_file(samples / "lerobot_diffusion_image" / "model.safetensors")
    weights = {f"diffusion.unet.{n}": w for n, w in unet(2 * (2 + 2 * 64), 2).items()}
    for number in ("0.", "1.") if separate else ("",):
        weights |= {
            name.replace("rgb_encoder.", f"rgb_encoder.{number}"): tensor.clone()
            for name, tensor in theirs.items()
            if "rgb_encoder" in name
        }
    save_file(weights, source / "model.safetensors")
    policy = Policy.load(bring(source, tmp_path / "run"))
    assert len(policy._denoiser.encoder.cameras) == 1 + separate
    assert policy.observations["observation.images.b"].crop == (4, 2, 41, 37)
    rng = np.random.default_rng(0)
    pictures = {k: rng.integers(0, 256, (1, 2, 48, 40, 3), np.uint8) for k in CAMERAS}
    encoded = policy.encode({STATE: np.zeros((1, 2, 2)), **pictures}).view(2, -1)
    swapped = dict(zip(CAMERAS, reversed(pictures.values()), strict=True))
    other = policy.encode({STATE: np.zeros((1, 2, 2)), **swapped}).view(2, -1)
    torch.testing.assert_close(encoded[:, 2:66], other[:, 66:])
    assert not torch.equal(encoded[:, 2:66], other[:, 2:66])


def test_batch_norm_is_folded_into_the_convolutions(tmp_path):
    """A ResNet-18 with BatchNorm of random statistics and LeRobot's names gives the same."""
    source, (key, camera) = write(tmp_path / "source"), next(iter(CAMERAS.items()))
    features = {STATE: CONFIG["input_features"][STATE], key: camera}
    config = CONFIG | {"input_features": features, "use_group_norm": False}
    (source / "config.json").write_text(json.dumps(config))
    weights = {f"diffusion.unet.{n}": w for n, w in unet(2 * (2 + 8), 2).items()}
    backbone, out = resnet18(), torch.nn.Linear(8, 8)
    pool = SpatialSoftmax(512, 4)
    parts = {"backbone": backbone, "pool": pool, "out": out}
    for part, module in parts.items():
        found = module.state_dict()
        weights |= {f"diffusion.rgb_encoder.{part}.{n}": w.clone() for n, w in found.items()}
    save_file(weights, source / "model.safetensors")
    policy = Policy.load(bring(source, tmp_path / "run"))
    assert policy.specification.model.encoder == "resnet18-folded"
    picture = np.random.default_rng(0).integers(0, 256, (1, 2, 48, 40, 3), np.uint8)
    encoded = policy.encode({STATE: np.zeros((1, 2, 2)), key: picture}).view(2, -1)
    with torch.inference_mode():
        x = policy._denoiser.get_submodule("encoder.inputs.0")(torch.from_numpy(picture[0]))
        expected = torch.relu(out(pool(backbone(x))))
    assert expected.std() > 0.01
    torch.testing.assert_close(encoded[:, 2:], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("bn1.running_var", torch.ones(32), "bn1 does not have one number for each output of"),
        ("bn1.weight", None, "has no tensor backbone.layer1.0.bn1.weight"),
        ("conv1.weight", torch.ones(()), "bn1 does not have one number for each output of"),
    ],
)
def test_a_batch_norm_that_does_not_fit_is_refused(name, tensor, message):
    weights = {f"backbone.layer1.0.{n}": w for n, w in Block(64, 64, 1).state_dict().items()}
    weights[f"backbone.layer1.0.{name}"] = tensor
    with pytest.raises(DiffpolicyError, match=message):
        fold_batch_norms({name: w for name, w in weights.items() if w is not None})


VISUAL = {STATE: CONFIG["input_features"][STATE], **CAMERAS}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "act"}, "the policy 'act' is not supported; expected diffusion"),
        ({"n_groups": 4}, "n_groups 4 is not supported; expected 8"),
        ({"noise_scheduler_type": "LCM"}, "noise_scheduler_type 'LCM' is not supported"),
        ({"beta_schedule": "linear"}, r"β from 0\.0001 to 0\.02 over 100 timesteps is not"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' is not supported"),
        ({"prediction_type": "flow"}, "prediction_type 'flow' is not supported; expected epsilon"),
        ({"down_dims": [16, 32, 64]}, "has no tensor down_modules.1.2.weight"),
        ({"down_dims": [16, 64]}, "does not fit the header; expected"),
        ({"horizon": 7}, "prediction horizon divisible by 2"),
        ({"kernel_size": 3}, "expected torch.float32"),
        ({"normalization_mapping": {"STATE": "QUANTILES"}}, "by 'QUANTILES' is not supported"),
        ({"normalization_mapping": {"ENV": "MIN_MAX"}}, "needs min and max of 3 finite numbers"),
        ({"input_features": {STATE: VISUAL[STATE]}}, "observes observation.state and pictures or"),
        ({"input_features": VISUAL, "vision_backbone": "resnet34"}, "vision_backbone 'resnet34'"),
        ({"input_features": VISUAL, "use_group_norm": False}, "got nothing"),
        ({"input_features": VISUAL, "resize_shape": [32, 32]}, r"resize_shape \(32, 32\) is not"),
        ({"input_features": VISUAL, "crop_shape": [64, 64]}, "a crop is the top, left, height"),
        ({"input_features": VISUAL}, "expected torch.float32 \\[64\\], got nothing"),
        ({"horizon": "long"}, "horizon must be a whole number"),
        ({"clip_sample_range": 1e9}, "clip_range must be at most"),
    ],
)
def test_what_is_not_supported_is_refused_before_anything_is_written(tmp_path, changes, message):
    source = write(tmp_path / "source", changes)
    with pytest.raises(DiffpolicyError, match=message):
        bring(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def change_processor(folder: Path, name: str, change) -> None:
    path = folder / f"{name}.json"
    document = json.loads(path.read_text())
    change(document["steps"])
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda steps: steps.append({"registry_name": "delta", "config": {}}), "step 'delta' is n"),
        (lambda steps: steps.pop(0), "expected one step normalizer_processor; got 0"),
        (lambda steps: steps[0].update(state_file="../x"), "must be a file in the folder"),
        (lambda steps: steps[0].update(state_file="none"), "is not a safetensors file"),
        (lambda steps: steps[1]["config"].update(rename_map={"a": "b"}), "rename_map is not supp"),
    ],
)
def test_processors_that_do_more_than_normalise_are_refused(tmp_path, change, message):
    source = write(tmp_path / "source")
    change_processor(source, "policy_preprocessor", change)
    with pytest.raises(DiffpolicyError, match=message):
        bring(source, tmp_path / "run")


def test_a_policy_without_statistics_is_refused(tmp_path):
    source = write(tmp_path / "source")
    for path in source.glob("policy_*"):
        path.unlink()
    with pytest.raises(DiffpolicyError, match="has no statistics of its data"):
        bring(source, tmp_path / "run")


@pytest.mark.parametrize("damage", [b"", b"\x80\x04N.", b"0" * 100])
def test_damaged_weights_are_refused(tmp_path, damage):
    source = write(tmp_path / "source")
    (source / "model.safetensors").write_bytes(damage)
    with pytest.raises(DiffpolicyError, match="is not a safetensors file"):
        bring(source, tmp_path / "run")
