"""Latency profile of each budget: declared, constant, replayed from a file, or measured here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffpolicy.control import latency
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

from ..config import Latencies
from .result_files import Samples, read_samples
from .results import Cameras
from .rows import seen_by
from .timing import measure


def profiles_of(
    policies: Sequence[Policy], config: Latencies, control_dt_s: float, clocks: Sequence[str]
) -> list[LatencyProfile]:
    """One profile for each policy; zero on the wall clock, which measures its own."""
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
    """Check a file of latencies before anything is built. Raises DiffpolicyError."""
    if config.latency_from is not None:
        replay(config.latency_from, policies)


def replay(path: Path, policies: Sequence[Policy]) -> list[LatencyProfile]:
    """Profiles that a file holds for these policies; of several engines the fastest.

    Raises DiffpolicyError if a budget is absent, or the network, precision or pictures differ.
    """
    rows = read_samples(path)
    found = []
    for policy in policies:
        mine = _rows_of(policy, rows, path)
        best = min(mine, key=lambda r: np.median(r.samples_ms))
        samples = np.array(best.samples_ms, float)
        source = f"replayed, {best.engine}"
        about = {"engine": best.engine, "load": best.load, "encoder_ms": best.encoder_ms}
        found.append(LatencyProfile(samples, source, **about))
    return found


def _rows_of(policy: Policy, rows: Sequence[Samples], path: Path) -> list[Samples]:
    """The rows of this budget, network, precision and pictures, at least one."""
    wanted = policy.network_evals, policy.parameters, policy.precision
    mine = [r for r in rows if (r.network_evals, r.parameters, r.precision) == wanted]
    if not mine:
        held = sorted({(r.network_evals, r.parameters) for r in rows})
        raise DiffpolicyError(
            f"{path} holds no latencies of {policy.network_evals} evaluations of a network of "
            f"{policy.parameters} parameters in {policy.precision}; it has (evaluations, "
            f"parameters) {held}"
        )
    seen = _pictures(**seen_by(policy.specification))
    alike = [r for r in mine if _pictures(r.cameras, r.crop) == seen]
    if not alike:
        held = " or ".join(sorted({_pictures(r.cameras, r.crop) for r in mine}))
        raise DiffpolicyError(
            f"{path} holds latencies of this network with {held}; expected {seen}; measure them "
            "with `diffpolicy latency --run RUN --json FILE`"
        )
    return alike


def _pictures(cameras: Cameras | None = None, crop: float | None = None) -> str:
    """Pictures in a message; equal for equal ones."""
    if cameras is None:
        return "no pictures"
    shapes = ", ".join(f"{key} {cameras[key]}" for key in sorted(cameras))
    return f"pictures {shapes} at --crop {crop}"
