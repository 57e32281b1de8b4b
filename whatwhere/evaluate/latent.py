"""Pictures of what lies between codes: grids and walks, for modules that decode.

A code of two numbers is drawn whole, as a grid. Of a longer one there are walks: from the mean code
along the directions in which codes differ most, and from the code of one image to that of another.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA

from whatwhere.core import Decodes, key
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import panels, strips
from whatwhere.evaluate.embedding_map import draw
from whatwhere.learner import Learner, infer

MOST, FEWEST = 2000, 100  # images whose codes say where there are any
MOST_NUMBERS = 20_000_000  # in their codes: long ones of many images would fill the memory
SIDE = 13  # of the grid, in images: 28 pixels are then enlarged twice
RARE = 0.05  # part of the codes that lies beyond either end of an axis of the grid
WALKS, STEPS = 6, 9
FARTHEST = 2.0  # deviations from the mean to the end of a walk
PAIRS = 5
GRID_MARGIN, WALK_MARGIN = 70, 130  # pixels to the left of the images, for words
NARROWEST = 48  # pixels of a column, for the number above or below it
WHITE = 1.1  # times what chance gives: up to there no direction is wider than another

_NOWHERE = (
    "Between groups of codes lie some that no image has: the decoder never learned what to make of "
    "them, and what it draws there may be a blend, or like nothing at all."
)


class Walks(NamedTuple):
    """Straight lines through the mean of codes.

    Attributes
    ----------
    codes : ndarray (k, steps, K)
        From -2 to +2 deviations of the codes along the direction.
    parts : ndarray (k,)
        The part of the codes' variance that lies in each direction, in [0, 1].
    principal : bool
        Whether these are principal directions, else single numbers of the code.
    """

    codes: np.ndarray
    parts: np.ndarray
    principal: bool


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``latent_grid``, or ``latent_walks`` and ``latent_between``, each as PNG and JSON.

    Nothing is written for a module that does not decode, or whose codes are all the same.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; the codes of 2,000 at most are looked at, of fewer where codes are long.
    """
    if not isinstance(learner.module_, Decodes):
        return
    length = learner.transform(images.x[:1]).shape[1]
    most = min(MOST, max(FEWEST, MOST_NUMBERS // length))
    shown = images.x[draw(len(images), most, images.shape, "latent")]
    codes = np.nan_to_num(learner.transform(shown))
    if not np.ptp(codes, axis=0).any():
        return
    if codes.shape[1] == 2:
        _write_grid(folder, learner, codes)
        return
    _write_walks(folder, learner, walks(codes), len(codes))
    if codes.shape[1] > 1 and len(images) > 1:
        _write_between(folder, learner, images)


def decode(learner: Learner, codes: np.ndarray) -> np.ndarray:
    """Return the images of codes (..., K), as float32 (n, C, H, W); n counts all leading axes."""
    rows = Rows(codes.reshape(-1, codes.shape[-1]).astype(np.float32))
    found = infer(learner.module_, rows, lambda net, code: net.decode(code))
    return torch.cat([part.cpu() for part in found]).numpy()


def axes(codes: np.ndarray, n: int = SIDE) -> np.ndarray:
    """Return where a grid cuts each axis: from the 5 % quantile of the codes to that of 95 %.

    Parameters
    ----------
    codes : ndarray (m, K)
    n : int

    Returns
    -------
    ndarray (K, n)
        At parts of the codes that grow evenly, so that the grid is fine where codes are many.
    """
    return np.quantile(codes, np.linspace(RARE, 1 - RARE, n), axis=0).T


def walks(codes: np.ndarray, n: int = WALKS, steps: int = STEPS) -> Walks:
    """Return walks along the directions in which codes differ most, the widest first.

    Where no direction is wider than chance makes it, as of whitened codes, principal directions
    mean nothing; the walks are then along single numbers of the code.

    Parameters
    ----------
    codes : ndarray (m, K)
        Not all the same.
    n : int
        Walks; fewer where codes differ in fewer directions.
    steps : int
        Codes on a walk.

    Returns
    -------
    Walks
    """
    m, k = codes.shape
    pca = PCA(min(n, m, k), random_state=0).fit(codes.astype(np.float64))
    directions, deviations = np.asarray(pca.components_), np.sqrt(pca.explained_variance_)
    parts = pca.explained_variance_ratio_
    # The widest direction of m white codes has (1 + √(K/m))² times the mean variance; Marchenko
    # and Pastur 1967.
    principal = k == 1 or bool(parts[0] * k > WHITE * (1 + np.sqrt(k / m)) ** 2)
    if not principal:
        variance = codes.var(axis=0, dtype=np.float64)
        first = np.flatnonzero(variance)[:n]
        directions = (np.arange(k) == first[:, None]).astype(np.float64)
        deviations, parts = np.sqrt(variance[first]), variance[first] / variance.sum()
    wide = parts > 1e-6
    along = np.linspace(-FARTHEST, FARTHEST, steps)
    away = along[:, None] * (deviations[wide, None] * directions[wide])[:, None, :]
    return Walks(codes.mean(axis=0, dtype=np.float64) + away, parts[wide], principal)


def between(first: np.ndarray, last: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Return codes on the straight lines from each first to its last, (n, steps, K).

    Parameters
    ----------
    first, last : ndarray (n, K)
    """
    part = np.linspace(0, 1, steps, dtype=first.dtype)[:, None]
    return (1 - part) * first[:, None] + part * last[:, None]


def pairs(y: np.ndarray, n: int = PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that make pairs, of different labels as far as possible; the same at every call.

    Parameters
    ----------
    y : ndarray (m,)
    n : int
        Pairs; fewer where there are fewer rows, none of which is in two.

    Returns
    -------
    one, other : ndarray (k,)
    """
    order = np.random.default_rng(key("latent pairs", 0)).permutation(len(y))
    n = min(n, len(y) // 2)
    one, rest = order[:n], order[n:]
    other = np.empty_like(one)
    for k, row in enumerate(one):
        place = int(np.argmax(y[rest] != y[row]))  # 0 where none differs
        other[k] = rest[place]
        rest = np.delete(rest, place)
    return one, other


def _write_grid(folder: Path, learner: Learner, codes: np.ndarray) -> None:
    across, up = axes(codes)
    # The second number grows upwards, as on any graph.
    grid = np.stack([np.tile(across, SIDE), up[::-1].repeat(SIDE)], axis=1)
    decoded = panels.color(decode(learner, grid))
    cells = _cells(decoded, SIDE, GRID_MARGIN)
    rows = [
        strips.row([_number(value)], cells[first : first + SIDE], GRID_MARGIN)
        for value, first in zip(up[::-1], range(0, len(cells), SIDE), strict=True)
    ]
    width = cells.shape[2]
    numbers = strips.head([_number(value) for value in across], width, GRID_MARGIN)
    title = np.full((panels.LINE + panels.GAP, numbers.shape[1], 3), panels.WHITE, np.uint8)
    above, below = title, title.copy()
    panels.write_text(above, "second number of the code", 0, 0)
    panels.write_text(below, "first number of the code", title.shape[1], 0, anchor="ra")
    caption = (
        "What the decoder makes of codes, which are two numbers here: the first grows to the "
        "right, the second upwards, and the axes say their values. They go from the value below "
        f"which 5 % of the codes of {len(codes):,} images lie to that above which 5 % do, and are "
        "closer where codes are many. Look for kinds of images that have a region of their own, "
        f"and for how one kind turns into another on the way. {_NOWHERE}"
    )
    picture = np.concatenate([above, *rows, numbers, below])
    panels.write(folder, "latent_grid", picture, "A map of the code, decoded", caption, 14)


def _write_walks(folder: Path, learner: Learner, found: Walks, n: int) -> None:
    k, steps = found.codes.shape[:2]
    cells = _cells(panels.color(decode(learner, found.codes)), steps, WALK_MARGIN)
    one = found.codes.shape[2] == 1
    name = "the code" if one else "direction" if found.principal else "number"
    along = np.linspace(-FARTHEST, FARTHEST, steps)
    rows = [strips.head([_deviations(value) for value in along], cells.shape[2], WALK_MARGIN)]
    for number, part in enumerate(found.parts):
        words = [name] if one else [f"{name} {number + 1}", f"{_percent(part)} of variance"]
        rows.append(strips.row(words, cells[number * steps : (number + 1) * steps], WALK_MARGIN))
    idle = "; and for rows in which nothing does, which the decoder does not listen to"
    if one:
        what, idle = "The code is one number, and the row walks along it.", ""
    elif found.principal:
        what = (
            f"Each row walks along one of the {k} directions in which codes differ most (their "
            "principal components; on the left, the part of all differences between codes that "
            "lies in it)."
        )
    else:
        what = (
            f"Each row changes one of the first {k} numbers of the code and leaves the others at "
            "their mean: these codes differ as much in every direction."
        )
    caption = (
        f"Walks through the code, decoded. In the middle is the mean code of {n:,} images, which "
        f"need not look like any of them. {what} The ends are two standard deviations of the codes "
        "away from the mean, as written above. Look for what changes along a row: a slant, a "
        f"thickness, one kind of image turning into another{idle}. {_NOWHERE}"
    )
    picture = np.concatenate(rows)
    panels.write(folder, "latent_walks", picture, "Walks through the code", caption, 14)


def _write_between(folder: Path, learner: Learner, images: Images) -> None:
    one, other = pairs(images.y)
    first, last = images.x[one], images.x[other]
    codes = between(learner.transform(first), learner.transform(last))
    decoded = panels.color(decode(learner, codes))
    both = [panels.color(ends)[:, None] for ends in (first, last)]
    decoded = decoded.reshape(len(one), STEPS, *decoded.shape[1:])
    columns = STEPS + 2
    table = np.concatenate([both[0], decoded, both[1]], axis=1)
    cells = _cells(table.reshape(-1, *table.shape[2:]), columns, 0)
    percents = [f"{100 * k / (STEPS - 1):.0f} %" for k in range(STEPS)]
    rows = [strips.head(["image", *percents, "image"], cells.shape[2], 0)]
    rows += [
        strips.row([], cells[first : first + columns], 0) for first in range(0, len(cells), columns)
    ]
    caption = (
        "From the code of one image to that of another, in a straight line. The outermost columns "
        "show two images as they are; at 0 % and 100 % stands what the decoder makes of their own "
        "codes, and between them what it makes of codes so far along the way. Look at the middle: "
        "where strokes bend and parts move, the code holds shapes; where one image fades out while "
        f"the other fades in, it holds little more than pixels. {_NOWHERE}"
    )
    panels.write(folder, "latent_between", np.concatenate(rows), "Between two images", caption, 16)


def _cells(images: np.ndarray, columns: int, margin: int) -> np.ndarray:
    """Return images (n, H, W, 3) of the size at which so many fill the width beside a margin."""
    cells = panels.enlarge(images, columns, panels.WIDTH - margin)
    missing = max(0, NARROWEST - cells.shape[2])
    sides = (missing // 2, missing - missing // 2)
    return np.pad(cells, ((0, 0), (0, 0), sides, (0, 0)), constant_values=panels.WHITE)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _deviations(value: float) -> str:
    return f"{value:+.1f}" if value else "mean"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.1f} %"
