"""Weights of a ResNet-18 from elsewhere, such as torchvision's of ImageNet, as a start."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from diffpolicy.checked import shown
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.denoisers.resnet import ResNet18
from diffpolicy.errors import DiffpolicyError

REPLACED = re.compile(r"(fc|(layer[1-4]\.[01]\.)?(bn[12]|downsample\.1))\.\w+")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Convolutions:
    """Convolutions of a ResNet-18 by torchvision's names, their file and a hash of its bytes."""

    weights: dict[str, Tensor]  # [outputs, inputs, k, k]
    path: Path
    digest: str


def read_convolutions(path: Path) -> Convolutions:
    """The convolutions of a safetensors file, for pictures of its own number of channels.

    BatchNorm and the head `fc` are ignored: GroupNorm and the spatial softmax replace them. Raises
    DiffpolicyError if the file is not a ResNet-18 with torchvision's names; OSError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise DiffpolicyError(f"--encoder-weights {path} is not a file; expected safetensors")
    content = path.read_bytes()
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise DiffpolicyError(
            f"--encoder-weights {path} is corrupt or not a safetensors file: {error}"
        ) from error
    found = {name: tensor for name, tensor in tensors.items() if not REPLACED.fullmatch(name)}
    shape = found["conv1.weight"].shape if "conv1.weight" in found else ()
    with torch.device("meta"):
        network = ResNet18(shape[1] if len(shape) == 4 and shape[1] in (1, 4) else 3)
    _check_fit(found, _convolutions(network), path)
    return Convolutions(found, path, blake2b(content, digest_size=16).hexdigest())


def load_convolutions(encoder: Encoder, convolutions: Convolutions) -> int:
    """Copy the convolutions to every ResNet-18 of an encoder; return their number.

    Raises DiffpolicyError, before any copy, for a camera with another number of channels.
    """
    networks = [module for module in encoder.modules() if isinstance(module, ResNet18)]
    wanted = [_convolutions(network) for network in networks]
    for weights in wanted:
        _check_fit(convolutions.weights, weights, convolutions.path)
    for weights in wanted:
        for name, weight in weights.items():
            weight.copy_(convolutions.weights[name])
    return len(convolutions.weights)


def _convolutions(network: ResNet18) -> dict[str, Tensor]:
    return {name: w for name, w in network.state_dict().items() if w.ndim == 4}


def _check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        has = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "nothing"
        fits = name in found and name in wanted and found[name].shape == wanted[name].shape
        if not fits or found[name].dtype not in FLOATS or not found[name].isfinite().all():
            expected = f"finite floats {list(wanted[name].shape)}" if name in wanted else "nothing"
            raise DiffpolicyError(
                f"--encoder-weights {path} does not fit a ResNet-18 of torchvision: "
                f"{shown(name)}: expected {expected}, got {has}"
            )
