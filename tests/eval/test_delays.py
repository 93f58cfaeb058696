"""delays: every chunk late by the same number of ticks, the same episodes at each."""

import pytest

from diffpolicy.control.latency import constant_ms, constant_ticks, delay_ticks, percentiles
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
