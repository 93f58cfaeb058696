"""Cost of pictures in training: `python eval/bench/bench_picture_training.py [--encoder resnet18]`.

Medians of interleaved blocks of one run, on random pictures of 96 × 96 with the default network:
- the data (windows by index, random crop, floats, normalisation) as a share of a training step
- the same with colour jitter
- the random crop as here, by a view, against a loop of slices
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.specification import Horizons, ObservationSpec, Specification, Task, picture
from diffpolicy.training.augment import augment, random_crop
from diffpolicy.training.learner import Learner, gather

ROWS, SIDE, BLOCKS = 6000, 96, 9
HORIZONS = Horizons(2, 16, 8)


def windows() -> Windows:
    """Windows of random pictures, positions and actions."""
    rng = np.random.default_rng(0)
    position, action = rng.uniform(-1, 1, (2, ROWS, 2)).astype(np.float32)
    pictures = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)
    observations = {"image": pictures, "agent_pos": position}
    return make_windows(observations, action, np.arange(1, 61) * 100, HORIZONS)


def medians_ms(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall time of each function over interleaved blocks, in ms, after one for warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(1 + BLOCKS):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(t[1:])) for name, t in times.items()}


def sliced(pictures: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """`random_crop` by a loop over the windows."""
    free = (n - m + 1 for n, m in zip(pictures.shape[2:4], size, strict=True))
    top, left = (torch.randint(n, (len(pictures),), generator=generator).tolist() for n in free)
    height, width = size
    parts = zip(pictures, top, left, strict=True)
    return torch.stack([p[:, y : y + height, x : x + width] for p, y, x in parts])


def main() -> None:
    """Print the times and the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", choices=("cnn", "resnet18"), default="cnn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = Task(
        "none", 0.1, True, {"image": picture(SIDE, SIDE), "agent_pos": ObservationSpec((2,))}, 2
    )
    model = ModelConfig(encoder=options.encoder)
    learner = Learner(Specification(model, HORIZONS, task, 1.0, {}), torch.device("cpu"))
    data, batch, generator = windows(), options.batch, torch.Generator()
    [crop], [floats] = learner.crops.values(), learner.network.encoder.inputs
    whole = gather(data, torch.arange(batch))[0]["image"]

    def windows_of(colour: float) -> Tensor:
        observations, _, _ = gather(data, torch.randint(len(data), (batch,)))
        return floats(
            augment(observations, learner.crops, colour, generator)["image"].flatten(0, 1)
        )

    found = medians_ms(
        {
            "data": lambda: windows_of(0.0),
            "data with jitter": lambda: windows_of(0.3),
            "crop": lambda: random_crop(whole, crop, generator),
            "crop by slices": lambda: sliced(whole, crop, generator),
            "step": lambda: learner.learn(data, batch, 0.5),
        }
    )
    print(f"{options.encoder}, batch {batch}, {options.threads} threads")
    for name, ms in found.items():
        print(f"  {name:17}{ms:8.2f} ms {100 * ms / found['step']:6.1f} % of a training step")


if __name__ == "__main__":
    main()
