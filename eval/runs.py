"""`diffpolicy runs`: the runs below a folder, with their state and their best figures."""

import json
from dataclasses import asdict

from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.terminal.output import STDOUT, print_alone, say

from .measure.run_figures import with_figures
from .measure.run_folders import find_runs
from .report.runs_table import print_runs
from .runs_config import RunsConfig


def runs(config: RunsConfig) -> None:
    """Print the runs; write JSON on request. Raises DiffpolicyError if there are none."""
    if not config.folder.is_dir():
        raise DiffpolicyError(f"{config.folder} is not a folder; expected one with runs in it")
    if config.json and config.json != STDOUT:
        check_writable(config.json)
    found, damaged = find_runs(config.folder)
    if not found and not damaged:
        raise DiffpolicyError(
            f"{config.folder} holds no run; expected folders that train or distill wrote"
        )
    found, unread = with_figures(config.folder, found)
    skipped = damaged | unread
    print_runs(found, skipped)
    text = json.dumps({"runs": [asdict(run) for run in found], "skipped": skipped}, indent=1)
    if config.json == STDOUT:
        print_alone(text)
    elif config.json:
        write_text(config.json, text)
        say(f"wrote {config.json}")
