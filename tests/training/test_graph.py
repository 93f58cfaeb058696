"""Laws of the CUDA graph of a training step's passes: losses and weights of eager."""

from dataclasses import replace

import pytest
import torch
from test_together import BATCH, MODELS, SEEDS, assert_same, learner, windows

from diffpolicy.checkpoint import load_policy
from diffpolicy.training import choices
from diffpolicy.training.choices import choose_graph
from diffpolicy.training.compilation import compiled
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.graph import PassGraph
from diffpolicy.training.measuring import Measured
from diffpolicy.training.precision import BFLOAT16, FLOAT32
from diffpolicy.training.together import Together
from diffpolicy.training.train import train

CUDA, STEPS = torch.device("cuda"), 10
LONG = {"steps": 1000, "batch": 32, "hidden": 32, "blocks": 1}


def test_on_the_cpu_there_is_no_graph(balance_store, tmp_path, capsys):
    config = TrainConfig(data=balance_store, out=tmp_path, **LONG)
    ours = learner(0)
    choose_graph(config, ours, lambda: 1.0)
    assert ours.graph is None and not capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_graph_trains_as_eager(model, precision):
    graphed, eager = (learner(0, CUDA, **model) for _ in range(2))
    data = windows(0).to(CUDA)
    graphed.precision = eager.precision = precision
    graphed.graph = PassGraph(graphed)
    for step in range(STEPS):
        losses = [float(x.learn(data, BATCH, step / STEPS)) for x in (graphed, eager)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert_same(graphed, eager, atol=1e-5 if precision == FLOAT32 else 1e-3)


@pytest.mark.gpu
def test_eager_passes_between_those_of_a_graph_change_nothing():
    graphed, eager = (learner(0, CUDA) for _ in range(2))
    data = windows(0).to(CUDA)
    graph = PassGraph(graphed)
    for step in range(STEPS):
        graphed.graph = graph if step % 2 else None
        for each in (graphed, eager):
            each.learn(data, BATCH, step / STEPS)
    assert_same(graphed, eager)


@pytest.mark.gpu
def test_each_way_has_its_graph_and_the_others_are_released():
    graphed, data = learner(0, CUDA), windows(0).to(CUDA)
    graphed.graph = graph = PassGraph(graphed)
    losses = {}
    for precision in (FLOAT32, BFLOAT16, FLOAT32):
        graphed.precision = precision
        losses.setdefault(precision, []).append(float(graphed.backward(data, BATCH)))
    assert losses[FLOAT32][0] == losses[FLOAT32][1] != losses[BFLOAT16][0]
    assert losses[BFLOAT16][0] == pytest.approx(losses[FLOAT32][0], rel=0.02)
    assert len(graph.captured) == 2
    graph.release_others()
    assert [*graph.captured] == [(FLOAT32, False)]


@pytest.mark.gpu
def test_compiled_passes_are_captured_and_train_as_eager():
    graphed, eager = (learner(0, CUDA) for _ in range(2))
    data = windows(0).to(CUDA)
    graphed.forward, graphed.graph = compiled(graphed.network), PassGraph(graphed)
    for step in range(STEPS):
        for each in (graphed, eager):
            each.learn(data, BATCH, step / STEPS)
    assert graphed.compiled
    assert_same(graphed, eager, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_cuda_learns_every_objective(model):
    ours, data = learner(0, CUDA, **model), windows(0).to(CUDA)
    losses = [float(ours.learn(data, BATCH, 0.0)) for _ in range(300)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


@pytest.mark.gpu
def test_seeds_are_trained_together_on_cuda():
    learners, data = [learner(s, CUDA) for s in SEEDS], [windows(s).to(CUDA) for s in SEEDS]
    together = Together(learners)
    for step in range(STEPS):
        together.learn(data, BATCH, step / STEPS)
    for ours, seed, mine in zip(learners, SEEDS, data, strict=True):
        alone = learner(seed, CUDA)
        for step in range(STEPS):
            alone.learn(mine, BATCH, step / STEPS)
        assert_same(ours, alone, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize(("gain", "used"), [(2.0, True), (1.0, False)])
def test_a_long_run_says_what_it_measured_and_resumes(
    balance_store, tmp_path, monkeypatch, capsys, gain, used
):
    monkeypatch.setattr(choices, "measure", lambda _, *ways: Measured(*ways, gain, 0.0))
    config = TrainConfig(data=balance_store, out=tmp_path, device="cuda", precision=FLOAT32, **LONG)
    train(config)
    said = capsys.readouterr().out
    assert f"CUDA graph: {'graph' if used else 'eager'}: after" in said
    assert load_policy(tmp_path).specification.training["cuda_graph"] is used
    train(replace(config, steps=1020, resume=True))
    assert load_policy(tmp_path).specification.training["step"] == 1020


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_the_run_eager(balance_store, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no capture here")

    monkeypatch.setattr(PassGraph, "__call__", broken)
    train(TrainConfig(data=balance_store, out=tmp_path, device="cuda", **LONG))
    assert (
        "CUDA graph: eager: capture failed after 0 s: RuntimeError: no" in capsys.readouterr().out
    )
    assert load_policy(tmp_path).specification.training["cuda_graph"] is False
