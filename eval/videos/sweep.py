"""Pictures and videos of a sweep: seeds at several budgets, also those where the budgets differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from diffpolicy.files import write_bytes
from diffpolicy.terminal.progress import progress_bar

from ..config import SweepConfig
from ..measure.evaluator import Evaluator
from ..measure.frames import KEPT, Frames
from ..measure.results import Metric, Video
from .animation import encoded
from .evaluation import FAILURES, FOLDER, film_frames, note_of, panel_of, replay
from .film import Panel, film
from .pictures import Pictured, Shown, picture_of, plain

LONGEST = 60  # characters of a file name without its ending


class Chosen(NamedTuple):
    """A seed to film, and the difference of its largest and smallest outcome over the budgets."""

    seed: int
    spread: float


class Replayed(NamedTuple):
    """The pictures of an episode, None if it cannot be shown, and its outcome or the reason."""

    panel: Panel | None
    note: str


class Seen(NamedTuple):
    """Pictures of the first episode at each budget, and videos of some seeds."""

    pictured: list[Pictured]
    videos: list[Video]


def see(
    evaluator: Evaluator, shown: Sequence[Shown], metric: Metric, config: SweepConfig, out: Path
) -> Seen:
    """Write pictures to out/rollouts, if wanted, and films of `config.videos` seeds to out/videos.

    The first episode of a budget runs once for both.
    """
    chosen = chosen_seeds(shown, metric, evaluator.seeds)[: config.videos]
    pictured: list[Pictured] = []
    replays: dict[int, list[Replayed]] = {seed: [] for seed, _ in chosen}
    total = len(chosen) * len(shown)
    with progress_bar(total=total, desc="videos", unit="episode", disable=not total) as bar:
        for number, budget in enumerate(shown, 1):  # in this order the worker keeps its engine
            first = None
            if config.pictures:
                kept = film_frames(evaluator.options) if chosen else KEPT
                found, first = picture_of(evaluator, budget, number, out, kept)
                pictured.append(found)
            for seed, of_seed in replays.items():  # that of the picture comes first
                of_seed.append(_replayed(evaluator, budget, seed, first))
                first = None
                bar.update(1)
    return Seen(pictured, _films(evaluator, shown, chosen, replays, out))


def _films(
    evaluator: Evaluator,
    shown: Sequence[Shown],
    chosen: Sequence[Chosen],
    replays: Mapping[int, Sequence[Replayed]],
    out: Path,
) -> list[Video]:
    """Write a film of each chosen seed, one file each in out/videos."""
    dt_s = evaluator.options.control_dt_s
    names = [f"{FOLDER}/{name_of(number, each, shown)}" for number, each in enumerate(chosen, 1)]
    return [
        _written(each, shown, name, replays[each.seed], dt_s, out)
        for each, name in zip(chosen, names, strict=True)
    ]


def chosen_seeds(shown: Sequence[Shown], metric: Metric, seeds: Sequence[int]) -> list[Chosen]:
    """The first seed, then the others [E] by how much the shown budgets differ on them.

    Of several training seeds it is the outcomes of the first one, whose policy is shown.
    """
    of_budgets = [getattr(each.row.outcomes, metric)[: len(seeds)] for each in shown]
    spread = np.ptp(np.array(of_budgets, float), axis=0)
    order = 1 + np.argsort(-spread[1:], kind="stable")
    return [Chosen(seeds[i], float(spread[i])) for i in (0, *order.tolist())]


def name_of(number: int, chosen: Chosen, shown: Sequence[Shown]) -> str:
    """File name of a video: its number, the seed and the budgets, shortened."""
    names = " ".join(each.row.name for each in shown)
    return plain(f"{number} seed {chosen.seed} {names}", LONGEST) + ".webp"


def _replayed(evaluator: Evaluator, budget: Shown, seed: int, known: Frames | None) -> Replayed:
    try:
        shot = replay(evaluator, budget, seed, known)
        return Replayed(panel_of(evaluator, budget, shot), note_of(budget, shot))
    except FAILURES as error:
        tqdm.write(f"no video of {budget.row.name}, seed {seed}: {error}")
        return Replayed(None, f"{budget.row.name}: {error}")


def _written(
    chosen: Chosen,
    shown: Sequence[Shown],
    file: str,
    replays: Sequence[Replayed],
    dt_s: float,
    out: Path,
) -> Video:
    """Write one video of what could be replayed; an error is its caption."""
    differ = ", on which the budgets differ" if chosen.spread else ""
    title = f"seed {chosen.seed}{differ}, {shown[0].clock}"
    caption = "; ".join(note for _, note in replays)
    panels = [found for found, _ in replays if found]
    pairs = zip(shown, replays, strict=True)
    budgets = [each.row.name for each, found in pairs if found.panel]
    try:
        if panels:
            write_bytes(out / file, encoded(film(panels, dt_s), "webp"))
    except FAILURES as error:
        return Video(title, f"{caption}: {error}", None, chosen.seed)
    return Video(title, caption, file if panels else None, chosen.seed, budgets)
