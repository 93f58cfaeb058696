"""Balance-v0: laws of the task, its impulses and its expert."""

import gymnasium
import numpy as np
import pytest
from episodes import play

import diffpolicy.envs  # noqa: F401  (registers the ids)
from diffpolicy.envs import balance


def make(**kwargs):
    return gymnasium.make("Balance-v0", disable_env_checker=True, **kwargs)


def idle(observation):
    return np.zeros(1, np.float32)


def test_declares_what_a_harness_needs():
    env = make().unwrapped
    assert env.control_dt_s == env.model.opt.timestep == 1 / env.metadata["render_fps"]
    assert env.position_targets is False
    assert env.neutral_action in env.action_space
    assert gymnasium.spec("Balance-v0").max_episode_steps == balance.EPISODE_TICKS


def test_expert_balances():
    env = make()
    policy = env.unwrapped.expert(np.random.default_rng(0))
    successes = [play(env, policy, seed).infos[-1]["success"] for seed in range(100)]
    assert np.mean(successes) >= 0.98


def test_action_is_the_acceleration_of_the_cart():
    env = make(impulses_per_episode=0)
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.array([0.5], np.float32))
    assert after[1] - before[1] == pytest.approx(0.5 * 8.0 * 0.02, rel=2e-3)


def test_pole_falls_without_control():
    env = make(impulses_per_episode=0)
    observations, rewards, infos, terminated, _ = play(env, idle, seed=0)
    assert terminated
    assert abs(observations[-1, 2]) > balance.FALLEN_RAD >= abs(observations[-2, 2])
    assert rewards[-1] == 0 and np.all(rewards[:-1] == 1)
    assert not any(info["success"] for info in infos)
    assert infos[-1]["score"] == rewards.sum() / balance.EPISODE_TICKS < 0.5


def test_cart_fails_beyond_the_track():
    env = make(impulses_per_episode=0)
    env.reset(seed=0)
    env.unwrapped.data.qpos[0] = balance.TRACK_HALF_LENGTH_M + 0.01
    _, _, terminated, truncated, info = env.step(idle(None))
    assert terminated and not truncated and not info["success"]


def test_success_comes_on_the_last_tick_only():
    env = make().unwrapped  # the environment keeps time itself, without the TimeLimit wrapper
    _, rewards, infos, terminated, _ = play(env, env.expert(), seed=0)
    assert not terminated and len(rewards) == rewards.sum() == balance.EPISODE_TICKS
    assert [info["success"] for info in infos] == [False] * 300 + [True]
    assert infos[-1]["score"] == 1.0 and infos[150]["score"] == 0.5


@pytest.mark.parametrize("gain", [-1.0, 0.0, 1.0])
def test_observation_stays_inside_its_space(gain):
    """Also under a motor that drives the pole down as hard as it can."""
    env = make(impulses_per_episode=balance.MAX_IMPULSES)

    def push(observation):
        return np.sign([gain * observation[2]]).astype(np.float32)

    for seed in range(20):
        observations = play(env, push, seed).observations
        assert all(observation in env.observation_space for observation in observations)


def test_actions_are_limited_by_the_motor():
    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.full(1, 9.0))[0], other.step(np.ones(1))[0])


def test_impulses_come_from_the_seed_alone():
    env = make()
    env.reset(seed=3)
    expected = dict(env.unwrapped.impulses)
    play(env, idle, seed=3)
    assert env.unwrapped.impulses == expected
    play(env, env.unwrapped.expert(), seed=3)
    assert env.unwrapped.impulses == expected
    env.reset(seed=4)
    assert env.unwrapped.impulses != expected


@pytest.mark.parametrize("per_episode", [0.4, 2.5, balance.MAX_IMPULSES])
def test_impulses_keep_their_distance_size_and_number(per_episode):
    rng = np.random.default_rng(0)
    drawn = [balance.draw_impulses(rng, per_episode) for _ in range(2000)]
    ticks = np.concatenate([list(impulses) for impulses in drawn])
    sizes = np.concatenate([list(impulses.values()) for impulses in drawn])
    gaps = np.concatenate([np.diff(list(impulses)) for impulses in drawn])
    first, last = balance.IMPULSE_WINDOW_TICKS
    assert ticks.min() >= first and ticks.max() <= last
    assert gaps.size == 0 or gaps.min() >= balance.IMPULSE_GAP_TICKS
    smallest, largest = balance.IMPULSE_RAD_S
    assert smallest <= abs(sizes).min() and abs(sizes).max() <= largest
    assert abs(np.mean(sizes > 0) - 0.5) < 0.05
    assert np.mean([len(impulses) for impulses in drawn]) == pytest.approx(per_episode, abs=0.05)


def test_impulse_changes_the_velocity_of_the_pole_on_its_tick():
    env = make(impulses_per_episode=1).unwrapped
    observations, *_ = play(env, env.expert(), seed=0)
    ((tick, size_rad_s),) = env.impulses.items()
    changes_rad_s = np.diff(observations[:, 3])
    assert changes_rad_s[tick] == pytest.approx(size_rad_s, abs=0.1)
    assert abs(changes_rad_s[:tick]).max() < 0.1


def test_without_impulses_nothing_strikes_the_pole():
    env = make(impulses_per_episode=0)
    observations, *_ = play(env, env.unwrapped.expert(), seed=0)
    assert env.unwrapped.impulses == {}
    assert abs(np.diff(observations[:, 3])).max() < 0.1


@pytest.mark.parametrize("per_episode", [-1, balance.MAX_IMPULSES + 0.1, float("nan")])
def test_impulses_that_cannot_be_are_refused(per_episode):
    with pytest.raises(ValueError, match="impulses_per_episode"):
        balance.BalanceEnv(impulses_per_episode=per_episode)


def predicted_actions(env, horizon=24):
    """[horizon, 4]: the expert's next actions as a linear function of an observation."""
    a, b = balance.linearise(env.unwrapped.model)
    gain = balance.lqr_gain(env.unwrapped.model)
    return np.concatenate(
        [-gain @ np.linalg.matrix_power(a - b @ gain, tick) for tick in range(horizon)]
    )


class LatePolicy:
    """Acts on chunks that arrive late, less the actions that are stale by then; the first is free.

    Each chunk is predicted from its observation alone, blind to the actions still under way."""

    def __init__(self, plan, delay_ticks):
        self.plan, self.delay_ticks, self.interval = plan, delay_ticks, max(2, delay_ticks)
        self.tick, self.arrivals = 0, {}

    def __call__(self, observation):
        if self.tick % self.interval == 0:
            arrival = self.tick + self.delay_ticks if self.tick else 0
            self.arrivals[arrival] = self.plan @ observation, self.tick
        if self.tick in self.arrivals:
            self.chunk, self.start = self.arrivals.pop(self.tick)
        action = np.clip(self.chunk[self.tick - self.start], -1, 1)
        self.tick += 1
        return np.array([action], np.float32)


def success_when_late(env, delay_ticks):
    plan = predicted_actions(env)
    episodes = [play(env, LatePolicy(plan, delay_ticks), seed) for seed in range(40)]
    return np.mean([episode.infos[-1]["success"] for episode in episodes])


def test_late_is_worse_and_the_impulses_are_why():
    struck, calm = make(), make(impulses_per_episode=0)
    assert success_when_late(struck, 0) >= 0.95
    assert success_when_late(struck, 3) <= 0.7
    assert success_when_late(calm, 3) >= 0.95
    assert success_when_late(struck, 6) <= 0.2


def test_picture_shows_the_pole_and_close_can_be_repeated():
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    try:
        first = env.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    for _ in range(20):
        env.step(np.ones(1, np.float32))
    second = env.render()
    assert first.shape == (256, 768, 3) and first.dtype == np.uint8
    assert np.any(first != second)
    env.close()
    env.close()


def test_missing_opengl_is_one_clear_error(monkeypatch):
    def fail(*_):
        raise AttributeError("eglQueryString")

    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    monkeypatch.setattr(balance.mujoco, "Renderer", fail)
    with pytest.raises(RuntimeError, match="OpenGL"):
        env.unwrapped.render()
