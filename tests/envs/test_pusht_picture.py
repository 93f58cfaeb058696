"""Pictures of Push-T: those of the human demonstrations, and right for other goals and blocks."""

import math

import numpy as np
import pytest
import zarr
from scipy import ndimage

from diffpolicy.envs.planar import relative_pose, transform
from diffpolicy.envs.pusht import PushTEnv
from diffpolicy.envs.pusht_block import Block
from diffpolicy.envs.pusht_picture import COLOURS, Painter

GOAL = (256.0, 256.0, math.pi / 4)
WHITE, GREEN, SLATE, SLATE_EDGE, BLUE, BLUE_EDGE, GREY = COLOURS.tolist()
BLOCKS = [
    {},
    {"bar_px": (200, 20), "stem_px": (40, 150)},
    {"bar_px": (50, 60), "stem_px": (20, 20)},
]
SCENES = [  # goal pose and state, with goal, block and agent apart
    (GOAL, (60, 450, 390, 190, 2.5)),
    ((140.0, 330.0, -1.0), (60, 60, 360, 180, 0.3)),
    ((400.0, 120.0, 3.0), (450, 450, 130, 330, -2.0)),
]
PIXEL = 512 / 96  # of the picture, in px of the table


def picture(*state: float, goal_pose=GOAL, block: Block | None = None) -> np.ndarray:
    return Painter(block or Block(), goal_pose)(np.array(state, float))


def colour(drawn: np.ndarray, x: float, y: float) -> list[int]:
    return drawn[int(y / PIXEL), int(x / PIXEL)].tolist()


def masks(drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels that are mostly agent, block or goal, in a picture of either renderer."""
    red, green, blue = np.moveaxis(drawn.astype(int), 2, 0)
    agent = blue > red + 60
    grey = (np.ptp(drawn.astype(int), axis=2) < 60) & (drawn.max(axis=2) < 190)
    return {
        "agent": ndimage.binary_fill_holes(agent),  # MuJoCo's shows the target on it
        "goal": (green > red + 40) & (green > blue + 20),
        "block": grey & ~ndimage.binary_dilation(agent, iterations=3),
    }


# The human set


def test_states_of_the_human_set_give_its_pictures(demos):
    store = zarr.open(demos / "pusht_human" / "pusht_cchi_v7_replay.zarr", mode="r")
    rows = np.sort(np.random.default_rng(0).choice(25650, 1000, replace=False))
    paint, states = Painter(Block(), GOAL), store["data/state"][:][rows].astype(float)
    theirs = store["data/img"].oindex[rows]
    differences = [np.abs(paint(s) - t).mean() for s, t in zip(states, theirs, strict=True)]
    assert np.mean(differences) < 0.15
    assert np.max(differences) < 0.4


# Places and colours


def test_agent_block_goal_and_table_have_their_colours():
    drawn = picture(100, 120, 380, 360, 0)
    assert drawn.shape == (96, 96, 3) and drawn.dtype == np.uint8
    assert colour(drawn, 100, 120) == BLUE
    assert colour(drawn, 380, 376) == colour(drawn, 380, 440) == SLATE
    assert colour(drawn, 203, 309) == colour(drawn, 256, 256 + 21) == GREEN
    assert colour(drawn, 40, 400) == WHITE
    assert drawn[48, 1].tolist() == drawn[94, 48].tolist() == [233] * 3  # half wall, half table


def test_the_agent_is_over_the_block_and_the_block_over_the_goal():
    assert colour(picture(256, 270, *GOAL), 256, 270) == BLUE
    assert not masks(picture(50, 50, *GOAL))["goal"].any()


@pytest.mark.parametrize("state", [(-600, 40, 256, 256, 0), (600, 2000, 900, -300, 1)])
def test_parts_beyond_the_table_are_cut_off(state):
    drawn = masks(picture(*state))
    assert not drawn["agent"].any()
    assert drawn["block"].any() == (state[2] == 256)


@pytest.mark.parametrize("shape", BLOCKS, ids=str)
@pytest.mark.parametrize(("goal", "state"), SCENES)
def test_block_and_goal_fill_their_boxes(shape, goal, state):
    """Pixels that lie within a box have its colour, and pixels that lie outside do not."""
    block = Block(**shape)
    drawn = masks(picture(*state, goal_pose=goal, block=block))
    for name, pose in (("block", state[2:]), ("goal", goal)):
        depth = depths(block, pose)
        assert (depth > 4).sum() > 20
        assert drawn[name][depth > 4].all()
        assert not drawn[name][depth < -6].any()


def depths(block: Block, pose) -> np.ndarray:
    """Distance [96, 96] of each pixel from the sides of the nearest box of the block, in px."""
    rows, columns = (np.indices((96, 96)) + 0.5) * PIXEL - 0.5
    origin = relative_pose((0.0, 0.0, 0.0), pose)
    x, y = np.array(transform(zip(columns.flat, rows.flat, strict=True), origin)).T
    inside = [
        np.min([x - left, right - x, y - top, bottom - y], axis=0)
        for left, top, right, bottom in block.boxes
    ]
    return np.max(inside, axis=0).reshape(96, 96)


@pytest.mark.parametrize("shape", BLOCKS, ids=str)
@pytest.mark.parametrize(("goal", "state"), SCENES)
def test_poses_are_those_in_the_pictures_of_mujoco(shape, goal, state):
    """Centroids agree to half a pixel of the picture, and every edge to one pixel."""
    env = PushTEnv(goal, "image", **shape, render_mode="rgb_array")
    observed, _ = env.reset(options={"state": state})
    try:
        rendered = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    finally:
        env.close()
    assert rendered is not None
    nearest = ((np.arange(96) + 0.5) * len(rendered) / 96).astype(int)
    ours, theirs = masks(observed["image"]), masks(rendered)
    for name in ours:
        at, expected = (np.mean(np.nonzero(m[name]), axis=1) + 0.5 for m in (ours, theirs))
        assert np.abs(at - expected * 96 / len(rendered)).max() < 0.5, name
        seen = theirs[name][np.ix_(nearest, nearest)]
        for mask, other in ((ours[name], seen), (seen, ours[name])):
            assert not (mask & ~ndimage.binary_dilation(other, np.ones((3, 3)))).any(), name


# The observation


def test_observation_and_expert_of_images():
    """The expert of images acts as that of states does."""
    images, states = PushTEnv(observation="image"), PushTEnv()
    observed, _ = images.reset(seed=3)
    state, _ = states.reset(seed=3)
    by_image, by_state = (e.expert(np.random.default_rng(0)) for e in (images, states))
    for _ in range(20):
        assert observed in images.observation_space
        np.testing.assert_array_equal(observed["agent_pos"], state[:2])
        np.testing.assert_array_equal(observed["image"], picture(*states.state))
        action = by_image(observed)
        np.testing.assert_allclose(action, by_state(state), atol=1e-2)
        observed, state = images.step(action)[0], states.step(action)[0]


def test_sensor_noise_is_on_the_agent_and_not_in_the_picture():
    clean, noisy = (PushTEnv(observation="image", sensor_noise=noise) for noise in (0.0, 2.0))
    options, errors = {"state": [100, 120, 250, 300, 0.8]}, []
    for seed in range(300):
        seen, _ = clean.reset(options=options)
        disturbed, _ = noisy.reset(options=options, seed=seed)
        np.testing.assert_array_equal(disturbed["image"], seen["image"])
        errors.append(disturbed["agent_pos"] - seen["agent_pos"])
    assert disturbed in noisy.observation_space
    np.testing.assert_allclose(np.std(errors, axis=0), 2.0, rtol=0.15)


def test_an_observation_keeps_its_picture_when_the_next_is_drawn():
    env = PushTEnv(observation="image")
    first, _ = env.reset(seed=0)
    kept = first["image"].copy()
    env.reset(seed=1)
    np.testing.assert_array_equal(first["image"], kept)


def test_recorded_pictures_become_observations_uncopied():
    env = PushTEnv(observation="image")
    arrays = {
        "img": np.zeros((4, 96, 96, 3), np.uint8),
        "state": np.arange(20, dtype=np.float32).reshape(4, 5),
    }
    assert tuple(env.demonstration_arrays) == tuple(arrays)
    recorded = env.observations_from(arrays)
    assert list(recorded) == list(env.observation_space)
    assert recorded["image"] is arrays["img"]
    np.testing.assert_array_equal(recorded["agent_pos"], arrays["state"][:, :2])
    assert recorded["agent_pos"].dtype == np.float32


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (np.zeros((4, 96, 96, 3), np.float32), "'img' must be uint8 .* got float32"),
        (np.zeros((4, 84, 84, 3), np.uint8), r"each row of 'img' must be \(96, 96, 3\)"),
        (np.zeros((4, 3, 96, 96), np.uint8), r"each row of 'img' must be .* got \(3, 96, 96\)"),
        (None, "recorded array 'img' is missing; .*'image' needs 'img' .N, 96, 96, 3. and 'state'"),
    ],
)
def test_other_recorded_pictures_are_refused(img, message):
    arrays = {"state": np.zeros((4, 5))} | ({} if img is None else {"img": img})
    with pytest.raises(ValueError, match=message):
        PushTEnv(observation="image").observations_from(arrays)
