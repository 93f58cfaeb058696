"""Parts of pages: conclusions and their tone, places in plots, timelines and grids of outcomes."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpolicy.checked import validate
from diffpolicy.control.episode import Episode
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.measure import provenance
from diffpolicy.eval.measure.result_files import SuiteResult, SweepResult, read_result
from diffpolicy.eval.measure.results import Video
from diffpolicy.eval.measure.timelines import MOST_TICKS, Timeline, chunks_of, timeline_of
from diffpolicy.eval.report import trade
from diffpolicy.eval.report.axes import Axis, around
from diffpolicy.eval.report.columns import budgets_table
from diffpolicy.eval.report.conclusions import conclusion_of, conclusions_of
from diffpolicy.eval.report.labels import Box, free_place
from diffpolicy.eval.report.numbers import rounded
from diffpolicy.eval.report.outcome_grid import grids_of
from diffpolicy.eval.report.page import leading_number, text_table
from diffpolicy.eval.report.sentences import FEW_EPISODES, clock_label
from diffpolicy.eval.report.suite_page import suite_page, tables_of
from diffpolicy.eval.report.sweep_page import sweep_page
from diffpolicy.eval.report.timeline_plot import timeline_plot
from diffpolicy.eval.report.trade import trade_of

RESULTS = Path(__file__).parents[2] / "eval" / "results"


@pytest.fixture(scope="module")
def swept() -> SweepResult:
    result = read_result(RESULTS / "balance_sweep.json")
    assert isinstance(result, SweepResult)
    return result


def of_few(result: SweepResult, count: int) -> SweepResult:
    """The result as if of its first episodes; only the seeds say so."""
    first, _ = result.provenance.seeds
    return replace(result, provenance=replace(result.provenance, seeds=(first, first + count - 1)))


# Conclusions


def test_a_recommendation_is_green_only_from_enough_episodes(swept):
    for count, tone in ((FEW_EPISODES - 1, "preliminary"), (FEW_EPISODES, "good")):
        assert conclusion_of(of_few(swept, count), swept.recommendation).tone == tone


@pytest.mark.parametrize(("count", "tone"), [(8, "preliminary"), (100, "none")])
def test_no_recommendation_is_never_green(swept, count, tone):
    advice = replace(swept.recommendation, name=None)
    found = conclusion_of(of_few(swept, count), advice)
    assert found.tone == tone and "o recommendation" in found.label


def test_a_conclusion_says_its_basis_and_what_would_change_it(swept):
    first, *others = conclusions_of(swept)
    text = " ".join(first.lines)
    assert "n = 100 paired episodes of each budget; 200 demonstrations" in text
    assert "of 100 episodes (95 % interval" in text and "--plan" in text
    assert len(others) == len(swept.recommendations) - 1
    unpaired = replace(swept, provenance=replace(swept.provenance, paired=False))
    scored = replace(swept, provenance=replace(swept.provenance, outcome="score"))
    assert "mean score of" in " ".join(conclusion_of(scored, swept.recommendation).lines)
    assert "unpaired episodes" in " ".join(conclusion_of(unpaired, swept.recommendation).lines)


def test_a_suite_escapes_its_tasks_and_shows_none_in_another_colour(swept):
    advice = replace(swept.recommendation, name=None)
    tasks = {"<b>one</b>": replace(swept, recommendation=advice), "two": swept}
    result = SuiteResult(budget="quick", protocol={}, tasks=tasks)
    page = suite_page(result, tables_of(result), b"", Path())
    assert "<b>one" not in page and "&lt;b&gt;one&lt;/b&gt;: no budget can be" in page
    assert page.count('class="conclusion none"') == page.count('class="conclusion good"') == 1


# Axes, labels and the plot


@pytest.mark.parametrize("log", [True, False])
def test_places_on_an_axis_keep_their_order_and_stay_on_it(log):
    values = [0.02, 0.3, 1.0, 7.0, 40.0]
    axis = Axis(*around(values, log), 10, 200, log)
    places = [axis(value) for value in values]
    assert places == sorted(places) and places[0] >= 10 and places[-1] <= 200
    assert axis(1e9) == 200
    assert all(10 <= tick.at <= 200 for tick in axis.ticks())


def test_ticks_of_a_logarithmic_axis_are_1_and_3_of_each_decade():
    assert [t.label for t in Axis(0.2, 20, 0, 1, True).ticks()] == ["0.3", "1", "3", "10"]
    assert [t.label for t in Axis(0, 1, 0, 1).ticks()] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_equal_values_have_an_axis():
    low, high = around([2.0, 2.0])
    assert low < 2 < high


def test_a_label_covers_no_other_where_there_is_room():
    taken: list[Box] = []
    for _ in range(6):
        found = free_place((50, 50), 8, taken)
        assert not any(found.overlaps(other) for other in taken)
        taken.append(found)


def test_every_row_has_a_mark_with_its_figures_on_each_axis(swept):
    found = trade_of(swept)
    assert found.title == "Balance-v0, n = 100"
    assert [(p.metric, p.log) for p in found.panels] == [
        (metric, log) for metric in ("success", "score") for log in (True, False)
    ]
    for panel in found.panels:
        assert len(panel.marks) == len(swept.rows)
        for mark, row in zip(panel.marks, swept.rows, strict=True):
            assert found.clocks[mark.clock] == clock_label(row)
            assert mark.figures[0] == f"{row.name}, {clock_label(row)}"
            assert trade.LEFT <= mark.x <= trade.RIGHT and trade.TOP <= mark.y <= trade.BOTTOM
            assert mark.high <= mark.y <= mark.low  # px grow downwards
        assert sum(mark.recommended for mark in panel.marks) == len(swept.recommendations)
        assert len(panel.bands) == (len(found.clocks) if panel.metric == "success" else 0)


# Tables


def test_a_table_counts_successes_and_hides_what_is_less_asked_for(swept):
    table = budgets_table(swept.rows, "all")
    titles = [head.title for head in table.heads]
    assert {"deadline misses", "seam jump", "seam jerk"} <= {h.title for h in table.heads if h.more}
    first = table.rows[0][titles.index("succeeded")]
    row = swept.rows[0]
    assert first == (f"{row.successes} of {row.episodes}", row.success_rate)
    assert "failed" not in titles
    failed = [replace(row, failures=["NaN"]), *swept.rows[1:]]
    assert "failed" in [head.title for head in budgets_table(failed, "all").heads]


def test_texts_sort_by_the_number_that_they_begin_with():
    table = text_table("t", ["a"], [["0.5 [0.4, 0.6]"], ["–"]])
    assert [row[0].value for row in table.rows] == [0.5, None]
    texts = ("-1 x", "<0.001", "19,100")
    assert [leading_number(text) for text in texts] == [-1, 0.001, 19_100]


# Timelines


def episode(**changes) -> Episode:
    """Chunks begun every 2 ticks that arrive 1 tick late; the first one was waited for."""
    found = Episode(7, True, 1.0, 6, 3, 1, (1, 1), (1, 1), (0, 1, 1, 2, 1), (), ())
    return replace(found, starved=(3,), begun=(0, 2, 4), success_tick=4, **changes)


def test_a_timeline_has_the_actions_their_ages_and_the_chunks():
    found = timeline_of("1 step", "paused", episode(), [np.array([t, -t]) for t in range(6)])
    assert found is not None
    assert found.actions[2] == [2, -2] and found.ages == [0, 1, 1, None, 2, 1]
    assert found.chunks == [(0, 0), (2, 3), (4, 5)]
    assert chunks_of(episode(replans=2)) == [(0, 1), (2, 3)]  # with a cold start
    plot = timeline_plot(found, 0.1)
    assert len(plot.lines) == 2 and len(plot.starved) == 1 and len(plot.ages) == 5
    assert "3 chunks, 0 later than one tick; 1 starved tick" in plot.spoken
    ends = timeline_plot(replace(found, success_tick=6), 0.1)  # where an episode ends on success
    assert plot.success is not None and ends.success == pytest.approx(
        plot.success + 2 * plot.width, abs=1
    )
    late = replace(found, chunks=[(0, 2)])
    assert [chunk.late for chunk in timeline_plot(late, 0.1).chunks] == [True]


def test_a_timeline_is_cut_and_actions_that_are_not_finite_have_none():
    ticks = MOST_TICKS + 5
    long = episode(ticks=ticks, ages=(0,) * (ticks - 1))
    found = timeline_of("1 step", "paused", long, [np.zeros(20)] * ticks)
    assert found is not None and len(found.actions) == len(found.ages) == MOST_TICKS
    assert (len(found.actions[0]), found.dimensions) == (8, 20)
    assert "first 400 of 405 ticks" in timeline_plot(found, 0.1).title
    assert timeline_of("1 step", "paused", episode(), [np.array([np.nan])] * 6) is None
    assert timeline_of("1 step", "paused", episode(), []) is None


def test_a_timeline_of_the_largest_seed_is_read_again():
    largest = 2**62
    found = timeline_of("1 step", "paused", replace(episode(), seed=largest), [np.zeros(1)] * 6)
    assert found is not None
    read = validate(Timeline, json.loads(json.dumps(asdict(found))), "a file")
    assert read.seed == largest


def test_a_damaged_timeline_is_refused():
    about = {"budget": "a", "clock": "b", "seed": 1, "success": True, "ticks": 2, "dimensions": 1}
    for actions, ages in (([[1.0], [1.0]], [0]), ([[1.0], [1.0, 2.0]], [0, 0])):
        with pytest.raises(DiffpolicyError, match="one age"):
            Timeline(**about, actions=actions, ages=ages, chunks=[])


# Grid


def test_the_grid_has_every_outcome_and_begins_with_the_hardest_seeds(swept):
    found = grids_of(swept)
    assert found[0].clock == clock_label(swept.recommendation)
    first = swept.provenance.seeds[0]
    for grid in found:
        rows = [row for row in swept.rows if clock_label(row) == grid.clock]
        assert sorted(grid.seeds) == list(range(first, first + 100))
        for shown, row in zip(grid.rows, rows, strict=True):
            outcomes = ["ny"[row.outcomes.success[seed - first]] for seed in grid.seeds]
            assert shown.cells == outcomes and shown.name == row.name
        solved = np.array([[cell == "y" for cell in row.cells] for row in grid.rows]).sum(axis=0)
        assert (np.diff(solved) >= 0).all()


def test_cells_of_filmed_seeds_open_their_film(swept):
    seed, name = swept.provenance.seeds[0] + 3, swept.rows[-1].name
    video = Video("seed", "c", "videos/1.webp", seed, [name])
    grid, *others = grids_of(replace(swept, videos=[video]))
    assert grid.films == {8: {grid.seeds.index(seed): f"film-{seed}"}}
    assert all(other.films == {} for other in others)
    page = sweep_page(replace(swept, videos=[video], pictures=[]), Path())
    assert "videos/1.webp is absent or no PNG or WebP" in page and "opens its film" in page
    assert "opens its film" not in sweep_page(replace(swept, videos=[], pictures=[]), Path())


# Provenance


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/diffpolicy", "sweep", "--run", "my run"], "diffpolicy sweep --run 'my run'"),
        (["/site/diffpolicy/__main__.py", "sweep"], "diffpolicy sweep"),
        (["pytest", "-n", "1"], None),
    ],
)
def test_the_command_is_that_of_the_shell(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    about = provenance.provenance(torch.device("cpu"))
    assert about.command == command and about.date and about.date.endswith("UTC")
    same = provenance.machine(torch.device("cpu"))
    assert (same.command, same.date) == (None, None)  # nothing that differs from run to run


def test_a_number_of_a_reader_has_no_exponent():
    texts = ["0.0313", "1.28", "160", "1,280", "19,100", "-19,100", "1e+12", "1e-09", "–"]
    numbers = [0.03127, 1.2751, 160.4, 1275.1, 19_123.0, -19_123.0, 1e12, 1e-9, None]
    assert [rounded(number) for number in numbers] == texts
    assert rounded(160.4, 2) == "160" and rounded(13.2, 2) == "13"
    assert rounded(float("inf")) == "inf"
