"""Completing images of which a part is hidden, with a learner that walks or reconstructs.

A learner that walks draws completions: the hidden pixels begin as noise, and Gibbs sampling goes on
while the others are held where they are (clamped). Each chain ends at a completion of its own; the
mean over chains is what has the least squared error, and blurs where completions differ.

With a learner that only reconstructs, the hidden pixels begin as the mean of those that are seen,
channel by channel. Then, again and again, the image is rebuilt, and the hidden pixels are taken
from what was rebuilt, while the others stay as they are; one step is one pass through the net. A
learner that rebuilds only what it has seen draws the image towards what it knows. A learner that
copies whatever it is given, as one with a decoder that is told where each maximum was, leaves the
hidden part much as it began: the error of the beginning is told beside that of the end, so that
nobody need guess which it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from whatwhere.core import InputError, Known, Walks, seeded
from whatwhere.data.images import Images
from whatwhere.evaluate import judge, panels, sampling, strips, tables
from whatwhere.learner import INFERENCE_BATCH, Learner

# Measured: SWWAE fitted to 2,000 images of Fashion-MNIST, left half of others hidden: error 0.109
# to begin with, 0.28 after 50 steps (0.16 if fitted with noise 0.3); MNIST: 0.078 and 0.081.
STEPS = 50
STILL = 1e-3  # a change below a quarter of a gray level of 8 bits
COVER = np.array([150, 170, 225], np.uint8)  # what hides a pixel: a blue that few images have
PURPOSE = "completing images"

# Measured: RBM of 500 hidden units, 10 epochs of MNIST, left half of 200 test images hidden. Error
# after 10, 100 and 500 steps of one draw: 0.069, 0.051, 0.048; of the mean of 10 draws: 0.042,
# 0.032, 0.031; of 3 chains, each its mean over the second half of its steps: 0.050, 0.032, 0.030.
GIBBS, CHAINS, EVERY = 100, 5, 5
SINGLE = 3  # completions that a picture shows beside their mean

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
    learner: Learner,
    images: np.ndarray,
    hidden: np.ndarray,
    steps: int | None = None,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return images whose hidden pixels the learner filled in, with the least squared error.

    Each image is completed by itself. For a learner that reconstructs, what stands beside it makes
    no difference but for rounding, and for what many steps make of that where two pixels of a
    window are all but equal; for one that walks, it has a part in which numbers are drawn.
    The values of hidden pixels are not looked at.

    Parameters
    ----------
    learner : Learner
        One that walks is asked to walk, whether it reconstructs or not.
    images : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].
    hidden : ndarray (H, W), bool
        As `mask` returns it.
    steps : int, optional
        Of a learner that walks: of Gibbs sampling, by default 100; the completion is the mean of 5
        chains and of the second half of their steps. Of another: reconstructions at most, by
        default 50; an image ends earlier when no pixel of it changes by 0.001. One is one pass.
        With 0 the hidden pixels are the mean of those that are seen.
    seed : int
        Of chains.

    Returns
    -------
    ndarray (n, C, H, W), float32 in [0, 1]

    Raises
    ------
    InputError
        If the learner neither walks nor reconstructs, or the images are not of its size.
    """
    if isinstance(learner.module_, Walks):
        return _walked(learner, images, hidden, CHAINS, GIBBS if steps is None else steps, seed)[0]
    now = fill(images, hidden)
    moving = np.arange(len(now))
    for _ in range(STEPS if steps is None else steps):
        before = now[moving]
        rebuilt = np.nan_to_num(judge.rebuild(learner, before, PURPOSE)).clip(0, 1)
        after = np.where(hidden, rebuilt, before)
        now[moving] = after
        moving = moving[np.abs(after - before).max(axis=(1, 2, 3)) >= STILL]
        if len(moving) == 0:
            break
    return now


def fill(images: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return images whose hidden pixels are the mean of those that are seen, by channel.

    Parameters
    ----------
    images, hidden
        As for `complete`.

    Returns
    -------
    ndarray (n, C, H, W), float32 in [0, 1]
    """
    filled = np.where(hidden, np.float32(0), panels.unit(images))
    filled[..., hidden] = filled[..., ~hidden].mean(axis=2, dtype=np.float64)[..., None]
    return filled


def draws(
    learner: Learner,
    images: np.ndarray,
    hidden: np.ndarray,
    n: int,
    steps: int = GIBBS,
    seed: int = 0,
) -> np.ndarray:
    """Draw n completions of each image, by clamped Gibbs sampling.

    Parameters
    ----------
    learner : Learner
        One that walks.
    images : ndarray (N, C, H, W)
        uint8, or floats in [0, 1]. The values of hidden pixels are not looked at.
    hidden : ndarray (H, W), bool
        As `mask` returns it.
    n : int
        Chains that each image has.
    steps : int
        Of Gibbs sampling.
    seed : int
        On a CPU, the same seed gives the same completions.

    Returns
    -------
    ndarray (n, N, C, H, W), float32 in [0, 1]
        Where each chain ended: of hidden pixels the means given the rest of the state, and the
        others as they are.

    Raises
    ------
    InputError
        If the learner does not walk, or the images are not of its size.
    """
    sampling.check(learner)
    return _walked(learner, images, hidden, n, steps, seed).draws


class _Walked(NamedTuple):
    """Where chains led: (N, C, H, W), the mean over all, and (n, N, C, H, W), where each ended."""

    mean: np.ndarray
    draws: np.ndarray


def _walked(
    learner: Learner, images: np.ndarray, hidden: np.ndarray, n: int, steps: int, seed: int
) -> _Walked:
    """Let n chains an image walk, and look at the second half of their steps."""
    module = learner.module_.eval()
    assert isinstance(module, Walks)
    x = sampling.tensor(learner, images)
    unseen = torch.from_numpy(hidden).to(x.device)
    means, ends = [], []
    with torch.no_grad(), seeded(seed, "completion", device=x.device):
        for part in x.split(max(1, INFERENCE_BATCH // n)):
            whole = part.repeat(n, 1, 1, 1)  # chain by chain, of all images each
            known = Known(whole, ~unseen)
            state = module.begin(torch.where(unseen, torch.rand_like(whole), whole))
            state = module.walk(state, steps // 2, known)
            left, looks, seen = steps - steps // 2, 0, torch.zeros_like(whole)
            last = seen
            while left or not looks:
                some = min(EVERY, left)
                state = module.walk(state, some, known)
                last = torch.where(unseen, module.look(state).clamp(0, 1), whole)
                seen, looks, left = seen + last, looks + 1, left - some
            means.append(seen.unflatten(0, (n, -1)).mean(dim=0) / looks)
            ends.append(last.unflatten(0, (n, -1)))
    # Pixels that are seen are their own mean but for rounding.
    mean = torch.where(unseen, torch.cat(means), x)
    return _Walked(mean.cpu().numpy(), torch.cat(ends, dim=1).cpu().numpy())


def draw(
    learner: Learner,
    images: Images,
    n: int,
    hidden: np.ndarray,
    out: Path,
    steps: int | None = None,
) -> dict[str, Any]:
    """Draw the first images as they are, what is shown of them, and how they were completed.

    Of a learner that walks, below the mean of its completions stand three single ones.

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
        began with, or would have begun with (the mean of the pixels seen). A completion that is not
        below it is worth nothing. Of a learner that walks also ``mse_single``, the mean error of
        single completions.

    Raises
    ------
    InputError
        As `complete`; and, before anything is computed, if the file cannot be written.
    """
    tables.check(out, tables.PICTURES)
    x, single = images.x[:n], None
    if isinstance(learner.module_, Walks):
        number = GIBBS if steps is None else steps
        completed, single = _walked(learner, x, hidden, CHAINS, number, seed=0)
    else:
        completed = complete(learner, x, hidden, steps)
    shown = [] if single is None else list(single[:SINGLE])
    panels.save(out, _picture(x, completed, hidden, shown))
    truth = panels.unit(x)
    told = {
        "n": len(x),
        "hidden": float(hidden.mean()),
        "mse": _error(completed, truth, hidden),
        "mse_start": _error(fill(x, hidden), truth, hidden),
    }
    return told if single is None else told | {"mse_single": _error(single, truth, hidden)}


def _error(found: np.ndarray, truth: np.ndarray, hidden: np.ndarray) -> float:
    return float(np.mean((found - truth)[..., hidden].astype(np.float64) ** 2))


def _picture(
    x: np.ndarray, completed: np.ndarray, hidden: np.ndarray, single: Sequence[np.ndarray]
) -> np.ndarray:
    """Return strips of rows, with words beside them."""
    seen = np.where(hidden[..., None], COVER, panels.color(x)).transpose(0, 3, 1, 2)
    rows = {"as it is": x, "what is shown": seen, "completed": completed}
    if len(single):
        rows["mean of draws"] = rows.pop("completed")
    return strips.strips(rows | {f"draw {k}": one for k, one in enumerate(single, start=1)})


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
