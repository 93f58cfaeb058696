"""Control step of a LeRobot policy, here and in LeRobot.

    python eval/bench/bench_lerobot_policy.py POLICY [--lerobot PYTHON] [--ddim-steps K]

POLICY is a folder of LeRobot; PYTHON one that imports LeRobot 0.4.4. Without it the comparison is
with the loop of diffusers on the same network. Same weights, same timesteps, batch 1, numpy to
numpy; medians of interleaved blocks, each side with the number of threads that suits it best.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffpolicy.checkpoint import load_policy
from diffpolicy.errors import EngineUnavailable
from diffpolicy.eval.measure.diffusers_loop import DiffusersLoop
from diffpolicy.eval.measure.timing import random_observation
from diffpolicy.policies.config import ImportPolicyConfig
from diffpolicy.policies.importing import import_policy
from diffpolicy.policy import Policy

BLOCKS, CALLS = 20, 25
ENGINES = ("eager", "onnx", "native")
Block = Callable[[int], list[float]]  # number of calls -> their times in ms


def timed(call: Callable[[], object], threads: int) -> Block:
    """Blocks of calls in this process."""

    def block(count: int) -> list[float]:
        torch.set_num_threads(threads)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - begin))
        return times

    return block


@contextmanager
def of_lerobot(python: Path, folder: Path, steps: int, threads: int) -> Iterator[Block]:
    """Blocks of calls in a process of LeRobot."""
    script = Path(__file__).with_name("lerobot_steps.py")
    command = [str(python), str(script), str(folder), str(steps), str(threads)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    requests, answers = process.stdin, process.stdout
    assert requests and answers

    def block(count: int) -> list[float]:
        print(count, file=requests, flush=True)
        return json.loads(answers.readline())

    try:
        yield block
    finally:
        process.kill()
        process.wait()


def ours(run: Path, steps: int, threads: int) -> Iterator[tuple[str, Block]]:
    """(name, blocks) of every engine that can be built here, and of the loop of diffusers."""
    torch.set_num_threads(threads)
    observation = random_observation(Policy.load(run), np.random.default_rng(0))
    for name in ENGINES:
        policy = Policy.load(run, ddim_steps=steps, engine=name)
        try:
            policy.engine()
        except EngineUnavailable as error:
            print(error)
            continue
        yield f"{name}, threads {threads}", timed(lambda p=policy: p(observation), threads)
    loop = DiffusersLoop(load_policy(run), steps, torch.device("cpu"))
    yield f"diffusers, threads {threads}", timed(lambda: loop(observation), threads)


def measure(blocks: dict[str, Block]) -> dict[str, np.ndarray]:
    """Times in ms of every side; all take turns, in random order."""
    rng = np.random.default_rng(0)
    names = list(blocks)
    for block in blocks.values():
        block(CALLS)  # warm up
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in tqdm(range(BLOCKS), unit="block"):
        for i in rng.permutation(len(names)):
            times[names[i]] += blocks[names[i]](CALLS)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    """Print medians and the ratio of LeRobot, or of diffusers, to the best engine."""
    parser = argparse.ArgumentParser(description="Compare the control step of a LeRobot policy.")
    parser.add_argument("policy", type=Path)
    parser.add_argument("--lerobot", type=Path)
    parser.add_argument("--ddim-steps", type=int, default=10)
    options = parser.parse_args()
    counts = sorted({1, len(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        facts = {"control_dt": 0.1, "position_targets": True}
        import_policy(ImportPolicyConfig(options.policy, run, **facts))
        blocks = dict(b for n in counts for b in ours(run, options.ddim_steps, n))
    with ExitStack() as open_:
        foreign = {
            f"LeRobot, threads {n}": open_.enter_context(
                of_lerobot(options.lerobot, options.policy, options.ddim_steps, n)
            )
            for n in (counts if options.lerobot else ())
        }
        medians = {n: float(np.median(t)) for n, t in measure(blocks | foreign).items()}
    for name, median in medians.items():
        print(f"{name}: {median:.3f} ms")
    engines = [n for n in blocks if not n.startswith("diffusers")]
    theirs = list(foreign) or [n for n in blocks if n not in engines]
    best, other = (min(names, key=medians.__getitem__) for names in (engines, theirs))
    print(f"{other} / {best}: {medians[other] / medians[best]:.2f}")


if __name__ == "__main__":
    main()
