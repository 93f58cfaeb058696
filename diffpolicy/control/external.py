"""A policy of others: what `factory(steps)` of a module makes, with every answer checked.

A pickle holds the reference module:factory and the steps alone, and each process calls the factory
itself. So a policy may hold what cannot be pickled, such as a connection to another process.
"""

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.environment.boundary import describe_error
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.late.drop import DropHead
from diffpolicy.specification import Horizons


class PolicyFailure(DiffpolicyError):
    """A policy of others that raised, or whose answer is of no use."""


class External:
    """The chunk source that factory(steps) made; reference: "module:factory".

    It is a function of its arguments alone (see `ChunkSource`). It may have `observations`, the
    keys that it observes; by default it is given all. late: a strategy for late chunks that needs
    no network. Raises PolicyFailure in place of every exception of the factory and of the policy,
    DiffpolicyError for another strategy.
    """

    def __init__(self, reference: str, steps: int, late: str = "drop"):
        self.reference, self.steps, self.late = reference, steps, parse_late(late)
        if self.late.of_runs:
            raise DiffpolicyError(
                f"--late {late} needs the network of a run; a policy of others takes drop or "
                "ensemble"
            )
        factory = self._ask("import", environment.load_function, reference)
        self._source = self._ask(f"factory({steps})", factory, steps)
        if not callable(self._source) or not callable(getattr(self._source, "noise_shape", None)):
            raise PolicyFailure(
                f"{reference}({steps}) must be a chunk source: a callable with horizons and "
                f"noise_shape(batch); got {self._source!r:.80}"
            )
        self.horizons = self._horizons()
        keys = getattr(self._source, "observations", None)
        if keys is not None:
            self.observations = tuple(self._ask("observations", list, keys))

    def __reduce__(self) -> tuple[Callable[[str, int, str], "External"], tuple[str, int, str]]:
        return external, (self.reference, self.steps, self.late.text)

    @property
    def name(self) -> str:
        """The reference and the steps, and another strategy for late chunks than dropping."""
        return f"{self.reference}({self.steps})" + (f", {self.variant}" if self.variant else "")

    @property
    def variant(self) -> str:
        """The strategy for late chunks unless it is dropping the stale head."""
        return "" if self.late == DropHead() else self.late.text

    @property
    def digest(self) -> str | None:
        """SHA-256 of the module's file, without the modules that it imports; None without one."""
        module = sys.modules[self.reference.partition(":")[0]]
        with suppress(OSError):
            path = getattr(module, "__file__", None)
            return path and hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return None

    def noise_shape(self, batch: int) -> tuple[int, ...]:
        """[draws, B, …]: shape of the noise of one call; (0, B) without noise."""
        given = self._ask("noise_shape", self._source.noise_shape, batch)
        shape = self._ask("noise_shape", lambda: tuple(map(int, given)))
        if shape[1:2] != (batch,) or min(shape) < 0:
            raise PolicyFailure(
                f"noise_shape({batch}) of {self.name} must be (draws, {batch}, …), or (0, {batch}) "
                f"without noise; got {given!r:.80}"
            )
        return shape

    def __call__(self, observation: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        """{key: [B, T_o, …]} and noise to a copy of the actions [B, T_p - T_o + 1, D_a]."""
        given = self._ask("call", self._source, observation, noise)
        chunk: np.ndarray = self._ask("answer", np.array, given)
        batch = len(next(iter(observation.values())))
        expected = batch, self.horizons.usable
        if chunk.dtype.kind not in "fiu" or chunk.ndim != 3 or chunk.shape[:2] != expected:
            advice = "; try --batch 1" if chunk.shape[:1] == (1,) and batch > 1 else ""
            raise PolicyFailure(
                f"{self.name} must give actions [B, T_p - T_o + 1, D_a] = [{batch}, "
                f"{self.horizons.usable}, D_a]; got {chunk.dtype} {list(chunk.shape)}{advice}"
            )
        return chunk if chunk.dtype.kind == "f" else chunk.astype(np.float32)

    def _horizons(self) -> Horizons:
        horizons = self._ask("horizons", lambda: self._source.horizons)
        if not isinstance(horizons, Horizons):
            raise PolicyFailure(
                f"horizons of {self.name} must be a diffpolicy.specification.Horizons(T_o, T_p, "
                f"T_a); got {horizons!r:.80}"
            )
        return horizons

    def _ask(self, call: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's value; PolicyFailure for all that it raises, named by the call."""
        try:
            return function(*arguments)
        except DiffpolicyError as error:
            raise PolicyFailure(str(error)) from error
        except (Exception, SystemExit) as error:
            text = f"the policy {self.name} failed in its {call}: {describe_error(error)}"
            raise PolicyFailure(text) from error


_last: list[External] = []  # the process's last one that came by pickle


def external(reference: str, steps: int, late: str = "drop") -> External:
    """The policy of this process; the factory is called again only after another reference."""
    wanted = reference, steps, late
    if not _last or (_last[0].reference, _last[0].steps, _last[0].late.text) != wanted:
        _last.clear()  # its connections close before others open
        _last.append(External(*wanted))
    return _last[0]
