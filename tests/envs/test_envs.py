"""Laws of every task: determinism to the bit, robustness, and a docstring that is true."""

import inspect
import math
import pickle
import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.envs import TASKS

TICKS = 40
IMPERFECT = {"sensor_noise": 1.0, "actuation_delay": 2}
BOUNDS = {  # the ends of every physical argument
    "PushT-v0": {"block_mass_kg": (0.1, 100.0), "table_friction_kg_s": (10.0, 1e5)},
    "Balance-v0": {
        "impulses_per_episode": (0.0, 6.0),
        "tip_mass_kg": (1e-3, 10.0),
        "rail_friction_n": (0.0, 40.0),
    },
    "Detour-v0": {"payload_kg": (0.0, 2.0), "joint_friction_nm": (0.0, 5.0)},
    "Catch-v0": {
        "deflection_m": (0.0, 0.4),
        "arm_mass_kg": (0.5, 4.0),
        "rail_friction_n": (0.0, 12.0),
    },
}


def make(task, **kwargs):
    return gymnasium.make(f"diffpolicy.envs:{task}", disable_env_checker=True, **kwargs)


def actions_of(task, seed=0):
    space = make(task).action_space
    return np.random.default_rng(seed).uniform(space.low, space.high, (TICKS, *space.shape))


def play(env, actions, seed):
    """The observations until the episode ends or the actions do."""
    seen = [env.reset(seed=seed)[0]]
    for action in actions.astype(np.float32):
        observation, _, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        if terminated or truncated:
            break
    return np.array(seen)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "vector", [gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv]
)
def test_vectors_and_other_processes_see_the_same_to_the_bit(task, vector):
    actions, seeds = actions_of(task), (5, 6)
    alone = [play(make(task, **IMPERFECT), actions, seed) for seed in seeds]
    ticks = min(map(len, alone)) - 1
    many = vector([lambda: make(task, **IMPERFECT)] * 2)
    seen = [many.reset(seed=list(seeds))[0]]
    seen += [many.step(np.stack([a, a]).astype(np.float32))[0].copy() for a in actions[:ticks]]
    many.close()
    for column, expected in enumerate(alone):
        np.testing.assert_array_equal(np.array(seen)[:, column], expected[: ticks + 1])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kwargs", [{}, IMPERFECT], ids=str)
def test_an_episode_is_its_seed_s_whatever_was_played_before(task, kwargs):
    env, actions = make(task, **kwargs), actions_of(task)
    play(env, actions_of(task, 1)[:17], 1)
    expected = play(make(task, **kwargs), actions, 7)
    np.testing.assert_array_equal(play(env, actions, 7), expected)


@pytest.mark.parametrize("task", TASKS)
def test_looking_changes_nothing(task):
    seen, actions = make(task, render_mode="rgb_array"), actions_of(task)[:8]
    expected = play(make(task), actions, 0)
    found = [seen.reset(seed=0)[0]]
    for action in actions[: len(expected) - 1].astype(np.float32):
        try:
            seen.render()
        except RuntimeError as error:
            pytest.skip(str(error))
        found.append(seen.step(action)[0])
    np.testing.assert_array_equal(found, expected)
    seen.close()


@pytest.mark.parametrize("ticks", [1, 12, 33], ids="after {}".format)  # Catch's ball has bounced
@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        *((task, kwargs) for task in TASKS for kwargs in ({}, IMPERFECT)),
        ("PushT-v0", {"observation": "keypoint", **IMPERFECT}),
        ("PushT-v0", {"observation": "image", **IMPERFECT}),
    ],
    ids=str,
)
def test_a_saved_state_goes_on_elsewhere_to_the_bit(task, kwargs, ticks):
    env, other = make(task, **kwargs).unwrapped, make(task, **kwargs).unwrapped
    actions = actions_of(task, 1)
    env.reset(seed=3)
    for action in actions[:ticks]:
        env.step(action.astype(np.float32))
    saved = pickle.dumps(env.save())
    others = actions[ticks : ticks + 7].astype(np.float32)
    expected = [env.step(a)[:4] for a in others]
    other.reset(seed=99)
    for target in (other, env):
        target.restore(pickle.loads(saved))
        found = [target.step(a)[:4] for a in others]
        for (seen, *rest), (seen_before, *rest_before) in zip(found, expected, strict=True):
            assert data_equivalence(seen, seen_before, exact=True)
            assert rest == rest_before


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=8)
@given(data=st.data())
def test_nothing_breaks_a_task(task, data):
    """Extreme, constant and random actions, arguments at their bounds: no NaN, no warning."""
    ends = {
        name: data.draw(st.sampled_from(ends), name) for name, ends in BOUNDS.get(task, {}).items()
    }
    noise, delay = data.draw(st.sampled_from([0.0, 3.0])), data.draw(st.integers(0, 5))
    env = make(task, sensor_noise=noise, actuation_delay=delay, **ends)
    kind = data.draw(st.sampled_from(["low", "high", "constant", "random", "switching"]))
    low, high = env.action_space.low, env.action_space.high
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    constant = rng.uniform(low, high)
    env.reset(seed=int(rng.integers(1000)))
    for tick in range(250):
        action = {
            "low": low,
            "high": high,
            "constant": constant,
            "random": rng.uniform(low, high),
            "switching": (low, high)[tick % 2],
        }[kind].astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation), observation
        assert np.isfinite(reward) and 0 <= info["score"] <= 1
        if terminated or truncated:
            env.reset()
    assert not env.unwrapped.data.warning.number.any()


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        *((task, {}) for task in TASKS),
        ("PushT-v0", {"observation": "keypoint"}),
        ("PushT-v0", {"observation": "image"}),
    ],
    ids=str,
)
def test_gymnasium_finds_nothing_to_remark_but_pixels_as_actions(task, kwargs):
    try:
        make(task, render_mode="rgb_array", **kwargs).unwrapped.render()
        no_gl = False
    except RuntimeError:
        no_gl = True
    env = gymnasium.make(f"diffpolicy.envs:{task}", **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=no_gl)
    said = [str(warning.message) for warning in caught]
    assert all(task == "PushT-v0" and "symmetric and normalized" in text for text in said), said


def rows_of(docstring, *, under):
    """The cells of the table rows under a heading, without the row of names."""
    [section] = re.findall(
        rf"## {under}\n(.*?)(?=\n *## |\Z)", docstring, re.DOTALL | re.IGNORECASE
    )
    lines = [line.strip() for line in section.splitlines() if line.strip().startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row for row in cells if row[0] and not row[0].startswith(("Num", "Key", "Parameter", "-"))
    ]


def value(text):
    """The value of a cell: `None`, "state", 0.05, π/2, (256, 256, π/4)."""
    return eval(text.strip("`").replace("π", "math.pi"), {"math": math})


@pytest.mark.parametrize("task", TASKS)
def test_the_docstring_has_every_argument_with_its_default(task):
    env = make(task).unwrapped
    written = {row[0].strip("`"): value(row[1]) for row in rows_of(env.__doc__, under="arguments")}
    parameters = list(inspect.signature(type(env).__init__).parameters.values())[1:]
    assert written == {parameter.name: parameter.default for parameter in parameters}
    for heading in ("description", "version history"):
        assert re.search(rf"## {heading}", env.__doc__, re.IGNORECASE), heading


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [*((task, {}) for task in TASKS), ("PushT-v0", {"observation": "keypoint"})],
    ids=str,
)
def test_the_docstring_has_the_bounds_of_the_spaces(task, kwargs):
    env = make(task, **kwargs).unwrapped
    actions = rows_of(env.__doc__, under="action space")
    observations = rows_of(env.__doc__, under="observation space")
    if task == "PushT-v0":  # three tables: a state of six rows, three rows of keypoints, images
        observations = observations[6:9] if kwargs else observations[:6]
    for rows, space in ((actions, env.action_space), (observations, env.observation_space)):
        for number, _, low, high, _ in rows:
            first, last = (*number.split("–"), number)[:2]
            of_row = slice(int(first), int(last) + 1)
            assert space.low[of_row] == pytest.approx(value(low)), (number, low)
            assert space.high[of_row] == pytest.approx(value(high)), (number, high)
        assert of_row.stop == space.shape[0]


def test_the_docstring_has_the_bounds_of_images():
    env = make("PushT-v0", observation="image").unwrapped
    rows = rows_of(env.__doc__, under="observation space")[9:]
    assert [row[0] for row in rows] == [f"`{key}`" for key in env.observation_space]
    for (_, meaning, low, high, _), space in zip(rows, env.observation_space.values(), strict=True):
        assert meaning.endswith(f"{space.dtype} {list(space.shape)}")
        assert (space.low == value(low)).all() and (space.high == value(high)).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "kwargs",
    [
        *({"sensor_noise": bad} for bad in (-1.0, float("nan"), float("inf"))),
        *({"actuation_delay": bad} for bad in (-1, 1.5, float("nan"), float("inf"))),
    ],
    ids=str,
)
def test_sensors_and_motors_that_cannot_be_are_refused(task, kwargs):
    [name] = kwargs
    with pytest.raises(ValueError, match=name):
        make(task, **kwargs)


@pytest.mark.parametrize("task", TASKS)
def test_a_late_motor_follows_the_action_of_then(task):
    """Actions reach the motors unchanged, that many ticks later; until then nothing moves them."""
    late, still = make(task, actuation_delay=3).unwrapped, make(task).unwrapped
    late.reset(seed=1), still.reset(seed=1)
    calm = np.array(still.neutral_action)
    for action in actions_of(task)[:3].astype(np.float32):
        np.testing.assert_array_equal(late.step(action)[0], still.step(calm)[0])


@pytest.mark.parametrize("task", ["PushT-v0", "Detour-v0", "Catch-v0"])
def test_where_actions_are_targets_the_neutral_one_is_the_newest_also_under_way(task):
    """Else starved ticks would repeat what is under way, over and over."""
    env = make(task, actuation_delay=3).unwrapped
    env.reset(seed=0)
    start = env.neutral_action
    assert start in env.action_space
    assert make(task).unwrapped.position_targets
    for action in actions_of(task)[:5].astype(np.float32):
        env.step(action)
        np.testing.assert_array_equal(env.neutral_action, action)
        for _ in range(2):
            env.step(env.neutral_action)
            np.testing.assert_array_equal(env.neutral_action, action)
