"""Videos of episodes: replays of chosen seeds, drawn by film.py.

An episode depends on its seed alone, so a replay after the evaluation is the evaluated episode. Its
outcome is compared with the stored one, and an episode that differs is not shown.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import PAUSED, LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes
from diffpolicy.terminal.output import STDOUT, say
from diffpolicy.terminal.progress import progress_bar

from ..config import EvalConfig
from ..measure.description import Budget
from ..measure.evaluator import Evaluator
from ..measure.frames import Frames, frames_of
from ..measure.results import BudgetResult
from ..measure.run import Run
from ..report.sentences import ending
from .animation import check_encoder, encoded
from .config import VideoOf
from .film import Panel, film, panel
from .pictures import Shown, plain, trouble_of

FOLDER = "videos"
FRAME_S, MOST_FRAMES = 0.08, 250  # 12.5 frames a second, in real time
FAILURES = (DiffpolicyError, OSError, ValueError)  # of rendering, encoding and writing


def folder_of(config: EvalConfig) -> Path:
    """The folder of --json, else `eval` in the run folder, without one in the current folder."""
    if config.json and config.json != STDOUT:
        return config.json.parent
    return (Run(config.run).folder if config.run else Path()) / "eval"


def check_videos(config: EvalConfig) -> None:
    """Fail now if the videos of an evaluation could not be written after it."""
    if config.video:
        check_encoder(config.video_format)
        check_folder(folder_of(config))


def check_folder(out: Path) -> None:
    """Fail now if videos could not be written beside a result after the measurement."""
    folder = out / FOLDER
    check_writable(folder / "1.webp" if folder.exists() else folder)


def write_videos(
    config: EvalConfig,
    evaluator: Evaluator,
    policy: Budget,
    profile: LatencyProfile,
    row: BudgetResult,
) -> None:
    """Film the chosen episodes of an evaluation; one that cannot be filmed is a line."""
    shown = Shown(policy, PAUSED if config.clock == "paused" else profile, row)
    seeds = chosen_seeds(config.video_of, evaluator.seeds, row.outcomes.success, config.video)
    folder, written = folder_of(config) / FOLDER, 0
    for seed in progress_bar(seeds, desc="videos", unit="episode", disable=not seeds):
        try:
            shot = replay(evaluator, shown, seed)
            moments = film([panel_of(evaluator, shown, shot)], evaluator.options.control_dt_s)
            content = encoded(moments, config.video_format)
            write_bytes(folder / f"{name_of(row, shot.episode)}.{config.video_format}", content)
        except FAILURES as error:
            tqdm.write(f"no video of seed {seed}: {error}")
            continue
        written += 1
        if shot.trouble:
            tqdm.write(f"seed {seed}: {trouble_of(shot)}")
    found = f"{config.video_of}: {len(seeds)}" if len(seeds) < config.video else config.video_of
    say(f"wrote {written} of {config.video} videos ({found}) to {folder}")


def chosen_seeds(
    of: VideoOf, seeds: Sequence[int], success: Sequence[int], count: int
) -> list[int]:
    """The first `count` seeds [E], or those of the first failures or successes [E]."""
    wanted = {"failures": (0,), "successes": (1,), "seeds": (0, 1)}[of]
    found = [seed for seed, reached in zip(seeds, success, strict=True) if reached in wanted]
    return found[:count]


def name_of(row: BudgetResult, episode: Episode) -> str:
    """File name of a video, without its ending: budget, clock, seed and outcome."""
    outcome = "success" if episode.success else "failure"
    return f"{plain(f'{row.name} {row.clock}', 40)}_seed_{episode.seed}_{outcome}"


def replay(evaluator: Evaluator, shown: Shown, seed: int, known: Frames | None = None) -> Frames:
    """The seed's episode again, with frames. Raises DiffpolicyError if it is not the stored one.

    known: such a replay that was run before; it is checked alone.
    """
    kept = film_frames(evaluator.options)
    shot = known or frames_of(evaluator, shown.policy, shown.profile, seed, kept)
    check_outcome(shown.row, evaluator.seeds.index(seed), shot.episode)
    if not shot.ticks:
        raise DiffpolicyError(shot.episode.failure or "the episode has no frames")
    return shot


def film_frames(options: RolloutOptions) -> int:
    """Frames of the longest episode, for a film."""
    frames = math.ceil((options.limit or 1) * options.control_dt_s / FRAME_S)
    return min(frames, MOST_FRAMES)


def check_outcome(row: BudgetResult, place: int, replayed: Episode) -> None:
    """Raise DiffpolicyError if a replay ends other than the episode at this place of the row."""
    stored, e = row.outcomes, replayed
    success, score = bool(stored.success[place]), stored.score[place]
    tick = stored.success_tick and stored.success_tick[place]
    if (success, score, tick) != (e.success, round(e.score, 6), e.success_tick):
        ends = [
            f"{'success' if s else 'failure'}, score {x:g}, first success at tick {t}"
            for s, x, t in ((e.success, e.score, e.success_tick), (success, score, tick))
        ]
        raise DiffpolicyError(
            f"its replay is another episode ({ends[0]}; stored: {ends[1]}); the environment or the "
            "policy does not repeat"
        )


def panel_of(evaluator: Evaluator, shown: Shown, shot: Frames) -> Panel:
    """The pictures of a replayed episode with its overlay."""
    title = f"{shown.row.name}, seed {shot.episode.seed}"
    return panel(title, shot, evaluator.options.control_dt_s, shown.policy.horizons.usable)


def note_of(shown: Shown, shot: Frames) -> str:
    """The budget and the outcome of a replayed episode, for a caption."""
    e = shot.episode
    note = f"{shown.row.name}: {ending(e.success, e.score, e.ticks)}"
    return f"{note} ({trouble_of(shot)})" if shot.trouble else note
