"""Session of recording: which episode runs, which is held, which is saved; no window, no clock.

The last finished episode that counts is held in memory until the next one starts or the session
ends, so that it can be taken back; what is saved is never changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Episode = TypeVar("Episode")


class State(Enum):
    """State of a session."""

    READY = "ready"  # at the start of an episode
    RUNNING = "recording"
    PAUSED = "paused"
    OVER = "over"  # at the end of an episode
    DONE = "done"


@dataclass
class Session(Generic[Episode]):
    """Commands of a person; one that does not fit the state is ignored.

    save: called once with each episode that is kept for good. wanted: number of episodes. saved:
    number of those in the store already. held: finished, counted, not saved yet. dropped: finished,
    not counted, can still be kept.
    """

    save: Callable[[Episode], None]
    wanted: int
    saved: int = 0
    state: State = State.READY
    held: Episode | None = None
    dropped: Episode | None = None

    @property
    def count(self) -> int:
        """Number of episodes kept so far."""
        return self.saved + (self.held is not None)

    @property
    def running(self) -> bool:
        """True during an episode, paused or not."""
        return self.state in (State.RUNNING, State.PAUSED)

    def go(self) -> None:
        """Start, pause, continue, or leave an episode that is over.

        Starting saves the held episode. With all episodes recorded nothing more starts.
        """
        if self.state is State.READY and self.count < self.wanted:
            self._settle()
            self.state = State.RUNNING
        elif self.state is State.RUNNING:
            self.state = State.PAUSED
        elif self.state is State.PAUSED:
            self.state = State.RUNNING
        elif self.state is State.OVER and self.count < self.wanted:
            self.state = State.READY

    def end(self, episode: Episode, keep: bool) -> None:
        """Take the episode that has ended."""
        self.held, self.dropped = (episode, None) if keep else (None, episode)
        self.state = State.OVER

    def keep(self) -> None:
        """Keep the last episode after all."""
        if not self.running and self.dropped is not None and self.count < self.wanted:
            self.held, self.dropped = self.dropped, None

    def undo(self) -> None:
        """Take the last episode back."""
        if not self.running and self.held is not None:
            self.held, self.dropped = None, self.held

    def discard(self) -> None:
        """Leave the running episode without keeping it."""
        if self.running:
            self.state = State.READY

    def quit(self) -> None:
        """End the session; save the held episode."""
        self._settle()
        self.state = State.DONE

    def _settle(self) -> None:
        held, self.held, self.dropped = self.held, None, None
        if held is not None:
            self.save(held)
            self.saved += 1
