"""eval, latency, sweep and report: what is written, and that it is what was measured."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffpolicy.budget import sampler_name
from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling, TrainConfig
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.baseline import DiffusersLoop
from diffpolicy.eval.budgets import combinations, load_budgets
from diffpolicy.eval.config import DenoiseConfig, EvalConfig, LatencyConfig, SweepConfig
from diffpolicy.eval.denoise import trace
from diffpolicy.eval.latency import latency
from diffpolicy.eval.pictures import film_strip
from diffpolicy.eval.success import World, evaluate_budget
from diffpolicy.eval.sweep import _outcome, sweep
from diffpolicy.latency import PAUSED
from diffpolicy.policy import Policy
from diffpolicy.train import train

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
    sweep(config)
    return json.loads((out / "sweep.json").read_text()), (out / "report.html").read_text()


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
    assert advice["reason"] == f"the best budget reaches score {best:.2f}, under 0.5"


def test_report_is_self_contained(result):
    page = result[1]
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    for record in result[0]["records"]:
        assert f"<td>{record['name']}</td>" in page
    assert page.count("<img") >= 2  # the plot and at least one rollout


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
    assert ("warning: 1 step" in capsys.readouterr().out) == (clock == "simulated")


def test_rollout_is_drawn_from_observations_where_nothing_renders(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=1)
    world = World(SweepConfig(run=tiny_run, **SMALL), policy)
    make = world.make
    world.make = lambda render_mode=None: make()  # an environment without pictures
    figure, caption = film_strip(world, policy, PAUSED, 5)
    assert "drawn from the observations" in caption
    [axis] = figure.axes
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
    names = [r["name"] for r in sweep(config)["records"]]
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
    names = [sampler_name(policy) for policy in load_budgets(config)]
    assert names == ["5 steps, η 1", "DDPM 100"]
    with pytest.raises(DiffpolicyError, match="needs a budget beside ancestral sampling"):
        load_budgets(replace(config, ddim_steps=(100,)))


@pytest.mark.parametrize("store", ["balance", "pusht"])
def test_denoise_draws_every_step_of_two_budgets(store, tiny_run, tmp_path, call, request):
    """One action drawn over the ticks, two as paths in their plane."""
    run = tiny_run
    if store == "pusht":
        run = tmp_path / "run"
        data = request.getfixturevalue("demos") / "pusht_human" / "pusht_cchi_v7_replay.zarr"
        env = "diffpolicy.envs:PushT-v0"
        small = {"steps": 2, "hidden": 16, "blocks": 1, "device": "cpu"}
        train(TrainConfig(data=data, env=env, out=run, **small))
    out = tmp_path / "pictures" / "denoise.gif"
    done = call("denoise", "--run", run, "--out", out, "--ddim-steps", 1, 5, "--chunks", 3)
    assert done.code == 0 and "5 steps: 5 network evaluations" in done.out
    with Image.open(out) as film:
        assert film.n_frames == 6
    assert Image.open(out.with_suffix(".png")).size[0] > 500


def test_denoise_starts_every_budget_from_the_same_noise(tiny_run):
    few, many = trace(DenoiseConfig(run=tiny_run, ddim_steps=(2, 7), chunks=3))
    np.testing.assert_array_equal(few.xs[0], many.xs[0])
    assert (len(few.xs), len(few.x0s), few.times) == (3, 2, [99, 49])
    assert len(many.xs) == 8
    x, x0, where = many.at(1.0)
    np.testing.assert_array_equal(x, x0)
    assert where == "after 7 steps, clean"
    assert many.at(0.0)[1] is None


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
    """Where nothing is clipped both samplers are the same, and so are the actions."""
    checkpoint = load_policy(tiny_run)
    unclipped = replace(
        checkpoint, specification=replace(checkpoint.specification, clip_range=None)
    )
    policy = Policy(unclipped, Sampling(5))
    loop = DiffusersLoop(unclipped, 5, policy.device)
    loop.scheduler.config.clip_sample = False
    history = np.full((1, 2, policy.task.observation_dim), 0.1, np.float32)
    torch.manual_seed(3)
    theirs = loop(history)
    torch.manual_seed(3)
    noise = torch.randn(policy.noise_shape(1)).numpy()
    ours = policy(history, noise)
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2 * np.abs(theirs).max())


def test_a_run_or_a_net_is_measured_not_both_and_not_none(tiny_run):
    for given in ({}, {"run": tiny_run, "net": "mlp"}):
        with pytest.raises(DiffpolicyError, match="give --run RUN or --net NAME, one of them"):
            latency(LatencyConfig(**given))


def test_the_plan_says_how_many_episodes_a_margin_needs(tiny_run, call):
    """At 10 % discordance 5 points need 400 for a power of 93 %, so a little less for 90 %."""
    plan = sweep(SweepConfig(run=tiny_run, plan=True, margin=0.05))["episodes"]
    assert plan[0.1] == [248, 343, 557]
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


@pytest.mark.parametrize(("best", "noun"), [(0.5, "success"), (0.49, "score")])
def test_scores_are_compared_where_success_is_rare(tiny_run, best, noun):
    rows = [[{"success_rate": 0.0}, {"success_rate": best}]]
    assert _outcome(SweepConfig(run=tiny_run), rows) == noun
    assert _outcome(SweepConfig(run=tiny_run, outcome="score"), rows) == "score"


def test_a_sweep_on_the_wall_clock_is_judged_by_what_it_felt(tiny_run, tmp_path):
    """100 ms a step would starve the robot; nothing of that is felt on the wall clock."""
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
    assert result["recommendation"]["latency_source"] == "wall clock"
