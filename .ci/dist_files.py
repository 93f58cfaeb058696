"""Compare the files of wheels and sdists with the checkout: python .ci/dist_files.py FILE..."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"diffpolicy": "diffpolicy", "envs": "diffpolicy/envs", "eval": "diffpolicy/eval"}
DOCUMENTS = ("eval/docs", "eval/results")
MADE = ("PKG-INFO", "setup.cfg", "diffpolicy.egg-info/")  # by setuptools, in an sdist


def tracked() -> set[str]:
    """Names of the tracked files."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name}


def installed() -> set[str]:
    """Installed names of the tracked files, without documents and results."""
    paths = [Path(name) for name in tracked() if name.partition("/")[0] in FOLDERS]
    documents = {p for p in paths if p.suffix == ".md" or str(p).startswith(DOCUMENTS)}
    kept = (path for path in paths if path not in documents)
    return {"/".join([FOLDERS[path.parts[0]], *path.parts[1:]]) for path in kept}


def of_wheel(file: Path) -> set[str]:
    """Files of a wheel, without its metadata."""
    with zipfile.ZipFile(file) as wheel:
        return {name for name in wheel.namelist() if ".dist-info/" not in name}


def of_sdist(file: Path) -> set[str]:
    """Files of an sdist below its folder, without those that setuptools makes."""
    with tarfile.open(file) as sdist:
        names = (member.name.partition("/")[2] for member in sdist if member.isfile())
        return {name for name in names if not name.startswith(MADE)}


def main() -> None:
    """Exit with the names that differ, if any."""
    for file in map(Path, sys.argv[1:]):
        is_wheel = file.suffix == ".whl"
        wrong = of_wheel(file) ^ installed() if is_wheel else of_sdist(file) ^ tracked()
        if wrong:
            sys.exit(f"{file.name} and the checkout differ in {', '.join(sorted(wrong))}")


if __name__ == "__main__":
    main()
