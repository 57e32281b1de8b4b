"""Arrays of the user's own, from an `.npz`.

- `x_train`, `y_train`, `x_test`, `y_test`: the convention of Keras; all but `x_train` optional.
- `x` or `images`, and `y` or `labels`: a set without a test part; labels optional.

Images are (n, H, W), or (n, H, W, C) with the channels last. Whole numbers are in 0 to 255, floats
in [0, 1], and booleans are black and white. Labels are whole numbers or strings, (n,) or Keras's
(n, 1); -1 and the empty string are unlabeled. The classes are the labels of both parts, sorted.

Nothing that unpickles is ever read. Other arrays in the file are left alone.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import DataSet, Images

KEYS = "x_train [y_train, x_test, y_test], or x or images [y or labels]"
MOST_KEYS = 12
"""How many names of arrays an error tells."""


def read(path: Path) -> DataSet:
    """Return the images of an `.npz`; the test part is None where there is no `x_test`.

    Rows of the test part without a label stay in it, so that row i of a prediction is row i of
    `x_test`; whoever measures errors leaves them out.

    Raises
    ------
    InputError
        If the file cannot be read, or if what it holds is not as the head of this file says.
    """
    with _open(path) as archive:
        keys = archive.files
        x_key, y_key = _keys(path, keys)
        x = _images(_array(path, archive, x_key), f"{x_key} of {path}")
        y = _labels(path, archive, y_key, len(x), x_key)
        if "x_test" not in keys:
            classes, codes = _classes(path, y)
            return DataSet(str(path), Images(x, codes[0], classes), None)
        x_test = _images(_array(path, archive, "x_test"), f"x_test of {path}")
        y_test = _labels(path, archive, "y_test", len(x_test), "x_test")
    if (x_test.shape[1:], x_test.dtype) != (x.shape[1:], x.dtype):
        raise InputError(
            f"{path} has training images of {_kind(x)}, test images of {_kind(x_test)}: "
            "save both alike"
        )
    classes, codes = _classes(path, y, y_test)
    return DataSet(str(path), Images(x, codes[0], classes), Images(x_test, codes[1], classes))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an `.npz`, without unpickling.

    Raises
    ------
    InputError
        If the file cannot be read, or holds anything but arrays.
    """
    with _open(path) as archive:
        return {name: _array(path, archive, name) for name in archive.files}


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    if not path.is_file():
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}: check the path"
        )
    # The file is ours to close: numpy leaves it open where the archive is damaged.
    with path.open("rb") as file:
        try:
            # numpy reads by content: a lone array or a pickle may also be called .npz.
            archive = np.load(file, allow_pickle=False) if zipfile.is_zipfile(path) else None
        except Exception as error:
            raise _damaged(path, error) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(
                f"{path} is cut short or no .npz: "
                "write it with numpy.savez_compressed(FILE, x=images)"
            )
        with archive:
            yield archive


def _array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except Exception as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{key} of {path} holds Python objects, which are pickles and never read: "
                "save an array of numbers or strings (array.astype(str))"
            ) from error
        # A damaged file can fail anywhere in zipfile, zlib, lzma and numpy, each in its own way.
        raise _damaged(path, error) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{key} of {path} is no array: write it with numpy.savez_compressed")
    return array


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is cut short or damaged ({type(error).__name__}): write or fetch it again"
    )


def _keys(path: Path, keys: list[str]) -> tuple[str, str]:
    """Return the keys of the training images and of their labels, which may be absent."""
    names = [ascii(key) for key in sorted(keys)[:MOST_KEYS]] + ["..."] * (len(keys) > MOST_KEYS)
    held = f"it holds {', '.join(names) or 'nothing'}"
    if "y_test" in keys and "x_test" not in keys:
        raise InputError(f"{path} has y_test but no x_test: {held}; expected is {KEYS}")
    if "x_train" in keys:
        return "x_train", "y_train"
    found = [key for key in ("x", "images") if key in keys]
    if len(found) != 1 or "x_test" in keys:
        reason = "x_test but no x_train" if "x_test" in keys else "both x and images"
        raise InputError(
            f"{path} has {reason if found or 'x_test' in keys else 'no images'}: {held}; "
            f"expected is {KEYS}"
        )
    if "y" in keys and "labels" in keys:
        raise InputError(f"{path} has both y and labels: {held}; expected is {KEYS}")
    return found[0], "y" if "y" in keys else "labels"


def _images(x: np.ndarray, what: str) -> np.ndarray:
    """Return images (n, C, H, W), uint8 or float32 in [0, 1]."""
    if x.ndim not in (3, 4):
        raise InputError(
            f"{what} has the shape {x.shape}: images are (n, H, W) or (n, H, W, C), "
            "so reshape rows to their height and width"
        )
    if x.size == 0:
        raise InputError(f"{what} has the shape {x.shape}: there is no pixel in it")
    if x.ndim == 3:
        x = x[:, np.newaxis]  # (n, 1, H, W)
    elif x.shape[1] <= 4 < x.shape[3]:
        raise InputError(
            f"{what} has the shape {x.shape}, which looks like channels first: "
            "save (n, H, W, C), with x.transpose(0, 2, 3, 1)"
        )
    else:
        x = x.transpose(0, 3, 1, 2)  # (n, C, H, W)
    return np.ascontiguousarray(_pixels(x, what))


def _pixels(x: np.ndarray, what: str) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "b":
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype.kind not in "iuf":
        raise InputError(
            f"{what} is an array of {x.dtype}: pixels are uint8, or floats between 0 and 1"
        )
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"{what} holds values that are not finite (NaN or infinite): fill or leave out "
            "these images"
        )
    if x.dtype.kind == "f":
        if low < 0 or high > 1:
            cure = (
                "divide by 255, or save them as uint8"
                if low >= 0 and high <= 255
                else "scale them, with (x - x.min()) / (x.max() - x.min())"
            )
            raise InputError(
                f"{what} holds floats from {low:g} to {high:g}, but they are read as 0 to 1: {cure}"
            )
        return x.astype(np.float32, copy=False)
    if low < 0 or high > 255:
        raise InputError(
            f"{what} holds whole numbers from {low} to {high}, but they are read as 0 to 255: "
            "scale them to floats between 0 and 1"
        )
    return x.astype(np.uint8)


def _labels(path: Path, archive: np.lib.npyio.NpzFile, key: str, n: int, x_key: str) -> np.ndarray:
    """Return labels (n,), int64 or strings; all unlabeled where the key is absent."""
    if key not in archive.files:
        return np.full(n, UNLABELED)
    y, what = _array(path, archive, key), f"{key} of {path}"
    if y.ndim == 2 and y.shape[1] > 1 and len(y) == n:
        raise InputError(
            f"{what} has the shape {y.shape}: labels are (n,), so save y.argmax(axis=1) if these "
            "are one column a class"
        )
    if y.shape not in ((n,), (n, 1)):
        raise InputError(
            f"{what} has the shape {y.shape}, but {x_key} has {n:,} images: labels are ({n},)"
        )
    y = y.reshape(n)
    if y.dtype.kind in "biu":
        low, high = int(y.min()), int(y.max())
        if low < UNLABELED or high > np.iinfo(np.int64).max:
            raise InputError(
                f"{what} holds the label {low if low < UNLABELED else high}: labels are 0 or more, "
                "and -1 means unlabeled"
            )
        return y.astype(np.int64)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "U":
        return y
    raise InputError(
        f"{what} is an array of {y.dtype}: labels are whole numbers or strings, "
        "so save y.astype(int) or y.astype(str)"
    )


def _classes(
    path: Path, *parts: np.ndarray
) -> tuple[tuple[int | str, ...], list[NDArray[np.int64]]]:
    """Return the classes, sorted, and the place among them of each label."""
    known = [
        ~np.isin(part, ["", str(UNLABELED)]) if part.dtype.kind == "U" else part != UNLABELED
        for part in parts
    ]
    labels = [part[is_known] for part, is_known in zip(parts, known, strict=True)]
    labels = [part for part in labels if len(part)]
    if len({part.dtype.kind for part in labels}) > 1:
        raise InputError(
            f"{path} has numbers in one of y_train and y_test and strings in the other: "
            "save both alike"
        )
    classes = np.unique(np.concatenate(labels)) if labels else np.empty(0, np.int64)
    codes = []
    for part, is_known in zip(parts, known, strict=True):
        code = np.full(len(part), UNLABELED)
        code[is_known] = np.searchsorted(classes, part[is_known])
        codes.append(code)
    return tuple(classes.tolist()), codes


def _kind(x: np.ndarray) -> str:
    _, c, h, w = x.shape
    return f"{h} x {w} pixels, {c} channel{'' if c == 1 else 's'}, {x.dtype}"
