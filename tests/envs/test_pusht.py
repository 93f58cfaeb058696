"""Push-T: faithful to the human demonstrations, exact in its geometry, repeatable."""

import math
import os
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffpolicy.envs.planar import relative_pose, shared_area
from diffpolicy.envs.pusht import PushTEnv
from diffpolicy.envs.pusht_block import Block
from diffpolicy.envs.pusht_observations import keypoints_from_state, state_from_observation

ID = "diffpolicy.envs:PushT-v0"
GOAL = (256.0, 256.0, math.pi / 4)
START = [100.0, 120.0, 250.0, 300.0, 1.0]
BLOCK = Block()
SHAPES = [
    {},
    {"bar_px": (200, 20), "stem_px": (40, 150)},
    {"bar_px": (50, 60), "stem_px": (20, 20)},
]


def rollout(env: PushTEnv, actions: np.ndarray, **reset) -> np.ndarray:
    first, _ = env.reset(**reset)
    return np.array([first, *(env.step(action)[0] for action in actions)])


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    """Targets near the middle of the table, so that the agent and the block meet."""
    return np.random.default_rng(seed).uniform(150, 400, (count, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def human() -> dict[str, np.ndarray]:
    folder = os.environ.get("DIFFPOLICY_DEMOS")
    if not folder:
        pytest.skip("DIFFPOLICY_DEMOS does not name the folder of human demonstrations")
    store = zarr.open(Path(folder) / "pusht_human" / "pusht_cchi_v7_replay.zarr", mode="r")
    arrays = {name: store[f"data/{name}"][:] for name in ("state", "action", "keypoint")}
    return {**arrays, "episode_ends": store["meta/episode_ends"][:]}


# Fidelity


def max_coverages(human: dict[str, np.ndarray]) -> np.ndarray:
    env, ends = PushTEnv(), human["episode_ends"]
    best = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        _, info = env.reset(options={"state": human["state"][start]})
        for action in human["action"][start:end]:
            *_, info = env.step(action)
        best.append(info["max_coverage"])
    return np.array(best)


def test_human_demonstrations_replay_as_in_the_original(human):
    """The original, pymunk: 99.5, 47 and 3.4 %."""
    best = max_coverages(human)
    assert len(best) == 206
    assert np.mean(best >= 0.85) >= 0.95
    assert 0.38 <= np.mean(best >= 0.90) <= 0.52
    assert 0.01 <= np.mean(best >= 0.95) <= 0.06


def test_episodes_start_where_the_human_demonstrations_start(human):
    """Agent and centre of mass, each coordinate by Kolmogorov and Smirnov's two-sample test."""
    first_rows = human["state"][[0, *human["episode_ends"][:-1]]]
    theirs = np.array([BLOCK.qpos_from_state(row)[:4] * 100 for row in first_rows])
    env, ours = PushTEnv(), []
    for seed in range(1000):
        env.reset(seed=seed)
        ours.append(BLOCK.qpos_from_state(env.state)[:4] * 100)
    for column, (mine, human_ones) in enumerate(zip(np.transpose(ours), theirs.T, strict=True)):
        assert stats.ks_2samp(mine, human_ones).pvalue > 0.05, column
        assert abs(mine.min() - human_ones.min()) < 10 > abs(mine.max() - human_ones.max()), column


def test_keypoints_are_those_of_the_human_set(human):
    """In rows where the block is touched, the set's own points and state disagree by up to 2.05 px:
    they are a physics step apart. The distances between the points agree in every row."""
    ours, theirs = keypoints_from_state(human["state"].astype(float)), human["keypoint"]
    difference = np.abs(ours - theirs).max(axis=(1, 2))
    assert np.median(difference) < 1e-4
    assert np.percentile(difference, 99) < 0.05
    assert difference.max() < 2.1
    ours, theirs = (np.linalg.norm(k[:, 1:] - k[:, :1], axis=-1) for k in (ours, theirs))
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("observation", ["state", "keypoint"])
def test_recorded_arrays_give_what_a_reset_to_them_gives(human, observation):
    env = PushTEnv(observation=observation)
    assert set(env.demonstration_arrays) <= set(human)
    recorded = env.observations_from(human)
    assert recorded.shape == (25650, *env.observation_space.shape)
    assert recorded.dtype == env.observation_space.dtype
    for row in (0, 10_000, 25_000):
        observed, _ = env.reset(options={"state": human["state"][row]})
        np.testing.assert_allclose(observed, recorded[row], atol=0.05)


# Coverage


def test_coverage_is_one_at_the_goal_and_none_far_away():
    assert BLOCK.coverage(GOAL, GOAL) == pytest.approx(1.0)
    assert BLOCK.coverage((256.0, 256.0, GOAL[2] + 2 * math.pi), GOAL) == pytest.approx(1.0)
    assert BLOCK.coverage((500.0, 500.0, 0.0), GOAL) == 0.0


@pytest.mark.parametrize(
    ("shift", "shared"),
    [
        ((10.0, 0.0), 110 * 30 + 20 * 90),  # each box loses 10 px of its width
        ((0.0, 120.0), 0.0),  # the bar just below the stem
        ((0.0, 60.0), 30 * 30 + 30 * 30),  # bar on stem, stem on stem
        ((0.0, 15.0), 120 * 15 + 30 * 15 + 30 * 75),  # bar on bar, bar on stem, stem on stem
    ],
)
@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_coverage_of_a_shifted_block_is_known(shift, shared, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = cos * shift[0] - sin * shift[1], sin * shift[0] + cos * shift[1]
    found = BLOCK.coverage((200 + x, 300 + y, angle), (200.0, 300.0, angle))
    assert found * BLOCK.area_px2 == pytest.approx(shared)


def random_poses(count: int) -> list[tuple[float, float, float]]:
    low, high = (196, 196, -math.pi), (316, 316, math.pi)
    poses = np.random.default_rng(1).uniform(low, high, (count, 3))
    return [(x, y, angle) for x, y, angle in poses.tolist()]


def test_coverage_is_symmetric():
    for pose in random_poses(100):
        assert BLOCK.coverage(pose, GOAL) == pytest.approx(BLOCK.coverage(GOAL, pose))


def inside(points: np.ndarray) -> np.ndarray:
    """Mask of the points [M, 2], in the block's frame, that lie in the block."""
    x, y = points.T
    return np.any([(a < x) & (x < c) & (b < y) & (y < d) for a, b, c, d in BLOCK.boxes], axis=0)


def test_coverage_agrees_with_counting_points():
    axis = np.arange(-60, 121, 0.5) + 0.25
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    points = grid[inside(grid)]
    for pose in random_poses(20):
        x, y, angle = relative_pose(GOAL, pose)
        rotation = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        counted = inside(points @ rotation.T + [x, y]).mean()
        assert BLOCK.coverage(pose, GOAL) == pytest.approx(counted, abs=3e-3)


# The block


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_covered_is_the_shape_pushed_and_the_shape_shown(shape):
    env = PushTEnv(**shape)
    for name, box in zip(("bar", "stem"), env.block.boxes, strict=True):
        for part, down in (
            (env.model.geom(name), env.block.centre_of_mass_px),
            (env.model.site(f"goal_{name}"), 0.0),
        ):
            centre, half = part.pos[:2] * 100 + [0, down], part.size[:2] * 100
            np.testing.assert_allclose([*(centre - half), *(centre + half)], box, atol=1e-9)
    assert shared_area(env.block.boxes, GOAL, GOAL) == pytest.approx(env.block.area_px2)
    assert env.block.coverage(GOAL, GOAL) == pytest.approx(1.0)


def second_moment_px2(block: Block) -> float:
    """About the centre of mass, of a bar and a stem of equal mass, by summing over a grid."""
    moments = []
    for left, top, right, bottom in block.boxes:
        x, y = (
            a + (np.arange(400) + 0.5) / 400 * (b - a) for a, b in ((left, right), (top, bottom))
        )
        moments.append(np.mean(x**2) + np.mean((y - block.centre_of_mass_px) ** 2))
    return float(np.mean(moments))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mass_kg", [0.1, 1.0, 100.0])
def test_inertia_follows_shape_and_mass(shape, mass_kg):
    env = PushTEnv(**shape, block_mass_kg=mass_kg)
    ratio = second_moment_px2(env.block) / second_moment_px2(BLOCK)
    assert env.model.body("block").mass == mass_kg
    np.testing.assert_allclose(env.model.body("block").inertia, 0.3 * mass_kg * ratio, rtol=1e-4)


@pytest.mark.parametrize(("mass_kg", "friction_kg_s"), [(1.0, 1000.0), (2.0, 10.0), (100.0, 300.0)])
def test_a_block_let_go_glides_for_mass_over_friction(mass_kg, friction_kg_s):
    """In straight lines and in turning: distance = velocity · mass / friction."""
    env = PushTEnv(block_mass_kg=mass_kg, table_friction_kg_s=friction_kg_s)
    env.reset(options={"state": [20, 20, 256, 256, 0]})
    before, velocity = env.data.qpos[2:].copy(), np.array([0.5, -1.0, 2.0])
    env.data.qvel[2:] = velocity
    for _ in range(50):
        env.step(env.neutral_action)
    glided = velocity * mass_kg / friction_kg_s
    np.testing.assert_allclose(env.data.qpos[2:] - before, glided, rtol=1e-3)


@pytest.mark.parametrize("observation", ["state", "keypoint"])
def test_the_state_can_be_read_off_an_observation(observation):
    env = PushTEnv(observation=observation)
    for seed in range(20):
        observed, _ = env.reset(seed=seed)
        np.testing.assert_allclose(state_from_observation(observed), env.state, atol=1e-3)


@pytest.mark.parametrize("observation", ["state", "keypoint"])
def test_the_mirror_image_of_an_episode_is_an_episode(observation):
    env = PushTEnv(observation=observation)
    actions = random_actions(40)
    seen = rollout(env, actions, options={"state": START})[:-1]
    coverage = env.block.coverage(tuple(env.state[2:]), GOAL)
    image, reflected = env.mirrored(seen, actions)
    start = state_from_observation(image[0])
    np.testing.assert_allclose(start[:4], [392, 412, 212, 262], atol=1e-3)
    again = rollout(env, reflected, options={"state": start})[:-1]
    np.testing.assert_allclose(again, image, atol=1e-2)
    assert np.ptp(image, axis=0).max() > 20
    assert env.block.coverage(tuple(env.state[2:]), GOAL) == pytest.approx(coverage, abs=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"observation": "image"},
        {"goal_pose": (256, 256, 0.7)},
        {"goal_pose": (256, 250, math.pi / 4)},
    ],
)
def test_other_goals_and_pictures_have_no_mirror_images(arguments):
    assert PushTEnv(**arguments).mirrored is None
    assert PushTEnv(goal_pose=(156, 356, -3 * math.pi / 4)).mirrored is not None


# The environment


def test_reset_reproduces_a_state_row():
    env = PushTEnv()
    rollout(env, random_actions(10))
    observed, info = env.reset(options={"state": START})
    np.testing.assert_allclose(env.state, START, atol=1e-9)
    np.testing.assert_allclose(observed[:4], START[:4], rtol=1e-6)
    np.testing.assert_allclose(observed[4:], [math.cos(1.0), math.sin(1.0)], rtol=1e-6)
    assert info["coverage"] == info["max_coverage"]
    assert info["coverage"] == pytest.approx(BLOCK.coverage((250.0, 300.0, 1.0), GOAL))


def test_random_starts_touch_nothing_and_move_nothing():
    env = PushTEnv()
    for seed in range(50):
        before, _ = env.reset(seed=seed)
        after, *_ = env.step(env.neutral_action)
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_goal_pose_moves_the_goal():
    goal = (150.0, 350.0, -1.0)
    env = PushTEnv(goal_pose=goal)
    _, info = env.reset(options={"state": [400, 100, *goal]})
    assert info["success"] and info["score"] == 1.0
    _, reward, terminated, _, info = env.step(env.neutral_action)
    assert terminated and reward == 1.0 and info["coverage"] == pytest.approx(1.0)
    _, info = env.reset(options={"state": [400, 100, *GOAL]})
    assert not info["success_85"]


def test_neutral_action_is_the_last_target_and_holds_the_agent():
    env = PushTEnv()
    env.reset(options={"state": START})
    np.testing.assert_allclose(env.neutral_action, START[:2])
    action = np.array([60.3, 70.7], dtype=np.float32)
    env.step(action)
    np.testing.assert_array_equal(env.neutral_action, action)
    assert env.neutral_action.dtype == np.float32
    for _ in range(30):
        observed, *_ = env.step(env.neutral_action)
    np.testing.assert_allclose(observed[:2], action, atol=0.01)


def test_a_delay_shifts_what_the_agent_does():
    now, later, actions = PushTEnv(), PushTEnv(actuation_delay=3), random_actions(40)
    first = rollout(now, actions, seed=2)
    delayed = rollout(later, actions, seed=2)
    np.testing.assert_allclose(delayed[:4], np.tile(first[0], (4, 1)), atol=1e-4)
    np.testing.assert_allclose(delayed[3:], first[:-3], atol=1e-2)


@pytest.mark.parametrize(
    ("observation", "units"), [("state", [1, 1, 1, 1, 0.01, 0.01]), ("keypoint", 1)]
)
def test_noise_is_on_what_is_observed_and_nowhere_else(observation, units):
    clean, noisy = (PushTEnv(observation=observation, sensor_noise=noise) for noise in (0.0, 2.0))
    options, actions = {"state": [100, 120, 250, 300, 0.8]}, random_actions(400) * 0.2
    clean.reset(options=options), noisy.reset(options=options, seed=0)
    errors = []
    for action in actions:
        seen, *expected = clean.step(action)
        disturbed, *rest = noisy.step(action)
        assert rest == expected
        errors.append(disturbed - seen)
    np.testing.assert_allclose(np.std(errors, axis=0), 2.0 * np.array(units), rtol=0.15)


def test_max_coverage_and_score_remember_the_best():
    env = PushTEnv()
    env.reset(seed=7)
    best = 0.0
    for action in random_actions(100, seed=7):
        _, reward, terminated, truncated, info = env.step(action)
        best = max(best, info["coverage"])
        assert info["max_coverage"] >= best
        assert reward == min(info["coverage"] / 0.95, 1) <= info["score"]
        assert terminated == (info["coverage"] >= 0.95) and not truncated


@pytest.mark.parametrize("observation", ["state", "keypoint"])
def test_observations_stay_in_their_space_whatever_is_pushed_where(observation):
    env = PushTEnv(observation=observation)
    rng = np.random.default_rng(0)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(200):  # press the block into the walls
            target = np.clip(env.state[2:4] + rng.uniform(-150, 150, 2), 0, 512)
            assert env.observation_space.contains(env.step(target)[0])


sides = st.tuples(st.sampled_from([20.0, 75.0, 200.0]), st.sampled_from([20.0, 75.0, 200.0]))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["random", "constant", "extreme"]),
    shape=st.fixed_dictionaries({}, optional={"bar_px": sides, "stem_px": sides}),
    physics=st.fixed_dictionaries(
        {},
        optional={
            "block_mass_kg": st.sampled_from([0.1, 100.0]),
            "table_friction_kg_s": st.sampled_from([10.0, 1e5]),
            "sensor_noise": st.sampled_from([1.0, 1e3]),
            "actuation_delay": st.integers(1, 5),
        },
    ),
)
def test_whatever_is_done_to_whatever_block_stays_finite_and_in_its_space(
    seed, kind, shape, physics
):
    env, rng = PushTEnv(**shape, **physics), np.random.default_rng(seed)
    env.reset(seed=seed)
    constant = rng.uniform(0, 512, 2)
    for _ in range(150):
        aimed = env.state[2:4] + rng.uniform(-150, 150, 2)
        extreme = rng.choice([0.0, 512.0], 2)
        action = {"random": aimed, "constant": constant, "extreme": extreme}[kind]
        observation, reward, *_ = env.step(action)
        assert observation in env.observation_space and 0 <= reward <= 1
    assert np.isfinite(env.data.qpos).all()
    assert not any(warning.number for warning in env.data.warning)


def test_actions_beyond_the_table_are_clipped_to_it():
    env = PushTEnv()
    env.reset(options={"state": START})
    env.step(np.array([-50.0, 900.0]))
    np.testing.assert_array_equal(env.neutral_action, [0, 512])


# What cannot be used is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation": "pixels"}, "one of 'state', 'keypoint', 'image'; got 'pixels'"),
        ({"goal_pose": (256, 256)}, "goal_pose"),
        ({"bar_px": (120,)}, "bar_px must be 2 finite numbers"),
        ({"bar_px": 120}, "bar_px must be 2 finite numbers"),
        ({"stem_px": (30, math.nan)}, "stem_px must be 2 finite numbers"),
        ({"stem_px": (19, 90)}, "stem_px must be .* 20 to 200 px"),
        ({"bar_px": (120, 201)}, "bar_px must be .* 20 to 200 px"),
        ({"bar_px": (150, 30), "observation": "keypoint"}, "keypoint.* default block"),
        ({"block_mass_kg": 0.0}, "block_mass_kg must be between 0.1 and 100; got 0.0"),
        ({"block_mass_kg": math.nan}, "block_mass_kg"),
        ({"table_friction_kg_s": 0.0}, "table_friction_kg_s must be between 10 and 100000"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make(ID, **arguments)


def test_missing_and_misshapen_arrays_are_refused():
    state = np.zeros((4, 5))
    with pytest.raises(ValueError, match=r"'keypoint' is missing; got \['state'\]"):
        PushTEnv(observation="keypoint").observations_from({"state": state})
    with pytest.raises(ValueError, match="each row of 'state'"):
        PushTEnv().observations_from({"state": state[:, :2]})


@pytest.mark.parametrize("action", [[math.nan, 0.0], [1.0], [[1.0, 2.0]]])
def test_wrong_actions_are_refused(action):
    env = PushTEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be 2 finite numbers"):
        env.step(np.array(action))


# The picture


def open_picture(state: list[float]) -> tuple[PushTEnv, np.ndarray]:
    env = PushTEnv(render_mode="rgb_array")
    env.reset(options={"state": state})
    try:
        picture = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert picture is not None
    return env, picture.astype(int)


def test_picture_shows_agent_block_and_goal_where_they_are():
    env, picture = open_picture([100, 120, 380, 360, 0])
    env.close()
    assert picture.shape == (256, 256, 3)

    def colour(x: float, y: float) -> np.ndarray:
        return picture[round(y / 2), round(x / 2)]

    agent, block, goal, table = (
        colour(108, 126),
        colour(380, 420),
        colour(203, 309),
        colour(40, 400),
    )
    assert agent.argmax() == 2 and agent[2] > agent[0] + 60
    assert goal.argmax() == 1 and goal[1] > goal[0] + 40
    assert np.ptp(block) < 60 and block.max() < 190
    assert table.min() > 220
