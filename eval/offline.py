"""`diffpolicy offline`: errors of actions on held-out demonstrations and latency, in no world."""

import numpy as np

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line
from diffpolicy.terminal.output import say

from .data_config import OfflineConfig
from .measure.description import source_of
from .measure.held_out import HeldOut, held_out
from .measure.offline_figures import BATCH, Figures
from .measure.offline_results import OfflineProvenance, OfflineResult
from .measure.open_loop import open_loop
from .measure.provenance import provenance, set_threads
from .measure.run import results_folder
from .measure.steps import steps_of
from .report.products import check_outputs, save


def offline(config: OfflineConfig) -> OfflineResult:
    """Write offline.json, offline.png, report.html and CSV; print the table."""
    set_threads(config.threads)
    file = results_folder(config, "offline") / "offline.json"
    checkpoint = load_policy(config.run)
    data = held_out(config.run, checkpoint, config.data)
    say(f"{data.path}: episodes: {data.reason}")
    check_outputs(OfflineResult, file)
    policies = _policies(config, checkpoint)
    loop = open_loop(data, _chosen(config, data), policies[0].horizons, config.pairs)
    figures = Figures(data, loop, config.samples, config.seed)
    rows = figures.rows(policies, config.latency_seconds)
    result = OfflineResult(
        provenance=_provenance(config, policies[0], figures),
        rows=rows,
        references=figures.references(),
        reference=rows[-1].name,
    )
    save(result, file)
    return result


def _policies(config: OfflineConfig, checkpoint: Checkpoint) -> list[Policy]:
    """One policy for each budget, the largest last; some runs have budgets of their own."""
    budgets = steps_of(config.ddim_steps, checkpoint.specification)
    found = [Policy(checkpoint, Sampling(k), config.device, engine=config.engine) for k in budgets]
    for policy in found:
        say(audit_line(policy.chain))
        policy.engine(BATCH)
    return found


def _chosen(config: OfflineConfig, data: HeldOut) -> np.ndarray:
    """Numbers of at most --episodes of the held-out episodes, increasing."""
    rng = np.random.default_rng(config.seed)
    return np.sort(rng.permutation(data.episodes)[: config.episodes])


def _provenance(config: OfflineConfig, policy: Policy, figures: Figures) -> OfflineProvenance:
    horizons, loop = policy.horizons, figures.loop
    return OfflineProvenance(
        **vars(provenance(policy.device)),
        run=str(config.run),
        checkpoint=source_of(policy),
        env=policy.task.env_id,
        data=str(figures.data.path),
        held_out=figures.data.reason,
        episodes=figures.episodes.tolist(),
        episodes_in_data=len(figures.data.ends),
        observations=len(loop.index),
        pairs=len(loop.pairs),
        samples=1 if policy.chain.noiseless else config.samples,
        seed=config.seed,
        padded_batch=BATCH,
        control_dt_s=policy.task.control_dt_s,
        observation_horizon=horizons.observation,
        prediction_horizon=horizons.prediction,
        action_horizon=horizons.action,
        sigma=figures.sigma.tolist(),
    )
