"""Both stages of a control step for one batch: the encoder of the observation, then the loop."""

from dataclasses import dataclass

from torch import Tensor

from diffpolicy.engines import Encode, Engine, build_encoder, build_engine
from diffpolicy.engines.job import Job

AND = " + "


@dataclass(frozen=True, eq=False)
class Stages:
    """An engine with the encoder before it."""

    encode: Encode
    loop: Engine

    @property
    def name(self) -> str:
        """Name of the engine, or of two, such as "onnx + native", if another one encodes."""
        names = dict.fromkeys(s.name for s in (self.encode, self.loop) if s.name)
        return AND.join(names)

    @property
    def portable(self) -> bool:
        """True if another process can take both."""
        return portable(self.encode) and portable(self.loop)

    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """See `Engine`."""
        return self.loop(observation, noise)

    def gpu_ms(self) -> float | None:
        """Median time of the GPU alone in ms, summed over both; None unless both measure it.

        CUDA graphs measure it. The encoder of vectors alone does nothing on the GPU.
        """
        stages = [self.loop, self.encode] if self.encode.name else [self.loop]
        measures = [getattr(stage, "gpu_ms", None) for stage in stages]
        return sum(m() for m in measures if m) if all(measures) else None


def portable(stage: Encode | Engine) -> bool:
    """True if another process can take the stage instead of building it again."""
    return getattr(stage, "portable", False)


def build_stages(name: str, job: Job, encoder: Encode | None = None) -> Stages:
    """The stages on one engine, or on two. Errors as in `build_engine`.

    encoder: one from another process, used if it is of that name.
    """
    first, _, last = name.rpartition(AND)
    first = first or last
    if encoder is None or encoder.name != first:
        encoder = build_encoder(first, job)
    return Stages(encoder, build_engine(last, job))
