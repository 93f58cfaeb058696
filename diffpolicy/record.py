"""`diffpolicy record`: run an expert and store its successful episodes."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.config import RecordConfig
from diffpolicy.data.attributes import StoreAttributes
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.environment.boundary import describe_error
from diffpolicy.environment.outcome import Outcome, new_outcome
from diffpolicy.environment.pictures import without_camera
from diffpolicy.environment.recording import Recording
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.progress import progress_bar

EXPERT_STREAM = 0xE4  # apart from the environment's own stream of the same seed
TRIES_WITHOUT_SUCCESS = 50  # consecutive failures after which recording stops

Expert = Callable[[Any], np.ndarray]


def record(config: RecordConfig) -> None:
    """Fill the store up to --episodes successes; continue where an earlier call stopped.

    Episode seeds count up from --seed, and a kept episode stores its own, so the store after a
    crash and a second call equals that of one call.
    """
    if config.teleop and config.policy:
        raise DiffpolicyError("--teleop and --policy are two experts; give one of them")
    kwargs = environment.parse_kwargs(config.env_kwargs)
    shown = "rgb_array" if config.teleop else None
    env = environment.make(config.env, kwargs, config.max_steps, shown, config.camera)
    try:
        environment.check_usable(env, None)
        environment.episode_limit(env)
        new_outcome(env, config.success_from, config.success)
        fill = _filler(env, config)
        attributes = StoreAttributes(
            env_id=config.env,
            env_kwargs=kwargs,
            control_dt_s=environment.control_dt_s(env, config.control_dt),
            position_targets=bool(environment.declared(env, "position_targets")),
            observation_keys=list(env.observation_keys or ()) or None,
            expert="a person" if config.teleop else config.policy or "the environment's expert",
            success_from=config.success_from,
            success=None if config.success == "at-any-tick" else config.success,
            max_steps=config.max_steps,
            first_seed=config.seed,
            camera=config.camera,
        )
        with closing(DemonstrationWriter(config.out, asdict(attributes))) as writer:
            before = len(writer.seeds)
            tried = fill(writer)
    finally:
        env.close()
    kept = len(writer.seeds)
    if not config.teleop and before >= config.episodes:
        print(f"{config.out} holds {before} episodes already; none was recorded")
        return
    print(f"{config.out}: {kept} episodes kept, {tried - kept} of {tried} tried were dropped")


def _filler(env: Any, config: RecordConfig) -> Callable[[DemonstrationWriter], int]:
    """The function that fills a store and returns the number of seeds tried."""
    if not config.teleop:
        make_expert = expert_maker(env, config.policy, config.camera is not None)
        return lambda writer: _fill(env, make_expert, writer, config)
    from diffpolicy.teleop.by_hand import check_drivable, record_by_hand

    check_drivable(env)

    def outcome() -> Outcome:
        return new_outcome(env, config.success_from, config.success)

    dt_s = environment.control_dt_s(env, config.control_dt)
    return lambda writer: record_by_hand(env, writer, outcome, config.episodes, config.seed, dt_s)


def _fill(
    env,
    make_expert: Callable[[int], Expert],
    writer: DemonstrationWriter,
    config: RecordConfig,
) -> int:
    """Record until the store is full; return the number of seeds tried."""
    seed = writer.next_seed(config.seed)
    failures = 0
    with progress_bar(
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
    return writer.next_seed(config.seed) - config.seed


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


def run_expert(env: Any, expert: Expert, seed: int, outcome: Outcome) -> Demonstration:
    """One episode, as `Recording` stores it; the expert may change the observations it is given."""
    recording = Recording(env, seed, outcome)
    while not recording.over:
        recording.step(_asked(expert, recording.observation, recording.when))
    return recording.demonstration()


def _asked(expert: Callable[[Any], Any], question: Any, when: str) -> Any:
    """The expert's answer; DiffpolicyError for everything that it raises."""
    try:
        return expert(question)
    except DiffpolicyError:
        raise
    except Exception as error:
        raise DiffpolicyError(f"the expert failed at {when}: {describe_error(error)}") from error
