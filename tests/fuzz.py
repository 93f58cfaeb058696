"""Mutated inputs: `python tests/fuzz.py --cases 10000` damages files and runs commands on them.

Every case copies a whole store, run, latency profile or result, damages one file of it (its JSON,
its tensors or its bytes) and runs one command in a child process. Allowed: success, or exit status
2 with one line on stderr. Faults: a traceback, another exit status, several lines, more than 60 s,
more than 2 GB of memory, or a file changed by a command that failed or only reads.
A case is repeated by its number: `python tests/fuzz.py --only 1234`.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

SECONDS, BYTES = 60.0, 2 * 2**30
BALANCE = "diffpolicy.envs:Balance-v0"
SIZE = "--hidden 16 --blocks 1 --device cpu --threads 1"
QUICK = "--threads 1 --episodes 2 --max-steps 4 --engine eager --workers 1 --envs 2 --batch 16"
EVAL = f"eval --run run {QUICK} --ddim-steps 2"
PUSHT = 'diffpolicy.envs:PushT-v0 --env-kwargs {"observation":"image"}'
SEEING = f"{SIZE} --batch 4 --keypoints 4"
RESUME = f"train --data store --out run {SIZE} --steps 4 --resume"
PROGRESS = re.compile(r"\|.*\d+/.*\[.*\]|^\s*(\x1b\[A)*$")


@dataclass(frozen=True)
class Target:
    """Command, files that are damaged for it, and copies that it needs."""

    command: str
    files: str  # glob pattern
    copies: tuple[str, ...]
    writes: bool = False  # a success may change files


TARGETS = (
    Target("info store", "store/**/*", ("store",)),
    Target(f"train --data store --out new {SIZE} --steps 1", "store/**/*", ("store",), True),
    Target(f"record --env {BALANCE} --out store --episodes 3", "store/**/*", ("store",), True),
    Target("info pictures", "pictures/**/*", ("pictures",)),
    Target(
        f"train --data pictures --out new {SEEING} --steps 1", "pictures/**/*", ("pictures",), True
    ),
    Target(
        f"record --env {PUSHT} --out pictures --episodes 2", "pictures/**/*", ("pictures",), True
    ),
    Target(EVAL.replace("run run", "run seeing"), "seeing/policy.safetensors", ("seeing",)),
    Target("info run", "run/policy.safetensors", ("run",)),
    Target("runs run", "run/**/*", ("run",)),
    Target(EVAL, "run/policy.safetensors", ("run",)),
    Target(RESUME, "run/policy.safetensors", ("run", "store"), True),
    Target(RESUME, "run/training.safetensors", ("run", "store"), True),
    Target(RESUME, "run/log.jsonl", ("run", "store"), True),
    Target(EVAL.replace("eager", "auto"), "run/engines.json", ("run",), True),
    Target(f"{EVAL} --clock simulated --latency-from profile.json", "profile.json", ("run",)),
    Target("suite --out suite", "suite/**/*.json", ("suite",), True),
)


# Damage to JSON

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 0.5, -0.5, 1e308, -1e308, float("nan"), float("inf")),
    *(10**9, 10**12, 10**30, -(10**30), "", "x", "1", "ü", "../..", "\x00", [], {}, [1], [[]]),
    *({"a": 1}, [None] * 3, "x" * 10_000),
)


def paths_of(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all nodes of a JSON value, the root's first."""
    yield path
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in list(items)[:50]:
            yield from paths_of(child, (*path, key))


def mutate_json(value: Any, rng: np.random.Generator) -> Any:
    """Replace, remove, rename, wrap or scale one node."""
    paths = list(paths_of(value))
    *parents, key = paths[rng.integers(1, len(paths))] if len(paths) > 1 else (None,)
    if key is None:
        return pick(VALUES, rng)
    node = value
    for step in parents:
        node = node[step]
    kind = rng.integers(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[pick(("x", "", "ü", f"{key}2"), rng)] = node.pop(key)
    elif kind == 2:
        node[key] = [node[key]]
    elif kind == 3 and isinstance(node[key], int | float):
        node[key] = pick((-node[key], node[key] * 10**6, node[key] + 0.5, str(node[key])), rng)
    else:
        node[key] = pick(VALUES, rng)
    return value


def json_text(value: Any, rng: np.random.Generator) -> bytes:
    """Text of a mutated value; sometimes not JSON, or nested too deeply."""
    text = json.dumps(mutate_json(value, rng)).encode()
    kind = rng.integers(30)
    if kind == 0:
        return b"[" * 100_000
    if kind == 1:
        return b"\xff\xfe" + text
    return text[: rng.integers(len(text))] if kind == 2 else text


def pick(choices: Any, rng: np.random.Generator) -> Any:
    return choices[rng.integers(len(choices))]


# Damage to files


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damage one file. Returns the kind of damage."""
    content = path.read_bytes()
    structured: dict[str, Callable] = {".safetensors": damage_tensors, ".jsonl": damage_lines}
    change = structured.get(path.suffix)
    if change is None and is_json(content):
        change = damage_json
    if change is not None and rng.random() < 0.8:
        return change(path, rng)
    return damage_bytes(path, content, rng)


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def damage_json(path: Path, rng: np.random.Generator) -> str:
    path.write_bytes(json_text(json.loads(path.read_bytes()), rng))
    return "json"


def damage_lines(path: Path, rng: np.random.Generator) -> str:
    lines = path.read_bytes().splitlines()
    at = rng.integers(len(lines))
    lines[at] = json_text(json.loads(lines[at]), rng)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return "line"


def damage_tensors(path: Path, rng: np.random.Generator) -> str:
    """Change the header or a tensor of a safetensors file."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        header = file.metadata()["diffpolicy"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = pick(sorted(tensors), rng)
    tensor = tensors[name].clone()
    kind = rng.integers(16)
    special = {1: float("nan"), 2: float("inf"), 3: 0.0, 4: 1e38, 5: -1e-40}
    if kind in special and tensor.numel():
        tensor.view(-1)[rng.integers(tensor.numel())] = special[kind]
        tensors[name] = tensor
    elif kind == 6:
        tensors[name] = torch.full_like(tensor, pick((float("nan"), 0.0, 1e30), rng))
    elif kind == 7:
        del tensors[name]
    elif kind == 8:
        tensors[pick(("x", "", f"{name}2"), rng)] = tensors.pop(name)
    elif kind == 9:
        dtype = pick((torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool), rng)
        tensors[name] = tensor.to(dtype)
    elif kind == 10:
        shape = pick(((), (0,), (3,), (1, *tensor.shape), (*tensor.shape, 2)), rng)
        tensors[name] = torch.ones(shape)
    else:
        header = json_text(json.loads(header), rng).decode("utf-8", "replace")
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, {"diffpolicy": header})
    return "tensors"


def damage_bytes(path: Path, content: bytes, rng: np.random.Generator) -> str:
    """Flip, cut or add bytes, or put something else in the file's place."""
    kinds = ("flip", "cut", "longer", "empty", "random", "absent", "folder", "fifo", "loop")
    kind = pick(kinds, rng)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind != "absent":
        data = np.frombuffer(content, np.uint8).copy()
        at = rng.integers(max(len(data), 1))
        if kind == "flip" and len(data):
            data[at] ^= 1 << rng.integers(8)
        changed = {
            "cut": content[:at],
            "longer": content + rng.bytes(100),
            "empty": b"",
            "random": rng.bytes(len(content)),
        }
        path.write_bytes(changed.get(kind, data.tobytes()))
    return kind


# One case


@dataclass(frozen=True)
class Outcome:
    """Result of a case: command, damaged file, and the fault or ""."""

    number: int
    command: str
    damaged: str
    fault: str


def run_case(base: Path, number: int, seed: int = 0) -> Outcome:
    """Damage a copy of the base's files and run a command on it in a child process."""
    rng = np.random.default_rng([seed, number])
    target = TARGETS[rng.integers(len(TARGETS))]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in (*target.copies, "profile.json"):
            source = base / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / name)
        files = sorted(p for p in place.glob(target.files) if p.is_file())
        path = pick(files, rng)
        damaged = f"{path.relative_to(place)} ({damage(path, rng)})"
        before = snapshot(place)
        status, errors, seconds, size = in_child(target.command.split(), place)
        fault = judge(status, errors, seconds, size)
        if not fault and (status or not target.writes) and snapshot(place) != before:
            fault = "files changed"
    return Outcome(number, target.command, damaged, fault)


def in_child(
    arguments: list[str], folder: Path, limit_s: float = SECONDS
) -> tuple[int, list[str], float, int]:
    """Run a command: (status or -signal, stderr without progress bars, seconds, peak bytes)."""
    with tempfile.TemporaryFile() as err:
        begin, child = time.monotonic(), os.fork()
        if child == 0:
            _become(arguments, folder, err.fileno())
        status, usage = _wait(child, begin + limit_s)
        err.seek(0)
        text = err.read().decode("utf-8", "replace")
    lines = [x for x in re.split(r"[\r\n]+", text) if not PROGRESS.search(x)]
    code = os.waitstatus_to_exitcode(status)
    return code, lines, time.monotonic() - begin, 1024 * usage.ru_maxrss


def _become(arguments: list[str], folder: Path, err: int) -> None:
    """Run the command in the child; never return."""
    import resource
    import traceback

    from diffpolicy import cli
    from diffpolicy.control import worker
    from diffpolicy.engines import auto

    os.setpgid(0, 0)
    os.chdir(folder)
    worker.get_context = lambda _: get_context("fork")  # torch is loaded here already
    worker.STOP_TIMEOUT_S = 0.0  # a fork holds both ends of its connection
    auto.ENGINES = {
        name: auto.ENGINES[name] for name in ("native", "eager")
    }  # exporting takes seconds
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # also under a test's capture
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
    sys.argv, code = ["diffpolicy", *arguments], 0
    try:
        cli.main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int, until: float) -> tuple[int, Any]:
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            return os.wait4(child, 0)[1:]
        time.sleep(0.005)


def judge(status: int, errors: list[str], seconds: float, size: int) -> str:
    """Fault of an outcome, or ""."""
    if any("Traceback" in line for line in errors):
        return f"traceback: {errors[-1][:200]}"
    if seconds > SECONDS:
        return "hang"
    if status not in (0, 2):
        return f"exit status {status}: {' / '.join(errors)[-200:]}"
    if size > BYTES:
        return f"{size / 2**30:.1f} GB of memory"
    return f"{len(errors)} lines: {' / '.join(errors)[:200]}" if status and len(errors) != 1 else ""


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """State of a folder: {relative path: (kind of file, content)}."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        regular = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = mode, path.read_bytes() if regular else b""
    return found


# Undamaged inputs, and many cases


def make_base(base: Path) -> None:
    """Write stores, runs, a chosen engine, a latency profile and a partial suite."""
    import mujoco  # noqa: F401
    import tyro  # noqa: F401

    from diffpolicy import cli
    from diffpolicy.checkpoint import load_policy
    from diffpolicy.eval import suite

    for options, function in cli.COMMANDS.values():  # once, instead of in every child
        cli.named(options), cli.named(function)
    small = {"episodes": 2, "ddim_steps": (1,), "ddpm": False, "latency_seconds": 0.05}
    suite.PROTOCOLS["quick"] = {
        "demonstrations": 1,
        "training": {"steps": 2, "hidden": 16, "blocks": 1},
        "evaluation": {**small, "max_steps": 4, "workers": 1, "pictures": False},
        "seed": 0,
    }
    for command in (
        f"record --env {BALANCE} --out store --episodes 2",
        f"train --data store --out run {SIZE} --steps 2",
        f"record --env {PUSHT} --out pictures --episodes 1",
        f"train --data pictures --out seeing {SEEING} --steps 2",
        EVAL.replace("eager", "auto"),
        "latency --run run --ddim-steps 2 --engine eager --seconds 0.05 --json profile.json",
        f"sweep --run run {QUICK} --ddim-steps 1 --ms-per-step 1 --no-pictures --out sweep",
    ):
        status, errors, *_ = in_child(command.split(), base, limit_s=600)
        if status:
            raise SystemExit(f"{command}: {errors}")
    for task in suite.TASKS:
        (base / "suite" / task).mkdir(parents=True)
        shutil.copy(base / "sweep/sweep.json", base / "suite" / task)
        shutil.copy(base / "sweep/sweep.png", base / "suite" / task / "film.png")
    in_child(["suite", "--out", "suite"], base, limit_s=600)
    load_policy(base / "run")  # torch's first network on its meta device takes long
    (base / "run/log.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')


@contextmanager
def whole_inputs() -> Iterator[Path]:
    """Temporary folder with all undamaged inputs."""
    from diffpolicy.eval import suite

    before = suite.PROTOCOLS.copy()
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_base(Path(folder))
            yield Path(folder)
    finally:
        suite.PROTOCOLS.update(before)


def main() -> None:
    """Print every fault with its case number, and a count by command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, by its number")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.cases)
    counts: Counter[tuple[str, bool]] = Counter()
    with whole_inputs() as base:
        for number in tqdm([options.only] if options.only is not None else numbers, unit="case"):
            outcome = run_case(base, number, options.seed)
            counts[outcome.command, bool(outcome.fault)] += 1
            if outcome.fault:
                tqdm.write(f"{number} {outcome.command}: {outcome.damaged}: {outcome.fault}")
    for (command, faulty), count in sorted(counts.items()):
        print(f"{count:6} {'FAULTY' if faulty else 'fine'} {command}")
    sys.exit(int(any(faulty for _, faulty in counts)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
