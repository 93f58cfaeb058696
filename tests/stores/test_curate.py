"""Laws of merge, split and filter."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tended import contents_of, demonstration, write

from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.formats import open_source
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.config import FilterConfig, MergeConfig
from diffpolicy.stores.copying import seeds_of
from diffpolicy.stores.curate import filter_store, merge, numbers_of


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "store", [demonstration(i, 20 + i, pictures=True) for i in range(7)])


def test_a_filter_of_everything_is_a_copy(store, tmp_path, call, snapshot):
    before = snapshot(store)
    code, out, errors = call("filter", store, "--out", tmp_path / "copy")
    assert (code, errors) == (0, [])
    assert "7 of 7 episodes kept" in out
    assert contents_of(tmp_path / "copy") == contents_of(store)
    assert snapshot(store) == before


def test_split_parts_merge_back_to_the_same_episodes(store, tmp_path, call):
    one, two, whole = (tmp_path / name for name in ("one", "two", "whole"))
    assert call("split", store, "--out", one, two, "--fraction", 0.7, "--seed", 3).code == 0
    assert [len(open_source(part)) for part in (one, two)] == [5, 2]
    assert call("merge", one, two, "--out", whole).code == 0
    assert contents_of(whole) == contents_of(one) + contents_of(two)
    assert sorted(contents_of(whole), key=repr) == sorted(contents_of(store), key=repr)
    entries = json.loads((whole / ".zattrs").read_text())["sources"]
    assert [entry["episodes"] for entry in entries] == [5, 2]
    assert entries[0]["sources"][0]["split"] == {"fraction": 0.7, "seed": 3, "part": 0}


@pytest.mark.parametrize(("fraction", "sizes"), [(0.001, [1, 6]), (1.0, [6, 1])])
def test_both_parts_get_an_episode_and_seeds_choose(store, tmp_path, call, fraction, sizes):
    for seed in (0, 0, 1):
        at = tmp_path / f"{seed}{(tmp_path / f'{seed}a').exists()}"
        parts = [at.with_name(f"{at.name}{part}") for part in "ab"]
        assert call("split", store, "--out", *parts, "--fraction", fraction, "--seed", seed)[0] == 0
        assert [len(open_source(part)) for part in parts] == sizes
        (tmp_path / f"{seed}a").mkdir(exist_ok=True)
    names = [[e[-1][-1] for e in contents_of(tmp_path / f"{x}a")] for x in ("0False", "0True")]
    assert names[0] == names[1]


def test_one_episode_cannot_be_split(tmp_path, refused):
    path = write(tmp_path / "store", [demonstration(0)])
    message = refused("split", path, "--out", tmp_path / "a", tmp_path / "b")
    assert "one episode; a split needs at least 2" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def shorter(episode, **arrays):
    return replace(episode, arrays={**episode.arrays, **arrays}, final={})


@pytest.mark.parametrize(
    ("attributes", "change", "words"),
    [
        ({"control_dt_s": 0.2}, None, ("control period", "0.1", "0.2")),
        ({"position_targets": False}, None, ("meaning of actions", "True", "False")),
        ({"env_id": "Other-v0"}, None, ("environment", "not declared", "Other-v0")),
        ({}, {"action": np.zeros((30, 4), np.float32)}, ("rows of action", "[2]", "[4]")),
        ({}, {"action": np.zeros((30, 2))}, ("rows of action", "float32", "float64")),
        ({}, {"other": np.zeros((30, 4))}, ("arrays", "action, observation", "observation, other")),
    ],
)
def test_stores_of_different_kinds_are_not_merged(tmp_path, refused, attributes, change, words):
    one = write(tmp_path / "one", [demonstration(0)])
    episode = demonstration(1) if change is None else shorter(demonstration(1), **change)
    two = write(tmp_path / "two", [episode], **attributes)
    message = refused("merge", one, two, "--out", tmp_path / "out")
    assert all(word in message for word in (*words, str(one), str(two)))
    assert not (tmp_path / "out").exists()


def test_what_one_store_lacks_is_left_out_and_named(tmp_path, call):
    one = write(tmp_path / "one", [demonstration(0)])
    plain = replace(demonstration(1), outcomes={}, final={}, success=None, task="")
    two = write(tmp_path / "two", [plain])
    out = call("merge", one, two, "--out", tmp_path / "out").out
    for words in ("reward", "terminated", "truncated", "final observations of observation"):
        assert f"left out: {words}, which {two} does not hold" in out
    first, second = open_source(tmp_path / "out").episodes()
    assert first.outcomes == second.outcomes == {} and first.success is True
    assert (first.task, second.task, second.success) == ("push", "", None)


def test_other_attributes_are_kept_with_their_source(tmp_path):
    paths = [
        write(tmp_path / x, [demonstration(i)], expert=x, note="n") for i, x in enumerate("ab")
    ]
    merge(MergeConfig(tuple(paths), out=tmp_path / "out"))
    attributes = open_source(tmp_path / "out").attributes
    assert attributes["note"] == "n" and "expert" not in attributes
    assert [entry["expert"] for entry in attributes["sources"]] == ["a", "b"]


@pytest.mark.parametrize("command", ["filter {s}", "merge {s} {s}", "split {s} --out {d}/new"])
def test_nothing_is_overwritten(store, tmp_path, refused, command, snapshot):
    (tmp_path / "taken").mkdir()
    before = snapshot(tmp_path)
    words = command.format(s=store, d=tmp_path).split()
    out = [] if "--out" in words else ["--out"]
    assert "exists, and nothing is overwritten" in refused(*words, *out, tmp_path / "taken")
    assert snapshot(tmp_path) == before


def test_an_interrupted_copy_leaves_nothing(store, tmp_path, monkeypatch, call, snapshot):
    before = snapshot(tmp_path)
    append, count = DemonstrationWriter.extend, []
    monkeypatch.setattr("diffpolicy.stores.copying.MOST_EPISODES", 2)

    def extend(self, *arguments):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        append(self, *arguments)

    monkeypatch.setattr(DemonstrationWriter, "extend", extend)
    assert call("filter", store, "--out", tmp_path / "new").code == 130
    assert len(count) == 3
    assert snapshot(tmp_path) == before


def test_the_folder_of_a_killed_copy_is_removed_by_the_next(store, tmp_path):
    killed, other = tmp_path / ".new.999999999.partial", tmp_path / ".old.999999999.partial"
    for folder in (killed, other):
        folder.mkdir()
    filter_store(FilterConfig(store, tmp_path / "new"))
    assert not killed.exists() and other.exists()


def test_episodes_are_chosen_by_number_success_and_length(store, tmp_path, call):
    chosen = [*("--episodes", "0:4", "6"), *("--success", "True"), *("--shortest", "23")]
    out = call("filter", store, "--out", tmp_path / "some", *chosen).out
    assert [e[-1][-1] for e in contents_of(tmp_path / "some")] == ["demo_3", "demo_6"]
    assert [e[0] for e in contents_of(tmp_path / "some")] == [103, 106]
    for line in (
        "2 of 7 episodes kept",
        "left out 2: not among --episodes",
        "left out 1: without success",
        "left out 1: of unknown success",
        "left out 1: shorter than 23 steps",
    ):
        assert line in out


def test_a_filter_that_leaves_nothing_says_why(store, tmp_path, refused):
    message = refused("filter", store, "--out", tmp_path / "none", "--shortest", 1000)
    assert "no episode of" in message and "7 shorter than 1000 steps" in message
    assert not (tmp_path / "none").exists()


def with_stills(number, head, tail):
    """An episode of 30 rows that move, with more rows like the first and the last around them."""
    moving = demonstration(number)
    rows = np.array([0] * head + list(range(30)) + [29] * tail)
    last = np.arange(len(rows)) == len(rows) - 1
    outcomes = {"reward": np.ones(len(rows), np.float32), "terminated": last, "truncated": 0 * last}
    return replace(moving, arrays={n: x[rows] for n, x in moving.arrays.items()}, outcomes=outcomes)


def test_idle_heads_and_tails_are_cut(tmp_path, call):
    """Row 0 counts as idle with its copies before it, row 29 with those after it."""
    whole = [with_stills(0, 20, 0), with_stills(1, 0, 20), with_stills(2, 15, 15)]
    never = {name: np.repeat(x[:1], 30, axis=0) for name, x in demonstration(3).arrays.items()}
    store = write(tmp_path / "store", [*whole, replace(demonstration(3), arrays=never)])
    out = call("filter", store, "--out", tmp_path / "cut", "--idle", "0.001").out
    assert "3 of 4 episodes kept" in out and "left out 1: idle from start to end" in out
    source = open_source(tmp_path / "cut")
    found = list(source.episodes())
    for episode, before, (start, end) in zip(
        found, whole, [(21, 50), (0, 29), (16, 44)], strict=True
    ):
        for name, values in episode.arrays.items():
            np.testing.assert_array_equal(values, before.arrays[name][start:end])
        cut = end < len(before)
        final = before.arrays["observation"][end] if cut else before.final["observation"]
        np.testing.assert_array_equal(episode.final["observation"], final)
        assert (episode.outcomes["truncated"][-1], episode.outcomes["terminated"][-1]) == (
            cut,
            not cut,
        )
        assert not episode.outcomes["truncated"][:-1].any()
    assert list(seeds_of(source)) == [-1, 101, -1]


def test_numbers_and_ranges_name_episodes():
    assert numbers_of((), 3) == {0, 1, 2}
    assert numbers_of(("1", "3:5", ":1", "8:"), 10) == {0, 1, 3, 4, 8, 9}
    for text in ("x", "-1", "1:2:3", "1.5", "²", "9" * 30):
        with pytest.raises(DiffpolicyError, match="numbers or ranges such as"):
            numbers_of((text,), 10)
    for text in ("10", "3:3", "5:4", "0:11"):
        with pytest.raises(DiffpolicyError, match="outside the store, whose episodes are 0 to 9"):
            numbers_of((text,), 10)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_order_of_stores_with_and_without_facts_does_not_matter(tmp_path, call, order):
    plain = replace(demonstration(0), success=None, task="", name="")
    one, two = write(tmp_path / "one", [plain]), write(tmp_path / "two", [demonstration(1)])
    paths = [(one, two)[i] for i in order]
    assert call("merge", *paths, "--out", tmp_path / "out").code == 0
    assert contents_of(tmp_path / "out") == contents_of(paths[0]) + contents_of(paths[1])
    assert call("validate", tmp_path / "out").code == 0
