"""Images in memory, and the draws that decide which of them are tested, labeled or validated on.

A draw depends on the labels, its size and its seed, and on nothing else. So every model sees the
same labels; and because a class is shuffled once and taken from the front, a larger draw with the
same seed contains the smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whatwhere.core import UNLABELED, InputError, key


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size, and what is known of their classes.

    Attributes
    ----------
    x : ndarray (n, C, H, W)
        uint8 in [0, 255], or float32 in [0, 1].
    y : ndarray (n,)
        int64; the place of the class in `classes`, or `UNLABELED`.
    classes : tuple of int or str
        What the classes are called, in their order.
    names : tuple of str, optional
        The file of each row, where the images come from files.
    """

    x: np.ndarray
    y: NDArray[np.int64]
    classes: tuple[int | str, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check what only this package can break."""
        assert self.x.ndim == 4, self.x.shape
        assert self.x.dtype in (np.uint8, np.float32), self.x.dtype
        assert self.y.shape == self.x.shape[:1], (self.y.shape, self.x.shape)
        assert self.y.dtype == np.int64, self.y.dtype
        assert self.names is None or len(self.names) == len(self.x)

    def __len__(self) -> int:
        """Return n."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, c, h, w = self.x.shape
        return c, h, w

    @property
    def n_labeled(self) -> int:
        """How many images have a label."""
        return int(np.count_nonzero(self.y != UNLABELED))

    def take(self, rows: ArrayLike) -> "Images":
        """Return these rows, in this order, as images of their own (copied)."""
        rows = _rows(rows)
        names = None if self.names is None else tuple(self.names[row] for row in rows)
        return replace(self, x=self.x[rows], y=self.y[rows], names=names)

    def fingerprint(self) -> str:
        """Return the SHA-256 of pixels, labels and classes, in hexadecimal digits.

        Types and shapes are part of it; the names of files are not.
        """
        digest = sha256(repr((str(self.x.dtype), self.x.shape, self.classes)).encode())
        for array in (self.x, self.y):
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little_endian).data)
        return digest.hexdigest()


class Skipped(NamedTuple):
    """A file that is no image that can be read.

    Attributes
    ----------
    file : str
        Relative to the folder of images, with forward slashes.
    reason : str
        One line.
    """

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to learn from and, where there are such, images to be tested on.

    Attributes
    ----------
    name : str
        What the user called it: a named set, or a path.
    train, test : Images
        The test part has the size and the classes of the training part.
    skipped : tuple of Skipped
        What was found with the images, in either part, and could not be read.
    """

    name: str
    train: Images
    test: Images | None
    skipped: tuple[Skipped, ...] = ()


def split_test(images: Images, fraction: float, seed: int = 0) -> tuple[Images, Images]:
    """Cut off a test part, each class in proportion.

    The test part is taken from the labeled images, because only they can be right or wrong; all
    unlabeled images stay in the training part. Where no image has a label, it is taken from all.
    Each class keeps at least one image to learn from. Both parts keep the order of the rows.

    Parameters
    ----------
    images : Images
    fraction : float in (0, 1)
        Of the labeled images.
    seed : int

    Returns
    -------
    train, test : Images

    Raises
    ------
    InputError
        If the fraction is not in (0, 1), or leaves either part empty.
    """
    check_fraction(fraction, "a test fraction")
    groups = _by_class(images.y) or {UNLABELED: np.arange(len(images))}
    counts = np.array([len(rows) for rows in groups.values()])
    n = round(counts.sum() * fraction)
    quotas = np.minimum(_in_proportion(counts, n), counts - 1)
    if quotas.sum() == 0:
        raise InputError(
            f"a test fraction of {fraction:g} leaves no test image ({counts.sum():,} images can be "
            f"taken, in {len(counts)} classes): give a larger fraction, or more images"
        )
    test = _first(groups, quotas, "test", seed)
    train = np.delete(np.arange(len(images)), test)
    return images.take(train), images.take(test)


def draw_labels(images: Images, n: int, *, seed: int) -> NDArray[np.int64]:
    """Draw the rows whose labels are shown, as many of each class.

    Where n is no multiple of the number of classes, the classes that get one more are drawn too.
    The draw depends on the labels, n and the seed only; with the same seed a larger draw contains
    the smaller.

    Parameters
    ----------
    images : Images
        Classes without a labeled image are left out.
    n : int
        Labels in total.
    seed : int

    Returns
    -------
    ndarray (n,)
        Rows, in rising order.

    Raises
    ------
    InputError
        If no image has a label, if n is smaller than the number of classes, or if the smallest
        class is too small for a balanced draw of n.
    """
    groups = _by_class(images.y)
    if not groups:
        raise InputError(
            f"{n} labels were asked for, but none of the {len(images)} images has a label: "
            "give the labels with the data, or train without (--labels none)"
        )
    if n < len(groups):
        raise InputError(
            f"{n} labels are too few for {len(groups)} classes: "
            f"each class needs one, so ask for {len(groups)} or more"
        )
    place, rows = min(groups.items(), key=lambda group: len(group[1]))
    largest = len(rows) * len(groups)
    if n > largest:
        raise InputError(
            f"{n} labels, balanced over {len(groups)} classes, are more than there are: class "
            f"{images.classes[place]} has {len(rows)} labeled images, so ask for {largest} at most "
            f"(or for all {images.n_labeled}, unbalanced: --labels all)"
        )
    order = np.random.default_rng(key("classes with one more", seed)).permutation(len(groups))
    quotas = np.full(len(groups), n // len(groups))
    quotas[order[: n % len(groups)]] += 1
    return _first(groups, quotas, "labels", seed)


def draw_validation(
    images: Images, size: float, *, keep: ArrayLike, seed: int
) -> NDArray[np.int64]:
    """Draw labeled rows to validate on, each class in proportion, none of them in `keep`.

    Parameters
    ----------
    images : Images
    size : int or float
        A whole number is a count; a float in (0, 1) is a fraction of the labeled images, those in
        `keep` included.
    keep : array_like of int
        Rows that stay for training: the drawn labels. Empty where all labels are shown; the
        validation rows then leave the training part.
    seed : int

    Returns
    -------
    ndarray (n_validation,)
        Rows, in rising order.

    Raises
    ------
    InputError
        If no image has a label, if the count is not positive, if the fraction is not in (0, 1), or
        if fewer labeled images are left.
    """
    free = images.y.copy()
    free[_rows(keep)] = UNLABELED
    groups = _by_class(free)
    if isinstance(size, Integral):
        n = int(size)
    else:
        check_fraction(size, "a validation fraction")
        n = round(images.n_labeled * size)
    if images.n_labeled == 0:
        raise InputError(
            f"validation on {size} images needs labels, and none of the {len(images)} images has "
            "one: give labels, or go without (--validation none)"
        )
    left = sum(len(rows) for rows in groups.values())
    if not 0 < n <= left:
        raise InputError(
            f"validation on {n} images is not possible: {left} labeled images are left beside the "
            f"{images.n_labeled - left} that are trained on with their label; "
            f"give a count from 1 to {left}"
            if left
            else f"validation on {n} images is not possible: all {images.n_labeled} labels are "
            "trained on; ask for fewer labels (--labels N)"
        )
    counts = np.array([len(rows) for rows in groups.values()])
    return _first(groups, _in_proportion(counts, n), "validation", seed)


def hide_labels(images: Images, keep: ArrayLike) -> Images:
    """Return the same images with every label hidden but those of the rows in `keep`."""
    rows = _rows(keep)
    y = np.full_like(images.y, UNLABELED)
    y[rows] = images.y[rows]
    return replace(images, y=y)


def check_fraction(fraction: float, what: str) -> None:
    """Raise an `InputError` that begins with `what` unless the fraction is in (0, 1)."""
    if not 0 < fraction < 1:
        raise InputError(f"{what} of {fraction:g} is not possible: give a number between 0 and 1")


def _rows(rows: ArrayLike) -> NDArray[np.int64]:
    rows = np.asarray(rows)
    assert rows.dtype != np.bool, "numbers of rows are needed, not a mask"
    return rows.astype(np.int64, copy=False)


def _by_class(y: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Return the rows of each class that has any; unlabeled rows are left out."""
    return {int(place): np.flatnonzero(y == place) for place in np.unique(y[y != UNLABELED])}


def _in_proportion(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Share n out in proportion to the counts; what is left over goes to the largest remainders."""
    # In whole numbers, so that no rounding decides who gets the last one.
    quotas, remainders = np.divmod(counts * n, counts.sum())
    quotas[np.argsort(-remainders, kind="stable")[: n - quotas.sum()]] += 1
    return quotas


def _first(
    groups: dict[int, NDArray[np.int64]], quotas: Sequence[int] | NDArray, what: str, seed: int
) -> NDArray[np.int64]:
    """Shuffle each group by (what, seed, class) and return the first rows of each, sorted."""
    drawn = [
        np.random.default_rng(key(what, seed, place)).permutation(rows)[:quota]
        for (place, rows), quota in zip(groups.items(), quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
