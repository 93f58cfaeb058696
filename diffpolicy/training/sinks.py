"""Further places for the log of a training run: TensorBoard, and Weights & Biases."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from diffpolicy.errors import DiffpolicyError
from diffpolicy.training.config import TrainConfig

Record = Mapping[str, Any]  # a log line: numbers by name, with `step`


class Sink(Protocol):
    """A place for log lines."""

    def write(self, record: Record) -> None:
        """Add a line."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard; those after the step of a resumed run are hidden."""

    def __init__(self, config: TrainConfig, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(config.out / "tensorboard"), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Add a point to each curve."""
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandB:
    """A run of the project diffpolicy, in RUN/wandb; a resumed training continues it.

    WANDB_MODE=offline needs no account.
    """

    def __init__(self, config: TrainConfig, step: int):
        import wandb

        folder = config.out.resolve()
        try:
            self._run = wandb.init(
                project="diffpolicy",
                name=folder.name,
                id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
                dir=str(folder),
                config={name: str(value) for name, value in vars(config).items()},
                resume="allow",
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise DiffpolicyError(
                f"--log wandb: {error}; expected an account, or WANDB_MODE=offline"
            ) from error
        self._run.define_metric("*", step_metric="step")  # an evaluation ends after later steps

    def write(self, record: Record) -> None:
        """Add a point to each curve."""
        self._run.log(dict(record))

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


SINKS = {"tensorboard": TensorBoard, "wandb": WandB}  # by --log, which is also the package


def check_sinks(names: tuple[str, ...]) -> None:
    """Raise DiffpolicyError for a sink whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise DiffpolicyError(
                f"--log {name} needs {name}; install it with pip install 'diffpolicy[{name}]'"
            )


def open_sinks(config: TrainConfig, step: int) -> list[Sink]:
    """The sinks of --log, for a run that starts or goes on at `step`."""
    return [SINKS[name](config, step) for name in config.log]
