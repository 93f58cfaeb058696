"""Frames of video files, decoded in order with PyAV.

A file is sought once, when it is opened; then each frame is decoded once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.zarr_store import reading
from diffpolicy.errors import DiffpolicyError

FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}  # by channels
PIXELS = 4  # times as many as declared may be decoded: codecs pad


def is_installed() -> bool:
    """True if videos can be decoded here."""
    from importlib.util import find_spec

    return find_spec("av") is not None


class Camera:
    """Frames of one video feature: uint8 [H, W, C] of `shape`, at fps frames a second."""

    def __init__(self, shape: tuple[int, ...], fps: float):
        self.shape, self.half_s = shape, 0.5 / fps
        self._file: Path | None = None
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._newest: Any = None

    def read(self, file: Path, times: np.ndarray) -> np.ndarray:
        """Frames at increasing times [T] in seconds inside the file: uint8 [T, H, W, C].

        Raises DiffpolicyError if one has no frame within half a period.
        """
        pictures = np.empty((len(times), *self.shape), np.uint8)
        with reading(file):
            if file != self._file or (self._newest and self._newest.time > times[0] + self.half_s):
                self._open(file, float(times[0]))
            for target, time in zip(pictures, times, strict=True):
                target[:] = self._at(file, float(time))
        return pictures

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._file = self._container = self._newest = None

    def _open(self, file: Path, time: float) -> None:
        """Open a file as MP4, never as a playlist that names others, and seek a key frame."""
        import av

        self.close()
        if not file.is_file():
            raise DiffpolicyError(f"{file} is not there, or is no file; copy the data set again")
        self._file, self._container = file, av.open(str(file), format="mp4")
        if not self._container.streams.video:
            raise DiffpolicyError(f"{file} holds no video")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        height, width = self.shape[:2]
        stream.codec_context.options = {"max_pixels": str(max(2**16, PIXELS * height * width))}
        if time > self.half_s:
            target = int((time - self.half_s) / stream.time_base)
            self._container.seek(target, stream=stream)
        self._frames = self._container.decode(stream)

    def _at(self, file: Path, time: float) -> np.ndarray:
        frame = self._newest
        while frame is None or frame.time is None or frame.time < time - self.half_s:
            frame = self._newest = next(self._frames, None)
            if frame is None:
                raise DiffpolicyError(f"{file} ends before the frame at {time:.3f} s")
        if frame.time > time + self.half_s:
            raise DiffpolicyError(f"{file} has no frame at {time:.3f} s")
        if (frame.height, frame.width) != self.shape[:2]:
            raise DiffpolicyError(
                f"{file} holds frames of {frame.height} × {frame.width} px; expected "
                f"{self.shape[0]} × {self.shape[1]}"
            )
        return frame.to_ndarray(format=FORMATS[self.shape[2]]).reshape(self.shape)
