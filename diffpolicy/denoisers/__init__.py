"""Denoisers ε_θ(x_t, t, observation history), split into three parts that run at different rates.

    observation_film(obs [B, C]) -> [B, F]                   once for each replan
    time_film(t [K]) -> [K, F]                               once for each step budget
    denoise(x [B, T_p, D_a], film [B, F]) -> [B, T_p, D_a]   once for each network evaluation

with ε_θ(x, t, obs) = denoise(x, observation_film(obs) + time_film(t)). FiLM (Perez et al., arXiv
1709.07871) scales and shifts features; both conditions enter it linearly, so the sum is exact. The
encoder (encoders.py) makes obs from the keys of the observation.

Shapes: B batch, K steps, T_p prediction horizon, D_a action dimensions, C = T_o · D_o numbers of
the encoded observation, and those of its committed actions (committed.py), F of the FiLM.
"""

from collections.abc import Mapping

from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers.base import Denoiser
from diffpolicy.denoisers.concat import ConcatDenoiser
from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.denoisers.mlp import MLPDenoiser
from diffpolicy.denoisers.plain import PlainDenoiser
from diffpolicy.denoisers.unet1d import UNet1D
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Horizons, Specification

__all__ = ["Denoiser", "build", "build_network"]


def build(
    model: ModelConfig, horizons: Horizons, observation_dim: int, action_dim: int
) -> Denoiser:
    """Denoiser of a configuration with fresh weights; observation_dim: encoded numbers a tick."""
    kinds = {"mlp": MLPDenoiser, "unet": UNet1D, "concat": ConcatDenoiser, "plain": PlainDenoiser}
    condition = horizons.observation * observation_dim + model.prefix_max * (action_dim + 1)
    network = kinds[model.denoiser](model, condition, horizons.prediction, action_dim)
    network.condition = condition
    return network


def build_network(
    specification: Specification, normalizers: Mapping[str, Normalizer] | None = None
) -> Denoiser:
    """Denoiser of a policy with its encoder and fresh weights.

    normalizers: by key, for the pictures. Raises DiffpolicyError for sizes that no network has.
    """
    task, model, usable = specification.task, specification.model, specification.horizons.usable
    if model.prefix_max >= usable:
        raise DiffpolicyError(
            f"--prefix-max {model.prefix_max} leaves no action to predict; expected less than "
            f"T_p - T_o + 1 = {usable}"
        )
    encoder = Encoder(model, task.observations, normalizers or {})
    network = build(model, specification.horizons, encoder.size, task.action_dim)
    network.encoder = encoder
    return network
