"""Denoisers ε_θ(x_t, t, observation history), split where a control step can save work.

Every denoiser has three parts, so that what does not depend on the sample is computed once:

    observation_film(obs [B, T_o, D_o]) -> [B, F]     once for each replan
    time_film(t [K]) -> [K, F]                         once for each step budget
    denoise(x [B, T_p, D_a], film [B, F]) -> [B, T_p, D_a]

with ε_θ(x, t, obs) = denoise(x, observation_film(obs) + time_film(t)). FiLM (Perez et al., arXiv
1709.07871) scales and shifts features; both conditions enter it linearly, so the sum is exact.
"""

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.base import Denoiser
from diffpolicy.denoisers.concat import ConcatDenoiser
from diffpolicy.denoisers.mlp import MLPDenoiser
from diffpolicy.denoisers.plain import PlainDenoiser
from diffpolicy.denoisers.unet1d import UNet1D
from diffpolicy.specification import Horizons

__all__ = ["Denoiser", "build"]


def build(
    model: ModelConfig, horizons: Horizons, observation_dim: int, action_dim: int
) -> Denoiser:
    """The denoiser that a configuration names, with fresh weights."""
    kinds = {"mlp": MLPDenoiser, "unet": UNet1D, "concat": ConcatDenoiser, "plain": PlainDenoiser}
    return kinds[model.denoiser](model, horizons, observation_dim, action_dim)
