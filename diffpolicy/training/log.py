"""Log of a training run: log.jsonl, and the sinks of --log."""

import json
from dataclasses import dataclass
from typing import Any

from diffpolicy.checked import parse_json, validate
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_bytes
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.sinks import open_sinks


@dataclass(frozen=True)
class Logged:
    """The part of a log line that resuming reads; success: of a closed-loop evaluation."""

    step: int
    success: float | None = None


NO_LINE = Logged(-1)  # a damaged line, which is dropped


class Log:
    """log.jsonl, cut back to the step that a resumed run starts from.

    evaluated: steps whose closed-loop evaluation the log has.
    """

    def __init__(self, config: TrainConfig, step: int):
        self.path = config.out / "log.jsonl"
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        kept = [(line, found) for line in lines if 0 <= (found := _read(line)).step <= step]
        write_bytes(self.path, b"".join(line + b"\n" for line, _ in kept))
        self.evaluated = {found.step for _, found in kept if found.success is not None}
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


def _read(line: bytes) -> Logged:
    try:
        return validate(Logged, parse_json(line, "a line"), "a line", others=True)
    except DiffpolicyError:
        return NO_LINE
