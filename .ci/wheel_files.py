"""Compare the files of a wheel with those of the checkout: python .ci/wheel_files.py WHEEL."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"diffpolicy": "diffpolicy", "envs": "diffpolicy/envs", "eval": "diffpolicy/eval"}
LEFT_OUT = ("*.md", "eval/results/*", "eval/results/*/*")


def wanted() -> set[str]:
    """Installed names of the tracked files, without documents and results."""
    command = ["git", "ls-files", "-z", *FOLDERS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    kept = (path for path in paths if not any(path.match(pattern) for pattern in LEFT_OUT))
    return {"/".join([FOLDERS[path.parts[0]], *path.parts[1:]]) for path in kept}


def main() -> None:
    """Exit with the names that differ, if any."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    if wrong := sorted(wanted() ^ found):
        sys.exit(f"the wheel and the checkout differ in {', '.join(wrong)}")


if __name__ == "__main__":
    main()
