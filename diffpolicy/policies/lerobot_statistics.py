"""Normalisation of a LeRobot policy: statistics of its data and the modes that use them.

From version 0.4 on they are in files that the processors name, before in the model's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy.checked import read_json, validate
from diffpolicy.data.normalizer import Normalizer, identity
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies.foreign import read_tensors, refuse_others, statistics_normalizer
from diffpolicy.specification import ACTION

PROCESSORS = {
    "policy_preprocessor.json": "normalizer_processor",
    "policy_postprocessor.json": "unnormalizer_processor",
}
HARMLESS = ("rename_observations_processor", "to_batch_processor", "device_processor")
MODES = ("MIN_MAX", "MEAN_STD", "IDENTITY")
NEEDS = {"MIN_MAX": ("min", "max"), "MEAN_STD": ("mean", "std"), "IDENTITY": ()}
OLD_EPSILON = 1e-8  # added to every divisor by versions before 0.4


@dataclass(frozen=True)
class Step:
    """A step of a processor."""

    registry_name: str
    config: dict[str, Any]
    state_file: str | None = None


@dataclass(frozen=True)
class Steps:
    """A processor file."""

    steps: list[Step]


@dataclass(frozen=True)
class Options:
    """Options of a normalising step; norm_map: mode by type of feature."""

    norm_map: dict[str, str]
    eps: float = OLD_EPSILON
    normalize_observation_keys: list[str] | None = None


@dataclass(frozen=True)
class Statistics:
    """Statistics {key: {min, max, mean, std: [D]}} and their use.

    modes: by type of feature or by key. epsilon: added to a standard deviation, and by older
    versions to a range. older: keys of the values have _ for the dots. keys: the only observations
    to be normalised; None for all.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    action: Mapping[str, np.ndarray]
    modes: Mapping[str, str]
    epsilon: float
    older: bool
    where: str
    keys: list[str] | None = None

    def mode(self, key: str, kind: str) -> str:
        """MIN_MAX, MEAN_STD or IDENTITY; without statistics LeRobot changes nothing."""
        found = self.modes.get(key, self.modes.get(kind, "IDENTITY"))
        refuse_others(self.where, f"the normalisation of {key} by", found, MODES)
        known = self._of(key)
        listed = self.keys is None or key in (*self.keys, ACTION)
        return found if listed and (known or self.older) else "IDENTITY"

    def normalizer(self, key: str, mode: str, count: int) -> Normalizer:
        """Normaliser [D] of an observation."""
        low, high = self._pair(key, mode, count)
        if mode == "MEAN_STD":
            return statistics_normalizer(low, high + self.epsilon, high == 0, 0.0)
        spread = (high - low + self.epsilon * self.older) / 2
        return statistics_normalizer(low + spread, spread, high == low, -1.0)

    def action_normalizer(self, count: int) -> Normalizer:
        """Normaliser [D_a], whose inverse is LeRobot's."""
        mode = self.mode(ACTION, "ACTION")
        if mode == "IDENTITY":
            return identity(count)
        low, high = self._pair(ACTION, mode, count)
        if mode == "MEAN_STD":
            return statistics_normalizer(low, high, high == 0, 0.0)
        return statistics_normalizer((low + high) / 2, (high - low) / 2, high == low, 0.0)

    def _of(self, key: str) -> Mapping[str, np.ndarray]:
        if key == ACTION:
            return self.action
        return self.values.get(key.replace(".", "_") if self.older else key, {})

    def _pair(self, key: str, mode: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Both statistics [D] float64 of a mode, checked."""
        values = self._of(key)
        found = [values[name] for name in NEEDS[mode] if name in values]
        if len(found) < 2 or any(x.shape != (count,) or not np.isfinite(x).all() for x in found):
            raise DiffpolicyError(
                f"{self.where}: {key} needs {' and '.join(NEEDS[mode])} of {count} finite numbers "
                f"for {mode}; got {', '.join(values) or 'none'}"
            )
        return found[0], found[1]


def read_statistics(
    folder: Path, modes: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> Statistics:
    """Statistics of a policy whose weights are `tensors`; modes: those of its configuration.

    Raises DiffpolicyError for a processor that does more than normalise.
    """
    if not (folder / next(iter(PROCESSORS))).exists():
        return _from_weights(folder, modes, tensors)
    (options, values), (back, action) = (_processor(folder, *item) for item in PROCESSORS.items())
    ours = {kind: mode for kind, mode in options.norm_map.items() if kind != ACTION.upper()}
    theirs = {kind: mode for kind, mode in back.norm_map.items() if kind == ACTION.upper()}
    return Statistics(
        values,
        action.get(ACTION, {}),
        {kind: mode.upper() for kind, mode in (ours | theirs).items()},
        options.eps,
        older=False,
        where=str(folder),
        keys=options.normalize_observation_keys,
    )


def _processor(folder: Path, name: str, wanted: str) -> tuple[Options, dict[str, dict[str, Any]]]:
    """Options of the normalising step of a processor, and its statistics {key: {name: [D]}}."""
    path = folder / name
    steps = validate(Steps, read_json(path), str(path), others=True).steps
    for step in steps:
        refuse_others(str(path), "the step", step.registry_name, (wanted, *HARMLESS))
        if step.config.get("rename_map"):
            raise DiffpolicyError(f"{path}: a rename_map is not supported; rename the keys")
    found = [step for step in steps if step.registry_name == wanted]
    if len(found) != 1:
        raise DiffpolicyError(f"{path}: expected one step {wanted}; got {len(found)}")
    options = validate(Options, found[0].config, f"{path}: {wanted}", others=True)
    file = found[0].state_file
    if file is None:
        return options, {}
    if Path(file).name != file:
        raise DiffpolicyError(f"{path}: state_file must be a file in the folder; got {file!r}")
    values: dict[str, dict[str, Any]] = {}
    for label, tensor in read_tensors(folder / file).items():
        key, _, statistic = label.rpartition(".")
        values.setdefault(key, {})[statistic] = tensor.double().flatten().numpy()
    return options, values


def _from_weights(
    folder: Path, modes: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> Statistics:
    """Statistics in buffers of the model, which LeRobot had before its processors."""
    groups = {"normalize_inputs": {}, "unnormalize_outputs": {}}
    for label, tensor in tensors.items():
        group, _, rest = label.partition(".buffer_")
        key, _, statistic = rest.rpartition(".")
        if group in groups:
            values = groups[group].setdefault(key, {})
            values[statistic] = tensor.double().flatten().numpy()
    if not any(groups.values()) and set(modes.values()) != {"IDENTITY"}:
        raise DiffpolicyError(
            f"{folder} has no statistics of its data; expected {' and '.join(PROCESSORS)}, or "
            "buffers normalize_inputs and unnormalize_outputs among its weights"
        )
    inputs, outputs = groups.values()
    return Statistics(inputs, outputs.get(ACTION, {}), modes, OLD_EPSILON, True, str(folder))
