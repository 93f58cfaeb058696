"""Statistics of features as LeRobot keeps them: of each episode, and joined over all.

Each is {min, max, mean, std, count, q01, q10, q50, q90, q99}. Those of numbers have the shape of a
row; those of pictures are [3, 1, 1], of numbers in [0, 1]. As in lerobot, the quantiles of a data
set are the means of those of its episodes, weighted by length.
"""

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
LEVELS, RGB = 256, 3  # of a picture

Statistics = dict[str, np.ndarray]


def of_numbers(values: np.ndarray) -> Statistics:
    """Statistics over the frames of one episode [T, …]."""
    exact = values.astype(np.float64)
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def of_pictures(pictures: np.ndarray) -> Statistics:
    """Statistics over all pixels of one episode, uint8 [T, H, W, C], from a histogram.

    They are those of RGB, as lerobot's: three times the grey, and without the opacity.
    """
    channels = [_of_channel(pictures[..., c]) for c in range(min(RGB, pictures.shape[-1]))]
    channels = channels if len(channels) == RGB else channels[:1] * RGB
    found = {name: np.array([each[name] for each in channels]) for name in channels[0]}
    return {
        **{name: values.reshape(-1, 1, 1) for name, values in found.items()},
        "count": np.array([len(pictures)]),
    }


def _of_channel(values: np.ndarray) -> dict[str, float]:
    counts = np.bincount(values.reshape(-1), minlength=LEVELS)
    levels, total, present = np.arange(LEVELS) / (LEVELS - 1), values.size, np.flatnonzero(counts)
    mean = float(counts @ levels) / total
    below = np.cumsum(counts)
    quantiles = {n: float(levels[below.searchsorted(q * total)]) for n, q in QUANTILES.items()}
    return {
        "min": float(levels[present[0]]),
        "max": float(levels[present[-1]]),
        "mean": mean,
        "std": float(np.sqrt(counts @ (levels - mean) ** 2 / total)),
        **quantiles,
    }


def joined(a: Statistics | None, b: Statistics) -> Statistics:
    """Statistics of two sets of frames together."""
    if a is None:
        return b
    m, n = int(a["count"][0]), int(b["count"][0])

    def mean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (m * x + n * y) / (m + n)

    middle = mean(a["mean"], b["mean"])
    spread = [s["std"] ** 2 + (s["mean"] - middle) ** 2 for s in (a, b)]
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": middle,
        "std": np.sqrt(mean(*spread)),
        "count": np.array([m + n]),
        **{name: mean(a[name], b[name]) for name in QUANTILES},
    }
