"""Computer that a result was measured on."""

from dataclasses import dataclass
from typing import Annotated

from .results import COUNT


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Device, versions, threads and commit of a result."""

    device: str
    threads: Annotated[int, COUNT]
    versions: dict[str, str]
    commit: str | None
