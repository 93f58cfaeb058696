"""Statistics of a controller's episode."""

from dataclasses import dataclass

import numpy as np

from diffpolicy.control.latency import LatencyProfile, percentiles


@dataclass(frozen=True)
class Statistics:
    """One episode so far.

    ages: ticks since its observation, of each action of a chunk. delay_ticks, expected_ticks: of
    each chunk but one that was waited for. latency_ms: of each inference but that one. late_ms: of
    each call but the first. missed_ticks: whole control periods that passed without a call.
    """

    ticks: int
    starved_ticks: int
    missed_ticks: int
    ages: tuple[int, ...]
    delay_ticks: tuple[int, ...]
    latency_ms: tuple[float, ...]
    late_ms: tuple[float, ...]
    expected_ticks: tuple[int, ...]

    def latency_percentiles(self) -> dict[str, float | int | None] | None:
        """p50, p90, p99, p99.9, max and jitter in ms (`latency.percentiles`); None without any."""
        samples = np.array(self.latency_ms)
        return percentiles(LatencyProfile(samples, "controller")) if len(samples) else None
