"""Measurements on a GPU in at most nine minutes, the most valuable part first.

    python eval/gpu.py --demos FOLDER

Every part runs in its own process, is killed at its time limit, and writes OUT/gpu_PART.json after
every measurement. A second call continues with the incomplete parts. The dependencies must be
installed; diffpolicy itself need not be, because the parts import this source tree.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HUMAN = "pusht_human/pusht_cchi_v7_replay.zarr"
LIMITS_S = {"check": 150, "latency": 150, "training": 50, "pusht": 190}
NEEDED = (
    *("torch", "numpy", "gymnasium", "mujoco", "zarr", "tqdm", "safetensors", "scipy"),
    *("matplotlib", "PIL", "tyro", "diffusers", "pytest", "xdist", "hypothesis"),
)


def main() -> int:
    """Run the parts. Returns 0 if all of them are complete."""
    options = _options()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"not installed: {', '.join(missing)}; the parts that use them fail", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        out = options.out or (scratch if options.dry_run else ROOT / "eval" / "results")
        work = options.work or (scratch if options.dry_run else ROOT / "runs" / "gpu")
        command = ["--out", str(out.resolve()), "--work", str(work.resolve())]
        command += ["--demos", str(options.demos.resolve())] if options.demos else []
        command += ["--dry-run"] if options.dry_run else []
        command += ["--again"] if options.again else []
        tree = _with(_source_tree(scratch / "tree"))
        environment = {**os.environ, "PYTHONPATH": tree, "PYTHONSAFEPATH": "1"}
        environment["TQDM_DISABLE"] = "1"
        begin = time.monotonic()
        for part in options.parts:
            path = out / f"gpu_{part}.json"
            if _complete(path, options.dry_run) and not options.again:
                print(f"{part}: complete in {path}; --again repeats it", flush=True)
            else:
                _run(part, command, environment)
        print(f"all parts took {time.monotonic() - begin:.0f} s")
        return int(
            not all(_complete(out / f"gpu_{p}.json", options.dry_run) for p in options.parts)
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=LIMITS_S, default=list(LIMITS_S))
    parser.add_argument("--out", type=Path, help="folder of the results; default eval/results")
    parser.add_argument("--work", type=Path, help="folder of the trained run; default runs/gpu")
    demos = os.environ.get("DIFFPOLICY_DEMOS")
    parser.add_argument(
        "--demos",
        type=Path,
        default=demos and Path(demos),
        help=f"folder with {HUMAN}; default $DIFFPOLICY_DEMOS",
    )
    parser.add_argument("--again", action="store_true", help="repeat what is complete")
    parser.add_argument("--dry-run", action="store_true", help="all parts in small, on the CPU")
    options = parser.parse_args()
    wanting = not options.dry_run and {"training", "pusht"} & {*options.parts}
    if wanting and not (options.demos and (options.demos / HUMAN).is_dir()):
        parser.error(f"--demos must name a folder with {HUMAN}; got {options.demos}")
    return options


def _source_tree(folder: Path) -> Path:
    """Fill a folder for PYTHONPATH: `diffpolicy` as links, with envs and eval inside."""
    package = folder / "diffpolicy"
    package.mkdir(parents=True)
    for path in [*(ROOT / "diffpolicy").iterdir(), ROOT / "envs", ROOT / "eval"]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    return folder


def _with(folder: Path) -> str:
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(folder), *([before] if before else [])])


def _complete(path: Path, dry_run: bool) -> bool:
    try:
        found = json.loads(path.read_text())
        return bool(found["complete"]) and found["dry_run"] == dry_run
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _run(part: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Run one part and its child processes until its time limit."""
    limit_s, begin = LIMITS_S[part], time.monotonic()
    print(f"{part}: at most {limit_s} s", flush=True)
    command = [sys.executable, "-m", "diffpolicy.eval.bench.gpu_parts", part, *arguments]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    try:
        end = f"ended with status {process.wait(limit_s)}"
    except subprocess.TimeoutExpired:
        end = "was killed at its limit; its measurements so far are kept"
    finally:
        _kill(process)
    print(f"{part}: {end} after {time.monotonic() - begin:.0f} s", flush=True)


def _kill(process: subprocess.Popen) -> None:
    """Kill the process group of a part."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
