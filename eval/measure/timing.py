"""Latencies of calls, numpy in, numpy out: warmed up, interleaved in random order, capped in time.

The load of other processes is recorded beside them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from diffpolicy.control.chunk_source import correcting, observed_by
from diffpolicy.control.external import External
from diffpolicy.control.latency import BLOCK, LatencyProfile
from diffpolicy.late.plan import Plan
from diffpolicy.policy import Policy
from diffpolicy.specification import ObservationSpec
from diffpolicy.terminal.progress import progress_bar

from .description import EXTERNAL, Budget
from .load import Block, Watch, descendants, together, verdict

Histories = dict[str, np.ndarray]
WARMUP = 5
WANTED_SAMPLES = 10 * BLOCK  # enough for p99
MANY_SAMPLES = 94 * BLOCK  # enough for p99.9


@dataclass(frozen=True)
class Timed:
    """One budget on one engine, and its input."""

    ddim_steps: int
    network_evals: int | None
    engine: str
    call: Callable[[Histories], Any]
    observation: Histories
    max_abs_diff: float | None = None  # from the eager engine; None for diffusers' loop
    gpu_ms: float | None = None  # time on the GPU alone, if the engine measures it
    threads: int | None = None  # of torch; None for its current number
    encode: Callable[[Histories], Any] | None = None  # the part of the call before the loop
    gradient_evals: int | None = None  # None for a policy of others
    head: Callable[[Histories], Any] | None = None  # corrects one action, apart from the call


def measure(
    policies: Sequence[Budget], seconds: float, seed: int = 0, first: Histories | None = None
) -> list[LatencyProfile]:
    """One profile for each policy, by `measure_parts`; first: input of policies of others."""
    rng = np.random.default_rng(seed)
    timed = [
        timed_external(policy, first or {}, rng)
        if isinstance(policy, External)
        else timed_policy(policy, random_observation(policy, rng))
        for policy in policies
    ]
    others = any(isinstance(policy, External) for policy in policies)
    return measure_parts(timed, seconds, seed, ours=descendants() if others else ())


def timed_external(policy: External, first: Histories, rng: np.random.Generator) -> Timed:
    """The calls of a policy of others; its input is the newest value of each history, repeated.

    first: histories {key: [1, T_o, …]}, perhaps of another T_o.
    """
    length, seen = policy.horizons.observation, observed_by(policy, first)
    given = {key: np.repeat(values[:, -1:], length, axis=1) for key, values in seen.items()}
    shape = policy.noise_shape(1)

    def call(observation: Histories) -> np.ndarray:
        return policy(observation, rng.standard_normal(shape, np.float32))

    return Timed(policy.steps, None, EXTERNAL, call, given)


def timed_policy(policy: Policy, observation: Histories, **facts: Any) -> Timed:
    """The calls of a policy; facts: further fields."""
    encode = policy.encode if policy.job().pictures else None
    names = policy.ddim_steps, policy.network_evals, policy.engine().name
    facts |= {"encode": encode, "gradient_evals": policy.gradient_evals, "head": head_of(policy)}
    return Timed(*names, planned(policy), observation, **facts)


def planned(policy: Policy) -> Callable[[Histories], Any]:
    """The calls of a policy, with a plan if its strategy depends on one: that of a steady state.

    The chunk in use has T_a actions less than a new one, and the next is expected after one tick.
    """
    if not policy.late.plans:
        return policy
    horizons, ticks = policy.horizons, policy.late.action_horizon(policy.horizons.action)
    actions = np.zeros((horizons.prediction, policy.task.action_dim), np.float32)
    known = policy.action_normalizer.unnormalize(actions)
    left = max(1, horizons.usable - ticks)
    plan = Plan(known[: horizons.observation - 1], known[:left], 1)
    return lambda observation: policy(observation, None, [plan])


def head_of(policy: Policy) -> Callable[[Histories], Any] | None:
    """Calls of the head that corrects the policy's actions, for the first one of a chunk."""
    if (head := correcting(policy)) is None:
        return None
    action, row = np.zeros((1, policy.task.action_dim), np.float32), np.zeros(1, np.int64)
    return lambda observation: head.correct(observation, action, row)


def measure_parts(
    timed: Sequence[Timed],
    seconds: float,
    seed: int = 0,
    wanted: int = WANTED_SAMPLES,
    ours: Sequence[int] = (),
) -> list[LatencyProfile]:
    """Profiles by `measure_calls`, with the medians of parts, which take turns with the calls.

    Budgets share the encoder and the head of their engine and number of threads; their load is that
    of all three.
    """
    parts = _parts(timed)
    profiles = measure_calls([*timed, *parts.values()], seconds, seed, wanted, ours)
    found = dict(zip(parts, profiles[len(timed) :], strict=True))
    return [
        _with_parts(profile, {k[0]: p for k, p in found.items() if k[1:] == (t.engine, t.threads)})
        for t, profile in zip(timed, profiles, strict=False)
    ]


def _parts(timed: Sequence[Timed]) -> dict[tuple[str, str, int | None], Timed]:
    """Encoders and heads alone, by the field of their median, their engine and threads."""
    found = {}
    for t in timed:
        if t.encode:
            call = partial(_encode, t.encode)
            found["encoder_ms", t.engine, t.threads] = replace(t, call=call)
        if t.head:
            found["head_ms", t.engine, t.threads] = replace(t, call=t.head)
    return found


def _encode(encode: Callable[[Histories], Any], observation: Histories) -> Any:
    return encode(observation).cpu()


def _with_parts(profile: LatencyProfile, parts: dict[str, LatencyProfile]) -> LatencyProfile:
    if not parts:
        return profile
    load = together([profile.load, *(part.load for part in parts.values())])
    medians = {name: float(np.median(part.samples_ms)) for name, part in parts.items()}
    return replace(profile, load=load, **medians)


def measure_calls(
    timed: Sequence[Timed],
    seconds: float,
    seed: int = 0,
    wanted: int = WANTED_SAMPLES,
    ours: Sequence[int] = (),
) -> list[LatencyProfile]:
    """Measure up to `wanted` samples of each call, for at most `seconds` each.

    Calls take turns in random order, a block of consecutive calls at a time. Blocks disturbed by
    other processes are repeated once, while there is time. ours: processes that belong to the
    measurement.
    """
    rng = np.random.default_rng(seed)
    taken: list[list[Block]] = [[] for _ in timed]
    watch = Watch(ours)

    def unfinished() -> list[int]:
        return [i for i, blocks in enumerate(taken) if _unfinished(blocks, seconds, wanted)]

    total = len(timed) * wanted
    about = {"desc": "latency", "unit": "call"}
    with _threads_kept() as threads, progress_bar(total=total, **about) as bar:
        _warm_up(timed, threads, watch)
        while open_ := unfinished():
            for i in rng.permutation(open_):
                _use_threads(timed[i], threads)
                taken[i].append(_take(timed[i], 1000 * seconds - _spent_ms(taken[i])))
                bar.total = sum(_expected(blocks, seconds, wanted) for blocks in taken)
                bar.update(len(taken[i][-1].samples_ms))
                watch.add(taken[i][-1])
            if not unfinished():
                watch.finish()
        bar.refresh()
    profiles = [_profile(t, blocks, wanted) for t, blocks in zip(timed, taken, strict=True)]
    if any(profile.disturbed for profile in profiles):
        print(f"warning: {watch.sentence()}, so these latencies are disturbed")
    return profiles


def _unfinished(blocks: Sequence[Block], seconds: float, wanted: int) -> bool:
    quiet = sum(len(b.samples_ms) for b in blocks if not b.disturbed)
    in_all = sum(len(b.samples_ms) for b in blocks)
    timely = not blocks or _spent_ms(blocks) < 1000 * seconds
    return timely and quiet < wanted and in_all < 2 * wanted


def _expected(blocks: Sequence[Block], seconds: float, wanted: int) -> int:
    """Number of samples that a call will have taken, if it goes on as it has begun."""
    count = sum(len(b.samples_ms) for b in blocks)
    if not blocks or not _unfinished(blocks, seconds, wanted):
        return count or wanted
    in_time = round(count * 1000 * seconds / _spent_ms(blocks))
    return max(count, min(wanted, in_time))


def _spent_ms(blocks: Sequence[Block]) -> float:
    return sum(b.total_ms for b in blocks)


def _warm_up(timed: Sequence[Timed], threads: int, watch: Watch) -> None:
    """Call each a few times, and for at least one window of the load counters."""
    rounds = 0
    while rounds < WARMUP or not watch.long_enough():
        for t in timed:
            _use_threads(t, threads)
            t.call(t.observation)
        rounds += 1


def _take(timed: Timed, left_ms: float) -> Block:
    """Take BLOCK samples, fewer if the time is over, but at least one."""
    samples = [_time_ms(timed)]
    while len(samples) < BLOCK and sum(samples) < left_ms:
        samples.append(_time_ms(timed))
    return Block(samples)


def _profile(timed: Timed, blocks: Sequence[Block], wanted: int) -> LatencyProfile:
    """Profile of the quiet blocks if they are at least half; else of all, marked disturbed."""
    quiet = [b for b in blocks if not b.disturbed]
    kept = quiet if 2 * len(quiet) >= len(blocks) else blocks
    samples = [ms for b in kept for ms in b.samples_ms][:wanted]
    load = verdict([b.load for b in kept])
    return LatencyProfile(np.array(samples), "measured", engine=timed.engine, load=load)


@contextmanager
def _threads_kept() -> Iterator[int]:
    """Yield torch's number of threads, and restore it in the end."""
    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _use_threads(timed: Timed, threads: int) -> None:
    """Set the call's number of threads; an uncounted call starts them."""
    wanted = timed.threads or threads
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
        timed.call(timed.observation)


def random_observation(policy: Policy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Histories {key: [1, T_o, …]}: standard normal vectors, pictures of uniform noise."""

    def draw(spec: ObservationSpec) -> np.ndarray:
        shape = (1, policy.horizons.observation, *spec.shape)
        if spec.is_picture:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape, np.float32)

    return {key: draw(spec) for key, spec in policy.observations.items()}


def _time_ms(timed: Timed) -> float:
    """Time of one call, its noise included; a numpy result means that the device has finished."""
    begin = time.perf_counter_ns()
    timed.call(timed.observation)
    return (time.perf_counter_ns() - begin) / 1e6
