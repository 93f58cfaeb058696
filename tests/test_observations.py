"""Observations by key: vectors joined in the order of the specification, each normalised alone."""

from dataclasses import replace

import cameras
import numpy as np
import pytest
import torch
from conftest import rewrite

from diffpolicy.checkpoint import Checkpoint, load_policy, policy_path, save_policy
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.control.ranges import training_range
from diffpolicy.data.normalizer import Normalizer, fit_limits, identity, joined, pixels
from diffpolicy.data.windows import make_windows
from diffpolicy.denoisers import build_network
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.specification import (
    FLAT,
    Horizons,
    ObservationSpec,
    Specification,
    Task,
    flat_observation,
)
from diffpolicy.training.learner import Learner

HORIZONS, WIDTHS = Horizons(2, 8, 4), {"velocity": 2, "position": 3}
ONE = Task("none", 0.1, True, flat_observation(5), 2)
TWO = replace(ONE, observations={key: ObservationSpec((n,)) for key, n in WIDTHS.items()})
MODEL = ModelConfig(hidden=32, blocks=1, condition=16)
CPU = torch.device("cpu")


def split(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"velocity": x[..., :2], "position": x[..., 2:]}


def specification(task: Task) -> Specification:
    return Specification(MODEL, HORIZONS, task, 1.0, {})


def parts_of(normalizer: Normalizer) -> dict[str, Normalizer]:
    scales, offsets = split(normalizer.scale), split(normalizer.offset)
    return {key: Normalizer(scales[key], offsets[key]) for key in WIDTHS}


@pytest.fixture(scope="module")
def policies() -> tuple[Policy, Policy]:
    """The same weights with one key of five numbers and with two keys of two and three."""
    rng = np.random.default_rng(0)
    whole = fit_limits(rng.standard_normal((50, 5)))
    torch.manual_seed(0)
    weights = build_network(specification(ONE)).state_dict()
    found = []
    for task, normalizers in ((ONE, {FLAT: whole}), (TWO, parts_of(whole))):
        checkpoint = Checkpoint(specification(task), weights, normalizers, identity(2))
        found.append(Policy(checkpoint, Sampling(3)))
    return found[0], found[1]


def inputs(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(policy.noise_shape(4), np.float32)
    return rng.standard_normal((4, 2, 5), np.float32), noise


def test_vectors_by_key_are_their_concatenation_as_one_key(policies):
    one, two = policies
    history, noise = inputs(one)
    backwards = dict(reversed(split(history).items()))
    expected = one(history, noise)
    for observation in (split(history), backwards):
        np.testing.assert_array_equal(two(observation, noise), expected)
    np.testing.assert_array_equal(one({FLAT: history}, noise), expected)


def test_training_on_keys_is_training_on_their_concatenation():
    rng = np.random.default_rng(0)
    x, actions = rng.standard_normal((40, 5), np.float32), rng.standard_normal((40, 2), np.float32)
    weights = []
    for task, observations in ((ONE, {FLAT: x}), (TWO, split(x))):
        learner = Learner(specification(task), CPU)
        windows = make_windows(observations, actions, np.array([15, 40]), HORIZONS)
        for _ in range(3):
            learner.learn(windows, 8, 0.0)
        weights.append(learner.ema)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_the_observed_range_counts_the_dimensions_of_all_keys(policies):
    history, _ = inputs(policies[0])
    one, two = (training_range(policy) for policy in policies)
    assert one and two
    newest = history[:, -1]
    expected = one.normalise({FLAT: newest})
    np.testing.assert_array_equal(two.normalise(split(newest)), expected)
    assert two.far.tolist() == one.far.tolist() == [3.0] * 5


def test_normalisers_are_joined_with_their_constants():
    constant = Normalizer(np.float32([0, 1]), np.float32([0, 0]), np.float32([7, np.nan]))
    whole = joined([identity(1), constant])
    np.testing.assert_array_equal(whole.constant, np.float32([np.nan, 7, np.nan]))
    np.testing.assert_array_equal(whole.unnormalize(np.float32([1, 2, 3])), [1, 7, 3])
    assert joined([identity(1), identity(2)]).constant is None


def test_keys_are_saved_and_loaded(policies, tmp_path):
    _, policy = policies
    weights = build_network(policy.specification).state_dict()
    normalizers = policy.observation_normalizers
    saved = Checkpoint(policy.specification, weights, normalizers, policy.action_normalizer)
    save_policy(policy_path(tmp_path), saved)
    loaded = load_policy(tmp_path)
    assert loaded.specification == saved.specification
    assert list(loaded.observation_normalizers) == list(WIDTHS)
    for key, normalizer in normalizers.items():
        np.testing.assert_array_equal(loaded.observation_normalizers[key].scale, normalizer.scale)

    def rename(header, tensors):
        observations = header["specification"]["task"]["observations"]
        observations["speed"] = observations.pop("velocity")

    rewrite(policy_path(tmp_path), rename)
    with pytest.raises(DiffpolicyError, match="does not fit the header"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x, "observation must hold velocity, position; got one array"),
        (lambda x: {"velocity": x}, "must hold velocity, position; got velocity"),
        (lambda x: {**split(x), "camera": x}, "got velocity, position, camera"),
        (lambda x: {**split(x), "position": x}, r"position must be float32 \[B, T_o, …\] = \[B, 2"),
        (lambda x: {**split(x), "position": x[:1, :, 2:]}, "must have the same B; got"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policies, change, message):
    _, two = policies
    history, _ = inputs(two)
    with pytest.raises(DiffpolicyError, match=message):
        two(change(history))


@pytest.mark.parametrize("observations", [{}, {"action": ObservationSpec((1,))}])
def test_a_task_observes_something_that_is_no_action(observations):
    with pytest.raises(DiffpolicyError, match="at least one observation, none of them named"):
        replace(ONE, observations=observations)


@pytest.mark.parametrize(
    ("shape", "dtype", "normalizer"),
    [
        ((2, 2), "float32", "limits"),
        ((8, 8, 3), "uint8", None),
        ((8, 8, 3), "uint8", "limits"),
        ((8, 8, 3), "float32", "pixels"),
        ((5,), "uint8", "limits"),
        ((5,), "float32", "pixels"),
        ((2, 8, 8, 3), "uint8", "pixels"),
    ],
)
def test_a_key_that_no_encoder_takes_is_refused(shape, dtype, normalizer):
    with pytest.raises(DiffpolicyError, match="is a float32 vector or a uint8 picture"):
        ObservationSpec(shape, dtype, normalizer)


@pytest.mark.parametrize("shape", [(9, 10**7, 1000), (9, 9, 2), (7, 9, 3), (9, 5000, 3), (3, 9, 9)])
def test_a_picture_has_1_3_or_4_channels_and_sides_of_a_camera(shape):
    with pytest.raises(DiffpolicyError, match=r"sides of 8 to 4096 px and 1, 3 or 4 channels; got"):
        ObservationSpec(shape, "uint8", "pixels")


def test_pictures_are_normalised_by_constants_that_the_checkpoint_holds(tmp_path):
    checkpoint = cameras.checkpoint()
    save_policy(policy_path(tmp_path), checkpoint)
    loaded = load_policy(tmp_path)
    assert loaded.specification == checkpoint.specification
    assert list(loaded.observation_normalizers) == list(cameras.OBSERVATIONS)
    np.testing.assert_array_equal(loaded.observation_normalizers["front"].scale, pixels(3).scale)
    policy, again = (Policy(c, Sampling(2)) for c in (checkpoint, loaded))
    given = cameras.observation(), cameras.noise(policy)
    np.testing.assert_array_equal(policy(*given), again(*given))


def test_windows_keep_the_type_and_shape_of_every_key():
    pictures = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    observations = {"camera": pictures, "state": np.zeros((6, 1), np.float32)}
    windows = make_windows(observations, np.zeros((6, 1), np.float32), np.array([6]), HORIZONS)
    for found in (windows.gather(np.array([3, 0])), windows.to("cpu").gather(torch.tensor([3, 0]))):
        camera = np.asarray(found[0]["camera"])
        assert camera.dtype == np.uint8
        np.testing.assert_array_equal(camera, pictures[[[2, 3], [0, 0]]])
