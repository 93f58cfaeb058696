"""Small sample of the mutated inputs of fuzz.py."""

import pytest
from fuzz import run_case, whole_inputs

CASES = 40


@pytest.fixture(scope="module")
def base():
    with whole_inputs() as folder:
        yield folder


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_damaged_inputs_are_refused_in_one_line_or_harmless(base):
    outcomes = [run_case(base, number, seed=1) for number in range(CASES)]
    assert [o for o in outcomes if o.fault] == []
    assert len({o.command for o in outcomes}) > 5
