"""Facts of run folders as frozen dataclasses; `run_folders` and `run_figures` find them."""

from dataclasses import dataclass
from typing import Literal

from .results import Count, Name, Number, Rate

State = Literal["training", "interrupted", "finished", "policy only"]


@dataclass(frozen=True, kw_only=True)
class Best:
    """Best success of a run in closed loop, and where it stands.

    step: optimiser steps that the evaluated policy had. file: the result that tells it.
    """

    success: Rate
    score: Number
    episodes: Count
    budget: Name
    clock: Name
    step: Count | None
    file: str


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run folder; name: its path in the folder searched. None is unknown.

    state: training, while a process holds the lock of the folder; interrupted, with a checkpoint
    short of its target; finished; policy only, without the state that --resume needs.
    success: of the last closed-loop evaluation in its log.
    """

    name: str
    state: State
    step: int | None = None
    target_steps: int | None = None
    minutes: float | None = None
    target_minutes: float | None = None
    network: str | None = None
    objective: str | None = None
    prediction: str | None = None
    precision: str | None = None
    episodes: int | None = None
    validation_loss: float | None = None
    success: float | None = None
    best: Best | None = None
