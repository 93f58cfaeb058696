"""Sentences on how a sweep was measured, for its page."""

from collections.abc import Iterator

from ..measure.result_files import SweepResult

CLOCKS = {
    "paused": "Paused: the simulation waits for the policy.",
    "simulated": (
        "Simulated: the simulation goes on while the next chunk is computed. A chunk that arrives "
        "late loses its stale first actions; a tick without any action is starved and applies the "
        "neutral action."
    ),
    "wall": "Wall: control runs in real time, inference in a second thread.",
}


def method_of(result: SweepResult) -> Iterator[str]:
    """One sentence or two on each: episodes, clocks, latency, intervals, recommendation."""
    about = result.provenance
    first, last = about.seeds
    yield (
        f"Each budget ran the episodes of the seeds {first} to {last}. Success: {about.success}, "
        f"score: {about.score_from or 'success'}; the control period is {about.control_dt_s:g} s."
    )
    for clock in dict.fromkeys(row.clock for row in result.rows):
        yield CLOCKS.get(clock, "")
    for source in dict.fromkeys(row.latency_source for row in result.rows):
        samples = max(r.latency_ms.samples for r in result.rows if r.latency_source == source)
        many = f"at most {samples:,} samples of a budget" if samples > 1 else "one for each budget"
        yield f"Latencies of one control step, batch size 1: {source}; {many}."
    yield _intervals(result)
    yield (
        f"Recommended is the smallest budget whose loss of {about.outcome} against every other "
        f"budget is shown to be less than {about.margin:g}. All budgets share one error rate of "
        "5 %."
    )


def _intervals(result: SweepResult) -> str:
    """The rule of the intervals of success and score."""
    if any(row.training_seeds for row in result.rows):
        return (
            "Intervals of 95 % count training seeds and episodes as random, by a bootstrap over "
            "both; those of success are at least as wide as Wilson's."
        )
    return "Intervals of success are Wilson's, those of scores a bootstrap, both of 95 %."
