"""Finished episodes and measured latencies, kept until the result is written.

One JSON line each, under a key of everything that determines it, so that a stopped command can be
repeated and ends with the same bits. Damaged lines are ignored.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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
Name = Literal["episode", "profiles"]
NAMES: tuple[Name, ...] = get_args(Name)


class Kept:
    """Lines of the file at `path`, read and appended; nothing is kept if the path is None.

    Only the places of the lines are in memory.
    """

    def __init__(self, path: Path | None):
        if path and path.exists() and not path.is_file():
            raise DiffpolicyError(f"{path} is not a file; expected a place for finished episodes")
        self.path = path
        self._places = _places(path) if path and path.exists() else {}
        self.count = sum(len(at) for (_, name), at in self._places.items() if name == "episode")

    def episodes(self, key: str) -> Iterator[Episode]:
        """Kept episodes under a key, read one by one, the newest first."""
        return self._of(key, "episode", Episode)

    def profiles(self, key: str) -> list[LatencyProfile] | None:
        """Kept latency profiles under a key, one for each policy; None if there are none."""
        found = next(self._of(key, "profiles", list[KeptProfile]), None)
        return found and [
            LatencyProfile(**vars(p) | {"samples_ms": np.array(p.samples_ms)}) for p in found
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

    def _of(self, key: str, name: Name, kind: Any) -> Iterator[Any]:
        """Values called `name` of the lines under the key, newest first; none that is damaged."""
        places = self._places.get((key, name))
        if not places or not self.path:
            return
        with self.path.open("rb") as file:
            for place in reversed(places):
                file.seek(place)
                with suppress(DiffpolicyError):
                    yield validate(kind, parse_json(file.readline(), "a line")[name], "a line")

    def _add(self, line: Line) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}\n")  # ends a half-written line before it


def _places(path: Path) -> dict[tuple[str, Name], array]:
    """Offsets in bytes of the lines of each key and name; damaged lines are left out."""
    found: dict[tuple[str, Name], array] = {}
    with path.open("rb") as file:
        place = 0
        for text in file:
            with suppress(DiffpolicyError):
                for slot in _slots(parse_json(text, "a line")):
                    found.setdefault(slot, array("q")).append(place)
            place += len(text)
    return found


def _slots(line: Any) -> list[tuple[str, Name]]:
    """(key, name) of what a line keeps."""
    key = line.get("key") if isinstance(line, dict) else None
    return [(key, name) for name in NAMES if isinstance(key, str) and name in line]


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
        for name, values in arrays.items():
            found.update(name.encode())
            found.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:32]
