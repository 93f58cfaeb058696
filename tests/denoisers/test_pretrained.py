"""Start of a ResNet-18 from a file with torchvision's names."""

from hashlib import blake2b

import pytest
import torch
from safetensors.torch import save_file

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.denoisers.pretrained import load_convolutions, read_convolutions
from diffpolicy.denoisers.resnet import ResNet18
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture

RESNET = ModelConfig(encoder="resnet18", keypoints=4)
TWO = {"front": picture(40, 40), "side": picture(40, 40)}
CONVOLUTIONS = 1 + 16 + 3


def torchvision() -> dict[str, torch.Tensor]:
    """Random weights with the names and shapes of torchvision's resnet18."""
    torch.manual_seed(5)
    found = {name: torch.randn_like(w) for name, w in ResNet18(3).state_dict().items()}
    for name in [name for name in found if name.endswith(".bias")]:
        norm = name.removesuffix("bias")
        for part in ("running_mean", "running_var"):
            found[f"{norm}{part}"] = torch.ones_like(found[name])
        found[f"{norm}num_batches_tracked"] = torch.tensor(7)
    return {**found, "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


def encoder(model: ModelConfig = RESNET, observations=TWO) -> Encoder:
    torch.manual_seed(0)
    return Encoder(model, observations, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_camera_takes_the_convolutions_and_nothing_else(tmp_path, dtype):
    network, weights = encoder(), {n: w.to(dtype) for n, w in torchvision().items()}
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    save_file(weights, tmp_path / "weights")
    assert load_convolutions(network, read_convolutions(tmp_path / "weights")) == CONVOLUTIONS
    taken = 0
    for name, weight in network.state_dict().items():
        own = name.removeprefix(name[: len("cameras.0.")]).removeprefix("backbone.")
        taken += weight.ndim == 4 and "pool" not in name
        expected = weights[own].float() if weight.ndim == 4 and own in weights else before[name]
        assert torch.equal(weight, expected), name
    assert taken == 2 * CONVOLUTIONS


def test_a_head_and_a_batch_norm_may_be_absent(tmp_path):
    save_file({n: w for n, w in torchvision().items() if w.ndim == 4}, tmp_path / "weights")
    start = read_convolutions(tmp_path / "weights")
    assert load_convolutions(encoder(), start) == CONVOLUTIONS
    content = (tmp_path / "weights").read_bytes()
    assert start.digest == blake2b(content, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("layer1.2.conv1.weight", torch.zeros(64, 64, 3, 3), "expected nothing, got torch.float32"),
        ("layer2.0.conv1.weight", None, r"floats \[128, 64, 3, 3\], got nothing"),
        ("conv1.weight", torch.zeros(64, 1, 7, 7), r"got torch.float32 \[64, 1, 7, 7\]"),
        ("conv1.weight", torch.zeros(64, 3, 7, 7, dtype=torch.int8), "got torch.int8"),
        ("conv1.weight", torch.full((64, 3, 7, 7), torch.nan), "expected finite floats"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, name, tensor, message):
    network, weights = encoder(), torchvision()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    weights.pop(name, None)
    save_file(weights | ({} if tensor is None else {name: tensor}), tmp_path / "weights")
    with pytest.raises(DiffpolicyError, match=f"does not fit a ResNet-18 .*'{name}'.*{message}"):
        load_convolutions(network, read_convolutions(tmp_path / "weights"))
    assert all(torch.equal(w, before[n]) for n, w in network.state_dict().items())


@pytest.mark.parametrize(("channels", "others"), [(1, 3), (4, 1)])
def test_cameras_have_the_channels_of_the_file(tmp_path, channels, others):
    first = {"conv1.weight": torch.ones(64, channels, 7, 7)}
    save_file(torchvision() | first, tmp_path / "weights")
    start = read_convolutions(tmp_path / "weights")
    network = encoder(observations={"depth": picture(40, 40, channels)})
    assert load_convolutions(network, start) == CONVOLUTIONS
    assert network.state_dict()["cameras.0.backbone.conv1.weight"].eq(1).all()
    other = encoder(observations={"depth": picture(40, 40, others)})
    with pytest.raises(DiffpolicyError, match=rf"expected finite floats \[64, {others}, 7, 7\]"):
        load_convolutions(other, start)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "text").write_text("weights")
    for name, message in (("none", "is not a file"), ("text", "is corrupt or not a safetensors")):
        with pytest.raises(DiffpolicyError, match=message):
            read_convolutions(tmp_path / name)
