"""Damaged LeRobot data sets are refused in one line, or read."""

import os
import random
import shutil
from pathlib import Path

import pytest
from lerobot_sets import Made, episodes, exported

from diffpolicy.data.formats.lerobot import open_source
from diffpolicy.errors import DiffpolicyError

CASES = 40  # of each data set


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, put in or repeated, or a number replaced."""
    data = bytearray(content)
    place = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            for _ in range(chance.choice([1, 8, 64])):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 1:
            del data[place:]
        case 2:
            data[place:place] = chance.randbytes(8)
        case 3:
            data[place:place] = data[place : place + 100]
        case 4:
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [place]
            data[chance.choice(digits) : chance.choice(digits) + 1] = b"99999999999"
    return bytes(data)


def refusals(original: Path, work: Path) -> list[str]:
    """Messages about the damaged copies that are refused."""
    found = []
    for case in range(CASES):
        chance = random.Random(case)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(original, work, ignore=shutil.ignore_patterns("images"))
        file = chance.choice([path for path in sorted(work.rglob("*")) if path.is_file()])
        file.write_bytes(damaged(file.read_bytes(), chance))
        try:
            for _ in open_source(work).episodes():
                pass
        except DiffpolicyError as error:
            found.append(str(error))
    return found


def assert_refused(messages: list[str]) -> None:
    """Some, and in one line each."""
    assert len(messages) > CASES / 3
    assert [message for message in messages if "\n" in message] == []


@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_damaged_tables_are_refused_or_read(version, tmp_path):
    exported(tmp_path / "made", version, Made(episodes(pictures=True)))
    assert_refused(refusals(tmp_path / "made", tmp_path / "work"))


def test_damaged_videos_are_refused_or_read(tmp_path):
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    assert_refused(refusals(Path(folder) / "lerobot_v3.0_mp4", tmp_path / "work"))
