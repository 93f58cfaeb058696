"""--policy module:factory: anybody's policy in eval, sweep, delays and latency."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from diffpolicy.control.external import External, PolicyFailure, external
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig, LatencyConfig, SweepConfig
from diffpolicy.eval.delays import delays
from diffpolicy.eval.delays_config import DelaysConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.eval.measure.kept import Kept
from diffpolicy.eval.measure.result_files import json_of, read_result
from diffpolicy.eval.sweep import sweep

BALANCE = "diffpolicy.envs:Balance-v0"
SMALL = {"env": BALANCE, "episodes": 4, "envs": 4, "batch": 4, "max_steps": 30, "workers": 1}
FEW = {"pictures": False, "margin": 0.3, "floor": 0.0, "ms_per_step": 15.0}
HISTORY = {"observation": np.full((1, 1, 4), 0.01, np.float32)}


def answer_of(name):
    policy = External(f"scripted:{name}", 1)
    return policy(HISTORY, np.zeros(policy.noise_shape(1), np.float32))


@pytest.mark.parametrize("clock", ["paused", "simulated", "wall"])
def test_a_scripted_policy_runs_on_every_clock(clock, tmp_path):
    path = tmp_path / "r.json"
    short = {**SMALL, "episodes": 2, "max_steps": 20}
    evaluate_budget(
        EvalConfig(
            policy="scripted:Feedback",
            ddim_steps=3,
            clock=clock,
            latency_ticks=1,
            json=path,
            **short,
        )
    )
    result = read_result(path)
    [row] = result.rows
    assert (row.name, row.policy, row.ddim_steps) == ("3 steps", "scripted:Feedback", 3)
    assert (row.network_evals, row.audit, row.eta, row.parameters) == (None,) * 4
    assert (row.engine, row.clock) == ("external", clock)
    assert row.failures == [] and len(row.outcomes.success) == 2
    about = result.provenance
    assert (about.run, about.policy, about.env) == (None, "scripted:Feedback", BALANCE)


@pytest.mark.parametrize("name", ["Unpicklable", "Noisy"])
def test_the_episodes_do_not_depend_on_the_number_of_workers(name, tmp_path):
    """Budgets are compared as those of a run are, without DDPM and regression."""
    rows = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        given = {**SMALL, "workers": workers, "out": out}
        config = SweepConfig(policy=f"scripted:{name}", ddim_steps=(2, 1), **given, **FEW)
        result = sweep(config)
        assert read_result(out / "sweep.json") == result
        assert "scripted" in (out / "report.html").read_text()
        rows.append(result.rows)
    assert rows[0] == rows[1]
    assert [(r.name, r.clock) for r in rows[0]] == [
        *(("1 step", "paused"), ("2 steps", "paused")),
        *(("1 step", "simulated"), ("2 steps", "simulated")),
    ]
    assert [r.delay_ticks for r in rows[0][2:]] == [1, 2]  # 15 ms a step, ticks of 20 ms


def test_budgets_are_recommended_as_those_of_a_run_are(tmp_path):
    """Without losses the cheapest one; all statistics are there."""
    given = {**SMALL, "episodes": 30, "max_steps": 20, "envs": 30, "batch": 30}
    fixed = {**FEW, "clocks": ("paused",), "outcome": "score"}
    config = SweepConfig(
        policy="scripted:Feedback", ddim_steps=(4, 6), out=tmp_path, **given, **fixed
    )
    result = sweep(config)
    assert result.recommendation.name == "4 steps"
    assert result.recommendation.ddim_steps == 4
    [compared] = result.recommendation.comparisons
    assert (compared.reference, compared.other) == ("4 steps", "6 steps")


def stop_after_two(monkeypatch):
    """Interrupt after two kept episodes; return the list of seeds that were run."""
    ran, add = [], Kept.add_episode

    def add_two(self, key, episode):
        add(self, key, episode)
        ran.append(episode.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "add_episode", add_two)
    return ran


@pytest.mark.parametrize(("change", "again"), [("", 2), ("# changed\n", 4)])
def test_kept_episodes_go_on_unless_the_code_has_changed(change, again, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / f"mine{again}.py"
    module.write_text("from scripted import Feedback as make\n")
    path, ran = tmp_path / "r.json", stop_after_two(monkeypatch)
    one = {**SMALL, "envs": 1, "json": path, "latency_ticks": 0}
    config = EvalConfig(policy=f"{module.stem}:make", ddim_steps=1, **one)
    with pytest.raises(KeyboardInterrupt):
        evaluate_budget(config)
    module.write_text(module.read_text() + change)
    evaluate_budget(config)
    assert len(ran) == 2 + again and path.exists()


def test_measured_latencies_are_those_of_one_call_and_can_be_replayed(tmp_path, call, refused):
    path = tmp_path / "latency.json"
    given = {"policy": "scripted:Noisy", "env": BALANCE, "ddim_steps": (1, 2)}
    latency(LatencyConfig(**given, seconds=0.05, json=path))
    result = read_result(path)
    assert [(r.ddim_steps, r.engine, r.policy) for r in result.rows] == [
        (1, "external", "scripted:Noisy"),
        (2, "external", "scripted:Noisy"),
    ]
    assert [(r.network_evals, r.parameters, r.precision) for r in result.rows] == [
        (None, None, "unknown")
    ] * 2
    assert (result.provenance.env, result.provenance.deadline_ms) == (BALANCE, 20.0)
    replayed = {**SMALL, "latency_from": path, "json": tmp_path / "r.json"}
    evaluate_budget(
        EvalConfig(policy="scripted:Noisy", ddim_steps=2, clock="simulated", **replayed)
    )
    [row] = read_result(tmp_path / "r.json").rows
    assert row.latency_source == "replayed, external"
    assert row.latency_ms.p50 == pytest.approx(result.rows[1].latency_ms.p50, abs=1e-5)
    words = ["--policy", "scripted:Noisy", "--env", BALANCE, "--latency-from", path]
    said = (
        "of scripted:Noisy at 3 steps; it has scripted:Noisy at 1 step, scripted:Noisy at 2 steps;"
    )
    assert said in refused("eval", *words, "--ddim-steps", 3)


def test_latencies_of_a_run_are_not_those_of_a_policy(tiny_run, tmp_path, refused):
    path = tmp_path / "latency.json"
    row = {"policy": "scripted:Noisy", "ddim_steps": 1, "engine": "external"}
    path.write_text(json.dumps({"records": [{**row, "samples_ms": [1.0]}]}))
    said = refused("eval", "--run", tiny_run, "--ddim-steps", 1, "--latency-from", path)
    assert "holds no latencies of 1 evaluation " in said and "it has other policies alone" in said
    path.write_text(json.dumps({"records": [{"engine": "x", "samples_ms": [1.0]}]}))
    said = refused("eval", "--run", tiny_run, "--ddim-steps", 1, "--latency-from", path)
    assert "lacks network_evals, parameters" in said


def test_delays_are_written_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = delays(DelaysConfig(policy="scripted:Feedback", ticks=(0, 2), **SMALL))
    assert [(row.name, row.delay_ticks) for row in result.rows] == [
        ("10 steps", 0),
        ("10 steps", 2),
    ]
    assert read_result(tmp_path / "delays" / "delays.json") == result


def test_a_batch_of_one_stays_one_for_a_policy_that_knows_no_batch():
    policy = External("scripted:whole", 1)
    sizes = {}
    for batch in (1, 4):
        with Evaluator(
            EvalConfig(policy="scripted:whole", **{**SMALL, "batch": batch}), policy
        ) as found:
            sizes[batch] = found.options.batch
    assert sizes == {1: 1, 4: 16}


def test_a_process_calls_the_factory_once_for_each_reference():
    policy = External("scripted:Unpicklable", 3)
    text = pickle.dumps(policy)
    first, again = pickle.loads(text), pickle.loads(text)
    assert first is again and first is not policy and first.steps == 3
    other = external("scripted:Unpicklable", 4)
    assert other.steps == 4 and pickle.loads(text) is not first
    assert policy.digest == other.digest and len(policy.digest) == 64


def test_whole_numbers_are_actions_and_answers_are_copies():
    chunk = answer_of("whole")
    assert chunk.dtype == np.float32 and chunk is not answer_of("whole")


def test_a_policy_of_one_row_is_told_of_the_batch():
    policy, two = External("scripted:whole", 1), {"observation": np.zeros((2, 1, 4), np.float32)}
    with pytest.raises(PolicyFailure, match=r"\[2, 8, D_a\]; got int64 .*; try --batch 1"):
        policy(two, np.empty((0, 2)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", r"the policy scripted:raises\(1\) failed in its call: ValueError: the model"),
        ("leaves", r"failed in its call: SystemExit: 0"),
        ("text", r"must give actions \[B, T_p - T_o \+ 1, D_a\] = \[1, 8, D_a\]; got <U4"),
        ("ragged", "failed in its answer: ValueError: "),
        ("flat", r"must give actions .*; got float64 \[1, 8\]"),
        ("short", r"must give actions .*; got float64 \[1, 7, 1\]"),
        ("broken", r"scripted:broken\(1\) failed in its factory\(1\): RuntimeError: no model of 1"),
        ("nothing", r"must be a chunk source: a callable with .*; got None"),
        ("NoHorizons", r"must be a diffpolicy.specification.Horizons\(T_o, T_p, T_a\); got \(1, 8"),
        ("OddNoise", r"noise_shape\(1\) of scripted:OddNoise\(1\) must be \(draws, 1, …\)"),
        ("absent", "--policy must be module:function, importable from here; got 'scripted:absent'"),
    ],
)
def test_a_policy_of_no_use_is_one_line(name, said):
    with pytest.raises(PolicyFailure, match=said):
        answer_of(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "says no"),
        ("wide", "the policy gives 2 numbers for an action; the environment takes 1"),
        ("unfinished", "the policy's actions are not finite at tick 0 (seed 7)"),
        ("Blind", "the policy observes camera; the environment has no camera, but observation"),
    ],
)
def test_a_policy_that_does_not_fit_its_environment_is_refused_in_advance(name, said, refused):
    given = ["--policy", f"scripted:{name}", "--env", BALANCE, "--seed", 7, "--workers", 1]
    error = refused("eval", *given, "--ddim-steps", 1)
    assert said in error
    if name == "raises":
        assert error.endswith(", at tick 0 of seed 7") and "scripted.py:" in error


def test_an_error_among_many_episodes_names_one_of_them(refused):
    given = ["--policy", "scripted:Together", "--env", BALANCE, "--seed", 7, "--workers", 1]
    said = refused("eval", *given, "--episodes", 3, "--latency-ticks", 0)
    assert "failed in its call: RuntimeError: one at a time" in said
    assert said.endswith("at tick 0 of seed 7, or in one of 2 other episodes")


POLICY = f"--policy scripted:Feedback --env {BALANCE}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("eval", "expected either --run RUN or --policy module:factory"),
        (f"eval --run r {POLICY}", "expected either --run RUN or --policy module:factory"),
        ("eval --policy scripted:Feedback", "--policy needs its environment; give --env"),
        (f"eval {POLICY} --engine eager", "leave out --engine, which a run alone has"),
        (f"eval {POLICY} --eta 0.5 --clip 1", "leave out --eta, --clip, which a run alone has"),
        (f"delays {POLICY} --precision bfloat16", "leave out --precision, which"),
        (f"sweep {POLICY} --grid leading", "leave out --grid, which"),
        (f"sweep {POLICY} --regression r", "leave out --regression, which"),
        (
            f"sweep {POLICY} --ddim-steps 0 1",
            "--ddim-steps must be at least 1 with",
        ),
        (f"eval {POLICY} --ddim-steps -1", "at least 1 with --policy; got -1"),
        (f"latency {POLICY} --net mlp", "--run RUN or --net NAME or --policy module:factory"),
        (f"latency {POLICY} --baseline diffusers", "leave out --baseline, which"),
        (f"latency --net mlp --env {BALANCE}", "--env belongs to --policy"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said, refused):
    assert said in refused(*words.split())


def test_results_of_a_run_have_no_trace_of_the_option(tiny_run):
    config = SweepConfig(run=tiny_run, ddim_steps=(1,))
    assert config.policy is None
    with pytest.raises(DiffpolicyError, match="expected either"):
        replace(config, policy="scripted:Feedback", env=BALANCE)
    from diffpolicy.policy import Policy

    policy = Policy.load(tiny_run, ddim_steps=1)
    with Evaluator(EvalConfig(run=tiny_run, **{**SMALL, "env": None}), policy) as evaluator:
        found = json_of(evaluator.provenance())
    assert "policy" not in found and found["run"] == str(tiny_run)
