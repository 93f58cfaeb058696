"""Episodes that a person drives in a window, at the control rate of the environment."""

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.environment.boundary import describe_error
from diffpolicy.environment.outcome import Outcome
from diffpolicy.environment.recording import Recording
from diffpolicy.errors import DiffpolicyError
from diffpolicy.teleop.session import Session, State
from diffpolicy.teleop.window import Window

LOGGER = logging.getLogger("diffpolicy")
TEXT_LINES = 2
KEYS = {  # name of the key: (command of the session, words)
    "space": ("go", "SPACE start, pause"),
    "s": ("keep", "S save"),
    "u": ("undo", "U undo"),
    "d": ("discard", "D discard"),
    "q": ("quit", "Q quit"),
}
HELP = " · ".join(words for _, words in KEYS.values())
TOLD = {
    State.READY: "SPACE starts",
    State.RUNNING: "recording",
    State.PAUSED: "paused",
}


def record_by_hand(
    env: Any,
    writer: DemonstrationWriter,
    new_outcome: Callable[[], Outcome],
    episodes: int,
    seed: int,
    control_dt_s: float,
) -> int:
    """Fill the store up to so many episodes, or until the person quits; the number of seeds tried.

    seed: of the first start; each further one adds 1, also over several sessions. The episode that
    is held at the end of the session, also by Ctrl-C, is written. Raises DiffpolicyError for an
    environment that cannot be driven, and what the environment raises.
    """
    return _Teleoperation(env, writer, new_outcome, episodes, seed, control_dt_s).run()


def check_drivable(env: Any) -> None:
    """Raise DiffpolicyError unless the environment maps a cursor to an action."""
    if environment.declared(env, "action_from_cursor") is None:
        raise DiffpolicyError(
            f"{env.spec.id} does not say how a cursor maps to an action; expected "
            "action_from_cursor(cursor) and cursor (envs/README.md); or record without --teleop"
        )


class _Teleoperation:
    """A session, its window, and the episode that runs."""

    def __init__(
        self,
        env: Any,
        writer: DemonstrationWriter,
        new_outcome: Callable[[], Outcome],
        episodes: int,
        seed: int,
        control_dt_s: float,
    ):
        check_drivable(env)
        self.env, self.writer, self.new_outcome = env, writer, new_outcome
        self.control_dt_s, self.first_seed = control_dt_s, seed
        self.next_seed = writer.next_seed(seed)
        self.session = Session[tuple[Demonstration, int]](
            lambda held: self.save(*held), episodes, len(writer.seeds)
        )
        self.ticks = self.late_ticks = 0
        self.recording = self.next_recording()
        keys = {key: command for key, (command, _) in KEYS.items()}
        title = f"diffpolicy · {env.spec.id}"
        self.window = Window(title, self.picture(), TEXT_LINES, keys, "--teleop")

    def run(self) -> int:
        """Run the session to its end."""
        due_s = time.perf_counter()
        try:
            while self.session.state is not State.DONE:
                for command in self.window.commands():
                    self.obey(command)
                if self.session.state is State.RUNNING:
                    self.tick()
                self.window.draw(self.picture(), self.lines(), self.window.cursor)
                due_s = self.wait(due_s + self.control_dt_s)
        finally:
            self.session.quit()
            self.window.close()
        if self.late_ticks:
            text = "warning: %d of %d ticks began a period of %g s late; drawing is too slow here"
            LOGGER.warning(text, self.late_ticks, self.ticks, self.control_dt_s)
        return self.next_seed - self.first_seed - (not self.recording.ticks)

    def obey(self, command: str) -> None:
        """Carry out a command of the session, and what it means for the episode."""
        session, before = self.session, self.session.state
        if command == "keep" and session.running and self.recording.ticks:
            self.recording.stop()
            self.finish(keep=True)
        else:
            getattr(session, command)()
        if session.state is State.READY and before is not State.READY:
            self.recording = self.next_recording()
        if session.state is State.RUNNING and before is State.READY:
            self.place_cursor()

    def tick(self) -> None:
        """Apply the action of the cursor."""
        self.window.move(self.control_dt_s)
        self.recording.step(self.action())
        self.ticks += 1
        if self.recording.over:
            self.finish(keep=self.recording.outcome.success)

    def action(self) -> np.ndarray:
        """The environment's action of the cursor."""
        action_of: Any = environment.declared(self.env, "action_from_cursor")
        try:
            return action_of(self.window.cursor.copy())
        except Exception as error:
            raise DiffpolicyError(
                f"{self.env.spec.id} failed in its action_from_cursor: {describe_error(error)}"
            ) from error

    def finish(self, keep: bool) -> None:
        """Give the episode to the session."""
        self.session.end((self.recording.demonstration(), self.recording.seed), keep)

    def save(self, episode: Demonstration, seed: int) -> None:
        """Write an episode that is kept for good."""
        self.writer.append(episode if self.writer.keeps_outcomes else episode.arrays, seed)

    def next_recording(self) -> Recording:
        """The start of the next seed."""
        self.next_seed += 1
        return Recording(self.env, self.next_seed - 1, self.new_outcome(), "the cursor")

    def place_cursor(self) -> None:
        """Put the cursor over the robot, so that it does not jump."""
        cursor = environment.declared(self.env, "cursor")
        if cursor is not None:
            self.window.place(np.asarray(cursor, np.float64))

    def picture(self) -> np.ndarray:
        """The environment's picture, uint8 [H, W, 3]."""
        picture = self.env.render()
        if picture is None or picture.ndim != 3 or picture.dtype != np.uint8:
            raise DiffpolicyError(
                f"{self.env.spec.id} gives no picture uint8 [H, W, 3] with render_mode='rgb_array'"
            )
        return picture

    def lines(self) -> tuple[str, str]:
        """The counter with the state, and the keys."""
        session, seconds = self.session, self.recording.ticks * self.control_dt_s
        told = TOLD.get(session.state) or (
            "kept; U takes it back" if session.held else "not kept; S keeps it"
        )
        if session.count >= session.wanted:
            told = "all recorded; Q ends, U takes the last one back"
        return f"{session.count} of {session.wanted} episodes · {told} · {seconds:.1f} s", HELP

    def wait(self, due_s: float) -> float:
        """Sleep to the next tick; its time, or the present if that is more than a period ago."""
        time.sleep(max(due_s - time.perf_counter(), 0.0))
        now_s = time.perf_counter()
        late = now_s - due_s > self.control_dt_s
        self.late_ticks += late and self.session.state is State.RUNNING
        return now_s if late else due_s
