"""Push-T's expert: it succeeds, smoothly; what it predicts is what MuJoCo does."""

import mujoco
import numpy as np
import pytest

from diffpolicy.envs import pusht_expert as expert
from diffpolicy.envs.pusht import PushTEnv
from diffpolicy.envs.pusht_block import QPOS_SCALE, Block

BLOCK = Block()
SHAPES = [
    {},
    {"bar_px": (160, 30), "stem_px": (40, 60)},
    {"bar_px": (60, 40), "stem_px": (25, 120)},
]
FAR = expert.Poses(np.array(256 + 256j), np.exp(1j * np.array(0.7)))


def play(env: PushTEnv, seed: int, rng_seed: int | None = None, limit: int = 300):
    """Observations [T + 1, D_o], targets [T, 2] and the last info of one episode."""
    observation, info = env.reset(seed=seed)
    act = env.expert(np.random.default_rng(seed if rng_seed is None else rng_seed))
    observations, targets, terminated = [observation], [], False
    while not terminated and len(targets) < limit:
        targets.append(act(observation))
        observation, _, terminated, _, info = env.step(targets[-1])
        observations.append(observation)
    return np.array(observations), np.array(targets), info


# Episodes


def test_expert_covers_the_goal():
    env = PushTEnv()
    infos = [play(env, seed)[2] for seed in range(6)]
    assert np.mean([info["score"] for info in infos]) >= 0.95
    assert np.mean([info["success"] for info in infos]) >= 0.8


@pytest.mark.parametrize(
    "arguments",
    [
        {"observation": "keypoint"},
        {"goal_pose": (150, 370, -1.5)},
        {"bar_px": (160, 30), "stem_px": (40, 60)},
        {"sensor_noise": 1.0, "actuation_delay": 2},
        {"block_mass_kg": 20.0, "table_friction_kg_s": 300.0},
    ],
)
def test_expert_covers_the_goal_in_other_circumstances(arguments):
    assert play(PushTEnv(**arguments), seed=0)[2]["score"] >= 0.95


def test_same_generator_same_demonstration_other_generator_another():
    env = PushTEnv()
    first, again, other = (play(env, 4, rng_seed)[1] for rng_seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or np.any(first != other)


def test_targets_lead_the_agent_smoothly():
    """No farther ahead than the way there, and never turning back while under way."""
    for seed in range(3):
        observations, targets, _ = play(PushTEnv(), seed)
        ahead = np.linalg.norm(targets - observations[:-1, :2], axis=1)
        assert ahead.max() <= expert.GO_AHEAD + 2 * expert.BERTH
        velocity = np.diff(observations[:, :2], axis=0)
        speed = np.linalg.norm(velocity, axis=1)
        cosine = np.sum(velocity[1:] * velocity[:-1], axis=1) / (speed[1:] * speed[:-1] + 1e-9)
        assert np.all(cosine[np.minimum(speed[1:], speed[:-1]) > 3.0] > 0)


def test_block_wedged_into_a_corner_is_freed():
    env = PushTEnv()
    env.reset(options={"state": [219.6, 433.1, 390.0, 436.5, -1.1]})
    act, observation = env.expert(np.random.default_rng(0)), env._observation(env.state)
    for _ in range(300):
        observation, _, terminated, _, info = env.step(act(observation))
        if terminated:
            break
    assert info["success"]


def test_where_no_push_is_possible_the_agent_stays():
    act = expert.Pusher(BLOCK, (256.0, 256.0, 0.0), np.random.default_rng(0))
    for _ in range(3):
        np.testing.assert_array_equal(act(np.array([100.0, 90.0, -300.0, -300.0, 0.0])), [100, 90])


# Predictions


def push_in_mujoco(env: PushTEnv, start: complex, end: complex) -> expert.Poses:
    """Final pose of a block that starts upright with its centre of mass at mid-table."""
    middle = FAR.place
    agent = middle + start
    mujoco.mj_resetData(env.model, env.data)
    env.data.qpos[:] = np.array([agent.real, agent.imag, middle.real, middle.imag, 0]) * QPOS_SCALE
    env.data.ctrl[:] = env.data.qpos[:2]
    leg = expert.Leg(np.array([middle + start, middle + end]), expert.PUSH_AHEAD, 0.3)
    while not leg.done(agent):
        target = leg.target(agent)
        env.step(np.array([target.real, target.imag]))
        agent = complex(*env.state[:2])
    x, y, angle = env.data.qpos[2:] / QPOS_SCALE[2:]
    return expert.Poses(np.array(x + 1j * y - middle), np.exp(1j * np.array(angle)))


@pytest.mark.parametrize("shape", SHAPES)
def test_pushes_end_in_mujoco_as_predicted(shape):
    env, rng = PushTEnv(**shape), np.random.default_rng(0)
    pushes = expert.draw_pushes(env.block, rng)
    errors = []
    for i in rng.choice(np.flatnonzero(abs(pushes.end - pushes.start) < 160), 30, replace=False):
        found = push_in_mujoco(env, pushes.start[i], pushes.end[i]).vectors(env.block)
        errors.append(np.linalg.norm(found - pushes.outcome[i].vectors(env.block)))
    assert np.median(errors) < 0.5 and max(errors) < 3.0


@pytest.mark.parametrize("shape", SHAPES)
def test_pushes_begin_beside_the_block_and_end_outside_of_it(shape):
    block = Block(**shape)
    pushes = expert.draw_pushes(block, np.random.default_rng(1))
    assert len(pushes.starts) == expert.PUSHES
    assert expert.clearance(pushes.starts, block.centred_boxes).min() >= expert.BERTH - 1e-6
    left = expert.clearance(pushes.outcome.inner(pushes.end), block.centred_boxes)
    assert left.min() > expert.AGENT_RADIUS - 0.5
    np.testing.assert_allclose(abs(pushes.outcome.turn), 1.0)


def test_vectors_are_as_far_apart_as_the_points_of_the_block():
    """Points at the radius of gyration stand for the block."""
    rng = np.random.default_rng(0)
    own = np.sqrt(BLOCK.gyration_px2) * np.exp(1j * np.arange(4) * np.pi / 2)
    places, turns = rng.normal(0, 50, (2, 2)) @ [1, 1j], np.exp(1j * rng.uniform(-3, 3, 2))
    poses = expert.Poses(places, turns)
    points = poses[:, None].outer(own)
    a, b = poses.vectors(BLOCK)
    expected = np.sqrt(np.mean(abs(points[0] - points[1]) ** 2))
    assert np.linalg.norm(a - b) == pytest.approx(expected)


def test_poses_compose_and_are_undone():
    points = np.array([1 + 2j, -3 + 0.5j])
    one, other = FAR, expert.Poses(np.array(3 - 1j), np.exp(1j * np.array(-2.0)))
    np.testing.assert_allclose((one @ other).outer(points), one.outer(other.outer(points)))
    np.testing.assert_allclose(one.inner(one.outer(points)), points)


# Ways


@pytest.mark.parametrize("shape", SHAPES)
def test_ways_keep_clear_of_the_block_and_are_the_shorter_for_it(shape):
    block, rng = Block(**shape), np.random.default_rng(2)
    starts = expert.draw_pushes(block, rng).starts[:50]
    agent = starts[0] * 1.5
    lengths, way = expert.ways(agent, starts, FAR, block)
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        path = way(i)
        assert path[0] == agent and path[-1] == start
        assert np.sum(abs(np.diff(path))) == pytest.approx(length)
        assert length >= abs(start - agent) - 1e-9
        dots = expert.Leg(path, 1, 0.0).path
        assert expert.clearance(dots, block.centred_boxes).min() > expert.AGENT_RADIUS + 3


def test_ways_stay_on_the_table():
    """The block stands by the left edge, too near for the agent to pass between."""
    now = expert.Poses(np.array(60 + 256j), np.exp(1j * np.array(0.3)))
    starts = expert.draw_pushes(BLOCK, np.random.default_rng(3)).starts
    lengths, way = expert.ways(complex(now.inner(400 + 256j)), starts, now, BLOCK)
    reached = np.flatnonzero(np.isfinite(lengths) & expert.on_table(now.outer(starts)))
    assert 0 < reached.size < starts.size
    for i in reached:
        assert expert.on_table(now.outer(way(i))).all()


def test_a_leg_ends_after_its_patience():
    leg = expert.Leg(np.array([0j, 50 + 0j]), expert.PUSH_AHEAD, expert.PUSH_ARRIVED)
    assert leg.target(0j) == pytest.approx(expert.PUSH_AHEAD, abs=1)
    for _ in range(expert.PATIENCE_TICKS):
        assert not leg.done(45 + 0j)
        assert leg.target(45 + 0j) == 50
    assert leg.done(45 + 0j)
