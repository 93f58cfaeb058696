"""Choices that a measurement at the start of a training makes.

Precision, compilation and CUDA graph change results by float rounding alone, and measuring learns
nothing. Processes measure at the same time, as they train; the result of rank 0 counts.

gradient: computes the gradients of the next step's batch, and returns its loss.
"""

import time
from collections.abc import Callable
from functools import cache, partial

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
from diffpolicy.training.learner import Drawn, Learner
from diffpolicy.training.measuring import measure, median_seconds
from diffpolicy.training.precision import AUTO, LONG_STEPS, PRECISIONS, is_long, precision_for

Gradient = Callable[[], float]


def choose_precision(config: TrainConfig, learner: Learner, gradient: Gradient) -> None:
    """Choose the precision of a new run, and say why; a resumed run keeps its own."""
    if learner.step or config.precision != AUTO or not is_long(config):
        return

    def of(precision: str) -> float:
        learner.precision = precision
        return gradient()

    measured = measure(of, *PRECISIONS)
    found = _of_first(learner.ranks, PRECISIONS.index(precision_for(measured)))
    learner.precision = PRECISIONS[int(found)]
    say(f"precision: {learner.precision}: {measured}")


def choose_compilation(
    config: TrainConfig, learner: Learner, gradient: Gradient, progress: float
) -> None:
    """Compile the network's call for a long training, and say why it is used or not.

    progress: the part of the run that is done, in [0, 1]. All processes compile, or none.
    """
    if config.compile == "off" or not _is_long(config, learner, gradient, progress):
        return
    say("compile: compiling the network's call, which takes one to some minutes")
    calls = {EAGER: learner.network, COMPILED: compiled(learner.network, learner.device)}
    ways = {way: partial(setattr, learner, "forward", call) for way, call in calls.items()}
    _choose("compile", "compilation", ways, learner, gradient)


def choose_graph(
    config: TrainConfig, learner: Learner, gradient: Gradient, batch: Callable[[], Drawn]
) -> None:
    """Launch the passes of a long training's step as a CUDA graph where that is faster; say so.

    batch: draws the next step's batch.
    """
    if learner.device.type != "cuda" or learner.crops or learner.compiled or not is_long(config):
        return
    built = cache(lambda: PassGraph(learner, batch()))
    ways = {
        EAGER: lambda: setattr(learner, "graph", None),
        GRAPH: lambda: setattr(learner, "graph", built()),
    }
    _choose("CUDA graph", "capture", ways, learner, gradient)


def _choose(
    name: str,
    work: str,
    ways: dict[str, Callable[[], None]],
    learner: Learner,
    gradient: Gradient,
) -> None:
    """Take the second of two ways if it can be built, and is faster and right.

    work: that of the second one's first call.
    """

    def by(way: str) -> float:
        ways[way]()
        return gradient()

    usual, other = ways
    begin = time.monotonic()
    failed = failure(lambda: by(other))
    after = f"after {time.monotonic() - begin:.0f} s"
    ways[usual]()
    if learner.ranks.sum(bool(failed)) != [0]:
        print(f"{name}: {usual}: {work} failed {after}: {failed or 'in another process'}")
        return
    measured = measure(by, usual, other)
    found = list(ways)[int(_of_first(learner.ranks, float(is_better(measured))))]
    ways[found]()
    say(f"{name}: {found}: {after} of {work}, {measured}")


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
