"""Engines give what eager gives, or say why they cannot be built; auto takes none that is wrong."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.denoisers import build
from diffpolicy.engines import ENGINES, auto, build_engine, native, networks, program
from diffpolicy.engines.job import Job
from diffpolicy.errors import DiffpolicyError, EngineUnavailable
from diffpolicy.eval.world_config import EngineName
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import make_chain
from diffpolicy.specification import Horizons, flat_observation

NETWORKS = {
    "mlp": {"denoiser": "mlp", "hidden": 40, "blocks": 2, "condition": 16},
    "concat": {"denoiser": "concat", "hidden": 24, "blocks": 2},
    "plain": {"denoiser": "plain", "hidden": 20, "blocks": 3, "condition": 8},
    "unet": {"denoiser": "unet", "unet_channels": (16, 24, 40), "condition": 8},
    "unet down to one row": {"denoiser": "unet", "unet_channels": (16, 24, 40, 48), "condition": 8},
    "unet that narrows": {"denoiser": "unet", "unet_channels": (48, 24), "condition": 8},
    "unet of one level": {"denoiser": "unet", "unet_channels": (48,), "unet_kernel": 3},
}
CHAINS = [
    ({}, Sampling(4, start=40)),  # from higher up fresh weights saturate the clip
    ({"prediction": "x0"}, Sampling(3, eta=1.0)),
    ({"prediction": "v", "clip": False}, Sampling(5, "leading")),
    ({"prediction": "v"}, Sampling(2, noise_scale=0.5, eta=0.7, start=80)),
]


def make_job(network: str = "mlp", model: dict | None = None, sampling=CHAINS[0][1], **changes):
    """A job of a small network whose every weight matters."""
    config = ModelConfig(**{**NETWORKS[network], **(model or {})})
    horizons = Horizons(2, 8 if "one row" in network else 12, 4)
    torch.manual_seed(0)
    denoiser = build(config, horizons, 5, 3).eval().requires_grad_(False)
    for parameter in denoiser.parameters():
        if parameter.ndim == 1:  # biases, gains and norms that start as 0 and 1
            parameter += 0.3 * torch.randn_like(parameter)
    chain = make_chain(config, 1.0 if config.clip else None, sampling)
    return Job(denoiser, chain, horizons, flat_observation(5), 3, **changes)


def inputs(job: Job, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    observation = torch.rand(job.observation_shape, generator=generator) * 2 - 1
    return observation, torch.randn(job.noise_shape, generator=generator)


def try_only(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(auto, "ENGINES", {name: ENGINES[name] for name in names})


def agrees(name: str, job: Job) -> None:
    engine, eager = build_engine(name, job), build_engine("eager", job)
    for seed in range(3):
        expected, found = eager(*inputs(job, seed)), engine(*inputs(job, seed))
        assert found.shape == job.noise_shape[1:] and found.dtype == torch.float32
        assert expected.abs().mean() < 50
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model", "sampling"), CHAINS, ids=str)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_native_is_eager(network, model, sampling, threads):
    agrees("native", make_job(network, model, sampling, threads=threads))


def of_higher_order(sampler: str, prediction: str = "v", steps: int = 6) -> Job:
    """A job whose rows use the x̂0 of rows before; of flow matching, velocity in place of v."""
    flow = sampler == "midpoint"
    prediction = "velocity" if flow and prediction == "v" else prediction
    model = {"prediction": prediction, "schedule": "flow" if flow else "squaredcos"}
    eta = 0.5 if sampler == "dpm++" else 0.0
    job = make_job("mlp", model, Sampling(steps, start=60, sampler=sampler, eta=eta))
    assert any(row.previous for row in job.chain.rows)
    return job


SAMPLERS = ["dpm++", "unipc", "heun", "midpoint"]


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v", "velocity"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_native_runs_samplers_of_higher_order(sampler, prediction):
    agrees("native", of_higher_order(sampler, prediction))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_onnx_runs_samplers_of_higher_order(sampler):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    agrees("onnx", of_higher_order(sampler))


def test_no_engine_runs_a_first_row_that_uses_the_x0_before():
    job = of_higher_order("dpm++")
    chain = replace(job.chain, rows=job.chain.rows[2:])
    with pytest.raises(DiffpolicyError, match="first rows"):
        replace(job, chain=chain)


def test_a_multistep_table_is_not_its_first_order():
    job = of_higher_order("dpm++")
    rows = [row._replace(x0=row.x0 + row.previous, previous=0.0) for row in job.chain.rows]
    other = replace(job, chain=replace(job.chain, rows=rows))
    second, first = (build_engine("eager", j)(*inputs(job)) for j in (job, other))
    assert (second - first).abs().max() > 1e-3


@pytest.mark.parametrize("network", ["mlp", "unet"])
@pytest.mark.parametrize(("model", "sampling"), CHAINS[:3], ids=str)
def test_onnx_is_eager(network, model, sampling):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    agrees("onnx", make_job(network, model, sampling, batch=2))


def test_budgets_share_the_exported_network_and_other_weights_do_not(monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    exported = []
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: exported.append(1) or export(*a, **k))
    jobs = [make_job(model={"prediction": "v", "hidden": 44}, sampling=Sampling(k)) for k in (1, 3)]
    for job in jobs:
        agrees("onnx", job)
    assert len(exported) == 2, "two parts of one network"
    for parameter in jobs[0].denoiser.parameters():
        parameter *= 1.1
    agrees("onnx", jobs[0])
    assert len(exported) == 4


def test_compiled_is_eager():
    agrees("compiled", of_higher_order("dpm++", "epsilon", steps=3))


@pytest.mark.gpu
@pytest.mark.parametrize("network", NETWORKS)
def test_cuda_graph_is_eager(network):
    job = make_job(network)
    on_gpu = replace(job, denoiser=job.denoiser.cuda())
    engine, eager = build_engine("cuda-graph", on_gpu), build_engine("eager", on_gpu)
    for seed in range(3):
        found, expected = (e(*inputs(job, seed)) for e in (engine, eager))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_native_weights_of_24_bits_are_close_to_eager(network, monkeypatch):
    """Large networks get rounded weights; their actions stay within the tolerance of engines."""
    monkeypatch.setattr(networks, "CACHED", 0)
    job = make_job(network, {"prediction": "v"}, Sampling(4))
    agrees("native", job)
    [rounded], [exact] = (build_engine(name, job)(*inputs(job)) for name in ("native", "eager"))
    assert (rounded - exact).abs().max() > 0


def test_few_steps_of_epsilon_keep_float32(monkeypatch):
    monkeypatch.setattr(networks, "CACHED", 0)
    weights = [
        {bool(o.narrow) for o in networks.write_program(job).denoise}
        for job in (make_job("mlp", {"prediction": "epsilon"}, Sampling(k)) for k in (7, 8))
    ]
    assert weights == [{False}, {False, True}]


def test_native_samples_do_not_see_their_neighbours():
    """Bit for bit: a row of a batch is what it is alone."""
    job = make_job(batch=4)
    engine = build_engine("native", job)
    observation, noise = inputs(job)
    together = engine(observation, noise)
    for i in range(4):
        alone = engine(observation[i : i + 1], noise[:, i : i + 1])
        assert torch.equal(alone[0], together[i])


def test_native_lets_nan_through():
    """Clipping must not turn a broken network into actions."""
    job = make_job()
    observation, noise = inputs(job)
    noise[0, 0, 0, 0] = float("nan")
    assert build_engine("native", job)(observation, noise).isnan().any()


def test_bfloat16_is_close():
    job = make_job(model={"prediction": "v"}, sampling=Sampling(10))
    half = build_engine("eager", replace(job, precision="bfloat16"))(*inputs(job))
    full = build_engine("eager", job)(*inputs(job))
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.5
    assert job.denoiser.dtype == torch.float32  # the policy's own weights are left alone


def test_native_may_be_called_from_many_threads():
    job = make_job(threads=2)
    engine, eager = build_engine("native", job), build_engine("eager", job)
    with ThreadPoolExecutor(4) as pool:
        chunks = list(pool.map(lambda seed: engine(*inputs(job, seed)), range(200)))
    for seed, chunk in enumerate(chunks):
        torch.testing.assert_close(chunk, eager(*inputs(job, seed)), rtol=1e-4, atol=1e-4)


def test_native_says_so_in_a_forked_child_and_lets_it_end():
    engine = build_engine("native", make_job(threads=2))
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine(*inputs(make_job()))
        except DiffpolicyError as error:
            os.write(writes, str(error).encode())
        finally:
            del engine
            os._exit(0)
    os.waitpid(child, 0)
    assert b"stays in the process it was built in" in os.read(reads, 200)


# What cannot be built says why


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tensorrt", {}, r"'tensorrt' is not an engine; expected one of: auto, eager"),
        ("cuda-graph", {}, "on cuda; got float32 on cpu"),
        ("native", {"precision": "bfloat16"}, "computes in float32 on cpu; got bfloat16"),
        ("onnx", {"precision": "bfloat16"}, "computes in float32 on cpu; got bfloat16"),
        ("eager", {"precision": "tf32"}, "on cpu and cuda; got tf32 on cpu"),
        ("compiled", {"precision": "tf32"}, "on cpu and cuda; got tf32 on cpu"),
    ],
)
def test_an_engine_that_cannot_be_built_says_why(name, change, message):
    expected = EngineUnavailable if name in ENGINES else DiffpolicyError
    with pytest.raises(expected, match=message) as caught:
        build_engine(name, replace(make_job(), **change))
    assert type(caught.value) is expected


def test_the_command_line_offers_every_engine():
    assert get_args(EngineName) == ("auto", *ENGINES)


def test_the_names_of_engines_do_not_load_torch():
    code = "import sys, diffpolicy.engines; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_native_without_a_compiler_says_so(monkeypatch, tmp_path):
    native._library.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(DiffpolicyError, match="needs a C compiler"):
        build_engine("native", make_job())
    monkeypatch.undo()
    monkeypatch.setenv("CC", "cc -no-such-flag")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DiffpolicyError, match=r"native\.c does not compile: .*no-such-flag"):
        build_engine("native", make_job())
    assert not list((tmp_path / "diffpolicy").glob("*.so"))
    native._library.cache_clear()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A folder for compiled code of its own, with the code in it."""
    native._library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", ("-O0", *native.FLAGS[1:]))  # compiled in no time
    build_engine("native", make_job())
    native._library.cache_clear()
    yield tmp_path / "diffpolicy"
    native._library.cache_clear()


@pytest.mark.parametrize("kept", [0, 0.5, 1.0])
def test_compiled_code_that_is_damaged_is_compiled_again(cache, kept):
    """Cut short or changed in place; a loader that believed it would crash."""
    [code] = cache.glob("*.so")
    whole = code.read_bytes()
    count = int(kept * len(whole))
    other = cache / "other"  # the code itself is still in use in this process
    other.write_bytes(whole[:count] if count < len(whole) else whole[:-50] + b"?" * 50)
    other.replace(code)
    agrees("native", make_job())
    assert code.read_bytes() == whole


def test_compiled_code_that_others_can_write_is_compiled_again(cache, monkeypatch):
    [code] = cache.glob("*.so")
    code.chmod(0o722)
    before = code.stat().st_ino
    agrees("native", make_job())
    assert code.stat().st_ino != before and code.stat().st_mode & 0o777 == 0o700
    native._library.cache_clear()
    before = code.stat().st_ino
    agrees("native", make_job())
    assert code.stat().st_ino == before


@pytest.mark.parametrize("trouble", ["writable by others", "of another user"])
def test_a_cache_that_is_not_ours_alone_is_not_used(cache, monkeypatch, trouble):
    try_only(monkeypatch, "native", "eager")
    if trouble == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        cache.chmod(0o777)
    with pytest.raises(DiffpolicyError, match=r"cannot be built here: .*belongs to another user"):
        build_engine("native", make_job())
    engine, why = auto.choose(make_job())
    assert engine.name != "native" and "native is out: the native engine cannot be built" in why


def test_a_compiler_that_does_not_start_is_named(cache, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler-at-all")
    with pytest.raises(DiffpolicyError, match="'no-such-compiler-at-all' does not start"):
        build_engine("native", make_job())


def test_native_refuses_layers_wider_than_its_workspace(monkeypatch):
    monkeypatch.setattr(program, "WIDEST", 100)
    with pytest.raises(DiffpolicyError, match="takes at most 100 channels"):
        build_engine("native", make_job())


# auto


@pytest.mark.parametrize("trouble", ["compiler", "cache"])
def test_auto_takes_another_engine_where_one_fails_in_its_own_way(monkeypatch, tmp_path, trouble):
    native._library.cache_clear()
    if trouble == "compiler":
        monkeypatch.setenv("CC", "no-such-compiler-at-all")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    engine, why = auto.choose(make_job())
    assert engine.name != "native" and "native is out: the native engine cannot be built" in why
    native._library.cache_clear()


def test_auto_runs_a_broken_network_on_eager_so_that_its_failure_shows():
    job = make_job()
    next(iter(job.denoiser.parameters())).fill_(float("nan"))
    engine, _ = auto.choose(job)
    assert engine.name == "eager" and engine(*inputs(job)).isnan().any()


def test_auto_works_where_its_choice_cannot_be_kept(tmp_path):
    (tmp_path / "engines.json").mkdir()
    assert auto.choose(make_job(), tmp_path)[0].name


class Poisoned:
    """Eager, with weights that are 1 % off."""

    name = "native"

    def __init__(self, job: Job):
        torch.manual_seed(1)
        config = ModelConfig(**NETWORKS["mlp"], prediction="v")
        off = build(config, job.horizons, 5, job.action_dim)
        off.load_state_dict({n: 1.01 * w for n, w in job.denoiser.state_dict().items()})
        self.eager = build_engine("eager", replace(job, denoiser=off.requires_grad_(False)))

    def __call__(self, *arguments):
        return self.eager(*arguments)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_auto_rejects_an_engine_whose_weights_are_off(monkeypatch, steps):
    monkeypatch.setattr(native, "NativeEngine", Poisoned)
    try_only(monkeypatch, "native", "eager")
    job = make_job(model={"prediction": "v"}, sampling=Sampling(steps))
    with pytest.raises(DiffpolicyError, match="differ from eager's by"):
        auto.verify(Poisoned(job), job)
    engine, why = auto.choose(job)
    assert engine.name == "eager"
    assert why.startswith("eager on 1 thread") and "native is out: its actions differ" in why


def test_auto_rejects_nan():
    job = make_job()
    with pytest.raises(DiffpolicyError, match="differ from eager's by inf"):
        auto.verify(lambda o, n: torch.full(job.noise_shape[1:], float("nan")), job)


def test_auto_keeps_its_choice_for_the_same_job_alone(tmp_path, monkeypatch):
    try_only(monkeypatch, "native", "eager", "compiled")
    monkeypatch.setattr(auto, "_median_ms", lambda engine, job: 2.0)
    job = make_job()
    engine, why = auto.choose(job, tmp_path)
    assert "ms a chunk at batch 1" in why and "compiled not tried" in why
    kept, again = auto.choose(job, tmp_path)
    assert (kept.name, again) == (engine.name, why + " (kept from before)")
    monkeypatch.setattr(auto, "_median_ms", lambda engine, job: 4.0)
    assert "kept" not in auto.choose(job, tmp_path)[1]  # measured on a busier or an idler machine
    auto.choose(make_job(sampling=Sampling(7)), tmp_path)
    assert len(json.loads((tmp_path / "engines.json").read_text())) == 2
    (tmp_path / "engines.json").write_text("{")
    assert "kept" not in auto.choose(job, tmp_path)[1]


def test_a_choice_that_no_longer_works_is_made_again(tmp_path, monkeypatch):
    try_only(monkeypatch, "eager")
    job = make_job()
    auto.choose(job, tmp_path)
    cache = tmp_path / "engines.json"
    cache.write_text(cache.read_text().replace('"eager"', '"cuda-graph"'))
    engine, why = auto.choose(job, tmp_path)
    assert engine.name == "eager" and "kept" not in why


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"KEY": 5}',
        b'{"KEY": null}',
        b'{"KEY": {}}',
        b'{"KEY": {"engine": [], "threads": 1, "ms": 2.0, "why": ""}}',
        b'{"KEY": {"engine": "compiled", "threads": 1, "ms": 2.0, "why": ""}}',
        b'{"KEY": {"engine": "eager", "threads": 1000000, "ms": 2.0, "why": ""}}',
        b'{"KEY": {"engine": "eager", "threads": 1.5, "ms": 2.0, "why": ""}}',
        b'{"KEY": {"engine": "eager", "threads": 1, "ms": NaN, "why": ""}}',
        b'{"KEY": {"engine": "eager", "threads": 1, "ms": 0, "why": ""}}',
        b'{"KEY": {"engine": "eager", "threads": 1, "ms": 2.0, "why": 3}}',
        b'{"KEY": {"engine": "eager", "threads": 1, "ms": 2.0, "why": "\\u001b[2J"}}',
    ],
)
def test_a_damaged_choice_is_made_again(tmp_path, monkeypatch, text):
    try_only(monkeypatch, "eager")
    monkeypatch.setattr(auto, "_median_ms", lambda engine, job: 2.0)
    job, file = make_job(), tmp_path / "engines.json"
    file.write_bytes(text.replace(b"KEY", auto._key(job).encode()))
    engine, why = auto.choose(job, tmp_path)
    assert engine.name == "eager" and "kept" not in why
    assert auto.choose(job, tmp_path)[1] == why + " (kept from before)"


def test_a_policy_builds_its_engine_once_for_each_batch(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=2, engine="native")
    eager = Policy.load(tiny_run, ddim_steps=2)
    assert policy.engine(1) is policy.engine(1) is not policy.engine(3)
    rng = np.random.default_rng(0)
    history = rng.uniform(-1, 1, (3, 2, policy.task.observation_dim)).astype(np.float32)
    noise = rng.standard_normal(policy.noise_shape(3), np.float32)
    np.testing.assert_allclose(policy(history, noise), eager(history, noise), atol=1e-4)
