"""One file, one image: what its header says, and its pixels.

PNG, JPEG, WebP, BMP and TIFF are told by their content, not by their ending. Of a file with several
pictures the first is read. The orientation that a camera noted is applied, and what is transparent
is laid on white. Grey of 16 bits is kept whole until the last step; of color Pillow reads the upper
8 bits of 16. Grey as floats is taken as it is where all of it lies in [0, 1].
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from whatwhere.data.sources.fitting import Fit, fit_picture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
READ = "PNG, JPEG, WebP, BMP, TIFF"
MOST_PIXELS = 2**30 // 12
"""Pixels of the largest image that is decoded: 256 MiB in color."""

DEEPEST = 2**16 - 1
"""The white of 16 bits."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by the orientation in its EXIF."""

SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHERS = {
    "GIF": (b"GIF8",),
    "HEIC": (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"),
    "AVIF": (b"ftypavif", b"ftypavis"),
}
"""Forms that are often met and not read, by how they begin."""

SPARE = 3
"""How many times as large as needed a JPEG is decoded, at least."""

MOST_WORDS = 90
"""Characters of a decoder's message that a reason quotes."""


class Unreadable(Exception):
    """A file that is no image that can be read; the text is the reason."""


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded.

    Attributes
    ----------
    width, height : int
        Pixels of the upright image.
    color : bool
        Whether its form can hold color: a grey picture saved as RGB counts as color.
    """

    width: int
    height: int
    color: bool


def read_header(path: Path) -> Header:
    """Return what the header says.

    Raises
    ------
    Unreadable
        If this is no image that can be read, as far as the header tells.
    """
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # noted by a camera that lay on its side
            width, height = height, width
        return Header(width, height, _has_color(image))


def read_pixels(path: Path, size: int | None, fit: Fit, keep_depth: bool) -> np.ndarray:
    """Return the pixels (C, H, W) of the upright image: C is 1 where it is grey, else 3.

    Parameters
    ----------
    path : Path
    size : int, optional
        Pixels of the sides; see `fit_picture`. Default: as the image is.
    fit : {"crop", "pad"}
    keep_depth : bool
        float32 in [0, 1] that tells all 16 bits apart, instead of uint8.

    Raises
    ------
    Unreadable
        If this is no image that can be read.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        if size is not None:
            # A JPEG is decoded at a fraction of its size, still large enough for a fair mean.
            image.draft(None, (SPARE * size, SPARE * size))
        picture = _plain(image)
        if orientation in TURNS:
            picture = picture.transpose(TURNS[orientation])
        if size is not None:
            picture = fit_picture(picture, size, fit)
        pixels = np.asarray(picture)
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if pixels.dtype == np.uint8:
        return pixels / np.float32(255) if keep_depth else pixels
    pixels = pixels.clip(0, 1)
    return pixels if keep_depth else np.rint(pixels * 255).astype(np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Open an image; whatever goes wrong inside the block is a reason not to read it."""
    try:
        # An open file, not a path, which Pillow would map: a mapped file that shrinks kills.
        with path.open("rb") as file:
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                file.seek(0)
                raise Unreadable(_other(file.read(16))) from None
            with image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MOST_PIXELS:,} pixels: save it smaller") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or _words(error)}") from error
    except Exception as error:
        # A damaged file can fail anywhere in a decoder, each in its own way.
        raise Unreadable(f"cannot be read: {_words(error)}") from error


def _words(error: Exception) -> str:
    """Return a decoder's message as a short line that can be printed."""
    line = " ".join(str(error).split()) or type(error).__name__
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}..."


def _other(start: bytes) -> str:
    """Return why a file that begins like this is not read."""
    if not start:
        return "empty: there is no byte in it"
    for form, signatures in OTHERS.items():
        if start.startswith(signatures) or start[4:].startswith(signatures):
            return f"{form} is not read: save it as PNG or JPEG"
    if start.startswith(SIGNATURES):
        return "damaged, or of a kind that is not read (more than 4 channels come as .npz)"
    return f"no image of a form that is read ({READ})"


def _orientation(image: ImageFile) -> int:
    """Return how the camera was held, 1 to 8; 1 is upright, or not known."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    try:
        if image.format == "PNG" and _says_more_after_the_pixels(image):
            image.load()
        # Not the PNG's own method, which decodes all pixels to look behind them.
        found = Image.Image.getexif(image).get(ORIENTATION, 1)
    except Exception:  # notes that are damaged are no notes; the pixels are judged on their own
        return 1
    return found if found in TURNS else 1


def _says_more_after_the_pixels(image: ImageFile) -> bool:
    """Return whether a PNG has notes behind its pixels, where some programs put them."""
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(8)
    seen, more = False, False
    while not more and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        seen = seen or kind == b"IDAT"
        more = seen and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        file.seek(length + 4, 1)
    file.seek(place)
    return more


def _has_color(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return not (image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"))


def _plain(image: Image.Image) -> Image.Image:
    """Return the picture as L, RGB or, where 8 bits do not hold it, F in [0, 1]."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_deep(image))
    color = _has_color(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if color else "L")


def _deep(image: Image.Image) -> np.ndarray:
    """Return grey (H, W) of 16 bits or as floats, float32 in [0, 1]."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        low, high = values.min(), values.max()
        if not 0 <= low <= high <= 1:  # NaN fails too
            raise Unreadable(f"floats from {low:g} to {high:g}: save them between 0 and 1")
        return values.astype(np.float32)
    low, high = values.min(), values.max()
    if low < 0 or high > DEEPEST:
        raise Unreadable(f"whole numbers from {low} to {high}: save them as 8 or 16 bits")
    clear = image.info.get("transparency")
    scaled = values / np.float32(DEEPEST)
    return scaled if clear is None else np.where(values == clear, np.float32(1), scaled)
