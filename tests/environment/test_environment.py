"""Facts that a control loop reads from an environment."""

import numpy as np
import pytest

from diffpolicy.environment.outcome import success_rule
from diffpolicy.errors import DiffpolicyError


@pytest.mark.parametrize(
    ("info", "condition", "expected"),
    [
        ({"success": np.True_}, None, True),
        ({"is_success": 0.0}, None, False),
        ({"task_completions": []}, None, False),
        ({"task_completions": ["kettle"]}, None, True),
        ({"tasks_to_complete": ["kettle"], "success": True}, None, False),
        ({"tasks_to_complete": []}, None, True),
        ({"hinge_rad": 1.2}, "hinge_rad > 1.0", True),
        ({"hinge_rad": 1.2}, "hinge_rad<1", False),
        ({"task_completions": ["kettle", "light"]}, "task_completions > 1", True),
        ({"success": False, "tails": True}, "tails", True),
    ],
)
def test_success_is_what_info_says(info, condition, expected):
    assert success_rule(condition)(info) is expected


@pytest.mark.parametrize("condition", ["hinge>far", "<", ">0.5", "hinge>nan"])
def test_a_condition_that_cannot_be_read_is_refused(condition):
    with pytest.raises(DiffpolicyError, match="--success-from"):
        success_rule(condition)


@pytest.mark.parametrize("value", ["open", float("nan"), np.array([])], ids=str)
def test_what_is_neither_number_nor_list_is_no_success(value):
    with pytest.raises(DiffpolicyError, match=r"info\['door'\] is neither a number nor a list"):
        success_rule("door")({"door": value})
