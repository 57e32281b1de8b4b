"""Images of any size made square, of one size.

A resized pixel is a mean, weighted by distance, over the pixels that it stands for (Pillow's
bilinear filter, which is wide enough not to alias). So no value leaves the range that was there.
"""

from typing import Literal

import numpy as np
from PIL import Image

from whatwhere.core import InputError

Fit = Literal["crop", "pad"]


def fit_picture(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Return the picture with `size` x `size` pixels; one that has them already stays as it is.

    Parameters
    ----------
    picture : Image
        Of mode L, RGB or F.
    size : int
        Pixels.
    fit : {"crop", "pad"}
        "crop" brings the short side to `size` and cuts the middle out. "pad" brings the long side
        to `size` and fills the rest with the median color of the picture's own border.
    """
    width, height = picture.size
    if fit == "crop":
        side = min(width, height)
        # Whole pixels, so that an image that is only cut is not blurred by half a pixel.
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return picture.resize((size, size), Image.Resampling.BILINEAR, box)
    long = max(width, height)
    inner = max(1, round(width * size / long)), max(1, round(height * size / long))
    fitted = picture.resize(inner, Image.Resampling.BILINEAR)
    if inner == (size, size):
        return fitted
    canvas = Image.new(picture.mode, (size, size), _border_color(picture))
    canvas.paste(fitted, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return canvas


def fit_images(x: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """Return images (n, C, H, W), uint8 or float32 in [0, 1], as (n, C, size, size).

    See `fit_picture`. Images that have the size already are returned as they are, not copied.

    Raises
    ------
    InputError
        If they need more memory than there is.
    """
    n, channels, *sides = x.shape
    if sides == [size, size]:
        return x
    fitted = allocate((n, channels, size, size), x.dtype)
    for row in range(n):
        for channel in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(x[row, channel]))
            fitted[row, channel] = np.asarray(fit_picture(plane, size, fit))
    # Weights that sum to 1 up to rounding.
    return fitted if x.dtype == np.uint8 else fitted.clip(0, 1, out=fitted)


def allocate(shape: tuple[int, int, int, int], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Return memory for images (n, C, H, W), not filled.

    Raises
    ------
    InputError
        If they need more memory than there is.
    """
    try:
        return np.empty(shape, dtype)
    except MemoryError as error:
        n, _, h, w = shape
        need = np.dtype(dtype).itemsize * np.prod(shape, dtype=float) / 2**30
        raise InputError(
            f"{n:,} images of {w} x {h} pixels need {need:,.0f} GiB of memory, more than there is: "
            "make them smaller with --image-size N"
        ) from error


def _border_color(picture: Image.Image) -> tuple[float, ...] | float:
    width, height = picture.size
    edges = [
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    ]
    channels = len(picture.getbands())
    border = np.concatenate([np.asarray(picture.crop(box)).reshape(-1, channels) for box in edges])
    median = np.median(border, axis=0)
    if picture.mode != "F":
        median = np.rint(median).astype(int)
    color = tuple(median.tolist())
    return color if channels > 1 else color[0]
