"""Finished episodes and measured latencies, kept until the result is written.

One JSON line each, under a key of everything that determines it, so that a stopped command can be
repeated and ends with the same bits. Damaged lines are ignored.
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
from diffpolicy.control.external import External
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import writing

from ..config import MILLISECONDS
from .description import Budget


@dataclass(frozen=True)
class KeptProfile:
    """A LatencyProfile in JSON."""

    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]
    source: str
    exact: bool
    engine: str | None
    load: str | None
    encoder_ms: Annotated[float | None, MILLISECONDS] = None
    head_ms: Annotated[float | None, MILLISECONDS] = None


Line = dict[str, Any]


class Kept:
    """Lines of the file at `path`, read and appended; nothing is kept if the path is None."""

    def __init__(self, path: Path | None):
        if path and path.exists() and not path.is_file():
            raise DiffpolicyError(f"{path} is not a file; expected a place for finished episodes")
        self.path = path
        self._lines = _lines_of(path) if path and path.exists() else []
        self.count = len([line for line in self._lines if "episode" in line])

    def episodes(self, key: str) -> dict[int, Episode]:
        """Kept episodes under a key, by seed."""
        found = self._of(key, "episode", Episode)
        return {episode.seed: episode for episode in found}

    def profiles(self, key: str) -> list[LatencyProfile] | None:
        """Kept latency profiles under a key, one for each policy; None if there are none."""
        found = self._of(key, "profiles", list[KeptProfile])
        if not found:
            return None
        return [
            LatencyProfile(**vars(p) | {"samples_ms": np.array(p.samples_ms)}) for p in found[-1]
        ]

    def add_episode(self, key: str, episode: Episode) -> None:
        """Keep an episode, unless the environment broke it: another run may succeed."""
        if not episode.broken:
            self._add({"key": key, "episode": asdict(episode)})
            self.count += 1

    def add_profiles(self, key: str, profiles: Sequence[LatencyProfile]) -> None:
        """Keep latency profiles, one for each policy."""
        found = [{**vars(p), "samples_ms": p.samples_ms.tolist()} for p in profiles]
        self._add({"key": key, "profiles": found})

    def remove(self) -> None:
        """Remove the file, once the result is written."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def _of(self, key: str, name: str, kind: Any) -> list[Any]:
        """Values called `name` of the lines under the key; damaged ones are left out."""
        found = []
        for line in self._lines:
            if line.get("key") == key and name in line:
                with suppress(DiffpolicyError):
                    found.append(validate(kind, line[name], "a line"))
        return found

    def _add(self, line: Line) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}\n")  # ends a half-written line before it


def _lines_of(path: Path) -> list[Line]:
    lines = []
    for text in path.read_bytes().splitlines():
        with suppress(DiffpolicyError):
            lines.append(parse_json(text, "a line"))
    return [line for line in lines if isinstance(line, dict)]


def key_of(**facts: Any) -> str:
    """Hash of facts."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fingerprint(policy: Budget) -> str:
    """Hash of a policy's weights, normalisers, sampling and precision; of others, of the module.

    The weights include those of a head that corrects actions.
    """
    if isinstance(policy, External):
        return key_of(policy=policy.name, code=policy.digest)
    state = policy.__getstate__()
    found = hashlib.sha256(repr((policy.specification, policy.sampling, policy.precision)).encode())
    normalizers = (*policy.observation_normalizers.values(), policy.action_normalizer)
    head = policy.correct.weights if policy.correct else {}
    for arrays in (state["_denoiser"], *map(vars, normalizers), head):
        for name, array in arrays.items():
            found.update(name.encode())
            found.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:32]
