"""Names of strategies for late chunks, in the option, in errors and in every command's policies."""

import inspect
from dataclasses import replace

import pytest
from scripted import Feedback

from diffpolicy.config import Sampling
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.external import External
from diffpolicy.control.latency import constant_ticks
from diffpolicy.control.rollout import run_episodes
from diffpolicy.environment import make
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.measure.description import describe
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.eval.measure.rows import make_row
from diffpolicy.eval.measure.tally import tally_of
from diffpolicy.late import STRATEGIES, parse_late
from diffpolicy.late.drop import DropHead
from diffpolicy.policy import Policy

BALANCE = "diffpolicy.envs:Balance-v0"


def test_the_option_tells_every_strategy():
    told = inspect.getsource(Sampling).partition("late: str")[2]
    assert all(f"{name}:" in told for name in STRATEGIES)


def test_a_strategy_is_made_from_its_text_and_keeps_it():
    assert parse_late("drop") == DropHead()
    assert all(parse_late(text).text == text for text in ("drop", "ensemble", "warm:50:2"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "late",
            "'late' is not a strategy for late chunks; expected one of: correct, cut, drop, ",
        ),
        ("", "'' is not a strategy for late chunks; expected one of"),
        ("drop:2", "'drop:2': drop takes nothing after its name"),
    ],
)
def test_other_texts_are_refused(text, told):
    with pytest.raises(DiffpolicyError, match=told):
        parse_late(text)


def test_a_policy_of_others_takes_the_strategies_that_need_no_network():
    with pytest.raises(DiffpolicyError, match="--late warm:50:2 needs the network of a run"):
        External("scripted:Feedback", 2, "warm:50:2")
    policy = External("scripted:Feedback", 2, "ensemble")
    assert policy.__reduce__()[1] == ("scripted:Feedback", 2, "ensemble")
    assert describe(policy).name == "2 steps, ensemble"
    assert describe(External("scripted:Feedback", 2)).name == "2 steps"


def test_a_source_of_ones_own_may_have_a_strategy():
    class Own(Feedback):
        late = parse_late("ensemble")

    options = RolloutOptions(0.02, envs=1, batch=1)
    profile = constant_ticks(0, 0.02)
    [episode] = run_episodes(Own(3), lambda: make(BALANCE, {}, max_steps=20), [1], profile, options)
    assert episode.replans == episode.ticks


@pytest.mark.parametrize("clock", ["simulated", "wall"])
def test_a_result_tells_the_strategy_and_how_good_the_forecasts_were(clock, tmp_path):
    path = tmp_path / "r.json"
    about = {"env": BALANCE, "episodes": 2, "envs": 2, "batch": 2, "max_steps": 20, "workers": 1}
    evaluate_budget(
        EvalConfig(
            policy="scripted:Feedback",
            ddim_steps=3,
            late="ensemble",
            clock=clock,
            latency_ticks=2,
            json=path,
            **about,
        )
    )
    [row] = read_result(path).rows
    assert (row.name, row.variant) == ("3 steps, ensemble", "ensemble")
    assert row.delay_error is not None and row.prefix_miss_share is not None
    if clock == "simulated":  # constant delays are known from the first one on
        assert (row.delay_ticks, row.delay_error, row.prefix_miss_share) == (2, 0, 0)


def test_chunks_that_come_later_than_expected_are_counted():
    options, profile = RolloutOptions(0.02, envs=1, batch=1), constant_ticks(1, 0.02)
    policy = External("scripted:Feedback", 3)
    [found] = run_episodes(policy, lambda: make(BALANCE, {}, max_steps=9), [1], profile, options)
    episode = replace(found, delay_ticks=(1, 3, 2, 0), expected_ticks=(2, 2, 3, 3))
    assert (found.prefix_misses, episode.prefix_misses) == (0, 1)
    row = make_row(policy, "simulated", profile, tally_of([episode]), 0.02, "external")
    assert (row.delay_error, row.prefix_miss_share) == (1.0, 0.25)


def test_the_line_of_a_budget_tells_what_a_late_chunk_costs(tiny_run):
    def line(**options):
        return describe(Policy.load(tiny_run, ddim_steps=4, **options)).line

    assert line(late="warm:50:2").endswith("; 2 evaluations for a chunk with a plan")
    said = line(late="guided", start=90)
    assert said.endswith("; 4 evaluations and 4 gradients for a chunk with a plan")
    assert "for a chunk" not in line(late="ensemble") + line()
