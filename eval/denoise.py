"""`diffpolicy denoise`: pictures of a chunk's denoising over the steps of several budgets."""

from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes

from .data_config import DenoiseConfig
from .measure.denoising import trace
from .report.denoising import DPI, images, strip
from .report.figure import png
from .videos.animation import webp
from .videos.film import Film

IMAGE_MS, LAST_IMAGE_MS = 120, 1500
QUALITY = 50  # of libwebp


def denoise(config: DenoiseConfig) -> None:
    """Write the animation and, beside it, a PNG strip."""
    strip_path = config.out.with_suffix(".png")
    if config.out.suffix != ".webp":
        raise DiffpolicyError(f"--out must be a .webp; got {config.out.name}")
    for path in (config.out, strip_path):
        check_writable(path)
    found = trace(config)
    drawn = images(found)
    durations = [IMAGE_MS] * (len(drawn) - 1) + [LAST_IMAGE_MS]
    write_bytes(config.out, webp(Film(drawn, durations), QUALITY))
    write_bytes(strip_path, png(strip(found), DPI))
    print(f"wrote {config.out} and {strip_path}")
