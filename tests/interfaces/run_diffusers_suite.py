"""Runs diffusers' own tests of its DDIM scheduler, unchanged, on diffpolicy's.

    python tests/interfaces/run_diffusers_suite.py PATH_TO_A_DIFFUSERS_CHECKOUT

The checkout's tests are used, with the diffusers that is installed. What fails must be exactly
EXPECTED: cases about diffusers' own machinery, each with its reason. Exit status 0 says so.
"""

import sys
from pathlib import Path

import diffusers
import pytest

from diffpolicy import DDIMScheduler

EXPECTED = {
    "test_compatibles": "lists the classes of diffusers that take the same configuration",
    "test_deprecated_kwargs": "reads the list of arguments that diffusers has renamed",
    "test_getattr_is_correct": "register_to_config, and warnings about it in diffusers' logger",
}


class Watch:
    """Outcomes by the name of the test."""

    def __init__(self):
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            (self.failed if report.failed else self.passed).add(report.nodeid.rsplit("::")[-1])


def main(checkout: Path) -> int:
    """Exit status: 0 where exactly the expected cases fail."""
    diffusers.DDIMScheduler = DDIMScheduler
    watch = Watch()
    suite = checkout / "tests" / "schedulers" / "test_scheduler_ddim.py"
    options = [
        "-q",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        f"--rootdir={checkout}",
        "-o",
        "addopts=",
    ]
    pytest.main([str(suite), "-k", "DDIMSchedulerTest", *options], plugins=[watch])
    print(f"{len(watch.passed)} passed, {len(watch.failed)} failed")
    for name in sorted(watch.failed):
        print(f"  {name}: {EXPECTED.get(name, 'NOT EXPECTED')}")
    return int(not watch.passed or watch.failed != EXPECTED.keys())


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "tests/schedulers").is_dir():
        sys.exit(f"usage: python {sys.argv[0]} PATH_TO_A_DIFFUSERS_CHECKOUT")
    sys.exit(main(Path(sys.argv[1]).resolve()))
