"""Suggestions for misspelt commands and environments."""

import pickle

import gymnasium
import pytest

from diffpolicy.envs import TASKS
from diffpolicy.errors import UnknownEnvironment
from diffpolicy.terminal.names import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("trian", ["train", "distill"], "train"),
        ("Balance-v0", ["a.b:Balance-v0", "CartPole-v1"], "a.b:Balance-v0"),
        ("balance-v0", ["a.b:Balance-v0", "CartPole-v1"], "a.b:Balance-v0"),
        ("a.b:Blance-v0", ["a.b:Balance-v0"], "a.b:Balance-v0"),
        ("fly", ["train", "distill"], None),
        ("x", [], None),
    ],
)
def test_the_name_that_is_most_alike_is_suggested(name, known, meant):
    assert did_you_mean(name, known) == (f"; did you mean {meant}?" if meant else "")


def test_a_misspelt_command_is_suggested(refused):
    assert "'trian' is not a command; did you mean train? Choose one of: " in refused("trian")


@pytest.fixture
def unregistered(monkeypatch):
    """The registry of a process that has not imported the tasks."""
    for task in TASKS:
        monkeypatch.delitem(gymnasium.registry, task, raising=False)


@pytest.mark.usefixtures("unregistered")
@pytest.mark.parametrize("name", ["Balance-v0", "Balanc-v0", "diffpolicy.envs:Blance-v0"])
def test_an_environment_without_its_module_is_suggested_with_it(refused, tmp_path, name):
    line = refused("record", "--env", name, "--episodes", 1, "--out", tmp_path / "s.zarr")
    assert line.endswith("; did you mean diffpolicy.envs:Balance-v0?")
    assert not list(tmp_path.iterdir())


def test_an_environment_is_suggested_once(refused, tmp_path):
    for name, told in (("Detuor-v0", "`Detuor` doesn't exist"), ("Detour-v1", "[ `v0` ]")):
        wrong = f"diffpolicy.envs:{name}"
        line = refused("record", "--env", wrong, "--episodes", 1, "--out", tmp_path / "s.zarr")
        assert line.endswith(f"{told}; did you mean diffpolicy.envs:Detour-v0?")
        assert line.lower().count("did you mean") == 1


@pytest.mark.usefixtures("unregistered")
def test_the_environment_of_an_evaluation_is_suggested_too(refused, tiny_run):
    line = refused("eval", "--run", tiny_run, "--env", "Balance-v0", "--episodes", 1)
    assert line.endswith("; did you mean diffpolicy.envs:Balance-v0?")


def test_the_error_reaches_another_process_whole():
    error = pickle.loads(pickle.dumps(UnknownEnvironment("no such environment", "X-v0")))
    assert (str(error), error.env_id) == ("no such environment", "X-v0")
