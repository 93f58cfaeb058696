"""The facts of a release stand in several files, and agree."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_citation_has_the_version_of_the_package():
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_newest_section_of_the_changelog_is_that_version():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == VERSION


def test_the_image_installs_the_torch_that_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [torch] = [wanted for wanted in project["dependencies"] if wanted.startswith("torch")]
    assert f'"{torch}"' in (ROOT / "Dockerfile").read_text()
