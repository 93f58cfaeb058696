"""What each budget costs: declared, constant, replayed from a file, or measured here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from diffpolicy.checked import NOT_EMPTY, Range, read_json, validate
from diffpolicy.control import latency
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

from ..config import MILLISECONDS, Latencies
from .timing import measure


def profiles_of(
    policies: Sequence[Policy], config: Latencies, control_dt_s: float, clocks: Sequence[str]
) -> list[LatencyProfile]:
    """One profile for each policy; the wall clock measures its own, and needs none from here."""
    if set(clocks) == {"wall"}:
        return [latency.PAUSED] * len(policies)
    if config.ms_per_step is not None:
        return [latency.declared(config.ms_per_step, policy.network_evals) for policy in policies]
    if config.latency_ms is not None:
        return [latency.constant_ms(config.latency_ms)] * len(policies)
    if config.latency_ticks is not None:
        return [latency.constant_ticks(config.latency_ticks, control_dt_s)] * len(policies)
    if config.latency_from is not None:
        return replay(config.latency_from, policies)
    return measure(policies, config.latency_seconds)


def check_source(policies: Sequence[Policy], config: Latencies) -> None:
    """Whatever is wrong with a file of latencies shows here, before anything is built."""
    if config.latency_from is not None:
        replay(config.latency_from, policies)


ABSENT = {"precision": "float32", "load": "unknown"}  # of files that do not say


@dataclass(frozen=True)
class Result:
    """The part of a result's file that is read here."""

    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Measured:
    """The part of a result's record that can be replayed."""

    network_evals: Annotated[int, Range(1, 10**6)]
    parameters: Annotated[int, Range(1, 10**12)]
    precision: str
    engine: str
    load: Literal["quiet", "disturbed", "unknown"] | None
    samples_ms: Annotated[list[float], MILLISECONDS, NOT_EMPTY]


def replay(path: Path, policies: Sequence[Policy]) -> list[LatencyProfile]:
    """The profiles that a file holds for these policies; of several engines the fastest.

    DiffpolicyError where it has none of a budget, or belongs to another network or precision.
    """
    records = _measured_in(path)
    found = []
    for policy in policies:
        wanted = policy.network_evals, policy.parameters, policy.precision
        mine = [r for r in records if (r.network_evals, r.parameters, r.precision) == wanted]
        if not mine:
            held = sorted({(r.network_evals, r.parameters) for r in records})
            raise DiffpolicyError(
                f"{path} holds no latencies of {policy.network_evals} evaluations of a network of "
                f"{policy.parameters} parameters in {policy.precision}; it has (evaluations, "
                f"parameters) {held}"
            )
        best = min(mine, key=lambda r: np.median(r.samples_ms))
        samples = np.array(best.samples_ms, float)
        source = f"replayed, {best.engine}"
        found.append(LatencyProfile(samples, source, engine=best.engine, load=best.load))
    return found


def _measured_in(path: Path) -> list[Measured]:
    """The records of a result that hold samples, but for a baseline's."""
    try:
        records = validate(Result, read_json(path), str(path), others=True).records
        kept = [
            validate(Measured, {**ABSENT, **r}, f"{path}: a record", others=True)
            for r in records
            if r.get("samples_ms") and r.get("engine") != "diffusers"
        ]
    except (OSError, DiffpolicyError) as error:
        raise DiffpolicyError(
            f"{path} is no latency profile: {error}; `diffpolicy latency --json` writes one"
        ) from error
    if not kept:
        raise DiffpolicyError(f"{path} holds no latency samples")
    return kept
