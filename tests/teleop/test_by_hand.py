"""A person at the window, as synthetic events of pygame: the store equals what was done."""

import os
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffpolicy.config import RecordConfig
from diffpolicy.data.formats import open_source
from diffpolicy.record import record

os.environ["SDL_VIDEODRIVER"] = "dummy"
pygame = pytest.importorskip("pygame", reason="pygame is not installed")

DRIVE = "test_by_hand:Drive-v0"
SIDE_PX = 480  # of the window, a picture of 24 px enlarged


class DriveEnv(gymnasium.Env):
    """A point that goes where the action says; success beyond 0.8; its pictures post the script.

    script: events by number of the frame after which they come. applied: (seed, action) by tick.
    """

    control_dt_s, position_targets = 1e-3, True
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(0, 1, (2,), np.float64)
    action_space = spaces.Box(0, 1, (2,), np.float32)
    script: dict = {}  # noqa: RUF012
    applied: list = []  # noqa: RUF012
    frame = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    @property
    def cursor(self):
        return self.place

    def action_from_cursor(self, cursor):
        return cursor

    def reset(self, *, seed=None, options=None):
        self.seed, self.place = seed, np.array([0.25, 0.01 * seed])
        return self.place, {}

    def step(self, action):
        DriveEnv.applied.append((self.seed, action))
        self.place = action.astype(np.float64)
        success = bool(action[0] > 0.8)
        return self.place, float(success), success, False, {"success": success}

    def render(self):
        if pygame.display.get_init():
            for event in DriveEnv.script.get(DriveEnv.frame, ()):
                if event is KeyboardInterrupt:
                    raise KeyboardInterrupt
                pygame.event.post(event)
            DriveEnv.frame += 1
        return np.zeros((24, 24, 3), np.uint8)


gymnasium.register("Drive-v0", entry_point=DriveEnv, max_episode_steps=50)


def key(name, down=True):
    kind = pygame.KEYDOWN if down else pygame.KEYUP
    return pygame.event.Event(kind, key=getattr(pygame, f"K_{name}"), unicode="", mod=0)


def mouse(x, y):
    position = round(x * SIDE_PX), round(y * SIDE_PX)
    return pygame.event.Event(pygame.MOUSEMOTION, pos=position, rel=(0, 0), buttons=(0, 0, 0))


SPACE, SAVE, UNDO, DISCARD, QUIT = "SPACE", "s", "u", "d", "q"
WIN, FAR = (0.9, 0.5), (0.5, 0.5)


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """Function play(steps, …) -> (episodes of the store, applied actions by seed, output).

    A step is a key, a cursor of the mouse, or a number of frames without events.
    """

    def run(*steps, episodes=5, out="a.zarr", raises=None, **options):
        script, frame = {}, 0
        for step in steps:
            if isinstance(step, int):
                frame += step
                continue
            if isinstance(step, tuple):
                event = mouse(*step)
            else:
                event = step if step is KeyboardInterrupt else key(step)
            script[frame] = [event]
            frame += 1
        monkeypatch.setattr(DriveEnv, "script", script)
        monkeypatch.setattr(DriveEnv, "applied", [])
        monkeypatch.setattr(DriveEnv, "frame", 0)
        config = RecordConfig(DRIVE, episodes=episodes, out=tmp_path / out, teleop=True, **options)
        if raises:
            with pytest.raises(raises):
                record(config)
        else:
            record(config)
        applied: dict[int, list] = {}
        for seed, action in DriveEnv.applied:
            applied.setdefault(seed, []).append(action)
        stored = list(open_source(tmp_path / out).episodes()) if config.out.exists() else []
        return stored, applied, capsys.readouterr().out

    return run


def assert_stored(episode, applied):
    np.testing.assert_array_equal(episode.arrays["action"], applied)


def test_an_episode_is_recorded_as_it_was_driven(play):
    [episode], applied, told = play(SPACE, FAR, WIN, 2, QUIT)
    assert_stored(episode, applied[0])
    actions = episode.arrays["action"]
    np.testing.assert_allclose(actions[0], (0.25, 0.0), atol=1e-6)  # the cursor begins at the robot
    np.testing.assert_allclose(actions[1:], [FAR, WIN], atol=1e-6)
    np.testing.assert_array_equal(episode.arrays["observation"][1:], actions[:-1])
    np.testing.assert_array_equal(episode.final["observation"], actions[-1])
    assert episode.outcomes["terminated"].tolist() == [False, False, True]
    assert episode.success is True
    assert "1 episodes kept, 0 of 1 tried were dropped" in told


def test_a_pause_stops_the_clock_and_the_arrow_keys_move_the_cursor(play):
    [episode], applied, _ = play(SPACE, 1, SPACE, 5, SPACE, "RIGHT", 4, WIN, 1, QUIT)
    assert_stored(episode, applied[0])
    x = episode.arrays["action"][:, 0]
    np.testing.assert_allclose(np.diff(x)[-6:-1], 0.4e-3, atol=1e-6)  # KEY_SPEED · control_dt_s
    assert len(x) == 9  # 2 before the pause, 1 after, 5 with the key, 1 to the goal


def test_undo_discard_and_save(play):
    """a: kept; b: undone; c: discarded; d: dropped without success; e: saved where it stood."""
    drive = (SPACE, WIN, 1)
    stored, applied, told = play(
        *(*drive, SPACE),  # a, seed 0
        *(*drive, UNDO, SPACE),  # b, seed 1
        *(SPACE, FAR, 1, DISCARD, 1),  # c, seed 2
        *(SPACE, FAR, 60, SPACE),  # d, seed 3, to the time limit
        *(SPACE, FAR, 3, SAVE, 1, QUIT),  # e, seed 4
    )
    assert sorted(applied) == [0, 1, 2, 3, 4] and len(applied[3]) == 50
    first, last = stored
    assert_stored(first, applied[0])
    assert_stored(last, applied[4])
    assert (first.success, last.success) == (True, False)
    assert last.outcomes["truncated"].tolist() == [False] * (len(applied[4]) - 1) + [True]
    assert "2 episodes kept, 3 of 5 tried were dropped" in told


def test_control_c_writes_the_held_episode_and_drops_the_running_one(play):
    drive = (SPACE, WIN, 1, SPACE)
    stored, applied, _ = play(*drive, KeyboardInterrupt, raises=KeyboardInterrupt)
    [episode] = stored
    assert_stored(episode, applied[0])
    stored, applied, _ = play(*drive, *drive[:2], KeyboardInterrupt, raises=KeyboardInterrupt)
    assert len(stored) == 3 and sorted(applied) == [1, 2]  # seeds go on where the store ends


def test_no_more_than_the_number_wanted(play):
    drive = (SPACE, WIN, 1)
    stored, applied, _ = play(*drive, SPACE, SPACE, 5, QUIT, episodes=1)
    assert len(stored) == 1 and sorted(applied) == [0]


def test_closing_the_window_ends_the_session(play, monkeypatch):
    monkeypatch.setattr("test_by_hand.key", lambda name: pygame.event.Event(pygame.QUIT))
    stored, applied, told = play(QUIT)
    assert stored == [] and applied == {}
    assert "0 episodes kept, 0 of 0 tried" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--env", "diffpolicy.envs:Balance-v0"), "does not say how a cursor maps to an action"),
        (("--env", DRIVE, "--policy", "a:b"), "--teleop and --policy are two experts"),
    ],
)
def test_what_cannot_be_driven_is_refused(tmp_path, refused, options, message):
    line = refused("record", *options, "--teleop", "--episodes", 1, "--out", tmp_path / "a.zarr")
    assert message in line
    assert not (tmp_path / "a.zarr").exists()


def test_pusht_is_driven_by_the_mouse(tmp_path, monkeypatch):
    """Its own picture and rate: the target follows the mouse, in px of the table."""
    from diffpolicy.envs.pusht import PushTEnv

    script, shown = {0: [key(SPACE)], 1: [mouse(0.25, 0.75)], 3: [key(SAVE)], 4: [key(QUIT)]}, []

    def render(self):
        picture = np.zeros((480, 480, 3), np.uint8)
        if pygame.display.get_init():
            for event in script.get(len(shown), ()):
                pygame.event.post(event)
            shown.append(picture)
        return picture

    monkeypatch.setattr(PushTEnv, "render", render)
    out = tmp_path / "a.zarr"
    record(RecordConfig("diffpolicy.envs:PushT-v0", episodes=1, out=out, teleop=True))
    [episode] = open_source(out).episodes()
    env = gymnasium.make("diffpolicy.envs:PushT-v0").unwrapped
    with closing(env):
        expected = env.action_from_cursor(np.array([0.25, 0.75]))
    np.testing.assert_allclose(episode.arrays["action"][1:], [expected] * 2)
    assert episode.success is False
