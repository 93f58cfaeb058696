"""Jobs on a real Ray cluster of this computer: they give what they give here."""

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.cluster import episodes, jobs
from diffpolicy.cluster.jobs import Job, connect, gpus_for, run_jobs, whole_machine
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval import suite as suites
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.experiment_config import SuiteConfig
from diffpolicy.eval.sweep import sweep
from diffpolicy.training import seeds
from diffpolicy.training.config import TrainConfig

ray = pytest.importorskip("ray")
CPUS = 2


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """A cluster of one machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.shutdown()  # a connection of other tests of this process
        ray.init(
            address="local",
            num_cpus=CPUS,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
        )
        yield
        ray.shutdown()


FAILURES = {
    OSError(errno.ENOSPC, "No space left on device", "/data/x"): "No space left on device: /data/x",
    MemoryError("no 8 GiB"): "has not enough memory: no 8 GiB",
    KeyboardInterrupt(): "interrupted on",
}


def fail(number: int) -> None:
    raise list(FAILURES)[number]


def square(x: int) -> int:
    return x * x


def refuse(_: int) -> int:
    raise DiffpolicyError("expected an even number; got 3")


def killed_once(path: Path) -> int:
    """The process; the first one is killed."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_with_their_jobs():
    found = {
        job.name: value for job, value in run_jobs([Job(str(n), square, (n,)) for n in range(5)])
    }
    assert found == {str(n): n * n for n in range(5)}


def test_an_error_names_its_job_in_one_line():
    with pytest.raises(DiffpolicyError) as error:
        list(run_jobs([Job("three", refuse, (3,))]))
    assert str(error.value) == "three: expected an even number; got 3"


@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_failures_of_a_machine_are_one_line(number):
    with pytest.raises(DiffpolicyError) as error:
        list(run_jobs([Job("job", fail, (number,))]))
    said = str(error.value)
    assert said.startswith("job: ") and list(FAILURES.values())[number] in said
    assert len(said.splitlines()) == 1 and "\x1b" not in said


def test_jobs_that_no_machine_can_run_are_told(caplog, monkeypatch):
    class Started(Exception):
        pass

    def start(*_):
        raise Started

    monkeypatch.setattr(ray, "wait", start)
    for cpus, told in ((CPUS, False), (CPUS + 1, True)):
        caplog.clear()
        with pytest.raises(Started):
            list(run_jobs([Job("job", square, (1,))], cpus))
        said = f"no machine of the Ray cluster has {cpus} CPUs; the jobs wait for one"
        assert (said in caplog.text) == told


def test_a_policy_on_cuda_needs_a_gpu_in_the_cluster(monkeypatch):
    on = {name: SimpleNamespace(device=SimpleNamespace(type=name)) for name in ("cpu", "cuda")}
    assert episodes._gpus(ray, on["cpu"]) == episodes._gpus(ray, SimpleNamespace()) == 0
    with pytest.raises(DiffpolicyError, match=r"the cluster has no GPU; try --device cpu"):
        episodes._gpus(ray, on["cuda"])
    monkeypatch.setattr(episodes, "gpus_for", lambda *_: 1)
    assert episodes._gpus(ray, on["cuda"]) == 1


def test_a_job_whose_worker_is_killed_runs_again(tmp_path):
    [(_, process)] = run_jobs([Job("again", killed_once, (tmp_path / "killed",))])
    assert process and process != os.getpid()


def test_a_job_that_always_kills_its_worker_is_one_error(monkeypatch):
    monkeypatch.setattr(jobs, "RETRIES", 1)
    with pytest.raises(DiffpolicyError, match=r"^always: its worker died 2 times"):
        list(run_jobs([Job("always", killed, ())]))


def test_a_folder_that_a_machine_lacks_and_another_version_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DiffpolicyError, match=r"^job: .* does not see .*absent; .* machines share"):
        list(run_jobs([Job("job", square, (1,), tmp_path / "absent")]))
    monkeypatch.setattr(jobs, "__version__", "0.0")
    with pytest.raises(DiffpolicyError, match=r"has diffpolicy .*; expected 0\.0"):
        list(run_jobs([Job("job", square, (1,))]))


def test_a_whole_machine_is_all_its_cpus_and_there_is_no_gpu():
    assert whole_machine(connect()) == CPUS
    assert gpus_for(connect(), "auto") == 0


def test_runs_of_seeds_are_those_of_this_computer(balance_store, tmp_path):
    about = {"steps": 20, "hidden": 32, "blocks": 1, "device": "cpu", "threads": 1}
    config = TrainConfig(data=balance_store, out=tmp_path / "runs", seeds=(0, 1), **about)
    seeds.command(replace(config, on="ray"))
    seeds.command(replace(config, on="ray", resume=True))  # finished ones do not train again
    for run in seeds.of_seeds(config):
        here = replace(run, out=tmp_path / "here" / run.out.name)
        seeds.train(here)
        ours, theirs = (load_training(folder / TRAINING_FILE)[0] for folder in (here.out, run.out))
        assert all((ours[name] == theirs[name]).all() for name in ours)


def test_no_folder_is_made_for_data_that_are_none(tmp_path):
    config = TrainConfig(data=tmp_path / "absent", out=tmp_path / "runs", seeds=(0, 1), on="ray")
    with pytest.raises((DiffpolicyError, OSError), match="absent"):
        seeds.command(config)
    assert not list(tmp_path.iterdir())


def test_a_sweep_on_ray_has_the_episodes_of_this_computer(tiny_run, tmp_path):
    common = {"episodes": 60, "max_steps": 30, "ddim_steps": (1, 2), "ddpm": False, "workers": 1}
    common |= {"ms_per_step": 30.0, "pictures": False, "envs": 16, "batch": 16}
    here = SweepConfig(run=tiny_run, out=tmp_path / "here", **common)
    there = replace(here, out=tmp_path / "there", on="ray")
    ours, theirs = sweep(here), sweep(there)
    names = ("sweep_episodes.csv", "sweep_budgets.csv")
    for name in names:
        assert (here.out / name).read_bytes() == (there.out / name).read_bytes()
    assert (ours.provenance.on, theirs.provenance.on) == ("local", "ray")


def test_a_suite_on_ray_has_the_episodes_of_this_computer(tmp_path, monkeypatch):
    evaluation = {"episodes": 4, "max_steps": 30, "ddim_steps": [1, 2], "ddpm": False}
    protocol = {
        "demonstrations": 2,
        "training": {"steps": 5, "hidden": 16, "blocks": 1},
        "evaluation": {**evaluation, "ms_per_step": 5.0, "seed": 9},
        "seed": 0,
    }
    tasks = ("Balance-v0",)
    monkeypatch.setattr(suites, "TASKS", tasks)
    monkeypatch.setitem(suites.PROTOCOLS, "quick", protocol)
    here = SuiteConfig(out=tmp_path / "here", device="cpu", threads=1)
    there = replace(here, out=tmp_path / "there", on="ray")
    suites.suite(here)
    suites.suite(there)
    for task in tasks:
        ours, theirs = (config.out / task / "sweep_episodes.csv" for config in (here, there))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"--on ray measures no latencies.*--latency-from FILE"),
        ({"clocks": ("wall",), "ms_per_step": 1.0}, r"--clocks wall needs this computer"),
    ],
)
def test_real_time_and_latencies_are_not_measured_on_ray(tiny_run, options, message):
    with pytest.raises(DiffpolicyError, match=message):
        SweepConfig(run=tiny_run, on="ray", **options)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(jobs, "find_spec", lambda _: None)
    with pytest.raises(DiffpolicyError, match=r"pip install 'diffpolicy\[ray\]'"):
        connect()
