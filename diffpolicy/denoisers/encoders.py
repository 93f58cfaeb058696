"""Encoders: a dict of observation histories to one vector for the denoiser's observation FiLM.

An encoder runs once for each replan, on the CPU, before the engine; in training, for each batch on
the device of the network. Shapes: B batch, T_o observation horizon, C = T_o · D_o numbers of the
condition.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ObservationSpec


def encoded_size(observations: Mapping[str, ObservationSpec]) -> int:
    """D_o, the numbers of one tick; DiffpolicyError for keys other than vectors."""
    for key, spec in observations.items():
        if len(spec.shape) != 1 or spec.dtype != "float32":
            raise DiffpolicyError(
                f"the observation {key!r} is {spec.dtype} {list(spec.shape)}, which no encoder "
                "takes; expected a float32 vector"
            )
    return sum(spec.size for spec in observations.values())


def encode(observation: Mapping[str, Tensor], keys: Mapping[str, ObservationSpec]) -> Tensor:
    """Normalised vectors {key: [B, T_o, D]}, joined in the order of the keys: [B, C]."""
    parts = [observation[key] for key in keys]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).flatten(1)
