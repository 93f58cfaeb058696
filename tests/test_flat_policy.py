"""A policy of vectors and its episodes, both written before observations could be pictures."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from diffpolicy import environment
from diffpolicy.checkpoint import load_policy, save_policy
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import declared
from diffpolicy.control.rollout import run_episodes
from diffpolicy.policy import Policy

FOLDER = Path(__file__).parent / "flat_policy"  # a checkpoint of format 3, and episodes.json
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}  # products differ in the last bits between processors
NEWER = {"begun", "expected_ticks", "evaluations", "starved"}  # fields that the file lacks
MEASURED = ("seam_jumps", "seam_jerks", "lowest", "highest", "score")
BALANCE = "diffpolicy.envs:Balance-v0"


def episodes_of(run: Path) -> list[dict]:
    make = partial(environment.make, BALANCE, {}, 60)
    options = RolloutOptions(control_dt_s=0.02, envs=4, batch=4)
    policy = Policy.load(run, ddim_steps=4)
    found = run_episodes(policy, make, range(4), declared(5.0, 4), options)
    return json.loads(json.dumps([asdict(episode) for episode in found]))


def test_a_flat_policy_has_the_episodes_of_before_also_when_it_is_saved_again(tmp_path):
    before = json.loads((FOLDER / "episodes.json").read_text())
    now = episodes_of(FOLDER)
    for episode, expected in zip(now, before, strict=True):
        assert episode.keys() - expected.keys() == NEWER
        for name, value in expected.items():
            if name in MEASURED:
                np.testing.assert_allclose(episode[name], value, **ROUNDING)
            else:
                assert episode[name] == value, name
    save_policy(tmp_path / "policy.safetensors", load_policy(FOLDER))
    assert episodes_of(tmp_path) == now
