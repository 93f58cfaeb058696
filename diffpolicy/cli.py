"""The `diffpolicy` command: a table of subcommands, each loaded by name when it is called."""

import math
import sys
from importlib import import_module
from typing import Any

from diffpolicy.errors import DiffpolicyError

COMMANDS = {  # name: (config class, function that takes it, what it does)
    "quickstart": ("QuickstartConfig", "diffpolicy.eval.quickstart:quickstart"),
    "record": ("RecordConfig", "diffpolicy.record:record"),
    "info": ("InfoConfig", "diffpolicy.info:info"),
    "train": ("TrainConfig", "diffpolicy.train:train"),
    "eval": ("EvalConfig", "diffpolicy.eval.success:evaluate_budget"),
    "latency": ("LatencyConfig", "diffpolicy.eval.latency:latency"),
    "sweep": ("SweepConfig", "diffpolicy.eval.sweep:sweep"),
}
NOT_NEGATIVE = ("eta", "floor", "margin", "ms_per_step", "seed", "weight_decay")
POSITIVE = (
    *("batch", "control_dt", "demonstrations", "envs", "episodes", "latency_seconds", "lr"),
    *("max_steps", "minutes", "seconds", "steps", "threads", "train_timesteps"),
    *("observation_horizon", "prediction_horizon", "action_horizon"),
    *("blocks", "condition", "hidden", "unet_channels", "unet_groups", "unet_kernel"),
)
INTERRUPTED = 130


def main() -> None:
    """Entry point; bad input is one line on stderr and exit status 2."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        from diffpolicy import __version__

        print(f"diffpolicy {__version__}")
    elif name in ("-h", "--help"):
        print(_help())
    elif name not in COMMANDS:
        sys.exit(_fail(f"there is no command {name!r}; choose one of: {', '.join(COMMANDS)}"))
    else:
        sys.exit(_run(name, arguments))


def _help() -> str:
    from diffpolicy import config

    rows = [f"  {n:<12}{(getattr(config, c).__doc__ or '')}" for n, (c, _) in COMMANDS.items()]
    usage = "usage: diffpolicy COMMAND [OPTIONS]"
    question = "How many denoising steps can your robot afford?"
    more = "diffpolicy COMMAND --help says what a command takes."
    return "\n".join([usage, "", question, "", *rows, "", more])


def _run(name: str, arguments: list[str]) -> int:
    config_class, function = COMMANDS[name]
    module, _, attribute = function.partition(":")
    try:
        parsed = _parse(config_class, name, arguments)
        getattr(import_module(module), attribute)(parsed)
    except DiffpolicyError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parse(config_class: str, name: str, arguments: list[str]) -> Any:
    """The command's dataclass, with every number in its range."""
    import tyro

    from diffpolicy import config

    parsed = tyro.cli(getattr(config, config_class), args=arguments, prog=f"diffpolicy {name}")
    for option, value in vars(parsed).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float):
                _check_number(option, number)
    return parsed


def _check_number(option: str, number: float) -> None:
    for rule, kept in (
        ("finite", math.isfinite(number)),
        ("positive", option not in POSITIVE or number > 0),
        ("at least 0", option not in NOT_NEGATIVE or number >= 0),
    ):
        if not kept:
            name = option.replace("_", "-")
            raise DiffpolicyError(f"--{name} must be {rule}; got {number}")


def _fail(message: str) -> int:
    print(f"diffpolicy: {' '.join(message.split())}", file=sys.stderr)
    return 2
