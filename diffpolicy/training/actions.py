"""Actions of the demonstrations: all the same, in another unit, or outside the action space.

Shapes: N rows, D_a dimensions of an action.
"""

import numpy as np

from diffpolicy.errors import DiffpolicyError

ROUNDING = 0.01  # of an action's range: excess up to this is rounding


def check_actions(name: str, actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    """Refuse actions [N, D_a] in wrong units; return notes on those outside the action space.

    low, high [D_a]: of the space; infinite where it has no limit.
    """
    if np.all(actions == actions[0]):
        raise DiffpolicyError(
            f"{name} holds the same action {actions[0]} in all {len(actions):,} rows: there is "
            "nothing to learn; choose another array with --action"
        )
    limited = np.isfinite(low) & np.isfinite(high)
    actions, low, high = (x[..., limited].astype(np.float64) for x in (actions, low, high))
    width = np.maximum(high - low, 1e-6 * np.maximum(1, np.abs(high)))  # a pinned one has none
    excess = np.maximum(low - actions, actions - high) / width
    outside = np.any(excess > ROUNDING, axis=1)
    if not outside.any():
        return []
    row, worst = np.unravel_index(np.argmax(excess), excess.shape)
    found = (
        f"{name} has {int(outside.sum()):,} of {len(actions):,} actions outside the action "
        f"space; row {row} has {actions[row, worst]:.4g} in dimension "
        f"{np.flatnonzero(limited)[worst]}, which ranges from {low[worst]:.4g} to {high[worst]:.4g}"
    )
    if np.any(np.mean(excess > 1, axis=0) > 0.5):
        raise DiffpolicyError(
            f"{found}: most exceed it by more than its width, as in another unit; choose "
            "another array with --action, or another --env or --env-kwargs"
        )
    return [f"{found}; control clips the actions of a policy trained on them"]
