"""Pictures: every engine encodes as eager does, each stage is chosen alone, and states stay."""

import json
import pickle
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cameras
import numpy as np
import pytest
import torch

from diffpolicy.config import Sampling
from diffpolicy.denoisers import build_network
from diffpolicy.engines import ENGINES, auto, build_encoder, build_engine, encoding, networks
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.stages import Stages, build_stages
from diffpolicy.errors import DiffpolicyError, EngineUnavailable
from diffpolicy.eval.config import LatencyConfig
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure import nets
from diffpolicy.eval.measure.description import seen_by
from diffpolicy.eval.measure.profiles import replay
from diffpolicy.eval.measure.result_files import read_result, write_result
from diffpolicy.eval.report import table
from diffpolicy.policy import Policy
from diffpolicy.sampling.steps import sample

NAMES = {"native": "eager + native"}  # of both stages, where they differ


def only(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(auto, "ENGINES", {name: ENGINES[name] for name in names})


def plain(policy: Policy, observation, noise) -> np.ndarray:
    """The network called with the pictures at every step: no stages, no engine."""
    network = build_network(policy.specification, policy.observation_normalizers)
    network.load_state_dict(cameras.checkpoint().weights)
    histories = {key: torch.from_numpy(x) for key, x in observation.items()}

    def denoise(x, k):
        return network(x, torch.full((len(x),), policy.chain.rows[k].t), histories)

    with torch.no_grad():
        x = sample(denoise, torch.from_numpy(noise), policy.chain.rows)
    return x[:, policy.horizons.observation - 1 :].numpy()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "engine", ["eager", "native", "onnx", pytest.param("cuda-graph", marks=pytest.mark.gpu)]
)
def test_every_engine_gives_what_the_network_gives_step_by_step(engine, batch):
    if engine == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    device = "cuda" if engine == "cuda-graph" else "cpu"
    policy = cameras.policy(engine, device=device)
    for seed in range(3):
        given = cameras.observation(batch, seed), cameras.noise(policy, batch, seed)
        np.testing.assert_allclose(policy(*given), plain(policy, *given), atol=1e-4)
    assert policy.engine(batch).name == NAMES.get(engine, engine)


def test_compiled_encodes_as_eager():
    compiled = cameras.policy("compiled", steps=1)
    given = cameras.observation(), cameras.noise(compiled)
    np.testing.assert_allclose(compiled(*given), cameras.policy(steps=1)(*given), atol=1e-4)


def test_the_actions_depend_on_every_camera_and_frame():
    policy = cameras.policy()
    before, noise = cameras.observation(), cameras.noise(policy)
    expected = policy(before, noise)
    for key, history in before.items():
        for tick in range(2):
            other = {**before, key: history.copy()}
            other[key][:, tick] = cameras.observation(seed=1)[key][:, tick]
            assert np.abs(policy(other, noise) - expected).max() > 1e-5


@pytest.mark.parametrize("engine", ["eager", "onnx"])
def test_a_row_depends_on_neither_neighbours_nor_place(engine):
    """Bit for bit, in the batch of evaluation: episodes do not depend on the others."""
    if engine == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    policy = cameras.policy(engine)
    seen, noise = cameras.observation(16), cameras.noise(policy, 16)
    expected, order = policy(seen, noise), np.random.default_rng(0).permutation(16)
    moved = {key: history[order] for key, history in seen.items()}
    np.testing.assert_array_equal(policy(moved, noise[:, order]), expected[order])
    for history in seen.values():
        history[1:] = 0
    noise[:, 1:] = 0
    np.testing.assert_array_equal(policy(seen, noise)[0], expected[0])


def test_pictures_enter_the_exported_graph_as_bytes():
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    job = cameras.policy().job()
    stage = build_encoder("onnx", job)
    assert isinstance(stage, encoding.OnnxEncoder)
    session = onnxruntime.InferenceSession(stage.__getstate__()["model"])
    kinds = [i.type for i in session.get_inputs()]
    assert kinds == ["tensor(uint8)", "tensor(float)", "tensor(uint8)"]


def test_states_end_at_the_actions():
    policy = cameras.policy()
    given = cameras.observation(2), cameras.noise(policy, 2)
    xs, x0s = policy.states(*given)
    assert (len(xs), len(x0s)) == (4, 3)
    np.testing.assert_array_equal(xs[-1], policy(*given))


def test_bfloat16_rounds_the_encoder_too_and_copies_it_once():
    job = cameras.policy().job()
    half = replace(job, precision="bfloat16")
    rounded, exact = (build_encoder("eager", j) for j in (half, job))
    inputs = auto.ENCODER.inputs(job, 0)
    difference = (rounded(*inputs) - exact(*inputs)).abs()
    assert rounded(*inputs).dtype == torch.float32
    assert 0 < difference.max() < 0.1
    assert job.denoiser.dtype == torch.float32
    names = [name for name, _ in ChainLoop(job.denoiser, job.chain, half.dtype).named_parameters()]
    assert names and not any("encoder" in name for name in names)
    assert job.denoiser.encoder is not None


def test_native_counts_the_weights_of_the_loop_alone(monkeypatch):
    job = cameras.policy().job()
    loop = sum(w.numel() for n, w in job.denoiser.named_parameters() if "encoder." not in n)
    monkeypatch.setattr(networks, "CACHED", loop)
    assert not networks._narrow(job)
    monkeypatch.setattr(networks, "CACHED", loop - 1)
    assert networks._narrow(job)


@pytest.mark.parametrize("engine", ["onnx", "onnx + native"])
def test_a_policy_travels_with_its_encoder(engine, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    policy = cameras.policy(engine)
    given = cameras.observation(), cameras.noise(policy)
    expected = policy(*given)
    there = pickle.loads(pickle.dumps(policy.with_engine(policy.engine().name)))
    assert len(there._engines) == (engine == "onnx")
    monkeypatch.setattr(encoding, "OnnxEncoder", None)  # it is not exported again
    np.testing.assert_array_equal(there(*given), expected)
    assert there.engine().name == engine


def test_a_batch_of_pictures_beyond_the_memory_is_refused():
    with pytest.raises(DiffpolicyError, match=r"a batch of \d+ for 3 steps .* GiB of memory"):
        cameras.policy().engine(10**8)


def test_the_memory_of_a_batch_counts_a_layer_of_the_encoder_and_its_input(monkeypatch):
    needed: list[int] = []
    monkeypatch.setattr("diffpolicy.policy.check_memory", lambda n, *_: needed.append(n))
    for precision in ("float32", "bfloat16"):
        for batch in (1, 101):
            cameras.policy(precision=precision).job(batch)
    single, half = needed[1] - needed[0], needed[3] - needed[2]
    crop, first = 21 * 28 * 3, 11 * 14 * 16  # of the larger camera
    assert single - half == 100 * 2 * 2 * (crop + first)


# auto


def test_auto_chooses_each_stage_on_its_own_and_keeps_both(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    only(monkeypatch, "eager", "native", "onnx")
    names = {"OnnxEncoder": 1.0, "EagerEncoder": 2.0, "NativeEngine": 1.0}
    monkeypatch.setattr(auto, "_median_ms", lambda call, inputs: names.get(type(call).__name__, 3))
    job = cameras.policy().job()
    stages, why = auto.choose_stages(job, tmp_path)
    assert stages.name == "onnx + native"
    assert why.startswith("onnx on 1 thread 1 ms an observation at batch 1; eager on 1 thread 2 ms")
    assert "; then native on 1 thread 1 ms a chunk at batch 1" in why
    _, again = auto.choose_stages(job, tmp_path)
    assert again.count("(kept from before)") == 2
    assert len(json.loads((tmp_path / "engines.json").read_text())) == 2


def test_a_choice_of_an_encoder_is_for_its_weights_and_not_for_a_budget():
    job = cameras.policy().job()
    more = cameras.policy(steps=4).job()
    keys = [[auto._key(j, stage) for j in (job, more)] for stage in (auto.ENCODER, auto.LOOP)]
    assert keys[0][0] == keys[0][1] and keys[1][0] != keys[1][1]
    first = next(job.denoiser.encoder.parameters())
    first[:] = first + 1
    assert auto._key(job, auto.ENCODER) != keys[0][0]


class Poisoned(encoding.EagerEncoder):
    """Eager, with features that are 1 % off."""

    name = "onnx"

    def __call__(self, observation):
        return 1.01 * super().__call__(observation)


def test_auto_rejects_an_encoder_whose_features_are_off(monkeypatch):
    monkeypatch.setattr(encoding, "OnnxEncoder", Poisoned)
    only(monkeypatch, "eager", "onnx")
    job = cameras.policy().job()
    with pytest.raises(EngineUnavailable, match="its features differ from eager's by"):
        auto.verify(Poisoned(job), job, auto.ENCODER)
    engine, why = auto.choose(job, stage=auto.ENCODER)
    assert engine.name == "eager" and "onnx is out: its features differ" in why


class Shifted(encoding.EagerEncoder):
    """Eager, with features that are off within the tolerance."""

    name = "onnx"

    def __call__(self, observation):
        return super().__call__(observation) + 9e-5


def test_features_within_the_tolerance_are_out_if_the_chain_multiplies_them(monkeypatch):
    """One ε step from t = T - 1 without clipping."""
    monkeypatch.setattr(encoding, "OnnxEncoder", Shifted)
    only(monkeypatch, "eager", "onnx")
    monkeypatch.setattr(auto, "_median_ms", lambda call, _: 1.0 if type(call) is Shifted else 2.0)
    before = cameras.checkpoint()
    model = replace(before.specification.model, prediction="epsilon")
    specification = replace(before.specification, model=model, clip_range=None)
    job = Policy(replace(before, specification=specification), Sampling(1)).job()
    shifted = build_encoder("onnx", job)
    assert isinstance(shifted, Shifted) and auto.verify(shifted, job, auto.ENCODER) < 1e-4
    with pytest.raises(EngineUnavailable, match="its actions differ from eager's by"):
        auto.verify_stages(Stages(shifted, build_engine("eager", job)), job)
    stages, why = auto.choose_stages(job)
    assert stages.name == "eager" and not isinstance(stages.encode, Shifted)
    assert why.startswith("eager; onnx") and "is out: its actions differ from eager's" in why
    assert auto.choose_stages(cameras.policy().job())[0].name.startswith("onnx")


@pytest.mark.parametrize("engine", ["native", "onnx"])
def test_features_averaged_over_all_places_are_those_of_eager(monkeypatch, engine):
    monkeypatch.setitem(cameras.SMALL, "keypoints", 0)
    if engine == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    eager, other = cameras.policy(), cameras.policy(engine)
    inputs = cameras.observation(2), cameras.noise(eager, 2)
    np.testing.assert_allclose(other(*inputs), eager(*inputs), rtol=0, atol=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[..., :1], r"wrist must be uint8 \[B, T_o, …\] = \[B, 2, .*\]; got uint8"),
        (lambda x: x[:, :1], r"got uint8 \[1, 1, "),
        (lambda x: x[:, :, :-1], r"got uint8 \[1, 2, "),
        (lambda x: np.moveaxis(x, -1, 2), r"got uint8 \[1, 2, 3, .*; channels come last, try"),
        (lambda x: x / 255, r"got float64 \[1, 2, .*; pictures are uint8 of 0 to 255"),
        (lambda x: x.astype(np.int64), "got int64 .*; pictures are uint8 of 0 to 255"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(change, message):
    observation = cameras.observation()
    with pytest.raises(DiffpolicyError, match=message):
        cameras.policy()({**observation, "wrist": change(observation["wrist"])})


def test_a_missing_camera_is_named():
    observation = cameras.observation()
    del observation["front"]
    with pytest.raises(DiffpolicyError, match="must hold wrist, pose, front; got wrist, pose"):
        cameras.policy()(observation)


# Latency


def test_latency_tells_the_encoder_from_the_loop(tmp_path, monkeypatch, capsys):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    small = nets.NETS["unet-small-image"]
    model = replace(small.model, unet_channels=(8, 16), condition=8, keypoints=4)
    monkeypatch.setitem(nets.NETS, "unet-small-image", small._replace(model=model))
    file = tmp_path / "latency.json"
    config = LatencyConfig(
        net="unet-small-image",
        ddim_steps=(1, 2),
        engine=("eager", "native"),
        baseline="diffusers",
        seconds=0.02,
        json=file,
    )
    latency(config)
    result = read_result(file)
    rows = [(row.ddim_steps, row.engine) for row in result.rows]
    engines = ("eager", "eager + native", "diffusers")
    assert rows == [(k, name) for k in (1, 2) for name in engines]
    for row in result.rows:
        shared = next(r for r in result.rows if r.engine == row.engine)
        assert row.encoder_ms == shared.encoder_ms and row.encoder_ms > 0
        assert row.max_abs_diff is None or row.max_abs_diff <= 1e-4
        assert (row.cameras, row.crop) == ({"image": [96, 96, 3]}, 0.875)
        assert row.gpu_ms is None
        assert table._parts(replace(row, encoder_ms=1e6)) == (1e6, 0.0)
    assert re.search(r"encoder +loop", capsys.readouterr().out)
    assert "encoder_ms" in (tmp_path / "latency_budgets.csv").read_text()


def test_latencies_of_vectors_are_written_as_before(tmp_path, capsys):
    file = tmp_path / "latency.json"
    latency(LatencyConfig(net="mlp", ddim_steps=(1,), engine=("eager",), seconds=0.01, json=file))
    told = file.read_text() + capsys.readouterr().out
    assert not any(word in told for word in ("encoder", "cameras", "crop"))
    write_result(tmp_path / "again.json", read_result(file))
    assert (tmp_path / "again.json").read_text() == file.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cameras": {"wrist": [24, 24, 3], "front": [24, 24, 3]}},
            r"with pictures front \[24, 2",
        ),
        ({"crop": 1.0}, r"at --crop 1\.0; expected pictures front \[24, 32, 3\], wrist .*0\.875"),
        ({"cameras": None, "crop": None}, "with no pictures; expected pictures front"),
    ],
)
def test_latencies_of_other_pictures_are_not_replayed(tmp_path, change, message):
    """They have the same network, whose parameters do not depend on the size."""
    policy, file = cameras.policy(), tmp_path / "latency.json"
    row = {"network_evals": 3, "parameters": policy.parameters, "engine": "eager"}
    row |= {"samples_ms": [1.0], **seen_by(policy.specification)}
    file.write_text(json.dumps({"records": [{**row, "samples_ms": [0.5], **change}, row]}))
    assert replay(file, [policy])[0].samples_ms == [1.0]
    file.write_text(json.dumps({"records": [{**row, **change}]}))
    with pytest.raises(DiffpolicyError, match=message):
        replay(file, [policy])


def test_the_time_on_the_gpu_is_that_of_both_stages():
    encoder: Any = SimpleNamespace(name="cuda-graph", gpu_ms=lambda: 0.5)
    loop: Any = SimpleNamespace(name="cuda-graph", gpu_ms=lambda: 2.0)
    vectors: Any = SimpleNamespace(name=None)
    assert Stages(encoder, loop).gpu_ms() == 2.5
    assert Stages(vectors, loop).gpu_ms() == 2.0
    assert Stages(build_encoder("eager", cameras.policy().job()), loop).gpu_ms() is None


def test_without_pictures_nothing_is_added(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=2, engine="native")
    stages = policy.engine()
    assert stages.name == "native" and isinstance(stages.encode, encoding.Join)
    history = np.random.default_rng(0).uniform(-1, 1, (1, 2, 4)).astype(np.float32)
    expected = policy.observation_normalizers["observation"].normalize(history).reshape(1, -1)
    np.testing.assert_array_equal(policy.encode(history).numpy(), expected)
    loop, _ = auto.choose_stages(policy.job())
    assert " + " not in loop.name
    assert build_stages("eager", policy.job()).name == "eager"
