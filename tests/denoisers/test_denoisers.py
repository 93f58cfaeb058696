"""Both denoisers keep the contract: three parts that add up, and nothing that is not used."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers import build
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Horizons

HORIZONS = Horizons(observation=2, prediction=8, action=4)
D_O, D_A, B = 5, 3, 4
CONFIGS = {
    "mlp": ModelConfig(denoiser="mlp", hidden=32, blocks=2, condition=16),
    "unet": ModelConfig(denoiser="unet", unet_channels=(16, 32), condition=16),
}


@pytest.fixture(params=sorted(CONFIGS))
def denoiser(request):
    torch.manual_seed(0)
    return build(CONFIGS[request.param], HORIZONS, D_O, D_A)


@pytest.fixture
def inputs():
    """x [B, T_p, D_a], t [B], observation [B, T_o, D_o]."""
    torch.manual_seed(1)
    return torch.randn(B, 8, D_A), torch.tensor([0, 7, 50, 99]), torch.randn(B, 2, D_O)


def test_the_prediction_has_the_shape_of_the_chunk(denoiser, inputs):
    assert denoiser(*inputs).shape == (B, 8, D_A)


def test_the_parts_make_the_whole(denoiser, inputs):
    x, t, observation = inputs
    by_observation, by_time = denoiser.observation_film(observation), denoiser.time_film(t)
    assert by_observation.shape == by_time.shape
    torch.testing.assert_close(denoiser.denoise(x, by_observation + by_time), denoiser(*inputs))


def test_one_timestep_serves_the_whole_batch(denoiser, inputs):
    x, _, observation = inputs
    film = denoiser.observation_film(observation) + denoiser.time_film(torch.tensor([7, 50]))[1]
    t = torch.full((B,), 50)
    torch.testing.assert_close(denoiser.denoise(x, film), denoiser(x, t, observation))


@pytest.mark.parametrize("name", ["x", "t", "observation"])
def test_the_prediction_depends_on_every_number_it_is_given(denoiser, inputs, name):
    i = ["x", "t", "observation"].index(name)
    changed = list(inputs)
    for place in range(inputs[i][0].numel()):
        changed[i] = inputs[i].clone()
        changed[i].view(B, -1)[:, place] += 1
        difference = (denoiser(*changed) - denoiser(*inputs)).abs().amax((1, 2))
        assert (difference > 1e-6).all()


def test_rows_do_not_mix(denoiser, inputs):
    x, t, observation = inputs
    alone = denoiser(x[:1], t[:1], observation[:1])
    torch.testing.assert_close(alone, denoiser(*inputs)[:1])


def test_a_gradient_reaches_every_single_weight(denoiser, inputs):
    denoiser(*inputs).square().sum().backward()
    unused = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.all()]
    assert unused == []


def test_the_paper_s_unet_has_65_8_million_parameters():
    config = ModelConfig(denoiser="unet", unet_channels=(256, 512, 1024), condition=256)
    with torch.device("meta"):
        unet = build(config, Horizons(2, 16, 8), observation_dim=20, action_dim=2)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(65.8, abs=0.1)


@pytest.mark.parametrize("prediction", [5, 6, 10])
def test_a_unet_refuses_a_chunk_that_it_cannot_halve(prediction):
    config = replace(CONFIGS["unet"], unet_channels=(16, 32, 64))
    with pytest.raises(DiffpolicyError, match=f"divisible by 4; got {prediction}"):
        build(config, Horizons(1, prediction, 4), D_O, D_A)


SHAPES_ALONE = """
import sys, torch
from diffpolicy.config import ModelConfig
from diffpolicy.denoisers import build
from diffpolicy.specification import Horizons

with torch.device("meta"):
    for kind in ("mlp", "unet", "concat", "plain"):
        build(ModelConfig(denoiser=kind), Horizons(2, 16, 8), 5, 2)
print(sorted(sys.modules.keys() & {"sympy", "torch._dynamo"}))
"""


def test_shapes_of_a_network_do_not_load_the_compiler():
    """Reading a checkpoint compares shapes; torch's compiler takes 100 MB and a second to load."""
    command = [sys.executable, "-c", SHAPES_ALONE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
