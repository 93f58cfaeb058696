"""A suite on Ray that loses a machine: `python eval/bench/bench_ray.py --out DIR`, as root.

Network namespaces stand for a head and two machines of one CPU each. A small suite runs here, then
on them; the processes of one machine are killed when the first task is done. It prints for each
task whether the episodes are those of this computer, to the byte.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from diffpolicy.eval import suite as suites
from diffpolicy.eval.experiment_config import SuiteConfig
from diffpolicy.eval.report.table import print_table

MACHINES = {"head": "10.77.0.1", "first": "10.77.0.2", "second": "10.77.0.3"}
PORT, BRIDGE = 6379, "diffpolicy0"
RAY = str(Path(sys.executable).with_name("ray"))
SMALL = {
    "demonstrations": 10,
    "training": {"steps": 600},
    "evaluation": {
        "episodes": 50,
        "seed": 100_000,
        "ddim_steps": [1, 4],
        "ddpm": False,
        "ms_per_step": 2.0,
        "workers": 1,
    },
    "seed": 0,
}


@dataclass(frozen=True)
class Config:
    """Compare a suite on Ray with one on this computer."""

    out: Path
    """Folder to write; what is there is removed."""
    on_ray: bool = False
    """Run the suite on the cluster of RAY_ADDRESS, in OUT: this script's own second process."""


def main(config: Config) -> None:
    """Run both, kill a machine, compare."""
    suites.PROTOCOLS["quick"] = SMALL
    if config.on_ray:
        suites.suite(SuiteConfig(out=config.out, device="cpu", threads=1, on="ray"))
        return
    here, there = config.out / "here", config.out / "there"
    shutil.rmtree(config.out, ignore_errors=True)
    begin = time.monotonic()
    suites.suite(SuiteConfig(out=here, device="cpu", threads=1))
    between = time.monotonic()
    with machines():
        lost = on_machines(there)
    print(f"here {between - begin:.0f} s; on two machines {time.monotonic() - between:.0f} s")
    rows = [[task, len(episodes(here, task)), same(here, there, task)] for task in suites.TASKS]
    print_table(["task", "bytes of episodes", f"the same after losing {lost}"], rows)
    if not all(row[-1] for row in rows):
        sys.exit("episodes differ")


def on_machines(out: Path) -> str:
    """The suite on the cluster, whose first machine is killed after the first task; its name."""
    command = [sys.executable, __file__, "--on-ray", "--out", str(out)]
    address = {"RAY_ADDRESS": f"{MACHINES['head']}:{PORT}"}
    driver = subprocess.Popen(inside("head", command), env={**os.environ, **address})
    while driver.poll() is None and not any(out.glob("*/sweep.json")):
        time.sleep(0.5)
    kill("first")
    if driver.wait():
        sys.exit("the suite failed")
    return "first"


def same(here: Path, there: Path, task: str) -> bool:
    """True if all episodes of a task are equal, to the byte."""
    return episodes(here, task) == episodes(there, task)


def episodes(folder: Path, task: str) -> bytes:
    """The records of a task's episodes."""
    return (folder / task / "sweep_episodes.csv").read_bytes()


@contextmanager
def machines() -> Iterator[None]:
    """A Ray cluster: a head without CPUs, and two machines with one each."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    remove_network()
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    try:
        for name, address in MACHINES.items():
            connect(name, address)
            run(*inside(name, start(name, address)))
        yield
    finally:
        for name in MACHINES:
            kill(name)
        remove_network()


def connect(name: str, address: str) -> None:
    """A network namespace with an address on the bridge."""
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "link", "set", f"to-{name}", "master", BRIDGE, "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        run("ip", "-n", name, "link", "set", device, "up")


def start(name: str, address: str) -> list[str]:
    """The command that starts Ray on a machine."""
    common = [RAY, "start", "--node-ip-address", address, "--disable-usage-stats"]
    if name == "head":
        return [*common, "--head", "--port", str(PORT), "--num-cpus=0", "--include-dashboard=false"]
    return [*common, "--address", f"{MACHINES['head']}:{PORT}", "--num-cpus=1"]


def inside(name: str, command: list[str]) -> list[str]:
    """A command in a namespace."""
    return ["ip", "netns", "exec", name, *command]


def kill(name: str) -> None:
    """Kill every process of a machine."""
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for process in map(int, listed.stdout.split()):
        os.kill(process, signal.SIGKILL)


def remove_network() -> None:
    """Remove the namespaces, their cables and the bridge, if they exist."""
    spaces = [["netns", "del", name] for name in MACHINES]
    cables = [["link", "del", device] for device in (*(f"to-{name}" for name in MACHINES), BRIDGE)]
    for command in (*spaces, *cables):
        subprocess.run(["ip", *command], capture_output=True)


def run(*command: str) -> None:
    """Run a command; its failure ends the script."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(tyro.cli(Config))
