"""Encoders: LeRobot's numbers, cameras apart and shared, clear refusals."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import identity
from diffpolicy.denoisers.encoders import Encoder, layer_outputs
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies.lerobot import encoder_weights
from diffpolicy.specification import ObservationSpec, picture

CNN, RESNET = ModelConfig(encoder="cnn", keypoints=4), ModelConfig(encoder="resnet18", keypoints=4)
FOLDED = replace(RESNET, encoder="resnet18-folded")
MIXED = {"state": ObservationSpec((2,)), "front": picture(16, 16), "side": picture(16, 16)}


@pytest.fixture
def lerobot() -> Path:
    """Policy with a camera that LeRobot saved."""
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    return Path(folder) / "lerobot_diffusion_image"


def encoder(model: ModelConfig = CNN, observations=MIXED) -> Encoder:
    torch.manual_seed(0)
    return Encoder(model, observations, {})


def histories(observations=MIXED, batch: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.randint(256, (batch, 2, *spec.shape), generator=generator).to(
            torch.uint8 if spec.is_picture else torch.float32
        )
        for key, spec in observations.items()
    }


def test_resnet18_gives_the_conditioning_of_lerobot(lerobot):
    expected = np.load(lerobot / "expected.npz")
    state, image = (torch.from_numpy(expected[f"observation.{k}"]) for k in ("state", "image"))
    observations = {"state": ObservationSpec((2,), normalizer=None), "image": picture(96, 96)}
    unscaled = {"image": identity(3)}  # its pictures lie in [0, 1]
    network = Encoder(ModelConfig(encoder="resnet18"), observations, unscaled)
    weights = encoder_weights(load_file(lerobot / "model.safetensors"))
    network.load_state_dict({n.removeprefix("encoder."): w for n, w in weights.items()})
    with torch.inference_mode():
        found = network({"state": state, "image": image.movedim(-3, -1)})
    np.testing.assert_allclose(found, expected["conditioning"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [CNN, replace(CNN, share_encoder=True)])
def test_keys_are_joined_in_their_order_for_each_tick(model):
    network, observation = encoder(model), histories()
    found = network(observation).unflatten(1, (2, network.size))
    parts = found.split([2, 8, 8], dim=-1)
    assert network.size == sum(part.shape[-1] for part in parts)
    torch.testing.assert_close(parts[0], observation["state"])
    for key, part in zip(("front", "side"), parts[1:], strict=True):
        torch.testing.assert_close(part, network.features(key, observation[key]))
        tick = network.features(key, observation[key][:1, 1:])
        torch.testing.assert_close(part[:1, 1:], tick)


def test_cameras_have_weights_of_their_own_or_the_same():
    picture = histories()["front"]
    apart, shared = encoder(), encoder(replace(CNN, share_encoder=True))
    front, side = (apart.features(key, picture) for key in ("front", "side"))
    assert len(apart.cameras) == 2 and not torch.equal(front, side)
    front, side = (shared.features(key, picture) for key in ("front", "side"))
    assert len(shared.cameras) == 1 and torch.equal(front, side)


def test_without_keypoints_a_picture_becomes_the_average_over_its_places():
    network, observation = encoder(replace(CNN, keypoints=0)), histories()
    assert network.size == 2 + 2 * 64
    front = network(observation).unflatten(1, (2, -1))[..., 2:66]
    features = network.get_submodule("cameras.0.backbone")(
        network.inputs[0](observation["front"].flatten(0, 1))
    )
    torch.testing.assert_close(front, features.flatten(2).mean(-1).unflatten(0, (3, 2)))
    assert all("backbone" in name for name, _ in network.named_parameters())
    assert layer_outputs(replace(CNN, keypoints=0), MIXED) == 2 * [588, 784, 512, 256, 256]


def test_an_observation_of_vectors_has_no_weights():
    vectors = {"b": ObservationSpec((3,)), "a": ObservationSpec((1,))}
    network = encoder(observations=vectors)
    assert network.state_dict() == {} and network.size == 4
    found = network({"b": torch.zeros(5, 2, 3), "a": torch.ones(5, 2, 1)})
    assert found.tolist() == [[0, 0, 0, 1] * 2] * 5


def test_control_sees_the_centre_and_nothing_beyond():
    network, observation = encoder(), histories()
    whole = network.features("front", observation["front"])
    height, width = network.crops["front"]
    assert (height, width) == (14, 14)
    cropped = observation["front"][:, :, 1:15, 1:15]
    torch.testing.assert_close(network.features("front", cropped), whole)
    observation["front"][:, :, 0] = 0
    torch.testing.assert_close(network.features("front", observation["front"]), whole)


def test_floats_of_0_to_255_are_the_same_picture_and_are_kept():
    network, picture = encoder(), histories()["front"]
    floats = picture.float()
    found = network.features("front", floats)
    torch.testing.assert_close(found, network.features("front", picture))
    assert torch.equal(floats, picture.float())


@pytest.mark.parametrize("model", [CNN, RESNET, replace(RESNET, keypoints=0), FOLDED])
def test_every_weight_and_every_pixel_of_the_crop_counts(model):
    observations = {"front": picture(40, 34, 4)}
    network = encoder(replace(model, crop=1.0), observations)
    [pixels] = histories(observations).values()
    floats = pixels.float().requires_grad_()
    network({"front": floats}).square().sum().backward()
    assert floats.grad is not None and (floats.grad != 0).any(-1).any(0).any(0).all()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


@pytest.mark.parametrize(
    ("model", "observations", "message"),
    [
        (RESNET, {"a": picture(36, 96)}, "a: a crop of 32 × 84 px is too small for --encoder res"),
        (CNN, {"a": picture(8, 8)}, "a: a crop of 7 × 7 px is too small for --encoder cnn"),
        (
            replace(CNN, share_encoder=True),
            {"a": picture(16, 16), "b": picture(16, 16, 1)},
            r"cameras of the same shape; got a \[16, 16, 3\], b \[16, 16, 1\]",
        ),
    ],
)
def test_pictures_that_a_network_cannot_encode_are_refused(model, observations, message):
    with pytest.raises(DiffpolicyError, match=message):
        encoder(model, observations)


@pytest.mark.parametrize("model", [CNN, replace(CNN, share_encoder=True)])
def test_the_outputs_of_layers_are_counted_without_a_draw(model):
    """Of 14 × 14: floats, 7 × 7 × 16, 4 × 4 × 32, 2 × 2 × 64 twice, keypoints, features."""
    before = torch.get_rng_state()
    assert layer_outputs(model, MIXED) == 2 * [588, 784, 512, 256, 256, 16, 8]
    assert torch.equal(torch.get_rng_state(), before)
    assert layer_outputs(model, {"state": ObservationSpec((2,))}) == []
