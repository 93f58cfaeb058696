"""The controller of a robot: one call a tick, the policy in a thread that a test holds back."""

import threading

import numpy as np
import pytest

from diffpolicy.control import Controller
from diffpolicy.control.controller import ActionsNotFinite
from diffpolicy.control.noise import episode_noise
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Horizons, ObservationSpec

DT_S = 1e-3
AT_REST = np.array([-1.0, -1.0])


class Gated:
    """A policy that answers when the test opens its gate; actions are (newest value, place)."""

    horizons = Horizons(2, 7, 2)

    def __init__(self, gated=True):
        self.gate, self.asked = threading.Semaphore(0 if gated else 1000), threading.Semaphore(0)
        self.calls: list[dict[str, np.ndarray]] = []
        self.noises: list[np.ndarray] = []
        self.answer = self.count

    def noise_shape(self, batch):
        return 1, batch, self.horizons.prediction, 2

    def count(self, observation):
        newest = next(iter(observation.values()))[0, -1].flat[0]
        places = np.arange(self.horizons.usable, dtype=np.float32)
        return np.stack([np.broadcast_to(newest, places.shape), places], axis=-1)[None]

    def __call__(self, observation, noise):
        self.calls.append(observation)
        self.noises.append(noise)
        self.asked.release()
        assert self.gate.acquire(timeout=30)
        return self.answer(observation)


def at(tick):
    return np.array([tick, 0.5])


def open_gate(source, controller):
    """Let the running inference end, and wait for its result."""
    source.gate.release()
    controller._work.exception(timeout=30)


def begun(source):
    assert source.asked.acquire(timeout=30)


def test_a_late_chunk_joins_without_its_stale_head_and_control_never_waits():
    source = Gated()
    source.gate.release()  # the first chunk, which is waited for
    with Controller(source, control_dt_s=DT_S) as controller:
        actions = [controller.act(at(tick)) for tick in range(4)]  # the second begins at tick 2
        open_gate(source, controller)
        actions += [controller.act(at(tick)) for tick in (4, 5)]
        source.gate.release(10)
    expected = [(0, 0), (0, 1), (0, 2), (0, 3), (2, 2), (2, 3)]
    np.testing.assert_array_equal(actions, expected)
    found = controller.statistics
    assert found.ages == (0, 1, 2, 3, 2, 3) and found.delay_ticks == (2,)
    assert (found.ticks, found.starved_ticks) == (6, 0)
    assert len(found.late_ms) == 5 and min(found.late_ms) >= 0
    assert len(found.latency_ms) == 2  # the last ended in `close`
    assert found.latency_percentiles()["samples"] == 2


def test_a_starved_tick_holds_the_last_action_or_takes_the_neutral_one():
    for neutral, expected in (
        ("hold", (0, 5)),
        (AT_REST, AT_REST),
        (lambda last: last + 1, (1, 6)),
    ):
        source = Gated()
        source.gate.release()
        with Controller(source, control_dt_s=DT_S, neutral=neutral) as controller:
            for tick in range(6):
                controller.act(at(tick))
            np.testing.assert_array_equal(controller.act(at(6)), expected)
            assert controller.statistics.starved_ticks == 1
            source.gate.release(10)


def test_a_cold_start_begins_with_the_neutral_action():
    with pytest.raises(DiffpolicyError, match="no action to hold before its first chunk"):
        Controller(Gated(), control_dt_s=DT_S, cold_start=True)
    source = Gated()
    with Controller(source, control_dt_s=DT_S, cold_start=True, neutral=AT_REST) as controller:
        np.testing.assert_array_equal(controller.act(at(0)), AT_REST)
        begun(source)
        open_gate(source, controller)
        np.testing.assert_array_equal(controller.act(at(1)), (0, 1))
        assert controller.statistics.delay_ticks == (1,)
        assert len(controller.statistics.latency_ms) == 1


def test_the_history_is_copied_and_begins_with_the_first_observation():
    source, buffer = Gated(gated=False), np.zeros(2)
    with Controller(source, control_dt_s=DT_S) as controller:
        for tick in range(3):
            buffer[:] = tick
            controller.act({"observation": buffer})
            if controller._work:
                controller._work.result(timeout=30)
    first, second = (call["observation"][0, :, 0].tolist() for call in source.calls)
    assert (first, second) == ([0, 0], [1, 2])
    assert source.calls[0]["observation"].dtype == np.float32


def test_noise_is_keyed_by_seed_and_tick_and_reset_takes_the_next_seed():
    source = Gated(gated=False)
    with Controller(source, control_dt_s=DT_S, seed=7) as controller:
        for tick in range(3):
            controller.act(at(tick))
        controller.reset()
        controller.act(at(0))
        controller.reset(seed=7)
        assert controller.statistics.ticks == 0
        controller.act(at(0))
    keys = [(7, 0), (7, 2), (8, 0), (7, 0)]
    for noise, (seed, tick) in zip(source.noises, keys, strict=True):
        np.testing.assert_array_equal(noise[:, 0], episode_noise(seed, tick, (1, 7, 2)))


def test_reset_drops_a_chunk_of_the_old_episode():
    source = Gated()
    source.gate.release()
    with Controller(source, control_dt_s=DT_S) as controller:
        for tick in range(3):
            controller.act(at(tick))
        source.gate.release(10)
        controller.reset()
        np.testing.assert_array_equal(controller.act(at(40)), (40, 0))


def test_an_exception_of_the_policy_surfaces_in_act_until_reset():
    def fail(observation):
        raise ValueError("the sensor of the policy is gone")

    source = Gated()
    source.gate.release()
    with Controller(source, control_dt_s=DT_S) as controller:
        for tick in range(3):
            controller.act(at(tick))
        source.answer = fail
        open_gate(source, controller)
        for _ in range(2):
            with pytest.raises(ValueError, match="is gone") as error:
                controller.act(at(3))
        assert error.value.__notes__ == ["in the policy, at the observation of tick 2"]
        source.answer = source.count
        source.gate.release(10)
        controller.reset()
        controller.act(at(0))
    with pytest.raises(DiffpolicyError, match="closed"):
        controller.act(at(1))
    with pytest.raises(DiffpolicyError, match="closed"):
        controller.reset()
    assert "inference" not in {thread.name.partition("_")[0] for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("chunk", "kind", "message"),
    [
        (np.full((1, 6, 2), np.nan), ActionsNotFinite, "not finite"),
        (np.zeros((1, 5, 2)), DiffpolicyError, r"must be \[1, 6, D_a\]; got \[1, 5, 2\]"),
        (np.zeros((6, 2)), DiffpolicyError, r"got \[6, 2\]"),
    ],
)
def test_unusable_actions_are_refused(chunk, kind, message):
    source = Gated(gated=False)
    source.answer = lambda observation: chunk
    with (
        Controller(source, control_dt_s=DT_S) as controller,
        pytest.raises(kind, match=message),
    ):
        controller.act(at(0))


class Seeing(Gated):
    observations = {  # noqa: RUF012
        "camera": ObservationSpec((8, 9, 3), "uint8", "pixels"),
        "place": ObservationSpec((2,)),
    }


def test_an_observation_that_does_not_fit_changes_nothing():
    camera = np.zeros((8, 9, 3), np.uint8)
    good = {"place": at(0), "camera": camera, "unused": "text"}
    wrong = {
        "has no camera": {"place": at(0)},
        "the policy observes camera, place": at(0),
        r"camera at tick 1 must be pictures uint8 \[8, 9, 3\]": {**good, "camera": camera[:7]},
        "got float32": {**good, "camera": camera.astype(np.float32)},
        r"place at tick 1 must be numbers \[2\]; got float64 \[1\]": {**good, "place": at(0)[:1]},
        "place at tick 1 is not finite at index 0": {**good, "place": at(np.nan)},
    }
    source = Seeing(gated=False)
    with Controller(source, control_dt_s=DT_S) as controller:
        controller.act(good)
        for message, observation in wrong.items():
            with pytest.raises(DiffpolicyError, match=message):
                controller.act(observation)
        controller.act(good)
    assert controller.statistics.ticks == 2
    assert list(source.calls[0]) == ["camera", "place"]


class Naming(Gated):
    observations = ("place",)


def test_a_policy_may_name_its_keys_alone():
    source = Naming(gated=False)
    wrong = {
        r"place at tick 1 must be numbers \[2\]; got <U1": np.array(["a", "b"]),
        "got complex128": at(0) * 1j,
        "got uint8": np.zeros(2, np.uint8),
    }
    with Controller(source, control_dt_s=DT_S) as controller:
        np.testing.assert_array_equal(controller.act({"place": at(3), "other": "text"}), (3, 0))
        for message, value in wrong.items():
            with pytest.raises(DiffpolicyError, match=message):
                controller.act(value)
    assert list(source.calls[0]) == ["place"]


def test_missed_periods_are_counted_once(monkeypatch):
    from diffpolicy.control import controller as module

    now = [10.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with Controller(Gated(gated=False), control_dt_s=1.0) as controller:
        for moment in (10.0, 11.0, 12.25, 16.5, 17.0, 16.9):
            now[0] = moment
            controller.act(at(0))
            if controller._work:
                controller._work.exception(timeout=30)
    found = controller.statistics
    assert found.late_ms == (0, 250, 3500, 0, 0) and found.missed_ticks == 3
    assert controller.due_s == 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control_dt_s": 0}, "expected seconds above 0; got 0"),
        ({"control_dt_s": float("nan")}, "got nan"),
        ({"neutral": "zero"}, "'zero' is not a neutral action; expected 'hold'"),
        ({"neutral": np.full(2, np.nan)}, "must be finite numbers"),
    ],
)
def test_unusable_arguments_are_refused(options, message):
    with pytest.raises(DiffpolicyError, match=message):
        Controller(Gated(), **{"control_dt_s": DT_S, **options})
