"""Images that a learner knows nothing like: the least typical, or those that it rebuilds worst.

A learner that scores images says itself how typical they are. Of any other that reconstructs, the
error tells: an image that was seen often is rebuilt well, so a large error hints at one that is
rare. It is no more than a hint: busy images have larger errors than plain ones, and a decoder that
is told where each maximum was can rebuild much that it has never seen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from whatwhere.core import InputError, Reconstructs, Scores
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import judge, panels, tables
from whatwhere.learner import INFERENCE_BATCH, Learner, infer

# Measured: SWWAE fitted to 2,000 images of Fashion-MNIST, area under the ROC curve among 1,000 test
# images: 1.00 for 100 images of noise, but 0.37 for 100 digits (0.58 if fitted with noise 0.3),
# which are plainer than clothes.
SHOWN = 24  # in the gallery
PURPOSE = "ranking outliers"


def unusual(learner: Learner, x: np.ndarray) -> np.ndarray:
    """Return how unusual each image is for the learner: the larger, the more.

    Parameters
    ----------
    learner : Learner
    x : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].

    Returns
    -------
    ndarray (n,), float64
        Minus the score, in its units, where the module has one (`core.Scores`); else `errors`.

    Raises
    ------
    InputError
        If the learner neither scores nor reconstructs, or the images are not of its size.
    """
    if not isinstance(learner.module_, Scores):
        return errors(learner, x)
    if x.shape[1:] != learner.image_shape_:
        raise InputError(
            f"images of shape {x.shape[1:]}, but this {type(learner).__name__} was fitted to "
            f"{learner.image_shape_} (channels, height, width); bring them to that size first"
        )
    found = infer(learner.module_, Rows(x), lambda net, part: -net.score(part).double())
    return torch.cat([part.cpu() for part in found]).numpy()


def errors(learner: Learner, x: np.ndarray) -> np.ndarray:
    """Return the mean squared error a pixel, in [0, 1]², of each image: float64 (n,)."""
    found = []
    for first in range(0, len(x), INFERENCE_BATCH):
        part = x[first : first + INFERENCE_BATCH]
        rebuilt = judge.rebuild(learner, part, PURPOSE)
        difference = (rebuilt - panels.unit(part)).astype(np.float64)
        found.append((difference**2).mean(axis=(1, 2, 3)))
    return np.concatenate(found)


def rank(learner: Learner, images: Images) -> tables.Table:
    """Return the images by how unusual they are, the oddest first.

    Parameters
    ----------
    learner : Learner
    images : Images
        At least one.

    Returns
    -------
    Table
        ``rank`` from 1, ``file`` (or ``row``), and of a learner that scores its ``score``, the
        smaller the odder; of any other ``reconstruction_mse`` a pixel in [0, 1]², and
        ``times_median``: that over the median of these images.

    Raises
    ------
    InputError
        As `unusual`.
    """
    return _table(learner, images, unusual(learner, images.x))


def gallery(learner: Learner, images: Images, found: np.ndarray | None = None) -> np.ndarray:
    """Return a picture of the oddest 24, with their numbers.

    Each stands beside its reconstruction, where the learner reconstructs.

    Parameters
    ----------
    learner : Learner
    images : Images
    found : ndarray (n,), optional
        What `unusual` returned, to spare its time.

    Returns
    -------
    ndarray (height, width, 3), uint8

    Raises
    ------
    InputError
        As `unusual`.
    """
    found = unusual(learner, images.x) if found is None else found
    scored = isinstance(learner.module_, Scores)
    rebuilds = isinstance(learner.module_, Reconstructs)
    worst = _order(found)[:SHOWN]
    x = images.x[worst]
    cells = panels.color(x)
    if rebuilds:
        below = panels.color(judge.rebuild(learner, x, PURPOSE))
        gap = np.full((*cells.shape[:2], max(1, cells.shape[2] // 14), 3), panels.WHITE, np.uint8)
        cells = np.concatenate([cells, gap, below], axis=2)
    times = _times_median(found)
    words = [
        (
            [_name(images, row)],
            f"{place}.  {-found[row]:.5g}"
            if scored
            else f"{place}.  {found[row]:.3g} ({times[row]:.1f} x)",
        )
        for place, row in enumerate(worst, start=1)
    ]
    table = panels.labeled(cells.transpose(0, 3, 1, 2), words, largest=panels.WIDTH)
    head = np.full((2 * panels.LINE + 2 * panels.GAP, panels.WIDTH, 3), panels.WHITE, np.uint8)
    for number, line in enumerate(_heading(len(worst), len(images), scored, rebuilds)):
        panels.write_text(head, line, 0, number * panels.LINE)
    width = panels.WIDTH - table.shape[1]
    return np.concatenate([head, np.pad(table, ((0, 0), (0, width), (0, 0)), constant_values=255)])


def write(learner: Learner, images: Images, out: Path) -> tables.Table:
    """Write the ranking, and the gallery as a PNG of the same name beside it.

    Parameters
    ----------
    learner : Learner
    images : Images
    out : Path
        Ends in ``.csv`` or ``.parquet``.

    Returns
    -------
    Table
        As `rank`.

    Raises
    ------
    InputError
        As `rank`; and, before anything is computed, if either file cannot be written.
    """
    tables.check(out, tables.TABLES)
    tables.check(out.with_suffix(".png"), tables.PICTURES)
    found = unusual(learner, images.x)
    picture, table = gallery(learner, images, found), _table(learner, images, found)
    tables.write(out, table)
    panels.save(out.with_suffix(".png"), picture)
    return table


def _table(learner: Learner, images: Images, found: np.ndarray) -> tables.Table:
    order = _order(found)
    named: dict[str, np.ndarray] = {"row": order}
    if images.names is not None:
        named = {"file": np.array(images.names)[order]}
    numbers = {"reconstruction_mse": found[order], "times_median": _times_median(found)[order]}
    if isinstance(learner.module_, Scores):
        numbers = {"score": -found[order]}
    return {"rank": np.arange(1, len(order) + 1)} | named | numbers


def _heading(shown: int, n: int, scored: bool, rebuilds: bool) -> tuple[str, str]:
    which = f"The {shown} of {n:,} images" if n > 1 else "The image"
    what = "least typical" if scored else "rebuilt worst"
    sides = " Left: the image. Right: what the learner makes of it." if rebuilds else ""
    number = (
        "the learner's score (the smaller, the odder)."
        if scored
        else "mean squared error a pixel (and how many times the median)."
    )
    return f"{which} {what}.{sides}", f"Below: file or row; rank, {number}"


def _order(found: np.ndarray) -> np.ndarray:
    """Return rows, worst first; of equal errors the first row, on every machine."""
    return np.argsort(-np.nan_to_num(found, nan=np.inf), kind="stable")


def _times_median(found: np.ndarray) -> np.ndarray:
    median = float(np.median(found))
    return found / median if median > 0 else np.where(found > 0, np.inf, 1.0)


def _name(images: Images, row: Any) -> str:
    return f"row {row}" if images.names is None else images.names[row].rsplit("/", 1)[-1]
