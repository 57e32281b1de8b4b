"""Where images come from: a table of contents of the named sets, and one door for all sources."""

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import DataSet, Images, check_fraction, split_test
from whatwhere.data.sources import folder, npz
from whatwhere.data.sources.cifar10 import CIFAR10
from whatwhere.data.sources.digits import DIGITS
from whatwhere.data.sources.folder import Reading
from whatwhere.data.sources.idx import FASHION_MNIST, MNIST
from whatwhere.data.sources.named import NamedSet, data_folder
from whatwhere.data.sources.silhouettes import SILHOUETTES
from whatwhere.data.sources.stl10 import STL10

__all__ = ["NAMES", "NamedSet", "Reading", "Split", "data_folder", "load"]

NAMES: dict[str, NamedSet] = {
    source.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR10, STL10, SILHOUETTES)
}
"""The sets that are known by a name."""

Split = Literal["train", "test", "all"]

DIGITS_TEST_FRACTION = 1 / 3
"""Of `digits`, which has no test part of its own: 599 images, drawn with seed 0."""

CLOSE = 0.5
"""How alike a wrong name must be to a known one to be taken for a slip (0 to 1)."""


def load(
    data: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    test_fraction: float | None = None,
    split: Split = "train",
    reading: Reading | None = None,
) -> DataSet:
    """Return the images of a named set, of a folder or of an `.npz`.

    Parameters
    ----------
    data : str or path
        A name of `NAMES`, or the path of an `.npz` (a path wins where it has a slash).
    data_dir : path, optional
        The folder of the named sets; see `data_folder`.
    test_fraction : float in (0, 1), optional
        Cuts a test part off a set that has none, each class in proportion, with seed 0. `digits`
        has a third cut off where nothing is said.
    split : {"train", "test", "all"}
        "train" returns the set as it is, in its training and its test part. "test" returns the test
        part alone, and "all" both together, training part first (a set without a test part of its
        own in its own order); both are then called `train`, and `test` is None.
    reading : Reading, optional
        How files of images are read. The size holds for named sets and an `.npz` too; there the
        rest of it has nothing to change.

    Returns
    -------
    DataSet

    Raises
    ------
    InputError
        If the data is unknown, missing or damaged, if it cannot be read in this way, or if there is
        no such part.
    """
    if split not in ("train", "test", "all"):
        raise InputError(f"there is no split {split}: give train, test or all")
    if test_fraction is not None:
        check_fraction(test_fraction, "a test fraction")
    name = os.fspath(data)
    try:
        whole = _read(name, data_dir, reading or Reading())
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise InputError(f"{name} cannot be read: {error.strerror} ({error.filename})") from error
    if whole.test is not None and test_fraction is not None:
        raise InputError(
            f"{name} has {len(whole.test):,} test images of its own, so a test fraction of "
            f"{test_fraction:g} cannot be cut off: leave --test-fraction out"
        )
    if split == "all":
        joined = whole.train if whole.test is None else _join(whole.train, whole.test)
        return replace(whole, train=joined, test=None)
    if whole.test is None and test_fraction is None and name == DIGITS.name:
        test_fraction = DIGITS_TEST_FRACTION
    if whole.test is None and test_fraction is not None:
        train, test = split_test(whole.train, test_fraction)
        whole = replace(whole, train=train, test=test)
    if split == "train":
        return whole
    if whole.test is None:
        raise InputError(
            f"{name} has no test part: cut one off with --test-fraction F, or save one with the "
            "data (x_test in an .npz, test/ beside train/ in a folder)"
        )
    return replace(whole, train=whole.test, test=None)


def _read(name: str, data_dir: str | os.PathLike[str] | None, reading: Reading) -> DataSet:
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name}: there is no such user; write the path out") from error
    is_named = name in NAMES
    is_npz = not is_named and path.suffix.lower() == ".npz"
    if is_named or is_npz:
        if reading.labels is not None:
            raise InputError(
                f"{name} has labels of its own: labels from a CSV go with a folder of images "
                "(an .npz holds its own y)"
            )
        data = NAMES[name].read(data_folder(data_dir)) if is_named else npz.read(path)
        return _resized(data, reading)
    if path.is_dir():
        return folder.read(path, reading)
    forms = f"give a named set ({', '.join(NAMES)}), a folder of images, or the path of an .npz"
    if path.is_file():
        raise InputError(f"{name} is a file, but no .npz: {forms}")
    near = get_close_matches(name.lower().replace("-", "_"), NAMES, n=1, cutoff=CLOSE)
    slip = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"no data is called {name}{slip}: {forms}")


def _resized(data: DataSet, reading: Reading) -> DataSet:
    if reading.image_size is None:
        return data
    from whatwhere.data.sources.fitting import fit_images

    size, fit = reading.image_size, reading.fit
    parts = [
        part and replace(part, x=fit_images(part.x, size, fit)) for part in (data.train, data.test)
    ]
    return replace(data, train=parts[0], test=parts[1])


def _join(first: Images, second: Images) -> Images:
    names = None
    if first.names is not None and second.names is not None:
        names = first.names + second.names
    return Images(
        np.concatenate([first.x, second.x]),
        np.concatenate([first.y, second.y]),
        first.classes,
        names,
    )
