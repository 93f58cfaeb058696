"""Mirror images of demonstrations, where the environment declares a symmetry of its task.

Shapes: N rows, D_o and D_a dimensions of an observation and of an action, E episodes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.environment.boundary import describe_error
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

Observations = dict[str, np.ndarray]  # {FLAT: [N, D_o]}
Pair = tuple[np.ndarray, np.ndarray]  # observations [N, D_o], actions [N, D_a]

NAMES = ("observations", "actions")
TOLERANCE = 1e-4  # of the greatest number of a column; float32 has 1e-7
ROUNDING = 1e-6  # of the greatest number of all, in an image of a constant


def mirror_images(
    data: Path, env: Any, observations: Observations, actions: np.ndarray
) -> Pair | None:
    """Mirror images of all rows, by `mirrored` of the environment.

    None if it declares none, or observes pictures. Raises DiffpolicyError if `mirrored` fails,
    returns other shapes, or does not undo itself.
    """
    mirrored = environment.declared(env, "mirrored")
    if mirrored is None or not environment.is_flat(env.observations):
        return None
    rows = observations[FLAT], actions
    try:
        image = _reflected(mirrored, rows)
        _check_undone(rows, image, _reflected(mirrored, image))
    except DiffpolicyError as error:
        raise DiffpolicyError(
            f"{data}: mirrored of {env.spec.id} {error}; mend it, or train with --mirror off"
        ) from error
    seen, acted = map(_constants_kept, rows, image)
    return seen, acted


def _reflected(mirrored: Callable[..., Any], rows: Pair) -> Pair:
    """The function's two arrays, float32. Raises DiffpolicyError for anything else."""
    try:
        found = mirrored(*(values.copy() for values in rows))  # it may work in place
    except Exception as error:
        raise DiffpolicyError(f"failed: {describe_error(error)}") from error
    try:
        seen, acted = (np.asarray(values, np.float32) for values in found)
    except (TypeError, ValueError) as error:
        raise DiffpolicyError(
            f"gave {type(found).__name__}; expected a pair of arrays, observations and actions"
        ) from error
    for name, values, given in zip(NAMES, (seen, acted), rows, strict=True):
        if values.shape != given.shape:
            shapes = f"{list(values.shape)}; expected {list(given.shape)}"
            raise DiffpolicyError(f"gave {name} of shape {shapes}")
        finite = np.isfinite(values).all(axis=0)
        if not finite.all():
            raise DiffpolicyError(f"gave {name}[{finite.argmin()}] that are not finite")
    return seen, acted


def _check_undone(rows: Pair, image: Pair, again: Pair) -> None:
    """Raise DiffpolicyError unless the image of the image is the rows again."""
    for name, values, once, twice in zip(NAMES, rows, image, again, strict=True):
        greatest = np.maximum(np.abs(values), np.abs(once)).max(axis=0)
        far = np.abs(twice - values).max(axis=0) > TOLERANCE * greatest
        if far.any():
            raise DiffpolicyError(
                f"is no reflection: applied twice, it changes {name}[{far.argmax()}]"
            )


def _constants_kept(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image, with constant columns that only rounding changes as they were.

    Otherwise the normaliser would take the rounding for their range.
    """
    near = np.abs(image - values) <= ROUNDING * np.abs(values).max()
    kept = near.all(axis=0) & (np.ptp(values, axis=0) == 0)
    return np.where(kept, values, image)


def with_images(
    observations: Observations, actions: np.ndarray, ends: np.ndarray, images: Pair
) -> tuple[Observations, np.ndarray, np.ndarray]:
    """Observations, actions and ends [2E] of all episodes, and then of their images."""
    both = np.concatenate([observations[FLAT], images[0]])
    return (
        {FLAT: both},
        np.concatenate([actions, images[1]]),
        np.concatenate([ends, ends + ends[-1]]),
    )
