"""Images that a learner knows nothing like: those that it rebuilds worst.

An image that was seen often is rebuilt well, so a large error hints at one that is rare. It is no
more than a hint: busy images have larger errors than plain ones, and a decoder that is told where
each maximum was can rebuild much that it has never seen.
"""

from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.data.images import Images
from whatwhere.evaluate import judge, panels, tables
from whatwhere.learner import INFERENCE_BATCH, Learner

# Measured: SWWAE fitted to 2,000 images of Fashion-MNIST, area under the ROC curve among 1,000 test
# images: 1.00 for 100 images of noise, but 0.37 for 100 digits (0.58 if fitted with noise 0.3),
# which are plainer than clothes.
SHOWN = 24  # in the gallery
PURPOSE = "ranking outliers"


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
    """Return the images by their reconstruction error, the worst first.

    Parameters
    ----------
    learner : Learner
    images : Images
        At least one.

    Returns
    -------
    Table
        ``rank`` from 1, ``file`` (or ``row``), ``reconstruction_mse`` a pixel in [0, 1]², and
        ``times_median``: that over the median of these images.

    Raises
    ------
    InputError
        If the learner does not reconstruct, or the images are not of its size.
    """
    return _table(images, errors(learner, images.x))


def gallery(learner: Learner, images: Images, found: np.ndarray | None = None) -> np.ndarray:
    """Return a picture of the worst 24, each beside its reconstruction, with its numbers.

    Parameters
    ----------
    learner : Learner
    images : Images
    found : ndarray (n,), optional
        What `errors` returned, to spare its time.

    Returns
    -------
    ndarray (height, width, 3), uint8

    Raises
    ------
    InputError
        As `rank`.
    """
    found = errors(learner, images.x) if found is None else found
    worst = _order(found)[:SHOWN]
    x = images.x[worst]
    above, below = panels.color(x), panels.color(judge.rebuild(learner, x, PURPOSE))
    gap = np.full((*above.shape[:2], max(1, above.shape[2] // 14), 3), panels.WHITE, np.uint8)
    both = np.concatenate([above, gap, below], axis=2).transpose(0, 3, 1, 2)
    times = _times_median(found)
    words = [
        ([_name(images, row)], f"{place}.  {found[row]:.3g} ({times[row]:.1f} x)")
        for place, row in enumerate(worst, start=1)
    ]
    cells = panels.labeled(both, words, largest=panels.WIDTH)
    head = np.full((2 * panels.LINE + 2 * panels.GAP, panels.WIDTH, 3), panels.WHITE, np.uint8)
    which = f"The {len(worst)} of {len(images):,} images" if len(images) > 1 else "The image"
    lines = (
        f"{which} rebuilt worst. Left: the image. Right: what the learner makes of it.",
        "Below: file or row; rank, mean squared error a pixel (and how many times the median).",
    )
    for number, line in enumerate(lines):
        panels.write_text(head, line, 0, number * panels.LINE)
    width = panels.WIDTH - cells.shape[1]
    return np.concatenate([head, np.pad(cells, ((0, 0), (0, width), (0, 0)), constant_values=255)])


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
    found = errors(learner, images.x)
    picture, table = gallery(learner, images, found), _table(images, found)
    tables.write(out, table)
    panels.save(out.with_suffix(".png"), picture)
    return table


def _table(images: Images, found: np.ndarray) -> tables.Table:
    order = _order(found)
    named: dict[str, np.ndarray] = {"row": order}
    if images.names is not None:
        named = {"file": np.array(images.names)[order]}
    numbers = {"reconstruction_mse": found[order], "times_median": _times_median(found)[order]}
    return {"rank": np.arange(1, len(order) + 1)} | named | numbers


def _order(found: np.ndarray) -> np.ndarray:
    """Return rows, worst first; of equal errors the first row, on every machine."""
    return np.argsort(-np.nan_to_num(found, nan=np.inf), kind="stable")


def _times_median(found: np.ndarray) -> np.ndarray:
    median = float(np.median(found))
    return found / median if median > 0 else np.where(found > 0, np.inf, 1.0)


def _name(images: Images, row: Any) -> str:
    return f"row {row}" if images.names is None else images.names[row].rsplit("/", 1)[-1]
