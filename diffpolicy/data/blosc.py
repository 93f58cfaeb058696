"""Blosc codecs that refuse a chunk whose header tells another length than it has.

The library behind both formats reads beyond the end of such a chunk, which ends the process or
gives bytes of other memory.
"""

from typing import Any

import numpy as np
from numcodecs import Blosc
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.codecs import BloscCodec

LENGTH = slice(12, 16)  # of the chunk, in its header of 16 bytes; little-endian


class WholeBlosc(Blosc):
    """Codec of format 2."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk of the length that its header tells."""
        _check(ensure_contiguous_ndarray(buf).view(np.uint8))
        return super().decode(buf, out)


class WholeBloscCodec(BloscCodec):
    """Codec of format 3."""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _check(chunk_bytes.as_numpy_array().view(np.uint8))
        return await super()._decode_single(chunk_bytes, chunk_spec)


def _check(chunk: np.ndarray) -> None:
    told = int.from_bytes(chunk[LENGTH].tobytes(), "little")
    if len(chunk) < LENGTH.stop or told != len(chunk):
        raise ValueError(
            f"a chunk tells a length of {told:,} bytes and has {len(chunk):,}; it is damaged: copy "
            "the store again"
        )


def checked(metadata: Any) -> Any:
    """The metadata of an array with these codecs in place of their descriptions."""
    if isinstance(metadata, list):
        return [checked(part) for part in metadata]
    if not isinstance(metadata, dict):
        return metadata
    if metadata.get("id") == "blosc":
        return WholeBlosc.from_config({k: v for k, v in metadata.items() if k != "id"})
    if metadata.get("name") == "blosc":
        return WholeBloscCodec.from_dict(metadata)
    return {name: checked(part) for name, part in metadata.items()}
