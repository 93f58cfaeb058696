"""Options of videos: replays of episodes, on the clocks that repeat them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffpolicy.checked import Checked, Range
from diffpolicy.errors import DiffpolicyError

VideoOf = Literal["failures", "successes", "seeds"]
VideoFormat = Literal["webp", "mp4"]
WALL = (
    "replays episodes by their seed, which the wall clock cannot repeat; expected paused or "
    "simulated"
)


@dataclass(frozen=True)
class EvalVideos(Checked):
    """Videos of one budget."""

    video: Annotated[int, Range(0, 1000)] = 0
    """Number of episodes to film, after the evaluation, in the folder videos beside --json, or in
    eval of the run folder."""
    video_of: VideoOf = "seeds"
    """Episodes to film: the first failures, the first successes, or those of the first seeds."""
    video_format: VideoFormat = "webp"
    """webp: an animated picture. mp4: H.264, which needs diffpolicy[lerobot]."""

    def __post_init__(self):
        super().__post_init__()
        if self.video and getattr(self, "clock", None) == "wall":
            raise DiffpolicyError(f"--video {WALL} as --clock")
        if not self.video and (self.video_of, self.video_format) != ("seeds", "webp"):
            raise DiffpolicyError("--video-of and --video-format belong to --video N; give it, too")


@dataclass(frozen=True)
class SweepVideos(Checked):
    """Videos of a sweep."""

    videos: Annotated[int, Range(0, 12)] = 0
    """Number of seeds to film for the report, each at the cheapest, the recommended and the most
    expensive budget on the last clock: the first seed, then those on which these budgets differ
    most."""

    def __post_init__(self):
        super().__post_init__()
        if self.videos and getattr(self, "clocks", ("",))[-1] == "wall":
            raise DiffpolicyError(f"--videos {WALL} as the last of --clocks")
