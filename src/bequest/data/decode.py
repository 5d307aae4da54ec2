"""Decodes one image file that nobody vouches for."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from bequest.errors import DataError

# Raster formats whose decoders run inside this process; EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


def decode(data: bytes | Path, name: str) -> Image.Image:
    """The whole image, in memory, in mode "L" or "RGB"; transparency is dropped.

    Args:
        data: the file, or its bytes.
        name: what messages call it.

    Raises:
        DataError: not an image of a known format, damaged, not 8 bits per channel, or of more
            pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` (a decompression bomb).
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, "r", FORMATS) as raw:
            _check_header(raw, name)
            return raw.convert("L" if raw.mode in ("1", "L", "LA") else "RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name}: expected a whole image ({', '.join(FORMATS)}): {reason}"
        ) from error


def _check_header(image: Image.Image, name: str) -> None:
    """Refuses, before decoding, what is too large (Pillow warns first) or not 8-bit."""
    limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and pixels > limit:
        raise DataError(f"{name}: expected at most {limit} pixels, found {pixels}")
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{name}: expected 8 bits per channel, found mode {image.mode}; convert it first"
        )
