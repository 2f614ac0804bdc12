"""The one opener of image files: any common format as 8 bits, as people see the picture."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nasrun.errors import UserError
from nasrun.run.files import printable

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
"""Red, green and blue, each from 0 to 255."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "HEIF")
"""Formats that are tried, by Pillow's names; AVIF and HEIF where Pillow has them.

No other is: Pillow also opens formats that start other programs (EPS: Ghostscript).
"""

SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Ends of the names of image files, in any letters; the format is told by the content."""

HEIF_SUFFIXES = (".heic", ".heif")
"""The same, where the package pillow-heif is installed."""

WHITE: Colour = (255, 255, 255)

MAX_FILE_BYTES = 2**30
MAX_PIXELS = 2**29
"""Sizes of an image that is still read; its pixels take 2 GiB while it is decoded."""

LARGE_PIXELS = 2**24
"""Size above which an image is decoded small: no camera of a telephone makes so many pixels."""

_BAND_PIXELS = 2**22
"""Pixels of a large image that are converted at a time."""

_EXIF_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Names under which Pillow keeps data that may tell the orientation."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
"""Tags of EXIF and of TIFF."""


class UnreadableError(UserError):
    """An image file that cannot be read. reason: why, without the name of the file."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def suffixes() -> tuple[str, ...]:
    """Return the ends of file names that are taken for images."""
    return SUFFIXES + (HEIF_SUFFIXES if find_spec("pillow_heif") else ())


def colour(text: str) -> Colour:
    """Read a colour: a name (``white``), ``#rrggbb`` or ``rgb(r,g,b)``.

    Raises UserError if it is none.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UserError(
            f"{text!r} is no colour: take a name such as white or grey, or #rrggbb"
        ) from error
    return red, green, blue


def open_regular(path: str, limit: int = MAX_FILE_BYTES) -> BinaryIO:
    """Open a regular file of at most ``limit`` bytes; a pipe or a device would never end.

    Raises UserError if it is none, or larger; OSError where it cannot be opened.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - Path has no opener
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= limit:
        return file
    file.close()
    if not stat.S_ISREG(status.st_mode):
        raise UserError("it is no regular file")
    if not status.st_size:
        raise UserError("it is empty")
    raise UserError(f"{status.st_size:,} bytes are more than the {limit:,} allowed")


def _open_at_once(path: str, flags: int) -> int:
    """Open for reading without waiting for somebody who writes into a pipe."""
    extra = flags & getattr(os, "O_BINARY", 0)  # not all systems have all
    for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
        extra |= getattr(os, name, 0)
    return os.open(path, os.O_RDONLY | extra)


def open_image(
    path: str,
    channels: int,
    *,
    background: Colour = WHITE,
    side: int | None = None,
    large: int = LARGE_PIXELS,
) -> Image:
    """Decode an image to 1 (grey) or 3 (RGB) channels of 8 bits, the first of several pictures.

    It is turned upright (EXIF), put on ``background`` where it is transparent, scaled to 8 bits.

    side: pixels of the short side that are enough for an image of more than ``large`` pixels, which
    is decoded to that or more; None: all pixels.
    Raises UserError, naming the file, where it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return decode(file, channels, background=background, side=side, large=large)
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> UnreadableError:
    reason = printable(" ".join(_reason(error).split()))[:200]
    return UnreadableError(f"cannot read the image {printable(path)}: {reason}", reason)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "damaged or no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def decode(
    file: BinaryIO, channels: int, *, background: Colour, side: int | None, large: int
) -> Image:
    """Decode the image in an open file; see ``open_image``. Raises errors of many kinds."""
    with _opened(file) as image:
        if side is not None and image.width * image.height > large:
            image.draft(None, _size_of_side(image, side))  # JPEG: decodes an 8th at least
            with _one_large_image:
                return _upright(image, _in_bands(image, mode_of(channels), background, side))
        return as_seen(image, channels, background)


def as_seen(image: Image, channels: int, background: Colour) -> Image:
    """Return a picture as people see it, with 1 (grey) or 3 (RGB) channels of 8 bits."""
    return _upright(image, to_8_bits(image, mode_of(channels), background))


def mode_of(channels: int) -> str:
    """Return Pillow's mode of an image of 1 or 3 channels."""
    return "L" if channels == 1 else "RGB"


def digest_of_readable(path: str) -> int:
    """Read a whole image file, as small as its format allows, to see that it can be read.

    Returns a digest of its bytes, of 64 bits and never 0. Raises UserError as ``open_image``.
    """
    try:
        with open_regular(path) as file:
            state = blake2b(digest_size=8)
            while block := file.read(2**20):
                state.update(block)
            file.seek(0)
            with _opened(file) as image:
                image.draft(None, _size_of_side(image, 1))
                with (
                    _one_large_image if image.width * image.height > LARGE_PIXELS else nullcontext()
                ):
                    image.load()
                    corner = image.crop((0, 0, 1, 1))
                corner.info = image.info
                to_8_bits(corner, "RGB", WHITE, (0, 255))
            return int.from_bytes(state.digest(), "little") or 1
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


_one_large_image = Lock()
"""Held by the thread that decodes a large image, so that the memory for one is enough."""


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image]:
    """Open an image of one of FORMATS; its pixels are not decoded yet."""
    from PIL import Image

    with Image.open(file, formats=formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"{image.width}×{image.height} pixels are more than the {MAX_PIXELS:,} allowed"
            )
        yield image


def to_8_bits(
    image: Image, mode: str, background: Colour, levels: tuple[float, float] | None = None
) -> Image:
    """Convert an image of any of Pillow's modes to ``mode``, L or RGB.

    levels: values of a deep grey image that become 0 and 255; None: those of the image itself.
    """
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        low, high = levels or _levels(image)
        values = np.nan_to_num(
            np.asarray(image, dtype=np.float64), nan=low, posinf=high, neginf=low
        )
        grey = np.clip((values - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        return Image.fromarray(grey).convert(mode)
    if image.mode == "LAB":
        return _from_lab(image).convert(mode)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert(mode)
    return image.convert(mode)


def _levels(image: Image) -> tuple[float, float]:
    """Return the values of a grey image of more than 8 bits that are black and white.

    16 bits have a scale of their own. Others (32 bits, floats) have none, so the values tell: up to
    1 for floats, 255, 65535, or else from the smallest to the largest.
    """
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        bits = 16
        if image.format == "TIFF":
            given = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
            bits = int(given[0] if isinstance(given, tuple) else given)
        return 0.0, float(2**bits - 1)
    values = np.asarray(image)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for white in scales:
        if low >= 0 and high <= white:
            return 0.0, white
    return (low, high) if high > low else (low, low + 1)


def _from_lab(image: Image) -> Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # only in place it is None  # noqa: S101
    return converted


def _size_of_side(image: Image, side: int) -> tuple[int, int]:
    """Return the size at which the image's short side has ``side`` pixels."""
    short = min(image.size)
    width, height = (max(1, -(-length * side // short)) for length in image.size)
    return width, height


def _in_bands(image: Image, mode: str, background: Colour, side: int) -> Image:
    """Convert a large image and reduce it by a whole factor, in bands of rows.

    Only the image as its file has it is held in full.
    """
    from PIL import Image

    factor = max(1, min(image.size) // (2 * side))
    image.load()
    levels = _levels(image) if image.mode.startswith(("I", "F")) else None
    rows = max(1, _BAND_PIXELS // (factor * image.width)) * factor
    width, height = (-(-length // factor) for length in image.size)
    reduced = Image.new(mode, (width, height))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        band.info = image.info
        part = to_8_bits(band, mode, background, levels)
        reduced.paste(part.reduce(factor) if factor > 1 else part, (0, top // factor))
    return reduced


def _upright(image: Image, found: Image) -> Image:
    """Turn or mirror ``found`` as the EXIF data of ``image`` say; damaged data say nothing."""
    from PIL.Image import Transpose

    if image.format != "TIFF" and not any(key in image.info for key in _EXIF_KEYS):
        return found  # most images; making an empty table takes as long as decoding a small one
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above
        return found
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return found.transpose(turns[orientation]) if orientation in turns else found


@cache
def formats() -> list[str]:
    """Prepare Pillow, once in a process, and return those of FORMATS that it can read."""
    from PIL import Image

    if find_spec("pillow_heif"):
        heif: Any = import_module("pillow_heif")
        heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # its own limit is below ours
    warnings.filterwarnings("ignore", module=r"PIL\.")  # it warns of what is no error
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
