"""Job: everything that an engine is built from."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers import Denoiser
from diffpolicy.denoisers.committed import COMMITTED
from diffpolicy.denoisers.encoders import layer_outputs
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.chain import Chain
from diffpolicy.sampling.steps import noise_count
from diffpolicy.specification import Horizons, ObservationSpec


@dataclass(frozen=True)
class Job:
    """One denoiser, one chain, one batch.

    An encoder built for it maps {key: [B, T_o, …]} on the CPU to the encoded observation [B, C]. An
    engine maps that, on the CPU or on the denoiser's device, and noise [noise_count, B, T_p, D_a]
    to a chunk [B, T_p, D_a], both on the CPU; all are normalised float32 but uint8 pictures.
    precision: the network's, "float32", "tf32" (float32 whose products are rounded on CUDA) or
    "bfloat16"; "float64" to compare with. threads: CPU threads.
    """

    denoiser: Denoiser
    chain: Chain
    horizons: Horizons
    observations: dict[str, ObservationSpec]
    action_dim: int
    batch: int = 1
    threads: int = 1
    precision: str = "float32"

    def __post_init__(self):
        first, *others = self.chain.rows[:2]
        if first.previous or any(row.earlier for row in (first, *others)):
            raise DiffpolicyError(
                "the first rows of a step table cannot use the x̂0 of rows before them"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights."""
        return {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(
            self.precision, torch.float32
        )

    @property
    def result_dtype(self) -> torch.dtype:
        """Type of encoded observations: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def pictures(self) -> bool:
        """True if the observation holds a picture, so that its encoder has weights."""
        return any(spec.is_picture for spec in self.observations.values())

    def no_observation(self) -> dict[str, Tensor]:
        """Histories {key: [B, T_o, …]} of zeros, and the committed actions if the network has."""
        before = self.batch, self.horizons.observation
        return {
            key: torch.zeros((*before, *spec.shape), dtype=getattr(torch, spec.dtype))
            for key, spec in self.observations.items()
        } | self.no_committed()

    def no_committed(self) -> dict[str, Tensor]:
        """No committed actions, {key: [B, D, D_a + 1]} of zeros; empty without a prefix."""
        encoder = getattr(self.denoiser, "encoder", None)
        if encoder is None or not encoder.prefix_max:
            return {}
        return {COMMITTED: torch.zeros(self.batch, encoder.prefix_max, self.action_dim + 1)}

    @property
    def observation_shape(self) -> tuple[int, int]:
        """[B, C] with C = T_o · D_o: the encoded observation."""
        return self.batch, self.denoiser.condition

    @property
    def noise_shape(self) -> tuple[int, int, int, int]:
        """[noise_count, B, T_p, D_a], of an engine's noise."""
        count = noise_count(self.chain.rows)
        return count, self.batch, self.horizons.prediction, self.action_dim

    def bytes_needed(self, model: ModelConfig) -> int:
        """Least memory of a call: noise, pictures, the encoded observation and the largest layer.

        A layer of the encoder counts with its input.
        """
        ticks = self.horizons.observation
        pictures = sum(spec.size for spec in self.observations.values() if spec.is_picture)
        layers = layer_outputs(model, self.observations)
        encoding = self.dtype.itemsize * ticks * max(map(sum, pairwise(layers)), default=0)
        widest = max(len(weight) for weight in self.denoiser.parameters())
        row = ticks * pictures + 4 * self.denoiser.condition + max(encoding, 4 * widest)
        return 4 * math.prod(self.noise_shape) + self.batch * row
