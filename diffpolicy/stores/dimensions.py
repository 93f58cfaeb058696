"""Table of a survey by dimension: range, mean, spread and the share of idle steps."""

from collections.abc import Iterator

import numpy as np

from diffpolicy.data import facts
from diffpolicy.stores.survey import Survey

MOST = 32  # dimensions in the table
FORM = "{:<20} {:>10} {:>10} {:>10} {:>10} {:>7}"


def table(found: Survey) -> Iterator[str]:
    """A line for each number of the actions and vectors, under one of titles.

    idle: share of the steps in which this number, like all of them in the survey's `idle`, moves by
    no more than 1 % of its range.
    """
    yield FORM.format("dimension", "from", "to", "mean", "deviation", "idle")
    for number in range(min(MOST, len(found.labels))):
        column = found.values[:, number]
        figures = (column.min(), column.max(), column.mean(), column.std())
        told = [f"{value:.4g}" for value in figures]
        yield FORM.format(found.label(number), *told, f"{idle_share(found, number):.1%}")
    if len(found.labels) > MOST:
        yield f"and {len(found.labels) - MOST} more dimensions"


def idle_share(found: Survey, number: int) -> float:
    """Share of the sampled steps in which one number is idle."""
    one, stretch = slice(number, number + 1), facts.idle_stretch(found.control_dt_s)
    episodes = np.split(found.values[:, one], found.ends[:-1])
    idle = [facts.idle_rows(episode, found.span[one], stretch) for episode in episodes]
    return float(np.concatenate(idle).mean())
