"""Changes of numbers that vanish in float32, which training uses."""

import numpy as np

LEAST_CHANGE = 1e-9  # of an array's range: smaller changes are rounding, not motion


def lost_changes(stored: np.ndarray, values: np.ndarray, name: str) -> list[str]:
    """Notes on dimensions, such as time stamps, most of whose changes vanish in float32."""
    if np.can_cast(stored.dtype, np.float32):
        return []
    notes = []
    flat, rounded = stored.reshape(len(stored), -1), values.reshape(len(values), -1)
    for i in range(flat.shape[1]):
        column = flat[:, i] - flat[:, i].min()  # small numbers, exact in float64
        change = np.abs(np.diff(column.astype(np.float64)))
        changed = change > LEAST_CHANGE * float(column.max())
        lost = int(np.sum(changed & (rounded[1:, i] == rounded[:-1, i])))
        if 2 * lost > np.sum(changed):
            notes.append(
                f"{name}, dimension {i}: {lost:,} of {int(changed.sum()):,} changes from row to "
                f"row (about {np.median(change[changed]):.3g}) vanish in float32, which training "
                f"uses; near {flat[0, i]:.10g} it has steps of {np.spacing(rounded[0, i]):.3g}. "
                "Store it without its offset"
            )
    return notes
