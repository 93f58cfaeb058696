"""The `diffpolicy` command: a table of subcommands, each imported when it is called."""

import os
import re
import select
import signal
import sys
from importlib import import_module
from itertools import pairwise
from typing import Any

from diffpolicy.errors import DiffpolicyError, UnknownEnvironment, system_error
from diffpolicy.terminal.names import did_you_mean
from diffpolicy.terminal.output import STDOUT, command_output

GROUPS = {  # title in the help: {name: (dataclass of its options, function of them)}
    "Start here": {
        "quickstart": (
            "diffpolicy.eval.experiment_config:QuickstartConfig",
            "diffpolicy.eval.quickstart:quickstart",
        ),
    },
    "Demonstrations": {
        "record": ("diffpolicy.config:RecordConfig", "diffpolicy.record:record"),
        "info": ("diffpolicy.config:InfoConfig", "diffpolicy.eval.info:info"),
        "validate": (
            "diffpolicy.stores.config:ValidateConfig",
            "diffpolicy.stores.validate:validate",
        ),
        "replay": ("diffpolicy.eval.data_config:ReplayConfig", "diffpolicy.eval.replay:replay"),
        "import": (
            "diffpolicy.stores.config:ImportConfig",
            "diffpolicy.stores.importing:import_store",
        ),
        "export": (
            "diffpolicy.stores.config:ExportConfig",
            "diffpolicy.stores.exporting:export_store",
        ),
        "merge": ("diffpolicy.stores.config:MergeConfig", "diffpolicy.stores.curate:merge"),
        "split": ("diffpolicy.stores.config:SplitConfig", "diffpolicy.stores.curate:split"),
        "filter": (
            "diffpolicy.stores.config:FilterConfig",
            "diffpolicy.stores.curate:filter_store",
        ),
    },
    "Train, and choose a number of denoising steps": {
        "train": ("diffpolicy.training.config:TrainConfig", "diffpolicy.training.seeds:command"),
        "distill": (
            "diffpolicy.training.config:DistillConfig",
            "diffpolicy.training.distill:distill",
        ),
        "train-correction": (
            "diffpolicy.training.config:CorrectionConfig",
            "diffpolicy.training.correction:train_correction",
        ),
        "sweep": ("diffpolicy.eval.config:SweepConfig", "diffpolicy.eval.sweep:command"),
        "offline": ("diffpolicy.eval.data_config:OfflineConfig", "diffpolicy.eval.offline:offline"),
        "eval": ("diffpolicy.eval.config:EvalConfig", "diffpolicy.eval.evaluate:evaluate_budget"),
        "play": ("diffpolicy.eval.play_config:PlayConfig", "diffpolicy.eval.play:play"),
        "latency": ("diffpolicy.eval.config:LatencyConfig", "diffpolicy.eval.latency:latency"),
        "delays": ("diffpolicy.eval.delays_config:DelaysConfig", "diffpolicy.eval.delays:delays"),
        "optimise": (
            "diffpolicy.eval.experiment_config:OptimiseConfig",
            "diffpolicy.eval.optimise:optimise",
        ),
        "denoise": ("diffpolicy.eval.data_config:DenoiseConfig", "diffpolicy.eval.denoise:denoise"),
        "suite": ("diffpolicy.eval.experiment_config:SuiteConfig", "diffpolicy.eval.suite:suite"),
        "compare": (
            "diffpolicy.eval.compare_config:CompareConfig",
            "diffpolicy.eval.compare_files:compare",
        ),
        "report": ("diffpolicy.eval.report_config:ReportConfig", "diffpolicy.eval.redraw:redraw"),
        "runs": ("diffpolicy.eval.runs_config:RunsConfig", "diffpolicy.eval.runs:runs"),
    },
    "Policies of others, and robots": {
        "import-policy": (
            "diffpolicy.policies.config:ImportPolicyConfig",
            "diffpolicy.policies.importing:import_policy",
        ),
        "export-policy": (
            "diffpolicy.policies.config:ExportPolicyConfig",
            "diffpolicy.policies.exporting:export_policy",
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
ENVIRONMENTS = "diffpolicy.envs"  # with TASKS, its table
QUESTION = "How many denoising steps can your robot afford?"
PATH = (  # of a newcomer with data
    "Your own data: info DATA; train --data DATA --env ID --out RUN; sweep --run RUN.",
    "Without a simulator: train --env none, then offline --run RUN instead of sweep.",
)
INTERRUPTED, TERMINATED, PIPE_CLOSED = 130, 143, 141  # 128 and the number of the signal


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


def _terminate(*_: Any) -> None:
    raise Terminated


def main() -> None:
    """Run the command line. Bad input is one line on stderr and exit status 2."""
    try:
        status = _main(*(sys.argv[1:] or ["--help"]))
    except BrokenPipeError as error:  # of stdout, or of another process
        status = PIPE_CLOSED if _output_is_closed() else _fail(system_error(error))
    if _output_is_closed():
        status = PIPE_CLOSED
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _main(name: str, *arguments: str) -> int:
    if name == "--version":
        from diffpolicy.version import __version__

        print(f"diffpolicy {__version__}")
    elif name in ("-h", "--help"):
        print(_help())
    elif name not in COMMANDS:
        return _fail(_unknown_command(name))
    else:
        return _run(name, list(arguments))
    return 0


def _output_is_closed() -> bool:
    """True if stdout is a pipe whose reader has ended, as `head` does."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # no stdout, or none of the system
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _unknown_command(name: str) -> str:
    meant = did_you_mean(name, COMMANDS)
    choose = f"{meant} Choose" if meant else "; choose"
    return f"{name!r} is not a command{choose} one of: {', '.join(COMMANDS)}"


def _unknown_environment(error: UnknownEnvironment) -> str:
    """The error, with the id of this project or of Gymnasium that is most like the given one."""
    from gymnasium import registry

    tasks = named(f"{ENVIRONMENTS}:TASKS")
    known = [f"{ENVIRONMENTS}:{task}" for task in tasks] + [i for i in registry if i not in tasks]
    meant = did_you_mean(error.env_id, known)
    if not meant:
        return str(error)
    text = re.sub(r" Did you mean: [^?]*\?", "", str(error))  # Gymnasium's, without the module
    return f"{text.removesuffix('.')}{meant}"


def _help() -> str:
    lines = ["usage: diffpolicy COMMAND [OPTIONS]", "", QUESTION]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        for name, (options, _) in group.items():
            lines.append(f"  {name:<18}{str(named(options).__doc__).splitlines()[0]}")
    more = "'diffpolicy COMMAND --help' lists the options of a command."
    return "\n".join([*lines, "", *PATH, more])


def _run(name: str, arguments: list[str]) -> int:
    from diffpolicy.terminal.options import parse

    options, function = COMMANDS[name]
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _check_given(arguments)
        config, quiet = parse(named(options), arguments, f"diffpolicy {name}")
        with command_output(quiet, *_output_of(config, quiet)):
            named(function)(config)
    except UnknownEnvironment as error:
        return _fail(_unknown_environment(error))
    except DiffpolicyError as error:
        return _fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(system_error(error))
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


def _output_of(config: Any, quiet: bool) -> tuple[bool, bool]:
    """Further arguments of `command_output`: verbose, and only the result as JSON."""
    verbose = getattr(config, "verbose", False)
    if quiet and verbose:
        raise DiffpolicyError("give --quiet or --verbose, not both")
    return verbose, str(getattr(config, "json", None)) == str(STDOUT)


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
