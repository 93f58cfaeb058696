"""Contents of demonstrations, as `diffpolicy info` prints them."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.config import InfoConfig
from diffpolicy.errors import DiffpolicyError

BLOCK_BYTES = 2**20  # least number of bytes read at a time


def info(config: InfoConfig) -> None:
    """Print the arrays and episodes of a store."""
    _print_store(config)


def _print_store(config: InfoConfig) -> None:
    """Print a line for each array; raise DiffpolicyError at the end if the actions are unusable."""
    from diffpolicy.data.demonstrations import contents

    _check_kind(config.path)
    if config.plot:
        _check_plot(config.plot)
    source = contents(config.path)
    lengths = np.diff(source.ends, prepend=0)
    if not len(lengths):
        raise DiffpolicyError(f"{config.path} holds no finished episode")
    print(f"{config.path}: {len(lengths)} episodes, {source.rows:,} steps{_duration(source)}")
    print(f"  lengths {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}")
    names = sorted(source.names, key=lambda name: name != "action")
    claimed: dict[str, int] = {}
    failures = {name: error for name in names if (error := _print_array(source, name, claimed))}
    for note in (*source.notes, *source.unread(max(claimed.values(), default=source.rows))):
        print(f"  {note}")
    if "action" not in names:
        print("  no data/action: give train the name of the array of actions with --action")
    for name, value in source.store.attributes.items():
        if value is not None:
            print(f"  {name}: {value}")
    if "action" in failures:
        raise failures["action"]
    if "action" in names:
        _survey(config, source)
    elif config.plot:
        raise DiffpolicyError(f"{config.path} has no data/action, which --plot needs")


def _duration(source: Any) -> str:
    """Duration and rate of all steps, as the end of a line; "" if the period is not known."""
    dt = source.store.attributes.get("control_dt_s")
    if not isinstance(dt, int | float) or isinstance(dt, bool) or not 0 < dt < math.inf:
        return ""
    return f", {source.rows * dt / 60:,.3g} min at {1 / dt:.4g} Hz"


def _check_plot(path: Path) -> None:
    from diffpolicy.files import check_writable
    from diffpolicy.stores.plot import check_suffix

    check_suffix(path)
    check_writable(path)


def _survey(config: InfoConfig, source: Any) -> None:
    """Print facts about the motion; draw them on request."""
    from diffpolicy.stores.dimensions import table
    from diffpolicy.stores.survey import lines, survey

    limits = _limits(config, source) if config.plot or config.env else None
    found = survey(source, limits)
    for line in (*lines(found), *table(found)):
        print(f"  {line}")
    if config.plot:
        from diffpolicy.stores.frames import strips
        from diffpolicy.stores.plot import write_plot

        pictures, episode = strips(source)
        write_plot(config.plot, _title(config.path, found), found, pictures, f"episode {episode}")
        print(f"wrote {config.plot}")


def _limits(config: InfoConfig, source: Any) -> Any:
    from diffpolicy.stores.space import action_limits

    dimensions = math.prod(source.store.array("data/action").shape[1:])
    limits, reason = action_limits(source.store.attributes, config.env, dimensions)
    if reason:
        print(f"  no action space: {reason}")
    return limits


def _title(path: Path, found: Any) -> str:
    lengths, dt = found.lengths, found.control_dt_s
    seconds = lengths.sum() * (dt or 0)
    time = f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:,.3g} min"
    rate = f", {time} at {1 / dt:.4g} Hz" if dt else ""
    return f"{path.name}: {len(lengths):,} episodes, {lengths.sum():,} steps{rate}"


def _check_kind(path: Path) -> None:
    """Refuse a folder that holds data sets and run folders; name them."""
    from diffpolicy.checkpoint import POLICY_FILE
    from diffpolicy.data.formats import inner, recognised

    runs = [str(found.parent) for found in path.glob(f"*/{POLICY_FILE}")]
    if runs and not recognised(path):
        raise DiffpolicyError(
            f"{path} is neither a data set nor a run folder; it holds "
            f"{', '.join(sorted({*runs, *inner(path)}))}: give one of them"
        )


def _print_array(source: Any, name: str, claimed: dict[str, int]) -> DiffpolicyError | None:
    """Print shape and range of an array, or the reason why it is unusable; count its rows."""
    what = f"{source.store.path}: data/{name}"
    try:
        array, notes = source.array(name)
        source.check_length(name, array, claimed.get("action", array.shape[0]))
        low, high = _range(array, source.rows, what)
    except DiffpolicyError as error:
        reason = " ".join(str(error).removeprefix(what).split())
        print(f"  data/{name:<14} cannot be used: {reason}")
        return error
    claimed[name] = array.shape[0]
    shape = (source.rows, *array.shape[1:])
    fits = name != "action" and low >= 0 and high <= 255
    kind = _of_pictures(array, source.rows) if fits else ""
    print(f"  data/{name:<14} {shape!s:<18} from {low:.4g} to {high:.4g}{kind}")
    for note in notes:
        print(f"  {note}")
    return None


def _of_pictures(array: Any, rows: int) -> str:
    """Type of pictures and the memory that training takes for them; "" for other arrays."""
    from diffpolicy.data.pictures import held_bytes

    size = held_bytes(array, rows)
    stored = "" if array.dtype == np.uint8 else f"{array.dtype}, held as "
    return f", pictures: {stored}uint8, {size / 1e6:,.0f} MB in memory" if size else ""


def _range(array: Any, rows: int, what: str) -> tuple[float, float]:
    """Smallest and largest number of an array, read a few chunks at a time."""
    from diffpolicy.data.zarr_store import blocks

    low, high, bad, first = math.inf, -math.inf, 0, 0
    for start, block in blocks(array, rows, what, BLOCK_BYTES):
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())  # keep NaN
        if not math.isfinite(low) or not math.isfinite(high):
            unusable = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
            first = first if bad else start + int(unusable.argmax())
            bad += int(unusable.sum())
    if bad:
        share = f"{bad:,} of {rows:,} rows are not"
        raise DiffpolicyError(f"{what} is not finite (NaN or inf) at row {first}; {share}")
    return float(low), float(high)
