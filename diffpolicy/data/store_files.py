"""Files of a store, in a folder or in a zip: sizes and contents by their path inside it."""

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from diffpolicy.errors import DiffpolicyError


@dataclass(frozen=True)
class Folder:
    """Files of a folder by their path inside it."""

    path: Path

    def size(self, key: str) -> int | None:
        """Bytes of a regular file; None if there is none."""
        try:
            found = (self.path / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise DiffpolicyError(f"{self.path}/{key} is not a regular file; expected a file")
        return found.st_size

    def read(self, key: str) -> bytes:
        """Content of a file."""
        return (self.path / key).read_bytes()

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder."""
        folder = self.path / key
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


@dataclass(frozen=True)
class Zip:
    """Files of a zip by their path inside it."""

    file: zipfile.ZipFile

    def size(self, key: str) -> int | None:
        """Bytes of a file when unpacked; None if there is none."""
        return self.file.NameToInfo[key].file_size if key in self.file.NameToInfo else None

    def read(self, key: str) -> bytes:
        """Content of a file."""
        return self.file.read(key)

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder."""
        prefix = f"{key}/" if key else ""
        inner = [n.removeprefix(prefix) for n in self.file.NameToInfo if n.startswith(prefix)]
        return sorted({name.partition("/")[0] for name in inner if "/" in name})
