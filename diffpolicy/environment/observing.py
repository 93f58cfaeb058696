"""Observations of other people's environments as arrays: one vector, or with pictures {key: array}.

Every array is checked against its space and copied.
"""

import reprlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space

from diffpolicy.environment.pictures import REMEDY, Camera, camera_of, described
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, FLAT, ObservationSpec, flat_observation, picture

FIXED = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)

Path = tuple[Any, ...]  # keys of a Dict and numbers of a Tuple, from the outside


class Unfit(Exception):
    """A value that does not fit its declaration, in words: given and expected."""

    def __init__(self, verb: str, value: Any, expected: str, given: str | None = None):
        shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
        self.given = f"{verb} {given or reprlib.repr(value) + shape}"
        self.expected = expected
        super().__init__(f"{self.given}; expected {expected}")


class Parts:
    """Arrays of an observation space, in its order; `read` makes them of an observation.

    space: of what `read` returns. refused: error message by key of the pictures that are of no use
    (see `camera_of`) and left out. Raises DiffpolicyError, with the name of the environment, for a
    space that has no fixed number of numbers, no usable names, or nothing but such pictures.
    """

    def __init__(self, space: Any, name: str):
        self._leaves = list(_leaves(space))
        if not self._leaves or not all(isinstance(leaf, FIXED) for _, leaf in self._leaves):
            raise DiffpolicyError(
                f"{name} must observe a Box, or a Dict or Tuple of Box, Discrete, MultiBinary and "
                f"MultiDiscrete; has {space}. {REMEDY}"
            )
        self._shape = space.shape if isinstance(space, spaces.Box) else None
        self._cameras: dict[Path, Camera] = {}
        self.refused: dict[str, str] = {}
        self._find_cameras(name)
        self.space: Any = space
        self._has_keys = bool(self._cameras or self.refused)
        if self._has_keys:
            _check_names([*(_key(path) for path, _ in self._leaves), *self.refused], name)
            self.space = self._space_by_key()
        elif self._shape is None or len(self._shape) != 1:
            self.space = flatten_space(space)
        self.read = self._by_key if self._has_keys else self._flat

    def _find_cameras(self, name: str) -> None:
        """Tell pictures from vectors; leave out those that are of no use."""
        kept = []
        for path, leaf in self._leaves:
            try:
                camera = camera_of(leaf, _named(name, path))
            except DiffpolicyError as error:
                self.refused[_key(path)] = str(error)
                continue
            kept.append((path, leaf))
            if camera:
                self._cameras[path] = camera
        if not kept:
            raise DiffpolicyError(next(iter(self.refused.values())))
        self._leaves = kept

    def _space_by_key(self) -> spaces.Dict:
        found: dict[str, spaces.Space] = {}
        for path, leaf in self._leaves:
            camera = self._cameras.get(path)
            found[_key(path)] = (
                spaces.Box(0, 255, camera.spec.shape, np.uint8) if camera else flatten_space(leaf)
            )
        return spaces.Dict(list(found.items()))  # pairs keep their order

    @cached_property
    def specs(self) -> dict[str, ObservationSpec]:
        """Specification by key; `limits` stands for a normaliser that is to be fitted."""
        if not self._has_keys:
            return flat_observation(self.space.shape[0])
        shapes = {key: box.shape for key, box in self.space.items()}
        return {k: picture(*s) if len(s) == 3 else ObservationSpec(s) for k, s in shapes.items()}

    @property
    def order(self) -> tuple[str, ...] | None:
        """Parts of a Dict or Tuple in the order of the flat vector; None without one."""
        return None if self._has_keys else tuple(_key(p) for p, _ in self._leaves if p) or None

    def _flat(self, value: Any) -> np.ndarray:
        """The observation as a new vector, in the order of the space."""
        if type(value) is np.ndarray and value.shape == self._shape and value.dtype.kind == "f":
            return value.flatten()  # always a copy
        vector = np.concatenate([self._part(path, leaf, value) for path, leaf in self._leaves])
        return vector if vector.dtype.kind == "f" else vector.astype(np.float64)

    def _by_key(self, value: Any) -> dict[str, np.ndarray]:
        """New arrays {key: float vector, or picture uint8 [H, W, C]}."""
        return {
            _key(path): self._picture(path, value)
            if path in self._cameras
            else _float_copy(self._part(path, leaf, value))
            for path, leaf in self._leaves
        }

    def _picture(self, path: Path, observation: Any) -> np.ndarray:
        camera, values = self._cameras[path], _at(path, observation)
        found = camera.read(values)
        if found is None:
            verb = f"gave as observation{_indexed(path)}"
            raise Unfit(verb, values, camera.expected, described(values))
        return found

    def _part(self, path: Path, space: Any, observation: Any) -> np.ndarray:
        """One array of the observation as a vector."""
        value, name = _at(path, observation), _indexed(path)
        if not isinstance(space, spaces.Box):
            if not space.contains(value):
                raise Unfit(f"gave as observation{name}", value, f"one of {space}")
            return np.asarray(flatten(space, value))
        array = np.asarray(value) if hasattr(value, "__array__") else None
        if array is None or array.shape != space.shape or array.dtype.kind not in "fiub":
            wanted = f"an array of numbers of shape {space.shape}"
            raise Unfit(f"gave as observation{name}", value, wanted)
        return array.ravel()


def _check_names(keys: list[str], name: str) -> None:
    """Refuse names that a store cannot hold beside the actions."""
    parts = [part for key in keys for part in key.split("/")]
    inside = any(other.startswith(f"{key}/") for key in keys for other in keys)
    if (
        inside
        or len(set(keys)) < len(keys)
        or ACTION in {key.partition("/")[0] for key in keys}
        or not all(part and part[0] != "." and "\\" not in part for part in parts)
    ):
        raise DiffpolicyError(
            f"{name} must observe parts of different names that a store can hold, none of them "
            f"{ACTION!r}, a folder of another, empty, or with a dot in front; has "
            f"{', '.join(map(repr, keys))}. {REMEDY}"
        )


def _leaves(space: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(keys, space) of every array of a Dict or Tuple, in the order of the flat vector."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, space
        return
    inside: Any = space.spaces
    for key, inner in inside.items() if isinstance(space, spaces.Dict) else enumerate(inside):
        yield from _leaves(inner, (*path, key))


def _at(path: Path, observation: Any) -> Any:
    """The part of an observation at a path of keys."""
    value = observation
    try:
        for key in path:
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        keys = list(observation) if isinstance(observation, Mapping) else observation
        raise Unfit("observed", keys, f"observation{_indexed(path)}") from error
    return value


def _float_copy(vector: np.ndarray) -> np.ndarray:
    return vector.astype(vector.dtype if vector.dtype.kind == "f" else np.float64)


def _key(path: Path) -> str:
    """Name of a part, such as "robot/joints"; a single array is `observation`."""
    return "/".join(map(str, path)) if path else FLAT


def _indexed(path: Path) -> str:
    """Index of a part, as in Python."""
    return "".join(f"[{key!r}]" for key in path)


def _named(name: str, path: Path) -> str:
    return f"{name}: observation{_indexed(path)}"
