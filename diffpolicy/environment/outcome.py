"""Success and score of an episode, read from its steps.

`info` reports success at a tick; without the key there is no success yet. An episode succeeds
at-any-tick, at-end, or if success is held:N ticks in a row. Its score is the last value of a key of
`info`, or the sum of its rewards, as the option says, over a scale if it gives one; by default the
key that the environment declares as `score_key`, in [0, 1]; else success as 0 or 1. The key
`return` stands for the sum of the rewards so far.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffpolicy.environment import declared, episode_limit
from diffpolicy.environment.boundary import number
from diffpolicy.errors import DiffpolicyError

SUCCESS_KEYS = ("success", "is_success", "task_completions")
RETURN = "return"


@dataclass(frozen=True)
class SuccessRule:
    """Success at one tick by its info: a key, key>number or key<number."""

    key: str | None = None  # None: the first of the usual keys, or that no task is left
    sign: str = ""
    threshold: float = 0.0

    def __call__(self, info: Mapping[str, Any]) -> bool | None:
        """Success at this tick; None if info does not report it."""
        if self.key is None and "tasks_to_complete" in info:
            return not _amounts("tasks_to_complete", info["tasks_to_complete"]).any()
        for key in SUCCESS_KEYS if self.key is None else (self.key,):
            if key in info:
                return self._holds(key, info[key])
        return None

    def _holds(self, key: str, value: Any) -> bool:
        if not self.sign and type(value) is bool:
            return value
        amounts = _amounts(key, value)
        if self.sign:
            above = self.sign == ">"
            return bool(np.all(amounts > self.threshold if above else amounts < self.threshold))
        if _is_list(value):
            return bool(amounts)
        if not np.isin(amounts, (0, 1)).all():
            raise DiffpolicyError(
                f"info[{key!r}] must be a bool, 0 or 1 to be success; got {value!r}. Give a "
                f'condition, such as --success-from "{key}>0.5"'
            )
        return bool(np.all(amounts))


@dataclass
class Outcome:
    """Success and score of one episode so far; `see` adds a step."""

    succeeds: SuccessRule
    held: int | None  # ticks in a row; None: at the end
    score_key: str | None  # None: the score is success
    unit: bool  # scores must lie in [0, 1]
    scale: float = 1.0  # of the score
    total: float = 0.0  # of the rewards so far
    success_tick: int | None = None  # ticks until info first reported success
    ticks: int = 0
    in_a_row: int = 0
    longest: int = 0
    known: bool = False
    last_score: float | None = None
    keys: dict[str, None] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """True if the rule holds after the steps so far."""
        return self.in_a_row > 0 if self.held is None else self.longest >= self.held

    @property
    def score_from(self) -> str | None:
        """The key of the score, with its scale; None: the score is success."""
        return self.score_key if self.scale == 1 else f"{self.score_key}/{self.scale:g}"

    @property
    def score(self) -> float:
        """The score after the steps so far."""
        return float(self.success) if self.score_key is None else self.last_score or 0.0

    def see(self, reward: float, info: Mapping[str, Any], over: bool) -> None:
        """Add one step. DiffpolicyError at the end if info never reported success or score."""
        self.total += reward
        found = self.succeeds({RETURN: self.total} if self.succeeds.key == RETURN else info)
        self.known |= found is not None
        self.keys |= dict.fromkeys(info)
        self.ticks += 1
        self.in_a_row = self.in_a_row + 1 if found else 0
        self.longest = max(self.longest, self.in_a_row)
        if found and self.success_tick is None:
            self.success_tick = self.ticks
        if self.score_key == RETURN:
            self.last_score = self._score("the sum of the rewards", self.total)
        elif self.score_key is not None and self.score_key in info:
            self.last_score = self._score(f"info[{self.score_key!r}]", info[self.score_key])
        if over and not self.known:
            self._unreported(self.succeeds.key or " or ".join(SUCCESS_KEYS), "--success-from")
        if over and self.score_key and self.last_score is None:
            self._unreported(self.score_key, "--score-from")

    def _score(self, name: str, value: Any) -> float:
        found = number(value)
        if found is None or not math.isfinite(found):
            raise DiffpolicyError(f"{name} must be a finite number to be a score; got {value!r}")
        score = found / self.scale
        if self.unit and not 0 <= score <= 1:
            raise DiffpolicyError(f"{name} must lie in [0, 1], as declared; got {score}")
        return score

    def _unreported(self, key: str, option: str) -> None:
        condition = "or a condition such as return>100 or key>0.5"
        other = "or return" if option == "--score-from" else condition
        raise DiffpolicyError(
            f"in a whole episode info has no {key}; it holds: "
            f"{', '.join(map(str, self.keys)) or 'nothing'}. Name a key that every episode has at "
            f"least once, {other}, with {option}"
        )


def new_outcome(
    env, success_from: str | None, success: str, score_from: str | None = None
) -> Outcome:
    """Outcome of a new episode; DiffpolicyError for options that cannot be read or satisfied."""
    held = held_ticks(success)
    if held and held > 1 and held > episode_limit(env):
        raise DiffpolicyError(
            f"--success {success} can never hold: episodes last {episode_limit(env)} ticks at most"
        )
    key, scale = score_rule(score_from) if score_from else (declared(env, "score_key"), 1.0)
    return Outcome(success_rule(success_from), held, key, unit=score_from is None, scale=scale)


def held_ticks(text: str) -> int | None:
    """at-any-tick as 1, held:N as N, at-end as None."""
    fixed = {"at-any-tick": 1, "at-end": None}
    count = re.fullmatch(r"held:0*([1-9]\d*)", text)
    if text not in fixed and not count:
        raise DiffpolicyError(
            f"--success must be at-any-tick, at-end or held:N with N of 1 or more; got {text!r}"
        )
    return int(count[1]) if count else fixed[text]


def score_rule(text: str) -> tuple[str, float]:
    """The key and the scale of "key" or "key/scale"; a last part that is no number is of the key.

    Raises DiffpolicyError for a scale that is not above 0.
    """
    key, slash, last = text.rpartition("/")
    try:
        scale = float(last)
    except ValueError:
        return text, 1.0
    if not slash:  # a key that is a number
        return text, 1.0
    if not key or not 0 < scale < math.inf:
        raise DiffpolicyError(
            f"--score-from must be key, key/scale, return or return/scale, with a finite scale "
            f"above 0; got {text!r}"
        )
    return key, scale


def success_rule(text: str | None) -> SuccessRule:
    """Rule of a text "key", "key>number" or "key<number"; None for the usual keys."""
    key, *rest = re.split(r"\s*([<>])\s*", text or "", maxsplit=1)
    sign, threshold = rest or ("", "0")
    try:
        value = float(threshold)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (sign and not key):
        raise DiffpolicyError(f"--success-from must be key, key>number or key<number; got {text!r}")
    return SuccessRule(key or None, sign, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _amounts(key: str, value: Any) -> np.ndarray:
    """Numbers; a list, such as the completed tasks, counts as its length."""
    try:
        amounts = np.asarray(len(value) if _is_list(value) else value, np.float64)
    except (TypeError, ValueError):
        amounts = np.array(math.nan)
    if not amounts.size or np.isnan(amounts).any():
        raise DiffpolicyError(f"info[{key!r}] is neither a number nor a list: {value!r}")
    return amounts
