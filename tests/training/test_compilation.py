"""Laws of compilation in training: the losses and weights of eager, where it is faster."""

import os
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from test_distributed import FORKS, train_together
from test_together import learner as learner_of_vectors
from test_together import windows as windows_of_vectors
from test_training_pictures import CPU, specification
from test_training_pictures import windows as windows_of_pictures

from diffpolicy.checkpoint import load_policy
from diffpolicy.training import choices, compilation
from diffpolicy.training import train as training
from diffpolicy.training.choices import choose_compilation
from diffpolicy.training.compilation import COMPILED, EAGER, compiled, failure, is_better
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.distributed import Ranks
from diffpolicy.training.learner import Learner
from diffpolicy.training.measuring import Measured
from diffpolicy.training.precision import BFLOAT16, FLOAT32

STEPS, BATCH = 6, 16
COMPILER = os.environ.get("CXX", "g++")
NEEDS_COMPILER = pytest.mark.skipif(
    not shutil.which(COMPILER), reason=f"no C++ compiler: {COMPILER} is not on the path"
)


@pytest.fixture
def config(balance_store, tmp_path) -> TrainConfig:
    small = {"hidden": 32, "blocks": 1, "batch": 32, "threads": 1}
    return TrainConfig(data=balance_store, out=tmp_path / "run", steps=12, **small)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without its slow part: the graph is traced, and run by eager kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()


@pytest.fixture
def long(monkeypatch):
    """Every run is long enough, and compilation is always faster."""
    monkeypatch.setattr(choices, "LEAST_MINUTES", 0.0)
    monkeypatch.setattr(choices, "measure", lambda _, *ways: Measured(*ways, 2.0, 0.0))


def trained(ours: Learner, data, precision: str = FLOAT32) -> list[float]:
    """The losses of a few steps, with validation in between; nothing is compiled twice."""
    ours.precision = precision
    losses = []
    for step in range(STEPS):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            losses.append(float(ours.learn(data, BATCH, step / STEPS)))
            ours.validation_loss(data)
    return losses


def agrees(ours: Learner, eager: Learner, data, precision: str = FLOAT32, atol=1e-5) -> None:
    names = list(ours.network.state_dict())
    ours.forward = compiled(ours.network)
    assert ours.compiled and not eager.compiled
    assert trained(ours, data, precision) == pytest.approx(
        trained(eager, data, precision), rel=100 * atol, abs=atol
    )
    assert list(ours.network.state_dict()) == names
    found, expected = ours.tensors(), eager.tensors()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)


@NEEDS_COMPILER
def test_kernels_train_as_eager():
    agrees(learner_of_vectors(0), learner_of_vectors(0), windows_of_vectors(0))


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ({}, BFLOAT16),
        ({"denoiser": "unet"}, BFLOAT16),
        ({"position_targets": True}, FLOAT32),
        ({"objective": "regression"}, FLOAT32),
        ({"prefix_max": 2, "observation_noise": 0.5}, FLOAT32),
    ],
    ids=str,
)
def test_one_graph_holds_every_network(traced, model, precision):
    ours, eager = (learner_of_vectors(0, **model) for _ in range(2))
    atol = 1e-5 if precision == FLOAT32 else 1e-3
    agrees(ours, eager, windows_of_vectors(0), precision, atol)


def test_encoders_of_pictures_stay_eager(traced):
    ours, eager = (Learner(specification(), CPU, colour_jitter=0.3) for _ in range(2))
    agrees(ours, eager, windows_of_pictures())


@pytest.mark.parametrize(
    ("gain", "deviation", "wanted"),
    [
        (1.1, 0.0, True),
        (1.09, 0.0, False),
        (2.0, 0.02, False),
        (2.0, float("nan"), False),
    ],
)
def test_compilation_has_to_be_clearly_faster_and_right(gain, deviation, wanted):
    assert is_better(Measured(EAGER, COMPILED, gain, deviation)) == wanted


def test_a_long_run_says_what_is_measured_and_its_header_has_the_choice(
    traced, long, config, capsys
):
    training.train(config)
    said = capsys.readouterr().out
    assert "compile: compiling the network's call, which takes one to some minutes" in said
    assert "compile: compiled: after" in said
    assert "of compilation, compiled takes 0.50 of the time of eager here" in said
    assert load_policy(config.out).specification.training["compiled"] is True


def test_a_resumed_run_that_is_short_goes_on_eager(traced, long, config, monkeypatch):
    training.train(config)
    monkeypatch.setattr(choices, "LEAST_MINUTES", compilation.LEAST_MINUTES)
    training.train(replace(config, steps=20, resume=True))
    assert load_policy(config.out).specification.training["compiled"] is False


def test_choosing_learns_nothing_and_may_keep_eager(traced, long, config, monkeypatch, capsys):
    training.train(replace(config, compile="off"))
    assert "compile:" not in capsys.readouterr().out
    monkeypatch.setattr(choices, "measure", lambda _, *ways: Measured(*ways, 1.0, 0.0))
    other = replace(config, out=config.out.with_name("other"))
    training.train(other)
    assert "compile: eager: after" in capsys.readouterr().out
    ours, theirs = (load_policy(c.out) for c in (config, other))
    assert ours.specification.training["compiled"] is False
    assert theirs.specification.training["compiled"] is False
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)


def minutes_asked(config, monkeypatch, progress: float = 0.0, step: int = 0) -> bool:
    """True if a run is compiled, with gradients of a second each."""
    asked = []
    monkeypatch.setattr(choices, "median_seconds", lambda _: 1.0)
    monkeypatch.setattr(choices, "compiled", lambda *_: asked.append(True))
    monkeypatch.setattr(choices, "failure", lambda _: "not tried")
    learner = SimpleNamespace(step=step, ranks=Ranks(), network=None, device=CPU)
    choose_compilation(config, learner, lambda: 1.0, progress)  # pyright: ignore[reportArgumentType]
    return bool(asked)


@pytest.mark.parametrize(
    ("target", "progress", "step", "wanted"),
    [
        ({"minutes": 20.0}, 0.0, 0, True),
        ({"minutes": 19.9}, 0.0, 0, False),
        ({"minutes": 60.0}, 0.7, 5, False),
        ({"steps": 1200}, 0.0, 0, True),
        ({"steps": 1199}, 0.0, 0, False),
        ({"steps": 2000}, 0.5, 1000, False),
    ],
)
def test_the_rest_of_the_run_has_to_take_twenty_minutes(
    config, monkeypatch, target, progress, step, wanted
):
    config = replace(config, **{"steps": None, **target})
    assert minutes_asked(config, monkeypatch, progress, step) == wanted


def test_a_short_run_is_not_timed(config, monkeypatch):
    monkeypatch.setattr(choices, "median_seconds", None)
    monkeypatch.setattr(choices, "compiled", None)
    training.train(config)
    assert load_policy(config.out).specification.training["compiled"] is False


def test_a_compilation_that_fails_leaves_the_run_eager(long, config, monkeypatch, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no such compiler\nand much more")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    training.train(config)
    [line] = [x for x in capsys.readouterr().out.splitlines() if "failed" in x]
    assert line.startswith("compile: eager: compilation failed after ")
    assert line.endswith(" s: RuntimeError: no such compiler")
    assert load_policy(config.out).specification.training["compiled"] is False


@NEEDS_COMPILER
def test_no_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    ours = learner_of_vectors(1)
    ours.forward = compiled(ours.network)
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler-at-all")}):
        failed = failure(lambda: ours.backward(windows_of_vectors(1), 8))
    assert "no-such-compiler-at-all" in failed


def test_an_interruption_is_not_a_failed_compilation():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failure(interrupted)


def test_a_failure_in_another_process_leaves_all_eager(traced, long, config, capsys):
    class Failing(Ranks):
        def sum(self, *numbers: float) -> list[float]:
            return [number + 1 for number in numbers]

    ours, data = learner_of_vectors(0), windows_of_vectors(0)
    ours.ranks = Failing()
    choose_compilation(config, ours, lambda: float(ours.backward(data, 8)), 0.0)
    assert not ours.compiled
    assert "s: in another process" in capsys.readouterr().out


@pytest.mark.filterwarnings(FORKS)
def test_the_choice_of_rank_0_holds_for_all_processes(traced, long, config, monkeypatch):
    def measured(_, *ways: str) -> Measured:
        return Measured(*ways, 2.0 if os.environ["RANK"] == "0" else 0.5, 0.0)

    learn = Learner.learn

    def checked(self, *inputs):
        assert self.compiled
        return learn(self, *inputs)

    monkeypatch.setattr(choices, "measure", measured)
    monkeypatch.setattr(Learner, "learn", checked)
    assert train_together(config, 2) == [0, 0]
    assert load_policy(config.out).specification.training["compiled"] is True


def test_compile_is_auto_or_off(call, balance_store, tmp_path):
    code, _, errors = call(
        *("train", "--data", balance_store, "--out", tmp_path / "run", "--compile", "often")
    )
    assert code == 2 and any("--compile" in line for line in errors)
    assert not (tmp_path / "run").exists()
