"""Small sample of the mutated data sets of fuzz_sources.py."""

import pytest
from foreign_data import samples
from fuzz_sources import SOURCES, preload, run_case

CASES = 60


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_damaged_data_sets_are_refused_in_one_line_or_read():
    folder = samples()
    preload()
    outcomes = [run_case(folder, number, seed=1) for number in range(CASES)]
    assert [o for o in outcomes if o.fault] == []
    assert len({o.source for o in outcomes}) > len(SOURCES) // 2
    assert {bool(o.refusal) for o in outcomes} == {True, False}
