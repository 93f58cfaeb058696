"""`diffpolicy info`: the contents of demonstrations, or a run with its best known results."""

import json
from dataclasses import asdict

from diffpolicy import info as stores
from diffpolicy.checkpoint import load_policy, policy_path
from diffpolicy.config import InfoConfig
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.terminal.output import STDOUT, print_alone

from .measure.run_figures import with_figures
from .measure.run_folders import find_runs
from .measure.training_log import last
from .report.run_lines import run_lines


def info(config: InfoConfig) -> None:
    """Print a run in ten lines, its specification with --json; or the arrays of a store."""
    if config.path.suffix == ".json" and config.path.is_file():
        raise DiffpolicyError(
            f"{config.path} is a JSON file; expected a run folder or demonstrations; for a result "
            f"of sweep, delays or suite: diffpolicy report {config.path}"
        )
    if config.path.suffix == ".safetensors" or list(config.path.glob("*.safetensors")):
        print_run(config)
    elif config.json:
        raise DiffpolicyError(f"--json is for a run; {config.path} is no run folder")
    else:
        stores.info(config)


def print_run(config: InfoConfig) -> None:
    """Print facts of a run, or write its specification. Raises DiffpolicyError if damaged."""
    if config.json and config.json != STDOUT:
        check_writable(config.json)
    checkpoint = load_policy(config.path)
    text = json.dumps(asdict(checkpoint.specification), indent=2, default=str)
    if config.json == STDOUT:
        return print_alone(text)
    folder = policy_path(config.path).parent
    found, _ = find_runs(folder)
    found, damaged = with_figures(folder, [run for run in found if run.name == "."])
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    print(f"{config.path}:")
    for line in run_lines(checkpoint, found[0] if found else None, last(folder, "loss"), sizes):
        print(f"  {line}")
    for reason in damaged.values():
        print(f"warning: skipped: {' '.join(reason.split())}")
    if config.json:
        write_text(config.json, text)
        print(f"wrote {config.json}")
