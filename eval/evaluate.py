"""`diffpolicy eval`: success of one step budget on one clock."""

from diffpolicy.terminal.output import STDOUT, say, wrapped

from .config import EvalConfig
from .measure.budgets import load_budget
from .measure.description import describe
from .measure.evaluator import Evaluator
from .measure.profiles import check_source
from .measure.provenance import set_threads
from .measure.result_files import EvalResult
from .report.products import check_outputs, save
from .videos.evaluation import check_videos, write_videos


def evaluate_budget(config: EvalConfig) -> None:
    """Print the result; write JSON, CSV and videos on request."""
    set_threads(config.threads)
    if config.json:
        check_outputs(EvalResult, config.json)
    check_videos(config)
    policy = load_budget(config)
    say(wrapped(describe(policy).line))
    check_source([policy], config)
    file = None if config.json == STDOUT else config.json
    kept = file and file.with_suffix(".episodes.jsonl")
    with Evaluator(config, policy, kept) as evaluator:
        evaluator.prepare(policy, [config.clock])
        evaluator.tell_engines()
        [profile] = evaluator.profiles([policy], config, [config.clock])
        row, _ = evaluator.evaluate(policy, config.clock, profile)
        result = EvalResult(provenance=evaluator.provenance(), rows=[row])
        save(result, config.json)
        if config.video:
            write_videos(config, evaluator, policy, profile, row)
        evaluator.kept.remove()
