"""Finished episodes and measured latencies of a run, kept until its result is written.

One JSON line each, under a key of everything that determines it, so that the same command goes on
where it was stopped and ends with the same bits. A damaged line is no line.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from diffpolicy.checked import NOT_EMPTY, parse_json, validate
from diffpolicy.control.episode import Episode
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import writing
from diffpolicy.policy import Policy

from ..config import MILLISECONDS


@dataclass(frozen=True)
class KeptProfile:
    """A LatencyProfile as JSON has it."""

    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]
    source: str
    exact: bool
    engine: str | None
    load: str | None


class Kept:
    """Lines of the file at `path`, read and appended; without a path, none."""

    def __init__(self, path: Path | None):
        if path and path.exists() and not path.is_file():
            raise DiffpolicyError(f"{path} is not a file; finished episodes are kept there")
        self.path = path
        self._lines = _lines_of(path) if path and path.exists() else []
        self.count = len([line for line in self._lines if "episode" in line])

    def episodes(self, key: str) -> dict[int, Episode]:
        """By seed."""
        found = self._of(key, "episode", Episode)
        return {episode.seed: episode for episode in found}

    def profiles(self, key: str) -> list[LatencyProfile] | None:
        """None where none were kept."""
        found = self._of(key, "profiles", list[KeptProfile])
        if not found:
            return None
        return [
            LatencyProfile(**vars(p) | {"samples_ms": np.array(p.samples_ms)}) for p in found[-1]
        ]

    def add_episode(self, key: str, episode: Episode) -> None:
        """Keep it, unless the environment broke it: then it may go better another time."""
        if not episode.broken:
            self._add({"key": key, "episode": asdict(episode)})
            self.count += 1

    def add_profiles(self, key: str, profiles: Sequence[LatencyProfile]) -> None:
        """One for each policy."""
        found = [{**vars(p), "samples_ms": p.samples_ms.tolist()} for p in profiles]
        self._add({"key": key, "profiles": found})

    def remove(self) -> None:
        """The result is written."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def _of(self, key: str, name: str, kind: Any) -> list[Any]:
        """Lines under the key that hold what is asked for, as such; damaged ones are left out."""
        found = []
        for line in self._lines:
            if line.get("key") == key and name in line:
                with suppress(DiffpolicyError):
                    found.append(validate(kind, line[name], "a line"))
        return found

    def _add(self, line: dict[str, Any]) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}\n")  # a half-written line before it stays alone


def _lines_of(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_bytes().splitlines():
        with suppress(DiffpolicyError):
            lines.append(parse_json(text, "a line"))
    return [line for line in lines if isinstance(line, dict)]


def key_of(**facts: Any) -> str:
    """A short name for facts."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fingerprint(policy: Policy) -> str:
    """A short name for weights, normalisers, sampling and precision."""
    state = policy.__getstate__()
    found = hashlib.sha256(repr((policy.specification, policy.sampling, policy.precision)).encode())
    normalizers = (*policy.observation_normalizers.values(), policy.action_normalizer)
    for arrays in (state["_denoiser"], *map(vars, normalizers)):
        for name, array in arrays.items():
            found.update(name.encode())
            found.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:32]
