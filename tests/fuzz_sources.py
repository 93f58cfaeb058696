"""Mutated data sets of every format: `python tests/fuzz_sources.py --cases 5000`.

Every case copies a sample data set (folder of DIFFPOLICY_SAMPLES), damages one file of it (its
bytes, its JSON, a member of its archive, an array or link of its HDF5, its table or its pickle),
opens it and reads every episode, in a child process whose machine seems to have 1 GiB of memory.
Allowed: a read of well-formed episodes, one DiffpolicyError of one line, or a system error, such as
that of a loop of links, which commands print in one line as well. Faults: another exception, a
crash, more than 30 s, more than 1 GiB of memory of its own, or a new file outside the data set.
A case is repeated by its number: `python tests/fuzz_sources.py --only 1234`.
"""

import argparse
import io
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import VALUES, damage_bytes, damage_json, damage_lines, is_json, pick
from tqdm import tqdm

from diffpolicy.data.formats import open_source
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError

SECONDS, BYTES, MACHINE = 30.0, 2**30, 2**30
ADDRESSES = 12 * 2**30  # an allocation beyond fails
FINE, REFUSED, FAULT = range(3)
MAPPED = ("observation=observations", "action=actions")
SOURCES = {  # name: (path in the samples, options)
    **{name: (name, {}) for name in ("dp.zarr", "dp.zarr.zip", "robomimic.hdf5", "d4rl.hdf5")},
    **{name: (name, {}) for name in ("maniskill.h5", "ogbench.npz", "adroit_numpy2.pickle")},
    **{
        f"lerobot_v{v}_{kind}": (f"lerobot_v{v}_{kind}", {})
        for v in ("2.1", "3.0")
        for kind in ("lowdim", "png", "mp4")
    },
    **{
        f"minari-{name}": (f"minari/diffpolicy/balance-{name}-v0", {})
        for name in ("hdf5", "arrow", "parquet", "image-jpeg0", "image-jpeg1")
    },
    "subset": ("robomimic.hdf5", {"subset": "train"}),
    "mapped hdf5": ("d4rl.hdf5", {"format": "arrays", "map": (*MAPPED, "dones=timeouts")}),
    "mapped npz": ("ogbench.npz", {"format": "arrays", "map": (*MAPPED, "dones=terminals")}),
}
SIZES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
HDF5 = b"\x89HDF"


# Damage by format


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damage one file. Returns the kind of damage."""
    content = path.read_bytes()
    change = structured(path, content)
    if change is not None and rng.random() < 0.6:
        with suppress(ImportError, ValueError, TypeError):  # of packages, on odd arrays
            return change(path, rng)
    if rng.random() < 0.3:
        return damage_bytes(path, content, rng)
    path.write_bytes(scrambled(content, rng))
    return "bytes"


def structured(path: Path, content: bytes) -> Callable | None:
    """Function that damages a file of this kind in its own terms."""
    if path.suffix == ".jsonl" and content:
        return damage_lines
    if content.startswith(HDF5):
        return damage_hdf5
    if content.startswith(b"PK"):
        return damage_archive
    suffixes = {".pickle": damage_pickle, ".parquet": damage_table}
    return suffixes.get(path.suffix) or (damage_json if is_json(content) else None)


def scrambled(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a few places: bits, numbers of 1 to 8 bytes, runs cut out, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at, kind = int(rng.integers(len(data) + 1)), rng.integers(6)
        width = int(rng.choice([1, 2, 4, 8]))
        if kind == 0:
            data[at : at + 1] = bytes(b ^ (1 << int(rng.integers(8))) for b in data[at : at + 1])
        elif kind == 1:
            data[at : at + width] = rng.bytes(width)
        elif kind == 2:
            size = pick(SIZES, rng) % 2 ** (8 * width)
            data[at : at + width] = size.to_bytes(width, pick(("little", "big"), rng))
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            data[at:at] = data[at : at + int(rng.integers(1, 64))]
        else:
            other = int(rng.integers(len(data) + 1))
            data[at : at + 16] = data[other : other + 16]
    return bytes(data)


def odd_array(rng: np.random.Generator) -> np.ndarray:
    """An array of an unfit shape, type or content."""
    shape = pick(((), (0,), (3,), (123, 0), (123, 3), (40, 4, 2), (1, 1, 1, 1), (5000, 2)), rng)
    values = np.full(shape, pick((0.0, np.nan, np.inf, 1e300, -1.0), rng))
    kinds = ("f8", "f2", "i8", "u1", "?", "c8", "S3", ">f4", "f4,i2", "M8[s]")
    with np.errstate(all="ignore"):
        return values.astype(pick(kinds, rng))


def damage_hdf5(path: Path, rng: np.random.Generator) -> str:
    """Remove, rename, replace, link or resize a member, or change an attribute."""
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = pick(names, rng)
        kind = rng.integers(8)
        thing: Any = file[name]
        if kind == 0:
            attributes = list(thing.attrs) or ["total"]
            thing.attrs[pick(attributes, rng)] = json.dumps(pick(VALUES, rng))
            return "attribute"
        if kind == 1:
            file.move(name, pick((f"{name}2", "x", f"{name}/../x", "demo_99999"), rng))
            return "rename"
        held = thing[()] if isinstance(thing, h5py.Dataset) else None
        del file[name]
        if kind == 2:
            return "remove"
        if kind == 3:
            link = pick((h5py.SoftLink("/"), h5py.ExternalLink("/etc/passwd", "x")), rng)
            file[name] = link
        elif kind == 4:
            file[name] = file["/"]
        elif kind == 5 and held is not None and held.ndim:
            shape = (int(pick((0, 1, 10**6, 10**9, 2**40), rng)), *held.shape[1:])
            file.create_dataset(name, shape, held.dtype, chunks=True)
        elif kind == 6 and held is not None and held.ndim:
            file[name] = held[: rng.integers(len(held) + 1)]
        else:
            file.create_dataset(name, data=odd_array(rng))
    return "hdf5"


def damage_archive(path: Path, rng: np.random.Generator) -> str:
    """Damage a member of a zip and pack it again, so that its checksum is right."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = pick(sorted(members), rng)
    kind = rng.integers(5)
    if kind == 0:
        members[pick(("x", "../x", f"{name}2"), rng)] = members.pop(name)
    elif kind == 1 and name.endswith(".npy"):
        packed = io.BytesIO()
        np.save(packed, odd_array(rng))
        members[name] = packed.getvalue()
    elif kind == 2 and name.endswith(".npy"):
        shape = tuple(int(pick(SIZES, rng)) for _ in range(rng.integers(1, 4)))
        header = io.BytesIO()
        values = {"descr": "<f4", "fortran_order": bool(rng.integers(2)), "shape": shape}
        np.lib.format.write_array_header_1_0(header, values)
        members[name] = header.getvalue() + rng.bytes(100)
    elif is_json(members[name]):
        inner = path.with_name("inner")
        inner.write_bytes(members[name])
        damage_json(inner, rng)
        members[name] = inner.read_bytes()
        inner.unlink()
    else:
        members[name] = scrambled(members[name], rng)
    with zipfile.ZipFile(path, "w", pick((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), rng)) as file:
        for member, content in members.items():
            file.writestr(member, content)
    return "member"


class Ran:
    """Makes a file when it is unpickled the usual way."""

    def __reduce__(self):
        return os.mkdir, ("../ran",)


def damage_pickle(path: Path, rng: np.random.Generator) -> str:
    """Change an episode of a list and pickle it again."""
    episodes = pickle.loads(path.read_bytes())
    episode = pick(episodes, rng)
    name = pick(sorted(episode), rng)
    odd = (Ran(), odd_array(rng), None, "x", [1], {}, 10**400, {1: 2}, complex(1), np.float32(1))
    kind = rng.integers(4)
    if kind == 0:
        episode[name] = odd[rng.integers(len(odd))]
    elif kind == 1:
        del episode[name]
    elif kind == 2:
        episodes = odd[rng.integers(len(odd))]
    else:
        episode[pick(("x", 1, None, "actions"), rng)] = episode.pop(name)
    path.write_bytes(pickle.dumps(episodes, int(rng.integers(6))))
    return "pickle"


def damage_table(path: Path, rng: np.random.Generator) -> str:
    """Change a column of a parquet file, or its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    at, kind = int(rng.integers(table.num_columns)), rng.integers(6)
    name = table.column_names[at]
    if kind == 0:
        table = table.remove_column(at)
    elif kind == 1:
        table = table.rename_columns([n if n != name else f"{n}2" for n in table.column_names])
    elif kind == 2:
        table = table.slice(0, int(rng.integers(table.num_rows + 1)))
    elif kind == 3:
        table = pa.concat_tables([table, table])
    else:
        odd = (None, 2**62, -1, 1e300, float("nan"), "x", b"x", [1.0], [[2]], {"a": 1})
        value = odd[rng.integers(len(odd))]
        table = table.set_column(at, name, pa.array([value] * table.num_rows))
    pq.write_table(table, path)
    return "table"


# One case


@dataclass(frozen=True)
class Outcome:
    """Result of a case: source, damaged file, refusal or "", fault or ""."""

    number: int
    source: str
    damaged: str
    refusal: str
    fault: str


def run_case(samples: Path, number: int, seed: int = 0) -> Outcome:
    """Damage a copy of a sample and read it in a child process."""
    rng = np.random.default_rng([seed, number])
    name = pick(sorted(SOURCES), rng)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        report = place / "report.json"
        begin, child = time.monotonic(), os.fork()
        if child == 0:
            _become(samples, name, place, report, rng)
        status, usage = _wait(child, begin + SECONDS)
        seconds, code = time.monotonic() - begin, os.waitstatus_to_exitcode(status)
        told = json.loads(report.read_text()) if report.exists() else {}
        extra = sorted(p.name for p in place.iterdir() if p.name not in ("set", "report.json"))
    refusal = told.get("refusal", "")
    size = 1024 * (usage.ru_maxrss - told.get("held", 0))
    fault = told.get("fault", "") or _judge(code, seconds, size, extra, refusal)
    return Outcome(number, name, told.get("damaged", "?"), refusal, fault)


def _judge(code: int, seconds: float, size: int, extra: list[str], refusal: str) -> str:
    if seconds > SECONDS:
        return "hang"
    if code:
        return f"exit status {code}"
    if size > BYTES:
        return f"{size / 2**30:.2f} GiB of memory"
    return f"new files {extra}" if extra else "several lines" * ("\n" in refusal)


def _become(samples: Path, name: str, place: Path, report: Path, rng) -> None:
    """Damage and read in the child; never return."""
    told: dict[str, Any] = {"held": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    try:
        inner, options = SOURCES[name]
        path, told["damaged"] = _damaged_copy(samples / inner, place / "set", rng)
        report.write_text(json.dumps(told))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        os.chdir(place / "set")
        _on_a_small_machine()
        _read(path, SourceOptions(**options))
    except (DiffpolicyError, OSError) as error:  # the command prints both in one line
        told["refusal"] = str(error)
    except BaseException:
        told["fault"] = traceback.format_exc()[-3000:]
    report.write_text(json.dumps(told))
    os._exit(0)


def _damaged_copy(source: Path, folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """Copy a sample, with the JSON beside it, and damage a file. Returns both names."""
    folder.mkdir()
    path = folder / source.name
    for found in (source, source.with_suffix(".json")):
        if found.is_dir():
            shutil.copytree(found, folder / found.name, copy_function=shutil.copyfile)
            for part in path.rglob("*"):
                part.chmod(0o755)
        elif found.is_file():
            shutil.copyfile(found, folder / found.name)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    chosen = pick(files, rng)
    return path, f"{chosen.relative_to(folder)} ({damage(chosen, rng)})"


def _on_a_small_machine() -> None:
    """Let the readers take the memory for `MACHINE` bytes."""
    from diffpolicy.data import zarr_store
    from diffpolicy.data.formats import hdf5_files, opened

    zarr_store._memory_bytes = lambda: MACHINE
    opened.LARGEST_EPISODE_BYTES = hdf5_files.LARGEST_EPISODE_BYTES = MACHINE // 4


def _read(path: Path, options: SourceOptions) -> None:
    """Open and read everything, and check what every episode promises."""
    source = open_source(path, options)
    json.dumps(dict(source.attributes))
    assert all(isinstance(note, str) and "\n" not in note for note in source.notes)
    count = 0
    for episode in source.episodes():
        count, steps = count + 1, len(episode)
        assert steps  # without observations if a note tells that they are left out
        assert {len(x) for x in (*episode.arrays.values(), *episode.outcomes.values())} == {steps}
        assert all(x.dtype.kind in "fiub" for x in episode.arrays.values())
        for key, value in episode.final.items():
            assert np.shape(value) == episode.arrays[key].shape[1:]
    assert count == len(source)


def _wait(child: int, until: float) -> tuple[int, Any]:
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            return os.wait4(child, 0)[1:]
        time.sleep(0.002)


def preload() -> None:
    """Import the packages of the formats once, instead of in every child."""
    for name in ("h5py", "minari", "pyarrow.dataset", "pyarrow.parquet", "av", "PIL.Image", "zarr"):
        with suppress(ImportError):
            __import__(name)
    with suppress(ImportError):
        from minari.dataset._storages import hdf5_storage  # noqa: F401


def main() -> None:
    """Print every fault with its case number, and a count by source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, by its number")
    options = parser.parse_args()
    samples = Path(os.environ["DIFFPOLICY_SAMPLES"])
    numbers = range(options.first, options.first + options.cases)
    counts: Counter[tuple[str, str]] = Counter()
    preload()
    for number in tqdm([options.only] if options.only is not None else numbers, unit="case"):
        found = run_case(samples, number, options.seed)
        result = "FAULTY" if found.fault else "refused" if found.refusal else "read"
        counts[found.source, result] += 1
        if found.fault or options.only is not None:
            tqdm.write(f"{number} {found}")
    for (source, result), count in sorted(counts.items()):
        print(f"{count:6} {result:8} {source}")
    sys.exit(int(any(result == "FAULTY" for _, result in counts)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
