"""Log of a training run: log.jsonl, and the sinks of --log."""

import json
import math
from dataclasses import dataclass
from typing import Any

from diffpolicy.checked import parse_json, validate
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_bytes
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.sinks import open_sinks


@dataclass(frozen=True)
class Logged:
    """The part of a log line that resuming reads."""

    step: int


class Log:
    """log.jsonl, cut back to the step that a resumed run starts from."""

    def __init__(self, config: TrainConfig, step: int):
        self.path = config.out / "log.jsonl"
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_bytes(self.path, b"".join(line + b"\n" for line in kept))
        self.sinks = open_sinks(config, step)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        for sink in self.sinks:
            sink.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for sink in self.sinks:
            sink.write(record)


def _step_of(line: bytes) -> float:
    """The step of a log line; infinite for a damaged line, which is dropped."""
    try:
        return validate(Logged, parse_json(line, "a line"), "a line", others=True).step
    except DiffpolicyError:
        return math.inf
