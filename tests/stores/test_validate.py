"""Validation: undamaged data are clean, and each planted fault is found at its place."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from stores import write_plainly
from tended import demonstration, write

from diffpolicy.stores.findings import MOST_LINES, Findings

EPISODES = [demonstration(i, 25 + i, pictures=True) for i in range(6)]
ENDS = np.cumsum([len(e) for e in EPISODES])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "store", EPISODES)


def row(episode, step):
    return int(ENDS[episode] - len(EPISODES[episode]) + step)


def test_an_untouched_copy_is_clean(whole, tmp_path, call, snapshot):
    shutil.copytree(whole, tmp_path / "copy")
    before = snapshot(tmp_path)
    code, out, errors = call("validate", tmp_path / "copy")
    assert (code, errors) == (0, [])
    assert "copy: 0 errors, 1 warnings in 6 episodes, 165 steps, 3 arrays" in out
    assert "warning: it is known of some episodes only" in out
    assert snapshot(tmp_path) == before


def test_a_recorded_store_is_clean(balance_store, call):
    code, out, _ = call("validate", balance_store)
    assert code == 0
    assert "0 errors, 0 warnings in 6 episodes" in out
    assert "not checked" not in out


def put(name, index, value):
    def plant(group):
        group[name][index] = value

    return plant


def damage_chunk(group):
    (group.store.root / "data/action/0.0").write_bytes(b"not a chunk")


FAULTS = {
    "nan": (put("data/observation", (row(2, 3), 1), np.nan), "observation is not finite", 2, 3),
    "final": (put("final/observation", (4, 0), np.inf), "the final observation is not", 4, None),
    "terminated": (put("data/terminated", row(1, 5), True), "terminated before the last", 1, 5),
    "hash": (put("data/action", (row(3, 7), 0), 0.1234), "its arrays differ", 3, None),
    "changed reward": (put("data/reward", row(0, 9), 7), "its arrays differ", 0, None),
    "changed final": (put("final/camera", (3, 0, 0, 0), 9), "its arrays differ", 3, None),
    "reward": (put("data/reward", row(0, 9), np.nan), "reward is not finite", 0, 9),
    "picture": (put("data/camera", row(5, 2), 17), "its arrays differ", 5, None),
    "chunk": (damage_chunk, "action cannot be read", 0, None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_an_error_at_its_place(whole, tmp_path, call, fault):
    plant, words, episode, step = FAULTS[fault]
    shutil.copytree(whole, tmp_path / "store")
    plant(zarr.open_group(tmp_path / "store", mode="r+"))
    code, out, _ = call("validate", tmp_path / "store")
    assert code == 1
    lines = [line for line in out.splitlines() if line.startswith("error: ") and words in line]
    place = f"episode {episode}" + (
        "" if step is None else f", step {step} (row {row(episode, step)})"
    )
    assert len(lines) == 1 and lines[0].startswith(f"error: {place}: ")


def changed(episode, **arrays):
    return replace(episode, arrays={**episode.arrays, **arrays})


def spiked(episode, step):
    observation = episode.arrays["observation"].copy()
    observation[step, 1] += 50
    return changed(episode, observation=observation)


def frozen(episode, start, count):
    camera = episode.arrays["camera"].copy()
    camera[start : start + count] = camera[start]
    return changed(episode, camera=camera)


def open_ended(episode):
    none = np.zeros(len(episode), bool)
    return replace(episode, outcomes={**episode.outcomes, "terminated": none, "truncated": none})


def reset_too_early(episode):
    return replace(episode, final={**episode.final, "observation": np.full(3, 90, np.float32)})


ODD = {
    "final": (
        [EPISODES[0], reset_too_early(EPISODES[1])],
        "it may be of the next episode",
        1,
        None,
    ),
    "jump": ([*EPISODES[:5], spiked(EPISODES[5], 11)], "observation[1] jumps by", 5, 11),
    "frozen": ([EPISODES[0], frozen(EPISODES[1], 4, 12)], "camera stands still for 12 steps", 1, 4),
    "twice": ([*EPISODES[:3], EPISODES[1]], "it nearly equals episode 1", 3, None),
    "open": ([EPISODES[0], open_ended(EPISODES[1])], "neither terminated nor truncated", 1, None),
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_is_odd_is_a_warning_at_its_place(tmp_path, call, oddity):
    episodes, words, episode, step = ODD[oddity]
    path = write(tmp_path / "store", episodes)
    code, out, _ = call("validate", path)
    assert code == 0
    [line] = [line for line in out.splitlines() if words in line]
    assert line.startswith(
        f"warning: episode {episode}{'' if step is None else f', step {step} (row'}"
    )


def test_equal_seeds_and_constant_numbers_are_warnings(tmp_path, call):
    arrays = demonstration(0, 30).arrays
    constant = {**arrays, "action": arrays["action"] * np.float32([1, 0])}
    episodes = [replace(demonstration(i), arrays=constant) for i in range(2)]
    path = write(tmp_path / "store", episodes, seeds=[7, 7])
    out = call("validate", path).out
    assert "warning: episode 1: it has seed 7, as episode 0" in out
    assert "warning: these never change: action[1]" in out


def test_actions_outside_the_space_are_warnings(balance_store, tmp_path, call):
    shutil.copytree(balance_store, tmp_path / "store")
    group = zarr.open_group(tmp_path / "store", mode="r+")
    group["data/action"][310] = 5
    out = call("validate", tmp_path / "store").out
    assert "warning: episode 1, step 10 (row 310): action 0 is 5, outside the space of " in out
    assert "[-1, 1], in 1 steps" in out


def test_the_module_that_a_store_names_is_not_imported(tmp_path, call, monkeypatch):
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "store", [demonstration(0)], env_id="evil:Task-v0")
    for command in ("validate", "info"):
        out = call(command, "store", *(["--plot", "x.png"] if command == "info" else [])).out
        assert "give --env evil:Task-v0 to import the module that the data name" in out
    assert not (tmp_path / "ran").exists()


def test_stores_of_others_are_validated(tmp_path, call):
    arrays = {"state": np.cumsum(np.ones((9, 2)), axis=0), "action": np.arange(9.0)[:, None]}
    path = write_plainly(tmp_path / "store", arrays, [4, 9])
    code, out, _ = call("validate", path)
    assert code == 0
    assert "0 errors" in out and "in 2 episodes, 9 steps, 2 arrays" in out
    assert "warning: control_dt_s is not declared" in out
    assert "not checked: limits of the actions: the data name no environment; give --env ID" in out


def test_what_cannot_be_opened_is_refused(tmp_path, refused):
    assert "no demonstrations at" in refused("validate", tmp_path / "nowhere")


def test_many_findings_of_a_kind_are_counted(capsys):
    findings = Findings()
    for number in range(MOST_LINES + 5):
        findings.warn("topic", f"number {number}")
    findings.show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MOST_LINES + 1 and lines[-1] == "warning: 5 more like this (topic)"
    assert findings.total("warning") == MOST_LINES + 5
