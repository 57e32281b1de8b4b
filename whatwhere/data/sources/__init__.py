"""Where images come from: a table of contents of the named sets, and one door for all sources."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import DataSet, Images, check_fraction, split_test
from whatwhere.data.sources import npz
from whatwhere.data.sources.cifar10 import CIFAR10
from whatwhere.data.sources.digits import DIGITS
from whatwhere.data.sources.idx import FASHION_MNIST, MNIST
from whatwhere.data.sources.named import NamedSet, data_folder

__all__ = ["NAMES", "NamedSet", "Split", "data_folder", "load"]

NAMES: dict[str, NamedSet] = {
    source.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR10)
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
) -> DataSet:
    """Return the images of a named set or of an `.npz`.

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

    Returns
    -------
    DataSet

    Raises
    ------
    InputError
        If the data is unknown, missing or damaged, or if there is no such part.
    """
    if split not in ("train", "test", "all"):
        raise InputError(f"there is no split {split}: give train, test or all")
    if test_fraction is not None:
        check_fraction(test_fraction, "a test fraction")
    name = os.fspath(data)
    try:
        whole = _read(name, data_dir)
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise InputError(f"{name} cannot be read: {error.strerror} ({error.filename})") from error
    if whole.test is not None and test_fraction is not None:
        raise InputError(
            f"{name} has {len(whole.test):,} test images of its own, so a test fraction of "
            f"{test_fraction:g} cannot be cut off: leave --test-fraction out"
        )
    if split == "all":
        joined = whole.train if whole.test is None else _join(whole.train, whole.test)
        return DataSet(whole.name, joined, None)
    if whole.test is None and test_fraction is None and name == DIGITS.name:
        test_fraction = DIGITS_TEST_FRACTION
    if whole.test is None and test_fraction is not None:
        whole = DataSet(whole.name, *split_test(whole.train, test_fraction))
    if split == "train":
        return whole
    if whole.test is None:
        raise InputError(
            f"{name} has no test part: cut one off with --test-fraction F, or save x_test with it"
        )
    return DataSet(whole.name, whole.test, None)


def _read(name: str, data_dir: str | os.PathLike[str] | None) -> DataSet:
    if name in NAMES:
        return NAMES[name].read(data_folder(data_dir))
    path = Path(name).expanduser()
    if path.suffix.lower() == ".npz":
        return npz.read(path)
    if path.is_dir():
        raise InputError(
            f"{name} is a folder, and folders of images are read from the next version on: "
            "save the images as an .npz today (numpy.savez_compressed(FILE, x=images, y=labels))"
        )
    forms = f"give a named set ({', '.join(NAMES)}) or the path of an .npz"
    if path.is_file():
        raise InputError(f"{name} is a file, but no .npz: {forms}")
    near = get_close_matches(name.lower().replace("-", "_"), NAMES, n=1, cutoff=CLOSE)
    slip = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"no data is called {name}{slip}: {forms}")


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
