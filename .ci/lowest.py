"""Print the lowest version that pyproject.toml allows of each direct dependency, one pin a line.

torch is left out: its lowest version is built for the CPU on few indexes, so the job keeps the
installed one.
"""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?P<extras>\[.*\])?>=(?P<lowest>[0-9.]+)")


def main() -> None:
    """Print name[extras]==lowest for every dependency but torch."""
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    for dependency in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        found = REQUIREMENT.match(dependency)
        assert found, f"{dependency} has no lowest version"
        if found["name"] != "torch":
            print(f"{found['name']}{found['extras'] or ''}=={found['lowest']}")


if __name__ == "__main__":
    main()
