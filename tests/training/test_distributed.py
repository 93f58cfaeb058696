"""Laws of training in several processes: the batch, the loss and the weights of one process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_training_pictures import MODEL, TASK, specification
from test_training_pictures import windows as windows_of_pictures

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.config import ModelConfig
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training import distributed
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.correction import train_correction
from diffpolicy.training.distill import distill
from diffpolicy.training.distributed import (
    ALONE,
    INTERRUPTED,
    LostProcess,
    Ranks,
    _is_told,
    ranks_of,
)
from diffpolicy.training.learner import Learner
from diffpolicy.training.precision import BFLOAT16, FLOAT32
from diffpolicy.training.seeds import command

HORIZONS, CPU, BATCH = Horizons(2, 8, 4), torch.device("cpu"), 12
Train = Callable[[TrainConfig], object]
FORKS = "ignore:This process .* is multi-threaded:DeprecationWarning"

SCRIPT = """
import os, signal, sys
from diffpolicy.training import train as training
from diffpolicy.training.learner import Learner
from diffpolicy.cli import main
training.SAVE_EVERY_S, learn, kill_at = 0.0, Learner.learn, int(sys.argv.pop(1))

def killed(self, *inputs):
    if (os.environ["RANK"], self.step) == ("1", kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, *inputs)

Learner.learn = killed
main()
"""


@pytest.fixture(scope="module")
def config(balance_store, tmp_path_factory) -> TrainConfig:
    out = tmp_path_factory.mktemp("alone") / "run"
    small = {"hidden": 32, "blocks": 1, "batch": 32, "threads": 1}
    return TrainConfig(data=balance_store, out=out, steps=20, device="cpu", **small)


@pytest.fixture(scope="module")
def uninterrupted(config):
    training.train(config)
    return load_training(config.out / TRAINING_FILE)[0]


def torchrun(config: TrainConfig, folder, kill_at: int = -1) -> subprocess.CompletedProcess[str]:
    """Train in two processes, rank 1 of which is killed at a step."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    names = ("data", "out", "hidden", "blocks", "batch", "threads", "steps", "device")
    options = [x for name in names for x in (f"--{name}", str(getattr(config, name)))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, script, str(kill_at), "train", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_near(out, expected) -> None:
    tensors, state = load_training(out / TRAINING_FILE)
    assert state.step == 20 and tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=1e-5)


def train_as(config: TrainConfig, variables: dict[str, str], train: Train) -> None:
    os.environ.update(variables)
    train(config)


def train_together(
    config: TrainConfig, count: int, train: Train = training.train
) -> list[int | None]:
    """Exit statuses of so many processes; forks, so that torch is imported once."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = str(found.getsockname()[1])
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    processes = [
        get_context("fork").Process(
            target=train_as,
            args=(config, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, train),
        )
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.filterwarnings(FORKS)
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_end_with_the_weights_of_one(config, uninterrupted, tmp_path, count):
    several = replace(config, out=tmp_path / "run")
    assert train_together(several, count) == [0] * count
    assert_near(several.out, uninterrupted)
    ours, theirs = (sorted(path.name for path in c.out.iterdir()) for c in (several, config))
    assert ours == theirs


@pytest.mark.filterwarnings(FORKS)
def test_two_processes_go_on_where_one_was_interrupted(
    config, uninterrupted, tmp_path, monkeypatch
):
    config, learn = replace(config, out=tmp_path / "run"), Learner.learn

    def interrupted(self, *inputs):
        if self.step == 10:
            signal.raise_signal(signal.SIGINT)
        return learn(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(config)
    assert train_together(replace(config, resume=True), 2) == [0, 0]
    assert_near(config.out, uninterrupted)


@pytest.mark.filterwarnings(FORKS)
def test_a_signal_to_one_process_stops_all_after_the_same_step(config, tmp_path, monkeypatch):
    config, learn = replace(config, out=tmp_path / "run"), Learner.learn

    def interrupted(self, *inputs):
        if (os.environ["RANK"], self.step) == ("1", 10):
            signal.raise_signal(signal.SIGTERM)
        return learn(self, *inputs)

    monkeypatch.setattr(Learner, "learn", interrupted)
    assert train_together(config, 2) == [1, INTERRUPTED]  # KeyboardInterrupt, and in silence
    assert load_training(config.out / TRAINING_FILE)[1].step == 11


@pytest.mark.filterwarnings(FORKS)
def test_processes_with_different_options_are_refused(config, tmp_path, monkeypatch):
    fit = training.fit
    monkeypatch.setattr(
        training, "fit", lambda c, *rest: fit(replace(c, lr=0.1 + rest[-1].rank), *rest)
    )
    assert train_together(replace(config, out=tmp_path / "run"), 2) in ([1, 2], [2, 1])
    assert not (tmp_path / "run" / TRAINING_FILE).exists()


@pytest.mark.filterwarnings(FORKS)
@pytest.mark.parametrize("seeds", [(), (0, 1), (1, 1)])
def test_the_command_tells_an_error_of_all_processes_once(config, tmp_path, seeds):
    taken = replace(config, out=tmp_path, seeds=seeds)
    (tmp_path / "seed-1").mkdir()
    for folder in (tmp_path, tmp_path / "seed-1"):
        (folder / TRAINING_FILE).write_bytes(b"")
    statuses = train_together(taken, 2, command)
    assert sorted(map(str, statuses)) == ["1", "2"]  # DiffpolicyError, and in silence


def test_a_folder_that_rank_0_cannot_write_is_told_by_it_alone(config, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    done = torchrun(replace(config, out=tmp_path / "out" / "run"), tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("diffpolicy: ")]
    assert lines == [f"diffpolicy: Not a directory: {tmp_path / 'out' / 'run'}"]


@pytest.mark.filterwarnings(FORKS)
def test_several_seeds_are_trained_by_all_processes_in_turn(config, uninterrupted, tmp_path):
    both = replace(config, out=tmp_path, seeds=(3, config.seed))
    assert train_together(both, 2, command) == [0, 0]
    assert_near(tmp_path / f"seed-{config.seed}", uninterrupted)


def test_after_a_killed_process_one_alone_goes_on_to_the_same_weights(
    config, uninterrupted, tmp_path
):
    two = replace(config, out=tmp_path / "run")
    done = torchrun(two, tmp_path, kill_at=9)
    lines = [line for line in done.stderr.splitlines() if line.startswith("diffpolicy: ")]
    assert done.returncode != 0
    assert lines == [
        "diffpolicy: another process of this training ended; continue from the last checkpoint "
        "with --resume"
    ]
    assert load_training(two.out / TRAINING_FILE)[1].step == 9
    training.train(replace(two, resume=True))
    assert_near(two.out, uninterrupted)


def vectors(task: Task, **options) -> tuple[Learner, object]:
    """A learner of vectors, and windows many of whose actions lie beyond an episode's ends."""
    rng = np.random.default_rng(0)
    observations = {FLAT: rng.standard_normal((30, 3)).astype(np.float32)}
    actions = rng.uniform(-1, 1, (30, 2)).astype(np.float32)
    windows = make_windows(observations, actions, np.arange(3, 31, 3), HORIZONS)
    noise = options.pop("observation_noise", 0.0)
    specification = Specification(
        ModelConfig(hidden=16, blocks=1, **options), HORIZONS, task, 1.0, {}
    )
    return Learner(specification, CPU, observation_noise=noise), windows


def pictures() -> tuple[Learner, object]:
    return Learner(specification(MODEL, TASK), CPU, colour_jitter=0.3), windows_of_pictures()


MASKED = Task("none", 0.1, False, flat_observation(3), 2)
CASES = {
    "all rows count": lambda: vectors(replace(MASKED, position_targets=True)),
    "masked": lambda: vectors(MASKED),
    "prefix": lambda: vectors(MASKED, prefix_max=3),
    "displaced": lambda: vectors(MASKED, observation_noise=0.5),
    "regression": lambda: vectors(MASKED, objective="regression"),
    "mip": lambda: vectors(MASKED, objective="mip"),
    "pictures": pictures,
}


def gradients(made, ranks: Ranks, precision: str = FLOAT32) -> tuple[float, torch.Tensor]:
    learner, windows = made()
    learner.ranks, learner.precision = ranks, precision
    loss = learner.backward(windows, BATCH)
    return float(loss), torch.cat([p.grad.flatten() for p in learner.parameters])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_of_all_parts_add_up_to_those_of_the_batch(case, count):
    loss, gradient = gradients(CASES[case], ALONE)
    parts = [gradients(CASES[case], Ranks(rank, count)) for rank in range(count)]
    assert sum(part for part, _ in parts) == pytest.approx(loss, rel=1e-5)
    assert len({part for part, _ in parts}) == count
    torch.testing.assert_close(sum(part for _, part in parts), gradient, rtol=1e-4, atol=1e-6)


def test_a_batch_of_which_nothing_counts_has_no_loss():
    """One window at the end of an episode, whose last actions are given."""
    ours, windows = CASES["prefix"]()
    losses = []
    for ours.step in range(40):
        losses.append(float(ours.backward(windows, 1)))
        assert all(p.grad.isfinite().all() for p in ours.parameters)
    assert 0.0 in losses and all(np.isfinite(losses))


def test_in_bfloat16_parts_add_up_within_its_rounding():
    loss, gradient = gradients(CASES["masked"], ALONE, BFLOAT16)
    (one, first), (other, second) = (
        gradients(CASES["masked"], Ranks(rank, 2), BFLOAT16) for rank in (0, 1)
    )
    assert one + other == pytest.approx(loss, rel=0.01)
    assert torch.cosine_similarity(first + second, gradient, dim=0) > 0.999


def test_parts_are_equal_and_cover_the_batch():
    parts = [range(12)[Ranks(rank, 4).rows(12)] for rank in range(4)]
    assert parts == [range(0, 3), range(3, 6), range(6, 9), range(9, 12)]
    assert list(range(5))[ALONE.rows(5)] == list(range(5))


@pytest.mark.parametrize(
    ("batch", "count", "message"),
    [
        (33, 2, r"--batch 33 is not a multiple of 2, the number of processes; try --batch 34"),
        (1, 4, r"--batch 1 is not a multiple of 4, .*; try --batch 4"),
    ],
)
def test_a_batch_that_cannot_be_shared_equally_is_refused(batch, count, message):
    with pytest.raises(DiffpolicyError, match=message):
        Ranks(0, count).check_batch(batch)
    Ranks(0, count).check_batch(4 * count)


def test_a_machine_with_fewer_devices_than_processes_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DiffpolicyError, match=r"has 2 CUDA devices.*try torchrun --nproc-per-node"):
        Ranks(2, 3, local=2).device("cuda")
    assert Ranks(2, 3, local=2).device("cpu") == CPU


VARIABLES = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "x"}, "RANK is not a whole number; got 'x'; expected the variables of torchrun"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is not a whole number; got '-2'"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is not a whole number; got ''"),
        ({"RANK": "2"}, "RANK 2 is not below WORLD_SIZE 2"),
    ],
)
def test_damaged_variables_of_torchrun_are_one_error(changed, message):
    with pytest.raises(DiffpolicyError, match=message):
        ranks_of(VARIABLES | changed)


def test_ranks_are_those_of_torchrun_and_one_process_is_alone():
    assert ranks_of(VARIABLES) == Ranks(1, 2, 0)
    assert ranks_of({}) == ranks_of({"WORLD_SIZE": "1"}) == ALONE


@pytest.mark.parametrize(
    ("name", "other"), [("distill", distill), ("train-correction", train_correction)]
)
def test_other_commands_run_in_one_process(monkeypatch, name, other):
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):  # rank 1 says nothing
        other(None)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DiffpolicyError, match=f"{name} does not run in 2 processes; expected one"):
        other(None)


def test_an_error_of_all_processes_is_told_once_and_each_other_error_too():
    store, missing, lost = dist.HashStore(), DiffpolicyError("no store"), LostProcess("lost")
    assert [_is_told(store, error) for error in (missing, missing, lost)] == [False, True, True]
    assert not _is_told(store, DiffpolicyError("another error"))
    assert [_is_told(dist.HashStore(), lost)] == [False]
