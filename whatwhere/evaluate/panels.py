"""Pictures of what a run learned, for a run folder: a PNG and the words that go with it.

Everything is drawn from arrays with NumPy and Pillow, so that a picture needs neither a model nor a
plotting library. Pixels are enlarged without smoothing: an image of 8 x 8 shows its 64 pixels.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH = 900  # of a picture, in pixels, about
LARGEST = 112  # side of an enlarged image: what fits eight times
GAP = 4
WHITE = 255
INK = 40

COLUMNS = 12
MOST_FILTERS = 100
MISTAKE_COLUMNS = 6
TEXT = 14  # height of a letter, in pixels
LINE = 18


def grid(images: np.ndarray, columns: int = COLUMNS, width: int = WIDTH) -> np.ndarray:
    """Return images side by side, row by row, as one picture.

    Parameters
    ----------
    images : ndarray (k, C, H, W), k at least 1
        uint8, or floats in [0, 1]; what lies outside is cut off. One channel is gray, three are
        red, green and blue; of any other number the mean is shown.
    columns : int
        Images in a row.
    width : int
        What the picture should fill, in pixels: images are enlarged by a whole factor, to a side of
        112 at most, or shrunk if they are too large.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    columns = min(columns, len(images))
    return tile(enlarge(color(images), columns, width), columns)


def pairs(
    originals: np.ndarray, rebuilt: np.ndarray, columns: int = COLUMNS, width: int = WIDTH
) -> np.ndarray:
    """Return a picture with each image above what was rebuilt from it.

    Parameters
    ----------
    originals, rebuilt : ndarray (k, C, H, W)
        As for `grid`.
    columns, width : int
        As for `grid`.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    assert originals.shape == rebuilt.shape, (originals.shape, rebuilt.shape)
    columns = min(columns, len(originals))
    strips = []
    above = enlarge(color(originals), columns, width)
    below = enlarge(color(rebuilt), columns, width)
    for first in range(0, len(originals), columns):
        part = slice(first, first + columns)
        both = np.concatenate([pad(above[part], columns), pad(below[part], columns)])
        strips.append(tile(both, columns))
    between = np.full((3 * GAP, strips[0].shape[1], 3), WHITE, np.uint8)
    return np.concatenate([row for strip in strips for row in (strip, between)][:-1])


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture (height, width, 3), uint8; without color it becomes a smaller gray file."""
    gray = (picture == picture[..., :1]).all()
    Image.fromarray(picture[..., 0] if gray else picture).save(path, "PNG", optimize=True)


def save(out: Path, picture: np.ndarray) -> None:
    """Write a PNG for the user, whole or not at all."""
    fresh = out.with_name(f".{out.name}.tmp")
    try:
        write_png(fresh, picture)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def place(names: Sequence[str] | None, row: int) -> dict[str, Any]:
    """Return how an image is told to the user: by its file, or else by its row."""
    return {"row": row} if names is None else {"file": names[row]}


def reconstructions(
    folder: Path, originals: np.ndarray, rebuilt: np.ndarray, mse: float | None = None
) -> None:
    """Write ``reconstructions.png`` and ``.json``: images above what was rebuilt from their codes.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    originals, rebuilt : ndarray (k, C, H, W), k at least 1
        In [0, 1]; as for `grid`.
    mse : float, optional
        Mean squared error a pixel, for the caption. Default: that of these images.
    """
    if mse is None:
        mse = float(np.mean((unit(originals) - unit(rebuilt)) ** 2))
    several = len(originals) > COLUMNS
    caption = (
        f"{'In each pair of rows, the' if several else 'The'} upper row shows images as they are, "
        "and the lower row what the decoder makes of their codes. Details that are blurred or "
        "missing below are what the code does not keep. Mean squared error a pixel, on a scale "
        f"from 0 to 1: {mse:.2g}."
    )
    write(folder, "reconstructions", pairs(originals, rebuilt), "Reconstructions", caption, 10)


def filters(folder: Path, weights: np.ndarray) -> None:
    """Write ``filters.png`` and ``.json``: the filters that look at the image.

    Each is scaled by its own largest weight, the same way up and down, so that gray is 0. More than
    100 are not drawn.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    weights : ndarray (K, C, h, w), K at least 1
        Of three channels the filter is in color, of any other number the mean is shown.
    """
    shown = np.nan_to_num(np.asarray(weights[:MOST_FILTERS], dtype=np.float64))
    if shown.shape[1] not in (1, 3):
        shown = shown.mean(axis=1, keepdims=True)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * shown / np.where(largest > 0, largest, 1)
    k, channels, height, width = scaled.shape
    number = f"{k} filters" if k == len(weights) else f"first {k} of {len(weights)} filters"
    meaning = (
        "the color it answers to, gray where it does not look"
        if channels == 3
        else "white where it wants light, black where it wants dark, gray where it does not look"
    )
    noun = "Edges and blobs of color" if channels == 3 else "Edges and strokes"
    caption = (
        f"The {number} that look at the image, {height} x {width} pixels each: {meaning}. Each is "
        f"scaled by its own largest weight. {noun} among them were learned; filters of few pixels "
        "may look irregular and do their work all the same."
    )
    columns = 8 if k <= 16 else 16 if k <= 64 else 20
    columns = min(columns, max(1, WIDTH // (2 * max(height, width) + GAP)))  # twice their size
    write(folder, "filters", grid(scaled, columns), "First-layer filters", caption, 20)


def mistakes(
    folder: Path,
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    rows: np.ndarray | None = None,
    most: int = 24,
) -> None:
    """Write ``mistakes.png`` and ``.json``: the mistakes of which the classifier was surest.

    Without a mistake, nothing is written.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    images : ndarray (n, C, H, W)
        All that were judged; as for `grid`.
    true, predicted : ndarray (n,)
        Classes as the user calls them.
    probability : ndarray (n,) in [0, 1]
        Of the predicted class.
    names : sequence of str, optional
        The file of each image; without it the JSON tells its row.
    rows : ndarray (n,), optional
        Row of each image in its data set, where some were left out. Default: 0 to n - 1.
    most : int
        Mistakes that are shown.
    """
    wrong = np.flatnonzero(np.asarray(true) != np.asarray(predicted))
    if len(wrong) == 0:
        return
    # A stable sort: of mistakes that are as sure, the first rows come first on every machine.
    surest = wrong[np.argsort(-np.asarray(probability)[wrong], kind="stable")][:most]
    told: list[dict[str, Any]] = []
    for row in surest.tolist():
        where = place(names, row if names is not None or rows is None else int(rows[row]))
        told.append(
            where
            | {"true": _plain(true[row]), "predicted": _plain(predicted[row])}
            | {"probability": float(probability[row])}
        )
    if len(wrong) == 1:
        which = f"The only mistake among {len(images)} images."
    elif len(wrong) == len(told):
        which = f"All {len(wrong)} mistakes among {len(images)} images, the surest first."
    else:
        which = f"The {len(told)} surest of {len(wrong)} mistakes among {len(images)} images."
    caption = (
        f"{which} Below each image: its true class, the class that was predicted, and how probable "
        "the classifier held that to be. Look for labels that are themselves wrong, and for images "
        "that a person would doubt too."
    )
    words = [
        ([str(row["true"]), str(row["predicted"])], percent(row["probability"])) for row in told
    ]
    picture = labeled(images[surest], words)
    write(folder, "mistakes", picture, "Most confident mistakes", caption, 30, rows=told)


def write(
    folder: Path, name: str, picture: np.ndarray, title: str, caption: str, order: int, **more: Any
) -> None:
    """Write a panel: ``NAME.png``, and ``NAME.json`` with its words and whatever more there is."""
    write_png(folder / f"{name}.png", picture)
    words = {"title": title, "caption": caption, "order": order} | more
    text = json.dumps(words, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _plain(label: Any) -> Any:
    """Return a label as JSON has it."""
    return label.item() if isinstance(label, np.generic) else label


def unit(images: np.ndarray) -> np.ndarray:
    """Return images as floats in [0, 1], but for what overshoots."""
    return images / np.float32(255) if images.dtype == np.uint8 else images


def color(images: np.ndarray) -> np.ndarray:
    """Return images (k, C, H, W) as uint8 (k, H, W, 3)."""
    floats = np.nan_to_num(unit(images).astype(np.float64))
    if floats.shape[1] != 3:
        floats = np.repeat(floats.mean(axis=1, keepdims=True), 3, axis=1)
    return np.rint(255 * floats.clip(0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)


def enlarge(images: np.ndarray, columns: int, width: int, largest: int = LARGEST) -> np.ndarray:
    """Return images (k, H, W, 3) of the size at which so many of them fill the width."""
    room = max(1, (width - GAP * (columns - 1)) // columns)
    h, w = images.shape[1:3]
    side = max(h, w)
    if side > room:
        size = (max(1, w * room // side), max(1, h * room // side))
        small = [Image.fromarray(x).resize(size, Image.Resampling.BOX) for x in images]
        return np.stack([np.asarray(x) for x in small])
    factor = max(1, min(room, largest) // side)
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def pad(images: np.ndarray, n: int) -> np.ndarray:
    """Return images (k, H, W, 3), and white ones after them: n in all."""
    white = np.full((n - len(images), *images.shape[1:]), WHITE, np.uint8)
    return np.concatenate([images, white])


def tile(cells: np.ndarray, columns: int) -> np.ndarray:
    """Return cells (k, h, w, 3) row by row, with white gaps between them."""
    columns = min(columns, len(cells))
    n_rows = -(-len(cells) // columns)
    k, h, w = n_rows * columns, *cells.shape[1:3]
    framed = np.full((k, h + GAP, w + GAP, 3), WHITE, np.uint8)
    framed[: len(cells), :h, :w] = cells
    table = framed.reshape(n_rows, columns, h + GAP, w + GAP, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(
        table.reshape(n_rows * (h + GAP), columns * (w + GAP), 3)[:-GAP, :-GAP]
    )


def labeled(
    images: np.ndarray,
    words: Sequence[tuple[list[str], str]],
    *,
    between: str = " -> ",
    largest: int = LARGEST,
) -> np.ndarray:
    """Return images row by row, each with two lines of text below it.

    Parameters
    ----------
    images : ndarray (k, C, H, W), k at least 1
        As for `grid`.
    words : sequence of (names, line), one an image
        The first line is the names, cut until it fits; the second is as it is.
    between : str
        What stands between the names.
    largest : int
        To what side, in pixels, images are enlarged at most.

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    pictures = enlarge(color(images), MISTAKE_COLUMNS, WIDTH, largest)
    font = ImageFont.load_default(TEXT)
    width = (WIDTH - GAP * (MISTAKE_COLUMNS - 1)) // MISTAKE_COLUMNS
    k, height, w = pictures.shape[:3]
    cells = np.full((k, height + 2 * LINE + 2 * GAP, width, 3), WHITE, np.uint8)
    left = (width - w) // 2
    for cell, picture, (names, second) in zip(cells, pictures, words, strict=True):
        cell[:height, left : left + w] = picture
        lines = [_fit(list(names), between, font, width), second]
        for number, line in enumerate(lines):
            write_text(cell, line, width // 2, height + GAP + number * LINE, anchor="ma")
    return tile(pad(cells, max(k, MISTAKE_COLUMNS)), MISTAKE_COLUMNS)


def write_text(
    picture: np.ndarray, text: str, x: int, y: int, anchor: str = "la", size: int = TEXT
) -> None:
    """Write text into a picture (h, w, 3), uint8; `anchor` is Pillow's, "la" the top left."""
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((x, y), text, fill=(INK,) * 3, font=font, anchor=anchor)
    picture[:] = np.asarray(image)


def _fit(names: list[str], between: str, font: Any, width: int) -> str:
    """Return the names in a line; the longest is cut until it fits."""
    while font.getlength(between.join(names)) > width and max(map(len, names)) > 2:
        longer = max(range(len(names)), key=lambda place: len(names[place]))
        names[longer] = names[longer].rstrip("…")[:-1] + "…"
    return between.join(names)


def percent(probability: float) -> str:
    """Return a probability as it is told in pictures; what is all but sure is not called sure."""
    value = 100 * probability
    if value < 99:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value < 99.95 else "over 99.9 %"
