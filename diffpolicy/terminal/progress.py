"""One line of progress of episodes, which moves with every control tick of any of them."""

import os
from types import TracebackType
from typing import Any

from tqdm import tqdm

from diffpolicy.terminal.output import is_quiet

LINE = "{desc}: {percentage:3.0f}%|{bar}| {rate_fmt}{postfix} [{elapsed}<{remaining}]"
ENDLESS = "{desc}: | {n_fmt} ticks, {rate_fmt}{postfix} [{elapsed}]"  # of episodes without a limit


def progress_bar(*arguments: Any, **options: Any) -> tqdm:
    """A bar of tqdm, which takes the arguments; a quiet command, or TQDM_DISABLE, shows none."""
    return tqdm(*arguments, **{**options, "disable": _hidden() or options.get("disable", False)})


class EpisodeBar:
    """A bar of `episodes` episodes of at most `limit` ticks, with ticks per second and time left.

    Episodes that end early count as all of their ticks. limit: None if it is not known.
    """

    def __init__(self, description: str, episodes: int, limit: int | None, leave: bool = False):
        self.text, self.episodes, self.limit, self.done = description, episodes, limit, 0
        self._bar = tqdm(
            total=limit and limit * episodes,
            desc=description,
            unit="tick",
            leave=leave,
            bar_format=LINE if limit else ENDLESS,
            postfix=f"0/{episodes} episodes",
            disable=_hidden(),
        )

    def __enter__(self) -> "EpisodeBar":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, at: TracebackType | None):
        self._bar.close()

    def describe(self, text: str) -> None:
        """Name the episodes that run now."""
        self.text = text
        self._bar.set_description_str(text)

    def advance(self, ticks: int, ended: int) -> None:
        """Count ticks, and episodes that have ended."""
        self.done += ended
        self._bar.set_postfix_str(f"{self.done}/{self.episodes} episodes", refresh=False)
        if self._bar.total:  # restarted episodes count twice
            self._bar.total = max(self._bar.total, self._bar.n + ticks)
        self._bar.update(ticks)

    def skip(self, episodes: int) -> None:
        """Count episodes that were finished before, which tell nothing about ticks per second."""
        bar, ticks = self._bar, (self.limit or 0) * episodes
        if not bar.disable:
            bar.initial, bar.n, bar.last_print_n = (
                count + ticks for count in (bar.initial, bar.n, bar.last_print_n)
            )
        self.advance(0, episodes)


def _hidden() -> bool:
    """True if the command is quiet, or TQDM_DISABLE is set, which an option would overrule."""
    return is_quiet() or bool(os.environ.get("TQDM_DISABLE"))
