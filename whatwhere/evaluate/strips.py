"""Rows of images with words beside and above them, of which larger pictures are put together."""

from collections.abc import Mapping, Sequence

import numpy as np

from whatwhere.evaluate import panels

MARGIN = 110  # pixels to the left of the images, for their words


def row(words: Sequence[str], cells: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """Return cells side by side, lines of words to the left of them, and a gap below.

    Parameters
    ----------
    words : sequence of str
        A line each.
    cells : ndarray (k, h, w, 3), uint8
    margin : int
        Pixels for the words.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    images = panels.tile(cells, len(cells))
    height = max(len(images), panels.LINE * len(words))
    whole = np.full((height + panels.GAP, margin + images.shape[1], 3), panels.WHITE, np.uint8)
    top = (height - len(images)) // 2
    whole[top : top + len(images), margin:] = images
    middle = height / 2 - panels.LINE * (len(words) - 1) / 2
    for number, line in enumerate(words):
        panels.write_text(whole, line, 0, round(middle + number * panels.LINE), anchor="lm")
    return whole


def head(words: Sequence[str], width: int, margin: int = MARGIN) -> np.ndarray:
    """Return a line with one word above the middle of each column.

    Parameters
    ----------
    words : sequence of str
        One a column.
    width : int
        Of a cell, in pixels.
    margin : int
        As for `row`.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    n, step = len(words), width + panels.GAP
    line = np.full((panels.LINE + panels.GAP, margin + n * step - panels.GAP, 3), 255, np.uint8)
    for column, word in enumerate(words):
        panels.write_text(line, word, margin + column * step + width // 2, 0, anchor="ma")
    return line


def strips(kinds: Mapping[str, np.ndarray], columns: int = panels.COLUMNS) -> np.ndarray:
    """Return images below each other, one row a kind, again and again until all are shown.

    Parameters
    ----------
    kinds : mapping of str to ndarray (k, C, H, W)
        By the words beside the row: the same images, as they are, changed, ...; see `panels.grid`.
    columns : int
        Images in a row.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    n = min(map(len, kinds.values()))
    columns = min(columns, n)
    cells = {
        word: panels.enlarge(panels.color(images), columns, panels.WIDTH)
        for word, images in kinds.items()
    }
    rows: list[np.ndarray] = []
    for first in range(0, n, columns):
        part = slice(first, first + columns)
        rows += [row([word], panels.pad(own[part], columns)) for word, own in cells.items()]
        rows.append(np.full((2 * panels.GAP, *rows[-1].shape[1:]), panels.WHITE, np.uint8))
    return np.concatenate(rows[:-1])
