"""`diffpolicy merge`, `split` and `filter`: new stores from the episodes of others."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from diffpolicy.data import facts
from diffpolicy.data.appending import NO_SEED
from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import open_without_options
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.alike import check_alike, common
from diffpolicy.stores.config import FilterConfig, MergeConfig, SplitConfig
from diffpolicy.stores.copying import (
    SOURCES,
    check_new,
    derived,
    new_store,
    origin,
    part,
    seeds_of,
)
from diffpolicy.stores.vectors import spans, vectors
from diffpolicy.terminal.progress import progress_bar

NUMBERS = re.compile(r"(?P<one>\d{1,18})|(?P<first>\d{0,18}):(?P<end>\d{0,18})", re.ASCII)


def merge(config: MergeConfig) -> None:
    """Write the episodes of all stores, in the given order, to a new one.

    Attributes that differ between the stores are kept in the list `sources`.
    """
    check_new(config.out)
    sources = [open_without_options(path) for path in config.stores]
    shared = check_alike(sources)
    attributes, differing = common(sources)
    entries = [origin(source, **own) for source, own in zip(sources, differing, strict=True)]
    with new_store(config.out, {**attributes, SOURCES: entries}) as copies:
        for source in sources:
            seeds = seeds_of(source)
            for number, episode in _episodes(source, f"merge {source.path.name}"):
                copies.append(shared.of(episode), seeds[number])
    print(f"{config.out}: {copies.count} episodes of {len(sources)} stores")
    for note in shared.notes:
        print(f"  {note}")


def split(config: SplitConfig) -> None:
    """Write two stores: a random share of the episodes, and the others, both in their order."""
    if config.out[0].resolve() == config.out[1].resolve():
        raise DiffpolicyError(f"--out needs two different stores; got {config.out[0]} twice")
    source = open_without_options(config.store)
    chosen = first_part(len(source), config.fraction, config.seed, str(config.store))
    about = {"fraction": config.fraction, "seed": config.seed}
    with ExitStack() as stack:
        all_copies = [
            stack.enter_context(new_store(path, derived(source, split={**about, "part": number})))
            for number, path in enumerate(config.out)
        ]
        seeds = seeds_of(source)
        for number, episode in _episodes(source, "split"):
            all_copies[0 if number in chosen else 1].append(episode, seeds[number])
    for path, copies in zip(config.out, all_copies, strict=True):
        print(f"{path}: {copies.count} of {len(source)} episodes")


def first_part(episodes: int, fraction: float, seed: int, name: str) -> set[int]:
    """Numbers of the episodes in the first part; both parts get at least one."""
    if episodes < 2:
        raise DiffpolicyError(f"{name} has one episode; a split needs at least 2")
    count = min(max(round(fraction * episodes), 1), episodes - 1)
    return set(np.random.default_rng(seed).permutation(episodes)[:count].tolist())


def filter_store(config: FilterConfig) -> None:
    """Write the chosen episodes, or their moving parts, and count the others by reason.

    With --idle, an episode loses its idle head and tail: the leading and trailing rows in stretches
    of half a second (5 rows if the control period is unknown) in which no number of the actions and
    of the observed vectors covers more than the given share of its range over the whole store.
    Pictures do not count. An episode without its head has no seed any more; one without its tail
    ends with the observation of the next row and counts as truncated.
    """
    check_new(config.out)
    source = open_without_options(config.store)
    chosen = numbers_of(config.episodes, len(source))
    ranges = None if config.idle is None else spans(source)
    dropped, cut = Counter(), 0
    with new_store(config.out, derived(source, filter=_options(config))) as copies:
        seeds = seeds_of(source)
        for number, episode in _episodes(source, "filter"):
            start, end = _moving(episode, source, config.idle, ranges)
            reason = _reason(config, episode, number in chosen, end - start)
            if reason:
                dropped[reason] += 1
                continue
            copies.append(part(episode, start, end), NO_SEED if start else seeds[number])
            cut += len(episode) - (end - start)
        if not copies.count:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            raise DiffpolicyError(f"no episode of {config.store} is left: {reasons}")
    print(f"{config.out}: {copies.count} of {len(source)} episodes kept")
    for reason, count in dropped.items():
        print(f"  left out {count}: {reason}")
    if ranges is not None:
        print(f"  idle steps cut off: {cut:,}")


def _episodes(source: Source, description: str) -> Iterator[tuple[int, Demonstration]]:
    with progress_bar(
        source.episodes(), description, len(source), unit="episode", leave=False
    ) as bar:
        yield from enumerate(bar)


def _options(config: FilterConfig) -> dict[str, Any]:
    given = {"episodes": list(config.episodes), "success": config.success}
    return {**given, "idle": config.idle, "shortest": config.shortest}


def _moving(
    episode: Demonstration, source: Source, share: float | None, ranges: np.ndarray | None
) -> tuple[int, int]:
    if share is None or ranges is None:
        return 0, len(episode)
    stretch = facts.idle_stretch(attribute(source.attributes, "control_dt_s"))
    return facts.moving_part(facts.idle_rows(vectors(episode), ranges, stretch, share))


def _reason(config: FilterConfig, episode: Demonstration, chosen: bool, length: int) -> str:
    """Reason to leave an episode out; "" to keep it."""
    if not chosen:
        return "not among --episodes"
    if config.success is not None and episode.success is not config.success:
        known = {None: "of unknown success", True: "with success", False: "without success"}
        return known[episode.success]
    if not length:
        return "idle from start to end"
    return f"shorter than {config.shortest} steps" if length < config.shortest else ""


def numbers_of(texts: Sequence[str], episodes: int) -> set[int]:
    """Numbers of the episodes that texts such as "3" and "10:20" name; all for no text.

    A range leaves out its end; a missing start or end is that of the store.
    """
    if not texts:
        return set(range(episodes))
    found: set[int] = set()
    for text in texts:
        parts = NUMBERS.fullmatch(text)
        if parts is None:
            raise DiffpolicyError(f"--episodes takes numbers or ranges such as 10:20; got {text!r}")
        start = int(parts["one"] or parts["first"] or 0)
        end = start + 1 if parts["one"] else int(parts["end"] or episodes)
        if not start < end <= episodes:
            raise DiffpolicyError(
                f"--episodes {text} is outside the store, whose episodes are 0 to {episodes - 1}"
            )
        found |= set(range(start, end))
    return found
