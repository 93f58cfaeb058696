"""Other people's environments: what crosses the boundary is copied, checked and flat."""

from collections import OrderedDict
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffpolicy import environment
from diffpolicy.environment.boundary import Boundary
from diffpolicy.errors import DiffpolicyError

LINE = spaces.Box(-np.inf, np.inf, (1,), np.float32)
PAIR = spaces.Box(-np.inf, np.inf, (2,), np.float32)
GOOD = np.array([1.0, 2.0], np.float32)


class Habit(gymnasium.Env):
    """Does in reset and step what its arguments say; keeps the actions that it was given."""

    control_dt_s = 0.1

    def __init__(self, observation=GOOD, space=PAIR, actions=PAIR, first=None, step=None):
        self.observation_space, self.action_space = space, actions
        self.observation = observation
        self.first, self.outcome = first, step
        self.given = []

    def reset(self, *, seed=None, options=None):
        return (self.observation, {}) if self.first is None else self.first(self)

    def step(self, action):
        self.given.append(action)
        if self.outcome is None:
            return self.observation, 0.0, False, False, {}
        return self.outcome(self)


def habit(**options) -> Boundary:
    return Boundary(Habit(**options), "Habit-v0")


def raising(error):
    def call(env):
        raise error

    return call


def line_of(message: str) -> str:
    """The line of this file that an error names."""
    rest = message.partition(f"{__file__}:")[2]
    assert rest, message
    return Path(__file__).read_text().splitlines()[int(rest.split(")")[0]) - 1].strip()


# Copies


class Reuse(Habit):
    """Overwrites the one array that it returns."""

    def step(self, action):
        self.observation += 1
        action[:] = 9
        return self.observation, 0.0, False, False, {}


def test_an_array_that_is_used_again_is_copied():
    env = Boundary(Reuse(np.zeros(2, np.float32)), "Reuse-v0")
    action = np.zeros(2, np.float32)
    seen = [env.reset(seed=0)[0], *(env.step(action.copy())[0] for _ in range(3))]
    np.testing.assert_array_equal(seen, [[0, 0], [1, 1], [2, 2], [3, 3]])


@pytest.mark.parametrize("space", [PAIR, spaces.Dict({"a": PAIR}), spaces.Tuple([LINE, LINE])])
def test_no_part_of_an_observation_is_shared(space):
    inner = {"a": GOOD.copy()} if isinstance(space, spaces.Dict) else GOOD.copy()
    inner = (GOOD[:1].copy(), GOOD[1:].copy()) if isinstance(space, spaces.Tuple) else inner
    seen, _ = habit(observation=inner, space=space).reset(seed=0)
    for part in inner.values() if isinstance(inner, dict) else inner:
        assert not np.shares_memory(seen, np.asarray(part))
    np.testing.assert_array_equal(seen, GOOD)


def test_a_picture_is_copied():
    env = habit()
    env.env.render = lambda: PICTURE
    assert not np.shares_memory(env.render(), PICTURE)


PICTURE = np.zeros((2, 2, 3), np.uint8)


# Observations


def test_matrices_are_flattened_by_rows_and_whole_numbers_are_floats():
    space = spaces.Box(0, 255, (2, 2), np.uint8)
    env = habit(observation=np.arange(4, dtype=np.uint8).reshape(2, 2), space=space)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.shape == (4,) and observation.dtype == np.float64
    np.testing.assert_array_equal(observation, [0, 1, 2, 3])
    assert env.observation_keys is None


def parts(order):
    return dict.fromkeys(order, LINE)


@pytest.mark.parametrize(
    ("space", "order"),
    [
        (spaces.Dict(parts("xgv")), ("g", "v", "x")),
        (spaces.Dict(OrderedDict(parts("xgv"))), ("x", "g", "v")),
        (spaces.Dict(list(parts("xgv").items())), ("x", "g", "v")),
        (spaces.Dict({"b": LINE, "a": spaces.Dict(parts("vx"))}), ("a/v", "a/x", "b")),
    ],
)
def test_a_dict_is_flattened_in_the_order_of_its_space(space, order):
    """Also if the environment returns its dict in another order."""
    values = {name: float(number) for number, name in enumerate(order)}

    def filled(space, path=""):
        items = reversed(list(space.spaces.items()))
        return {
            key: filled(inner, f"{path}{key}/")
            if isinstance(inner, spaces.Dict)
            else np.array([values[f"{path}{key}"]], np.float32)
            for key, inner in items
        }

    env = habit(observation=filled(space), space=space)
    np.testing.assert_array_equal(env.reset(seed=0)[0], [0, 1, 2][: len(order)])
    np.testing.assert_array_equal(env.step(GOOD)[0], [0, 1, 2][: len(order)])
    assert env.observation_keys == order
    assert env.reset(seed=0)[0].dtype == np.float32


def test_discrete_parts_are_one_hot():
    space = spaces.Tuple([LINE, spaces.Discrete(3), spaces.MultiBinary(2)])
    env = habit(observation=(GOOD[:1], 1, np.array([0, 1], np.int8)), space=space)
    np.testing.assert_array_equal(env.reset(seed=0)[0], [1, 0, 1, 0, 0, 1])
    assert env.observation_keys == ("0", "1", "2")


DICT = spaces.Dict({"x": LINE, "v": PAIR})


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (PAIR, None, "gave as observation None in .* an array of numbers of shape \\(2,\\)"),
        (PAIR, [1.0, 2.0], r"gave as observation \[1.0, 2.0\]"),
        (PAIR, np.zeros(3), r"of shape \(3,\) in .*of shape \(2,\)"),
        (PAIR, {"x": GOOD}, "gave as observation {'x'"),
        (PAIR, np.array(["a", "b"]), "an array of numbers"),
        (PAIR, np.array([None, 1.0]), "an array of numbers"),
        (DICT, {"x": GOOD[:1]}, r"observed \['x'\] in .*; expected observation\['v'\]"),
        (DICT, None, r"observed None in .*; expected observation\['v'\]"),
        (DICT, {"x": GOOD, "v": GOOD[:1]}, r"gave as observation\['v'\] .* of shape \(1,\)"),
        (spaces.Discrete(3), 3, r"gave as observation 3 in .*; expected one of Discrete\(3\)"),
        (spaces.Tuple([LINE, LINE]), (GOOD[:1],), r"expected observation\[1\]"),
    ],
)
def test_an_observation_that_is_not_as_declared_is_named(space, observation, message):
    env = habit(observation=observation, space=space)
    with pytest.raises(DiffpolicyError, match=rf"Habit-v0 .*{message}") as raised:
        env.reset(seed=7)
    assert "in reset(seed=7, options=None)" in str(raised.value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(LINE),
        spaces.Text(5),
        spaces.Graph(LINE, None),
        spaces.Dict({"x": LINE, "trail": spaces.Sequence(LINE)}),
        spaces.Dict({}),
        None,
    ],
)
def test_observations_without_a_fixed_number_of_numbers_are_refused(space):
    with pytest.raises(DiffpolicyError, match=r"must observe a Box.*ObservationWrapper"):
        habit(space=space)


# The rest of a step


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ((GOOD, 0.0, False, False, None), "gave as info None in step, tick 0 of seed 7"),
        ((GOOD, None, False, False, {}), "gave as reward None .*; expected a number"),
        ((GOOD, GOOD, False, False, {}), "gave as reward array"),
        ((GOOD, 0.0, 0.5, False, {}), "gave as terminated 0.5 .*; expected a bool"),
        ((GOOD, 0.0, False, None, {}), "gave as truncated None"),
        ((GOOD, 0.0, False, {}), r"returned \(array.*expected step\(action\) -> \(observation"),
        (None, "returned None"),
    ],
)
def test_a_step_that_is_no_step_is_named(outcome, message):
    env = habit(step=lambda env: outcome)
    env.reset(seed=7)
    with pytest.raises(DiffpolicyError, match=rf"^Habit-v0 {message}"):
        env.step(GOOD)


def test_numbers_of_numpy_are_numbers():
    outcome = (GOOD, np.ones(1), np.array(True), np.int64(0), {})
    env = habit(step=lambda env: outcome)
    env.reset(seed=0)
    assert env.step(GOOD)[1:] == (1.0, True, False, {})


@pytest.mark.parametrize("first", [lambda env: GOOD, lambda env: (GOOD, None)])
def test_a_reset_without_info_is_named(first):
    with pytest.raises(DiffpolicyError, match=r"in reset\(seed=3, options=None\); expected"):
        habit(first=first).reset(seed=3)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AttributeError, OSError, ValueError])
def test_what_an_environment_raises_is_one_line_with_its_place(error):
    env = habit(step=raising(error("no power")))
    env.reset(seed=7)
    with pytest.raises(DiffpolicyError, match=error.__name__) as raised:
        env.step(GOOD)
    assert "Habit-v0 failed in step, tick 0 of seed 7" in str(raised.value)
    assert "no power" in str(raised.value) and line_of(str(raised.value)) == "raise error"


def test_the_tick_is_that_of_the_episode():
    env = habit(step=lambda env: None if len(env.given) == 5 else (GOOD, 0.0, False, False, {}))
    for _ in range(2):
        env.reset(seed=8)
        env.step(GOOD), env.step(GOOD)
    with pytest.raises(DiffpolicyError, match="tick 2 of seed 8"):
        env.step(GOOD)


def test_an_environment_that_cannot_be_closed_costs_a_warning(capsys):
    for _ in range(2):
        env = habit()
        env.env.close = lambda: raising(RuntimeError("stuck"))(None)
        env.close()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: Habit-v0 failed in close: RuntimeError: stuck")


# Environments as Gymnasium makes them


class NoSeed(Habit):
    def reset(self):
        return GOOD, {}


class NeedsOptions(Habit):
    def reset(self, *, seed=None, options=None):
        return GOOD, {"goal": options["goal"]}


class OldStep(Habit):
    def step(self, action):
        return GOOD, 0.0, False, {}


class Breaks(Habit):
    def __init__(self, error):
        raise {"type": TypeError, "key": KeyError, "file": OSError}[error]("no power")


class DtMethod(Habit):
    control_dt_s = None

    def dt(self):
        return 0.1


class Stubborn(Habit):
    position_targets = True

    @property
    def score_key(self):
        raise RuntimeError("not now")

    def neutral_action(self):
        return GOOD


for kind in (Habit, NoSeed, NeedsOptions, OldStep, Breaks, DtMethod, Stubborn):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=9)


@pytest.mark.parametrize(
    ("name", "message", "line"),
    [
        (
            "NoSeed",
            r"unexpected keyword argument 'seed'; expected reset\(\*, seed, op",
            "def reset",
        ),
        ("NeedsOptions", "TypeError: 'NoneType' object is not subscriptable", "return GOOD, {"),
        ("OldStep", r"expected 5, got 4\); expected step\(action\) -> \(obs", "def step"),
    ],
)
def test_other_signatures_are_one_line_with_their_place(name, message, line):
    env = environment.make(f"{name}-v0", {})

    def play() -> None:
        env.reset(seed=0)
        env.step(GOOD)

    with pytest.raises(DiffpolicyError, match=message) as raised:
        play()
    assert line_of(str(raised.value)).startswith(line)


@pytest.mark.parametrize("error", ["type", "key", "file"])
def test_a_constructor_that_raises_is_one_line_with_its_place(error):
    with pytest.raises(DiffpolicyError, match="cannot make the environment 'Breaks-v0'") as raised:
        environment.make("Breaks-v0", {"error": error})
    assert "no power" in str(raised.value) and line_of(str(raised.value)).startswith("raise {")


def test_a_tick_of_no_known_length_is_asked_for():
    env = environment.make("DtMethod-v0", {})
    with pytest.raises(DiffpolicyError, match=r"dt of .* must be a value.*--control-dt SECONDS"):
        environment.control_dt_s(env)
    assert environment.control_dt_s(env, 0.2) == 0.2
    env.unwrapped.control_dt_s = "fast"
    with pytest.raises(DiffpolicyError, match=r"could not convert.*--control-dt SECONDS"):
        environment.control_dt_s(env)


def test_a_declaration_that_is_none_is_named():
    env = environment.make("Stubborn-v0", {})
    with pytest.raises(DiffpolicyError, match="failed in its score_key: RuntimeError: not now"):
        environment.declared(env, "score_key")
    with pytest.raises(DiffpolicyError, match=r"neutral_action of .* must be a value"):
        environment.neutral_rule(env, None)
    assert environment.declared(env, "position_targets") is True


# Actions


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 3)])
def test_actions_reach_the_environment_in_its_own_shape(shape):
    env = habit(actions=spaces.Box(-1, 1, shape, np.float32))
    size = int(np.prod(shape))
    assert env.action_space.shape == (size,)
    env.reset(seed=0)
    env.step(np.arange(size, dtype=np.float32))
    [given] = env.env.given
    assert given.shape == shape and list(given.ravel()) == list(range(size))


@pytest.mark.parametrize(
    ("space", "given", "applied"),
    [
        (spaces.Box(-3, 3, (4,), np.int32), [-9, -1.6, 0.6, 2.4], [-3, -2, 1, 2]),
        (spaces.Box(0, 255, (3,), np.uint8), [-1, 254.6, 300], [0, 255, 255]),
        (spaces.Box(0, 1, (2,), np.bool_), [0.2, 0.8], [False, True]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), [-1e30, 1e30], [-1e30, 1e30]),
        (spaces.Box(-np.inf, 1, (2,), np.float32), [-5, 5], [-5, 1]),
        (
            spaces.Box(0.1, 0.3, (3,), np.float64),
            [0, 0.1234567890123, 1],
            [0.1, 0.1234567890123, 0.3],
        ),
    ],
)
def test_an_action_is_inside_the_space_and_of_its_type(space, given, applied):
    action = environment.applicable(np.array(given), space)
    assert space.contains(action)
    np.testing.assert_array_equal(action, np.array(applied, space.dtype))


@pytest.mark.parametrize(
    "actions", [spaces.Discrete(2), spaces.Dict({"a": PAIR}), spaces.Box(0, 1, (0,)), None]
)
def test_actions_that_are_no_box_are_refused(actions):
    with pytest.raises(DiffpolicyError, match=r"must take a Box of actions.*ActionWrapper"):
        habit(actions=actions)


def test_actions_without_room_are_refused():
    actions = spaces.Box(-1, 1, (2,), np.float32)
    actions.low[:] = 2
    with pytest.raises(DiffpolicyError, match="low <= high"):
        habit(actions=actions)


@pytest.mark.parametrize("declared", [[1.0], [0.0, np.nan], "left", np.zeros(3)])
def test_a_neutral_action_that_is_no_action_is_refused(declared):
    env = environment.make("Habit-v0", {})
    env.unwrapped.neutral_action = declared
    with pytest.raises(DiffpolicyError, match="neutral_action of Habit-v0 must be 2 numbers"):
        environment.neutral_rule(env, None)(None)


def test_a_neutral_action_is_flat_and_a_copy():
    env = environment.make("Habit-v0", {"actions": spaces.Box(-1, 1, (2, 1), np.int8)})
    own = env.unwrapped.neutral_action = np.array([[0.5], [1]])
    neutral = environment.neutral_rule(env, None)(None)
    np.testing.assert_array_equal(neutral, [0.5, 1])
    assert not np.shares_memory(neutral, own)
    np.testing.assert_array_equal(environment.neutral_rule(env, "0.5,1")(None), [0.5, 1])
