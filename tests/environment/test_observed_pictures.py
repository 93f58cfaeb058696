"""Pictures of environments: one layout inside, whatever the environment gives; copies; refusals."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pictured import LAYOUTS, LINE, LOOK, SIDE, make_look
from PIL import Image

from diffpolicy import environment
from diffpolicy.environment.boundary import Boundary
from diffpolicy.environment.pictures import without_camera
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, ObservationSpec, Task, flat_observation, picture

ACTION = np.zeros(1, np.float32)
PLACE = ObservationSpec((1,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_picture(layout):
    env, plain = make_look(layout=layout), make_look()
    assert env.observations == {"image": picture(SIDE, SIDE), "place": PLACE}
    for seed in (3, 4):
        seen, expected = env.reset(seed=seed)[0], plain.reset(seed=seed)[0]
        for _ in range(3):
            assert env.observation_space.contains(seen)
            assert seen["image"].dtype == np.uint8 and seen["image"].flags.c_contiguous
            for key, values in expected.items():
                np.testing.assert_array_equal(seen[key], values)
            seen, expected = env.step(ACTION)[0], plain.step(ACTION)[0]
    assert env.observation_keys is None


def test_an_environment_without_pictures_is_flat_as_before():
    env = make_look(layout="")
    assert env.observations == flat_observation(1)
    assert env.reset(seed=0)[0].shape == (1,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_are_copies(layout):
    env = make_look(layout=layout)
    first = env.reset(seed=0)[0]["image"]
    before = first.copy()
    env.step(np.ones(1, np.float32))
    env.unwrapped.buffer[:] = 7
    np.testing.assert_array_equal(first, before)


class Still(gymnasium.Env):
    """Observes one sample of its space."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, space, sample=None):
        self.observation_space = space
        self.sample = space.sample() if sample is None else sample

    def reset(self, *, seed=None, options=None):
        return self.sample, {}


def byte_box(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "specs"),
    [
        (byte_box(9, 8, 3), {"observation": picture(9, 8)}),
        (byte_box(1, 9, 8), {"observation": picture(9, 8, 1)}),
        (byte_box(9, 8, 4), {"observation": picture(9, 8, 4)}),
        (byte_box(7, 7, 3), {"observation": ObservationSpec((147,))}),
        (byte_box(9, 8, 2), {"observation": ObservationSpec((144,))}),
        (
            spaces.Dict({"b": spaces.Dict({"eye": byte_box(8, 8, 3), "m": spaces.Discrete(4)})}),
            {"b/eye": picture(8, 8), "b/m": ObservationSpec((4,))},
        ),
        (
            spaces.Tuple([byte_box(8, 8, 3), spaces.Box(-1, 1, (2, 2), np.float32)]),
            {"0": picture(8, 8), "1": ObservationSpec((4,))},
        ),
    ],
)
def test_a_space_tells_its_keys_shapes_and_types(space, specs):
    env = Boundary(Still(space), "Still-v0")
    assert env.observations == specs
    seen = env.reset(seed=0)[0]
    by_key = seen if isinstance(seen, dict) else {"observation": seen}
    assert list(by_key) == list(specs)
    for key, spec in specs.items():
        assert by_key[key].shape == spec.shape
        assert by_key[key].dtype.kind == ("u" if spec.is_picture else "f")


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (8, 8, 3), np.float32),
        spaces.Box(-np.inf, np.inf, (8, 8, 3), np.float32),
        spaces.Box(0, 1, (3, 8, 8), np.uint8),
        spaces.Box(0, 255, (8, 8, 3), np.int32),
        spaces.Dict({"eye": spaces.Box(0, 2, (8, 8, 3), np.float32)}),
    ],
)
def test_a_picture_of_unknown_range_is_refused(space):
    with pytest.raises(DiffpolicyError, match=r"Still-v0: obs.*expected uint8 of 0 to 255, or flo"):
        Boundary(Still(space), "Still-v0")


@pytest.mark.parametrize("kind", ["depth", "signed", "grey", "stack", "large"])
def test_a_picture_of_no_use_is_left_out_until_it_is_asked_for(kind):
    box = {
        "depth": spaces.Box(0, np.inf, (8, 8, 1), np.float32),
        "signed": spaces.Box(-1, 1, (8, 8, 3), np.float32),
        "grey": byte_box(8, 8),
        "stack": byte_box(2, 8, 8, 3),
        "large": byte_box(8, 5000, 1),
    }[kind]
    space = spaces.Dict({kind: box, "state": LINE})
    for rgb in ({}, {"rgb": byte_box(8, 8, 3)}):
        env = Boundary(Still(spaces.Dict({**space.spaces, **rgb})), "Still-v0")
        wanted = {"state", *rgb}
        seen = env.reset(seed=0)[0]
        assert set(env.observations) == set(seen) == wanted == set(env.observation_space)
        assert env.observation_keys is None
        environment.check_usable(env, wanted)
        for keys in (None, [kind]):
            with pytest.raises(DiffpolicyError, match=rf"observation\['{kind}'\] .*with --obs$"):
                environment.check_usable(env, keys)


@pytest.mark.parametrize("shape", [(84, 84), (2, 84, 84, 3), (4, 3, 9, 8)])
def test_pictures_without_channels_and_stacks_are_refused(shape):
    with pytest.raises(DiffpolicyError, match=r"expected one picture \[H, W, C\] .*-horizon"):
        Boundary(Still(byte_box(*shape)), "Still-v0")


@pytest.mark.parametrize("shape", [(7, 84), (2, 7, 9, 3), (2, 2)])
def test_other_bytes_are_numbers(shape):
    assert Boundary(Still(byte_box(*shape)), "Still-v0").observations[FLAT].shape == (
        np.prod(shape),
    )


@pytest.mark.parametrize(
    "keys", [["action"], ["a", "a/b"], [".."], [""], ["a/../b"], ["a//b"], [".zattrs"], ["a\\b"]]
)
def test_names_that_a_store_cannot_hold_are_refused(keys):
    space = spaces.Dict({**dict.fromkeys(keys, LINE), "eye": byte_box(8, 8, 3)})
    with pytest.raises(DiffpolicyError, match="none of them 'action'") as raised:
        Boundary(Still(space), "Still-v0")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("layout", "habit", "message"),
    [
        ("hwc", "float", r"gave as observation\['image'\] float64 \[16, 16, 3\].*expected uint8"),
        ("hwc", "wide", r"uint8 \[16, 15, 3\] from .* expected uint8, \[16, 16, 3\]"),
        ("hwc", "other", r"uint8 \[3, 16, 16\] from .* expected uint8, \[16, 16, 3\]"),
        ("hwc", "gone", r"observed \['place'\] .*expected observation\['image'\]"),
        ("hwc", "none", r"gave as observation\['image'\] object \[\] in"),
        ("unit", "dark", r"from -1 to .*expected floats in \[0, 1\], \[16, 16, 3\]"),
        ("unit", "nan", r"from nan to nan .*expected floats in \[0, 1\]"),
        ("bytes", "dark", r"from -1 to .*expected floats in \[0, 255\], \[3, 16, 16\]"),
    ],
)
def test_a_picture_that_is_not_as_declared_is_named_with_its_tick_and_seed(layout, habit, message):
    env = make_look(layout=layout, habit=habit)
    env.reset(seed=5)
    env.step(ACTION), env.step(ACTION)
    with pytest.raises(DiffpolicyError, match=message) as raised:
        env.step(ACTION)
    assert str(raised.value).startswith(f"{LOOK} ")
    assert "in step, tick 2 of seed 5; expected" in str(raised.value)


# Cameras made by rendering


def test_a_camera_adds_the_rendered_picture_in_a_square():
    env = make_look(layout="", camera=8)
    assert env.observations == {"observation": PLACE, "pixels": picture(8, 8)}
    seen, _ = env.reset(seed=1)
    rendered = env.render()
    assert rendered.shape == (SIDE, 2 * SIDE, 3)
    expected = Image.fromarray(rendered).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(seen["pixels"], np.asarray(expected))
    np.testing.assert_array_equal(seen["observation"], make_look(layout="").reset(seed=1)[0])


def test_a_camera_joins_the_keys_of_a_dict():
    env = make_look(camera=8)
    assert set(env.observations) == {"place", "image", "pixels"}
    assert environment.episode_limit(env) == 12 and env.spec.id == "Look-v0"
    with pytest.raises(DiffpolicyError, match="'pixels' already exists"):
        make_look(key="pixels", camera=8)


class Ordered(Still):
    """A Dict in an order of its own, which an expert reads as one vector."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, render_mode=None):
        space = spaces.Dict([("x", LINE), ("a", LINE)])
        super().__init__(space, {"x": np.ones(1, np.float32), "a": np.zeros(1, np.float32)})

    def render(self):
        return np.zeros((9, 9, 3), np.uint8)


class Broken(Still):
    """Its space fails when it is read."""

    def __init__(self):
        self.render_mode = None

    @property
    def observation_space(self):
        raise RuntimeError("no space today")


gymnasium.register("Ordered-v0", entry_point=Ordered, max_episode_steps=9)
gymnasium.register("Broken-v0", entry_point=Broken, max_episode_steps=9)


def test_a_camera_keeps_the_order_of_a_dict():
    env = environment.make("Ordered-v0", {}, camera=8)
    assert list(env.observations) == ["x", "a", "pixels"]
    vector = environment.make("Ordered-v0", {}).reset(seed=0)[0]
    np.testing.assert_array_equal(without_camera(env.reset(seed=0)[0]), vector)


def test_a_space_that_fails_is_one_line():
    with pytest.raises(DiffpolicyError, match=r"the environment 'Broken-v0': .*no space today"):
        environment.make("Broken-v0", {})


def test_a_camera_shows_our_tasks():
    env = environment.make("diffpolicy.envs:Balance-v0", {}, max_steps=3, camera=12)
    seen, _ = env.reset(seed=0)
    later, *_ = env.step(np.ones(env.action_space.shape, np.float32))
    assert seen["pixels"].shape == (12, 12, 3) and seen["pixels"].std() > 0
    assert np.any(seen["pixels"] != later["pixels"])
    env.close()


class Blind(Still):
    """Cannot be rendered."""

    def __init__(self, render_mode=None):
        super().__init__(LINE)


class Deaf(Still):
    def __init__(self):
        super().__init__(LINE)


class Flat(Blind):
    """Renders no picture."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self):
        return np.zeros((4, 4), np.uint8)


for kind in (Blind, Deaf, Flat):
    gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=9)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Blind", "no render mode rgb_array; its mode is None"),
        ("Deaf", "a camera needs an environment with render_mode='rgb_array'"),
        ("Flat", r"pictures have the shape \(4, 4\)"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_environment_without_pictures_has_no_camera(name, reason):
    with pytest.raises(DiffpolicyError, match=reason):
        environment.make(f"{name}-v0", {}, camera=8)


# The fit of an environment and a task


def task(observations, **changes):
    return Task("Look-v0", 0.1, False, observations, 1, **changes)


def test_a_task_may_use_some_of_the_keys():
    env = make_look()
    for keys in (["image"], ["place"], ["image", "place"], ["place", "image"]):
        environment.check_fit(env, task({key: env.observations[key] for key in keys}))


@pytest.mark.parametrize(
    ("kwargs", "observations", "message"),
    [
        ({"layout": ""}, {"image": picture(16, 16)}, r"observes observation \(a vector of 1\)"),
        ({}, {"pixels": picture(16, 16)}, r"trained for pixels .*train with --camera N"),
        ({"side": 24}, {"image": picture(16, 16)}, r"24 × 24 px .*image \(a picture of 16 × 16 px"),
        ({}, {"image": ObservationSpec((2,))}, r"trained for image \(a vector of 2\)"),
        ({}, {"place": picture(16, 16)}, r"place \(a vector of 1\).*place \(a picture"),
        ({}, flat_observation(1), r"trained for observation \(a vector of 1\)"),
    ],
)
def test_another_observation_than_the_task_s_is_one_line_with_a_remedy(
    kwargs, observations, message
):
    with pytest.raises(DiffpolicyError, match=message) as raised:
        environment.check_fit(make_look(**kwargs), task(observations, env_kwargs={"a": 1}))
    assert """--env Look-v0 --env-kwargs '{"a": 1}'""" in str(raised.value)


def test_another_number_of_actions_is_told():
    env = make_look()
    with pytest.raises(DiffpolicyError, match="has 1 actions; the checkpoint was trained for 3"):
        environment.check_fit(env, Task("Look-v0", 0.1, False, {"place": PLACE}, 3))
