"""The `diffpolicy` command: a table of subcommands, each loaded by name when it is called."""

import sys
from importlib import import_module
from typing import Any

from diffpolicy.errors import DiffpolicyError

COMMANDS = {  # name: (config class, function that takes it)
    "quickstart": ("QuickstartConfig", "diffpolicy.eval.quickstart:quickstart"),
    "record": ("RecordConfig", "diffpolicy.record:record"),
    "info": ("InfoConfig", "diffpolicy.info:info"),
    "train": ("TrainConfig", "diffpolicy.train:train"),
    "eval": ("EvalConfig", "diffpolicy.eval.success:evaluate_budget"),
    "latency": ("LatencyConfig", "diffpolicy.eval.latency:latency"),
    "delays": ("DelaysConfig", "diffpolicy.eval.delays:delays"),
    "denoise": ("DenoiseConfig", "diffpolicy.eval.denoise:denoise"),
    "sweep": ("SweepConfig", "diffpolicy.eval.sweep:sweep"),
}
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

    first_lines = {
        n: str(getattr(config, c).__doc__).split("\n")[0] for n, (c, _) in COMMANDS.items()
    }
    rows = [f"  {name:<12}{line}" for name, line in first_lines.items()]
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

    return tyro.cli(getattr(config, config_class), args=arguments, prog=f"diffpolicy {name}")


def _fail(message: str) -> int:
    print(f"diffpolicy: {' '.join(message.split())}", file=sys.stderr)
    return 2
