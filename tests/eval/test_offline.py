"""Offline figures: laws of the errors, held-out episodes, and results that repeat."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite
from stores import ATTRIBUTES, write_plainly

from diffpolicy import cli, environment
from diffpolicy.checkpoint import load_policy
from diffpolicy.data.windows import make_windows
from diffpolicy.engines.stages import build_stages
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.data_config import OfflineConfig
from diffpolicy.eval.measure.action_error import (
    by_episode,
    deviations,
    distance,
    estimate,
    spread,
)
from diffpolicy.eval.measure.held_out import HeldOut, held_out
from diffpolicy.eval.measure.offline_figures import Figures
from diffpolicy.eval.measure.open_loop import open_loop, paired_ticks
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.eval.measure.samples import read_samples
from diffpolicy.eval.offline import offline
from diffpolicy.eval.report.offline_page import facts
from diffpolicy.specification import FLAT, NO_ENVIRONMENT, Horizons
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import split_episodes
from diffpolicy.training.train import train

LENGTHS = (30, 41, 25, 9, 33, 28, 40, 22)
ENDS = np.cumsum(LENGTHS)
HORIZONS = Horizons(2, 16, 8)
SMALL = {"hidden": 16, "blocks": 1, "steps": 4, "device": "cpu"}
QUICK = {"engine": "eager", "latency_seconds": 0.02, "device": "cpu", "ddim_steps": (1, 2, 5)}


def walks(seed: int = 0) -> dict[str, np.ndarray]:
    """Smooth actions of two units, one constant dimension, and observations of them."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((ENDS[-1], 2)) * [1, 100]
    action = np.concatenate([np.cumsum(steps, 0), np.full((ENDS[-1], 1), 7)], 1)
    return {"state": action[:, :2] + 0.1, "action": action}


def write_walks(path: Path, seed: int = 0, **attributes) -> Path:
    import zarr

    write_plainly(path, walks(seed), ENDS)
    zarr.open_group(path).attrs.update(ATTRIBUTES | {"position_targets": True} | attributes)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_walks(tmp_path_factory.mktemp("walks") / "walks.zarr")


@pytest.fixture(scope="module")
def config(store) -> TrainConfig:
    run = store.with_name("run")
    return TrainConfig(data=store, out=run, env=NO_ENVIRONMENT, validation_fraction=0.4, **SMALL)


@pytest.fixture(scope="module")
def run(config) -> Path:
    """Run without an environment that held out four of eight episodes. Read-only."""
    train(config)
    return config.out


@pytest.fixture(scope="module")
def result(run, tmp_path_factory):
    return offline(OfflineConfig(run=run, out=tmp_path_factory.mktemp("out"), **QUICK))


@pytest.fixture
def figures() -> Figures:
    """Of demonstrations alone; chunks are given by the tests."""
    found = {name: values.astype(np.float32) for name, values in walks().items()}
    episodes = np.array([1, 3, 4])
    data = HeldOut(Path("data"), {FLAT: found["state"]}, found["action"], ENDS, episodes, "three")
    return Figures(data, open_loop(data, episodes, HORIZONS, 5), samples=2, seed=0)


def twice(chunks: np.ndarray) -> np.ndarray:
    return np.stack([chunks, chunks], 1)


def test_a_perfect_policy_has_no_error(figures):
    """Its seams have none either: both chunks give the demonstrated action."""
    perfect = twice(figures.truth)
    assert figures.from_truth(perfect[:, 0]).max() == 0
    assert figures.mean(figures.from_truth(perfect[:, 0])).mean == 0
    assert figures.by_dimension(perfect) == [0, 0, 0]
    assert figures.seam(perfect).mean == 0


def test_a_policy_that_gives_one_action_has_no_seams_and_the_error_of_the_mean_action(figures):
    mean = figures.data.actions.mean(0, dtype=np.float64)
    constant = np.broadcast_to(mean, figures.truth.shape)
    assert figures.seam(twice(constant)).mean == 0
    error = figures.mean(figures.from_truth(constant), figures.executed)
    assert error == figures.references().constant


def test_errors_do_not_depend_on_the_units_of_the_data(figures):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 50, 4))
    scale, offset = np.array([1, 0.001, 1000, 1]), np.array([0, 5, -3, 1])
    sigma = deviations(b)
    np.testing.assert_allclose(
        distance(a * scale + offset, b * scale + offset, sigma * scale), distance(a, b, sigma)
    )


def test_one_deviation_off_in_every_dimension_is_an_error_of_one():
    actions = walks()["action"]
    sigma = deviations(actions)
    assert list(sigma > 0) == [True, True, False]
    np.testing.assert_allclose(distance(actions + sigma, actions, sigma), 1)


def test_a_constant_dimension_does_not_count_and_nothing_but_constants_is_refused():
    sigma = deviations(walks()["action"])
    assert distance(np.array([0, 0, 9.0]), np.array([0, 0, 7.0]), sigma) == 0
    with pytest.raises(DiffpolicyError, match="all actions are the same"):
        deviations(np.full((9, 2), 3.0, np.float32))


def test_the_spread_is_the_error_of_a_policy_that_samples_like_the_demonstrator():
    """E|a - â| = E|â - â'| for independent draws of one distribution."""
    rng = np.random.default_rng(0)
    chunks = rng.choice([-1.0, 1.0], (4000, 5, 1, 1))
    truth = rng.choice([-1.0, 1.0], (4000, 1, 1))
    sigma = np.ones(1)
    error = distance(chunks, truth[:, None], sigma).mean()
    assert abs(error - spread(chunks, sigma).mean()) < 0.03
    assert abs(error - 1) < 0.03
    mean = distance(chunks.mean(1), truth, sigma).mean()
    assert mean <= error  # the mean action fails in both modes, with no larger error


def test_actions_beyond_the_end_of_an_episode_do_not_count():
    values, real = np.array([[1.0, 9.0], [3.0, 5.0], [7.0, 7.0]]), np.ones((3, 2), bool)
    real[0, 1] = False
    found = by_episode(values, real, np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(found, [3, np.nan, 7])
    assert estimate(found).mean == 5
    assert estimate(found[:1]).ci is None
    assert estimate(found[1:2]) is None


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    found = [estimate(rng.exponential(1, 60)).ci for _ in range(100)]
    assert sum(low <= 1 <= high for low, high in found) >= 88


@pytest.mark.parametrize("length", [1, 8, 9, 20, 500])
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_pairs_are_one_execution_apart_and_inside_the_episode(length, most):
    ticks, pairs = paired_ticks(length, 8, most)
    assert np.all(np.diff(ticks) > 0) and ticks[0] == 0 and ticks[-1] < length
    assert np.all(ticks[pairs[:, 1]] - ticks[pairs[:, 0]] == 8)
    assert len(pairs) == min(most, max(0, length - 8))
    assert len(pairs) == 0 or set(pairs.ravel()) == set(range(len(ticks)))


def test_observations_and_actions_are_those_of_training_s_windows(figures):
    loop, data = figures.loop, figures.data
    windows = make_windows(data.observations, data.actions, data.ends, HORIZONS)
    starts = data.ends - np.diff(data.ends, prepend=0)
    rows = starts[loop.number] + loop.tick
    _, actions, real = windows.gather(rows)
    np.testing.assert_array_equal(actions[:, 1:], figures.truth)
    np.testing.assert_array_equal(real[:, 1:], figures.real)
    later = loop.tick > 0
    np.testing.assert_array_equal(loop.before()[later], data.actions[rows[later] - 1])
    np.testing.assert_array_equal(loop.before()[~later], data.actions[rows[~later]])


def test_budgets_keep_their_order_and_the_largest_is_the_reference(result):
    assert [row.ddim_steps for row in result.rows] == [1, 2, 5]
    assert result.reference == "5 steps"
    assert result.rows[-1].distance.mean == 0 < result.rows[0].distance.mean
    for row in result.rows:
        assert row.error.ci[0] <= row.error.mean <= row.error.ci[1]
        assert row.error_of_mean.mean <= row.error.mean + 1e-9
        assert row.seam.mean / result.references.change == pytest.approx(row.seam_ratio)
        assert np.mean(row.episode_errors) == pytest.approx(row.error.mean)


def test_episodes_are_those_that_training_held_out(run, result):
    _, held = split_episodes(len(LENGTHS), 0.4, 0)
    assert result.provenance.episodes == held.tolist()
    assert result.provenance.held_out == "4 of 8, held out of the training by seed 0"
    assert result.provenance.sigma[2] == 0


def test_figures_repeat_to_the_bit_whatever_else_is_asked(run, result, tmp_path):
    """Neither other budgets nor fewer episodes change those of an episode."""
    fewer = QUICK | {"ddim_steps": (2, 5)}
    again = offline(OfflineConfig(run=run, out=tmp_path, episodes=3, **fewer))
    assert again.rows[0].name == result.rows[1].name
    whole = dict(zip(result.provenance.episodes, result.rows[1].episode_errors, strict=True))
    some = zip(again.provenance.episodes, again.rows[0].episode_errors, strict=True)
    assert len(again.provenance.episodes) == 3
    assert all(whole[number] == pytest.approx(error, abs=1e-6) for number, error in some)
    twice_ = offline(OfflineConfig(run=run, out=tmp_path, **QUICK))
    for name in ("error", "spread", "distance", "seam", "by_dimension", "episode_errors"):
        assert [getattr(r, name) for r in twice_.rows] == [getattr(r, name) for r in result.rows]


def test_the_report_is_drawn_again_from_its_file(run, tmp_path, call):
    options = ("--engine", "eager", "--latency-seconds", 0.02, "--ddim-steps", 1, 2)
    done = call("offline", "--run", run, *options, "--out", tmp_path / "a")
    assert (done.code, done.errors) == (0, [])
    assert "These figures are no success rate" in done.out and "× change" in done.out
    again = call("report", tmp_path / "a" / "offline.json", "--out", tmp_path / "b")
    assert again.code == 0
    names = {"offline.png", "report.html", "offline_episodes.csv", "offline_budgets.csv"}
    assert {file.name for file in (tmp_path / "b").iterdir()} == names
    for name in names:
        again = (tmp_path / "b" / name).read_bytes().replace(b'"../a/offline', b'"offline')
        assert (tmp_path / "a" / name).read_bytes() == again
    page = (tmp_path / "b" / "report.html").read_text()
    assert "no success rate" in page and "dimension 2" in page


def test_latencies_of_the_result_can_be_replayed(result, run, tmp_path):
    offline(OfflineConfig(run=run, out=tmp_path, **QUICK))
    samples = read_samples(tmp_path / "offline.json")
    assert [s.network_evals for s in samples] == [1, 2, 5]
    assert read_result(tmp_path / "offline.json").rows[0].name == result.rows[0].name


def test_a_policy_whose_chunks_do_not_overlap_has_no_seams(config, store, tmp_path):
    run = replace(config, out=tmp_path / "run", action_horizon=15)
    train(run)
    [row] = offline(OfflineConfig(run=run.out, **QUICK | {"ddim_steps": (2,)})).rows
    assert row.seam is None and row.seam_ratio is None


def test_regression_has_one_row_and_no_spread(config, tmp_path):
    run = replace(config, out=tmp_path / "run", objective="regression")
    train(run)
    [row] = offline(OfflineConfig(run=run.out, **QUICK)).rows
    assert (row.ddim_steps, row.spread, row.distance.mean) == (0, None, 0)
    assert row.error == row.error_of_mean


def test_a_run_with_an_environment_needs_it_no_more(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "make", None)
    found = offline(OfflineConfig(run=tiny_run, out=tmp_path, **QUICK))
    assert len(found.provenance.episodes) == 1
    assert found.rows[0].error.ci is None
    assert "One episode has no interval." in list(facts(found))


def test_all_episodes_of_another_store_count(run, tmp_path):
    other = write_walks(tmp_path / "other.zarr", seed=1)
    found = held_out(run, load_policy(run), other)
    assert found.episodes.tolist() == list(range(8))
    assert found.reason == "all 8 of another data set than that of the training"


def test_a_store_that_moved_is_still_that_of_the_training(run, tmp_path):
    moved = write_walks(tmp_path / "moved.zarr")
    assert len(held_out(run, load_policy(run), moved).episodes) == 4


def test_a_period_that_training_was_given_is_that_of_its_own_data(config, tmp_path):
    run = replace(config, out=tmp_path / "run", control_dt=0.5, position_targets=False)
    train(run)
    assert len(held_out(run.out, load_policy(run.out), None).episodes) == 4


def test_an_imported_policy_may_have_been_trained_on_the_data(config, run, store, tmp_path, call):
    """Its provenance is that of others, whatever its fields mean there."""
    shutil.copytree(run, tmp_path / "run")

    def imported(header, tensors):
        config = {"data": {}, "seed": "no", "obs": 3}
        training = {"source": "folder", "format": "lerobot", "config": config}
        header["specification"]["training"] = training

    rewrite(tmp_path / "run/policy.safetensors", imported)
    checkpoint = load_policy(tmp_path / "run")
    with pytest.raises(DiffpolicyError, match="which data it was trained on; give --data"):
        held_out(tmp_path / "run", checkpoint, None)
    found = held_out(tmp_path / "run", checkpoint, store)
    assert len(found.episodes) == 8
    assert found.reason.endswith("does not say which data it was trained on, perhaps on these")


def test_the_latency_is_that_of_its_engine(run, tmp_path, monkeypatch):
    """`auto` chooses for one observation and for a batch apart."""

    def choose(job, folder=None):
        stages = build_stages("eager", job)
        vars(stages.loop).update(name="quick") if job.batch == 1 else None
        return stages, "as asked"

    monkeypatch.setattr("diffpolicy.policy.choose_stages", choose)
    quick = QUICK | {"engine": "auto", "ddim_steps": (1,)}
    [row] = offline(OfflineConfig(run=run, out=tmp_path, **quick)).rows
    assert "quick" in row.engine and row.chunk_engine == "eager"
    assert read_samples(tmp_path / "offline.json")[0].engine == row.engine


def test_a_file_that_lacks_errors_of_episodes_is_refused(run, tmp_path, refused):
    offline(OfflineConfig(run=run, out=tmp_path, **QUICK))
    file = tmp_path / "offline.json"
    found = json.loads(file.read_text())
    found["records"][0]["episode_errors"].pop()
    file.write_text(json.dumps(found))
    assert "expected an error of each of 4 episodes" in refused("report", file)


def test_data_that_do_not_serve_are_refused(config, store, run, tmp_path):
    checkpoint = load_policy(run)
    slow = write_walks(tmp_path / "slow.zarr", seed=1, control_dt_s=0.2)
    with pytest.raises(DiffpolicyError, match=r"control period of 0\.2 s, the policy was trained"):
        held_out(run, checkpoint, slow)
    other = write_walks(tmp_path / "other.zarr", seed=1, position_targets=False)
    with pytest.raises(DiffpolicyError, match="declares position_targets False, the policy was"):
        held_out(run, checkpoint, other)
    wide = write_plainly(tmp_path / "wide", {**walks(1), "state": np.ones((ENDS[-1], 3))}, ENDS)
    with pytest.raises(DiffpolicyError, match=r"state is \[3\]; the policy observes \[2\]"):
        held_out(run, checkpoint, wide)
    plain = write_plainly(tmp_path / "plain", {"action": walks(1)["action"]}, ENDS)
    with pytest.raises(DiffpolicyError, match="has no data/state"):
        held_out(run, checkpoint, plain)


def test_a_run_that_held_nothing_out_or_whose_store_is_gone_or_changed_is_refused(
    config, tmp_path, refused
):
    data = write_walks(tmp_path / "data.zarr")
    whole = replace(config, data=data, out=tmp_path / "run", validation_fraction=0.0)
    train(whole)
    line = refused("offline", "--run", whole.out)
    assert "was trained on all 8 episodes of this data set" in line
    data.rename(tmp_path / "gone.zarr")
    assert "which is not here; give its place with --data" in refused("offline", "--run", whole.out)
    write_walks(data, seed=3)
    assert "has changed since" in refused("offline", "--run", whole.out)
    assert "has changed since" in refused("offline", "--run", whole.out, "--data", data)
    assert not (whole.out / "offline").exists()


def test_denoising_is_drawn_from_a_demonstration(run, tmp_path, call):
    out = tmp_path / "d.webp"
    options = ("--ddim-steps", 1, "--chunks", 2, "--out", out)
    done = call("denoise", "--run", run, *options)
    assert done.code == 0 and out.exists()
    first = split_episodes(len(LENGTHS), 0.4, 0)[1][0]
    assert f"first observation of episode {first}" in done.out


def test_info_and_latency_need_no_environment(run, call):
    assert f'"env_id": "{NO_ENVIRONMENT}"' in call("info", run, "--json", "-").out
    options = ("--engine", "eager", "--seconds", 0.02, "--ddim-steps", 1)
    assert "within 100 ms" in call("latency", "--run", run, *options).out


@pytest.mark.parametrize("name", ["lerobot_v3.0_lowdim", "lerobot_v2.1_png"])
def test_data_of_a_real_robot_train_and_have_figures(name, tmp_path):
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    pytest.importorskip("pyarrow", reason="reading LeRobot's format needs pyarrow")
    run = tmp_path / "run"
    facts = {"env": NO_ENVIRONMENT, "position_targets": False, "validation_fraction": 0.5}
    train(TrainConfig(data=Path(folder) / name, out=run, batch=4, **SMALL, **facts))
    found = offline(OfflineConfig(run=run, pairs=2, samples=2, **QUICK | {"ddim_steps": (1,)}))
    assert found.provenance.episodes_in_data == 3
    assert (found.rows[0].cameras is None) == (name == "lerobot_v3.0_lowdim")


def test_the_command_is_in_the_table():
    assert cli.named(cli.COMMANDS["offline"][1]) is offline
