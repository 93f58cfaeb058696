"""Numbers of denoising steps that a command evaluates for a run."""

from collections.abc import Sequence

from diffpolicy.sampling.chain import own_budgets
from diffpolicy.specification import Specification


def steps_of(asked: Sequence[int], specification: Specification) -> list[int]:
    """The asked numbers of steps, increasing; of a run with budgets of its own, those among them.

    If none of its own is asked for, all of them (see `own_budgets`).
    """
    own = own_budgets(specification)
    if own is None:
        return sorted(set(asked))
    return [steps for steps in own if steps in asked] or [*own]
