"""Rows of a result: one budget on one clock, made from its episodes."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from diffpolicy.checked import validate
from diffpolicy.control.latency import LatencyProfile, percentiles
from diffpolicy.control.ranges import far_outside, training_range

from ..significance import mean_interval, wilson
from .description import Budget, describe
from .results import BudgetResult, FarObservation, Outcomes, Percentiles
from .tally import Tally, mean_of, median_of


def make_row(
    policy: Budget,
    clock: str,
    profile: LatencyProfile,
    tally: Tally,
    control_dt_s: float,
    engine: str,
) -> BudgetResult:
    """One budget on one clock; engine: the one that ran the episodes."""
    count, successes, scores = len(tally.seeds), int(tally.success.sum()), _scores(tally)
    age, about = median_of(tally.ages), describe(policy)
    return BudgetResult(
        name=about.name,
        run=about.run,
        policy=about.policy,
        ddim_steps=about.ddim_steps,
        network_evals=about.network_evals,
        gradient_evals=about.gradient_evals,
        late=about.late,
        parameters=about.parameters,
        trained=about.trained,
        variant=about.variant,
        audit=about.audit,
        eta=about.eta,
        clock=clock,
        latency_source=profile.source,
        engine=engine,
        latency_engine=profile.engine,
        load=profile.load,
        episodes=count,
        successes=successes,
        success_rate=successes / count,
        success_ci=wilson(successes, count),
        score_mean=float(scores.mean()),
        score_ci=mean_interval(scores),
        latency_ms=percentiles_of(profile),
        encoder_ms=profile.encoder_ms,
        delay_ticks=mean_of(tally.delays) or 0.0,
        delay_error=mean_of(tally.early),
        prefix_miss_share=_share(tally.early, lambda early: early < 0),
        deadline_misses=sum(times for delay, times in tally.delays.items() if delay > 1),
        starved_ticks=tally.starved_ticks,
        action_age_ms_p50=None if age is None else age * 1000 * control_dt_s,
        replans=tally.replans,
        seam_jump=_mean(tally.numbers("seam_jumps")),
        seam_jerk=_mean(tally.numbers("seam_jerks")),
        failures=[tally.failures[place] for place in sorted(tally.failures)],
        far_observations=_far_observations(policy, tally),
        outcomes=Outcomes(
            success=tally.success.astype(int).tolist(),
            score=[round(score, 6) for score in scores.tolist()],
            success_tick=tally.success_tick,
        ),
    )


def wall_row(row: BudgetResult, policy: Budget, tally: Tally) -> BudgetResult:
    """The row with the timing of the wall clock, whose samples can be replayed."""
    about = describe(policy)
    late_ms = tally.numbers("late_ms") if tally.numbers("late_ms").size else np.zeros(1)
    return replace(
        row,
        tick_late_ms={"p50": float(np.median(late_ms)), "max": float(late_ms.max())},
        missed_ticks=tally.missed_ticks,
        evaluations_mean=mean_of(tally.evaluations),
        precision=about.precision,
        cameras=about.cameras,
        crop=about.crop,
        samples_ms=np.round(tally.numbers("latency_ms"), 5).tolist(),
    )


def percentiles_of(profile: LatencyProfile) -> Percentiles:
    """The percentiles that the samples support."""
    found = {name.replace(".", "_"): ms for name, ms in percentiles(profile).items()}
    return validate(Percentiles, found, "percentiles")


def _scores(tally: Tally) -> np.ndarray:
    """Scores [E]; a failed episode has the lowest one, and at most 0: its end gains nothing."""
    scores = tally.score.copy()
    scores[list(tally.failures)] = min(0.0, float(scores.min()))
    return scores


def _far_observations(policy: Budget, tally: Tally) -> list[FarObservation]:
    found = far_outside([tally], training_range(policy))
    return validate(list[FarObservation], found, "far observations", others=True)


def _share(counts: Mapping[int, int], fits: Callable[[int], bool]) -> float | None:
    """Share of the numbers that fit; None for none."""
    found = sum(times for value, times in counts.items() if fits(value))
    return found / sum(counts.values()) if counts else None


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if values.size else None
