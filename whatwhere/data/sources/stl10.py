"""STL-10, from the original binary files: few labeled images, and many without a label.

`stl10_binary.tar.gz`, unpacked: `train_X.bin`, `test_X.bin` and `unlabeled_X.bin` hold 96 x 96
bytes each of red, green and blue an image, column by column; `train_y.bin` and `test_y.bin` hold a
byte of label an image, 1 to 10. `fold_indices.txt`, the ten published draws of 1,000 labels, is not
read.

The training part is the 5,000 labeled images followed by the 100,000 unlabeled ones. Without
`unlabeled_X.bin` the set is refused: what is called `stl10` has the same images everywhere.

References
----------
Coates, Lee, Ng. An analysis of single-layer networks in unsupervised feature learning.
AISTATS 2011.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources.named import NamedSet, missing

NAME = "stl10"
CLASSES = (
    "airplane",
    "bird",
    "car",
    "cat",
    "deer",
    "dog",
    "horse",
    "monkey",
    "ship",
    "truck",
)
SHAPE = (3, 96, 96)
IMAGE = 3 * 96 * 96
ARCHIVE = "stl10_binary.tar.gz"
UNPACKED = "stl10_binary"
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin")
PAGE = "https://cs.stanford.edu/~acoates/stl10/"
AGAIN = f"unpack {ARCHIVE} again, or fetch it again from {PAGE}"


def read(data_dir: Path) -> DataSet:
    """Return STL-10; it takes 3.1 GB of memory, as much as its pixels.

    Parameters
    ----------
    data_dir : path
        The files are looked for in its `stl10/`, `stl10/stl10_binary/` and `stl10_binary/`.

    Returns
    -------
    DataSet
        The unlabeled images are the last of the training part.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    folder = _folder(data_dir)
    for name in FILES:
        if not (folder / name).is_file():
            raise missing(NAME, f"{name} (of {ARCHIVE}, unpacked)", folder, data_dir, PAGE)
    return DataSet(
        NAME,
        _part(folder, ("train_X.bin", "unlabeled_X.bin"), "train_y.bin"),
        _part(folder, ("test_X.bin",), "test_y.bin"),
    )


def _folders(data_dir: Path) -> tuple[Path, ...]:
    return data_dir / NAME, data_dir / NAME / UNPACKED, data_dir / UNPACKED


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _folder(data_dir: Path) -> Path:
    """Return the first folder with all files, else with any, else where they should be."""
    folders = _folders(data_dir)
    some = [folder for folder in folders if any((folder / name).is_file() for name in FILES)]
    return next(filter(_is_whole, folders), (*some, folders[0])[0])


def _part(folder: Path, names: tuple[str, ...], labels: str) -> Images:
    """Join files of images, of which the first has labels."""
    parts = [_pixels(folder / name) for name in names]
    known = _labels(folder / labels)
    if len(known) != len(parts[0]):
        raise InputError(
            f"{folder / labels} has {len(known):,} labels, but {names[0]} has {len(parts[0]):,} "
            f"images: {AGAIN}"
        )
    n = sum(map(len, parts))
    x = np.empty((n, *SHAPE), np.uint8)
    np.concatenate(parts, out=x)  # the only copy; without `out` it would keep columns before rows
    y = np.full(n, UNLABELED, np.int64)
    y[: len(known)] = known
    return Images(x, y, CLASSES)


def _pixels(path: Path) -> NDArray[np.uint8]:
    """Return a view (n, 3, 96, 96) of a file, of which nothing is read yet."""
    n_bytes = path.stat().st_size
    if not n_bytes or n_bytes % IMAGE:
        raise InputError(
            f"{path} is cut short or damaged: {n_bytes:,} bytes are no whole number of images of "
            f"{IMAGE:,}; {AGAIN}"
        )
    # Columns come before rows in the file.
    return np.memmap(path, np.uint8, "r").reshape(-1, *SHAPE).swapaxes(2, 3)


def _labels(path: Path) -> NDArray[np.int64]:
    """Return labels from 0, of a file that counts from 1."""
    y = np.fromfile(path, np.uint8).astype(np.int64) - 1
    if np.any((y < 0) | (y >= len(CLASSES))):
        raise InputError(f"{path} holds labels that are not from 1 to {len(CLASSES)}: {AGAIN}")
    return y


STL10 = NamedSet(
    name=NAME,
    read=read,
    present=lambda data_dir: any(map(_is_whole, _folders(data_dir))),
    n_train=105_000,
    n_test=8_000,
    shape=SHAPE,
    classes=CLASSES,
    licence="none stated; research use",
    origin="Coates, Lee, Ng: An analysis of single-layer networks, AISTATS 2011",
    files=f"{NAME}/{{train,test}}_{{X,y}}.bin and {NAME}/unlabeled_X.bin (of {ARCHIVE}, unpacked)",
    page=PAGE,
)
