"""Weights of a ResNet-18 from elsewhere, such as torchvision's of ImageNet, as a start."""

import re
from pathlib import Path

import torch
from torch import Tensor

from diffpolicy.checked import shown
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.denoisers.resnet import ResNet18
from diffpolicy.errors import DiffpolicyError

REPLACED = re.compile(r"(fc|(layer[1-4]\.[01]\.)?(bn[12]|downsample\.1))\.\w+")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def load_convolutions(encoder: Encoder, path: Path) -> int:
    """Copy the convolutions of a safetensors file to every ResNet-18; return their number.

    The file has torchvision's names. BatchNorm and the head `fc` are ignored: GroupNorm and the
    spatial softmax replace them. Raises DiffpolicyError, before any copy, if the file does not fit.
    """
    networks = [module for module in encoder.modules() if isinstance(module, ResNet18)]
    if not networks:
        raise DiffpolicyError(
            "--encoder-weights needs pictures and --encoder resnet18; got "
            + ("--encoder cnn" if encoder.crops else "an observation without pictures")
        )
    found = {n: t for n, t in _read(path).items() if not REPLACED.fullmatch(n)}
    wanted = [
        {n: w for n, w in network.state_dict().items() if w.ndim == 4} for network in networks
    ]
    for weights in wanted:
        _check_fit(found, weights, path)
    for weights in wanted:
        for name, weight in weights.items():
            weight.copy_(found[name])
    return len(found)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DiffpolicyError(f"--encoder-weights {path} is not a file; expected safetensors")
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise DiffpolicyError(
            f"--encoder-weights {path} is corrupt or not a safetensors file: {error}"
        ) from error


def _check_fit(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        has = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "nothing"
        fits = name in found and name in wanted and found[name].shape == wanted[name].shape
        if not fits or found[name].dtype not in FLOATS or not found[name].isfinite().all():
            expected = f"finite floats {list(wanted[name].shape)}" if name in wanted else "nothing"
            raise DiffpolicyError(
                f"--encoder-weights {path} does not fit a ResNet-18 of torchvision: "
                f"{shown(name)}: expected {expected}, got {has}"
            )
