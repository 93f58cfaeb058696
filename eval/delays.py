"""`diffpolicy delays`: success at constant delays of a chunk, whatever the latency here."""

from dataclasses import replace

from diffpolicy.control.latency import constant_ticks

from .config import DelaysConfig
from .measure.budgets import load_budget
from .measure.evaluator import Evaluator
from .measure.provenance import set_threads
from .measure.result_files import DelaysResult
from .measure.run import results_folder
from .report.products import check_outputs, save


def delays(config: DelaysConfig) -> DelaysResult:
    """Run the same episodes at every delay; write delays.json, delays.png and CSV."""
    set_threads(config.threads)
    out = results_folder(config, "delays")
    policy = load_budget(config)
    with Evaluator(config, policy, out / "episodes.jsonl") as evaluator:
        evaluator.prepare(policy, ["simulated"])
        check_outputs(DelaysResult, out / "delays.json")
        rows = []
        for ticks in sorted(set(config.ticks)):
            delay = constant_ticks(ticks, evaluator.options.control_dt_s)
            row, _ = evaluator.evaluate(policy, "simulated", delay)
            rows.append(replace(row, ticks=ticks))
        result = DelaysResult(provenance=evaluator.provenance(), rows=rows)
        save(result, out / "delays.json")
        evaluator.kept.remove()
    return result
