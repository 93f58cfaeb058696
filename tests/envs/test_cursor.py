"""A cursor on the picture: the robot goes where it points, as the picture shows."""

import gymnasium
import numpy as np
import pytest

ENVS = ["PushT-v0", "Detour-v0"]


@pytest.fixture(params=ENVS)
def env(request):
    made = gymnasium.make(f"diffpolicy.envs:{request.param}", render_mode="rgb_array").unwrapped
    made.reset(seed=3)
    yield made
    made.close()


def test_the_cursor_over_the_robot_holds_it(env):
    before = env.cursor
    assert np.all((before > 0) & (before < 1))
    np.testing.assert_allclose(env.action_from_cursor(before), env.neutral_action, atol=1e-4)
    for _ in range(5):
        env.step(env.action_from_cursor(before))
    np.testing.assert_allclose(env.cursor, before, atol=1e-3)


def test_the_robot_arrives_under_the_cursor(env):
    target = env.cursor + np.array([0.06, -0.05])
    for _ in range(15):
        env.step(env.action_from_cursor(target))
    np.testing.assert_allclose(env.cursor, target, atol=0.01)


@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_every_cursor_is_an_action(env, corner):
    action = env.action_from_cursor(np.array(corner, float))
    assert action.dtype == np.float32 and env.action_space.contains(action)


def test_right_and_down_are_those_of_the_picture():
    made = gymnasium.make("diffpolicy.envs:PushT-v0").unwrapped
    np.testing.assert_allclose(made.action_from_cursor((0.5, 0.5)), (256, 256), atol=0.1)
    x, y = made.action_from_cursor((0.75, 0.25))
    assert x > 380 and y < 132
    made = gymnasium.make("diffpolicy.envs:Detour-v0").unwrapped
    made.reset(seed=0)
    left, ahead = np.array((0.3, 0.5)), np.array((0.5, 0.3))
    shoulder = [made.action_from_cursor(cursor)[0] for cursor in (left, np.array((0.7, 0.5)))]
    assert shoulder[0] > shoulder[1]  # y points to the left, angles grow anticlockwise
    elbow = [made.action_from_cursor(cursor)[1] for cursor in (ahead, np.array((0.5, 0.7)))]
    assert elbow[0] < elbow[1]  # straighter, farther away


def test_the_picture_shows_the_agent_at_its_cursor():
    env = gymnasium.make("diffpolicy.envs:PushT-v0", render_mode="rgb_array").unwrapped
    env.reset(seed=0, options={"state": [120.0, 400.0, 350.0, 150.0, 0.0]})
    try:
        picture = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    x, y = (env.cursor * (picture.shape[1], picture.shape[0])).astype(int)
    red, _, blue = picture[y + 3, x + 3].astype(int)  # beside the mark of its target
    assert blue > red + 50
    env.close()
