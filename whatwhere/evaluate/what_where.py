"""A picture of the two halves of a code: what was seen, and where in its window it was."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import panels
from whatwhere.evaluate.embedding_map import draw
from whatwhere.learner import Learner

SHOWN = 4  # images
MAPS = 6  # of a level
CANDIDATES = 64  # images among which those of different classes are looked for
SIDE = 56  # of an image or a map, in pixels: 28 and 14 fit by whole factors
MARGIN = 88  # pixels beside the rows, for their words
BETWEEN = 12  # pixels between two images
PALEST = 0.2  # how much of its color the weakest maximum keeps


@runtime_checkable
class SaysWhatWhere(Protocol):
    """Tells *what* and *where* of images, as lists of arrays (n, C_m, h_m, w_m), lowest first."""

    def what_where(self, X: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return what and where."""
        ...


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``what_where.png`` and ``.json`` for a learner that tells them.

    Without such a learner, or where it has no pooled level, nothing is written.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; four are shown, of different classes where these are known.
    """
    if not isinstance(learner, SaysWhatWhere):
        return
    x = images.x[_four(images)]
    what, where = learner.what_where(x)
    if not what:
        return
    sizes = [_window(level) for level in where]
    panels.write(
        folder,
        "what_where",
        picture(x, what, where, sizes),
        "What and where",
        _caption(len(x), what, sizes),
        12,
    )


def picture(
    x: np.ndarray,
    what: Sequence[np.ndarray],
    where: Sequence[np.ndarray],
    sizes: Sequence[int],
) -> np.ndarray:
    """Return the images, and below each the strongest maps of its what and where.

    Parameters
    ----------
    x : ndarray (n, C, H, W)
    what, where : sequences of ndarray (n, C_m, h_m, w_m)
        Lowest level first.
    sizes : sequence of int
        The p of each level's p x p windows.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    each = [
        _one(x[k], [level[k] for level in what], [level[k] for level in where], sizes)
        for k in range(len(x))
    ]
    blocks = np.pad(each, ((0, 0), (0, BETWEEN), (0, BETWEEN), (0, 0)), constant_values=255)
    if len(blocks) == 1:
        return np.concatenate([blocks[0], _legend(sizes, blocks.shape[2])])
    blank = np.full((len(blocks) % 2, *blocks.shape[1:]), panels.WHITE, np.uint8)
    blocks = np.concatenate([blocks, blank])
    pairs = [np.concatenate([*blocks[k : k + 2]], axis=1) for k in range(0, len(blocks), 2)]
    return np.concatenate([*pairs, _legend(sizes, pairs[0].shape[1])])


def colors(size: int) -> np.ndarray:
    """Return the color of each place in a window, row by row: uint8 (size², 3).

    The hue is the direction from the middle of the window, and the color is the fuller the farther
    from it; the middle itself is gray.
    """
    middle = (size - 1) / 2
    places = []
    for place in range(size * size):
        down, right = place // size - middle, place % size - middle
        distance = np.hypot(down, right) / max(np.hypot(middle, middle), 1e-9)
        hue = np.arctan2(down, right) / (2 * np.pi) % 1.0
        places.append(colorsys.hsv_to_rgb(hue, distance, 0.55 + 0.35 * distance))
    return np.rint(255 * np.array(places)).astype(np.uint8)


def paint(where: np.ndarray, size: int) -> np.ndarray:
    """Return where (..., h, w) in color, uint8 (..., h, w, 3); inactive windows are white."""
    table = np.concatenate([colors(size), np.full((1, 3), panels.WHITE, np.uint8)])
    known = (where >= 0) & (where.astype(np.int64) < size * size)
    return table[np.where(known, where.astype(np.int64), size * size)]


def _four(images: Images) -> np.ndarray:
    """Return rows of different classes as far as possible, else the first that are drawn."""
    known = np.flatnonzero(images.y != UNLABELED)
    first = known[np.unique(images.y[known], return_index=True)[1]] if len(known) else known
    chosen = [*first[draw(len(first), SHOWN, images.shape, "what and where")]]
    others = draw(len(images), CANDIDATES, images.shape, "what and where, others")
    chosen += [row for row in others if row not in chosen]
    return np.array(chosen[:SHOWN])


def _window(where: np.ndarray) -> int:
    """Return the p of p x p windows, from the largest place that was told; at least 1."""
    inactive = 255 if where.dtype == np.uint8 else -1
    told = where[where != inactive]
    largest = int(told.max()) if told.size else 0
    return int(np.ceil(np.sqrt(largest + 1)))


def _one(
    x: np.ndarray, what: Sequence[np.ndarray], where: Sequence[np.ndarray], sizes: Sequence[int]
) -> np.ndarray:
    """Return an image beside its maps: rows of what and where of each level."""
    rows = [_row("image", _sized(panels.color(x[None]), SIDE))]
    for level, (seen, places, size) in enumerate(zip(what, where, sizes, strict=True), start=1):
        strength = np.nan_to_num(seen.astype(np.float64)).sum(axis=(1, 2))
        strongest = np.argsort(-strength, kind="stable")[:MAPS]
        maps = np.nan_to_num(seen[strongest].astype(np.float64))
        largest = maps.max(initial=0.0)
        relative = maps / (largest or 1.0)
        rows.append(_row(f"level {level} what", _sized(panels.color(relative[:, None]), SIDE)))
        # A maximum that is hardly one says little about where: it is drawn pale.
        kept = PALEST + (1 - PALEST) * np.sqrt(relative.clip(0, 1))[..., None]
        full = paint(places[strongest], size).astype(np.float64)
        pale = np.rint(panels.WHITE - kept * (panels.WHITE - full)).astype(np.uint8)
        rows.append(_row(f"level {level} where", _sized(pale, SIDE)))
    width = MARGIN + MAPS * (SIDE + panels.GAP)
    return np.concatenate([_wide(row, width) for row in rows])


def _row(word: str, cells: np.ndarray) -> np.ndarray:
    """Return a word and cells (k, h, w, 3) to the right of it."""
    beside = np.full((cells.shape[1] + panels.GAP, MARGIN, 3), panels.WHITE, np.uint8)
    panels.write_text(beside, word, 0, cells.shape[1] // 2, anchor="lm")
    framed = np.pad(cells, ((0, 0), (0, panels.GAP), (0, panels.GAP), (0, 0)), constant_values=255)
    return np.concatenate([beside, *framed], axis=1)


def _wide(row: np.ndarray, width: int) -> np.ndarray:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _sized(cells: np.ndarray, side: int) -> np.ndarray:
    """Return cells (k, h, w, 3) whose longer side is about `side`, without smoothing."""
    h, w = cells.shape[1:3]
    longest = max(h, w)
    height, width = max(1, round(h * side / longest)), max(1, round(w * side / longest))
    down, right = np.arange(height) * h // height, np.arange(width) * w // width
    return cells[:, down[:, None], right]


def _legend(sizes: Sequence[int], width: int) -> np.ndarray:
    """Return a window of each size with the color of each place, and words."""
    rows = []
    for size in dict.fromkeys(sizes):
        square = paint(np.arange(size * size).reshape(1, size, size), size)
        row = _wide(_row("legend", _sized(square, SIDE)), width)
        lines = (
            f"where: each place in a window of {size} x {size} has a color.",
            "A dot of that color: the maximum was there.",
            "Pale: a weak one. White: nothing was found.",
        )
        for number, line in enumerate(lines):
            left = MARGIN + SIDE + 3 * panels.GAP
            panels.write_text(row, line, left, 2 + number * panels.LINE)
        rows.append(row)
    return np.concatenate(rows)


def _caption(n: int, what: Sequence[np.ndarray], sizes: Sequence[int]) -> str:
    levels = "the only level" if len(what) == 1 else f"each of {len(what)} levels"
    windows = " and ".join(f"{size} x {size}" for size in dict.fromkeys(sizes))
    return (
        f"The code of {n} image{'s' * (n > 1)}, taken apart. The net divides each of its feature "
        f"maps into windows of {windows}, and keeps two things of a window. What: how strongly the "
        "feature was found in it; bright is strong. Where: at which place of the window; the color "
        "tells it (legend at the bottom), pale where the feature is weak, white where there is "
        "none. Each column shows one map, its what above its where: the strongest maps of "
        f"{levels}. What goes up to the next level, and hardly changes when something moves by a "
        "pixel; where goes across to the decoder, which needs it to draw the image again."
    )
