"""`diffpolicy import`: the episodes of the source, once each, whatever interrupted it."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foreign_data import a_source
from stores import ATTRIBUTES, ENDS, EPISODES, joined, write_plainly

from diffpolicy.data import demonstration
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import NO_SEED, DemonstrationWriter
from diffpolicy.data.demonstrations import contents, open_demonstrations
from diffpolicy.data.episode_facts import content_hash, stored_facts
from diffpolicy.data.formats import open_source
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores import importing
from diffpolicy.stores.config import FilterConfig, ImportConfig
from diffpolicy.stores.curate import filter_store
from diffpolicy.stores.importing import import_store


@pytest.fixture
def plain(tmp_path):
    """A store as others write it."""
    return write_plainly(tmp_path / "plain", joined(), ENDS)


def imported(source, out, **options) -> Path:
    import_store(ImportConfig(source=source, out=out, **options))
    return out


def assert_holds(path, count=4):
    assert len(open_source(path)) == count
    for episode, expected in zip(open_source(path).episodes(), EPISODES[:count], strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(episode.arrays[name], values, strict=True)


def test_the_store_holds_the_episodes_and_where_they_are_from(tmp_path, plain):
    out = imported(plain, tmp_path / "s.zarr", control_dt=0.1, skip=())
    assert_holds(out)
    attributes = open_demonstrations(out).attributes
    assert attributes["source"] == str(plain) and attributes["format"] == "zarr"
    assert attributes["options"] == {"control_dt": 0.1} and attributes["control_dt_s"] == 0.1
    assert attributes["source_episodes"] == 4
    facts = stored_facts(contents(out).store, 4)
    assert facts.names == ["0", "1", "2", "3"]
    hashes = [content_hash(episode) for episode in open_source(plain).episodes()]
    assert [row.tobytes() for row in facts.hashes] == hashes


def test_attributes_and_facts_of_a_store_are_kept(tmp_path):
    writer = DemonstrationWriter(tmp_path / "a.zarr", ATTRIBUTES)
    [one, *_] = open_source(write_plainly(tmp_path / "plain", joined(), ENDS)).episodes()
    one = replace(one, success=True, task="lift", name="demo_7", outcomes={"reward": np.ones(5)})
    writer.append(one, seed=3)
    out = imported(tmp_path / "a.zarr", tmp_path / "b.zarr")
    [found] = open_source(out).episodes()
    assert (found.success, found.task, found.name) == (True, "lift", "demo_7")
    np.testing.assert_array_equal(found.outcomes["reward"], np.ones(5))
    assert ATTRIBUTES.items() <= open_source(out).attributes.items()


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(demonstration.batches, "__defaults__", (1,))


def test_the_same_command_continues(tmp_path, plain, snapshot, small_batches, monkeypatch):
    whole = snapshot(imported(plain, tmp_path / "whole.zarr"))
    extend, calls = DemonstrationWriter.extend, itertools.count()

    def interrupted(self, *arguments):
        if next(calls) % 2:
            raise KeyboardInterrupt
        extend(self, *arguments)

    monkeypatch.setattr(DemonstrationWriter, "extend", interrupted)
    for count in range(1, 5):
        with suppress(KeyboardInterrupt):  # the last one finishes
            imported(plain, tmp_path / "s.zarr")
        assert_holds(tmp_path / "s.zarr", count)
    imported(plain, tmp_path / "s.zarr")
    assert snapshot(tmp_path / "s.zarr") == whole


SLOW = """
import sys, time
from diffpolicy.data import demonstration
from diffpolicy.data.formats import stored
demonstration.batches.__defaults__ = (1,)
episode = stored.StoredSource._episode
def slow(*arguments):
    time.sleep(0.2)
    return episode(*arguments)
stored.StoredSource._episode = slow
from diffpolicy.cli import main
main()
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_an_import_that_was_killed_continues(tmp_path, kind, snapshot):
    values = np.arange(40.0)[:, None]
    plain = write_plainly(tmp_path / "plain", {"action": values}, np.arange(1, 41))
    out = tmp_path / "s.zarr"
    command = [sys.executable, "-c", SLOW, "import", str(plain), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    ends = out / "meta/episode_ends/.zarray"
    while not ends.exists() or json.loads(ends.read_text())["shape"][0] < 3:
        time.sleep(0.02)
    process.send_signal(kind)
    process.wait()
    assert 0 < len(open_source(out)) < 40
    imported(plain, out)
    np.testing.assert_array_equal(open_demonstrations(out).action, values)
    assert DemonstrationWriter(out, {}).seeds == [NO_SEED] * 40


def test_another_source_or_other_options_are_refused(tmp_path, plain, snapshot):
    out = imported(plain, tmp_path / "s.zarr")
    before = snapshot(out)
    other = shutil.copytree(plain, tmp_path / "other")
    for source, options, message in (
        (other, {}, "was made with source = "),
        (plain, {"control_dt": 0.1}, "was made with control_dt_s = None, not 0.1"),
        (plain, {"skip": ("observation",)}, "was made with options = "),
    ):
        with pytest.raises(DiffpolicyError, match=message):
            imported(source, out, **options)
        assert snapshot(out) == before


def test_a_source_that_changed_is_refused(tmp_path, plain, snapshot):
    out = imported(plain, tmp_path / "s.zarr")
    before = snapshot(out)
    shutil.rmtree(plain)
    write_plainly(plain, {name: x + 1 for name, x in joined().items()}, ENDS)
    with pytest.raises(DiffpolicyError, match="the last one differs from number 3 of"):
        imported(plain, out)
    assert snapshot(out) == before


def test_a_source_is_not_written_to(tmp_path, plain, snapshot):
    before = snapshot(plain)
    with pytest.raises(DiffpolicyError, match="was not recorded here; choose another --out"):
        imported(plain, plain)
    assert snapshot(plain) == before


def test_a_finished_import_adds_nothing(tmp_path, plain, snapshot, capsys):
    out = imported(plain, tmp_path / "s.zarr")
    before = snapshot(out)
    imported(plain, out)
    assert snapshot(out) == before
    assert "0 episodes, 0 steps added to the 4 that it had" in capsys.readouterr().out


def test_what_a_store_cannot_hold_is_told(tmp_path, capsys):
    arrays = {"reward": np.ones((27, 2)), **joined()}
    imported(write_plainly(tmp_path / "plain", arrays, [0, *ENDS]), tmp_path / "s.zarr")
    told = capsys.readouterr().out
    assert "note: data/reward has rows of [2]" in told
    assert "note: 1 episodes without steps are left out" in told


def test_the_command_fails_in_one_line(tmp_path):
    code = "from diffpolicy.cli import main; main()"
    command = [sys.executable, "-c", code, "import", "nowhere", "--out", "s.zarr"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no demonstrations at nowhere" in done.stderr and not list(tmp_path.iterdir())


def test_many_short_episodes_are_written_in_few_changes(tmp_path, monkeypatch):
    values = np.arange(5000.0)[:, None]
    plain = write_plainly(tmp_path / "plain", {"action": values}, np.arange(2, 5001, 2))
    extend, calls = DemonstrationWriter.extend, []
    monkeypatch.setattr(
        DemonstrationWriter, "extend", lambda self, *batch: (calls.append(1), extend(self, *batch))
    )
    out = imported(plain, tmp_path / "s.zarr")
    assert len(calls) == 1
    np.testing.assert_array_equal(open_demonstrations(out).action, values)
    assert json.loads((out / "meta/episode_ends/.zarray").read_text())["shape"] == [2500]


def test_reset_seeds_are_kept(tmp_path, small_batches):
    with closing(DemonstrationWriter(tmp_path / "a.zarr", ATTRIBUTES)) as writer:
        for number, episode in enumerate(EPISODES):
            writer.append(episode, seed=10 + number)
    out = imported(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert DemonstrationWriter(out, {}).seeds == [10, 11, 12, 13]


def test_facts_that_only_later_episodes_have_are_kept(tmp_path, small_batches, monkeypatch):
    given = [
        Demonstration(EPISODES[0]),
        Demonstration(EPISODES[1], success=False, task="lift", name="late"),
    ]
    monkeypatch.setattr(importing, "open_source", lambda *_: a_source(given))
    found = list(open_source(imported("test", tmp_path / "s.zarr")).episodes())
    assert [(e.success, e.task, e.name) for e in found] == [
        (None, "", "0"),
        (False, "lift", "late"),
    ]


def test_floats_of_another_precision_are_stored_hashed_and_continued(tmp_path, monkeypatch, call):
    precise = {name: x.astype(np.float64) for name, x in EPISODES[1].items()}
    given = [Demonstration(EPISODES[0]), Demonstration(precise)]
    monkeypatch.setattr(importing, "open_source", lambda *_: a_source(given))
    out = imported("test", tmp_path / "s.zarr")
    assert_holds(out, 2)
    assert call("validate", out).code == 0
    imported("test", out)
    huge = {name: 1e300 + x for name, x in precise.items()}
    monkeypatch.setattr(
        importing, "open_source", lambda *_: a_source([*given[:1], Demonstration(huge)])
    )
    with pytest.raises(DiffpolicyError, match="numbers beyond the type"):
        imported("test", tmp_path / "t.zarr")


def test_an_unfinished_import_is_told_by_validate(tmp_path, plain, call):
    out = imported(plain, tmp_path / "s.zarr")
    assert "are imported" not in call("validate", out).out
    attributes = json.loads((out / ".zattrs").read_text())
    (out / ".zattrs").write_text(json.dumps({**attributes, "source_episodes": 9}))
    assert "warning: 4 of 9 episodes are imported; call import again" in call("validate", out).out


def test_a_part_of_an_import_is_no_unfinished_import(tmp_path, plain, snapshot):
    """Its origin is kept, but import does not continue it."""
    out = imported(plain, tmp_path / "s.zarr")
    filter_store(FilterConfig(out, tmp_path / "part.zarr", episodes=("0:2",)))
    attributes = open_source(tmp_path / "part.zarr").attributes
    assert "source_episodes" not in attributes
    [entry] = attributes["sources"]
    assert entry["path"] == str(out) and entry["imported"]["source"] == str(plain)
    before = snapshot(tmp_path / "part.zarr")
    with pytest.raises(DiffpolicyError, match="was made with source = None"):
        imported(plain, tmp_path / "part.zarr")
    assert snapshot(tmp_path / "part.zarr") == before
    again = open_source(imported(out, tmp_path / "again.zarr")).attributes
    assert again["source"] == str(out)
    assert again["sources"][0]["imported"]["source"] == str(plain)


def test_facts_that_the_source_does_not_declare_are_named_until_they_are_given(
    tmp_path, plain, capsys
):
    imported(plain, tmp_path / "a.zarr", position_targets=False)
    told = capsys.readouterr().out
    assert "does not declare its control period: give --control-dt SECONDS" in told
    assert "meaning of its actions" not in told
    imported(plain, tmp_path / "b.zarr", control_dt=0.1)
    told = capsys.readouterr().out
    assert "the meaning of its actions: give --position-targets" in told
    assert "control period" not in told
