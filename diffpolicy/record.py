"""`diffpolicy record`: run an expert and store its successful episodes."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.config import RecordConfig
from diffpolicy.data.attributes import StoreAttributes
from diffpolicy.data.demonstration import OUTCOME_TYPES, OUTCOMES, Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.environment.boundary import describe_error
from diffpolicy.environment.monitored import by_key
from diffpolicy.environment.outcome import Outcome, new_outcome
from diffpolicy.environment.pictures import without_camera
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION

EXPERT_STREAM = 0xE4  # apart from the environment's own stream of the same seed
TRIES_WITHOUT_SUCCESS = 50  # consecutive failures after which recording stops

Expert = Callable[[Any], np.ndarray]


def record(config: RecordConfig) -> None:
    """Fill the store up to --episodes successes; continue where an earlier call stopped.

    Episode seeds count up from --seed, and a kept episode stores its own, so the store after a
    crash and a second call equals that of one call.
    """
    kwargs = environment.parse_kwargs(config.env_kwargs)
    env = environment.make(config.env, kwargs, config.max_steps, camera=config.camera)
    try:
        environment.check_usable(env, None)
        environment.episode_limit(env)
        new_outcome(env, config.success_from, config.success)
        make_expert = expert_maker(env, config.policy, config.camera is not None)
        attributes = StoreAttributes(
            env_id=config.env,
            env_kwargs=kwargs,
            control_dt_s=environment.control_dt_s(env, config.control_dt),
            position_targets=bool(environment.declared(env, "position_targets")),
            observation_keys=list(env.observation_keys or ()) or None,
            expert=config.policy or "the environment's expert",
            success_from=config.success_from,
            success=None if config.success == "at-any-tick" else config.success,
            max_steps=config.max_steps,
            first_seed=config.seed,
            camera=config.camera,
        )
        with closing(DemonstrationWriter(config.out, asdict(attributes))) as writer:
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
    """Record until the store is full; return the number of seeds tried."""
    seed = writer.seeds[-1] + 1 if writer.seeds else config.seed
    failures = 0
    with tqdm(
        total=config.episodes, initial=len(writer.seeds), desc="record", unit="episode"
    ) as bar:
        while len(writer.seeds) < config.episodes:
            outcome = new_outcome(env, config.success_from, config.success)
            episode = run_expert(env, make_expert(seed), seed, outcome)
            failures = 0 if episode.success else failures + 1
            if episode.success:
                writer.append(episode if writer.keeps_outcomes else episode.arrays, seed)
                bar.update(1)
            elif failures == TRIES_WITHOUT_SUCCESS:
                raise DiffpolicyError(
                    f"no success in {failures} consecutive episodes; check the expert, or the rule "
                    f"of success. {len(writer.seeds)} episodes were kept"
                )
            seed += 1
    return (writer.seeds[-1] if writer.seeds else config.seed - 1) - config.seed + 1


def expert_maker(env, reference: str | None, camera: bool = False) -> Callable[[int], Expert]:
    """seed -> expert: the function named module:function, or the environment's own expert.

    camera: one was added to the environment, and its own expert is not given that picture.
    """
    if reference is not None:
        function = environment.load_function(reference)
        return lambda seed: function
    offered = environment.declared(env, "expert")
    if offered is None:
        raise DiffpolicyError(
            f"{env.spec.id} offers no expert; give --policy module:function, with "
            "function(observation) -> action"
        )

    def own(seed: int) -> Expert:
        rng = np.random.default_rng([seed, 0, EXPERT_STREAM])
        expert = _asked(offered, rng, f"the start of seed {seed}")
        return (lambda observation: expert(without_camera(observation))) if camera else expert

    return own


def run_expert(env, expert: Expert, seed: int, outcome: Outcome) -> Demonstration:
    """One episode, with its outcomes, final observation and success.

    Floats are stored in float32, pictures as they are. The stored action is the applied one:
    float32, inside the space.
    """
    observation, _ = env.reset(seed=seed)
    rows, outcomes, over = [], [], False
    while not over:
        when = f"tick {len(rows)} of seed {seed}"
        seen = _seen(observation, when)
        action = _as_action(_asked(expert, observation, when), env, when)
        rows.append({**seen, ACTION: np.asarray(action, np.float32)})
        observation, reward, terminated, truncated, info = env.step(action.copy())
        outcomes.append((reward, terminated, truncated))
        over = terminated or truncated
        outcome.see(reward, info, over)
    columns = zip(OUTCOMES, zip(*outcomes, strict=True), strict=True)
    return Demonstration(
        {key: np.stack([row[key] for row in rows]) for key in rows[0]},
        {name: np.array(values, OUTCOME_TYPES[name]) for name, values in columns},
        _seen(observation, f"the end of seed {seed}"),
        outcome.success,
    )


def _seen(observation: Any, when: str) -> dict[str, np.ndarray]:
    """Arrays of an observation by key, as they are stored."""
    return {
        key: _stored(value, "the environment observes", when)
        for key, value in by_key(observation).items()
    }


def _asked(expert: Callable[[Any], Any], question: Any, when: str) -> Any:
    """The expert's answer; DiffpolicyError for everything that it raises."""
    try:
        return expert(question)
    except DiffpolicyError:
        raise
    except Exception as error:
        raise DiffpolicyError(f"the expert failed at {when}: {describe_error(error)}") from error


def _stored(values: np.ndarray, who: str, when: str) -> np.ndarray:
    """A finite copy, floats in float32."""
    if values.dtype.kind != "f":
        return values.copy()
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
        copy = np.array(values, np.float32)
    if not np.isfinite(copy).all():
        where = int(np.flatnonzero(~np.isfinite(copy))[0])
        raise DiffpolicyError(
            f"{who} {values.flat[where]} at index {where}, {when}; expected finite numbers that "
            "float32 can hold"
        )
    return copy


def _as_action(given: Any, env, when: str) -> np.ndarray:
    """The expert's action in float32, clipped to the space."""
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
    return environment.applicable(_stored(inside, "the expert gives", when), space)
