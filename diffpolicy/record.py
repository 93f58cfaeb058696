"""`diffpolicy record`: run an expert, keep the successes, say how many it dropped."""

from collections.abc import Callable
from contextlib import closing

import numpy as np
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.config import RecordConfig
from diffpolicy.demonstration_writer import DemonstrationWriter
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
    succeeds = environment.success_rule(config.success_from)
    env = environment.make(config.env, kwargs, config.max_steps)
    try:
        environment.episode_limit(env)
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
        }
        with closing(DemonstrationWriter(config.out, attributes)) as writer:
            tried = _fill(env, make_expert, succeeds, writer, config)
    finally:
        env.close()
    kept = len(writer.seeds)
    print(f"{config.out}: {kept} episodes kept, {tried - kept} of {tried} tried were dropped")


def _fill(
    env,
    make_expert: Callable[[int], Expert],
    succeeds: environment.SuccessRule,
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
            arrays, success = run_expert(env, make_expert(seed), seed, succeeds)
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
    return lambda seed: offered(np.random.default_rng([seed, 0, EXPERT_STREAM]))


def run_expert(
    env, expert: Expert, seed: int, succeeds: environment.SuccessRule
) -> tuple[dict[str, np.ndarray], bool]:
    """One episode: observation [T, D_o], action [T, D_a] (row t acts on row t), and success."""
    observation, _ = env.reset(seed=seed)
    space = env.action_space
    observations, actions, success, over = [], [], False, False
    while not over:
        action = _as_action(expert(observation), space)
        observations.append(observation)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        success |= succeeds(info)
        over = terminated or truncated
    arrays = {
        "observation": np.asarray(observations, np.float32),
        "action": np.asarray(actions, np.float32),
    }
    return arrays, success


def _as_action(given, space) -> np.ndarray:
    """What the expert gave, clipped to the space."""
    try:
        action = np.asarray(given, space.dtype)
    except (TypeError, ValueError) as error:
        raise DiffpolicyError(f"the expert gives no numbers: {given!r}") from error
    if action.shape != space.shape:
        raise DiffpolicyError(f"the expert gives {action.shape}; actions are {space.shape}")
    if not np.isfinite(action).all():
        raise DiffpolicyError(f"the expert gives an action that is not finite: {action}")
    return np.clip(action, space.low, space.high)
