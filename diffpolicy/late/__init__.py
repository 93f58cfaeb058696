"""Late chunks: strategies for a chunk that arrives after the tick of its observation.

drop.py       execute the old chunk until the new one arrives, then that without its stale head
correction.py correct every action by a newer observation
ensemble.py   begin a chunk at every tick, and execute the mean of those that have arrived
warm.py       start from the plan with noise, and take fewer steps
plan.py       the actions that are known when an inference starts

To add a strategy, write a frozen dataclass like `drop.DropHead` in a new file here, and add it to
STRATEGIES. It says how a chunk is sampled, given the plan, what that costs, and how chunks join.
Importing this module does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from diffpolicy.errors import DiffpolicyError

if TYPE_CHECKING:
    from diffpolicy.late.drop import DropHead

STRATEGIES = {  # by the name that --late takes: "module:class"
    "drop": "drop:DropHead",
    "ensemble": "ensemble:Ensemble",
    "warm": "warm:Warm",
    "correct": "correction:Correct",
}


def parse_late(text: str) -> "DropHead":
    """The strategy of a text: its name, then its numbers and words, separated by colons.

    Raises DiffpolicyError for an unknown name and for other parts than the strategy takes.
    """
    name, *parts = text.split(":")
    if name not in STRATEGIES:
        raise DiffpolicyError(
            f"{text!r} is not a strategy for late chunks; expected one of: {', '.join(STRATEGIES)}"
        )
    module, _, kind = STRATEGIES[name].partition(":")
    strategy: type[DropHead] = getattr(import_module(f"{__name__}.{module}"), kind)
    return strategy.parse(text, parts)
