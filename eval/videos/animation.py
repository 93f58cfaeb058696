"""Files of films: animated WebP by Pillow, and MP4 where PyAV is installed."""

import io
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

from diffpolicy.errors import DiffpolicyError

from .config import VideoFormat
from .film import Film

MOST_BYTES = 200_000
WEBP_QUALITIES, MP4_FACTORS = (75, 50, 25), (23, 30, 37)  # of libwebp and x264, best first
MILLISECOND = Fraction(1, 1000)
H264 = "libx264"


def check_encoder(kind: VideoFormat) -> None:
    """Raise DiffpolicyError if a format cannot be written here."""
    if kind == "webp":
        return
    try:
        import av

        av.Codec(H264, "w")
    except (ImportError, ValueError) as error:
        raise DiffpolicyError(
            f"--video-format mp4 needs PyAV with {H264}, which is not here ({error}); try "
            "--video-format webp, or pip install 'diffpolicy[lerobot]'"
        ) from error


def encoded(film: Film, kind: VideoFormat) -> bytes:
    """A film in at most MOST_BYTES: the best quality that keeps to it, then with fewer images."""
    found = b""
    for found in _smaller_and_smaller(film, kind):
        if len(found) <= MOST_BYTES:
            break
    return found


def _smaller_and_smaller(film: Film, kind: VideoFormat) -> Iterator[bytes]:
    encode: Callable[[Film, int], bytes] = webp if kind == "webp" else mp4
    while True:
        for quality in WEBP_QUALITIES if kind == "webp" else MP4_FACTORS:
            yield encode(film, quality)
        if len(film.images) < 3:
            return
        film = thinned(film)


def thinned(film: Film) -> Film:
    """Every second image, and the last one, in the same time."""
    count = len(film.images)
    kept = [*range(0, count - 1, 2), count - 1]
    starts = np.concatenate([[0], np.cumsum(film.durations_ms)])[[*kept, count]]
    return Film([film.images[i] for i in kept], np.diff(starts).tolist())


def webp(film: Film, quality: int) -> bytes:
    """An animated WebP that repeats."""
    buffer = io.BytesIO()
    first, *others = film.images
    first.save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=film.durations_ms,
        loop=0,
        quality=quality,
    )
    return buffer.getvalue()


def mp4(film: Film, factor: int) -> bytes:
    """H.264 in MP4; factor: the constant rate factor of x264. Raises DiffpolicyError without it."""
    import av
    from av.error import FFmpegError

    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream(H264, options={"crf": str(factor)})
            stream.width, stream.height = (n + n % 2 for n in film.images[0].size)
            stream.pix_fmt, stream.time_base = "yuv420p", MILLISECOND
            stream.codec_context.time_base = MILLISECOND
            times_ms = np.concatenate([[0], np.cumsum(film.durations_ms)]).tolist()
            for image, time_ms in zip([*film.images, film.images[-1]], times_ms, strict=True):
                frame = av.VideoFrame.from_image(_even(image))
                frame.pts, frame.time_base = time_ms, MILLISECOND
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (FFmpegError, ValueError) as error:
        raise DiffpolicyError(f"PyAV cannot write MP4: {error}; try --video-format webp") from error
    return buffer.getvalue()


def _even(image: Image.Image) -> Image.Image:
    """The image with an even width and height, as H.264 needs."""
    width, height = image.size
    return image.crop((0, 0, width + width % 2, height + height % 2))
