"""Load by other processes: seen in the counters, marked wherever the latencies go."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from tqdm import tqdm

from diffpolicy.control.latency import BLOCK, LatencyProfile, declared
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval import latency
from diffpolicy.eval.config import EvalConfig, LatencyConfig, SweepConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.measure import load, timing
from diffpolicy.eval.measure.kept import KeptProfile
from diffpolicy.eval.measure.load import Counters, Load, load_between
from diffpolicy.eval.measure.profiles import replay
from diffpolicy.eval.measure.timing import Timed, measure_calls
from diffpolicy.eval.sweep import sweep
from diffpolicy.policy import Policy

START = Counters(cores=4, time_s=10.0, busy_s=50.0, own_s=5.0, preemptions=7)


def later(own: float, others: float, preemptions: int = 0, seconds: float = 2.0) -> Counters:
    """The counters after a window in which so many cores were used."""
    return Counters(
        START.cores,
        START.time_s + seconds,
        START.busy_s + (own + others) * seconds,
        START.own_s + own * seconds,
        START.preemptions + preemptions,
    )


@pytest.mark.parametrize(
    ("after", "disturbed"),
    [
        (later(own=4, others=0), False),  # all cores are ours, stress included
        (later(own=3.95, others=0.05), False),  # the usual services
        (later(own=3, others=1), True),  # threads of ours wait for one another
        (later(own=1, others=1), False),  # two cores are left
        (later(own=1, others=1, preemptions=200), True),  # and yet it took ours
        (later(own=1, others=0, preemptions=200), False),  # ours took ours
        (later(own=1, others=3), True),
    ],
)
def test_others_disturb_where_they_are_in_the_way(after, disturbed):
    found = load_between(START, after)
    assert found and found.disturbs == disturbed
    assert load.verdict([found]) == ("disturbed" if disturbed else "quiet")


def test_without_counters_nothing_is_guessed(monkeypatch):
    assert load_between(None, START) is load_between(START, None) is None
    assert load_between(START, START) is None
    assert load.verdict([Load(0, 4, 0), None]) == "unknown"
    monkeypatch.setattr(load, "_busy_s", lambda *_: float("nan"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert load.snapshot() is None


def test_busy_time_is_that_of_the_cores_that_may_be_used():
    stat = (
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 50 4 5 6 7 8\n"
        "cpu1 100 0 0 1000 50 0 0 0 0 0\ncpu12 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
    )
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert load._busy_s(stat, {0}) == pytest.approx(21 * tick_s)  # with what was stolen
    assert load._busy_s(stat, {0, 1}) == pytest.approx(121 * tick_s)
    for still in ("cpu0 0 0 0 0 0 0 0 0 0 0\n", "cpu1 1 1 1 1 1 1 1 1 1 1\n"):
        with pytest.raises(ValueError, match="are missing or do not advance"):
            load._busy_s(still, {0})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_wanted_processes_count_as_ours():
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout and child.stdout.readline()
        alone, together = load.snapshot(), load.snapshot([child.pid])
        child.communicate(b"\n")
    assert alone and together and together.own_s >= alone.own_s + 0.19


@pytest.mark.skipif(sys.platform != "linux", reason="the counters are those of Linux")
def test_processes_that_a_policy_starts_are_found_and_their_own_ones_too():
    loop = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", loop], stdin=subprocess.PIPE)
    try:
        while not (below := load.descendants([child.pid])):
            pass
        assert {child.pid, *below} <= {*load.descendants()}
    finally:
        child.communicate(b"\n")
    assert child.pid not in load.descendants()


# Measuring


@pytest.fixture
def others(monkeypatch) -> Callable[[Callable[[int], float]], None]:
    """Every block is a window, in which other processes have others(window) of four cores."""

    def use(of_window: Callable[[int], float]) -> None:
        state = {"window": -1, "now": START}

        def snapshot(ours=()):
            state["window"] += 1
            if state["window"]:
                more = later(own=4 - of_window(state["window"]), others=of_window(state["window"]))
                before, now = START, state["now"]
                state["now"] = Counters(
                    4,
                    now.time_s + more.time_s - before.time_s,
                    now.busy_s + more.busy_s - before.busy_s,
                    now.own_s + more.own_s - before.own_s,
                    7,
                )
            return state["now"]

        monkeypatch.setattr(load, "snapshot", snapshot)
        monkeypatch.setattr(load, "WINDOW_S", 0.0)

    return use


@pytest.fixture
def calls(monkeypatch) -> list[float]:
    """The n-th call takes n ms."""
    taken: list[float] = []

    def time_ms(timed):
        taken.append(float(len(taken)))
        return taken[-1]

    monkeypatch.setattr(timing, "_time_ms", time_ms)
    return taken


NOTHING = Timed(1, 1, "eager", lambda observation: observation, np.zeros(1), None)


def test_disturbed_blocks_are_taken_again(others, calls):
    others(lambda window: 1.0 if window in (2, 4) else 0.0)
    [profile] = measure_calls([NOTHING], seconds=1e9, wanted=6 * BLOCK)
    assert profile.load == "quiet"
    assert len(calls) == 8 * BLOCK
    kept = [block for block in range(8) if block not in (1, 3)]
    expected = np.reshape([np.arange(BLOCK) + BLOCK * block for block in kept], -1)
    np.testing.assert_array_equal(profile.samples_ms, expected)


def test_what_is_mostly_disturbed_is_marked_and_ends(others, calls, capsys):
    others(lambda window: 1.0)
    [profile] = measure_calls([NOTHING], seconds=1e9, wanted=6 * BLOCK)
    assert profile.disturbed and len(profile.samples_ms) == 6 * BLOCK
    assert len(calls) == 12 * BLOCK
    assert "warning: other processes used 1 cores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("whole", "encoder", "told"),
    [
        ("quiet", "quiet", "quiet"),
        ("quiet", "disturbed", "disturbed"),
        ("disturbed", "quiet", "disturbed"),
        ("quiet", "unknown", "unknown"),
        ("disturbed", None, "disturbed"),
    ],
)
def test_a_row_is_as_disturbed_as_its_encoder(monkeypatch, whole, encoder, told):
    found = [LatencyProfile(np.full(3, 2.0), "test", load=name) for name in (whole, encoder)]
    monkeypatch.setattr(timing, "measure_calls", lambda timed, *_: found[: len(timed)])
    encode = (lambda observation: torch.zeros(1)) if encoder else None
    [profile] = timing.measure_parts([replace(NOTHING, encode=encode)], seconds=0)
    assert (profile.load, profile.encoder_ms) == (told, 2.0 if encoder else None)


def test_the_time_is_kept_to(others, calls):
    others(lambda window: 1.0)
    [profile] = measure_calls([NOTHING], seconds=0.5, wanted=1000 * BLOCK)
    assert sum(calls) < 500 + len(calls) and profile.disturbed


def test_the_bar_of_latencies_is_whole_in_the_end_and_never_beyond(others, calls, monkeypatch):
    """The k-th call takes k ms, so fewer fit in the time than the first ones let expect."""
    others(lambda window: 0.0)
    shares = []

    class Bar(tqdm):
        def update(self, n=1):
            super().update(n)
            shares.append(self.n / self.total)

    monkeypatch.setattr(timing, "progress_bar", Bar)
    measure_calls([NOTHING, NOTHING], seconds=5, wanted=1000 * BLOCK)
    assert max(shares) == shares[-1] == 1
    assert len(shares) > 4 and shares[1] < 0.5


def test_an_unknown_load_is_said(monkeypatch, calls):
    monkeypatch.setattr(load, "snapshot", lambda ours=(): None)
    [profile] = measure_calls([NOTHING], seconds=1e9, wanted=BLOCK)
    assert profile.load == "unknown" and len(profile.samples_ms) == BLOCK


def test_every_call_has_its_threads(calls):
    seen = []
    before = torch.get_num_threads()

    def call(observation):
        seen.append(torch.get_num_threads())
        return observation

    both = [replace(NOTHING, call=call, threads=n) for n in (1, 2, None)]
    measure_calls(both, seconds=0, wanted=1)
    assert set(seen) == {1, 2, before} and torch.get_num_threads() == before


def test_the_baseline_is_taken_at_its_best_number_of_threads():
    timed = [replace(NOTHING, engine="diffusers", threads=n) for n in (1, 2)] + [NOTHING]
    profiles = [LatencyProfile(np.full(3, ms), "test") for ms in (2.0, 9.0, 1.0)]
    found, fastest = latency._fastest(timed, profiles)
    assert [(t.engine, t.threads) for t in found] == [("diffusers", 1), ("eager", None)]
    assert [p.samples_ms[0] for p in fastest] == [2.0, 1.0]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        config = LatencyConfig(net="mlp", ddim_steps=(1,), engine=("eager",), baseline="diffusers")
        pytest.importorskip("diffusers")
        found = [(t.engine, t.threads) for t in latency._plan_of_run(config).timed]
    finally:
        torch.set_num_threads(before)
    assert found == [("eager", None), ("diffusers", 1), ("diffusers", 2)]


# The mark


@pytest.fixture
def disturbed_file(tiny_run, tmp_path, others, capsys):
    """A profile, and what the command printed."""
    others(lambda window: 1.0)
    path = tmp_path / "latency.json"
    given = {"run": tiny_run, "ddim_steps": (1, 2), "engine": ("eager",), "seconds": 0.05}
    capsys.readouterr()
    latency.latency(LatencyConfig(json=path, **given))
    path.with_suffix(".txt").write_text(capsys.readouterr().out)
    return path


def test_the_mark_stands_on_the_terminal_and_in_the_json(disturbed_file):
    records = json.loads(disturbed_file.read_text())["records"]
    assert [r["load"] for r in records] == ["disturbed"] * 2
    printed = disturbed_file.with_suffix(".txt").read_text()
    assert "latency of one control step in ms, disturbed; " in printed
    assert "largest budget within" in printed and "(disturbed)" in printed


def test_a_replayed_mark_is_the_file_s(disturbed_file, tiny_run):
    policies = [Policy.load(tiny_run, ddim_steps=k) for k in (1, 2)]
    assert [p.load for p in replay(disturbed_file, policies)] == ["disturbed"] * 2
    result = json.loads(disturbed_file.read_text())
    for record in result["records"]:
        del record["load"]  # as files of before have it
    disturbed_file.write_text(json.dumps(result))
    assert [p.load for p in replay(disturbed_file, policies)] == ["unknown"] * 2


def test_latencies_with_gradients_are_not_those_without(disturbed_file, tiny_run):
    plain = Policy.load(tiny_run, ddim_steps=1)
    guided = Policy.load(tiny_run, ddim_steps=1, late="guided", start=90)
    with pytest.raises(DiffpolicyError, match="of 1 evaluation and 1 gradient of a network"):
        replay(disturbed_file, [guided])
    result = json.loads(disturbed_file.read_text())
    assert [record["gradient_evals"] for record in result["records"]] == [0, 0]
    for record in result["records"]:
        record["gradient_evals"] = 1
    disturbed_file.write_text(json.dumps(result))
    assert len(replay(disturbed_file, [guided])) == 1
    with pytest.raises(DiffpolicyError, match="of 1 evaluation of a network"):
        replay(disturbed_file, [plain])


SMALL = {"episodes": 2, "envs": 2, "batch": 2, "max_steps": 5, "engine": "eager", "floor": 0.0}


@pytest.mark.parametrize("accepted", [False, True])
def test_no_recommendation_rests_on_disturbed_latencies_unasked(
    disturbed_file, tiny_run, tmp_path, accepted
):
    config = SweepConfig(
        run=tiny_run,
        ddim_steps=(1, 2),
        ddpm=False,
        pictures=False,
        margin=0.9,
        latency_from=disturbed_file,
        accept_disturbed=accepted,
        out=tmp_path / "sweep",
        **SMALL,
    )
    paused, simulated = sweep(config).recommendations
    assert "other processes" not in paused.reason
    assert ("--accept-disturbed" in simulated.reason) == (not accepted)
    assert ("; latencies are disturbed" in simulated.reason) == accepted
    if not accepted:
        assert simulated.name is None and not simulated.regression_suffices
    assert ">disturbed</td>" in (tmp_path / "sweep" / "report.html").read_text()


def test_declared_latencies_are_never_disturbed():
    assert not declared(2.0, 10).disturbed


def test_the_wall_clock_is_marked_too(tiny_run, tmp_path, others):
    others(lambda window: 1.0)
    small = {name: value for name, value in SMALL.items() if name != "floor"}
    path = tmp_path / "eval.json"
    given = {**small, "max_steps": 15, "json": path}
    evaluate_budget(EvalConfig(run=tiny_run, ddim_steps=1, clock="wall", **given))
    [record] = json.loads(path.read_text())["records"]
    assert record["load"] == "disturbed"
    [profile] = replay(path, [Policy.load(tiny_run, ddim_steps=1)])
    assert profile.disturbed


def test_a_kept_profile_has_every_field_of_a_profile():
    assert [f.name for f in fields(KeptProfile)] == [f.name for f in fields(LatencyProfile)]
