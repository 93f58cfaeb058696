"""Rows made from a stream of episodes: those of the whole list, and of a bounded memory."""

import json
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest

from diffpolicy.control.episode import Episode
from diffpolicy.control.latency import PAUSED
from diffpolicy.control.ranges import far_outside, training_range
from diffpolicy.eval.measure.kept import Kept
from diffpolicy.eval.measure.result_files import json_of
from diffpolicy.eval.measure.rows import make_row, wall_row
from diffpolicy.eval.measure.tally import Tally, mean_of, median_of, tally_of
from diffpolicy.eval.significance import RESAMPLES, _blocks, _bootstrap_means, crossed_interval
from diffpolicy.policy import Policy

DT = 0.02


def episode_of(seed: int, ticks: int = 40) -> Episode:
    """An episode of random figures; every seventh fails."""
    rng = np.random.default_rng(seed)
    chunks = int(rng.integers(0, 9))
    delays, expected = (tuple(rng.integers(0, 4, chunks).tolist()) for _ in range(2))
    low = rng.normal(size=4) * 9
    return Episode(
        seed=seed,
        success=bool(rng.integers(2)),
        score=float(rng.normal()),
        ticks=ticks,
        replans=chunks,
        starved_ticks=int(rng.integers(3)),
        delay_ticks=delays,
        expected_ticks=expected,
        ages=tuple(rng.integers(0, 12, ticks).tolist()),
        seam_jumps=tuple(rng.random(chunks).tolist()),
        seam_jerks=tuple((rng.random(chunks) * 1e5).tolist()),
        failure=None if seed % 7 else f"seed {seed} fails",
        success_tick=int(rng.integers(ticks)) if seed % 3 else None,
        observed=chunks,
        far=tuple(rng.integers(0, chunks + 1, 4).tolist()),
        lowest=tuple(low.tolist()),
        highest=tuple((low + 1).tolist()),
        latency_ms=tuple(rng.random(chunks).tolist()),
        late_ms=tuple(rng.random(ticks).tolist()),
        missed_ticks=int(rng.integers(3)),
        evaluations=tuple(rng.integers(1, 5, chunks).tolist()),
    )


def joined(found: list[Episode], name: str) -> list:
    return [value for episode in found for value in getattr(episode, name)]


@pytest.fixture(scope="module")
def policy(tiny_run):
    return Policy.load(tiny_run, ddim_steps=2)


def test_a_row_of_a_stream_is_that_of_the_list_to_the_bit(policy):
    found = [episode_of(seed) for seed in range(300)]
    tally = Tally(range(300))
    for place in np.random.default_rng(1).permutation(300):
        tally.add(found[place])
    row = wall_row(make_row(policy, "wall", PAUSED, tally, DT, "eager"), policy, tally)
    delays, expected = joined(found, "delay_ticks"), joined(found, "expected_ticks")
    early = [x - d for d, x in zip(delays, expected, strict=True)]
    worst = min(0.0, *(e.score for e in found))
    scores = [worst if e.failure else e.score for e in found]
    late_ms = joined(found, "late_ms")
    told = {
        "successes": sum(e.success for e in found),
        "score_mean": float(np.mean(scores)),
        "delay_ticks": float(np.mean(delays)),
        "delay_error": float(np.mean(early)),
        "prefix_miss_share": float(np.mean([e < 0 for e in early])),
        "deadline_misses": sum(d > 1 for d in delays),
        "starved_ticks": sum(e.starved_ticks for e in found),
        "action_age_ms_p50": float(np.median(joined(found, "ages"))) * 1000 * DT,
        "replans": sum(e.replans for e in found),
        "seam_jump": float(np.mean(joined(found, "seam_jumps"))),
        "seam_jerk": float(np.mean(joined(found, "seam_jerks"))),
        "failures": [e.failure for e in found if e.failure],
        "tick_late_ms": {"p50": float(np.median(late_ms)), "max": max(late_ms)},
        "missed_ticks": sum(e.missed_ticks for e in found),
        "evaluations_mean": float(np.mean(joined(found, "evaluations"))),
        "samples_ms": np.round(joined(found, "latency_ms"), 5).tolist(),
    }
    of_row = json_of(row)
    assert json.dumps({name: of_row[name] for name in told}) == json.dumps(told)
    assert row.outcomes.success == [int(e.success) for e in found]
    assert row.outcomes.score == [round(score, 6) for score in scores]
    assert row.outcomes.success_tick == [e.success_tick for e in found]
    assert [asdict(far) for far in row.far_observations] == [
        {**far, "seen": tuple(far["seen"]), "training": tuple(far["training"])}
        for far in far_outside(found, training_range(policy))
    ]
    assert row.far_observations


def test_episodes_without_a_chunk_have_no_means(policy):
    bare = replace(episode_of(1), observed=0, far=(), lowest=(), highest=())
    bare = replace(bare, **dict.fromkeys(("delay_ticks", "expected_ticks", "ages"), ()))
    tally = tally_of([replace(bare, seam_jumps=(), seam_jerks=(), late_ms=(), evaluations=())])
    row = wall_row(make_row(policy, "wall", PAUSED, tally, DT, "eager"), policy, tally)
    assert (row.delay_ticks, row.tick_late_ms) == (0.0, {"p50": 0.0, "max": 0.0})
    none = (row.delay_error, row.prefix_miss_share, row.action_age_ms_p50, row.seam_jump)
    assert {*none, row.evaluations_mean} == {None} and not row.far_observations


def test_a_seed_counts_once_and_seeds_of_others_do_not():
    tally = Tally(range(3, 6))
    for seed in (4, 4, 9):
        tally.add(episode_of(seed))
    assert tally.left == [3, 5]
    assert tally.replans == episode_of(4).replans


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_mean_and_median_of_counts_are_exact(count):
    values = np.random.default_rng(count).integers(-3, 9, count).tolist()
    counts = {value: values.count(value) for value in values}
    assert (mean_of(counts), median_of(counts)) == (np.mean(values), np.median(values))
    assert mean_of({}) is median_of({}) is None


def peak_of(count: int, path) -> int:
    """Peak bytes of Python while episodes are kept, counted, read and counted again."""
    tracemalloc.start()
    kept, tally = Kept(path), Tally(range(count))
    for seed in range(count):
        episode = episode_of(seed, ticks=300)
        kept.add_episode("key", episode)
        tally.add(replace(episode, late_ms=()))
    again = Tally(range(count))
    for episode in Kept(path).episodes("key"):
        again.add(replace(episode, late_ms=()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not again.left and again.ages == tally.ages
    assert again.numbers("seam_jumps").tobytes() == tally.numbers("seam_jumps").tobytes()
    return peak


def test_an_episode_more_takes_less_memory_than_its_ticks(tmp_path):
    """One of 300 ticks is 12 kB as an Episode with its late_ms; what is left of it is small."""
    few, many = (peak_of(count, tmp_path / f"{count}.jsonl") for count in (10, 60))
    assert many - few < 50 * 4_000


def test_the_newest_of_two_kept_episodes_counts_and_damaged_ones_do_not(tmp_path):
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    kept.add_episode("a", episode_of(1))
    kept.add_episode("a", replace(episode_of(1), ticks=7))
    kept.add_episode("b", episode_of(2))
    lines = path.read_text()
    wrong = lines.splitlines()[1].replace('"ticks": 40', '"ticks": "many"')
    path.write_text(f'{lines}[1]\n{{"key": 3, "episode": 4}}\n{wrong}\n{{"key": "a", "episo')
    again = Kept(path)
    assert again.count == 4
    assert [e.ticks for e in again.episodes("a")] == [7, 40]
    assert [e.seed for e in again.episodes("b")] == [2] and not list(again.episodes("c"))


@pytest.mark.parametrize("count", [1, 20, 401, 500, 1300])
def test_a_bootstrap_in_blocks_is_that_of_one_block_to_the_bit(count):
    values = np.random.default_rng(count).normal(size=count)
    share = np.full(count, 1 / count)
    whole = np.random.default_rng(0).multinomial(count, share, size=RESAMPLES) @ values / count
    assert _bootstrap_means(values).tobytes() == whole.tobytes()
    blocks = _blocks(count)
    assert sum(blocks) == RESAMPLES and max(blocks) * count < 5_000_000


def test_the_bootstrap_of_many_episodes_takes_little_memory():
    values = np.random.default_rng(0).normal(size=(2, 2_000))
    tracemalloc.start()
    crossed_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110e6  # 320 MB for the counts and their shares in one block
