"""Options of commands that read demonstrations: offline figures, denoising, open-loop replay."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import EPISODES, SEED, THREADS, TICKS, Device

from .config import SECONDS
from .world_config import EngineName


@dataclass(frozen=True)
class OfflineConfig(Checked):
    """Report the action error of held-out demonstrations and the latency; needs no environment."""

    run: Path
    """Run folder, or a policy.safetensors in it."""
    data: Path | None = None
    """Demonstrations; by default those of training. Of these only the held-out episodes count, of
    others all."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets; a regression policy has none."""
    episodes: Annotated[int, EPISODES] = 100
    """Most held-out episodes to use."""
    pairs: Annotated[int, Range(1, 10**6)] = 16
    """Most pairs of consecutive chunks in each episode, evenly spaced."""
    samples: Annotated[int, Range(1, 1000)] = 4
    """Chunks from different noise for each observation."""
    seed: Annotated[int, SEED] = 100_000
    """Seed of the noise, and of the choice of episodes if there are more."""
    device: Device = "auto"
    """Device of the policy; auto uses CUDA if it is available."""
    engine: EngineName = "auto"
    """Implementation of the sampling loop."""
    latency_seconds: Annotated[float, SECONDS] = 5.0
    """Longest time in seconds to measure the latency of each budget."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core."""
    out: Path | None = None
    """Folder for offline.json and report.html; by default offline in the run folder."""


@dataclass(frozen=True)
class DenoiseConfig(Checked):
    """Draw the sampling of action chunks, step by step, as an animation."""

    run: Path
    """Run folder, or a policy.safetensors in it."""
    out: Path = Path("denoise.webp")
    """Animated WebP to write; a PNG strip of the same name is written beside it."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (2, 10)
    """Step budgets to draw side by side."""
    grid: str | None = None
    """Timestep grid, as in eval; by default that of the run."""
    chunks: Annotated[int, Range(1, 1000)] = 16
    """Number of chunks from different noise, for the same observation."""
    seed: Annotated[int, SEED] = 100_000
    """Seed of the noise and of the episode whose first observation is used."""
    data: Path | None = None
    """Demonstrations whose first held-out observation is used instead of the environment's, and
    whose nearest actions are drawn in grey; by default those of training: the observation for a run
    without an environment, the actions if they are here."""


@dataclass(frozen=True)
class ReplayConfig(Checked):
    """Replay the actions of a store in open loop in its environment."""

    store: Positional[Path]
    """Store of demonstrations."""
    env: str | None = field(default=None, kw_only=True)
    """Gymnasium id (module:Name-v0); by default the one in the store."""
    env_kwargs: str | None = None
    """Keyword arguments of the environment, as a JSON object; by default those in the store."""
    success_from: str | None = None
    """Key of `info` that is true on success, as in `record`."""
    success: str | None = None
    """Rule of success: at-any-tick, at-end, or held:N for N ticks in a row; by default as in the
    store, or at-any-tick."""
    start: tuple[str, ...] = ()
    """Arrays whose first row sets the start of an episode, for a store without seeds: state calls
    reset(options={"state": row}), option=array another option of the environment."""
    episodes: Annotated[int | None, EPISODES] = None
    """Number of episodes, from the first; by default all."""
    max_steps: Annotated[int | None, TICKS] = None
    """Longest episode in control ticks; by default as in the store, or the limit of the
    environment."""
    json: Path | None = None
    """File for the result; - prints it, and nothing else, to the standard output."""
