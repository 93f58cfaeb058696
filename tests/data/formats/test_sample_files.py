"""Every sample data set gives the recorded episodes to the bit, and says what it does not hold."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from foreign_data import assert_equal, recorded, samples

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.formats import open_source
from diffpolicy.data.formats.options import OptionNeeded, SourceOptions
from diffpolicy.errors import DiffpolicyError

MINARI = "minari/diffpolicy"
MAP = ("observation=observations", "action=actions", "dones=timeouts")
FINAL, REWARD, ENDS, SUCCESS = "final", "reward", "ends", "success"


def opened(format_name: str, name: str, **options):
    module = import_module(f"diffpolicy.data.formats.{format_name}")
    path = samples() / name
    assert module.matches(path)
    return module.open_source(path, SourceOptions(**options))


def darkened(pictures: np.ndarray) -> np.ndarray:
    """Pictures of the samples with two bits a number, so that they compress."""
    return pictures // 64 * 16


def check(found: Demonstration, expected: dict[str, np.ndarray], held: set[str], dtype) -> None:
    """Compare one flat observation, the actions and what the format holds."""
    [key] = set(found.arrays) - {"action"} - {"agentview_image", "top"}
    assert_equal(found.arrays[key], expected["observations"][:-1].astype(dtype))
    assert_equal(found.arrays["action"], expected["actions"].astype(dtype))
    assert bool(found.final) == (FINAL in held)
    if FINAL in held:
        assert_equal(found.final[key], expected["observations"][-1].astype(dtype))
    assert ("reward" in found.outcomes) == (REWARD in held)
    if REWARD in held:
        assert_equal(found.outcomes["reward"], expected["rewards"].astype(dtype))
    assert ("truncated" in found.outcomes) == (ENDS in held)
    if ENDS in held:
        assert_equal(found.outcomes["terminated"], expected["terminations"])
        assert_equal(found.outcomes["truncated"], expected["truncations"])
    assert found.success == (bool(expected["success"].any()) if SUCCESS in held else None)


@pytest.mark.parametrize(
    ("format_name", "name", "options", "dtype", "held"),
    [
        ("robomimic", "robomimic.hdf5", {}, "f8", {FINAL, REWARD}),
        ("d4rl", "d4rl.hdf5", {}, "f4", {REWARD, ENDS}),
        ("ogbench", "ogbench.npz", {}, "f4", {FINAL}),
        ("maniskill", "maniskill.h5", {}, "f4", {FINAL, ENDS, SUCCESS}),
        ("adroit", "adroit_numpy2.pickle", {}, "f8", {REWARD}),
        ("arrays", "d4rl.hdf5", {"map": MAP}, "f4", set()),
        ("minari", f"{MINARI}/balance-hdf5-v0", {}, "f4", {FINAL, REWARD, ENDS, SUCCESS}),
        ("minari", f"{MINARI}/balance-arrow-v0", {}, "f4", {FINAL, REWARD, ENDS, SUCCESS}),
        ("minari", f"{MINARI}/balance-parquet-v0/data", {}, "f4", {FINAL, REWARD, ENDS, SUCCESS}),
    ],
)
def test_the_recorded_episodes_come_back(format_name, name, options, dtype, held):
    source = opened(format_name, name, **options)
    expected = recorded()
    assert len(source) == len(expected)
    for found, episode in zip(source.episodes(), expected, strict=True):
        check(found, episode, held, dtype)
    [last] = source.episodes(2)
    assert_equal(last.arrays["action"], expected[2]["actions"].astype(dtype))


@pytest.mark.parametrize("jpeg", [0, 1])
def test_pictures_of_minari_are_exact_unless_it_says_jpeg(jpeg):
    source = opened("minari", f"{MINARI}/balance-image-jpeg{jpeg}-v0")
    [found], [first, *_] = source.episodes(), recorded()
    check(found, first, {FINAL, REWARD, ENDS, SUCCESS}, "f4")
    error = np.abs(found.arrays["top"].astype(int) - darkened(first["images"])).max()
    assert (error > 0) == bool(jpeg)
    assert any("JPEG" in note for note in source.notes) == bool(jpeg)


def test_pictures_of_robomimic_are_exact():
    for found, expected in zip(
        opened("robomimic", "robomimic.hdf5").episodes(), recorded(), strict=True
    ):
        assert_equal(found.arrays["agentview_image"], darkened(expected["images"][:, ::2, ::2]))


def test_robomimic_reads_demonstrations_by_number_and_lists_by_name():
    assert [e.name for e in opened("robomimic", "robomimic.hdf5").episodes()] == [
        "demo_0",
        "demo_2",
        "demo_10",
    ]
    valid = opened("robomimic", "robomimic.hdf5", subset="valid")
    assert len(valid) == 1
    with pytest.raises(DiffpolicyError, match="no list mask/x; it has: train, valid"):
        opened("robomimic", "robomimic.hdf5", subset="x")


def test_what_is_declared_and_what_is_not():
    robomimic = opened("robomimic", "robomimic.hdf5")
    assert robomimic.attributes["env_id"] == "diffpolicy.envs:Balance-v0"
    assert "position_targets" not in robomimic.attributes
    assert any("dones" in note for note in robomimic.notes)
    assert any("states" in note for note in robomimic.notes)
    maniskill = opened("maniskill", "maniskill.h5")
    assert maniskill.attributes == {
        "env_id": "Balance-v0",
        "env_kwargs": {"control_mode": "force"},
    }
    assert any("misplaced timeouts" in note for note in opened("d4rl", "d4rl.hdf5").notes)
    pickled = opened("adroit", "adroit_numpy2.pickle")
    assert any("init_state_dict" in note for note in pickled.notes)


def test_keys_are_left_out_on_request():
    found = next(opened("robomimic", "robomimic.hdf5", skip=("agentview_image",)).episodes())
    assert set(found.arrays) == {"state", "action"} and set(found.final) == {"state"}
    with pytest.raises(DiffpolicyError, match="no observation 'x' to skip"):
        opened("robomimic", "robomimic.hdf5", skip=("x",))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ogbench.npz", {"subset": "train"}, "--subset is for --format robomimic; .* as ogbench"),
        ("d4rl.hdf5", {"map": MAP}, "--map is for --format arrays; .* as d4rl"),
        ("d4rl.hdf5", {"skip": ("x",)}, "no observation 'x' to skip"),
        ("ogbench.npz", {"skip": ("observation",)}, "no observation that is not skipped"),
    ],
)
def test_an_option_of_another_format_is_refused(name, options, message):
    with pytest.raises(DiffpolicyError, match=message):
        open_source(samples() / name, SourceOptions(**options))


def test_files_without_a_known_layout_need_a_map():
    with pytest.raises(OptionNeeded, match=r"--map observation=OBS.*images_0"):
        opened("arrays", "source.npz")
    wanted = ("state=observations", "action=nothing", "dones=timeouts")
    with pytest.raises(DiffpolicyError, match="no array 'nothing'; it has: actions"):
        opened("arrays", "d4rl.hdf5", map=wanted)


def test_a_sample_matches_one_format_only():
    names = {
        "robomimic": "robomimic.hdf5",
        "d4rl": "d4rl.hdf5",
        "maniskill": "maniskill.h5",
        "ogbench": "ogbench.npz",
        "adroit": "adroit_numpy2.pickle",
        "minari": f"{MINARI}/balance-arrow-v0",
    }
    modules = {name: import_module(f"diffpolicy.data.formats.{name}") for name in names}
    for name, file in names.items():
        assert [n for n, m in modules.items() if m.matches(samples() / file)] == [name]
        assert not modules[name].matches(Path("/absent"))
        assert not modules[name].matches(samples())


def test_d4rl_in_an_npz_is_not_taken_for_ogbench(tmp_path):
    """Its terminals end T rows, so that no action may be left out."""
    rows = {"observations": np.zeros((4, 3)), "actions": np.zeros((4, 2))}
    ends = {"terminals": np.zeros(4), "timeouts": np.arange(4) == 3}
    np.savez(tmp_path / "flat.npz", **rows, **ends)
    with pytest.raises(OptionNeeded, match="--map"):
        open_source(tmp_path / "flat.npz")
