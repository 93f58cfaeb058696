"""Features of a LeRobot data set that cannot be read, and sentences about what is not kept."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from diffpolicy.checked import shown
from diffpolicy.data.demonstration import OUTCOME_TYPES
from diffpolicy.data.formats import lerobot_layout as layout
from diffpolicy.data.formats.lerobot_episodes import Episode
from diffpolicy.data.formats.lerobot_video import is_installed
from diffpolicy.data.formats.options import OptionNeeded, SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION

NEEDED = (ACTION, "episode_index", "frame_index")
HELD = (*layout.NUMBERS, *layout.PICTURES)  # types of features


def check(
    path: Path, info: layout.Info, sidecar: layout.Sidecar, skip: tuple[str, ...]
) -> dict[str, layout.Feature]:
    """The features that are not skipped; DiffpolicyError if one cannot be read."""
    _check_names(path, info.features, skip)
    features = {name: f for name, f in info.features.items() if name not in skip}
    _check_keys(path, [sidecar.names.get(name, name) for name in features])
    _check_pictures(path, features)
    return features


def notes(
    path: Path,
    info: layout.Info,
    sidecar: layout.Sidecar,
    features: Mapping[str, layout.Feature],
    episodes: list[Episode],
    options: SourceOptions,
) -> tuple[str, ...]:
    """Sentences about everything that a store cannot hold, and that the data set does not say."""
    declared = "position_targets" in sidecar.attributes or options.position_targets is not None
    undeclared = (
        "LeRobot does not declare if actions are position targets (--position-targets True or "
        "False)"
    )
    found = (*_lost(path, features), *_facts(info), *_counted(info, episodes))
    return found if declared else (*found, undeclared)


def _check_names(path: Path, features: Mapping[str, layout.Feature], skip: tuple[str, ...]) -> None:
    """Raise DiffpolicyError for names to skip that are not there, and features that must be."""
    names = ", ".join(features)
    for name in skip:
        if name not in features or name in NEEDED:
            raise DiffpolicyError(f"--skip {name}: {path} has, or needs, other names: {names}")
    for name in NEEDED:
        if name not in features or not features[name].is_numbers:
            raise DiffpolicyError(f"{path} has no feature {name} of numbers; it has: {names}")


def _check_keys(path: Path, keys: list[str]) -> None:
    """Raise DiffpolicyError for keys that a store does not take as names of arrays."""
    for key in keys:
        parts = key.split("/")
        if not key.isprintable() or {"", ".", ".."} & set(parts) or keys.count(key) > 1:
            raise DiffpolicyError(f"{path}: {shown(key)} is not the name of one array")
        if key in OUTCOME_TYPES:
            raise DiffpolicyError(
                f"{path}: a store keeps another array as {key}; --skip {key} leaves it out"
            )


def _check_pictures(path: Path, features: Mapping[str, layout.Feature]) -> None:
    """Raise DiffpolicyError for pictures that are not [H, W, C], depths, and absent decoders."""
    for name, feature in features.items():
        if feature.dtype in layout.PICTURES and not feature.picture:
            raise DiffpolicyError(
                f"{path}: {name} has the shape {list(feature.shape)}; expected a picture "
                f"[H, W, C]; --skip {name} leaves it out"
            )
        if feature.dtype == "video" and feature.is_depth:
            raise OptionNeeded(
                f"{path}: {name} is a depth, no picture of 8 bit; --skip {name} leaves it out"
            )
    videos = [name for name, feature in features.items() if feature.dtype == "video"]
    if videos and not is_installed():
        raise OptionNeeded(
            f"the videos {', '.join(videos)} need av; install it with pip install "
            f"'diffpolicy[lerobot]', or leave them out with --skip {' '.join(videos)}"
        )


def _lost(path: Path, features: Mapping[str, layout.Feature]) -> Iterator[str]:
    """Sentences about everything that is left out, or read in one of several senses."""
    for name, feature in features.items():
        if feature.dtype not in HELD:
            yield f"{name} is left out: a store holds no {feature.dtype}"
        if feature.dtype == "video":
            yield f"{name} is decoded from a video, which was compressed with loss"
    if layout.SUCCESS in features:
        yield f"{layout.SUCCESS} is kept as one success of each episode: true at any frame"
    if "next.done" in features and "next.truncated" not in features:
        yield "next.done is read as terminated; the format does not tell a time limit from an end"
    if (path / "meta/modality.json").exists():
        yield "meta/modality.json, which names parts of vectors, is not kept"
    named = [name for name, f in features.items() if f.is_numbers and f.names is not None]
    if named:
        yield f"the names of the dimensions are not kept: {', '.join(named)}"


def _facts(info: layout.Info) -> Iterator[str]:
    """Sentences about facts of info.json that a store has no place for."""
    if info.robot_type is not None:
        yield f"robot_type is not kept: {shown(info.robot_type)}"
    if isinstance(info.splits, dict) and len(info.splits) > 1:
        yield f"all splits are read as one: {', '.join(map(str, info.splits))}"


def _counted(info: layout.Info, episodes: list[Episode]) -> Iterator[str]:
    """Sentences about counts that contradict the episodes, and episodes with several tasks."""
    counted = (info.total_episodes, info.total_frames)
    there = (len(episodes), sum(episode.length for episode in episodes))
    if any(count not in (None, true) for count, true in zip(counted, there, strict=True)):
        yield (
            f"meta/info.json counts {counted[0]} episodes and {counted[1]} frames; there are "
            f"{there[0]} and {there[1]}"
        )
    if several := sum(len(episode.tasks) > 1 for episode in episodes):
        yield f"{several:,} episodes have several tasks; that of the first frame is kept"
