"""Checkpoints of Diffusion Policy: their content without their code, and its own actions."""

import os
import pickle
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from foreign_weights import CONDITION, unet

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies import diffusion_policy
from diffpolicy.policies.config import ImportPolicyConfig
from diffpolicy.policies.importing import import_policy
from diffpolicy.policies.pickled import TorchFile
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT, picture

LOWDIM = "diffusion_policy.policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy"
SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 100,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
POLICY = {
    "_target_": LOWDIM,
    "model": {
        "diffusion_step_embed_dim": CONDITION,
        **{"down_dims": [16, 32], "kernel_size": 5, "n_groups": 8, "cond_predict_scale": True},
    },
    "noise_scheduler": SCHEDULER,
    **{"horizon": 8, "n_obs_steps": 2, "n_action_steps": 4, "obs_dim": 5, "action_dim": 2},
    **{"obs_as_local_cond": False, "obs_as_global_cond": True, "oa_step_convention": True},
}
CLASSES = {
    dict: "omegaconf.dictconfig.DictConfig",
    list: "omegaconf.listconfig.ListConfig",
    None: "omegaconf.nodes.AnyNode",
}
NAMES = {"convolutions": ("blocks.0.block", "blocks.1.block"), "resample": "2.conv"}


@pytest.fixture(autouse=True)
def omegaconf(monkeypatch):
    """Classes by OmegaConf's names, so that a pickle can refer to them."""
    for reference in CLASSES.values():
        module, _, name = reference.rpartition(".")
        kind = type(name, (), {"__module__": module})
        for above in ("omegaconf", module):
            if above not in sys.modules:
                monkeypatch.setitem(sys.modules, above, ModuleType(above))
        monkeypatch.setattr(sys.modules[module], name, kind, raising=False)


def node(value):
    """A value as OmegaConf holds it."""
    kind = type(value) if type(value) in CLASSES else None
    module, _, name = CLASSES[kind].rpartition(".")
    found = getattr(sys.modules[module], name)()
    if kind is dict:
        found._content = {k: node(v) for k, v in value.items()}
    elif kind is list:
        found._content = [node(v) for v in value]
    else:
        found._val = value
    return found


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    weights = {f"model.{n}": w for n, w in unet(10, 2, **NAMES).items()}
    for key, size in (("obs", 5), ("action", 2)):
        weights[f"normalizer.params_dict.{key}.scale"] = torch.rand(size) + 0.5
        weights[f"normalizer.params_dict.{key}.offset"] = torch.randn(size)
        weights[f"normalizer.params_dict.{key}.input_stats.min"] = torch.randn(size)
    return weights | {"mask_generator._dummy_variable": torch.zeros(0)}


def payload(policy=None, **others) -> dict:
    states = {"model": state(1), "ema_model": state(2), "optimizer": {"state": {}}}
    cfg = node({"policy": POLICY | (policy or {}), "task": {"name": "x"}})
    pickles = {"epoch": pickle.dumps(3)}
    return {"cfg": cfg, "state_dicts": states, "pickles": pickles, **others}


def write(path: Path, content=None, **options) -> Path:
    torch.save(payload() if content is None else content, path, **options)
    return path


def bring(source: Path, out: Path) -> Path:
    import_policy(ImportPolicyConfig(source, out, control_dt=0.1, position_targets=True))
    return out


def rewritten(source: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """The same checkpoint with other bytes in its files: change(name, content) -> content."""
    with zipfile.ZipFile(source) as file:
        files = {name: change(name, file.read(name)) for name in file.namelist()}
    with zipfile.ZipFile(source, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return source


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_averaged_weights_and_the_normaliser_are_read(tmp_path, protocol):
    run = bring(write(tmp_path / "a.ckpt", pickle_protocol=protocol), tmp_path / "run")
    checkpoint = load_policy(run)
    theirs = state(2)
    torch.testing.assert_close(
        checkpoint.weights["middle.0.first.0.weight"],
        theirs["model.mid_modules.0.blocks.0.block.0.weight"],
    )
    normalizer = checkpoint.observation_normalizers[FLAT]
    np.testing.assert_array_equal(normalizer.scale, theirs["normalizer.params_dict.obs.scale"])
    specification = checkpoint.specification
    assert (specification.grid, specification.rederive) == ("leading", True)
    assert specification.training["config"]["policy"]["horizon"] == 8
    assert np.isfinite(Policy.load(run)(np.zeros((1, 2, 5)))).all()


def test_without_averaged_weights_the_others_are_taken(tmp_path, capsys):
    content = payload()
    del content["state_dicts"]["ema_model"]
    run = bring(write(tmp_path / "a.ckpt", content), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "weights of model\n" in printed
    assert "samples this policy by DDPMScheduler with --ddim-steps 100 --eta 1" in printed
    found = load_policy(run).weights["leave.1.bias"]
    assert torch.equal(found, state(1)["model.final_conv.1.bias"])


class Call:
    """Object that calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["cfg", "state_dicts", "optimizer"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, f"{os.name}.system"),
        (eval, "eval"),
        (getattr, "getattr"),
        (torch.load, "torch.serialization.load"),
        (np.load, "numpy.load"),
        (subprocess.Popen, "Popen"),
    ],
)
def test_code_is_refused_by_its_name_and_does_not_run(tmp_path, place, function, name):
    content, sentinel = payload(), tmp_path / "ran"
    trap = Call(function, f"touch {sentinel}")
    if place == "optimizer":
        content["state_dicts"]["optimizer"] = trap
    else:
        content[place] = trap
    source = write(tmp_path / "a.ckpt", content)
    with pytest.raises(DiffpolicyError, match=rf"its pickle asks for '[\w.]*{name}'"):
        bring(source, tmp_path / "run")
    assert not sentinel.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(}(X\x01\x00\x00\x00aNdtb.",  # sets an attribute of it
        b"ccollections\nOrderedDict\n(Xx\x00\x00\x00",  # cut short
        b"\x80\x04r\xff\xff\xff\x7f.",  # a far entry of the memo
        b"(lp0\n0g0\n.",
        b"Nr\xff\xff\xff\x7f.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(S'storage'\nS'FloatStorage'\nS'../x'\nS'cpu'\nI4\ntQ.",
        b"(S'module'\nNNNNtQ.",
        b"(S'storage'\nS'FloatStorage'\nS'0'\nS'cpu'\nI1\ntQ}(S'dtype'\nI1\nub.",  # changes it
        b"})" + 10**6 * b"\x85" + b"Ns.",  # a key whose hash would exhaust the stack
        b"",
    ],
)
def test_hostile_pickles_are_refused(tmp_path, program):
    source = write(tmp_path / "a.ckpt")
    rewritten(source, lambda name, old: program if name.endswith("data.pkl") else old)
    with pytest.raises(DiffpolicyError, match=r"a\.ckpt"):
        bring(source, tmp_path / "run")


def test_a_configuration_that_repeats_without_end_is_refused(tmp_path):
    value = node(1)
    for _ in range(12):
        inside, value = value, node([])
        value._content = 10 * [inside]
    with pytest.raises(DiffpolicyError, match="content repeats without end"):
        bring(write(tmp_path / "a.ckpt", payload() | {"cfg": value}), tmp_path / "run")


def test_numbers_in_many_tensors_are_refused(tmp_path):
    x = torch.zeros(100_000)
    file = TorchFile(write(tmp_path / "a.ckpt", {str(n): x for n in range(50)}))
    with pytest.raises(DiffpolicyError, match="content repeats without end"):
        file.tensors(file.payload)


def test_a_configuration_is_kept_as_json_can_hold_it(tmp_path):
    content = payload()
    content["cfg"] = node({"policy": POLICY, "lr": float("inf"), "n": {1: None}})
    run = bring(write(tmp_path / "a.ckpt", content), tmp_path / "run")
    kept = load_policy(run).specification.training["config"]
    assert (kept["lr"], kept["n"]) == ("inf", {"1": None})
    content["cfg"] = node({"policy": POLICY, "n": 10**5000})
    with pytest.raises(DiffpolicyError, match="more than plain values"):
        bring(write(tmp_path / "b.ckpt", content), tmp_path / "other")


def test_options_that_are_left_out_have_the_defaults_of_diffusion_policy(tmp_path):
    for name in ("obs_as_global_cond", "oa_step_convention"):
        content = payload()
        content["cfg"] = node({"policy": {k: v for k, v in POLICY.items() if k != name}})
        with pytest.raises(DiffpolicyError, match=f"{name} False is not supported"):
            bring(write(tmp_path / "a.ckpt", content), tmp_path / "run")
    pictures = diffusion_policy.PolicyConfig(8, 2, 4, SCHEDULER)
    assert (pictures.crop_shape, pictures.obs_as_global_cond) == ((76, 76), True)


def test_the_eta_of_a_policy_is_told(tmp_path, capsys):
    changes = {"noise_scheduler": SCHEDULER | {"_target_": "x.DDIMScheduler"}, "eta": 0.5}
    bring(write(tmp_path / "a.ckpt", payload(changes)), tmp_path / "run")
    assert "by DDIMScheduler with --ddim-steps 100 --eta 0.5\n" in capsys.readouterr().out


def test_damaged_bytes_are_read_or_refused(tmp_path):
    source = write(tmp_path / "a.ckpt")
    whole = source.read_bytes()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(source) as file:
        pickled = file.read("a/data.pkl")
    for _ in range(60):
        damaged = bytearray(pickled)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        source.write_bytes(whole)
        rewritten(source, lambda n, old, new=bytes(damaged): new if n == "a/data.pkl" else old)
        try:
            bring(source, tmp_path / "run")
        except DiffpolicyError:
            assert not (tmp_path / "run").exists()
        else:
            (tmp_path / "run" / "policy.safetensors").unlink()
            (tmp_path / "run").rmdir()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a checkpoint of PyTorch; expected a zip"),
        (b"\x80\x02}q\x00.", "is not a checkpoint of PyTorch; expected a zip"),
        (b"PK\x05\x06" + 18 * b"\0", "is not a checkpoint of PyTorch; expected a zip"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(DiffpolicyError, match=message):
        bring(tmp_path / "a.ckpt", tmp_path / "run")


def test_damaged_zips_are_read_or_refused(tmp_path):
    source, rng = tmp_path / "a.ckpt", np.random.default_rng(0)
    whole = write(source).read_bytes()
    headers = [place.start() for place in re.finditer(b"PK[\1\3][\2\4]", whole)]
    for header in rng.choice(headers, 150):
        damaged = bytearray(whole)
        damaged[header + rng.integers(4, 46)] ^= 1 << rng.integers(8)
        source.write_bytes(damaged)
        with suppress(DiffpolicyError):
            file = TorchFile(source)
            file.tensors(file.payload["state_dicts"]["model"])


def test_compressed_and_short_storages_are_refused(tmp_path):
    source = rewritten(write(tmp_path / "a.ckpt"), lambda _, old: old, zipfile.ZIP_DEFLATED)
    with pytest.raises(DiffpolicyError, match="is compressed; torch"):
        bring(source, tmp_path / "run")
    source = rewritten(
        write(tmp_path / "b.ckpt"), lambda name, old: old[:-1] if "/data/" in name else old
    )
    with pytest.raises(DiffpolicyError, match="holds a damaged tensor"):
        bring(source, tmp_path / "run")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    """An expanded tensor of 4 TB, whose storage has one number."""
    content = {"x": torch.zeros(1).expand(10**12)}
    file = TorchFile(write(tmp_path / "a.ckpt", content))
    with pytest.raises(DiffpolicyError, match="holds a damaged tensor"):
        file.tensors(file.payload)


def test_views_and_types_of_tensors_are_kept(tmp_path):
    x = torch.arange(24.0).view(4, 6)
    content = {"part": x[1:, ::2].T, "half": x.bfloat16(), "count": torch.tensor(3), "none": x[:0]}
    content["parameter"] = torch.nn.Parameter(x)
    file = TorchFile(write(tmp_path / "a.ckpt", content))
    found = file.tensors(file.payload)
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert torch.equal(found[name], tensor.detach()), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "x.DiffusionTransformerLowdimPolicy"}, "policy 'DiffusionTransformerLowdimP"),
        ({"obs_as_global_cond": False}, "obs_as_global_cond False is not supported"),
        ({"obs_as_local_cond": True}, "obs_as_local_cond True is not supported"),
        ({"pred_action_steps_only": True}, "pred_action_steps_only True is not supported"),
        ({"oa_step_convention": False}, "oa_step_convention False is not supported"),
        ({"horizon": "${horizon}"}, r"horizon must be a whole number; got '\$\{horizon\}'"),
        ({"obs_dim": 4}, "normaliser of obs has 5 numbers; expected 4"),
        ({"noise_scheduler": SCHEDULER | {"_target_": "x.PNDMScheduler"}}, "'PNDMScheduler' is n"),
        ({"noise_scheduler": SCHEDULER | {"steps_offset": 1}}, "steps_offset 1 is not supported"),
        (
            {"noise_scheduler": SCHEDULER | {"set_alpha_to_one": False}},
            "set_alpha_to_one False is not supported; expected True",
        ),
        (
            {"noise_scheduler": SCHEDULER | {"variance_type": "learned"}},
            "variance_type 'learned' is not supported",
        ),
        ({"model": POLICY["model"] | {"n_groups": 4}}, "n_groups 4 is not supported"),
        ({"model": POLICY["model"] | {"down_dims": [16]}}, "belongs to no layer"),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path, changes, message):
    source = write(tmp_path / "a.ckpt", payload(changes))
    with pytest.raises(DiffpolicyError, match=message):
        bring(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_a_normaliser_without_an_inverse_is_refused(tmp_path, scale):
    content = payload()
    content["state_dicts"]["ema_model"]["normalizer.params_dict.action.scale"][1] = scale
    with pytest.raises(DiffpolicyError, match="the normaliser of action has a scale of 0, NaN or"):
        bring(write(tmp_path / "a.ckpt", content), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [{}, [], {"cfg": 3}, {"cfg": {"policy": 3}}])
def test_other_checkpoints_are_refused(tmp_path, content):
    with pytest.raises(DiffpolicyError, match="is not a checkpoint of Diffusion Policy"):
        bring(write(tmp_path / "a.ckpt", content), tmp_path / "run")


IMAGE = {
    "_target_": "x.DiffusionUnetImagePolicy",
    "shape_meta": {
        "obs": {
            "speed": {"shape": [3]},
            "wrist": {"shape": [3, 40, 44], "type": "rgb"},
            "front": {"shape": [3, 40, 44], "type": "rgb"},
            "pose": {"shape": [2], "type": "low_dim"},
        },
        "action": {"shape": [2]},
    },
    "obs_encoder": {
        "_target_": "x.MultiImageObsEncoder",
        "rgb_model": {"_target_": "x.get_resnet", "name": "resnet18", "weights": None},
        **{"resize_shape": [40, 44], "crop_shape": [35, 37], "random_crop": True},
        **{"use_group_norm": True, "share_rgb_model": False, "imagenet_norm": True},
    },
    **{k: v for k, v in POLICY["model"].items() if isinstance(v, int | list)},
}
RGB, VECTORS = ("front", "wrist"), {"pose": 2, "speed": 3}


def images(encoder=None, **policy) -> dict:
    """A checkpoint of two cameras and two vectors, which MultiImageObsEncoder joins by name."""
    torch.manual_seed(3)
    weights = {f"model.{n}": w for n, w in unet(2 * (2 * 512 + 5), 2, **NAMES).items()}
    model = ModelConfig(encoder="resnet18", keypoints=0, crop=1.0)
    cameras = Encoder(model, {key: picture(40, 44) for key in RGB}, {}).state_dict()
    for name, weight in cameras.items():
        number, _, rest = name.removeprefix("cameras.").partition(".backbone.")
        weights[f"obs_encoder.key_model_map.{RGB[int(number)]}.{rest}"] = weight
    for key, size in {"action": 2, **VECTORS, "front": 1, "wrist": 1}.items():
        pair = (2.0, -1.0) if key in RGB else (1.0, 0.5)
        for part, value in zip(("scale", "offset"), pair, strict=True):
            weights[f"normalizer.params_dict.{key}.{part}"] = torch.full((size,), value)
    weights["obs_encoder._dummy_variable"] = torch.zeros(0)
    options = IMAGE | {"obs_encoder": IMAGE["obs_encoder"] | (encoder or {})} | policy
    return payload(options, state_dicts={"ema_model": weights})


def test_cameras_of_an_image_policy_come_first_and_are_averaged(tmp_path):
    """Pictures in [-1, 1] have ImageNet's mean and deviation; keys are sorted by name."""
    policy = Policy.load(bring(write(tmp_path / "a.ckpt", images()), tmp_path / "run"))
    assert list(policy.observations) == [*RGB, *VECTORS]
    assert policy.observations["wrist"].crop == (2, 4, 35, 37)
    rng = np.random.default_rng(0)
    seen = {key: rng.integers(0, 256, (1, 2, 40, 44, 3), np.uint8) for key in RGB}
    vectors = {key: np.zeros((1, 2, size), np.float32) for key, size in VECTORS.items()}
    encoded = policy.encode({**seen, **vectors}).unflatten(1, (2, -1))
    crop = torch.from_numpy(seen["wrist"])[0, :, 2:37, 4:41].movedim(-1, 1) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    backbone = policy._denoiser.get_submodule("encoder.cameras.1.backbone")
    with torch.inference_mode():
        expected = backbone((2 * crop - 1 - mean) / std).mean((2, 3))
    torch.testing.assert_close(encoded[0, :, 512:1024], expected, rtol=0, atol=1e-5)
    assert (encoded[..., 1024:] == 0.5).all()


def test_without_random_crops_the_whole_picture_is_seen(tmp_path):
    """MultiImageObsEncoder overwrites its centre crop."""
    source = write(tmp_path / "a.ckpt", images({"random_crop": False}))
    policy = Policy.load(bring(source, tmp_path / "run"))
    assert policy.observations["front"].crop == (0, 0, 40, 44)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "x.TimmObsEncoder"}, "the encoder 'TimmObsEncoder' is not supported"),
        ({"rgb_model": {"_target_": "x.get_r3m"}}, "rgb_model 'get_r3m' is not supported"),
        ({"rgb_model": IMAGE["obs_encoder"]["rgb_model"] | {"name": "resnet34"}}, "'resnet34' is"),
        ({"share_rgb_model": True}, "has no tensor|belongs to no layer"),
        ({"use_group_norm": False}, r"bn1\.bias' does not fit"),
        ({"resize_shape": [32, 32]}, r"resize_shape \(32, 32\) is not supported"),
        ({"crop_shape": [64, 64]}, "a crop is the top, left, height"),
        ({"crop_shape": {"front": [35, 37]}}, r"obs_encoder\.crop_shape must be a list"),
    ],
)
def test_encoders_of_pictures_that_are_not_supported_are_refused(tmp_path, changes, message):
    source = write(tmp_path / "a.ckpt", images(changes))
    with pytest.raises(DiffpolicyError, match=message):
        bring(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Folder of checkpoints that Diffusion Policy wrote, with its actions."""
    python = os.environ.get("DIFFPOLICY_DIFFUSION_POLICY_PYTHON")
    if not python:
        pytest.skip("DIFFPOLICY_DIFFUSION_POLICY_PYTHON does not name a python that imports it")
    out = tmp_path_factory.mktemp("diffusion_policy")
    script = Path(__file__).parents[1] / "foreign" / "make_diffusion_policy.py"
    subprocess.run([python, str(script), str(out)], check=True, capture_output=True)
    return out


@pytest.mark.parametrize(
    ("name", "eta"),
    [
        *[("lowdim", 1.0), ("ddim", 0.0), ("hybrid", 1.0), ("batch_norm", 1.0)],
        *[("image", 1.0), ("shared", 1.0)],
    ],
)
def test_the_actions_are_those_of_diffusion_policy(made, tmp_path, name, eta):
    """In all the steps and with the noise of its own scheduler; actions in [-1, 1]."""
    run, expected = bring(made / f"{name}.ckpt", tmp_path / "run"), np.load(made / f"{name}.npz")
    noise = expected["noise"]
    policy = Policy.load(run, ddim_steps=len(noise) - 1, eta=eta)
    inputs = {key: expected[f"obs/{'obs' if key == FLAT else key}"] for key in policy.observations}
    for key, spec in policy.observations.items():
        if spec.is_picture:
            inputs[key] = np.rint(255 * np.moveaxis(inputs[key], -3, -1)).astype(np.uint8)
    found = policy(inputs, noise if eta else noise[:1])[:, : policy.horizons.action]
    np.testing.assert_allclose(found, expected["action"], rtol=0, atol=1e-5)
