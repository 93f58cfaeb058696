"""Training here and in Diffusion Policy's loop, with the same batches of Push-T's sizes.

    python eval/bench/bench_training.py --diffusion-policy FOLDER [--python PYTHON]

FOLDER is a checkout of github.com/real-stanford/diffusion_policy; PYTHON imports it and `tyro`, and
has the same torch (packages: diffusers==0.35.2, einops, numba, pandas, zarr<3). Medians of
interleaved blocks of one run, one block an epoch of their loader, batch 256. Sides: their loop with
DataLoader workers 1, as configured, and 0; `Learner.learn` in float32, in bfloat16, and in bfloat16
with the compiled call that a long training takes where it is faster. Networks: the default MLP, the
same in both loops, and the small UNet, each side with its own.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffpolicy.config import BATCH, ModelConfig
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.device import busy_cores_warning
from diffpolicy.eval.measure.nets import NETS
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training.compilation import compiled
from diffpolicy.training.learner import Learner
from diffpolicy.training.precision import BFLOAT16, PRECISIONS

HORIZONS = Horizons(2, 16, 8)
EPISODES, LENGTH = 90, 125  # their max_train_episodes, and about the mean length of Push-T
MODELS = {"mlp": ModelConfig(), "unet": NETS["unet-small"].model}
Block = Callable[[int], float]  # number of steps -> their time in seconds


def write_store(path: Path) -> Windows:
    """Write random episodes for their loader; return their windows, normalised as in training."""
    rng, writer = np.random.default_rng(0), DemonstrationWriter(path, {})
    sizes = {"keypoint": (9, 2), "state": (5,), "action": (2,)}
    episodes = [
        {k: rng.uniform(-1, 1, (LENGTH, *s)).astype(np.float32) for k, s in sizes.items()}
        for _ in range(EPISODES)
    ]
    writer.extend(episodes)
    writer.close()
    keypoint, state, action = (np.concatenate([e[k] for e in episodes]) for k in sizes)
    observation = np.hstack([keypoint.reshape(len(keypoint), -1), state[:, :2]])
    ends = np.arange(1, EPISODES + 1) * LENGTH
    return make_windows({FLAT: observation}, action, ends, HORIZONS)


def learner(model: ModelConfig, precision: str, seed: int = 0) -> Learner:
    """A new network on the CPU, for windows of these sizes."""
    task = Task("none", 0.1, True, flat_observation(20), 2)
    specification = Specification(model, HORIZONS, task, 1.0, {})
    found = Learner(specification, torch.device("cpu"), seed=seed)
    found.precision = precision
    return found


def block_of(step: Callable[[], torch.Tensor]) -> Block:
    """Blocks of steps in this process; the loss is read once a block."""

    def block(steps: int) -> float:
        begin = time.perf_counter()
        total = torch.zeros(())
        for _ in tqdm(range(steps), leave=False, disable=None):
            total += step()
        float(total)
        return time.perf_counter() - begin

    return block


def ours(network: str, precision: str, windows: Windows, compile_it: bool = False) -> Block:
    """Blocks of steps of a network here."""
    found = learner(MODELS[network], precision)
    if compile_it:
        found.forward = compiled(found.network)
    return block_of(lambda: found.learn(windows, BATCH, 0.5))


@contextmanager
def theirs(
    python: Path, checkout: Path, store: Path, network: str, workers: int
) -> Iterator[Block]:
    """Blocks of steps in a process of Diffusion Policy."""
    script = Path(__file__).with_name("diffusion_policy_steps.py")
    threads = str(torch.get_num_threads())
    path = os.pathsep.join(map(str, (checkout, script.parents[2])))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads}
    errors = store.with_name(f"{network}-{workers}.txt")
    with errors.open("w") as file:
        process = subprocess.Popen(
            [python, script, store, network, str(workers), threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=environment,
        )
    requests, answers = process.stdin, process.stdout
    assert requests and answers

    def block(steps: int) -> float:
        print(steps, file=requests, flush=True)
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"{python} failed:\n{errors.read_text()[-2000:]}")
        return float(answer)

    try:
        yield block
    finally:
        requests.close()  # ends it, and the workers of its DataLoader
        process.wait()


def medians_s(blocks: dict[str, Block], rounds: int, steps: int) -> dict[str, float]:
    """Median time of a step on every side; all take turns, in random order."""
    rng, names = np.random.default_rng(0), list(blocks)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in tqdm(range(1 + rounds), unit="round"):
        for i in rng.permutation(len(names)):
            times[names[i]].append(blocks[names[i]](steps) / steps)
    return {name: float(np.median(found[1:])) for name, found in times.items()}


def show(network: str, medians: dict[str, float]) -> None:
    """Print the medians, and the ratios of their fastest loop to each of ours."""
    best = min(s for name, s in medians.items() if name.startswith("theirs"))
    for name, seconds in medians.items():
        ratio = "" if name.startswith("theirs") else f"  {best / seconds:.2f} times as fast"
        print(f"{network:5s} {name:24s} {1e3 * seconds:8.2f} ms a step{ratio}")


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description="Compare the throughput of training.")
    parser.add_argument("--diffusion-policy", type=Path, required=True)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=42, help="of a block; 42 are an epoch")
    parser.add_argument("--networks", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args()
    if not (options.diffusion_policy / "diffusion_policy").is_dir():
        parser.error(f"{options.diffusion_policy} is not a checkout of diffusion_policy")
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, batch {BATCH}; ratios to their fastest loop")
    if warning := busy_cores_warning():
        print(f"warning: {warning}")
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as open_:
            store = Path(folder) / "store.zarr"
            windows = write_store(store)
            blocks = {f"ours, {p}": ours(network, p, windows) for p in PRECISIONS}
            blocks[f"ours, {BFLOAT16}, compiled"] = ours(network, BFLOAT16, windows, True)
            for workers in (1, 0):
                started = theirs(options.python, options.diffusion_policy, store, network, workers)
                blocks[f"theirs, {workers} workers"] = open_.enter_context(started)
            show(network, medians_s(blocks, options.rounds, options.steps))


if __name__ == "__main__":
    main()
