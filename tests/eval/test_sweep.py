"""eval, latency, sweep and report: what is written, and that it is what was measured."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpolicy import environment
from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.latency import PAUSED
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.compare import recommend
from diffpolicy.eval.config import EvalConfig, LatencyConfig, SweepConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.budgets import combinations, load_budgets
from diffpolicy.eval.measure.diffusers_loop import DiffusersLoop
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.eval.measure.frames import frames_of
from diffpolicy.eval.measure.kept import Kept
from diffpolicy.eval.measure.result_files import SweepResult, read_result
from diffpolicy.eval.report.strip import traces
from diffpolicy.eval.report.sweep_page import sweep_page
from diffpolicy.eval.report.table import print_rows
from diffpolicy.eval.sweep import (
    Clock,
    metric_of,
    open_evaluator,
    print_plan,
    run_sweep,
    sweep,
)
from diffpolicy.eval.videos.pictures import Shown, caption_of, file_name, picture_of
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT

FIELDS = {
    *("ddim_steps", "network_evals", "clock", "engine", "episodes", "successes", "success_rate"),
    *("success_ci", "score_mean", "score_ci", "latency_ms", "delay_ticks", "starved_ticks"),
    *("action_age_ms_p50", "replans"),
}
SMALL = {"episodes": 6, "envs": 6, "batch": 8, "max_steps": 60, "engine": "eager"}


@pytest.fixture(scope="module")
def result(tiny_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    config = SweepConfig(run=tiny_run, ddim_steps=(4, 1), ms_per_step=2.0, out=out, **SMALL)
    found = sweep(config)
    page = (out / "report.html").read_text()
    return json.loads((out / "sweep.json").read_text()), page, out, found


@pytest.fixture(scope="module")
def whole(result) -> SweepResult:
    """The sweep as dataclasses."""
    return result[3]


def test_one_record_for_each_budget_and_clock(result):
    records = result[0]["records"]
    expected = [(1, 1), (4, 4), (100, 100)]
    for clock in ("paused", "simulated"):
        rows = [r for r in records if r["clock"] == clock]
        assert [(r["ddim_steps"], r["network_evals"]) for r in rows] == expected
    assert [r["eta"] for r in records] == [0, 0, 1] * 2
    for record in records:
        assert record.keys() >= FIELDS
        assert record["episodes"] == 6 == len(record["outcomes"]["success"])
        assert record["successes"] == sum(record["outcomes"]["success"])
        low, high = record["success_ci"]
        assert low <= record["success_rate"] <= high


def test_workers_have_ended_when_the_statistics_begin(tiny_run, tmp_path, monkeypatch):
    about = SMALL | {"ddim_steps": (1,), "clocks": ("paused",), "ms_per_step": 1.0, "ddpm": False}
    config = SweepConfig(run=tiny_run, out=tmp_path, pictures=False, **about)
    policies = load_budgets(config)
    alive = []

    def recommended(*arguments):
        alive.append(evaluator.workers.pids)
        return recommend(*arguments)

    monkeypatch.setattr("diffpolicy.eval.sweep.recommend", recommended)
    with open_evaluator(config, policies) as evaluator:
        assert evaluator.workers.pids
        profiles = evaluator.profiles(policies, config, config.clocks)
        run_sweep(config, evaluator, policies, [Clock("paused", profiles)])
    assert alive == [[]]


def test_declared_robot_is_what_ages_the_actions(result):
    for record in result[0]["records"]:
        assert record["latency_ms"]["p50"] == 2.0 * record["network_evals"]
        delay = 0 if record["clock"] == "paused" else -(-record["network_evals"] // 10)
        assert record["delay_ticks"] == delay


def test_header_says_where_the_result_comes_from(result):
    header = result[0]["header"]
    for name in ("device", "versions", "threads", "seeds", "padded_batch", "commit", "env"):
        assert name in header
    assert header["seeds"] == [100_000, 100_005]


def test_the_recommendation_is_the_last_clock_s_and_follows_from_the_floor(result):
    """Six episodes of an untrained policy succeed never."""
    advice = result[0]["recommendation"]
    assert advice == result[0]["recommendations"][-1]
    assert (advice["clock"], advice["margin"], advice["name"]) == ("simulated", 0.05, None)
    best = max(r["score_mean"] for r in result[0]["records"] if r["clock"] == "simulated")
    assert advice["reason"] == f"the best budget reaches score {best:.2f}, below the floor of 0.5"
    assert advice["decision"]["verdict"] == "below-floor"


def test_report_is_self_contained(result):
    page = result[1]
    names = ("sweep.json", "sweep_episodes.csv", "sweep_budgets.csv")
    assert set(re.findall(r' href="([^#].*?)"', page)) == set(names)  # links only
    assert not re.search(r' src="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    for record in result[0]["records"]:
        assert f">{record['name']}</th>" in page
    assert page.count("<img") >= 1 and page.count('class="timeline"') >= 1


def test_eval_writes_its_record_and_repeats(tiny_run, tmp_path):
    records = []
    for name in ("a.json", "b.json"):
        config = EvalConfig(
            run=tiny_run,
            ddim_steps=2,
            clock="simulated",
            ms_per_step=15,
            json=tmp_path / name,
            **SMALL,
        )
        evaluate_budget(config)
        records.append(json.loads((tmp_path / name).read_text())["records"])
    assert records[0] == records[1]


def test_latency_writes_percentiles_of_what_it_sampled(tiny_run, tmp_path):
    path = tmp_path / "latency.json"
    latency(
        LatencyConfig(run=tiny_run, engine=("eager",), ddim_steps=(1, 3), seconds=0.2, json=path)
    )
    for record in json.loads(path.read_text())["records"]:
        ms = record["latency_ms"]
        assert 0 < ms["p50"] <= ms["p90"] <= ms["max"]
        assert (ms["p99"] is None) == (ms["samples"] < 299)


@pytest.mark.parametrize("clock", ["paused", "simulated"])
def test_starving_budget_is_warned_about_before_it_runs(tiny_run, capsys, clock):
    config = EvalConfig(
        run=tiny_run, ddim_steps=1, clock=clock, ms_per_step=300.0, **{**SMALL, "episodes": 1}
    )
    evaluate_budget(config)
    assert ("warning: 1 step can take" in capsys.readouterr().out) == (clock == "simulated")


def without_pictures(render_mode=None):
    return environment.make("diffpolicy.envs:Balance-v0", {}, max_steps=60)


def test_rollout_is_drawn_from_observations_where_nothing_renders(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=1)
    evaluator = Evaluator(SweepConfig(run=tiny_run, **SMALL), policy)
    evaluator.make = without_pictures
    shot = frames_of(evaluator, policy, PAUSED, 5)
    assert "drawn from the observations" in caption_of(shot)
    [axis] = traces(np.array(shot.observations), 0.02).axes
    assert len(axis.lines) == policy.task.observation_dim


def test_comparisons_are_paired_and_against_every_other_budget(result):
    for advice in result[0]["recommendations"]:
        names = {r["name"] for r in result[0]["records"] if r["clock"] == advice["clock"]}
        compared = advice["comparisons"]
        assert {c["other"] for c in compared} | {compared[0]["reference"]} == names
        assert all(0 <= c["p_noninferior"] <= 1 for c in compared)
        assert result[0]["header"]["outcome"] in ("success", "score")


def test_latencies_stand_in_the_result(result):
    profiles = {p["name"]: p["samples_ms"] for p in result[0]["profiles"]}
    assert profiles == {"1 step": [2.0], "4 steps": [8.0], "DDPM 100": [200.0]}


def test_grids_and_the_rest_are_combined_with_every_budget(tiny_run, tmp_path, capsys):
    config = SweepConfig(
        run=tiny_run,
        ddim_steps=(2, 1),
        grid=("trailing", "leading", "85,20"),
        eta=(0.0, 0.5),
        clocks=("paused",),
        ms_per_step=1.0,
        pictures=False,
        out=tmp_path,
        **SMALL,
    )
    names = [row.name for row in sweep(config).rows]
    assert names == [
        *("1 step", "2 steps", "1 step, η 0.5", "2 steps, η 0.5"),
        *("1 step, grid leading", "2 steps, grid leading"),
        *("1 step, grid leading, η 0.5", "2 steps, grid leading, η 0.5"),
        *("2 steps, grid 85,20", "2 steps, grid 85,20, η 0.5", "DDPM 100"),
    ]
    printed = capsys.readouterr().out
    assert (
        "2 steps, grid leading: 2 network evaluations at t = 50 0; √ᾱ at the start 0.6" in printed
    )
    records = json.loads((tmp_path / "sweep.json").read_text())["records"]
    assert records[8]["audit"]["timesteps"] == [85, 20]
    assert records[8]["variant"] == "grid 85,20"
    assert "grid 85,20" in (tmp_path / "report.html").read_text()


def test_an_ancestral_chain_that_was_asked_for_is_not_added_again(tiny_run):
    config = SweepConfig(run=tiny_run, ddim_steps=(5, 100), eta=(1.0,))
    names = [policy.chain.name for policy in load_budgets(config)]
    assert names == ["5 steps, η 1", "DDPM 100"]
    with pytest.raises(DiffpolicyError, match="needs a budget beside ancestral sampling"):
        load_budgets(replace(config, ddim_steps=(100,)))


def test_ancestral_chains_alone_are_compared_with_each_other(tiny_run, tmp_path):
    runs = tmp_path / "a", tmp_path / "b"
    for run in runs:
        shutil.copytree(tiny_run, run)
    about = {"ddim_steps": (100,), "eta": (1.0,), "clocks": ("paused",), "latency_ms": 0.0}
    found = sweep(SweepConfig(runs=runs, out=tmp_path / "out", floor=0.0, **about, **SMALL))
    assert [row.variant for row in found.rows] == ["DDPM", "DDPM"]
    assert found.recommendation.name in {row.name for row in found.rows} | {None}
    assert len(found.recommendation.comparisons) == 1


def test_latency_compares_engines_and_the_baseline_in_one_run(tmp_path, capsys):
    path = tmp_path / "latency.json"
    engines = ("eager", "native")
    budgets = {"ddim_steps": (1, 3), "deadline_ms": 1e4, "seconds": 0.2}
    latency(LatencyConfig(net="mlp", engine=engines, baseline="diffusers", json=path, **budgets))
    records = json.loads(path.read_text())["records"]
    found = [(r["net"], r["ddim_steps"], r["engine"]) for r in records]
    assert found == [("mlp", k, e) for k in (1, 3) for e in (*engines, "diffusers")]
    for record in records:
        assert record["p50_ms"] == pytest.approx(np.median(record["samples_ms"]), abs=1e-4)
        assert record["ratio_to_baseline"] > 0
        if record["engine"] == "diffusers":
            assert (record["ratio_to_baseline"], record["max_abs_diff"]) == (1, None)
        else:
            assert record["max_abs_diff"] <= 1e-4
    printed = capsys.readouterr().out
    assert "native: largest budget within 10000 ms at p99: " in printed


def test_the_baseline_is_the_policy_with_diffusers_scheduler(tiny_run):
    """Without clipping both samplers are the same, and so are the actions."""
    checkpoint = load_policy(tiny_run)
    unclipped = replace(
        checkpoint, specification=replace(checkpoint.specification, clip_range=None)
    )
    policy = Policy(unclipped, Sampling(5))
    loop = DiffusersLoop(unclipped, 5, policy.device)
    loop.scheduler.config.clip_sample = False
    history = np.full((1, 2, policy.task.observation_dim), 0.1, np.float32)
    torch.manual_seed(3)
    theirs = loop({FLAT: history})
    torch.manual_seed(3)
    noise = torch.randn(policy.noise_shape(1)).numpy()
    ours = policy(history, noise)
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2 * np.abs(theirs).max())


def test_a_run_or_a_net_is_measured_not_both_and_not_none(tiny_run):
    for given in ({}, {"run": tiny_run, "net": "mlp"}):
        with pytest.raises(DiffpolicyError, match="expected either --run RUN or --net NAME"):
            latency(LatencyConfig(**given))


def test_the_plan_says_how_many_episodes_a_margin_needs(tiny_run, call):
    """At 10 % discordance 5 points need 400 for a power of 93 %, so a little less for 90 %."""
    plan = print_plan(0.05, budgets=8)
    assert plan[0.1] == [248, 343, 572]
    assert plan[0.05][1] < plan[0.1][1] < plan[0.2][1]
    done = call("sweep", "--run", tiny_run, "--plan", "--margin", 0.1)
    assert done.code == 0
    assert "non-inferiority of two equals at margin 0.1" in done.out


def test_a_listed_grid_is_run_once_whatever_the_ends(tiny_run):
    config = SweepConfig(
        run=tiny_run, ddim_steps=(1, 2), grid=("85,20", "linspace"), start=(90, 80), end=(0, 10)
    )
    found = combinations(config)
    assert [s for s in found if s.grid == "85,20"] == [Sampling(None, "85,20")]
    assert len(found) == 1 + 2 * 2 * 2


def test_noise_is_scaled_where_there_is_some(tiny_run):
    config = SweepConfig(run=tiny_run, ddim_steps=(2,), eta=(0.0, 1.0), noise_scale=(0.2, 1.0))
    found = [(s.eta, s.noise_scale) for s in combinations(config)]
    assert found == [(0.0, 1.0), (1.0, 0.2), (1.0, 1.0)]


@pytest.mark.parametrize(("best", "metric"), [(0.5, "success"), (0.49, "score")])
def test_scores_are_compared_where_success_is_rare(whole, tiny_run, best, metric):
    row = whole.rows[0]
    rows = [replace(row, success_rate=rate) for rate in (0.0, best)]
    assert metric_of("auto", rows) == metric
    assert metric_of("score", rows) == "score"


def test_a_sweep_on_the_wall_clock_is_judged_by_the_latencies_that_it_measured(tiny_run, tmp_path):
    """100 ms a step would starve the robot, but the wall clock uses no declared latencies."""
    config = SweepConfig(
        run=tiny_run,
        ddim_steps=(1,),
        ddpm=False,
        clocks=("wall",),
        ms_per_step=100.0,
        out=tmp_path,
        floor=0.0,
        **{**SMALL, "episodes": 1, "max_steps": 15},
    )
    result = sweep(config)
    assert result.recommendation.latency_source == "wall clock"


FAULTY = {"run": None, "env": "faulty:Faulty-v0", "episodes": 4, "envs": 2, "batch": 4}


def faulty(tiny_run, habit, **options):
    """Options of a command on an environment with that habit."""
    kwargs = json.dumps({"habit": habit, **options.pop("kwargs", {})})
    given = {"engine": "eager", "seed": 100, "env_kwargs": kwargs, "ms_per_step": 30.0}
    return {**FAULTY, "run": tiny_run, **given, **options}


def test_a_stopped_sweep_goes_on_and_ends_with_the_same_bits(tiny_run, tmp_path, capsys):
    """The environment ends its process; then it is mended, and latencies are the kept ones."""
    mended, out = tmp_path / "mended", tmp_path / "out"
    options = faulty(tiny_run, "exit", kwargs={"unless": str(mended)}, ms_per_step=None, envs=1)
    few = {"ddim_steps": (1, 2), "ddpm": False, "latency_seconds": 0.02, "pictures": False}
    config = SweepConfig(**options, **few, out=out)
    with pytest.raises(DiffpolicyError, match="at tick 9 of seed 101"):
        sweep(config)
    kept = out / "episodes.jsonl"
    assert "finished episodes are kept in" in capsys.readouterr().out
    assert not (out / "sweep.json").exists()
    lines = [json.loads(line) for line in kept.read_text().split("\n") if line]
    assert [line["episode"]["seed"] for line in lines if "episode" in line] == [100]
    [measured] = [line["profiles"] for line in lines if "profiles" in line]
    kept.write_text(kept.read_text() + '\n{"key": "half a li')
    mended.touch()
    result = sweep(config)
    assert "latencies measured earlier" in capsys.readouterr().out
    assert not kept.exists()
    assert [p.samples_ms for p in result.profiles] == [
        np.round(p["samples_ms"], 4).tolist() for p in measured
    ]
    path = tmp_path / "latency.json"  # an uninterrupted run, by the same latencies
    records = [
        {"network_evals": p.network_evals, "parameters": p.parameters, **profile}
        for p, profile in zip(load_budgets(config), measured, strict=True)
    ]
    path.write_text(json.dumps({"records": records}))
    whole = sweep(replace(config, out=tmp_path / "whole", latency_from=path))
    for stopped, straight in zip(result.rows, whole.rows, strict=True):
        assert replace(stopped, latency_source="") == replace(straight, latency_source="")


def test_episodes_that_were_finished_are_not_run_again(tiny_run, tmp_path, monkeypatch):
    path, ran = tmp_path / "r.json", []
    config = EvalConfig(**faulty(tiny_run, ""), ddim_steps=1, json=path)
    add = Kept.add_episode

    def stop_after_two(self, key, episode):
        add(self, key, episode)
        ran.append(episode.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "add_episode", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        evaluate_budget(config)
    assert not path.exists()
    evaluate_budget(replace(config, workers=2))
    assert sorted(ran) == [100, 101, 102, 103]
    resumed = json.loads(path.read_text())["records"]
    evaluate_budget(config)
    assert json.loads(path.read_text())["records"] == resumed
    assert len(ran) == 8  # nothing is kept where a result is


def test_another_policy_or_environment_has_nothing_kept(tiny_run, tmp_path):
    config = EvalConfig(**faulty(tiny_run, ""), ddim_steps=1, json=tmp_path / "r.json")
    keys = set()
    for more in ({}, {"max_steps": 9}, {"env_kwargs": '{"at": 3}'}, {"neutral": "zero"}):
        chosen = replace(config, **more)
        for steps in (1, 2):
            policy = Policy.load(tiny_run, ddim_steps=steps)
            with Evaluator(chosen, policy) as evaluator:
                keys.add(evaluator.key(policy, "paused", "eager", []))
                assert evaluator.key(policy, "paused", "native", []) not in keys
    assert len(keys) == 8


def test_failed_episodes_are_counted_where_people_look(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    few = {"ddim_steps": (1,), "ddpm": False, "clocks": ("paused",), "pictures": True}
    result = sweep(SweepConfig(**faulty(tiny_run, "nan"), **few, out=out))
    said = (
        "2 of 4 episodes failed: the environment's observation is not finite at tick 10 "
        "(seed 101, dimension 2)"
    )
    printed, page = capsys.readouterr().out, (out / "report.html").read_text()
    assert f"warning: 1 step, paused: {said}" in printed
    assert said.replace("'", "&#39;") in page
    [row] = result.rows
    assert len(row.failures) == 2
    assert "  failed" in printed and ">failed</th>" in page


def test_failures_have_no_column_where_there_are_none(result, whole, capsys):
    print_rows(whole.rows)
    assert "failed" not in capsys.readouterr().out and ">failed</th>" not in result[1]


def test_far_observations_are_told_on_the_terminal_and_in_the_record(tiny_run, tmp_path, capsys):
    path = tmp_path / "r.json"
    options = faulty(tiny_run, "residue", episodes=1, kwargs={"drift": 0.5})
    evaluate_budget(EvalConfig(**options, ddim_steps=1, json=path))
    [record] = json.loads(path.read_text())["records"]
    worst = max(record["far_observations"], key=lambda far: far["share"])
    low, high = worst["training"]
    assert worst["share"] > 0.5 and worst["seen"][1] > high + (high - low)
    said = f"observations far outside the range of training: dimension {worst['dimension']}"
    assert said in capsys.readouterr().out


def test_seeds_that_are_ignored_are_said_everywhere_and_not_paired(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    few = {"ddim_steps": (1, 2), "clocks": ("paused",), "pictures": False, "ddpm": False}
    few |= {"outcome": "success"}
    result = sweep(SweepConfig(**faulty(tiny_run, "global seed"), **few, out=out))
    about = result.provenance
    assert (about.paired, about.seeds_repeat) == (False, False)
    assert (about.seeds_evidence or "").startswith("seeds do not repeat: reset(seed=100)")
    [compared] = result.recommendation.comparisons
    assert compared.p_mcnemar is None and compared.p_noninferior == 1  # all of them fail
    said = "episodes cannot be compared in pairs"
    assert f"{about.seeds_evidence}; {said}" in capsys.readouterr().out
    assert "Episodes cannot be compared in pairs: seeds do" in (out / "report.html").read_text()


@pytest.mark.parametrize("habit", ["exit", "raise", "constructor", "leave"])
def test_a_result_that_is_not_there_is_never_status_0(tiny_run, habit, refused):
    options = faulty(tiny_run, habit)
    words = [w for name, v in options.items() for w in (f"--{name.replace('_', '-')}", v)]
    said = {
        "exit": "the environment's step ended its process (exit status 0), at tick 9 of seed 101",
        "raise": "failed in step, tick 9 of seed 101: RuntimeError: the simulator says no",
        "leave": "the environment failed in its step: SystemExit: 0",
        "constructor": "cannot make the environment 'faulty:Faulty-v0'",
    }
    assert said[habit] in refused("eval", *words, "--ddim-steps", 1)


def test_an_environment_s_error_can_fail_its_episode_alone(tiny_run, call):
    options = faulty(tiny_run, "exit", on_env_error="fail-episode")
    words = [w for name, v in options.items() for w in (f"--{name.replace('_', '-')}", v)]
    done = call("eval", *words, "--ddim-steps", 1)
    assert (done.code, done.errors) == (0, [])
    said = "2 of 4 episodes failed: the environment's step ended its process (exit status 0), at"
    assert f"{said} tick 9 of seed 101" in done.out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_running_and_nothing_half_written(
    tiny_run, tmp_path, number, status
):
    options = faulty(tiny_run, "slow", workers=2, out=tmp_path / "out")
    words = [str(w) for name, v in options.items() for w in (f"--{name.replace('_', '-')}", v)]
    code = "from diffpolicy.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", *words, "--ddim-steps", "1", "--no-ddpm"]
    where = {"cwd": Path(__file__).parents[1], "start_new_session": True}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **where)
    kept = tmp_path / "out" / "episodes.jsonl"
    while process.poll() is None and not kept.exists():
        time.sleep(0.05)
    process.send_signal(number)
    errors = process.communicate()[1]
    assert process.returncode == status
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    for _ in range(200):  # the fork server follows
        if not group_runs(process.pid):
            break
        time.sleep(0.05)
    assert not group_runs(process.pid)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["episodes.jsonl"]


def group_runs(leader):
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


# Files of results


def test_a_sweep_is_read_as_it_was_returned(result, whole):
    assert read_result(result[2] / "sweep.json") == whole


def test_a_sweep_is_drawn_again_from_its_files_alone(result, tmp_path, call):
    """Plot, page and tables are the same bytes, the pictures of episodes included."""
    out = result[2]
    assert call("report", out / "sweep.json", "--out", tmp_path).code == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["report.html", "sweep.png", "sweep_budgets.csv", "sweep_episodes.csv"]
    for name in drawn:
        there = f'href="{os.path.relpath(out, tmp_path)}/sweep.json"'  # the result stays there
        again = (tmp_path / name).read_bytes().replace(there.encode(), b'href="sweep.json"')
        assert again == (out / name).read_bytes()


def test_a_picture_that_is_absent_is_one_line(result, tmp_path, call):
    shutil.copy(result[2] / "sweep.json", tmp_path)
    assert call("report", tmp_path / "sweep.json").code == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 0 and "rollouts/1_1_step_simulated" in page and "is absent" in page


def test_a_picture_that_cannot_be_written_is_its_caption(tiny_run, tmp_path):
    policy = Policy.load(tiny_run, ddim_steps=1, device="cpu", engine="eager")
    (tmp_path / "rollouts").touch()
    with Evaluator(EvalConfig(run=tiny_run, **SMALL), policy) as evaluator:
        row, _ = evaluator.evaluate(policy, "paused", PAUSED)
        found, shot = picture_of(evaluator, Shown(policy, PAUSED, row), 1, tmp_path)
    assert found.picture.file is None and "a folder was expected" in found.picture.caption
    assert found.timeline and found.timeline.budget == "1 step"
    assert shot and shot.frames


def test_file_names_of_pictures_are_short_and_different():
    title = f"{', '.join(map(str, range(99, 0, -1)))}, paused"
    names = [file_name(number, title) for number in (1, 2)]
    assert names[0].startswith("1_99_98_") and len(set(names)) == 2
    assert max(map(len, names)) <= 60 + len(".png")


def test_a_sweep_without_a_place_for_pictures_is_refused_before_it_measures(tiny_run, tmp_path):
    (tmp_path / "rollouts").touch()
    config = SweepConfig(run=tiny_run, ddim_steps=(1,), ddpm=False, out=tmp_path, **SMALL)
    with pytest.raises(NotADirectoryError, match="a folder was expected"):
        open_evaluator(config, load_budgets(config))


def test_a_damaged_duration_of_training_is_unknown(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=1, device="cpu", engine="eager")
    policy.specification.training["elapsed_s"] = "12 s"
    with Evaluator(EvalConfig(run=tiny_run, **SMALL), policy) as evaluator:
        row, _ = evaluator.evaluate(policy, "paused", PAUSED)
    assert (row.trained.step, row.trained.elapsed_s) == (20, None)


def test_the_paused_clock_shows_no_load(whole, capsys):
    rows = [replace(row, load="disturbed") for row in whole.rows]
    print_rows(rows)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "disturbed" in line]
    assert line.startswith("simulated") and line.endswith("disturbed:") and "paused" not in line
    print_rows([replace(rows[-1], load="quiet"), rows[-1]])
    assert f"disturbed ({rows[-1].name}):" in capsys.readouterr().out
    page = sweep_page(replace(whole, rows=rows, pictures=[]), Path())
    assert page.count(">disturbed</td>") == len(rows) // 2
