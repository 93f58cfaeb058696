"""Convolutions on [B, C, 1, T], and Mish: the values and gradients of PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffpolicy.denoisers.convolution import (
    Convolution,
    Growth,
    as_image,
    as_rows,
    convolved,
    grown,
    lay_out,
)
from diffpolicy.denoisers.mish import Mish

SIZES = [(2, 5), (6, 5), (6, 1)]  # inputs, taps


def pair(inputs, taps):
    """nn.Conv1d and Convolution with the same weights."""
    torch.manual_seed(taps)
    plain = nn.Conv1d(inputs, 8, taps, padding=taps // 2)
    ours = Convolution(inputs, 8, taps, padding=taps // 2)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def chunk(inputs, ticks=4):
    return torch.randn(64, ticks, inputs, generator=torch.Generator().manual_seed(0))


def gradients(output, *inputs):
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(output.shape, generator=generator) if output.ndim else torch.ones(())
    return torch.autograd.grad(output, inputs, given.to(output.dtype))


@pytest.mark.parametrize(("inputs", "taps"), SIZES)
def test_float32_gives_the_numbers_of_conv1d(inputs, taps):
    plain, ours = pair(inputs, taps)
    x = chunk(inputs).requires_grad_()
    expected, found = plain(x.mT).mT, as_rows(ours(as_image(x)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        gradients(found, x, *ours.parameters()),
        gradients(expected, x, *plain.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("inputs", "taps"), SIZES)
def test_gradients_in_bfloat16_are_as_near_to_float32_as_those_of_conv1d(inputs, taps):
    plain, ours = pair(inputs, taps)
    x = chunk(inputs).requires_grad_()
    exact = gradients(plain(x.mT).mT, x, *plain.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = plain(x.mT).mT, as_rows(ours(as_image(x)))
    assert found.dtype == torch.bfloat16
    usual = gradients(expected, x, *plain.parameters())
    new = gradients(found, x, *ours.parameters())
    for true, one, other in zip(exact, usual, new, strict=True):
        assert other.dtype == torch.float32
        assert (other - true).norm() < 2 * (one - true).norm() + 1e-3 * true.norm()


def test_a_convolution_of_stride_2_and_its_inverse_are_those_of_pytorch():
    torch.manual_seed(0)
    x = chunk(6)
    shrink, grow = nn.Conv1d(6, 6, 3, 2, 1), nn.ConvTranspose1d(6, 6, 4, 2, 1)
    ours, inverse = Convolution(6, 6, 3, 2, 1), Growth(6, 6)
    ours.load_state_dict(shrink.state_dict())
    inverse.load_state_dict(grow.state_dict())
    found = as_rows(inverse(ours(as_image(x))))
    torch.testing.assert_close(found, grow(shrink(x.mT)).mT, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("taps", "stride"), [(5, 1), (3, 2), (1, 1), (5, 2)])
def test_a_product_gives_the_numbers_of_conv1d(taps, stride):
    torch.manual_seed(0)
    plain, x = nn.Conv1d(6, 7, taps, stride, taps // 2), chunk(6, ticks=8)
    found = convolved(x, plain.weight, plain.bias, stride, taps // 2)
    torch.testing.assert_close(found, plain(x.mT).mT, atol=1e-5, rtol=1e-5)


def test_a_product_gives_the_numbers_of_conv_transpose1d():
    torch.manual_seed(0)
    plain, x = nn.ConvTranspose1d(6, 7, 4, 2, 1), chunk(6)
    found = grown(x, plain.weight, plain.bias)
    torch.testing.assert_close(found, plain(x.mT).mT, atol=1e-5, rtol=1e-5)


def test_the_matrices_of_weights_that_are_laid_out_are_no_copies():
    network = nn.Sequential(Convolution(6, 7, 5, padding=2), Growth(7, 3))
    before = [layer.weight.clone() for layer in network]
    lay_out(network)
    matrices = network[0].weight.mT.flatten(1), network[1].weight.permute(2, 1, 0).flatten(0, 1)
    for layer, weight, matrix in zip(network, before, matrices, strict=True):
        assert layer.laid_out and torch.equal(layer.weight, weight)
        assert matrix.is_contiguous() and matrix.data_ptr() == layer.weight.data_ptr()


def test_layers_that_are_laid_out_give_the_numbers_of_before():
    torch.manual_seed(0)
    network = nn.Sequential(Convolution(6, 8, 3, 2, 1), Growth(8, 3))
    x = as_image(chunk(6))
    expected = network(x)
    lay_out(network)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
def test_cuda_gives_the_numbers_and_gradients_of_the_cpu():
    torch.manual_seed(0)
    network = nn.Sequential(
        Convolution(6, 8, 5, padding=2), Convolution(8, 8, 3, 2, 1), Growth(8, 3)
    )
    x = chunk(6).requires_grad_()
    expected = network(as_image(x))
    wanted = gradients(expected, x, *network.parameters())
    found = network.cuda()(as_image(x.cuda()))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(gradients(found.cpu(), x, *network.parameters()), wanted, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("type_", [torch.float32, torch.float64, torch.bfloat16])
def test_mish_and_its_gradient_are_those_of_pytorch(type_):
    edges = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4])
    x = torch.cat([torch.linspace(-12, 12, 2001), edges]).to(type_).requires_grad_()
    found, expected = Mish()(x), F.mish(x)
    assert found.dtype == type_
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, x), gradients(expected, x))


def test_mish_has_second_derivatives():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(Mish(), x)


def test_gradients_of_several_networks_at_once_are_those_of_each():
    torch.manual_seed(0)
    networks = [nn.Sequential(Convolution(2, 8, 5, padding=2), Mish()) for _ in range(3)]
    stacked = torch.func.stack_module_state(networks)[0]
    x = as_image(chunk(2))

    def loss(weights):
        return torch.func.functional_call(networks[0], weights, x).float().square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        found = torch.func.vmap(torch.func.grad(loss))(stacked)
        for number, network in enumerate(networks):
            expected = torch.autograd.grad(
                loss(dict(network.named_parameters())), network[0].weight
            )
            torch.testing.assert_close(found["0.weight"][number], expected[0], atol=1e-3, rtol=0.02)
