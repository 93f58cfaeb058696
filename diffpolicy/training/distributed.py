"""Training in several processes, which torchrun starts: each has the same share of every batch.

Every process draws the whole batch of a step, by (seed, step), and evaluates its own rows of it, so
their number changes results by the order of sums alone. Gradients are summed in one flat tensor
after the backward pass. DistributedDataParallel would average over processes, where a masked loss
is a mean over the rows that count in the whole batch; and it needs one call of one module, where
pictures are encoded apart from their noisy chunks.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from diffpolicy.device import choose_device
from diffpolicy.errors import DiffpolicyError

INTERRUPTED = 130  # exit status
ERRORS = "errors"  # key of their number in the store
STORE_S = 2.0  # longest wait for errors of other processes


class LostProcess(DiffpolicyError):
    """Another process of the training ended."""


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `count`, and number `local` on its machine; rank 0 writes."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """The rows of this process, of a batch that all share equally."""
        share = batch // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def check_batch(self, batch: int) -> None:
        """Raise DiffpolicyError for a batch that the processes cannot share equally."""
        if batch % self.count:
            raise DiffpolicyError(
                f"--batch {batch} is not a multiple of {self.count}, the number of processes; try "
                f"--batch {-(-batch // self.count) * self.count}"
            )

    def device(self, name: str) -> torch.device:
        """Device of this process by the name of --device: CPU, or a CUDA device of its own."""
        device = choose_device(name)
        if self.count == 1 or device.type == "cpu":
            return device
        if self.local >= (devices := torch.cuda.device_count()):
            raise DiffpolicyError(
                f"this machine has {devices} CUDA devices, too few for its processes; try "
                f"torchrun --nproc-per-node {devices}, or --device cpu"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def sum(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes, in float64. Raises LostProcess."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        _all_reduce(total)
        return total.tolist()

    def add_up(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Replace gradients by their sums over all processes; the sum of losses. See `sum`."""
        if self.count == 1:
            return loss
        parts = [p.grad for p in parameters if p.grad is not None] + [loss]
        flat = torch.cat([part.flatten() for part in parts])
        _all_reduce(flat)
        for part, total in zip(parts, flat.split([p.numel() for p in parts]), strict=True):
            part.copy_(total.view_as(part))
        return loss

    def check_same(self, **facts: Any) -> None:
        """Raise DiffpolicyError, in every process, if facts that JSON can express differ."""
        for name, fact in facts.items():
            digest = hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).digest()
            number = int.from_bytes(digest[:4], "big")
            if self.sum(number) != [number * self.count]:
                raise DiffpolicyError(
                    f"the processes of this training have different {name}; expected the same "
                    "options, demonstrations and run folder for each"
                )


ALONE = Ranks()


@contextmanager
def processes() -> Iterator[Ranks]:
    """The processes of this training, connected; this one alone without torchrun.

    Only rank 0 prints. Of an error that several processes meet, a DiffpolicyError or an OSError,
    the first one raises it, and the others SystemExit.
    """
    ranks = ranks_of(os.environ)
    if ranks.count == 1:
        yield ranks
        return
    store = _connect(ranks)
    try:
        with _silenced(not ranks.first):
            yield ranks
    except (DiffpolicyError, OSError) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the others by it
        told = _is_told(store, error)
        if ranks.first:
            _await_others(store, ranks)
        if told:
            raise SystemExit(2) from None
        if not ranks.first:
            sys.stderr.write("\n")  # below the progress bar of rank 0
        raise
    except KeyboardInterrupt:
        if ranks.first and not _add(store, ERRORS, 0):
            raise
        raise SystemExit(INTERRUPTED) from None
    dist.destroy_process_group()


def check_alone(command: str) -> None:
    """Refuse a command that runs in one process only: once, whatever their number."""
    ranks = ranks_of(os.environ)
    if ranks.count > 1 and ranks.first:
        raise DiffpolicyError(
            f"{command} does not run in {ranks.count} processes; expected one; try it without "
            "torchrun"
        )
    if ranks.count > 1:
        raise SystemExit(2)


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Ranks by the environment variables of torchrun: RANK, WORLD_SIZE and LOCAL_RANK.

    Raises DiffpolicyError for values that are none.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return ALONE
    rank, count, local = (
        _whole_number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    if rank >= count:
        raise DiffpolicyError(
            f"RANK {rank} is not below WORLD_SIZE {count}; expected the variables of torchrun"
        )
    return Ranks(rank, count, local)


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdecimal()):
        raise DiffpolicyError(
            f"{name} is not a whole number; got {text!r}; expected the variables of torchrun, or "
            "no WORLD_SIZE"
        )
    return int(text)


def _connect(ranks: Ranks) -> Store:
    """Join the process group, gloo for the CPU and NCCL for CUDA; the store of its launcher."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, count = next(rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise DiffpolicyError(
            f"process {ranks.rank} of {ranks.count} cannot join the others: {error}; expected the "
            "variables of torchrun"
        ) from error
    return store


@contextmanager
def _silenced(silent: bool) -> Iterator[None]:
    with ExitStack() as stack:
        if silent:
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def _is_told(store: Store, error: DiffpolicyError | OSError) -> bool:
    """True if another process has this error, or any error that ended this one."""
    same, all_ = _add(store, str(error), 1), _add(store, ERRORS, 1)
    return (all_ if isinstance(error, LostProcess) else same) > 1


def _await_others(store: Store, ranks: Ranks) -> None:
    """Keep the store, which may end with this process, until all have told, or for STORE_S."""
    end = time.monotonic() + STORE_S
    while _add(store, ERRORS, 0) < ranks.count and time.monotonic() < end:
        time.sleep(0.02)


def _add(store: Store, key: str, count: int) -> int:
    """The number of a key once `count` is added; 0 if the store ended with its process."""
    try:
        return store.add(key, count)
    except RuntimeError:
        return 0


def _all_reduce(tensor: Tensor) -> None:
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise LostProcess(
            "another process of this training ended; continue from the last checkpoint with "
            "--resume"
        ) from error
