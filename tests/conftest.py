"""Fixtures of several test files: demonstrations, a tiny trained run, and the command itself."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from diffpolicy import cli
from diffpolicy.config import RecordConfig
from diffpolicy.environment.headless import prefer_egl
from diffpolicy.record import record
from diffpolicy.training.config import TrainConfig

if "PYTEST_XDIST_WORKER" in os.environ:  # before any test imports torch: a worker has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("TQDM_DISABLE", None)  # some tests read the bars
prefer_egl()  # before any test imports mujoco
# A shell ignores Ctrl-C for what it starts in the background, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("any machine", deadline=None)  # nothing here asserts a time
settings.load_profile("any machine")

BALANCE = "diffpolicy.envs:Balance-v0"
PROGRESS = re.compile(r"\|.*\d+/.*\[.*\]")


def pytest_collection_modifyitems(items):
    """Skip the tests marked gpu without a CUDA device; import torch only for such tests."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def demos() -> Path:
    """Folder of human demonstrations."""
    folder = os.environ.get("DIFFPOLICY_DEMOS")
    if not folder:
        pytest.skip("DIFFPOLICY_DEMOS does not name the folder of human demonstrations")
    if not Path(folder).is_dir():
        pytest.skip(f"DIFFPOLICY_DEMOS names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def balance_store(tmp_path_factory) -> Path:
    """Store of six episodes of Balance-v0. Read-only; copy it to change it."""
    store = tmp_path_factory.mktemp("balance") / "balance.zarr"
    record(RecordConfig(BALANCE, episodes=6, out=store))
    return store


@pytest.fixture(scope="session")
def tiny_run(balance_store, tmp_path_factory) -> Path:
    """Run folder of 20 training steps, complete but useless. Read-only; copy it to change it."""
    from diffpolicy.training.train import train

    out = tmp_path_factory.mktemp("tiny") / "run"
    train(TrainConfig(data=balance_store, out=out, steps=20, hidden=32, blocks=1, device="cpu"))
    return out


def rewrite(file: Path, change) -> None:
    """Let change(header, tensors) edit a safetensors file of a run, or return its header's text."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["diffpolicy"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    text = change(header, tensors)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, file, {"diffpolicy": text or json.dumps(header)})


def as_version_5(header, tensors) -> None:
    """Change to format 5: regression or not, in place of an objective and its options."""
    header["format_version"] = 5
    options = ("mip_timestep", "time_sampling", "prefix_max")
    if "specification" in header:
        del header["specification"]["schedules"]
        model = header["specification"]["model"]
    else:
        model = header["identity"]
        del model["beta2"], model["observation_noise"], model["mirror"]
    model["regression"] = model.pop("objective") == "regression"
    for name in options:
        del model[name]


def as_version_4(header, tensors) -> None:
    """Change to format 4: no grid of the run, no crop of one camera."""
    as_version_5(header, tensors)
    header["format_version"] = 4
    within = header.get("specification", header.get("identity"))
    for name in ("grid", "rederive"):
        within.pop(name, None)
    for spec in within["task"]["observations"].values():
        del spec["crop"]


def as_version_3(header, tensors) -> None:
    """Change to format 3: no pictures."""
    from diffpolicy.checkpoint import WITHOUT_PICTURES

    as_version_4(header, tensors)
    header["format_version"] = 3
    within = header.get("specification", header.get("identity"))
    del within["task"]["camera"]
    model = within.get("model", within)
    for name in WITHOUT_PICTURES:
        del model[name]
    within.pop("colour_jitter", None)


def as_version_2(header, tensors) -> None:
    """Change to format 2: one observation, a vector."""
    as_version_3(header, tensors)
    header["format_version"] = 2
    task = header.get("specification", header.get("identity"))["task"]
    [spec] = task.pop("observations").values()
    [task["observation_dim"]] = spec["shape"]


def as_version_1(header, tensors) -> None:
    """Change to format 1: no target in the training state, no observation keys."""
    as_version_2(header, tensors)
    header["format_version"] = 1
    if "specification" in header:
        del header["specification"]["task"]["observation_keys"]
    else:
        del header["steps"], header["minutes"]


class Outcome(NamedTuple):
    code: int
    out: str
    errors: list[str]


@pytest.fixture
def call(monkeypatch, capsys):
    """Function call("info", path) -> Outcome of a command in this process; no progress bars."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["diffpolicy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        lines = re.split(r"[\r\n]+", err)
        errors = [line for line in lines if line.strip() and not PROGRESS.search(line)]
        return Outcome(int(exit_.value.code or 0), out, errors)

    return run


@pytest.fixture
def refused(call):
    """Function refused("info", path) -> the one line on stderr for bad input."""

    def run(*arguments: object) -> str:
        code, _, errors = call(*arguments)
        assert code == 2
        assert len(errors) == 1, errors
        assert errors[0].startswith("diffpolicy: ")
        return errors[0]

    return run


@pytest.fixture
def snapshot():
    """Function snapshot(folder) -> {relative path: bytes, or None for a folder}."""

    def take(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }

    return take
