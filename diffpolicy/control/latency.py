"""Latency profiles, measured or declared, and the delays in ticks drawn from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 32  # consecutive samples that are measured, and drawn, together: bursts matter
LATENCY_STREAM = 0x1A7E  # apart from the environment's own stream of the same seed


@dataclass(frozen=True)
class LatencyProfile:
    """samples_ms [S] in the order of measurement, and their source."""

    samples_ms: np.ndarray
    source: str
    exact: bool = False  # declared, not sampled: its percentiles are known
    engine: str | None = None  # that was measured, if one was
    load: str | None = None  # of other processes at that time: quiet, disturbed or unknown
    encoder_ms: float | None = None  # median of the part before the denoising loop, for pictures
    head_ms: float | None = None  # median of the head that corrects one action, at every tick

    def delays(self, seed: int, control_dt_s: float) -> Iterator[int]:
        """Endless delays in ticks, drawn in contiguous blocks; one seed gives one sequence."""
        rng = np.random.default_rng([seed, 0, LATENCY_STREAM])
        while True:
            start = BLOCK * int(rng.integers(math.ceil(len(self.samples_ms) / BLOCK)))
            for latency_ms in self.samples_ms[start : start + BLOCK]:
                yield delay_ticks(float(latency_ms), control_dt_s)

    def first_delay(self, control_dt_s: float) -> int:
        """Ticks to expect before any delay has passed: those of a slow inference (p99)."""
        return delay_ticks(slow_ms(self), control_dt_s)

    @property
    def disturbed(self) -> bool:
        """True if other processes disturbed the measurement."""
        return self.load == "disturbed"


PAUSED = LatencyProfile(np.zeros(1), "zero latency")


def delay_ticks(latency_ms: float, control_dt_s: float) -> int:
    """⌈ℓ/dt⌉ up to rounding of ℓ/dt (2 ms a step · 10 steps is one tick of 20 ms)."""
    return math.ceil(latency_ms / (1000 * control_dt_s) - 1e-9)


def declared(ms_per_step: float, network_evals: int) -> LatencyProfile:
    """A synthetic robot with a constant cost for each network evaluation."""
    source = f"declared, {ms_per_step:g} ms a step"
    return LatencyProfile(np.full(1, ms_per_step * network_evals), source, exact=True)


def constant_ms(latency_ms: float) -> LatencyProfile:
    """Every chunk takes this long at every budget."""
    return LatencyProfile(np.full(1, latency_ms), f"constant, {latency_ms:g} ms", exact=True)


def constant_ticks(ticks: int, control_dt_s: float) -> LatencyProfile:
    """Every chunk arrives this many control ticks late at every budget."""
    late_ms = ticks * 1000 * control_dt_s
    return LatencyProfile(np.full(1, late_ms), f"constant, {ticks} ticks", exact=True)


def random_ticks(low: int, high: int, control_dt_s: float) -> LatencyProfile:
    """Every chunk arrives late by a number of ticks drawn uniformly from low to high."""
    ticks = np.random.default_rng([LATENCY_STREAM]).integers(low, high + 1, 64 * BLOCK)
    source = f"random, {low} to {high} ticks"
    return LatencyProfile(ticks * 1000 * control_dt_s, source, exact=True)


def percentiles(profile: LatencyProfile) -> dict[str, float | int | None]:
    """p50, p90, p99, p99.9, max, jitter (p99 - p50) and the count.

    p90 needs 29 samples, p99 299, p99.9 2,995 (else None): with so many the percentile
    lies below the largest sample with 95 % confidence, 1 - 0.9^29 > 0.95 and so on.
    """
    samples_ms = profile.samples_ms

    def supported(percent: float, fewest: int) -> float | None:
        enough = len(samples_ms) >= fewest or profile.exact
        return float(np.percentile(samples_ms, percent)) if enough else None

    p50, p99 = float(np.median(samples_ms)), supported(99, 299)
    return {
        "p50": p50,
        "p90": supported(90, 29),
        "p99": p99,
        "p99.9": supported(99.9, 2995),
        "max": float(samples_ms.max()),
        "jitter": None if p99 is None else p99 - p50,
        "samples": len(samples_ms),
    }


def slow_ms(profile: LatencyProfile) -> float:
    """Latency that a deadline must allow for: p99, or the largest sample if there are too few."""
    p99 = percentiles(profile)["p99"]
    return float(profile.samples_ms.max()) if p99 is None else float(p99)
