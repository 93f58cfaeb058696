"""Videos: they show the evaluated episodes, and lose no result where they cannot be made."""

import io
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from pictured import TICKS, image_checkpoint, make_look
from PIL import Image

from diffpolicy.checkpoint import save_policy
from diffpolicy.config import Sampling
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import PAUSED, constant_ticks
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.eval.measure.frames import Frames, frames_of, render_episode
from diffpolicy.eval.measure.results import Outcomes
from diffpolicy.eval.videos import animation, pictures
from diffpolicy.eval.videos import evaluation as videos
from diffpolicy.eval.videos import sweep as sweep_videos
from diffpolicy.eval.videos.animation import MOST_BYTES, encoded, thinned
from diffpolicy.eval.videos.film import (
    GREEN,
    LAST_MS,
    LINE,
    RED,
    film,
    overlay,
    panel,
    rgb,
    scaled,
    traced,
)
from diffpolicy.eval.videos.pictures import Shown
from diffpolicy.policy import Policy

DT_S = 0.1
OPTIONS = RolloutOptions(DT_S, envs=16, batch=16, cold_start=False, limit=TICKS)
LATE = constant_ticks(3, DT_S)
SMALL = ("--episodes", 6, "--envs", 3, "--batch", 16, "--workers", 1, "--engine", "eager")


@pytest.fixture(scope="module")
def checkpoint():
    return image_checkpoint("image", "place")


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy(checkpoint, Sampling(ddim_steps=2), device="cpu", engine="eager")


@pytest.fixture(scope="module")
def shot(policy) -> Frames:
    """An episode with late chunks, every tick a frame."""
    return render_episode(policy, make_look, 3, LATE, OPTIONS, [0] * 4, kept=100)


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "run"
    folder.mkdir()
    save_policy(folder / "policy.safetensors", checkpoint)
    return folder


# Overlay


def test_the_overlay_has_the_tick_and_the_age_of_the_episode(shot):
    """Chunks of 5 usable actions, 3 ticks late, begun every 3 ticks: one tick of 3 starves."""
    ages = [0, 1, 2, 3, 4, 3, 4, None, 3, 4, None, 3]
    assert shot.episode.ages_by_tick == ages and shot.episode.starved == (7, 10)
    for tick, age in enumerate(ages):
        found = overlay(shot.episode, tick, DT_S, False)
        assert found.age == age and found.lines[0] == f"tick {tick}, {tick * DT_S:.2f} s"
        said = f"action age {age} tick{'s' * (age != 1)}, {100 * (age or 0)} ms"
        assert found.lines[1] == (said if age is not None else "no action: starved")
    assert overlay(shot.episode, TICKS, DT_S, True).lines[1] == "no action: the end"


def test_the_overlay_tells_success_from_its_tick_on_and_the_outcome_at_the_end(shot):
    won = replace(shot.episode, success=True, success_tick=5)
    said = [overlay(won, tick, DT_S, tick == TICKS).lines[2] for tick in (0, 4, 5, TICKS)]
    assert said == ["no success yet"] * 2 + ["success at tick 5", "outcome: success"]
    lost = overlay(replace(won, success=False), TICKS, DT_S, True)  # by a rule such as at-end
    assert (lost.lines[2], lost.colour) == ("outcome: failure", RED)
    assert overlay(won, 5, DT_S, False).colour == GREEN


def test_a_panel_has_every_frame_and_another_bar_for_another_age(shot):
    found = panel("2 steps", shot, DT_S, oldest=5)
    assert list(found) == list(shot.frames) == shot.ticks == list(range(TICKS + 1))
    bar = LINE + scaled(rgb(shot.frames[0])).height + 3
    widths = {t: int((np.array(found[t])[bar, :, 0] > 200).sum()) for t in (0, 1, 4, 7)}
    assert widths[0] == widths[7] == 0
    assert widths[4] == pytest.approx(4 * widths[1], abs=4)


# Films


def test_a_film_lasts_as_long_as_its_longest_episode(shot):
    long = panel("long", shot, DT_S, 5)
    short = {tick: long[tick] for tick in (0, 4, 5)}
    images, durations = film([short, long], DT_S)
    assert len(images) == TICKS + 1 and durations == [100] * TICKS + [LAST_MS]
    assert images[0].size == (2 * long[0].width, long[0].height)
    left = np.array(images[-1])[:, : long[0].width]
    np.testing.assert_array_equal(left, np.array(short[5]))  # it stands at its end


def test_wide_pictures_are_below_each_other():
    wide = {0: Image.new("RGB", (300, 100))}
    assert film([wide, wide], DT_S).images[0].size == (300, 200)


@pytest.mark.parametrize(
    ("shape", "size"), [((400, 600), (300, 200)), ((96, 96), (96, 96)), ((16, 32), (192, 96))]
)
def test_pictures_are_halved_unless_they_are_small(shape, size):
    assert scaled(rgb(np.zeros((*shape, 3), np.uint8))).size == size


@pytest.mark.parametrize(
    ("frame", "colour"),
    [
        (np.full((2, 2, 3), 0.5), (128, 128, 128)),
        (np.full((2, 2, 1), 7, np.uint8), (7, 7, 7)),
        (np.array([[[1, 2, 3, 0]]], np.uint8), (1, 2, 3)),
    ],
    ids=["floats", "grey", "RGBA"],
)
def test_every_kind_of_picture_is_shown(frame, colour):
    assert rgb(frame).getpixel((0, 0)) == colour


def test_without_pictures_a_line_moves_over_the_observations():
    found = traced([np.array([t, -t]) for t in range(11)], [0, 5, 10], DT_S)
    reds = [np.flatnonzero((np.array(p) == (255, 123, 114)).all(2).any(0)) for p in found.values()]
    middles = [columns.mean() for columns in reds]
    assert middles[1] - middles[0] == pytest.approx(middles[2] - middles[1], abs=1.5) and all(
        0 < count.size < 5 for count in reds
    )


def test_an_episode_without_pictures_has_a_panel_of_every_tick(shot):
    found = panel("2 steps", shot._replace(frames={}), DT_S, 5)
    assert list(found) == shot.ticks and len({p.size for p in found.values()}) == 1


# Files


def noisy(count: int) -> animation.Film:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 65, 3), np.uint8)
    return animation.Film([Image.fromarray(frame) for frame in pixels], [40] * count)


def durations_of(content: bytes) -> list[int]:
    picture = Image.open(io.BytesIO(content))
    found = []
    for number in range(picture.n_frames):
        picture.seek(number)
        picture.load()
        found.append(picture.info["duration"])
    return found


def test_an_animated_webp_has_all_images_in_real_time():
    assert durations_of(animation.webp(noisy(5), 75)) == [40] * 5


def test_a_video_is_made_small_by_quality_then_by_fewer_images(monkeypatch):
    whole = noisy(9)
    sizes = [len(animation.webp(whole, q)) for q in animation.WEBP_QUALITIES]
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(animation, "MOST_BYTES", sizes[1])
    assert len(encoded(whole, "webp")) == sizes[1]
    monkeypatch.setattr(animation, "MOST_BYTES", sizes[-1] - 1)
    found = encoded(whole, "webp")
    assert len(found) < sizes[-1] and durations_of(found) == [80] * 4 + [40]


def test_a_thinned_film_keeps_its_time_and_its_end():
    for count in (3, 4, 8):
        film_, half = noisy(count), thinned(noisy(count))
        assert sum(half.durations_ms) == sum(film_.durations_ms)
        assert half.images[-1].tobytes() == film_.images[-1].tobytes()
        assert half.durations_ms[-1] == 40


def test_mp4_has_the_same_times():
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(io.BytesIO(encoded(noisy(5), "mp4"))) as container:
        frames = list(container.decode(video=0))
    assert [round(1000 * f.pts * f.time_base) for f in frames] == [0, 40, 80, 120, 160, 200]
    assert (frames[0].width, frames[0].height) == (66, 64)


# Replays


@pytest.fixture(scope="module")
def evaluator(policy):
    config = EvalConfig(run=Path("none"), episodes=8, envs=3, batch=16, workers=1)
    with Evaluator(config, policy) as found:
        yield found


@pytest.mark.parametrize(("clock", "profile"), [("paused", PAUSED), ("simulated", LATE)])
def test_a_replay_is_the_stored_episode_and_no_other_is_shown(policy, evaluator, clock, profile):
    row, _ = evaluator.evaluate(policy, clock, profile)
    shown, stored = Shown(policy, profile, row), row.outcomes
    for place, seed in enumerate(evaluator.seeds):
        episode = videos.replay(evaluator, shown, seed).episode
        assert (episode.seed, episode.success) == (seed, bool(stored.success[place]))
        assert round(episode.score, 6) == stored.score[place]
    wrong = replace(row, outcomes=replace(stored, success=[1 - s for s in stored.success]))
    with pytest.raises(DiffpolicyError, match="its replay is another episode"):
        videos.replay(evaluator, Shown(policy, profile, wrong), evaluator.seeds[0])


def test_the_chosen_seeds_are_the_first_of_their_kind():
    chosen = partial(videos.chosen_seeds, seeds=range(10, 15), success=[1, 0, 0, 1, 0])
    assert chosen("failures", count=2) == [11, 12]
    assert chosen("successes", count=9) == [10, 13]
    assert chosen("seeds", count=3) == [10, 11, 12]


def test_eval_films_after_the_result(run, tmp_path, call):
    given = ("--clock", "simulated", "--latency-ticks", 3, "--json", tmp_path / "eval.json")
    code, out, errors = call("eval", "--run", run, "--ddim-steps", 2, *SMALL, *given, "--video", 2)
    assert (code, errors) == (0, [])
    stored = json.loads((tmp_path / "eval.json").read_text())["records"][0]["outcomes"]["success"]
    outcomes = ["success" if reached else "failure" for reached in stored]
    expected = [f"2_steps_simulated_seed_{100_000 + i}_{outcomes[i]}.webp" for i in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == expected
    assert out.endswith(f"wrote 2 of 2 videos (seeds) to {tmp_path / 'videos'}\n")
    for name in expected:
        content = (tmp_path / "videos" / name).read_bytes()
        assert len(content) < MOST_BYTES and len(durations_of(content)) > 1


@pytest.mark.parametrize("given", [(), ("--json", "-")])
def test_without_a_file_videos_are_in_the_run_folder(run, tmp_path, call, given):
    run = copytree(run, tmp_path / "run")
    assert call("eval", "--run", run, "--ddim-steps", 1, *SMALL, *given, "--video", 1).code == 0
    [_] = (run / "eval" / "videos").iterdir()


def test_videos_of_failures_alone(run, call):
    given = ("--video", 6, "--video-of", "failures")
    code, out, _ = call("eval", "--run", run, "--ddim-steps", 1, *SMALL, *given)
    found = list((run / "eval" / "videos").iterdir())
    assert code == 0 and f"wrote {len(found)} of 6 videos (failures" in out
    assert all(path.name.endswith("_failure.webp") for path in found)


def test_a_video_that_cannot_be_written_is_a_line_and_loses_no_result(
    run, tmp_path, call, monkeypatch
):
    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(videos, "encoded", full)
    given = ("--json", tmp_path / "eval.json", "--video", 1)
    code, out, errors = call("eval", "--run", run, "--ddim-steps", 1, *SMALL, *given)
    assert code == 0 and errors == []
    assert "no video of seed 100000: the disk is full" in out and "wrote 0 of 1 videos" in out
    assert (tmp_path / "eval.json").exists() and not (tmp_path / "videos").exists()


# Refusals


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--video", 1, "--clock", "wall"), "--video replays episodes by their seed, which the"),
        (("--video-of", "failures"), "belong to --video N"),
        (("--video-format", "mp4"), "belong to --video N"),
        (("--video", -1), "--video must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, refused, given, told):
    assert told in refused("eval", "--run", run, *given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--videos", 1, "--clocks", "paused", "wall"), "--videos replays episodes by their seed"),
        (("--videos", 13), "--videos must be"),
    ],
)
def test_options_of_a_sweep_that_do_not_fit_are_refused(run, refused, given, told):
    assert told in refused("sweep", "--run", run, *given)


def test_mp4_without_its_encoder_is_refused_before_the_evaluation(run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    told = refused("eval", "--run", run, "--video", 1, "--video-format", "mp4")
    assert "--video-format mp4 needs PyAV" in told and "diffpolicy[lerobot]" in told


def test_no_place_for_videos_is_refused_before_the_evaluation(run, tmp_path, refused):
    (tmp_path / "videos").touch()
    given = ("--json", tmp_path / "eval.json", "--video", 1)
    assert "a folder was expected" in refused("eval", "--run", run, *given)
    assert not (tmp_path / "eval.json").exists()


# Sweeps


def test_the_first_seed_comes_first_then_those_on_which_the_budgets_differ(policy, evaluator):
    row, _ = evaluator.evaluate(policy, "paused", PAUSED)
    success = [[1, 0, 0, 1, 0], [1, 0, 1, 1, 1]]
    rows = [replace(row, outcomes=Outcomes(success=s, score=s)) for s in success]
    shown = [Shown(policy, PAUSED, each) for each in rows]
    found = sweep_videos.chosen_seeds(shown, "success", range(10, 15))
    assert found == [(10, 0), (12, 1), (14, 1), (11, 0), (13, 0)]
    assert sweep_videos.chosen_seeds(shown, "score", range(10, 13)) == [(10, 0), (12, 1), (11, 0)]


def test_a_sweep_shows_its_videos_in_the_report(run, tmp_path, call):
    given = ("--latency-ticks", 2, "--clocks", "simulated", "--no-ddpm", "--no-pictures")
    more = ("--ddim-steps", 1, 2, "--videos", 2, "--out", tmp_path)
    assert call("sweep", "--run", run, *SMALL, *given, *more).code == 0
    found, page = json.loads((tmp_path / "sweep.json").read_text()), "report.html"
    assert [video["file"] for video in found["videos"]] == [
        f"videos/{path.name}" for path in sorted((tmp_path / "videos").iterdir())
    ]
    assert found["videos"][0]["title"].startswith("seed 100000")
    assert all(f"{name}: " in found["videos"][0]["caption"] for name in ("1 step", "2 steps"))
    text = (tmp_path / page).read_text()
    assert text.count('src="data:image/webp;base64,') == 2 and 'alt="seed 100000' in text
    assert all(f'id="film-{video["seed"]}"' in text for video in found["videos"])
    assert len(text) < 5e6
    assert call("report", tmp_path / "sweep.json", "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / page).read_text().replace('"../sweep', '"sweep') == text


def test_a_budget_that_cannot_be_filmed_is_told_in_the_report(run, tmp_path, call, monkeypatch):
    def broken(*_):
        raise DiffpolicyError("no driver")

    monkeypatch.setattr(sweep_videos, "replay", broken)
    given = ("--clocks", "paused", "--no-ddpm", "--no-pictures", "--latency-ticks", 0)
    more = ("--ddim-steps", 1, "--videos", 1, "--out", tmp_path)
    code, out, _ = call("sweep", "--run", run, *SMALL, *given, *more)
    assert code == 0 and "no video of 1 step, seed 100000: no driver" in out
    assert "no picture: 1 step: no driver" in (tmp_path / "report.html").read_text()


def test_picture_and_video_of_an_episode_are_of_one_replay(run, tmp_path, call, monkeypatch):
    seeds: list[int] = []

    def counted(evaluator, policy, profile, seed, kept):
        seeds.append(seed)
        return frames_of(evaluator, policy, profile, seed, kept)

    monkeypatch.setattr(pictures, "frames_of", counted)
    monkeypatch.setattr(videos, "frames_of", counted)
    given = ("--latency-ticks", 2, "--clocks", "simulated", "--no-ddpm", "--ddim-steps", 1, 2)
    assert call("sweep", "--run", run, *SMALL, *given, "--videos", 2, "--out", tmp_path).code == 0
    first, other = 100_000, seeds[1]
    assert seeds == [first, other] * 2 and other != first
    assert len(list((tmp_path / "rollouts").iterdir())) == 2
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert [len(video["budgets"]) for video in found["videos"]] == [2, 2]
