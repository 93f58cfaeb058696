"""Choices that a measurement at the start of a training makes.

Precision, compilation and CUDA graph change results by float rounding alone, and measuring learns
nothing. Processes measure at the same time, as they train; the result of rank 0 counts.

gradient: computes the gradients of the next step's batch, and returns its loss.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from diffpolicy.terminal.output import say
from diffpolicy.training.compilation import (
    COMPILED,
    EAGER,
    LEAST_MINUTES,
    compiled,
    failure,
    is_better,
)
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.distributed import Ranks
from diffpolicy.training.graph import GRAPH, PassGraph
from diffpolicy.training.learner import Learner
from diffpolicy.training.measuring import Measured, measure, median_seconds
from diffpolicy.training.precision import AUTO, LONG_STEPS, PRECISIONS, is_long, pays

Gradient = Callable[[], float]
Ways = dict[str, Callable[[], None]]  # the usual one first; a call takes it


def choose_ways(
    config: TrainConfig, learner: Learner, gradient: Gradient, progress: float = 0.0
) -> None:
    """Make all choices for a training on its way.

    progress: the part of the run that is done, in [0, 1].
    """
    choose_graph(config, learner, gradient)
    choose_precision(config, learner, gradient)
    choose_compilation(config, learner, gradient, progress)
    if isinstance(learner.graph, PassGraph):
        learner.graph.release_others()


def choose_graph(config: TrainConfig, learner: Learner, gradient: Gradient) -> None:
    """Launch the passes of a long training's step as a CUDA graph where that is faster; say so."""
    if learner.device.type != "cuda" or learner.crops or not is_long(config):
        return
    graphs = {EAGER: None, GRAPH: PassGraph(learner)}
    _choose("CUDA graph", "capture", _ways(learner, "graph", graphs), learner, gradient)


def choose_precision(config: TrainConfig, learner: Learner, gradient: Gradient) -> None:
    """Choose the precision of a new run, and say why; a resumed run keeps its own."""
    if learner.step or config.precision != AUTO or not is_long(config):
        return
    ways = _ways(learner, "precision", dict(zip(PRECISIONS, PRECISIONS, strict=True)))
    _choose("precision", "", ways, learner, gradient, pays)


def choose_compilation(
    config: TrainConfig, learner: Learner, gradient: Gradient, progress: float
) -> None:
    """Compile the network's call for a long training, and say why it is used or not.

    All processes compile, or none. See `choose_ways`.
    """
    if config.compile == "off" or not _is_long(config, learner, gradient, progress):
        return
    say("compile: compiling the network's call, which takes one to some minutes")
    calls = {EAGER: learner.network, COMPILED: compiled(learner.network)}
    _choose("compile", "compilation", _ways(learner, "forward", calls), learner, gradient)


def _ways(learner: Learner, name: str, values: dict[str, Any]) -> Ways:
    """Ways that each set an attribute of the learner."""
    return {way: partial(setattr, learner, name, value) for way, value in values.items()}


def _choose(
    name: str,
    work: str,
    ways: Ways,
    learner: Learner,
    gradient: Gradient,
    better: Callable[[Measured], bool] = is_better,
) -> None:
    """Take the second of two ways if its first call succeeds, and measurements find it better.

    work: that of its first call; empty if that takes no time.
    """

    def by(way: str) -> float:
        ways[way]()
        return gradient()

    usual, other = ways
    begin = time.monotonic()
    failed = failure(lambda: by(other))
    seconds = f"after {time.monotonic() - begin:.0f} s"
    ways[usual]()
    if learner.ranks.sum(bool(failed)) != [0]:
        failed = failed or "in another process"
        print(f"{name}: {usual}: {work or other} failed {seconds}: {failed}")
        return
    measured = measure(by, usual, other)
    found = list(ways)[int(_of_first(learner.ranks, float(better(measured))))]
    ways[found]()
    say(f"{name}: {found}: " + (f"{seconds} of {work}, " if work else "") + str(measured))


def _is_long(config: TrainConfig, learner: Learner, gradient: Gradient, progress: float) -> bool:
    """True if the rest of the run takes LEAST_MINUTES without compilation."""
    steps = (config.steps or 0) - learner.step
    if steps >= LONG_STEPS:
        minutes = steps * median_seconds(gradient) / 60
    else:
        minutes = (1 - progress) * (config.minutes or 0)
    return _of_first(learner.ranks, minutes) >= LEAST_MINUTES


def _of_first(ranks: Ranks, number: float) -> float:
    """The number of rank 0, in every process."""
    return ranks.sum(ranks.first * number)[0]
