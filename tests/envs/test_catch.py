"""Catch-v0: laws of the throw, the bounce, the cup and what being late costs."""

import episodes
import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpolicy.envs  # noqa: F401  (registers the ids)
from diffpolicy.envs import catch

LAST_TICK = catch.FALL_TICKS[1] + catch.RISE_TICKS


def make(**kwargs):
    return gymnasium.make("Catch-v0", disable_env_checker=True, **kwargs)


def play(env, policy, seed):
    """Play one episode, ended by the environment and never by its limit."""
    episode = episodes.play(env, policy, seed)
    assert episode.terminated and not episode.truncated
    return episode


def low(observation):
    return np.full(1, -catch.RAIL_HALF_LENGTH_M, np.float32)


def success(env, policy_of, seeds):
    """Share of the episodes that end in a catch; each has a policy of its own."""
    return np.mean([play(env, policy_of(), seed).infos[-1]["success"] for seed in seeds])


def test_declares_what_a_harness_needs():
    env = make().unwrapped
    observation, _ = env.reset(seed=0)
    assert env.control_dt_s == 1 / env.metadata["render_fps"]
    assert env.control_dt_s == pytest.approx(env._substeps * env.model.opt.timestep)
    assert env.model.opt.gravity[2] == -catch.GRAVITY_M_S2
    assert env.position_targets is True
    assert env.neutral_action in env.action_space
    assert env.neutral_action == pytest.approx(observation[:1])
    env.step(np.full(1, 0.3, np.float32))
    assert env.neutral_action == np.float32(0.3)
    assert gymnasium.spec("Catch-v0").max_episode_steps >= LAST_TICK


def test_expert_catches():
    env = make()
    assert success(env, env.unwrapped.expert, range(200)) >= 0.98


@pytest.mark.parametrize("deflection_m", [0.0, 0.35, catch.MAX_DEFLECTION_M])
def test_ball_bounces_and_arrives_on_its_ticks(deflection_m):
    """The deflection is that of the height of arrival, and bounded as it was asked for."""
    env = make(deflection_m=deflection_m).unwrapped
    for seed in range(30):
        observations, *_ = play(env, low, seed)
        x, z, vx = observations[:, [catch.BALL_X, catch.BALL_Z, 3 + catch.BALL_X]].T
        bounce = env.bounce_tick
        assert len(observations) - 1 == bounce + catch.RISE_TICKS <= LAST_TICK
        assert x[-1] == pytest.approx(0, abs=1e-9)
        assert z[bounce] == pytest.approx(catch.BOUNCE_HEIGHT_M, abs=1e-9)
        assert np.delete(z, bounce).min() > catch.BOUNCE_HEIGHT_M
        assert np.ptp(vx) < 1e-9
        smooth_m = catch.expected_arrival_m(*observations[0, [1, 2, 4, 5]])
        assert z[-1] - smooth_m == pytest.approx(env.deflected_m, abs=1e-9)
        assert abs(env.deflected_m) <= deflection_m


def test_nothing_before_the_bounce_tells_how_it_will_be():
    """Two strengths of the bounce: the same episode up to it, and another one from there on."""
    weak, strong = make(deflection_m=0.1), make(deflection_m=0.3)
    for seed in range(10):
        a, b = play(weak, low, seed)[0], play(strong, low, seed)[0]
        bounce = weak.unwrapped.bounce_tick
        np.testing.assert_array_equal(a[: bounce + 1], b[: bounce + 1])
        assert np.all(a[bounce + 1 :, 5] != b[bounce + 1 :, 5])


def test_the_ball_foretells_where_it_arrives_except_for_the_bounce():
    env = make().unwrapped
    for seed in range(10):
        observations, *_ = play(env, low, seed)
        foretold_m = [catch.expected_arrival_m(*o[[1, 2, 4, 5]]) for o in observations]
        before, after = np.split(foretold_m, [env.bounce_tick + 1])
        assert np.ptp(before) < 1e-9 and np.ptp(after) < 1e-9
        assert after[0] - before[0] == pytest.approx(env.deflected_m, abs=1e-9)


def test_deflections_are_even_to_both_sides():
    env = make().unwrapped
    shares = []
    for seed in range(1000):
        env.reset(seed=seed)
        shares.append(env.deflected_m / env.deflection_m)
    assert abs(np.mean(shares)) < 0.06
    assert np.quantile(np.abs(shares), [0.25, 0.5, 0.75]) == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.06
    )


@pytest.mark.parametrize(("mass_kg", "friction_n"), [(1, 0), (0.5, 0), (4, 0), (1, 12)])
def test_cup_is_accelerated_by_force_less_friction_over_mass(mass_kg, friction_n):
    env = make(arm_mass_kg=mass_kg, rail_friction_n=friction_n)
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.array([np.copysign(0.5, -before[0])], np.float32))
    assert abs(after[3]) == pytest.approx((24 - friction_n) / mass_kg * 0.02, rel=0.05)


def test_cup_rests_where_it_is_told_to():
    env = make()
    for target_m in (-0.5, -0.1, 0.4):
        observations, *_ = play(env, lambda _, u=target_m: np.full(1, u, np.float32), seed=0)
        assert observations[-1, 0] == pytest.approx(target_m, abs=1e-3)
        assert abs(observations[:, 0]).max() < 0.501  # no overshoot


def test_actions_are_limited_by_the_servo():
    env, other = make(), make()
    env.reset(seed=0), other.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.full(1, 9.0))[0], other.step(np.full(1, 0.5))[0])


def test_outcome_comes_with_the_ball_only():
    env = make().unwrapped
    for policy in (env.expert(), low):
        _, rewards, infos, *_ = play(env, policy, seed=0)
        assert all(info == {"success": False, "score": 0.0} for info in infos[:-1])
        assert np.all(rewards[:-1] == 0) and rewards[-1] == infos[-1]["score"]
    assert not infos[-1]["success"] and infos[-1]["score"] < catch.NEAR_SCORE
    assert play(env, env.expert(), seed=0).infos[-1] == {"success": True, "score": 1.0}


def test_outcome_grades_the_miss():
    radius_m = catch.CATCH_RADIUS_M
    assert catch.outcome(-radius_m, 0.9) == {"success": True, "score": 1.0}
    assert catch.outcome(0.0, -1.1) == {"success": False, "score": 0.5}
    assert catch.outcome(9.0, 0.0) == {"success": False, "score": 0.0}
    misses_m = np.linspace(radius_m, radius_m + catch.MISS_SCALE_M, 20)[1:]
    outcomes = [catch.outcome(sign * miss, 0.0) for miss in misses_m for sign in (1, -1)]
    scores = [outcome["score"] for outcome in outcomes]
    assert not any(outcome["success"] for outcome in outcomes)
    assert scores[::2] == scores[1::2] == sorted(scores[::2], reverse=True)
    assert scores[0] < catch.NEAR_SCORE and scores[-1] == pytest.approx(0.0)


def ends(low_end, high_end):
    return st.sampled_from([low_end, high_end]) | st.floats(low_end, high_end)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    actions=st.sampled_from(["constant", "random", "alternating"]),
    size=ends(-0.5, 0.5) | st.just(1e6),
    kwargs=st.fixed_dictionaries(
        {
            "deflection_m": ends(0.0, catch.MAX_DEFLECTION_M),
            "arm_mass_kg": ends(0.5, 4.0),
            "rail_friction_n": ends(0.0, 12.0),
            "sensor_noise": ends(0.0, 100.0),
            "actuation_delay": st.sampled_from([0, 1, 100]),
        }
    ),
)
def test_no_action_leaves_the_space_of_observations(seed, actions, size, kwargs):
    env = make(**kwargs).unwrapped
    rng = np.random.default_rng(seed)
    for episode in range(3):
        observation, _ = env.reset(seed=seed + episode)
        for tick in range(LAST_TICK):
            sign = {"constant": 1, "random": rng.uniform(-1, 1), "alternating": (-1) ** (tick // 9)}
            assert observation in env.observation_space
            assert env._observation() in env.observation_space
            observation, reward, over, _, info = env.step(np.full(1, size * sign[actions]))
            assert 0 <= info["score"] == reward <= 1
            if over:
                break
        assert over and observation in env.observation_space
    assert not env.data.warning.number.any()


class LatePolicy:
    """Acts on chunks that arrive late, less the actions that are stale by then; the first is free.

    A chunk holds what the exact model expects from its observation alone: that the expert's target
    stays the same, because before the bounce it is the mean and after it the ball is certain."""

    def __init__(self, expert, delay_ticks):
        self.expert, self.delay_ticks, self.interval = expert, delay_ticks, max(2, delay_ticks)
        self.tick, self.arrivals = 0, {}

    def __call__(self, observation):
        if self.tick % self.interval == 0:
            arrival = self.tick + self.delay_ticks if self.tick else 0
            self.arrivals[arrival] = np.tile(self.expert(observation), (24, 1)), self.tick
        if self.tick in self.arrivals:
            self.chunk, self.start = self.arrivals.pop(self.tick)
        action = self.chunk[self.tick - self.start]
        self.tick += 1
        return action


def success_when_late(env, delay_ticks):
    expert = env.unwrapped.expert()
    return success(env, lambda: LatePolicy(expert, delay_ticks), range(100))


def test_late_is_worse_and_the_bounce_is_why():
    rough, smooth = make(), make(deflection_m=0.0)
    in_time, late, later = (success_when_late(rough, ticks) for ticks in (0, 2, 4))
    assert in_time >= 0.95
    assert 0.65 <= late <= 0.93
    assert later <= 0.6
    assert all(success_when_late(smooth, ticks) >= 0.95 for ticks in (0, 2, 4, 6))


def test_waiting_at_the_mean_is_not_enough():
    env = make().unwrapped

    def stay_with_the_first_target():
        expert, targets = env.expert(), []

        def act(observation):
            targets.append(expert(observation))
            return targets[0]

        return act

    share = catch.CATCH_RADIUS_M / env.deflection_m
    assert success(env, stay_with_the_first_target, range(200)) == pytest.approx(share, abs=0.1)


def test_a_catch_is_close_and_slow():
    """Rushing at the ball with full force gets close, and too fast."""
    env = make().unwrapped
    expert = env.expert()

    def rush(observation):
        return np.copysign(0.5, expert(observation) - observation[:1])

    too_fast = 0
    for policy in (expert, rush):
        for seed in range(40):
            observations, _, infos, *_ = play(env, policy, seed)
            cup_m, _, ball_m, cup_m_s, *_ = observations[-1]
            close = abs(ball_m - cup_m) <= catch.CATCH_RADIUS_M
            slow = abs(cup_m_s) <= catch.CATCH_SPEED_M_S
            assert infos[-1]["success"] == (close and slow)
            too_fast += close and not slow
    assert too_fast > 0


def test_a_heavy_arm_and_a_late_motor_catch_less():
    expert = make().unwrapped.expert
    for kwargs in ({"arm_mass_kg": 2.0}, {"rail_friction_n": 12.0}, {"actuation_delay": 4}):
        assert success(make(**kwargs), expert, range(60)) <= 0.95


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("deflection_m", -0.1),
        ("deflection_m", 0.41),
        ("deflection_m", float("nan")),
        ("arm_mass_kg", 0.4),
        ("arm_mass_kg", 4.1),
        ("arm_mass_kg", float("nan")),
        ("rail_friction_n", -1.0),
        ("rail_friction_n", 12.1),
    ],
)
def test_arguments_that_cannot_be_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be .* got {bad}"):
        catch.CatchEnv(**{name: bad})


def test_picture_shows_the_ball_the_cup_and_the_outcome():
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    try:
        pictures = [env.render()]
    except RuntimeError as error:
        pytest.skip(str(error))
    over = False
    while not over:
        _, _, over, _, _ = env.step(low(None))
    pictures.append(env.render())
    play(env, env.unwrapped.expert(), seed=0)
    pictures.append(env.render())
    assert pictures[0].shape == (352, 768, 3) and pictures[0].dtype == np.uint8
    assert np.any(pictures[0] != pictures[1])
    red, green = (np.argmax(p, axis=2) for p in pictures[1:])
    vivid = [np.ptp(p.astype(int), axis=2) > 80 for p in pictures[1:]]
    assert np.sum(vivid[1] & (green == 1)) > 300 > np.sum(vivid[0] & (red == 1))
    env.close()
    env.close()
