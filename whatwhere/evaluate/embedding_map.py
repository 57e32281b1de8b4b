"""A map of images: alike for the learner, near on the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.random_projection import SparseRandomProjection

from whatwhere.core import UNLABELED, key
from whatwhere.data.images import Images
from whatwhere.evaluate import panels
from whatwhere.learner import ImageClassifier, Learner

MOST = 600  # images on the map
LEAST_FOR_TSNE = 50  # fewer have no neighborhoods to speak of
DIMENSIONS = 50  # of what t-SNE and k-means are given
MOST_FEATURES = 4096  # wider embeddings are projected at random: 600 large images fill the memory
PROJECTED = 1024
PART = 200  # images that are embedded at once; fewer of large ones
MOST_PIXELS = 16_000_000  # seen in all: what one core does in some ten seconds
PART_PIXELS = 2_000_000  # embedded at once: the maps of larger images would fill the memory
TILE, COLUMNS = 32, 30


def draw(n: int, most: int, shape: Sequence[int], what: str) -> np.ndarray:
    """Draw rows to look at, the same at every call.

    Parameters
    ----------
    n : int
        Rows there are.
    most : int
        Rows that are drawn at most; fewer of large images, to bound the time.
    shape : (C, H, W)
        Of an image.
    what : str
        What the draw is for: another purpose has another draw.

    Returns
    -------
    ndarray (k,)
        In rising order.
    """
    most = min(most, max(DIMENSIONS, MOST_PIXELS // (shape[-2] * shape[-1])))
    rng = np.random.default_rng(key(what, 0))
    return np.sort(rng.permutation(n)[:most])


def embed(learner: Learner, x: np.ndarray) -> np.ndarray:
    """Return embeddings in a few dimensions, as float64 (n, at most 50), by PCA.

    Embeddings of more than 4,096 features are projected at random to 1,024 first.
    """
    parts, project = [], None
    at_once = max(1, min(PART, PART_PIXELS // (x.shape[2] * x.shape[3])))
    for first in range(0, len(x), at_once):
        part = np.nan_to_num(learner.transform(x[first : first + at_once]))
        if part.shape[1] > MOST_FEATURES:
            if project is None:
                width: Any = (
                    PROJECTED  # its default is a text, which is all that a type checker sees
                )
                project = SparseRandomProjection(width, dense_output=True, random_state=0)
                project.fit(part)
            part = np.asarray(project.transform(part))
        parts.append(part)
    return components(np.concatenate(parts), DIMENSIONS)


def components(features: np.ndarray, most: int) -> np.ndarray:
    """Return the first principal components of features (n, d), float64 (n, min(most, n, d)).

    Where all rows are the same, there are none: all are 0.
    """
    k = min(most, *features.shape)
    if not np.ptp(features, axis=0).any():
        return np.zeros((len(features), k))
    return PCA(k, random_state=0).fit_transform(features.astype(np.float64))


def layout(embedded: np.ndarray) -> tuple[np.ndarray, str]:
    """Return places on the page, and how they were found.

    Parameters
    ----------
    embedded : ndarray (n, d), n at least 1

    Returns
    -------
    places : ndarray (n, 2) in [0, 1]
        Both axes have one scale, and the map is in the middle.
    method : str
        "t-SNE", or "PCA" for fewer than 50 images or images that are all the same.
    """
    places, method = components(embedded, 2), "PCA"
    if len(embedded) >= LEAST_FOR_TSNE and np.ptp(embedded, axis=0).any():
        tsne = TSNE(init="pca", random_state=0)
        places, method = np.asarray(tsne.fit_transform(embedded), np.float64), "t-SNE"
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    low, span = places.min(axis=0), np.ptp(places, axis=0)
    largest = span.max() or 1.0
    return (0.5 + (places - low - span / 2) / largest).clip(0, 1), method


def thumbnails(images: np.ndarray, side: int = TILE, columns: int = COLUMNS) -> np.ndarray:
    """Return small pictures of images, row by row without gaps, to be cut out again.

    Parameters
    ----------
    images : ndarray (k, C, H, W)
        As for `panels.grid`. What is not square gets white borders.
    side : int
        Of a thumbnail, in pixels.
    columns : int
        Thumbnails in a row.

    Returns
    -------
    ndarray (rows * side, columns * side, 3), uint8
    """
    n_rows = -(-len(images) // columns)
    table = np.full((n_rows, columns, side, side, 3), panels.WHITE, np.uint8)
    h, w = images.shape[2:]
    size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
    # Whole factors show the pixels as they are; others would make some pixels larger than others.
    whole = side % max(h, w) == 0
    how = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    for k, image in enumerate(images):
        small = np.asarray(Image.fromarray(panels.color(image[None])[0]).resize(size, how))
        table[k // columns, k % columns, top : top + size[1], left : left + size[0]] = small
    return table.transpose(0, 2, 1, 3, 4).reshape(n_rows * side, columns * side, 3)


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``map.png``, the thumbnails, and ``map.json``, where each of them lies.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; of many, 600 are drawn.
    """
    rows = draw(len(images), MOST, images.shape, "map")
    shown = images.take(rows)
    places, method = layout(embed(learner, shown.x))
    predicted: list[str | None] = [None] * len(rows)
    probability: list[float | None] = [None] * len(rows)
    if isinstance(learner, ImageClassifier) and len(learner.classes_):
        told = learner.predict_proba(shown.x)
        predicted = [str(learner.classes_[best]) for best in told.argmax(1)]
        probability = [float(best) for best in told.max(1)]
    points: list[dict[str, Any]] = []
    for k, row in enumerate(rows.tolist()):
        known = shown.y[k] != UNLABELED
        points.append(
            {"x": round(float(places[k, 0]), 4), "y": round(1 - float(places[k, 1]), 4), "tile": k}
            | panels.place(images.names, row)
            | {"class": str(images.classes[shown.y[k]]) if known else None}
            | {"predicted": predicted[k], "probability": probability[k]}
        )
    columns = min(COLUMNS, len(rows))
    panels.write(
        folder,
        "map",
        thumbnails(shown.x, TILE, columns),
        "Map of the images",
        _caption(len(rows), len(images), method),
        15,
        kind="map",
        method=method,
        tile=TILE,
        columns=columns,
        points=points,
    )


def _caption(shown: int, there: int, method: str) -> str:
    if shown == 1:
        which = "One image"
    else:
        which = f"All {shown} images" if shown == there else f"{shown:,} of {there:,} images"
    reading = (
        "t-SNE keeps neighbors together; how far apart two groups lie, and how large they are, "
        "means nothing."
        if method == "t-SNE"
        else "The two axes are the directions in which the features differ most."
    )
    return (
        f"{which}, laid out so that those whose features are alike lie near each other. {reading} "
        "An image among those of another class may have a wrong label, or be hard to tell."
    )
