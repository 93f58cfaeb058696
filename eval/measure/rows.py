"""Rows of a result: one budget on one clock, made from its episodes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffpolicy.checked import validate
from diffpolicy.control.episode import Episode
from diffpolicy.control.latency import LatencyProfile, percentiles
from diffpolicy.control.ranges import far_outside, training_range

from ..significance import mean_interval, wilson
from .description import Budget, describe
from .results import BudgetResult, FarObservation, Outcomes, Percentiles


def make_row(
    policy: Budget,
    clock: str,
    profile: LatencyProfile,
    episodes: Sequence[Episode],
    control_dt_s: float,
    engine: str,
) -> BudgetResult:
    """One budget on one clock; engine: the one that ran the episodes."""
    successes, scores = sum(e.success for e in episodes), _scores(episodes)
    ages = [age for e in episodes for age in e.ages]
    delays = [delay for e in episodes for delay in e.delay_ticks]
    early = [x - d for e in episodes for d, x in zip(e.delay_ticks, e.expected_ticks, strict=True)]
    about = describe(policy)
    return BudgetResult(
        name=about.name,
        run=about.run,
        policy=about.policy,
        ddim_steps=about.ddim_steps,
        network_evals=about.network_evals,
        gradient_evals=about.gradient_evals,
        late=about.late,
        trained=about.trained,
        variant=about.variant,
        audit=about.audit,
        eta=about.eta,
        clock=clock,
        latency_source=profile.source,
        engine=engine,
        latency_engine=profile.engine,
        load=profile.load,
        episodes=len(episodes),
        successes=successes,
        success_rate=successes / len(episodes),
        success_ci=wilson(successes, len(episodes)),
        score_mean=float(scores.mean()),
        score_ci=mean_interval(scores),
        latency_ms=percentiles_of(profile),
        encoder_ms=profile.encoder_ms,
        delay_ticks=float(np.mean(delays)) if delays else 0.0,
        delay_error=_mean(early),
        prefix_miss_share=_mean([difference < 0 for difference in early]),
        deadline_misses=sum(delay > 1 for delay in delays),
        starved_ticks=sum(e.starved_ticks for e in episodes),
        action_age_ms_p50=float(np.median(ages)) * 1000 * control_dt_s if ages else None,
        replans=sum(e.replans for e in episodes),
        seam_jump=_mean([jump for e in episodes for jump in e.seam_jumps]),
        seam_jerk=_mean([jerk for e in episodes for jerk in e.seam_jerks]),
        failures=[e.failure for e in episodes if e.failure],
        far_observations=_far_observations(policy, episodes),
        outcomes=Outcomes(
            success=[int(e.success) for e in episodes],
            score=[round(float(score), 6) for score in scores],
            success_tick=[e.success_tick for e in episodes],
        ),
    )


def wall_row(row: BudgetResult, policy: Budget, episodes: Sequence[Episode]) -> BudgetResult:
    """The row with the timing of the wall clock, whose samples can be replayed."""
    about = describe(policy)
    late_ms = np.array([ms for e in episodes for ms in e.late_ms] or [0.0])
    return replace(
        row,
        tick_late_ms={"p50": float(np.median(late_ms)), "max": float(late_ms.max())},
        missed_ticks=sum(e.missed_ticks for e in episodes),
        evaluations_mean=_mean([count for e in episodes for count in e.evaluations]),
        parameters=about.parameters,
        precision=about.precision,
        cameras=about.cameras,
        crop=about.crop,
        samples_ms=np.round([ms for e in episodes for ms in e.latency_ms], 5).tolist(),
    )


def percentiles_of(profile: LatencyProfile) -> Percentiles:
    """The percentiles that the samples support."""
    found = {name.replace(".", "_"): ms for name, ms in percentiles(profile).items()}
    return validate(Percentiles, found, "percentiles")


def _scores(episodes: Sequence[Episode]) -> np.ndarray:
    """Scores [E]; a failed episode has the lowest one, and at most 0: its end gains nothing."""
    worst = min(0.0, *(e.score for e in episodes))
    return np.array([worst if e.failure else e.score for e in episodes])


def _far_observations(policy: Budget, episodes: Sequence[Episode]) -> list[FarObservation]:
    found = far_outside(episodes, training_range(policy))
    return validate(list[FarObservation], found, "far observations", others=True)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
