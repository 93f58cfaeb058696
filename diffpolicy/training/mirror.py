"""Mirror images of demonstrations, where the environment declares a symmetry of its task.

Shapes: N rows, D_o and D_a dimensions of an observation and of an action, E episodes.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.environment.boundary import describe_error
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

Observations = dict[str, np.ndarray]  # {key: [N, …]}
Rows = tuple[Observations, np.ndarray]  # observations, actions [N, D_a]
TOLERANCE = 1e-4  # of the greatest number of a column; float32 has 1e-7


def mirror_images(env: Any, observations: Observations, actions: np.ndarray) -> Rows | None:
    """Mirror images of all rows, by `mirrored` of the environment.

    None if it declares none, or observes pictures. Raises DiffpolicyError if `mirrored` fails,
    returns other shapes, or is no reflection: the image of an image's image is the image.
    """
    mirrored = environment.declared(env, "mirrored")
    if mirrored is None or list(observations) != [FLAT]:
        return None
    image = _reflected(env, mirrored, (observations[FLAT], actions))
    again = _reflected(env, mirrored, _reflected(env, mirrored, image))
    for name, values, twice in zip(("observations", "actions"), image, again, strict=True):
        far = np.abs(twice - values).max(0) > TOLERANCE * np.abs(values).max(0)
        if far.any():
            raise DiffpolicyError(
                f"mirrored of {env.spec.id} is no reflection: applied twice, it changes "
                f"{name}[{far.argmax()}]; expected the rows that it was applied to, or train with "
                "--mirror off"
            )
    return {FLAT: image[0]}, image[1]


def _reflected(env: Any, mirrored: Any, rows: tuple[np.ndarray, np.ndarray]) -> Any:
    """The function's two arrays, float32, checked."""
    name = f"mirrored of {env.spec.id}"
    try:
        copies = (values.copy() for values in rows)  # the function may work in place
        found = tuple(np.asarray(values, np.float32) for values in mirrored(*copies))
    except Exception as error:
        raise DiffpolicyError(f"{name} failed: {describe_error(error)}") from error
    shapes, wanted = ([list(x.shape) for x in arrays] for arrays in (found, rows))
    if shapes != wanted or not all(np.isfinite(x).all() for x in found):
        raise DiffpolicyError(
            f"{name} gave arrays of shapes {shapes}; expected finite observations and actions of "
            f"the shapes it was given, {wanted}"
        )
    return found


def with_images(
    observations: Observations, actions: np.ndarray, ends: np.ndarray, images: Rows
) -> tuple[Observations, np.ndarray, np.ndarray]:
    """Observations, actions and ends [2E] of all episodes, and then of their images."""
    both = {key: np.concatenate([x, images[0][key]]) for key, x in observations.items()}
    return both, np.concatenate([actions, images[1]]), np.concatenate([ends, ends + ends[-1]])


def tell_images(data: Path, episodes: int) -> None:
    """Tell that the policy is trained on mirror images too."""
    text = "%s: training on %d episodes and their mirror images (--mirror off: without these)"
    logging.getLogger("diffpolicy").info(text, data, episodes)
