"""Options of a policy in its environment, for the commands that run episodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import Checked
from diffpolicy.config import CONTROL_DT, SEED, TICKS, Device
from diffpolicy.errors import DiffpolicyError

from .policy_option import check_policy

EngineName = Literal["auto", "eager", "compiled", "native", "onnx", "cuda-graph"]
Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class WorldConfig(Checked):
    """A run, or a policy of others, in its environment."""

    run: Path | None = None
    """Run folder, or a policy.safetensors in it."""
    policy: str | None = None
    """module:factory instead of a run: factory(steps) makes a policy of any kind, see
    eval/POLICIES.md. Needs --env; the module may be a file in the current folder."""
    env: str | None = None
    """Gymnasium id; by default the one of training."""
    env_kwargs: str | None = None
    """Keyword arguments of the environment, as a JSON object; by default those of training."""
    success_from: str | None = None
    """Key of `info` that is true on success (a bool, 0 or 1; a list counts as its length), or a
    condition such as key>0.5, or return>100 of the rewards so far; by default success, is_success,
    task_completions or an empty tasks_to_complete. An absent key is no success."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds; by default that of training, or with --policy that of the
    environment. Needed if --env has another one than training."""
    neutral: str | None = None
    """Action of a starved tick: hold, zero or a vector such as 0,0.5; by default the one that the
    environment declares, or hold."""
    max_steps: Annotated[int | None, TICKS] = None
    """Longest episode in control ticks; by default the limit of the environment."""
    seed: Annotated[int, SEED] = 100_000
    """Seed of the first episode; each further episode adds 1."""
    device: Device = "auto"
    """Device of the policy; auto uses CUDA if it is available."""
    engine: EngineName = "auto"
    """Implementation of the sampling loop; auto takes the fastest that works here and reports
    it."""
    precision: Precision = "float32"
    """Precision of the network. tf32: cuda-graph only. bfloat16: eager, compiled and cuda-graph."""
    success: str = "at-any-tick"
    """Rule of success: at-any-tick, at-end, or held:N for N ticks in a row."""
    score_from: str | None = None
    """Key of `info` whose last value is the score of an episode, or return for the sum of rewards,
    also over a scale: return/3000; by default the key that the environment declares, or success as
    0 or 1. --margin and --floor are in units of the score."""

    def __post_init__(self):
        super().__post_init__()
        runs = getattr(self, "runs", ())
        if [bool(runs), self.run is not None, self.policy is not None].count(True) != 1:
            several = ", --runs RUN …" if hasattr(self, "runs") else ""
            raise DiffpolicyError(f"expected either --run RUN{several} or --policy module:factory")
        if self.policy is not None:
            check_policy(self)
