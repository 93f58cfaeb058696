"""Latency of one control step as a robot pays it: numpy observation in, numpy actions out, batch 1.

Budgets are measured interleaved, in random order, after a warm-up, with a cap on the time.
"""

import json
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import LatencyConfig, Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.latency import BLOCK, LatencyProfile, percentiles
from diffpolicy.policy import Policy

from .header import header, set_threads
from .table import print_table

WARMUP = 5
WANTED_SAMPLES = 10 * BLOCK  # enough for p99


def latency(config: LatencyConfig) -> None:
    """`diffpolicy latency`: a table, and JSON on request."""
    set_threads(config.threads)
    if config.json:
        check_writable(config.json)
    if not config.ddim_steps:
        raise DiffpolicyError("--ddim-steps needs at least one budget")
    checkpoint = load_policy(config.run)
    policies = [Policy(checkpoint, Sampling(k), config.device) for k in config.ddim_steps]
    profiles = measure(policies, config.seconds, config.seed)
    records = [
        {
            "ddim_steps": policy.ddim_steps,
            "network_evals": policy.network_evals,
            "engine": policy.engine.name,
            "latency_ms": percentiles(profile),
        }
        for policy, profile in zip(policies, profiles, strict=True)
    ]
    print_table(
        ["steps", "p50 ms", "p90", "p99", "max", "samples"],
        [[r["ddim_steps"], *r["latency_ms"].values()] for r in records],
    )
    if config.json:
        result = {"header": header(policies[0].device), "records": records}
        write_text(config.json, json.dumps(result, indent=2))


def measure(policies: Sequence[Policy], seconds: float, seed: int = 0) -> list[LatencyProfile]:
    """One profile for each policy: up to 320 samples, or `seconds` of measuring each.

    Budgets take turns in random order, a block of consecutive calls at a time.
    """
    rng = np.random.default_rng(seed)
    samples: list[list[float]] = [[] for _ in policies]
    observations = [_observation(policy, rng) for policy in policies]
    for policy, observation in zip(policies, observations, strict=True):
        for _ in range(WARMUP):
            policy(observation)
    with tqdm(total=len(policies) * WANTED_SAMPLES, desc="latency", unit="call") as bar:
        while open_ := [i for i, s in enumerate(samples) if _unfinished(s, seconds)]:
            for i in rng.permutation(open_):
                for _ in range(BLOCK):
                    if _unfinished(samples[i], seconds):
                        samples[i].append(_time_ms(policies[i], observations[i]))
                        bar.update(1)
    return [LatencyProfile(np.array(s), "measured") for s in samples]


def _unfinished(samples_ms: list[float], seconds: float) -> bool:
    return not samples_ms or (len(samples_ms) < WANTED_SAMPLES and sum(samples_ms) < 1000 * seconds)


def _observation(policy: Policy, rng: np.random.Generator) -> np.ndarray:
    shape = (1, policy.horizons.observation, policy.task.observation_dim)
    return rng.standard_normal(shape, np.float32)


def _time_ms(policy: Policy, observation: np.ndarray) -> float:
    """The noise is drawn inside, as on a robot; the result is numpy, so the device is done."""
    begin = time.perf_counter_ns()
    policy(observation)
    return (time.perf_counter_ns() - begin) / 1e6
