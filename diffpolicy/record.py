"""`diffpolicy record`: run an expert, keep the successes, say how many it dropped."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.config import RecordConfig
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.environment.boundary import describe_error
from diffpolicy.environment.outcome import Outcome, new_outcome
from diffpolicy.errors import DiffpolicyError

EXPERT_STREAM = 0xE4  # apart from the environment's own stream of the same seed
TRIES_WITHOUT_SUCCESS = 50  # an expert that fails this often in a row is not one

Expert = Callable[[np.ndarray], np.ndarray]


def record(config: RecordConfig) -> None:
    """Fills the store up to --episodes successes; goes on where an earlier call stopped.

    Episode seeds count up from --seed, and a kept episode stores its own, so the store after a
    crash and a second call equals that of one call.
    """
    kwargs = environment.parse_kwargs(config.env_kwargs)
    env = environment.make(config.env, kwargs, config.max_steps)
    try:
        environment.episode_limit(env)
        new_outcome(env, config.success_from, config.success)
        make_expert = expert_maker(env, config.policy)
        attributes = {
            "env_id": config.env,
            "env_kwargs": kwargs,
            "control_dt_s": environment.control_dt_s(env, config.control_dt),
            "position_targets": bool(environment.declared(env, "position_targets")),
            "expert": config.policy or "the environment's expert",
            "success_from": config.success_from,
            "max_steps": config.max_steps,
            "first_seed": config.seed,
            "observation_keys": list(env.observation_keys or ()) or None,
            # None, as in stores from before there was a choice
            "success": None if config.success == "at-any-tick" else config.success,
        }
        with closing(DemonstrationWriter(config.out, attributes)) as writer:
            tried = _fill(env, make_expert, writer, config)
    finally:
        env.close()
    kept = len(writer.seeds)
    print(f"{config.out}: {kept} episodes kept, {tried - kept} of {tried} tried were dropped")


def _fill(
    env,
    make_expert: Callable[[int], Expert],
    writer: DemonstrationWriter,
    config: RecordConfig,
) -> int:
    """Records until the store is full; returns how many seeds were tried in all."""
    seed = writer.seeds[-1] + 1 if writer.seeds else config.seed
    failures = 0
    with tqdm(
        total=config.episodes, initial=len(writer.seeds), desc="record", unit="episode"
    ) as bar:
        while len(writer.seeds) < config.episodes:
            outcome = new_outcome(env, config.success_from, config.success)
            arrays, success = run_expert(env, make_expert(seed), seed, outcome)
            failures = 0 if success else failures + 1
            if success:
                writer.append(arrays, seed)
                bar.update(1)
            elif failures == TRIES_WITHOUT_SUCCESS:
                raise DiffpolicyError(
                    f"no success in {failures} episodes in a row; check the expert, or what "
                    f"counts as success. {len(writer.seeds)} episodes were kept"
                )
            seed += 1
    return (writer.seeds[-1] if writer.seeds else config.seed - 1) - config.seed + 1


def expert_maker(env, reference: str | None) -> Callable[[int], Expert]:
    """seed -> expert: the function named module:function, or what the environment offers."""
    if reference is not None:
        function = environment.load_function(reference)
        return lambda seed: function
    offered = environment.declared(env, "expert")
    if offered is None:
        raise DiffpolicyError(
            f"{env.spec.id} offers no expert; give --policy module:function, with "
            "function(observation) -> action"
        )
    return lambda seed: _asked(
        offered, np.random.default_rng([seed, 0, EXPERT_STREAM]), f"the start of seed {seed}"
    )


def run_expert(
    env, expert: Expert, seed: int, outcome: Outcome
) -> tuple[dict[str, np.ndarray], bool]:
    """One episode: observation [T, D_o], action [T, D_a] (row t acts on row t), and success.

    The action that is applied is the one that is stored: in float32, inside the space.
    """
    observation, _ = env.reset(seed=seed)
    observations, actions, tick, over = [], [], 0, False
    while not over:
        when = f"tick {tick} of seed {seed}"
        observations.append(_single(observation, "the environment observes", when))
        given = _asked(expert, observation, when)
        action = _as_action(given, env, when)
        actions.append(action)
        observation, reward, terminated, truncated, info = env.step(action.copy())
        over = terminated or truncated
        outcome.see(reward, info, over)
        tick += 1
    arrays = {
        "observation": np.array(observations),
        "action": np.asarray(actions, np.float32),
    }
    return arrays, outcome.success


def _asked(expert: Callable[[Any], Any], question: Any, when: str) -> Any:
    """Its answer, or one line for whatever it raises."""
    try:
        return expert(question)
    except DiffpolicyError:
        raise
    except Exception as error:
        raise DiffpolicyError(f"the expert failed at {when}: {describe_error(error)}") from error


def _single(values: np.ndarray, who: str, when: str) -> np.ndarray:
    """A copy in float32, all of it finite."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
        single = np.array(values, np.float32)
    if not np.isfinite(single).all():
        where = int(np.flatnonzero(~np.isfinite(single))[0])
        raise DiffpolicyError(
            f"{who} {values[where]} at index {where}, {when}; expected finite numbers that "
            "float32 can hold"
        )
    return single


def _as_action(given: Any, env, when: str) -> np.ndarray:
    """The expert's action, as float32 can store it, clipped to the space."""
    try:
        action = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise DiffpolicyError(f"the expert gives no numbers: {given!r}, {when}") from error
    space = env.action_space
    if action.shape not in (space.shape, env.action_shape):
        raise DiffpolicyError(f"the expert gives {action.shape}; actions are {space.shape}, {when}")
    if not np.isfinite(action).all():
        raise DiffpolicyError(f"the expert gives an action that is not finite: {action}, {when}")
    inside = np.clip(action.ravel(), space.low, space.high)
    return environment.applicable(_single(inside, "the expert gives", when), space)
