"""Completing images of which a part is hidden, with a learner that reconstructs.

The hidden pixels begin as the mean of those that are seen, channel by channel. Then, again and
again, the image is rebuilt, and the hidden pixels are taken from what was rebuilt, while the others
stay as they are. A learner that rebuilds only what it has seen draws the image towards what it
knows. A learner that copies whatever it is given, as one with a decoder that is told where each
maximum was, leaves the hidden part much as it began: the error of the beginning is told beside that
of the end, so that nobody need guess which it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.evaluate import judge, panels, strips, tables
from whatwhere.learner import Learner

# Measured: SWWAE fitted to 2,000 images of Fashion-MNIST, left half of others hidden: error 0.109
# to begin with, 0.28 after 50 steps (0.16 if fitted with noise 0.3); MNIST: 0.078 and 0.081.
STEPS = 50
STILL = 1e-3  # a change below a quarter of a gray level of 8 bits
COVER = np.array([150, 170, 225], np.uint8)  # what hides a pixel: a blue that few images have
PURPOSE = "completing images"

PARTS: dict[str, Callable[[int, int], tuple[slice, slice]]] = {
    "left": lambda h, w: (slice(h), slice(w // 2)),
    "right": lambda h, w: (slice(h), slice(w - w // 2, w)),
    "top": lambda h, w: (slice(h // 2), slice(w)),
    "bottom": lambda h, w: (slice(h - h // 2, h), slice(w)),
    "center": lambda h, w: (slice(h // 4, h - h // 4), slice(w // 4, w - w // 4)),
}


def mask(spec: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Return which pixels are hidden.

    Parameters
    ----------
    spec : str
        left, right, top or bottom (half of the image), center (half its height and width), or the
        path of a PNG of the images' size, in which what is darker than 128 is hidden.
    shape : (C, H, W)
        Of an image.

    Returns
    -------
    ndarray (H, W), bool

    Raises
    ------
    InputError
        If it is none of these, cannot be read, is of another size, or hides all or nothing.
    """
    height, width = shape[1:]
    hidden = np.zeros((height, width), bool)
    if spec in PARTS:
        hidden[PARTS[spec](height, width)] = True
    elif spec.lower().endswith(".png"):
        hidden = _read(Path(spec)) < 128
        if hidden.shape != (height, width):
            h, w = hidden.shape
            raise InputError(
                f"--mask {spec} has {w} x {h} pixels (width x height), and the images have "
                f"{width} x {height}; scale it to that size"
            )
    else:
        raise InputError(
            f"--mask {spec}: it takes {', '.join(PARTS)} or a FILE.png, in which black is hidden"
        )
    if hidden.all() or not hidden.any():
        what, cure = ("everything", "leave some") if hidden.all() else ("nothing", "make some")
        raise InputError(
            f"--mask {spec} hides {what} of images of {width} x {height} pixels; "
            f"{cure} of it {'white' if hidden.all() else 'black'}, or choose another mask"
        )
    return hidden


def complete(
    learner: Learner, images: np.ndarray, hidden: np.ndarray, steps: int = STEPS
) -> np.ndarray:
    """Return images whose hidden pixels the learner filled in.

    Each image is completed by itself: what stands beside it makes no difference but for rounding,
    and for what many steps make of that where two pixels of a window are all but equal.
    The values of hidden pixels are not looked at.

    Parameters
    ----------
    learner : Learner
    images : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].
    hidden : ndarray (H, W), bool
        As `mask` returns it.
    steps : int
        Reconstructions at most; an image ends earlier when no pixel of it changes by 0.001. With 0
        the hidden pixels are the mean of those that are seen.

    Returns
    -------
    ndarray (n, C, H, W), float32 in [0, 1]

    Raises
    ------
    InputError
        If the learner does not reconstruct, or the images are not of its size.
    """
    now = np.where(hidden, np.float32(0), panels.unit(images))
    now[..., hidden] = now[..., ~hidden].mean(axis=2, dtype=np.float64)[..., None]
    moving = np.arange(len(now))
    for _ in range(steps):
        before = now[moving]
        rebuilt = np.nan_to_num(judge.rebuild(learner, before, PURPOSE)).clip(0, 1)
        after = np.where(hidden, rebuilt, before)
        now[moving] = after
        moving = moving[np.abs(after - before).max(axis=(1, 2, 3)) >= STILL]
        if len(moving) == 0:
            break
    return now


def draw(
    learner: Learner, images: Images, n: int, hidden: np.ndarray, out: Path, steps: int = STEPS
) -> dict[str, Any]:
    """Draw the first images as they are, what is shown of them, and how they were completed.

    Parameters
    ----------
    learner : Learner
    images : Images
    n : int
        Images in the picture; fewer where there are fewer.
    hidden : ndarray (H, W), bool
        As `mask` returns it.
    out : Path
        A PNG, written whole or not at all.
    steps : int
        As for `complete`.

    Returns
    -------
    dict
        ``n``, the images; ``hidden``, the part of the pixels that was, in (0, 1); ``mse``, the mean
        squared error of hidden pixels, in [0, 1]²; ``mse_start``, that of the fill that completion
        began with (the mean of the pixels seen). A completion that is not below it is worth
        nothing.

    Raises
    ------
    InputError
        As `complete`; and, before anything is computed, if the file cannot be written.
    """
    tables.check(out, tables.PICTURES)
    x = images.x[:n]
    completed = complete(learner, x, hidden, steps)
    start = complete(learner, x, hidden, steps=0)
    panels.save(out, _picture(x, completed, hidden))
    truth = panels.unit(x)
    return {
        "n": len(x),
        "hidden": float(hidden.mean()),
        "mse": _error(completed, truth, hidden),
        "mse_start": _error(start, truth, hidden),
    }


def _error(found: np.ndarray, truth: np.ndarray, hidden: np.ndarray) -> float:
    return float(np.mean((found - truth)[..., hidden].astype(np.float64) ** 2))


def _picture(x: np.ndarray, completed: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return strips of three rows, with words beside them."""
    seen = np.where(hidden[..., None], COVER, panels.color(x)).transpose(0, 3, 1, 2)
    return strips.strips({"as it is": x, "what is shown": seen, "completed": completed})


def _read(path: Path) -> np.ndarray:
    """Return a PNG as gray values (H, W) in [0, 255]; what is transparent is white."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                return np.asarray(image) / 257
            on_white = Image.new("RGBA", image.size, "white")
            on_white.alpha_composite(image.convert("RGBA"))
            return np.asarray(on_white.convert("L"))
    except FileNotFoundError:
        raise InputError(f"--mask {path}: there is no such file; check its path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise InputError(f"--mask {path} cannot be read as an image; save it as PNG") from None
