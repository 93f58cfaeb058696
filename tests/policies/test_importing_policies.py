"""The command: facts of the task from options or the environment, nothing half written."""

import pytest
from test_lerobot import STATE, write

from diffpolicy.checkpoint import load_policy
from diffpolicy.specification import NO_ENVIRONMENT

DT, TARGETS = ("--control-dt", 0.05), ("--position-targets", "False")
BALANCE = "diffpolicy.envs:Balance-v0"


def test_a_policy_without_an_environment_takes_its_facts_from_options(tmp_path, call):
    source = write(tmp_path / "source")
    assert call("import-policy", source, "--out", tmp_path / "run", *DT, *TARGETS).code == 0
    specification = load_policy(tmp_path / "run").specification
    task = specification.task
    assert (task.env_id, task.control_dt_s, task.position_targets) == (NO_ENVIRONMENT, 0.05, False)
    assert (specification.grid, specification.rederive) == ("leading", False)
    assert specification.training["source"] == str(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "how long a control tick lasts, and if its actions are targets of positions"),
        ((), "give --control-dt SECONDS and --position-targets True or False"),
        (TARGETS, "give --control-dt SECONDS"),
        (DT, "give --position-targets True or False"),
    ],
)
def test_a_missing_fact_is_named_with_its_option(tmp_path, call, options, message):
    found = call("import-policy", write(tmp_path / "source"), "--out", tmp_path / "run", *options)
    assert found.code == 2 and len(found.errors) == 1 and message in found.errors[0]
    assert not (tmp_path / "run").exists()


def test_an_environment_gives_the_facts_and_its_other_keys_are_named(tmp_path, call):
    source = write(tmp_path / "source")
    found = call("import-policy", source, "--out", tmp_path / "run", "--env", BALANCE)
    assert found.code == 0
    assert (
        "Balance-v0 observes observation (a vector of 4), with 1 actions; the policy" in found.out
    )
    task = load_policy(tmp_path / "run").specification.task
    assert (task.env_id, task.control_dt_s) == (BALANCE, 0.02) and STATE in task.observations


def test_a_run_is_not_overwritten(tmp_path, call):
    source = write(tmp_path / "source")
    for code in (0, 2):
        found = call("import-policy", source, "--out", tmp_path / "run", *DT, *TARGETS)
        assert found.code == code
    assert "is taken; expected a new run folder" in found.errors[0]


def test_other_folders_are_refused_with_advice(tmp_path, call):
    write(tmp_path / "pretrained_model")
    found = call("import-policy", tmp_path, "--out", tmp_path / "run", *DT, *TARGETS)
    assert (
        found.code == 2 and "is not a trained policy; expected a folder of LeR" in found.errors[0]
    )
    assert "try" in found.errors[0] and "pretrained_model" in found.errors[0]
