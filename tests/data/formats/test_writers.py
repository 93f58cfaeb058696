"""Round trips through Minari and robomimic, to the bit, and names for what they cannot hold."""

import gymnasium
import numpy as np
import pytest
from foreign_data import a_source, an_episode, assert_alike

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.formats import minari, minari_writer, robomimic, robomimic_writer
from diffpolicy.data.formats.options import ExportOptions, SourceOptions
from diffpolicy.errors import DiffpolicyError

FACTS = {"control_dt_s": 0.05, "position_targets": True}
FORMATS = {"minari": (minari_writer, minari), "robomimic": (robomimic_writer, robomimic)}


def exported(name, source, out):
    """Write a source; return the opened result and the sentences of the writer."""
    writer, reader = FORMATS[name]
    out.parent.mkdir(exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    said = writer.write(source, ExportOptions(format=name, out=out), partial)
    partial.rename(out)
    assert reader.matches(out)
    return reader.open_source(out, SourceOptions()), said


@pytest.fixture
def episodes():
    return [an_episode(steps, seed) for seed, steps in enumerate((5, 1, 12))]


def test_minari_holds_everything_of_an_episode(tmp_path, episodes):
    out = tmp_path / "mine" / "push-v0"
    found, said = exported("minari", a_source(episodes, **FACTS), out)
    assert found.attributes == FACTS
    for got, expected in zip(found.episodes(), episodes, strict=True):
        assert_alike(got, expected)
    assert said == ["the environment, which is unknown"]
    assert sorted(p.name for p in out.parent.iterdir()) == ["namespace_metadata.json", "push-v0"]


def test_robomimic_holds_all_but_outcomes(tmp_path, episodes):
    found, said = exported("robomimic", a_source(episodes, **FACTS), tmp_path / "out.hdf5")
    assert found.attributes == FACTS
    for got, expected in zip(found.episodes(), episodes, strict=True):
        kept = {"reward": expected.outcomes["reward"]}
        whole = Demonstration(expected.arrays, kept, expected.final)
        assert_alike(got, whole)
    assert any("success" in s for s in said) and any("terminated" in s for s in said)


@pytest.mark.parametrize("name", FORMATS)
def test_flat_observations_and_numbers_alone(tmp_path, name):
    arrays = {"observation": np.ones((4, 3)), "action": np.zeros((4, 2))}
    episode = Demonstration(arrays, final={"observation": np.arange(3.0)})
    found, said = exported(name, a_source([episode]), tmp_path / "n0" / "x-v1")
    [got] = found.episodes()
    assert_alike(got, episode)
    assert any("reward" in s and "NaN" in s for s in said)


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_final_observation(tmp_path, name):
    episode = an_episode(6, final={})
    found, said = exported(name, a_source([episode]), tmp_path / "n0" / "x-v1")
    [got] = found.episodes()
    kept = len(got)
    assert kept == (5 if name == "minari" else 6)
    assert np.array_equal(got.arrays["camera"], episode.arrays["camera"][:kept])
    assert any("observation after" in s for s in said)


def test_the_library_recovers_the_environment(tmp_path):
    import minari as library

    name = "diffpolicy.envs:Balance-v0"
    env = gymnasium.make(name)
    seen, action = env.observation_space.sample(), env.action_space.sample()
    arrays = {"observation": np.stack([seen] * 4), "action": np.stack([action] * 4)}
    episode = Demonstration(arrays, final={"observation": seen})
    facts = {"env_id": name, "env_kwargs": {}}
    out = tmp_path / "mine" / "balance-v3"
    found, _ = exported("minari", a_source([episode], **facts), out)
    assert found.attributes == facts
    dataset = library.MinariDataset(out / "data")
    assert dataset.spec.dataset_id == "mine/balance-v3"
    assert dataset.action_space == env.action_space
    assert dataset.recover_environment().observation_space == env.observation_space


def test_a_path_that_is_no_id_is_explained_and_nothing_is_left(tmp_path):
    out = tmp_path / "mine" / "push.v0"
    (tmp_path / "mine").mkdir()
    with pytest.raises(DiffpolicyError, match="NAMESPACE/NAME-vN"):
        exported("minari", a_source([an_episode(3)]), out)
    assert list(out.parent.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    source = a_source([an_episode(3), an_episode(4, arrays={"action": np.zeros((4, 2))})])
    out = tmp_path / "mine" / "push-v0"
    with pytest.raises(DiffpolicyError):
        exported("minari", source, out)
    assert list(out.parent.iterdir()) == []
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_attributes_that_training_reads_return_and_others_are_named(tmp_path, name):
    facts = {**FACTS, "camera": 96, "observation_keys": ["a", "b"]}
    source = a_source([an_episode(3)], **facts, expert="me", max_steps=5)
    found, said = exported(name, source, tmp_path / "n0" / "x-v1")
    assert found.attributes == facts
    assert "attributes of the store: expert, max_steps" in said


def test_an_episode_without_its_last_action_is_truncated_in_minari(tmp_path):
    outcomes = {"truncated": np.zeros(6, bool), "terminated": np.arange(6) == 5}
    episode = an_episode(6, final={}, outcomes=outcomes)
    found, _ = exported("minari", a_source([episode]), tmp_path / "n0" / "x-v1")
    [got] = found.episodes()
    assert got.outcomes["truncated"].tolist() == [False] * 4 + [True]
    assert not got.outcomes["terminated"].any() and not outcomes["truncated"].any()


def test_rows_of_actions_without_dimensions_are_named(tmp_path):
    arrays = {"observation": np.ones((4, 3)), "action": np.arange(4.0)}
    _, said = exported("robomimic", a_source([Demonstration(arrays)]), tmp_path / "n0" / "x-v1")
    assert "rows of actions without dimensions, written as [T, 1]" in said
