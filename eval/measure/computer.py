"""Computer and command that a result was measured by."""

from dataclasses import dataclass
from typing import Annotated

from .results import COUNT, Name


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Device, versions, threads and commit of a result; command: as typed; date: UTC."""

    device: str
    threads: Annotated[int, COUNT]
    versions: dict[str, str]
    commit: str | None
    command: str | None = None
    date: Name | None = None
