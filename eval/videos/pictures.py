"""Pictures of episodes, rendered by measure/frames.py and drawn by report/strip.py."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_bytes

from ..measure.description import Budget
from ..measure.evaluator import Evaluator
from ..measure.frames import KEPT, Frames, frames_of
from ..measure.results import BudgetResult, Picture
from ..measure.timelines import Timeline, timeline_of
from ..report.figure import png
from ..report.sentences import caption
from ..report.strip import frame_strip, traces

FOLDER = "rollouts"  # of pictures, beside the result
LONGEST = 60  # characters of a file name without its ending


class Shown(NamedTuple):
    """A budget on a clock, of which episodes are shown, and its row."""

    policy: Budget
    profile: LatencyProfile
    row: BudgetResult

    @property
    def clock(self) -> str:
        """The clock; for the wall clock the simulated one with the latencies measured on it."""
        return "paused" if self.row.clock == "paused" else f"simulated ({self.profile.source})"


class Pictured(NamedTuple):
    """The picture of an episode, and its timeline if it had any action."""

    picture: Picture
    timeline: Timeline | None


def picture_of(
    evaluator: Evaluator, shown: Shown, number: int, folder: Path, kept: int = KEPT
) -> tuple[Pictured, Frames | None]:
    """Write a picture of the first episode to folder/rollouts; an error is the caption.

    kept: frames of the longest episode, at least. The frames come with it, if the episode ran.
    """
    title = f"{shown.row.name}, {shown.clock}"
    file, timeline, shot = f"{FOLDER}/{file_name(number, title)}", None, None
    try:
        shot = frames_of(evaluator, shown.policy, shown.profile, evaluator.seeds.start, kept)
        timeline = timeline_of(shown.row.name, shown.clock, shot.episode, shot.actions)
        write_bytes(folder / file, draw(shot, evaluator.options.control_dt_s))
    except (DiffpolicyError, OSError) as error:
        return Pictured(Picture(title, str(error), None), timeline), shot
    return Pictured(Picture(title, caption_of(shot), file), timeline), shot


def file_name(number: int, title: str) -> str:
    """Name of a picture: its number and the title, shortened."""
    return plain(f"{number} {title}", LONGEST) + ".png"


def plain(text: str, longest: int) -> str:
    """A text as part of a file name: letters, digits, points and underscores, shortened."""
    return re.sub(r"[^a-zA-Z0-9.]+", "_", text)[:longest].strip("_")


def draw(shot: Frames, control_dt_s: float) -> bytes:
    """The strip of frames as PNG; traces of the observations if nothing was rendered."""
    if not shot.frames:
        return png(traces(np.array(shot.observations), control_dt_s))
    return png(frame_strip(shot.frames, control_dt_s))


def caption_of(shot: Frames) -> str:
    """Seed, outcome, score and length of the episode, its failure, and missing frames."""
    e = shot.episode
    notes = [e.failure] if e.failure else []
    if shot.trouble:
        notes.append(trouble_of(shot))
    return caption(e.seed, e.success, e.score, e.ticks, notes)


def trouble_of(shot: Frames) -> str:
    """The sentence on a failed rendering."""
    return f"drawn from the observations: rendering failed: {shot.trouble}"
