"""Game: a policy runs, a person changes its budget and its delay; no window, no time.

Each episode is that of `rollout` with a batch of 1: it depends on its seed and on the commands at
their ticks alone. A budget or a delay that is changed holds from the next replan on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffpolicy.control.chunk_source import ChunkSource, late_of
from diffpolicy.control.correcting import corrections
from diffpolicy.control.episode import RolloutOptions, RunningEpisode, begin_episode
from diffpolicy.control.rollout import replan
from diffpolicy.environment.monitored import Monitored
from diffpolicy.errors import DiffpolicyError

END_S = 1.0  # the last picture of an episode stands


class Setting(NamedTuple):
    """A budget, by its place in the list, and a delay of every chunk in control ticks."""

    budget: int
    delay: int


@dataclass
class Count:
    """Episodes that ended, and successes among them."""

    success: int = 0
    episodes: int = 0


class Game:
    """Episodes of one environment, one after the other; `tick` and the commands are all it does.

    budgets: chunk sources with the same horizons, {name: source}; their engines are built. seed: of
    the first episode; each further one adds 1. counts: of the episodes under one setting
    throughout; mixed: of the others. Raises DiffpolicyError for a strategy that needs real time,
    and what the environment and the policy raise.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        budgets: Mapping[str, ChunkSource],
        options: RolloutOptions,
        seed: int,
        setting: Setting,
    ):
        self.names, self.sources = [*budgets], [*budgets.values()]
        _check_simulated(self.sources)
        self.options, self.wanted = options, setting
        self.counts: dict[Setting, Count] = {}
        self.mixed = Count()
        self.paused = self.done = False
        self.env = Monitored(make_env, seed, None)
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        """Start the episode of a seed."""
        self.used: set[Setting] = set()  # in this episode
        self.running = self.wanted  # since the last replan
        self._rest = 0  # ticks for which the end of the episode stands
        source, first = self.sources[self.wanted.budget], self.wanted.delay
        found = begin_episode(self.env, seed, source, self._delays(), self.options, first)
        assert isinstance(found, RunningEpisode)  # else the environment's failure was raised
        self.episode = found

    def _delays(self) -> Iterator[int]:
        while True:
            yield self.wanted.delay

    @property
    def over(self) -> bool:
        """True while the end of an episode stands."""
        return self._rest > 0

    def tick(self) -> bool:
        """One control tick, none while the game is paused; True if it ended the episode."""
        if self.paused or self.done:
            return False
        if self.over:
            self._rest -= 1
            if not self.over:
                self._begin(self.episode.seed + 1)
            return False
        episode = self.episode
        episode.controller.deliver(episode.tick)
        if not episode.failure and episode.controller.wants_observation(episode.tick):
            self._replan()
        [corrected] = corrections(self.sources[self.running.budget], [episode], 1)
        if episode.failure or episode.advance(corrected):
            self._end()
        return self.over

    def _replan(self) -> None:
        self.running = self.wanted
        self.used.add(self.running)
        replan(self.sources[self.running.budget], [self.episode], 1)

    def _end(self) -> None:
        """Count the episode."""
        one = len(self.used) == 1
        count = self.counts.setdefault(next(iter(self.used)), Count()) if one else self.mixed
        count.episodes += 1
        count.success += self.episode.result().success
        self._rest = max(1, round(END_S / self.options.control_dt_s))

    def more(self) -> None:
        """Take the next larger budget."""
        larger = min(self.wanted.budget + 1, len(self.sources) - 1)
        self.wanted = self.wanted._replace(budget=larger)

    def less(self) -> None:
        """Take the next smaller budget."""
        self.wanted = self.wanted._replace(budget=max(self.wanted.budget - 1, 0))

    def later(self) -> None:
        """Add a tick to the delay."""
        self.wanted = self.wanted._replace(delay=self.wanted.delay + 1)

    def sooner(self) -> None:
        """Take a tick from the delay."""
        self.wanted = self.wanted._replace(delay=max(self.wanted.delay - 1, 0))

    def pause(self) -> None:
        """Pause, or continue."""
        self.paused = not self.paused

    def reset(self) -> None:
        """Start the same seed again; an episode that has not ended is not counted."""
        self._begin(self.episode.seed)

    def quit(self) -> None:
        """End the game."""
        self.done = True

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def _check_simulated(sources: Sequence[ChunkSource]) -> None:
    """Raise DiffpolicyError for a strategy that real time alone can show."""
    for late in map(late_of, sources):
        if late.wall_only:
            raise DiffpolicyError(
                f"--late {late.text} depends on real time; play simulates delays; expected another "
                "strategy"
            )
