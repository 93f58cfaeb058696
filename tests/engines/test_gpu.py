"""CUDA against the CPU and against itself; skipped where there is none."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cameras
import numpy as np
import pytest
import torch
from test_engines import CHAINS, NETWORKS, SAMPLERS, inputs, make_job, of_higher_order

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.latency import PAUSED
from diffpolicy.control.workers import Workers
from diffpolicy.engines import auto, build_engine
from diffpolicy.engines.job import Job
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.measure.diffusers_loop import DiffusersLoop, DiffusersTraining
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.preparation import prepare
from diffpolicy.training.train import train

pytestmark = pytest.mark.gpu
PRECISE = {"prediction": "v"}  # under ε few steps multiply rounding
SMALL = {"episodes": 4, "envs": 2, "batch": 16, "max_steps": 20, "device": "cuda"}


def on_gpu(job: Job) -> Job:
    return replace(job, denoiser=job.denoiser.cuda())


@pytest.mark.parametrize(("model", "sampling"), CHAINS, ids=str)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_graph_is_eager_on_every_chain_and_batch(model, sampling, batch):
    job = on_gpu(make_job("unet", model, sampling, batch=batch))
    graph, eager = build_engine("cuda-graph", job), build_engine("eager", job)
    for seed in range(3):
        found, expected = (engine(*inputs(job, seed)) for engine in (graph, eager))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_graph_runs_samplers_of_higher_order(sampler, prediction):
    job = of_higher_order(sampler, prediction)
    expected = build_engine("eager", job)(*inputs(job))
    found = build_engine("cuda-graph", on_gpu(job))(*inputs(job))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "sampling"), [("mlp", Sampling(2)), ("unet", Sampling(3, eta=1.0))]
)
def test_a_compiled_network_in_a_graph_is_eager(network, sampling):
    job = make_job(network, PRECISE, sampling)
    expected = build_engine("eager", job)(*inputs(job))
    engine = build_engine("compiled", on_gpu(job))
    torch.testing.assert_close(engine(*inputs(job)), expected, rtol=1e-4, atol=1e-4)
    assert engine.name == "compiled" and engine.gpu_ms() > 0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("network", NETWORKS)
def test_eager_on_cuda_is_eager_on_the_cpu(network):
    """Also in convolutions, which torch rounds to TensorFloat-32 unless told otherwise."""
    job = make_job(network, PRECISE, Sampling(4))
    expected = build_engine("eager", job)(*inputs(job))
    found = build_engine("eager", on_gpu(job))(*inputs(job))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "precision"), [("unet", "tf32"), ("unet", "bfloat16"), ("mlp", "bfloat16")]
)
def test_a_rounded_graph_is_close_and_is_rounded(network, precision):
    job = on_gpu(make_job(network, PRECISE, Sampling(4), precision=precision))
    rounded = build_engine("cuda-graph", job)
    assert 0 < auto.verify(rounded, job) < auto.TOLERANCE[precision]


def test_a_graph_keeps_no_call_s_numbers_and_may_be_called_from_many_threads():
    job = on_gpu(make_job())
    graph, eager = build_engine("cuda-graph", job), build_engine("eager", job)
    with ThreadPoolExecutor(4) as pool:
        chunks = list(pool.map(lambda seed: graph(*inputs(job, seed)), range(50)))
    for seed, chunk in enumerate(chunks):
        torch.testing.assert_close(chunk, eager(*inputs(job, seed)), rtol=1e-4, atol=1e-4)
    assert graph.gpu_ms() > 0  # pyright: ignore[reportAttributeAccessIssue]


def test_the_time_of_a_graph_counts_its_encoder():
    policy = cameras.policy("cuda-graph", device="cuda")
    assert (policy.engine().gpu_ms() or 0) > 0
    assert policy.with_engine("eager").engine().gpu_ms() is None


def test_auto_takes_the_graph_or_eager_and_says_why():
    engine, why = auto.choose(on_gpu(make_job(model=PRECISE)))
    assert engine.name in ("cuda-graph", "eager")
    assert "cuda-graph" in why and "is out" not in why


def observe(policy: Policy, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    history = rng.uniform(-1, 1, (1, 2, policy.task.observation_dim)).astype(np.float32)
    return history, rng.standard_normal(policy.noise_shape(1), np.float32)


@pytest.mark.parametrize("engine", ["eager", "cuda-graph"])
def test_a_policy_acts_on_cuda_as_on_the_cpu_also_in_another_process(tiny_run, engine):
    policy = Policy.load(tiny_run, ddim_steps=4, start=40, device="cuda", engine=engine)
    expected = Policy.load(tiny_run, ddim_steps=4, start=40)(*observe(policy))
    np.testing.assert_allclose(policy(*observe(policy)), expected, atol=1e-3)
    again = pickle.loads(pickle.dumps(policy))
    assert again.device.type == "cuda"
    np.testing.assert_array_equal(again(*observe(policy)), policy(*observe(policy)))


def test_workers_on_cuda_give_what_one_process_gives(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=2, device="cuda", engine="cuda-graph")
    found = []
    for count in (1, 2):
        with Evaluator(EvalConfig(run=tiny_run, workers=count, **SMALL), policy) as evaluator:
            assert isinstance(evaluator.workers, Workers) and evaluator.workers.count == count
            row, _ = evaluator.evaluate(policy, "paused", PAUSED)
            found.append(row.outcomes)
    assert found[0] == found[1]


def test_the_wall_clock_runs_a_graph(tiny_run):
    config = EvalConfig(run=tiny_run, ddim_steps=2, clock="wall", engine="cuda-graph", **SMALL)
    evaluate_budget(replace(config, episodes=1))


@pytest.mark.parametrize("denoiser", ["mlp", "unet"])
def test_training_on_cuda_learns_resumes_and_leaves_a_policy_for_any_device(
    balance_store, tmp_path, denoiser
):
    small = {"denoiser": denoiser, "hidden": 32, "blocks": 1, "unet_channels": (16, 32)}
    config = TrainConfig(
        data=balance_store, out=tmp_path / "run", steps=10, batch=32, device="cuda", **small
    )
    train(config)
    train(replace(config, steps=20, resume=True))
    assert load_policy(config.out).specification.training["step"] == 20
    policy = Policy.load(config.out, ddim_steps=2)
    assert np.isfinite(policy(*observe(policy))).all()


def test_a_learner_on_cuda_repeats_itself_from_a_checkpoint(balance_store, tmp_path):
    config = TrainConfig(data=balance_store, out=tmp_path, hidden=32, blocks=1, device="cuda")
    prepared, device = prepare(config), torch.device("cuda")
    windows = prepared.training.to(device)
    learner, other = (Learner(prepared.specification, device, seed=s) for s in (0, 0))
    for _ in range(5):
        learner.learn(windows, 32, 0.5)
    other.restore({name: t.cpu() for name, t in learner.tensors().items()}, learner.step)
    losses = [float(each.learn(windows, 32, 0.5)) for each in (learner, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loops_of_today_run_on_cuda(tiny_run, balance_store, tmp_path):
    pytest.importorskip("diffusers")
    device, checkpoint = torch.device("cuda"), load_policy(tiny_run)
    history, _ = observe(Policy(checkpoint))
    assert np.isfinite(DiffusersLoop(checkpoint, 4, device)({FLAT: history})).all()
    config = TrainConfig(data=balance_store, out=tmp_path, hidden=32, blocks=1)
    prepared = prepare(config)
    loop = DiffusersTraining(prepared.specification, prepared.training, device, 16, workers=1)
    assert all(np.isfinite(loop.learn()) for _ in range(3))
