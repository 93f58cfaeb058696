"""What each budget costs: declared, constant, replayed from a file, or measured here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import latency
from diffpolicy.errors import DiffpolicyError
from diffpolicy.latency import LatencyProfile
from diffpolicy.policy import Policy

from .config import Latencies
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


def replay(path: Path, policies: Sequence[Policy]) -> list[LatencyProfile]:
    """The profiles that a file holds for these policies; of several engines the fastest.

    DiffpolicyError where it has none of a budget, or belongs to another network or precision.
    """
    records = _samples_in(path)
    found = []
    for policy in policies:
        mine = [r for r in records if r["network_evals"] == policy.network_evals]
        mine = [r for r in mine if r["parameters"] == policy.parameters]
        mine = [r for r in mine if r.get("precision", "float32") == policy.precision]
        if not mine:
            held = sorted({(r["network_evals"], r["parameters"]) for r in records})
            raise DiffpolicyError(
                f"{path} holds no latencies of {policy.network_evals} evaluations of a network of "
                f"{policy.parameters} parameters in {policy.precision}; it has (evaluations, "
                f"parameters) {held}"
            )
        best = min(mine, key=lambda r: np.median(r["samples_ms"]))
        samples, engine = np.array(best["samples_ms"], float), best["engine"]
        load = best.get("load", "unknown")
        found.append(LatencyProfile(samples, f"replayed, {engine}", engine=engine, load=load))
    return found


def _samples_in(path: Path) -> list[dict[str, Any]]:
    """The records of a result that hold samples, but for a baseline's."""
    try:
        records = json.loads(path.read_text())["records"]
        kept = [r for r in records if r.get("samples_ms") and r["engine"] != "diffusers"]
        for record in kept:
            samples = np.array(record["samples_ms"], float)
            if not (samples.ndim == 1 and np.isfinite(samples).all() and (samples >= 0).all()):
                raise ValueError("latencies must be milliseconds, 0 or more")
            if missing := {"network_evals", "parameters"} - record.keys():
                raise KeyError(", ".join(sorted(missing)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiffpolicyError(
            f"{path} is no latency profile ({type(error).__name__}: {error}); "
            "`diffpolicy latency --json` writes one"
        ) from error
    if not kept:
        raise DiffpolicyError(f"{path} holds no latency samples")
    return kept
