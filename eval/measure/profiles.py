"""Latency profile of each budget: declared, constant, replayed from a file, or measured here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffpolicy.control import latency
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.output import counted

from ..config import Latencies
from .description import Budget, Description, describe
from .results import Cameras
from .samples import NetworkSamples, PolicySamples, Samples, read_samples
from .timing import Histories, measure


def profiles_of(
    policies: Sequence[Budget],
    config: Latencies,
    control_dt_s: float,
    clocks: Sequence[str],
    first: Histories | None = None,
) -> list[LatencyProfile]:
    """One profile for each policy; zero on the wall clock, which measures its own.

    first: histories with which policies of others are measured.
    """
    if set(clocks) == {"wall"}:
        return [latency.PAUSED] * len(policies)
    if config.ms_per_step is not None:
        return [latency.declared(config.ms_per_step, describe(p).cost) for p in policies]
    if config.latency_ms is not None:
        return [latency.constant_ms(config.latency_ms)] * len(policies)
    if config.latency_ticks is not None:
        return [latency.constant_ticks(config.latency_ticks, control_dt_s)] * len(policies)
    if config.latency_from is not None:
        return replay(config.latency_from, policies)
    return measure(policies, config.latency_seconds, first=first)


def check_source(policies: Sequence[Budget], config: Latencies) -> None:
    """Check a file of latencies before anything is built. Raises DiffpolicyError."""
    if config.latency_from is not None:
        replay(config.latency_from, policies)


def replay(path: Path, policies: Sequence[Budget]) -> list[LatencyProfile]:
    """Profiles that a file holds for these policies; of several engines the fastest.

    Raises DiffpolicyError if a budget is absent, or the network, precision or pictures differ.
    """
    rows = read_samples(path)
    found = []
    for policy in policies:
        mine = _rows_of(describe(policy), rows, path)
        best = min(mine, key=lambda r: np.median(r.samples_ms))
        samples = np.array(best.samples_ms, float)
        source = f"replayed, {best.engine}"
        about = {"engine": best.engine, "load": best.load, "encoder_ms": best.encoder_ms}
        found.append(LatencyProfile(samples, source, **about))
    return found


def _rows_of(about: Description, rows: Sequence[Samples], path: Path) -> Sequence[Samples]:
    """The rows of this budget, at least one."""
    return _of_others(about, rows, path) if about.policy else _of_run(about, rows, path)


def _of_others(about: Description, rows: Sequence[Samples], path: Path) -> Sequence[Samples]:
    """The rows of this module:factory and number of steps."""
    known = [r for r in rows if isinstance(r, PolicySamples)]
    mine = [r for r in known if (r.policy, r.ddim_steps) == (about.policy, about.ddim_steps)]
    if not mine:
        wanted = f"{about.policy} at {counted(about.ddim_steps, 'step')}"
        pairs = sorted({(r.policy, r.ddim_steps) for r in known})
        held = ", ".join(f"{name} at {counted(steps, 'step')}" for name, steps in pairs)
        raise DiffpolicyError(
            f"{path} holds no latencies of {wanted}; it has {held or 'those of runs alone'}; "
            "measure this budget with `diffpolicy latency --policy`"
        )
    return mine


def _of_run(about: Description, rows: Sequence[Samples], path: Path) -> Sequence[Samples]:
    """The rows of this budget, network, precision and pictures."""
    known = [r for r in rows if isinstance(r, NetworkSamples)]
    network = about.parameters, about.precision
    of_network = [r for r in known if (r.parameters, r.precision) == network]
    mine = [r for r in of_network if r.evals == (about.network_evals, about.gradient_evals)]
    if not mine:
        wanted = _evaluations(about.network_evals, about.gradient_evals)
        held = ", ".join(_evaluations(*evals) for evals in sorted({r.evals for r in of_network}))
        others = sorted({f"{r.parameters} parameters in {r.precision}" for r in known})
        raise DiffpolicyError(
            f"{path} holds no latencies of {wanted} of a network of {about.parameters} parameters "
            f"in {about.precision}; it has {held or ', '.join(others) or 'other policies alone'}; "
            "measure this budget with `diffpolicy latency`, or leave it out (DDPM: --no-ddpm)"
        )
    seen = _pictures(about.cameras, about.crop)
    alike = [r for r in mine if _pictures(r.cameras, r.crop) == seen]
    if not alike:
        held = " or ".join(sorted({_pictures(r.cameras, r.crop) for r in mine}))
        raise DiffpolicyError(
            f"{path} holds latencies of this network with {held}; expected {seen}; measure them "
            "with `diffpolicy latency --run RUN --json FILE`"
        )
    return alike


def _evaluations(evals: int | None, gradients: int | None) -> str:
    """Evaluations and gradients of a chunk in a message."""
    found = counted(evals or 0, "evaluation")
    return f"{found} and {counted(gradients, 'gradient')}" if gradients else found


def _pictures(cameras: Cameras | None, crop: float | None) -> str:
    """Pictures in a message; equal for equal ones."""
    if cameras is None:
        return "no pictures"
    shapes = ", ".join(f"{key} {cameras[key]}" for key in sorted(cameras))
    return f"pictures {shapes} at --crop {crop}"
