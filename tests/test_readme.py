"""The documents: their commands and Python blocks run, in small, and their links exist."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import tyro
from foreign_data import samples

import diffpolicy.envs
from diffpolicy import cli
from diffpolicy.eval import quickstart, suite
from diffpolicy.eval.config import SweepConfig
from diffpolicy.training import correction, distill

ROOT = Path(__file__).parent.parent
DOCUMENTS = (  # in this order: later commands use what earlier ones wrote
    *("README.md", "eval/README.md", "diffpolicy/engines/README.md"),
    *("diffpolicy/control/README.md", "diffpolicy/late/README.md"),
    "diffpolicy/interfaces/README.md",
    *("diffpolicy/policies/README.md", "diffpolicy/teleop/README.md", "envs/README.md"),
    "diffpolicy/play/README.md",
    "diffpolicy/training/README.md",
    *("datasets/README.md", "eval/POLICIES.md", "CONTRIBUTING.md", "CHANGELOG.md"),
)
SITE = tuple(
    f"eval/docs/{n}.md" for n in ("README", "index", "tutorial", "numbers", "yours", "extend")
)
MOST_BYTES = 10_240  # of README.md
HUMAN = "pusht_cchi_v7_replay.zarr"
THEIRS = "lerobot_diffusion_state"
IN_SMALL = {
    "minutes": 0.001,
    "steps": 20,
    "episodes": 2,
    "eval_episodes": 1,
    "demonstrations": 1,
    "envs": 2,
    "workers": 1,
    "batch": 2,
    "max_steps": 12,
    "latency_seconds": 0.05,
    "seconds": 0.05,
    "ddim_steps": (1, 2),
    "engine": "eager",
    "pictures": False,
}
SUITE_IN_SMALL = {
    "demonstrations": 1,
    "training": {"steps": 5},
    "evaluation": {
        **{"episodes": 2, "ddim_steps": (1,), "ddpm": False, "latency_seconds": 0.05},
        **{"engine": "eager", "max_steps": 12, "workers": 1, "pictures": False},
    },
    "seed": 0,
}


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(language: str, documents: tuple[str, ...]) -> list[str]:
    found = (re.findall(rf"```{language}\n(.*?)```", read(name), re.DOTALL) for name in documents)
    return [block for of_document in found for block in of_document]


def files() -> dict[str, str]:
    """The Python blocks to be saved as a file, which their first line names."""
    every = blocks("python", DOCUMENTS + SITE)
    found = ((re.match(r"# (\w+\.py)\n", code), code) for code in every)
    return {name[1]: code for name, code in found if name}


def run_blocks(*documents: str) -> Iterator[dict[str, Any]]:
    """Names after each Python block of the documents but those to be saved."""
    names: dict[str, Any] = {}
    for code in blocks("python", documents):
        if code not in files().values():
            exec(code, names)
            yield names


def commands() -> list[tuple[str, ...]]:
    """Every command of the documents, once."""
    lines = "".join(blocks("bash", DOCUMENTS + SITE)).splitlines()
    found = (tuple(shlex.split(line)[1:]) for line in lines if line.startswith("diffpolicy "))
    return list(dict.fromkeys(found))


def run_in_small(name: str, *arguments: str) -> None:
    """Parse a command as the document has it, then run it with small numbers."""
    options, function = cli.COMMANDS[name]
    parsed = tyro.cli(cli.named(options), args=arguments)
    chosen = {f.name: IN_SMALL[f.name] for f in fields(parsed) if f.name in IN_SMALL}
    if "--policy" in arguments:
        chosen.pop("engine", None)  # of a run
    if name in ("eval", "export-policy"):
        chosen["ddim_steps"] = 1
    if name == "latency" and "engine" in chosen:
        chosen["engine"] = ("eager",)
    if name in ("train", "distill"):
        chosen.pop("minutes" if parsed.minutes is None else "steps")
        chosen.pop("batch", None)
    if name == "record":
        chosen.pop("max_steps")
    if name == "filter":
        chosen.pop("episodes")  # numbers of them, not how many
    cli.named(function)(replace(parsed, **chosen))


def chains() -> dict[str, list[tuple[str, ...]]]:
    """Commands in order, those that use the same data together."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for command in commands():
        text = " ".join(command)
        data = ("pusht", "balance", "door", "--policy", "theirs", "detour", "park")
        name = next((name for name in data if name in text), command[0])
        found.setdefault(name, []).append(command)
    return found


def small_look() -> dict[str, Any]:
    """Options that make an evaluation small."""
    return {name: IN_SMALL[name] for name in ("engine", "max_steps", "workers")}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """The current folder, with the protocols of `quickstart` and `suite` made small."""
    small = small_look() | {"pictures": IN_SMALL["pictures"]}
    monkeypatch.setattr(quickstart, "SweepConfig", partial(SweepConfig, ddpm=False, **small))
    monkeypatch.setattr(quickstart, "FIRST", {"ddim_steps": 1, "episodes": 2, **small_look()})
    monkeypatch.setitem(suite.PROTOCOLS, "quick", SUITE_IN_SMALL)
    monkeypatch.setattr(suite, "TASKS", ("Balance-v0",))
    monkeypatch.setattr(distill, "PAIRS", 100)
    monkeypatch.setattr(correction, "CHUNKS", 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")  # a cluster of its own
    yield tmp_path
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def link_human_data(folder: Path, demos: Path) -> None:
    (folder / HUMAN).symlink_to((demos / "pusht_human" / HUMAN).resolve())


@pytest.mark.parametrize("chain", chains())
def test_commands_run(chain, folder, monkeypatch, request):
    if chain == "pusht":
        link_human_data(folder, request.getfixturevalue("demos"))
    if chain == "door":
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
        monkeypatch.setenv("DIFFPOLICY_DEMOS", str(request.getfixturevalue("demos").resolve()))
        monkeypatch.syspath_prepend(ROOT / "datasets")
    if chain == "theirs":
        (folder / THEIRS).symlink_to((samples() / THEIRS).resolve())
    for name, code in files().items():
        (folder / name).write_text(code)
    for command in chains()[chain]:
        run_in_small(*command)


def test_python_runs_from_the_first_block_to_the_last(folder, demos):
    link_human_data(folder, demos)
    run_in_small(*next(command for command in chains()["pusht"] if command[0] == "train"))
    shapes = []
    for names in run_blocks(*DOCUMENTS):
        shapes.append(tuple(names["actions"].shape))
    assert shapes == [(1, 8, 2), (12, 2), (12, 2), (2, 8, 64), (2, 8, 64), (100, 2)]
    assert (names["found"].solver_steps, names["found"].network_evals) == (999, 145)
    assert names["x"].shape == (1, 16, 2)


def test_the_python_blocks_of_the_site_run(folder, capsys):
    for command in chains()["detour"]:
        if command[0] in ("record", "train"):
            run_in_small(*command)
    for page in SITE:
        capsys.readouterr()
        for _ in run_blocks(page):
            pass
        claims = re.findall(r"print\(.*\)  # (.+)", "".join(blocks("python", (page,))))
        assert capsys.readouterr().out.splitlines() == claims


@pytest.mark.parametrize("page", SITE)
def test_what_is_not_run_says_so(page):
    """Of the site's commands, those of other programs than diffpolicy, and of GPUs, cannot run."""
    text = read(page)
    for block in re.finditer(r"```bash\n(.*?)```", text, re.DOTALL):
        foreign = [line for line in block[1].splitlines() if not line.startswith("diffpolicy ")]
        before = text[: block.start()].splitlines()[-2]
        assert not foreign or before.startswith("*Not run by the tests")


def test_the_readme_is_short():
    assert len(read("README.md").encode()) <= MOST_BYTES


def test_the_readme_has_the_tests_command():
    assert '```bash\npip install -e ".[test]"\npytest\n```' in read("README.md")


@pytest.mark.parametrize("document", DOCUMENTS + SITE)
def test_every_link_leads_somewhere(document):
    targets = re.findall(r"\]\(([^)\s]+)\)", read(document))
    here = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [target for target in here if not ((ROOT / document).parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("task", diffpolicy.envs.TASKS)
def test_the_tables_of_tasks_are_true(task):
    _, ticks = diffpolicy.envs.TASKS[task]
    control_hz = 1 / gymnasium.make(f"diffpolicy.envs:{task}").unwrapped.control_dt_s
    assert f"| `{task}` | {control_hz:.0f} Hz |" in read("README.md")
    assert f"| `{task}` | {control_hz:.0f} Hz | {ticks} |" in read("envs/README.md")
