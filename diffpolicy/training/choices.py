"""Choices that a measurement at the start of a training makes: precision and compilation.

Both change results by float rounding alone, and learn nothing. Processes measure at the same time,
as they train; the result of rank 0 counts.

gradient: computes the gradients of the next step's batch, and returns its loss.
"""

import time
from collections.abc import Callable

from diffpolicy.terminal.output import say
from diffpolicy.training.compilation import (
    COMPILED,
    EAGER,
    LEAST_MINUTES,
    WAYS,
    compiled,
    failure,
    way_for,
)
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.distributed import Ranks
from diffpolicy.training.learner import Learner
from diffpolicy.training.measuring import measure, median_seconds
from diffpolicy.training.precision import LONG_STEPS, PRECISIONS, measured_for, precision_for

Gradient = Callable[[], float]


def choose_precision(config: TrainConfig, learner: Learner, gradient: Gradient) -> None:
    """Choose the precision of a new run, and say why; a resumed run keeps its own."""
    if learner.step or not measured_for(config):
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

    def by(way: str) -> float:
        learner.forward = calls[way]
        return gradient()

    begin = time.monotonic()
    failed = failure(lambda: by(COMPILED))
    after = f"after {time.monotonic() - begin:.0f} s of compilation"
    learner.forward = learner.network
    if learner.ranks.sum(bool(failed)) != [0]:
        print(f"compile: {EAGER}: torch.compile failed {after}: {failed or 'in another process'}")
        return
    measured = measure(by, *WAYS)
    found = WAYS[int(_of_first(learner.ranks, WAYS.index(way_for(measured))))]
    learner.forward = calls[found]
    say(f"compile: {found}: {after}, {measured}")


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
