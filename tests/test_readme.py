"""The README: its code blocks run, in small."""

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest
import tyro

from diffpolicy import cli
from diffpolicy.eval import suite

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HUMAN = "pusht_cchi_v7_replay.zarr"
IN_SMALL = {
    "minutes": 0.02,
    "steps": 20,
    "episodes": 2,
    "demonstrations": 2,
    "envs": 2,
    "batch": 2,
    "max_steps": 12,
    "latency_seconds": 0.05,
    "seconds": 0.05,
    "ddim_steps": (1, 2),
    "engine": "eager",
}
SUITE_IN_SMALL = {
    "demonstrations": 1,
    "training": {"steps": 5},
    "evaluation": {
        **{"episodes": 2, "ddim_steps": (1,), "ddpm": False, "latency_seconds": 0.05},
        "engine": "eager",
    },
    "seed": 0,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("diffpolicy ")]


def run_in_small(name: str, *arguments: str) -> None:
    """Parses a command as the README has it, then runs it with small numbers."""
    options, function = cli.COMMANDS[name]
    parsed = tyro.cli(cli.named(options), args=arguments)
    chosen = {f.name: IN_SMALL[f.name] for f in fields(parsed) if f.name in IN_SMALL}
    if name in ("eval", "delays"):
        chosen["ddim_steps"] = 1
    if name == "latency":
        chosen["engine"] = ("eager",)
    if name == "train":
        chosen.pop("minutes" if parsed.minutes is None else "steps")
        chosen.pop("batch")
    if name == "record":
        chosen.pop("max_steps")
    cli.named(function)(replace(parsed, **chosen))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("readme")


def needs_human_data(arguments: list[str]) -> bool:
    return HUMAN in arguments or "runs/pusht" in arguments


def needs_door(arguments: list[str]) -> bool:
    return any("door" in word for word in arguments)


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_command_runs(arguments, folder, monkeypatch, request):
    if needs_human_data(arguments) and not (folder / HUMAN).exists():
        demos = request.getfixturevalue("demos")
        (folder / HUMAN).symlink_to(demos / "pusht_human" / HUMAN)
    if needs_door(arguments):
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
        monkeypatch.setenv("DIFFPOLICY_DEMOS", str(request.getfixturevalue("demos").resolve()))
        monkeypatch.syspath_prepend(ROOT / "datasets")
    monkeypatch.chdir(folder)
    monkeypatch.setitem(suite.PROTOCOLS, "quick", SUITE_IN_SMALL)
    run_in_small(*arguments)


def test_python_runs_from_the_first_block_to_the_last(folder, demos, monkeypatch):
    monkeypatch.chdir(folder)
    if not Path("runs/pusht").exists():
        Path(HUMAN).symlink_to(demos / "pusht_human" / HUMAN)
        run_in_small(*next(c for c in commands() if c[0] == "train"))
    names, shapes = {}, []
    for code in blocks("python"):
        exec(code, names)
        shapes.append(tuple(names["actions"].shape))
    assert shapes == [(1, 8, 2), (1, 8, 2), (2, 8, 64), (2, 8, 64)]
    assert (names["found"].solver_steps, names["found"].network_evals) == (999, 145)
    assert names["x"].shape == (1, 16, 2)
