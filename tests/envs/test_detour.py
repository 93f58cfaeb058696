"""Detour-v0: laws of the task, its geometry and its expert, and why a mean answer fails."""

import math
from collections import Counter
from itertools import pairwise, product

import gymnasium
import mujoco
import numpy as np
import pytest
from episodes import play
from hypothesis import example, given, settings
from hypothesis import strategies as st

import diffpolicy.envs  # noqa: F401  (registers the ids)
from diffpolicy.envs import detour

SIDES = {"left": 1, "right": -1}
PREDICTED, EXECUTED = 16, 8  # actions of a chunk


def make(**kwargs):
    return gymnasium.make("Detour-v0", disable_env_checker=True, **kwargs)


def middling(side):
    """The expert of a side with the middle of its clearances and speeds."""
    return detour.detour(side, np.mean(detour.CLEARANCE_M), np.mean(detour.SPEED_M_S))


def tools(observations):
    """The tool's places, as complex numbers."""
    return np.array([detour.tool_position(row[:2]) for row in observations])


def side_of(observations):
    """On which side of the post the tool went by."""
    places = tools(observations)
    return int(np.sign(places[np.argmax(abs(places.imag))].imag))


@pytest.fixture(scope="module")
def pictured():
    """An environment that draws; skips where nothing can."""
    env = make(render_mode="rgb_array")
    try:
        env.unwrapped.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    yield env
    env.close()
    env.close()


def test_declares_what_a_harness_needs():
    env = make().unwrapped
    assert env.control_dt_s == 1 / env.metadata["render_fps"]
    assert env.control_dt_s % env.model.opt.timestep == pytest.approx(0)
    assert env.position_targets is True
    assert env.neutral_action in env.action_space


def test_geometry_is_the_model_s():
    model = make().unwrapped.model
    post, tool = model.geom("post"), model.geom("tool")
    assert post.size[0] + tool.size[0] == pytest.approx(detour.TOUCH_M)
    assert complex(*post.pos[:2]) == detour.POST
    assert model.body("forearm").pos[0] == model.body("tool").pos[0] == detour.LINK_M
    assert model.geom("goal").size[0] == detour.GOAL_RADIUS_M
    lags_s = model.actuator_biasprm[:, 2] / model.actuator_biasprm[:, 1]
    np.testing.assert_allclose(lags_s, detour.SERVO_LAG_S)


@given(
    st.tuples(st.floats(-1.9, 0.1), st.floats(0.8, 2.8)),
    st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
)
@settings(max_examples=25)
def test_kinematics_are_mujoco_s(qpos, qvel):
    env = detour.DetourEnv()
    env.data.qpos[:], env.data.qvel[:] = qpos, qvel
    mujoco.mj_forward(env.model, env.data)
    jacobian, tool = np.zeros((3, 2)), env.model.body("tool").id
    mujoco.mj_jacBody(env.model, env.data, jacobian, None, tool)
    x, y, _ = env.data.xpos[tool]
    position = detour.tool_position(env.data.qpos)
    velocity = detour.tool_velocity(env.data.qpos, env.data.qvel)
    assert position == pytest.approx(complex(x, y), abs=1e-9)
    assert velocity == pytest.approx(complex(*(jacobian @ qvel)[:2]), abs=1e-9)
    np.testing.assert_allclose(detour.joint_angles(position), qpos, atol=1e-9)
    np.testing.assert_allclose(detour.HOME_RAD + detour.action_towards(position), qpos, atol=1e-6)


@example(1.0, 1.0, 5e-324, 1)
@given(st.floats(0.15, 2), st.floats(0.05, 1), st.floats(-0.3, 0.3), st.sampled_from([1, -1]))
def test_the_bearing_is_the_tangent_or_the_goal(distance, beyond, across, side):
    """The line along it keeps its distance from the post, unless it leads to the goal."""
    to_post, to_goal, clearance = distance + 0j, complex(distance + beyond, across), 0.1
    bearing = detour.detour_bearing(to_post, to_goal, side, clearance)
    straight = math.atan2(to_goal.imag, to_goal.real)
    nearest = distance * math.sin(abs(straight))  # of the straight way
    if nearest < clearance:
        assert distance * math.sin(side * bearing) == pytest.approx(clearance)
    else:
        assert bearing == straight


def test_expert_arrives():
    env = make()
    ends = []
    for seed in range(200):
        policy = env.unwrapped.expert(np.random.default_rng(seed))
        _, rewards, infos, *_ = play(env, policy, seed)
        assert rewards.sum() == float(infos[-1]["success"])
        ends.append((infos[-1]["success"], len(rewards)))
    successes, ticks = np.array(ends).T
    assert successes.mean() >= 0.99
    assert ticks.max() <= gymnasium.spec("Detour-v0").max_episode_steps / 2


def test_expert_tosses_a_coin_whatever_the_start():
    env = make()
    sides = []
    for seed in range(200):
        policy = env.unwrapped.expert(np.random.default_rng(seed))
        side, other = (side_of(play(env, policy, start)[0]) for start in (seed, seed + 1000))
        assert side == other
        sides.append(side)
    assert 0.4 <= np.mean(np.array(sides) == 1) <= 0.6


def test_expert_finds_back_when_thrown_off_its_path():
    env, rng = make(), np.random.default_rng(0)
    for seed in range(30):
        expert = env.unwrapped.expert(rng)
        _, _, infos, *_ = play(env, lambda o, act=expert: act(o) + rng.normal(0, 0.04, 2), seed)
        assert infos[-1]["success"]


class Planner:
    """Chunks of a side's expert from here on, by the simulator itself."""

    def __init__(self):
        self.twin = make().unwrapped
        self.twin.reset(seed=0)

    def __call__(self, env, observation, side):
        self.twin.restore(env.unwrapped.save())
        expert, actions = middling(side), []
        for _ in range(PREDICTED):
            actions.append(expert(observation))
            observation, *_ = self.twin.step(actions[-1])
        return np.array(actions)


def run_chunks(env, chunk_at, seed):
    """Success of one episode that executes the head of `chunk_at(observation)`, and its ticks."""
    observation, _ = env.reset(seed=seed)
    ticks, over = 0, False
    while not over:
        for action in chunk_at(observation)[:EXECUTED]:
            observation, _, terminated, truncated, info = env.step(action.astype(np.float32))
            ticks += 1
            over = terminated or truncated
            if over:
                break
    return info["success"], ticks


@pytest.fixture(scope="module")
def planner():
    return Planner()


@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_one_side_s_plan_arrives_even_if_it_is_inexact(planner, side):
    env, rng = make(), np.random.default_rng(0)

    def chunk(observation):
        plan = planner(env, observation, side)
        return plan + 0.05 * np.ptp(plan, axis=0) * rng.standard_normal(plan.shape)

    assert np.mean([run_chunks(env, chunk, seed)[0] for seed in range(50)]) >= 0.98


@pytest.fixture(scope="module")
def demonstrations():
    """All observations of 200 demonstrations, in units of their half ranges, and their sides."""
    env = make()
    episodes = []
    for seed in range(200):
        policy = env.unwrapped.expert(np.random.default_rng([seed, 1]))
        episodes.append(play(env, policy, seed)[0])
    half_range = np.ptp(np.concatenate(episodes), axis=0) / 2
    sides = np.concatenate([np.full(len(episode), side_of(episode)) for episode in episodes])
    return np.concatenate(episodes) / half_range, sides, half_range


@pytest.mark.parametrize("nearby", [1e-9, 0.05])
def test_the_conditional_mean_hits_the_post(planner, demonstrations, nearby):
    """The regressor: both sides' exact plans, weighed by how often those demonstrations took them
    that were seen nearest, or nearly so: the first one knows every demonstration by heart. Nearly
    every episode ends at the post within the first chunk."""
    seen, sides, half_range = demonstrations
    env = make()

    def chunk(observation):
        distances = np.linalg.norm(seen - observation / half_range, axis=1)
        left = np.mean(sides[distances <= distances.min() + nearby] == 1)
        return left * planner(env, observation, 1) + (1 - left) * planner(env, observation, -1)

    ends = [run_chunks(env, chunk, seed) for seed in range(1000, 1050)]
    successes, ticks = np.array(ends).T
    assert successes.mean() <= 0.1
    assert np.mean(ticks <= EXECUTED) >= 0.9


@pytest.mark.parametrize("share", [0.5, 0.65, 0.75])
def test_a_half_hearted_detour_hits_the_post(planner, share):
    """Not only the even mean: also three quarters of one side and a quarter of the other."""
    env = make()

    def chunk(observation):
        one, other = (planner(env, observation, side) for side in SIDES.values())
        return share * one + (1 - share) * other

    assert not any(run_chunks(env, chunk, seed)[0] for seed in range(30))


def test_touching_the_post_ends_the_episode_as_a_failure():
    env = make()
    env.reset(seed=0)
    for gap_m, touches in ((1e-3, False), (-1e-3, True)):
        place = detour.POST - detour.TOUCH_M - gap_m
        env.unwrapped.data.qpos[:] = detour.joint_angles(place)
        env.unwrapped.data.qvel[:] = 0
        _, reward, terminated, _, info = env.step(detour.action_towards(place))
        assert terminated is touches
        assert reward == 0 and not info["success"]


def test_success_is_at_the_goal_and_slow():
    env = make()
    env.reset(seed=0)
    base = env.unwrapped
    for speed_rad_s, arrived in ((0.5, False), (0.0, True)):
        base.data.qpos[:], base.data.qvel[:] = detour.joint_angles(base.goal), speed_rad_s
        observation, reward, terminated, _, info = env.step(detour.action_towards(base.goal))
        assert np.hypot(*observation[4:]) < detour.GOAL_RADIUS_M
        assert info["success"] is terminated is arrived
        assert reward == arrived
    assert info["score"] == 1.0


def test_score_and_observation_follow_the_distance_to_the_goal():
    env = make()
    observations, _, infos, *_ = play(env, middling(1), seed=0)
    ways = observations[:, 4] + 1j * observations[:, 5]
    np.testing.assert_allclose(tools(observations) + ways, env.unwrapped.goal, atol=1e-12)
    scores = np.array([info["score"] for info in infos])
    expected = np.clip(1 - abs(ways) / abs(ways[0]), 0, 1)
    np.testing.assert_allclose(scores[:-1], expected[:-1], atol=1e-12)
    assert scores[-1] == 1


def test_every_start_is_equally_likely():
    env = make()
    starts = []
    for seed in range(450):
        observation, _ = env.reset(seed=seed)
        tool, goal = detour.tool_position(observation[:2]), env.unwrapped.goal
        assert (tool.real, goal.real) == pytest.approx((detour.TOOL_X_M, detour.GOAL_X_M))
        assert not observation[2:4].any()
        starts.append((round(tool.imag, 6) + 0.0, goal.imag))
    counts = Counter(starts)
    assert set(counts) == set(product(detour.TOOL_Y_M, detour.GOAL_Y_M))
    assert min(counts.values()) > 25 and max(counts.values()) < 80


def test_neutral_action_holds():
    env = make()
    observation, _ = env.reset(seed=0)
    before = tools([observation])[0]
    for _ in range(20):
        observation, *_ = env.step(env.unwrapped.neutral_action)
    assert abs(tools([observation])[0] - before) < 1e-6
    env.step(np.array([-0.5, 9.0], np.float32))
    np.testing.assert_array_equal(env.unwrapped.neutral_action, np.float32([-0.5, 1.0]))


def test_actions_arrive_late_by_the_delay():
    prompt, late = make(), make(actuation_delay=3)
    actions = [middling(1)(prompt.reset(seed=0)[0])] * 8
    start, _ = late.reset(seed=0)
    seen = [prompt.step(action)[0] for action in actions]
    seen_late = [late.step(action)[0] for action in actions]
    np.testing.assert_allclose(seen_late[:3], [start] * 3, atol=1e-6)
    np.testing.assert_allclose(seen_late[3:], seen[:5], atol=1e-6)


@pytest.mark.parametrize("physics", [{"payload_kg": 1.0}, {"joint_friction_nm": 1.0}])
def test_physics_matter(physics):
    """Mass and friction slow the arm down."""
    nominal, other = make(), make(**physics)
    start, _ = nominal.reset(seed=0)
    other.reset(seed=0)
    action = middling(1)(start)
    usual, slower = (tools([start, env.step(action)[0]]) for env in (nominal, other))
    assert abs(np.diff(slower)) < 0.9 * abs(np.diff(usual))


def test_sensor_noise_has_its_size():
    clear, noisy = make(), make(sensor_noise=2.0)
    clear.reset(seed=0), noisy.reset(seed=0)
    hold = clear.unwrapped.neutral_action
    errors = [noisy.step(hold)[0] - clear.step(hold)[0] for _ in range(100)]
    np.testing.assert_allclose(np.std(errors, axis=0) / noisy.unwrapped.sensor_units, 2, rtol=0.3)


STYLES = {
    "random": lambda rng, qvel: rng.uniform(-1, 1, 2),
    "corners": lambda rng, qvel: rng.choice([-1.0, 1.0], 2),
    "beyond": lambda rng, qvel: rng.choice([-1e6, 1e6], 2),
    "low": lambda rng, qvel: np.full(2, -1.0),
    "high": lambda rng, qvel: np.full(2, 1.0),
    "pump": lambda rng, qvel: np.where(qvel >= 0, 1.0, -1.0),  # always push the way it moves
}


@given(
    style=st.sampled_from(sorted(STYLES)),
    payload_kg=st.sampled_from([0.0, 0.2, 2.0]),
    joint_friction_nm=st.sampled_from([0.0, 5.0]),
    sensor_noise=st.sampled_from([0.0, 50.0]),
    actuation_delay=st.sampled_from([0, 4]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_nothing_gets_out_of_bounds(style, seed, **kwargs):
    env, rng = detour.DetourEnv(**kwargs), np.random.default_rng(seed)
    bounds = env.observation_space.high
    observation, info = env.reset(seed=seed)
    for _ in range(400):
        assert observation in env.observation_space
        assert np.all(abs(np.append(env.data.qpos, env.data.qvel)) < bounds[:4])  # unclipped
        assert 0 <= info["score"] <= 1 and isinstance(info["success"], bool)
        action = STYLES[style](rng, env.data.qvel).astype(np.float32)
        observation, _, terminated, _, info = env.step(action)
        if terminated and rng.random() < 0.5:  # or on, where nobody should go
            observation, info = env.reset()
    assert sum(warning.number for warning in env.data.warning) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("payload_kg", -0.1),
        ("payload_kg", 3),
        ("payload_kg", float("nan")),
        ("joint_friction_nm", -1),
        ("joint_friction_nm", 6),
    ],
)
def test_physics_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value}"):
        detour.DetourEnv(**{name: value})


def test_picture_shows_the_goal_the_arm_and_a_touched_post(pictured):
    pictured.reset(seed=0)
    env, pictures = pictured.unwrapped, [pictured.render()]
    env.goal += 0.05j
    pictures.append(pictured.render())
    for tool in (0.3 + 0.2j, detour.POST):
        env.data.qpos[:] = detour.joint_angles(tool)
        pictures.append(pictured.render())
    assert pictures[0].shape == (480, 640, 3) and pictures[0].dtype == np.uint8
    assert all(np.any(a != b) for a, b in pairwise(pictures))
    red = [np.sum((p[..., 0] > 200) & (p[..., 1] < 60)) for p in pictures]
    assert red[-1] > 500 > 10 > max(red[:-1])
