"""How long an inference takes in a simulated world: a profile of measured or declared latencies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 32  # consecutive samples that are drawn together: bursts matter


@dataclass(frozen=True)
class LatencyProfile:
    """samples_ms [S] in the order of measurement, and where they come from."""

    samples_ms: np.ndarray
    source: str
    exact: bool = False  # declared, not sampled: its percentiles are known

    def delays(self, seed: int, control_dt_s: float) -> Iterator[int]:
        """Endless delays in ticks, drawn in contiguous blocks; one seed gives one sequence."""
        rng = np.random.default_rng([seed, 0x1A7E])
        while True:
            start = int(rng.integers(len(self.samples_ms)))
            for i in range(BLOCK):
                latency_ms = self.samples_ms[(start + i) % len(self.samples_ms)]
                yield delay_ticks(float(latency_ms), control_dt_s)


PAUSED = LatencyProfile(np.zeros(1), "the world waits")


def delay_ticks(latency_ms: float, control_dt_s: float) -> int:
    """⌈ℓ/dt⌉, forgiving the last bits of ℓ/dt (2 ms a step · 10 steps is one tick of 20 ms)."""
    return math.ceil(latency_ms / (1000 * control_dt_s) - 1e-9)


def declared(ms_per_step: float, network_evals: int) -> LatencyProfile:
    """A synthetic robot with a constant cost for each network evaluation."""
    source = f"declared, {ms_per_step:g} ms a step"
    return LatencyProfile(np.full(1, ms_per_step * network_evals), source, exact=True)


def percentiles(profile: LatencyProfile) -> dict[str, float | int | None]:
    """p50, p90, p99, max and the count; p99 only from 299 samples on (else None).

    299 is where the 99th percentile lies below the largest sample with 95 % confidence:
    1 - 0.99^299 > 0.95.
    """
    samples_ms = profile.samples_ms
    p50, p90, p99 = np.percentile(samples_ms, [50, 90, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99) if len(samples_ms) >= 299 or profile.exact else None,
        "max": float(samples_ms.max()),
        "samples": len(samples_ms),
    }
