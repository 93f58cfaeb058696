"""The `diffpolicy` command: a table of subcommands, each imported when it is called."""

import logging
import re
import signal
import sys
from importlib import import_module
from itertools import pairwise
from typing import Any

from diffpolicy.errors import DiffpolicyError

COMMANDS = {  # name: (dataclass of its options, function of them)
    "quickstart": (
        "diffpolicy.eval.experiment_config:QuickstartConfig",
        "diffpolicy.eval.quickstart:quickstart",
    ),
    "record": ("diffpolicy.config:RecordConfig", "diffpolicy.record:record"),
    "info": ("diffpolicy.config:InfoConfig", "diffpolicy.info:info"),
    "train": ("diffpolicy.config:TrainConfig", "diffpolicy.training.train:train"),
    "eval": ("diffpolicy.eval.config:EvalConfig", "diffpolicy.eval.evaluate:evaluate_budget"),
    "latency": ("diffpolicy.eval.config:LatencyConfig", "diffpolicy.eval.latency:latency"),
    "delays": ("diffpolicy.eval.config:DelaysConfig", "diffpolicy.eval.delays:delays"),
    "denoise": ("diffpolicy.eval.data_config:DenoiseConfig", "diffpolicy.eval.denoise:denoise"),
    "suite": ("diffpolicy.eval.experiment_config:SuiteConfig", "diffpolicy.eval.suite:suite"),
    "sweep": ("diffpolicy.eval.config:SweepConfig", "diffpolicy.eval.sweep:command"),
    "report": ("diffpolicy.eval.config:ReportConfig", "diffpolicy.eval.redraw:redraw"),
    "offline": ("diffpolicy.eval.data_config:OfflineConfig", "diffpolicy.eval.offline:offline"),
    "import": ("diffpolicy.stores.config:ImportConfig", "diffpolicy.stores.importing:import_store"),
    "export": ("diffpolicy.stores.config:ExportConfig", "diffpolicy.stores.exporting:export_store"),
    "validate": ("diffpolicy.stores.config:ValidateConfig", "diffpolicy.stores.validate:validate"),
    "merge": ("diffpolicy.stores.config:MergeConfig", "diffpolicy.stores.curate:merge"),
    "split": ("diffpolicy.stores.config:SplitConfig", "diffpolicy.stores.curate:split"),
    "filter": ("diffpolicy.stores.config:FilterConfig", "diffpolicy.stores.curate:filter_store"),
    "replay": ("diffpolicy.eval.data_config:ReplayConfig", "diffpolicy.eval.replay:replay"),
    "import-policy": (
        "diffpolicy.policies.config:ImportPolicyConfig",
        "diffpolicy.policies.importing:import_policy",
    ),
    "export-policy": (
        "diffpolicy.policies.config:ExportPolicyConfig",
        "diffpolicy.policies.exporting:export_policy",
    ),
}
INTERRUPTED, TERMINATED = 130, 143


class Printed(logging.Handler):
    """Show messages of the library as plain lines on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(record.getMessage())


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


def _terminate(*_: Any) -> None:
    raise Terminated


def main() -> None:
    """Run the command line. Bad input is one line on stderr and exit status 2."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        from diffpolicy.version import __version__

        print(f"diffpolicy {__version__}")
    elif name in ("-h", "--help"):
        print(_help())
    elif name not in COMMANDS:
        sys.exit(_fail(f"{name!r} is not a command; choose one of: {', '.join(COMMANDS)}"))
    else:
        sys.exit(_run(name, arguments))


def _help() -> str:
    helps = {name: str(named(options).__doc__) for name, (options, _) in COMMANDS.items()}
    rows = [f"  {name:<15}{text.splitlines()[0]}" for name, text in helps.items()]
    usage = "usage: diffpolicy COMMAND [OPTIONS]"
    question = "How many denoising steps can your robot afford?"
    more = "'diffpolicy COMMAND --help' lists the options of a command."
    return "\n".join([usage, "", question, "", *rows, "", more])


def _run(name: str, arguments: list[str]) -> int:
    import tyro

    options, function = COMMANDS[name]
    logger = logging.getLogger("diffpolicy")
    logger.setLevel(logging.INFO)
    logger.handlers = [Printed()]
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _check_given(arguments)
        config = tyro.cli(named(options), args=arguments, prog=f"diffpolicy {name}")
        named(function)(config)
    except DiffpolicyError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise
        return _fail(f"not enough memory: {str(error) or 'choose smaller sizes'}")
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _check_given(arguments: list[str]) -> None:
    """Refuse empty arguments, which a shell passes for unset variables."""
    for before, argument in pairwise(["", *arguments]):
        if argument == "" or re.fullmatch(r"--[\w-]+=", argument):
            option = argument.rstrip("=") or before or "the first argument"
            raise DiffpolicyError(f"{option} is empty; expected a value")


def named(reference: str) -> Any:
    """Import the object that "module:name" refers to."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _fail(message: str) -> int:
    print(f"diffpolicy: {' '.join(message.split())}", file=sys.stderr)
    return 2
