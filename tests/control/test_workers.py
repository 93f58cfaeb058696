"""Episodes in worker processes: the same as in one, and no process outlives its use."""

import os
import pickle
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import ClassVar, Self
from weakref import WeakSet

import numpy as np
import pytest
import torch
from faulty import TICKS, make_faulty

from diffpolicy.config import ModelConfig
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import PAUSED, declared
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.workers import Workers, cores, one_thread, worker_count
from diffpolicy.denoisers import build
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.measure.evaluator import ROWS, Evaluator
from diffpolicy.policy import Policy
from diffpolicy.specification import Horizons
from diffpolicy.terminal.progress import EpisodeBar

CPU = torch.device("cpu")
SMALL = {"episodes": 7, "envs": 2, "batch": 4, "max_steps": 40}


@pytest.fixture
def bar():
    with EpisodeBar("episodes", 5, TICKS) as opened:
        yield opened


def die():
    os._exit(9)


def fail():
    raise DiffpolicyError("there is no such environment")


class Parcel:
    """A source with engines that counts its journeys."""

    arrived: ClassVar[WeakSet[Self]] = WeakSet()  # and not freed, in this process

    def __init__(self, name: str):
        self.name, self.journeys, self.others = name, 0, 0
        self.itself = self  # as policies whose samplers refer to them

    def __getstate__(self):
        self.journeys += 1
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        self.others = len(self.arrived)
        self.arrived.add(self)

    def engine(self, batch=1): ...
    def prepare(self, batch=1): ...
    def with_engine(self, name): ...


def contents(parcel, at):
    return parcel.name, parcel.journeys, parcel.others


def fail_with(parcel, at):
    raise DiffpolicyError("there is no such environment")


PARENT = """
import time
from pathlib import Path

from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.control.latency import PAUSED
from diffpolicy.policy import Policy
from diffpolicy.control.workers import Workers

if __name__ == "__main__":
    policy = Policy.load("{run}", ddim_steps=1, engine="eager")
    evaluator = Evaluator(EvalConfig(run=Path("{run}"), max_steps=5), policy)
    two = Workers(2)
    two.run_episodes(policy, evaluator.make, range(4), PAUSED, evaluator.options)
    pids = "\\n".join(str(worker.process.pid) for worker in two._crew.values())
    Path("{found}.partial").write_text(pids)
    Path("{found}.partial").rename("{found}")
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def policy(tiny_run) -> Policy:
    return Policy.load(tiny_run, ddim_steps=2, engine="eager")


@pytest.fixture(scope="module")
def two():
    """Two workers for the whole file: starting them takes seconds."""
    workers = Workers(2)
    yield workers
    workers.close()


def test_records_are_the_same_to_the_bit_in_one_process_and_in_two(tiny_run, policy, two):
    evaluator = Evaluator(EvalConfig(run=tiny_run, **SMALL), policy)
    robot = declared(30.0, policy.network_evals)
    found = []
    for evaluator.workers in (Workers(1), two):
        row, _ = evaluator.evaluate(policy, "simulated", robot)
        episodes = evaluator.workers.run_episodes(
            policy, evaluator.make, evaluator.seeds, robot, evaluator.options
        )
        found.append((row, [asdict(e) for e in episodes]))
    assert repr(found[0]) == repr(found[1])
    assert [e["seed"] for e in found[1][1]] == list(evaluator.seeds)


def test_what_is_wrong_in_a_worker_is_said_here(tiny_run, policy, two):
    options = Evaluator(EvalConfig(run=tiny_run, **SMALL), policy).options
    with pytest.raises(DiffpolicyError, match="there is no such environment"):
        two.run_episodes(policy, fail, range(4), PAUSED, options)


def test_a_source_is_sent_once_and_the_one_before_is_freed_first():
    workers = Workers(1)
    a, b = Parcel("a"), Parcel("b")
    found = [workers.call(contents, parcel, timeout_s=None) for parcel in (a, a, b, b, a)]
    assert found == [("a", 1, 0), ("a", 1, 0), ("b", 1, 0), ("b", 1, 0), ("a", 2, 0)]
    with pytest.raises(DiffpolicyError, match="no such environment"):
        workers.call(fail_with, a, timeout_s=None)
    assert workers.call(contents, a, timeout_s=None) == ("a", 3, 0)
    with pytest.raises((AttributeError, PicklingError)):
        workers.call(lambda parcel, at: None, b, timeout_s=None)
    assert workers.call(contents, a, timeout_s=None) == ("a", 3, 0)
    workers.close()


def test_a_worker_that_dies_is_one_clear_error_and_the_next_run_works(tiny_run, policy, two):
    evaluator = Evaluator(EvalConfig(run=tiny_run, **SMALL), policy)
    with pytest.raises(DiffpolicyError, match=r"constructor ended its process \(exit status 9\)"):
        two.run_episodes(policy, die, range(4), PAUSED, evaluator.options)
    assert len(two.run_episodes(policy, evaluator.make, range(3), PAUSED, evaluator.options)) == 3


FEW = RolloutOptions(control_dt_s=0.02, envs=2, batch=16, limit=TICKS)


def test_episodes_are_those_of_this_process(policy, two):
    make_env = partial(make_faulty, "nan")
    with one_thread():
        here = run_episodes(policy, make_env, range(5), PAUSED, FEW)
    assert two.run_episodes(policy, make_env, range(5), PAUSED, FEW) == here
    torch.set_num_threads(2)  # of the parent, and so of nothing that matters
    assert two.run_episodes(policy, make_env, range(5), PAUSED, replace(FEW, envs=16)) == here
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("habit", "told"),
    [
        ("exit", r"step ended its process \(exit status 0\)"),
        ("orphan", r"step ended its process \(exit status 0\)"),
        ("crash", r"step ended its process \(SIGSEGV\)"),
        ("hang", "step takes more than 2 s"),
    ],
)
def test_a_process_that_ends_or_hangs_names_tick_and_seed_and_loses_no_other(
    policy, two, bar, habit, told
):
    make_env, options = partial(make_faulty, habit), replace(FEW, step_timeout=2.0)
    seeds, kept = [*range(4), 6], []
    with pytest.raises(DiffpolicyError, match=rf"{told}, at tick 9 of seed [13]"):
        two.stream_episodes(policy, make_env, seeds, PAUSED, options, kept.append, bar)
    assert not two._crew  # nothing is left running
    forgiving = replace(options, on_env_error="fail-episode")
    kept.clear()
    two.stream_episodes(policy, make_env, seeds, PAUSED, forgiving, kept.append, bar)
    found = sorted(kept, key=lambda e: e.seed)
    assert [e.seed for e in found] == seeds
    with one_thread():
        good = run_episodes(policy, make_faulty, [0, 2, 6], PAUSED, FEW)
    assert [e for e in found if not e.failure] == good
    assert [(e.seed, e.broken, e.ticks) for e in found if e.failure] == [(1, True, 9), (3, True, 9)]


def test_a_worker_that_is_killed_from_outside_is_no_failed_episode(policy, two):
    options = replace(FEW, on_env_error="fail-episode")
    with pytest.raises(DiffpolicyError, match=r"worker process died \(SIGKILL\).*seeds 1, 3"):
        two.run_episodes(policy, partial(make_faulty, "killed"), range(4), PAUSED, options)


def test_the_wall_clock_runs_in_a_process_too(policy, two, bar):
    make_env, options = partial(make_faulty, "exit"), replace(FEW, on_env_error="fail-episode")
    found = []
    two.stream_on_wall_clock(policy, make_env, [2, 3], options, found.append, bar)
    good, broken = found
    assert good.latency_ms and not good.failure
    assert "ended its process (exit status 0), at tick 9" in str(broken.failure)


def test_closing_stops_the_processes(tiny_run, policy, two):
    evaluator = Evaluator(EvalConfig(run=tiny_run, **SMALL), policy)
    two.run_episodes(policy, evaluator.make, range(2), PAUSED, evaluator.options)
    processes = [worker.process for worker in two._crew.values()]
    assert len(processes) == 2
    two.close()
    assert not any(process.is_alive() for process in processes)


def test_workers_end_with_their_parent(tiny_run, tmp_path):
    """Even where it is killed, and nothing of its own code runs any more."""
    found = tmp_path / "pids"
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(run=tiny_run, found=found))
    with subprocess.Popen([sys.executable, script]) as parent:
        _wait_until(lambda: found.exists() or parent.poll() is not None)
        assert found.exists(), "the parent has ended"
        parent.kill()
    pids = [int(pid) for pid in found.read_text().split()]
    assert len(pids) == 2
    _wait_until(lambda: not any(map(_runs, pids)))
    assert not any(map(_runs, pids))


def test_rows_of_a_unet_do_not_depend_on_their_place():
    """So the number of workers is irrelevant; batches are multiples of 16 for that reason."""
    model = ModelConfig(denoiser="unet", unet_channels=(32, 64), condition=32)
    torch.manual_seed(0)
    denoiser = build(model, Horizons(2, 16, 8), 5, 3).eval()
    with one_thread(), torch.inference_mode():
        for batch in (ROWS, 3 * ROWS, 64):
            x, observation = torch.randn(batch, 16, 3), torch.randn(batch, 2, 5)
            order = torch.randperm(batch)
            t = torch.full((batch,), 50)
            shuffled = denoiser(x[order], t, observation[order])
            assert torch.equal(shuffled, denoiser(x, t, observation)[order])


def _wait_until(done) -> None:
    """Two minutes at most: what takes longer has failed."""
    for _ in range(2400):
        if done():
            return
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_as_many_workers_as_are_worth_starting():
    assert worker_count(None, 49, CPU) == worker_count(None, 50, CPU) == 1
    assert worker_count(None, 10**6, CPU) == cores() >= 1
    assert worker_count(None, 10**6, torch.device("cuda")) == 1
    assert worker_count(7, 100, CPU) == 7 and worker_count(7, 3, CPU) == 3


def test_one_thread_is_for_a_while():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_policy_travels_whole(policy):
    history = np.zeros((1, 2, 4), np.float32)
    noise = np.ones(policy.noise_shape(1), np.float32)
    there = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(there(history, noise), policy(history, noise))
    assert there.with_engine("native").engine().name == "native"


def test_an_exported_graph_travels_with_its_policy(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=2, engine="onnx")
    history = np.zeros((1, 2, 4), np.float32)
    noise = np.ones(policy.noise_shape(1), np.float32)
    expected = policy(history, noise)
    there = pickle.loads(pickle.dumps(policy.with_engine("onnx")))
    [engine] = there._engines.values()
    np.testing.assert_array_equal(there(history, noise), expected)
    assert [*there._engines.values()] == [engine]


FINGERPRINT = """
from diffpolicy.eval.measure.kept import fingerprint
from diffpolicy.policy import Policy
print(fingerprint(Policy.load("{run}", ddim_steps=2)))
"""


def test_a_policy_has_one_fingerprint_in_every_process(tiny_run):
    code = FINGERPRINT.format(run=tiny_run)
    found = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)]
    assert found[0] == found[1]
