"""Where tensors live, and whether its cores are free."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from diffpolicy.errors import DiffpolicyError

PRODUCTS = 51
SLOWER = 1.5  # threads that are this much slower than one are in each other's way


def choose_device(name: str) -> torch.device:
    """auto takes CUDA where there is some; asking for CUDA where there is none is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DiffpolicyError("--device cuda: torch sees no CUDA device here; use cpu or auto")
    return torch.device(name)


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """DiffpolicyError where something takes more bytes than the device has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    if needed > memory:
        raise DiffpolicyError(
            f"{what} takes at least {needed / 2**30:.3g} GiB of memory; {device.type} has "
            f"{memory / 2**30:.3g} GiB. Choose smaller sizes"
        )


@contextmanager
def float32_products(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Keep float32 products on CUDA exact, or use TensorFloat-32 in them; then restore.

    torch rounds convolutions by default. Its older switches, allow_tf32, cannot be read any more
    where a program has used these.
    """
    cudnn: Any = torch.backends.cudnn
    backends = [torch.backends.cuda.matmul, cudnn.conv]
    backends = backends if device.type == "cuda" else []
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def busy_cores_warning() -> str | None:
    """A warning if torch's threads, which wait for one another, are slower than one; else None.

    Other work on the same cores slows them down by up to ten times.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return None
    together, alone = _product_ms(threads), _product_ms(1)
    torch.set_num_threads(threads)
    if together <= SLOWER * alone:
        return None
    return (
        f"{threads} threads take {together / alone:.1f} times as long as one here, because the "
        "cores have other work; --threads 1 is faster while that lasts"
    )


def _product_ms(threads: int) -> float:
    """Median time of a matrix product of a training step's size."""
    torch.set_num_threads(threads)
    a, samples = torch.ones(256, 256), []
    for _ in range(PRODUCTS):
        start = time.perf_counter_ns()
        torch.mm(a, a)
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return median(samples)
