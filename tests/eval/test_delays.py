"""delays: every chunk late by the same number of ticks, the same episodes at each."""

import csv
import shutil

import numpy as np
import pytest

from diffpolicy.control.latency import (
    constant_ms,
    constant_ticks,
    delay_ticks,
    percentiles,
    random_ticks,
)
from diffpolicy.eval.delays import delays
from diffpolicy.eval.delays_config import DelaysConfig
from diffpolicy.eval.measure.result_files import read_result

SMALL = {"episodes": 4, "envs": 4, "batch": 4, "max_steps": 40, "engine": "eager"}


def test_every_delay_is_the_one_asked_for(tiny_run, tmp_path):
    result = delays(DelaysConfig(run=tiny_run, ticks=(3, 0, 1), out=tmp_path, **SMALL))
    assert [row.delay_ticks for row in result.rows] == [0, 1, 3]
    assert [row.latency_source for row in result.rows] == [
        f"constant, {ticks} ticks" for ticks in (0, 1, 3)
    ]
    ages = [row.action_age_ms_p50 or 0 for row in result.rows]
    assert ages == sorted(ages) and ages[0] < ages[-1]
    assert read_result(tmp_path / "delays.json") == result
    assert (tmp_path / "delays.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("ticks", "message"),
    [((), "needs at least one value"), ((-1, 2), "must be at least 0; got -1")],
)
def test_no_delay_and_negative_ones_are_refused(refused, tiny_run, ticks, message):
    words = ["delays", "--run", tiny_run, "--ticks", *map(str, ticks)]
    assert f"--ticks {message}" in refused(*words)


def test_constants_are_whole_and_known():
    assert delay_ticks(constant_ticks(4, 0.02).samples_ms[0], 0.02) == 4
    assert percentiles(constant_ms(12.5))["p99"] == 12.5


def test_strategies_are_compared_with_drop_at_every_pattern(tiny_run, tmp_path, capsys):
    result = delays(
        DelaysConfig(
            run=tiny_run,
            ddim_steps=(2,),
            late=("drop", "ensemble"),
            ticks=(1,),
            random_ticks=(1, 3),
            ms_per_step=15.0,
            out=tmp_path,
            **SMALL,
        )
    )
    patterns = ["constant, 1 ticks", "random, 1 to 3 ticks", "declared, 15 ms a step"]
    assert [row.late for row in result.rows] == ["drop", "ensemble"] * 3
    assert [row.latency_source for row in result.rows[::2]] == patterns
    assert [row.ticks for row in result.rows] == [1, 1, None, None, None, None]
    assert 1 < result.rows[2].delay_ticks < 3 and result.rows[4].delay_ticks == 2
    assert [c.delays for c in result.comparisons] == patterns
    assert {c.name for c in result.comparisons} == {result.rows[1].name}
    assert {c.reference for c in result.comparisons} == {result.rows[0].name}
    page = (tmp_path / "delays.html").read_text()
    assert all(f"<caption>{pattern}</caption>" in page for pattern in patterns)
    assert page.count("<tr>") == 3 * (1 + 2)  # of each pattern the titles and two strategies
    assert f"{result.comparisons[0].difference:.3f}" in page and "data:image/png" in page
    again = read_result(tmp_path / "delays.json")
    assert again == result
    lines = list(csv.DictReader((tmp_path / "delays_budgets.csv").open()))
    found = [float(line["to_drop"]) for line in lines if line["late"] == "ensemble"]
    assert found == [c.difference for c in result.comparisons]
    assert [line["to_drop"] for line in lines if line["late"] == "drop"] == [""] * 3
    assert f"{result.comparisons[0].difference:+.3f}" in capsys.readouterr().out


def test_delays_of_several_runs_name_them(tiny_run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(tiny_run, twin)
    result = delays(DelaysConfig(runs=(tiny_run, twin), ticks=(1,), out=tmp_path, **SMALL))
    assert [row.run for row in result.rows] == ["run", "twin"]
    assert [row.name for row in result.rows] == ["run: 10 steps", "twin: 10 steps"]
    assert result.rows[0].outcomes == result.rows[1].outcomes
    assert result.provenance.runs == [str(tiny_run), str(twin)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--random-ticks", 3, 1), "--random-ticks LOW HIGH must increase; got 3 1"),
        (("--measured", "--ms-per-step", 2), "give --measured or another source of latencies"),
        (("--late", "early"), "'early' is not a strategy for late chunks"),
    ],
)
def test_patterns_and_strategies_are_checked(refused, tiny_run, options, message):
    assert message in refused("delays", "--run", tiny_run, *options)


def test_random_delays_cover_their_range_and_repeat():
    profile = random_ticks(1, 3, 0.02)
    drawn = [next(delays) for delays in [profile.delays(7, 0.02)] for _ in range(300)]
    again = [next(delays) for delays in [profile.delays(7, 0.02)] for _ in range(300)]
    assert drawn == again and set(drawn) == {1, 2, 3}
    assert np.mean(drawn) == pytest.approx(2, abs=0.2)
