"""`diffpolicy validate`: check every array and episode of a data set.

Two passes over the episodes, one at a time in memory: the content of all arrays, then the motion of
the numbers. Findings are errors, for data that are damaged or contradict themselves, and warnings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy.data.attributes import READ, attribute
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import open_source, open_without_options
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.formats.stored import StoredSource
from diffpolicy.data.precision import lost_changes
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, picture_shape
from diffpolicy.stores.config import ValidateConfig
from diffpolicy.stores.content import Content
from diffpolicy.stores.copying import seeds_of
from diffpolicy.stores.findings import Findings, Place
from diffpolicy.stores.motion import MOST_COMPARED, Motion
from diffpolicy.stores.space import action_limits
from diffpolicy.stores.vectors import labels
from diffpolicy.terminal.progress import progress_bar


def validate(config: ValidateConfig) -> None:
    """Print every finding and a summary; raise SystemExit(1) if there are errors.

    Raises DiffpolicyError for data that cannot be opened at all.
    """
    source = open_without_options(config.path)
    findings = Findings()
    for note in source.notes:
        print(f"note: {note}")
    _check_attributes(source.attributes, findings)
    _check_seeds(source, findings)
    _check_ended(source, findings)
    content = _content(source, findings)
    unchecked = _check_motion(source, content, findings, config.env)
    findings.show()
    for note in unchecked:
        print(f"not checked: {note}")
    errors, warnings = findings.total("error"), findings.total("warning")
    arrays = len(content.first.arrays) if content.first else 0
    print(
        f"{config.path}: {errors:,} errors, {warnings:,} warnings in {content.episodes:,} "
        f"episodes, {content.rows:,} steps, {arrays} arrays"
    )
    if errors:
        raise SystemExit(1)


def _check_attributes(attributes: Mapping[str, Any], findings: Findings) -> None:
    for name in READ:
        try:
            attribute(attributes, name)
        except DiffpolicyError as error:
            findings.error("attributes", str(error))
    for name in ("control_dt_s", "position_targets"):
        if attributes.get(name) is None:
            findings.warn("attributes", f"{name} is not declared")


def _check_seeds(source: Source, findings: Findings) -> None:
    first: dict[int, int] = {}
    for episode, seed in enumerate(seeds_of(source)):
        if seed >= 0 and seed in first:
            text = f"it has seed {seed}, as episode {first[seed]}"
            findings.warn("seeds", text, Place(episode, 0))
        first.setdefault(seed, episode)


def _check_ended(source: Source, findings: Findings) -> None:
    """Warn of an import that was interrupted."""
    expected = source.attributes.get("source_episodes")
    if type(expected) is int and expected != len(source):
        text = f"{len(source):,} of {expected:,} episodes are imported; call import again"
        findings.warn("unfinished", text)


def _content(source: Source, findings: Findings) -> Content:
    """Sums of the first pass, which ends at an episode that cannot be decoded."""
    hashes = source.facts.hashes if isinstance(source, StoredSource) else None
    content = Content(findings, hashes)
    try:
        for episode in _bar(source, "content"):
            content.see(episode)
    except DiffpolicyError as error:
        text = f"{' '.join(str(error).split())}; this and the following episodes are not checked"
        findings.error("decoding", text, Place(content.episodes, content.rows))
    if len(content.success) > 1 and None in content.success:
        findings.warn("success", "it is known of some episodes only")
    if content.first:
        _check_numbers(content, content.first, findings)
    return content


def _check_numbers(content: Content, first: Demonstration, findings: Findings) -> None:
    """Warn of numbers that never change, and of changes that vanish in float32."""
    if content.low is not None and content.high is not None:
        names = labels(first.arrays)
        constant = [names[i] for i in np.flatnonzero(content.low == content.high)]
        if constant:
            findings.warn("constant", f"these never change: {', '.join(constant)}")
    for name, values in first.arrays.items():
        if not picture_shape(values.shape[1:]) and np.isfinite(values).all():
            with np.errstate(over="ignore"):
                rounded = values.astype(np.float32)
            for note in lost_changes(values, rounded, name):
                findings.warn("precision", note, Place(0, 0))


def _check_motion(
    source: Source, content: Content, findings: Findings, env_id: str | None
) -> list[str]:
    """Second pass, over undamaged episodes; sentences about everything that was not checked."""
    if content.low is None or content.high is None or content.first is None:
        return ["motion, since no episode is whole"]
    dimensions = int(np.prod(content.first.arrays[ACTION].shape[1:]))
    limits, reason = action_limits(source.attributes, env_id, dimensions)
    motion = Motion(findings, content.low, content.high - content.low, content.episodes, limits)
    row = 0
    numbers_only = _without_pictures(source, content.first)
    episodes = zip(range(content.episodes), _bar(numbers_only, "motion"), strict=False)
    for number, episode in episodes:
        if number not in findings.damaged:
            motion.see(episode, Place(number, row))
        row += len(episode)
    motion.conclude(content.frozen)
    unchecked = [f"limits of the actions: {reason}"] if reason else []
    if content.episodes > MOST_COMPARED:
        unchecked.append(f"near duplicates beyond {MOST_COMPARED:,} evenly spaced episodes")
    return unchecked


def _without_pictures(source: Source, first: Demonstration) -> Source:
    """The source opened again without its cameras, which are not decoded twice."""
    cameras = tuple(n for n, x in first.arrays.items() if picture_shape(x.shape[1:]))
    if not cameras:
        return source
    return open_source(source.path, SourceOptions(skip=cameras))


def _bar(source: Source, description: str) -> tqdm:
    episodes = source.episodes()
    return progress_bar(
        episodes, f"validate {description}", len(source), unit="episode", leave=False
    )
