"""`diffpolicy replay`: apply the recorded actions in open loop, and compare with the recording.

Each episode starts from its stored reset seed, or from a row of the store that the environment's
reset takes as an option. Shapes: T ticks, D numbers of a key.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch

from diffpolicy import environment
from diffpolicy.checked import validate
from diffpolicy.config import TICKS
from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import open_without_options
from diffpolicy.environment.boundary import describe_error
from diffpolicy.environment.monitored import by_key
from diffpolicy.environment.outcome import new_outcome
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, FLAT, NO_ENVIRONMENT
from diffpolicy.stores.copying import seeds_of
from diffpolicy.terminal.progress import progress_bar

from .data_config import ReplayConfig
from .measure.differences import Played, compared, with_differences
from .measure.periods import same_period
from .measure.provenance import provenance
from .measure.replay_results import ReplayedEpisode, ReplayProvenance, ReplayResult
from .report.products import check_outputs, save
from .significance import wilson


@dataclass(frozen=True)
class Plan:
    """Environment, rule of success, and start of each episode of a replay.

    numbers: of the episodes to replay.
    """

    env_id: str
    kwargs: dict[str, Any]
    limit: int | None
    success_from: str | None
    success: str
    start: dict[str, str]  # option of reset: array of the store
    seeds: Sequence[int]
    numbers: Sequence[int]


def replay(config: ReplayConfig) -> None:
    """Print the share of episodes that succeed and the differences; write JSON on request."""
    if config.json:
        check_outputs(ReplayResult, config.json)
    source = open_without_options(config.store)
    plan = _plan(config, source)
    camera = attribute(source.attributes, "camera")
    env = environment.make(plan.env_id, plan.kwargs, plan.limit, camera=camera)
    try:
        new_outcome(env, plan.success_from, plan.success)
        ticks = environment.episode_limit(env)
        _warn_of_period(env, source)
        played = list(_replayed(env, plan, source))
    finally:
        env.close()
    left_out = _asked(config, source) - len(played)
    save(_result(config, plan, ticks, with_differences(played), left_out), config.json)


def _plan(config: ReplayConfig, source: Source) -> Plan:
    """Raise DiffpolicyError unless the environment and the start of each episode are known."""
    attributes = source.attributes
    env_id = config.env or attribute(attributes, "env_id")
    if env_id in (None, NO_ENVIRONMENT):
        raise DiffpolicyError(f"{config.store} names no environment; give --env ID")
    stored = dict(attribute(attributes, "env_kwargs") or {})
    given = config.env_kwargs
    seeds, start = seeds_of(source), _start_arrays(config)
    numbers = [n for n in range(_asked(config, source)) if start or seeds[n] >= 0]
    if not numbers:
        raise DiffpolicyError(
            f"{config.store} holds no reset seeds of its first {_asked(config, source)} episodes, "
            "so that they cannot be started again; if the environment takes a start in "
            "reset(options=…), name its arrays with --start"
        )
    return Plan(
        env_id=str(env_id),
        kwargs=stored if given is None else environment.parse_kwargs(given),
        limit=config.max_steps or _stored_limit(config, attributes.get("max_steps")),
        success_from=config.success_from or _text(attributes.get("success_from")),
        success=config.success or _text(attributes.get("success")) or "at-any-tick",
        start=start,
        seeds=seeds,
        numbers=numbers,
    )


def _stored_limit(config: ReplayConfig, value: Any) -> int | None:
    where = f"{config.store}: give --max-steps; the attribute max_steps"
    return validate(Annotated[int | None, TICKS], value, where)


def _asked(config: ReplayConfig, source: Source) -> int:
    """Number of episodes that --episodes names."""
    return min(config.episodes or len(source), len(source))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _start_arrays(config: ReplayConfig) -> dict[str, str]:
    pairs = (text.partition("=") for text in config.start)
    return {option: array or option for option, _, array in pairs}


def _warn_of_period(env: Any, source: Source) -> None:
    """Print a warning if the environment does not act at the rate of the recording."""
    recorded, declared = attribute(source.attributes, "control_dt_s"), None
    with suppress(DiffpolicyError):
        declared = environment.control_dt_s(env)
    if recorded and declared and not same_period(recorded, declared):
        print(
            f"warning: the actions were recorded at a control period of {recorded:g} s; "
            f"{env.spec.id} has {declared:g} s"
        )


def _replayed(env: Any, plan: Plan, source: Source) -> Iterator[Played]:
    """Each episode that has a seed, or whose start is set."""
    total, wanted = plan.numbers[-1] + 1, set(plan.numbers)
    with progress_bar(islice(source.episodes(), total), "replay", total, unit="episode") as bar:
        for number, episode in enumerate(bar):
            if number in wanted:
                yield _play(env, plan, number, episode)


def _play(env: Any, plan: Plan, number: int, episode: Demonstration) -> Played:
    """Apply the actions until they or the episode end.

    An episode whose start is set is seeded by its number, so that noise of the environment repeats.
    """
    seed = None if plan.start else int(plan.seeds[number])
    outcome = new_outcome(env, plan.success_from, plan.success)
    actions = np.reshape(episode.arrays[ACTION], (len(episode), -1))
    if actions.shape[1] != env.action_space.shape[0]:
        raise DiffpolicyError(
            f"{env.spec.id} takes actions of {env.action_space.shape[0]} numbers; the store has "
            f"{actions.shape[1]}"
        )
    drawn = number if seed is None else seed
    observation, _ = env.reset(seed=drawn, options=_start(plan, number, episode))
    seen, over = [by_key(observation)], False
    for action in actions:
        applied = environment.applicable(action, env.action_space)
        observation, reward, terminated, truncated, info = env.step(applied)
        seen.append(by_key(observation))
        over = terminated or truncated or len(seen) > len(actions)
        outcome.see(reward, info, over)
        if over:
            break
    row = ReplayedEpisode(
        episode=number,
        seed=seed,
        success=int(outcome.success),
        success_tick=outcome.success_tick,
        recorded_success=None if episode.success is None else int(episode.success),
        score=round(outcome.score, 6),
        actions=len(actions),
        ticks=len(seen) - 1,
        differences=[],
    )
    recorded = _recorded(env, episode)
    stacked = {key: np.stack([values[key] for values in seen]) for key in recorded}
    return compared(row, stacked, recorded)


def _start(plan: Plan, number: int, episode: Demonstration) -> dict[str, Any] | None:
    """Options of reset: the first rows of the named arrays."""
    for array in plan.start.values():
        if array not in episode.arrays:
            held = ", ".join(episode.arrays)
            raise DiffpolicyError(f"--start: episode {number} has no {array}; it holds: {held}")
    return {option: episode.arrays[a][0] for option, a in plan.start.items()} or None


def _recorded(env: Any, episode: Demonstration) -> dict[str, np.ndarray]:
    """Recorded observations [T, …], or [T + 1, …], as the environment observes them, by key.

    Those of the store's arrays that have its keys, else those that the environment maps.
    """
    keys = [key for key in env.observations if key in episode.arrays]
    declared = environment.declared(env, "demonstration_arrays") or []
    if not keys and declared and set(declared) <= set(episode.arrays):
        try:
            mapped = environment.declared(env, "observations_from")(episode.arrays)
        except Exception as error:
            name = f"observations_from of {env.spec.id}"
            raise DiffpolicyError(f"{name} failed: {describe_error(error)}") from error
        return dict(mapped) if isinstance(mapped, Mapping) else {FLAT: np.asarray(mapped)}
    found = {}
    for key in keys:
        rows, final = np.asarray(episode.arrays[key]), episode.final.get(key)
        found[key] = rows if final is None else np.concatenate([rows, np.asarray(final)[None]])
    return found


def _result(
    config: ReplayConfig, plan: Plan, ticks: int, rows: list[ReplayedEpisode], left_out: int
) -> ReplayResult:
    successes = sum(row.success for row in rows)
    about = ReplayProvenance(
        **vars(provenance(torch.device("cpu"))),
        store=str(config.store),
        env=plan.env_id,
        env_kwargs=plan.kwargs,
        success_from=plan.success_from,
        success=plan.success,
        max_steps=ticks,
        start=list(config.start),
        left_out=left_out,
    )
    return ReplayResult(
        provenance=about,
        episodes=len(rows),
        successes=successes,
        success_rate=successes / len(rows),
        success_ci=wilson(successes, len(rows)),
        rows=rows,
    )
