"""Figures of chunks beside the demonstrated actions: one row for each budget.

Shapes: W observations, S samples of each, T_u usable actions of a chunk, D_a dimensions of an
action, E episodes.
"""

from collections.abc import Sequence

import numpy as np

from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

from .action_error import by_episode, deviations, distance, estimate, spread
from .description import audit_of, seen_by
from .held_out import HeldOut
from .offline_results import Estimate, OfflineRow, References
from .open_loop import OpenLoop, sample_chunks
from .rows import percentiles_of
from .timing import measure

BATCH = 64  # of a policy call


class Figures:
    """Figures of chunks beside the demonstrated actions, over episodes."""

    def __init__(self, data: HeldOut, loop: OpenLoop, samples: int, seed: int):
        self.data, self.loop, self.samples, self.seed = data, loop, samples, seed
        self.sigma = deviations(data.actions)
        self.truth, self.real = loop.actions()
        self.executed = loop.windows.horizons.action
        self.episodes = np.unique(loop.number)

    def rows(self, policies: Sequence[Policy], latency_seconds: float) -> list[OfflineRow]:
        """One row for each policy; the last one is the reference of `distance`."""
        chunks = []
        for policy in policies:
            samples = 1 if policy.chain.noiseless else self.samples
            chunks.append(sample_chunks(policy, self.loop, samples, self.seed, BATCH))
            if not np.isfinite(chunks[-1]).all():
                raise DiffpolicyError(f"{policy.chain.name} gives actions that are not finite")
        profiles = measure(policies, latency_seconds)
        return [
            self.row(policy, of_policy, chunks[-1], profile)
            for policy, of_policy, profile in zip(policies, chunks, profiles, strict=True)
        ]

    def row(
        self, policy: Policy, chunks: np.ndarray, reference: np.ndarray, profile: LatencyProfile
    ) -> OfflineRow:
        """One budget from its chunks [W, S, T_u, D_a]."""
        errors = distance(chunks, self.truth[:, None], self.sigma).mean(1)
        seam = self.seam(chunks)
        several = chunks.shape[1] > 1
        return OfflineRow(
            name=policy.chain.name,
            ddim_steps=policy.ddim_steps,
            network_evals=policy.network_evals,
            variant=policy.chain.kind,
            audit=audit_of(policy),
            engine=profile.engine or policy.engine().name,
            chunk_engine=policy.engine(BATCH).name,
            error=self.mean(errors, self.executed),
            error_chunk=self.mean(errors),
            error_of_mean=self.mean(self.from_truth(chunks.mean(1)), self.executed),
            spread=self.mean(spread(chunks, self.sigma), self.executed) if several else None,
            distance=self.mean(distance(chunks, reference, self.sigma).mean(1), self.executed),
            seam=seam,
            seam_ratio=seam.mean / self.change if seam and self.change else None,
            by_dimension=self.by_dimension(chunks),
            episode_errors=self.of_episodes(errors, self.executed).tolist(),
            latency_ms=percentiles_of(profile),
            encoder_ms=profile.encoder_ms,
            load=profile.load,
            parameters=policy.parameters,
            precision=policy.precision,
            **seen_by(policy.specification),
            samples_ms=np.round(profile.samples_ms, 5).tolist(),
        )

    def from_truth(self, chunks: np.ndarray) -> np.ndarray:
        """Distances of chunks [W, T_u, D_a] from the demonstrated actions: [W, T_u]."""
        return distance(chunks, self.truth, self.sigma)

    def of_episodes(self, values: np.ndarray, count: int | None = None) -> np.ndarray:
        """Means [E] of the first actions of each chunk [W, T_u], all by default."""
        part = slice(count)
        episode = self.loop.episode
        return by_episode(values[:, part], self.real[:, part], episode, len(self.episodes))

    def mean(self, values: np.ndarray, count: int | None = None) -> Estimate:
        """Mean of `of_episodes` with its interval."""
        found = estimate(self.of_episodes(values, count))
        assert found  # the first action of a chunk is always real
        return found

    def by_dimension(self, chunks: np.ndarray) -> list[float]:
        """Mean error of the executed actions [D_a] in units of the data."""
        errors = np.abs(chunks - self.truth[:, None]).mean(1)
        found = [self.of_episodes(errors[..., d], self.executed) for d in range(errors.shape[-1])]
        return [float(of_episodes.mean()) for of_episodes in found]

    def seam(self, chunks: np.ndarray) -> Estimate | None:
        """Distance of consecutive chunks at the tick where the second takes over."""
        if not len(self.loop.pairs) or self.executed == chunks.shape[2]:
            return None
        old, new = self.loop.pairs.T
        jumps = distance(chunks[new, :, 0], chunks[old, :, self.executed], self.sigma)
        real = np.ones((len(jumps), 1))
        values = jumps.mean(1, keepdims=True)
        return estimate(by_episode(values, real, self.loop.episode[old], len(self.episodes)))

    @property
    def change(self) -> float:
        """Mean distance of consecutive demonstrated actions in these episodes."""
        starts = np.concatenate([[0], self.data.ends[:-1]])
        parts = [self.data.actions[starts[e] : self.data.ends[e]] for e in self.episodes]
        found = [distance(x[1:], x[:-1], self.sigma).mean() for x in parts if len(x) > 1]
        return float(np.mean(found)) if found else 0.0

    def references(self) -> References:
        """Errors of the last action, held, and of the mean action of the data."""
        hold = self.from_truth(self.loop.before()[:, None])
        constant = self.from_truth(self.data.actions.mean(0, dtype=np.float64))
        return References(
            hold=self.mean(hold, self.executed),
            hold_chunk=self.mean(hold),
            constant=self.mean(constant, self.executed),
            change=self.change,
        )
