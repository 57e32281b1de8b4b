"""CIFAR-10, from the original binary files or from lossless WebP sheets.

Binary: `cifar-10-binary.tar.gz`, or unpacked `data_batch_1.bin` to `data_batch_5.bin` and
`test_batch.bin`; a record is a byte of label, then 32 x 32 bytes each of red, green and blue.

Sheets: `train_00.webp`, ..., `test_00.webp`, ... and `labels.npz` with `train_labels` and
`test_labels`; a sheet is 800 x 1280 pixels, 25 rows of 40 images, and sheet k holds the images
1000 k to 1000 k + 999.

The original archive for Python is a pickle, which can run any code when it is opened: refused.

References
----------
Krizhevsky. Learning multiple layers of features from tiny images. University of Toronto, 2009.
"""

import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whatwhere.core import InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources.named import Download, NamedSet, download_command, missing
from whatwhere.data.sources.npz import read_arrays

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
ARCHIVE = "cifar-10-binary.tar.gz"
UNPACKED = "cifar-10-batches-bin"
TRAIN_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_BATCH = "test_batch.bin"
PICKLES = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1")
SHEET_ROWS, SHEET_COLUMNS = 25, 40
SHEET = SHEET_ROWS * SHEET_COLUMNS


def read(data_dir: Path) -> DataSet:
    """Return CIFAR-10 from the first form that is there whole: unpacked, archive, sheets.

    Raises
    ------
    InputError
        If there is none, only the pickled one, or if a file is missing or damaged.
    """
    reader = _reader(data_dir)
    if reader is not None:
        return reader()
    for folder in _folders(data_dir):
        for name in PICKLES:
            if (folder / name).exists():
                raise InputError(
                    f"cifar10: {folder / name} is a pickle, which can run any code when opened; "
                    f"fetch the binary version, {ARCHIVE} (same site, same images): "
                    f"{download_command('cifar10', data_dir)}"
                )
    raise missing(
        "cifar10",
        f"{ARCHIVE}, {TRAIN_BATCHES[0]} or train_00.webp with labels.npz",
        data_dir / "cifar10",
        data_dir,
    )


def _folders(data_dir: Path) -> tuple[Path, ...]:
    cifar10 = data_dir / "cifar10"
    return cifar10, cifar10 / UNPACKED, data_dir / UNPACKED, data_dir


def _reader(data_dir: Path) -> Callable[[], DataSet] | None:
    """Return what reads the form that is in the data folder."""
    folders = _folders(data_dir)
    for folder in folders:
        if all((folder / name).is_file() for name in (*TRAIN_BATCHES, TEST_BATCH)):
            return lambda: _read_unpacked(folder, data_dir)
    for folder in folders:
        if (folder / ARCHIVE).is_file():
            return lambda: _read_archive(folder / ARCHIVE)
    for folder in folders:
        if (folder / "labels.npz").is_file() and (folder / "train_00.webp").is_file():
            return lambda: _read_sheets(folder, data_dir)
    for folder in folders:  # a part of the batches, whose reader says which are missing
        if any((folder / name).is_file() for name in (*TRAIN_BATCHES, TEST_BATCH)):
            return lambda: _read_unpacked(folder, data_dir)
    return None


def _read_unpacked(folder: Path, data_dir: Path) -> DataSet:
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        if not (folder / name).is_file():
            raise missing("cifar10", f"file {name}", folder, data_dir)
    return _from_batches(folder, lambda name: (folder / name).read_bytes())


def _read_archive(path: Path) -> DataSet:
    try:
        batches = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                file = archive.extractfile(member) if name.endswith(".bin") else None
                if file is not None:
                    batches[name] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"{path} is cut short or damaged ({type(error).__name__}): fetch it again"
        ) from error
    if absent := {*TRAIN_BATCHES, TEST_BATCH} - batches.keys():
        raise InputError(f"{path} holds no {min(absent)}: put the original {ARCHIVE} in its place")
    return _from_batches(path, batches.__getitem__)


def _from_batches(where: Path, content: Callable[[str], bytes]) -> DataSet:
    train, test = (
        _records([(where / name, content(name)) for name in names])
        for names in (TRAIN_BATCHES, (TEST_BATCH,))
    )
    return DataSet("cifar10", train, test)


def _records(batches: list[tuple[Path, bytes]]) -> Images:
    for path, content in batches:
        if not content or len(content) % RECORD:
            raise InputError(
                f"{path} is cut short or damaged: {len(content):,} bytes are no whole number of "
                f"records of {RECORD:,}; fetch it again"
            )
    records = np.concatenate(
        [np.frombuffer(content, np.uint8).reshape(-1, RECORD) for _, content in batches]
    )
    y = _labels(records[:, 0], batches[0][0].parent)
    return Images(np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE), y, CLASSES)


def _labels(y: np.ndarray, where: Path) -> NDArray[np.int64]:
    if y.ndim != 1 or y.dtype.kind not in "iu" or y.min(initial=0) < 0 or y.max(initial=0) > 9:
        raise InputError(
            f"cifar10: the labels in {where} are not whole numbers from 0 to 9: fetch it again"
        )
    return y.astype(np.int64)


def _read_sheets(folder: Path, data_dir: Path) -> DataSet:
    path = folder / "labels.npz"
    arrays = read_arrays(path)
    parts = []
    for part in ("train", "test"):
        if f"{part}_labels" not in arrays:
            raise InputError(
                f"{path} has no {part}_labels, only {', '.join(sorted(arrays)) or 'nothing'}: "
                "put the labels of the sheets in its place"
            )
        y = _labels(arrays[f"{part}_labels"], path)
        if len(y) == 0 or len(y) % SHEET:
            raise InputError(
                f"{path} has {len(y):,} {part}_labels, no whole number of sheets of {SHEET:,} "
                "images: put the labels of the sheets in its place"
            )
        x = np.empty((len(y), *SHAPE), np.uint8)
        for number in range(len(y) // SHEET):
            sheet = folder / f"{part}_{number:02d}.webp"
            if not sheet.is_file():
                raise missing("cifar10", f"file {sheet.name}", folder, data_dir)
            _read_sheet(sheet, x[SHEET * number :][:SHEET])
        parts.append(Images(x, y, CLASSES))
    return DataSet("cifar10", parts[0], parts[1])


def _read_sheet(path: Path, out: np.ndarray) -> None:
    """Decode a sheet into `out` (1000, 3, 32, 32)."""
    from PIL import Image

    try:
        with Image.open(path, formats=["WEBP"]) as image:
            size = image.size
            sheet = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} is cut short or damaged ({type(error).__name__}): fetch it again"
        ) from error
    if size != (32 * SHEET_COLUMNS, 32 * SHEET_ROWS):
        raise InputError(
            f"{path} has {size[0]} x {size[1]} pixels; a sheet of {SHEET:,} images has "
            f"{32 * SHEET_COLUMNS} x {32 * SHEET_ROWS}"
        )
    images = sheet.reshape(SHEET_ROWS, 32, SHEET_COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3)
    out.reshape(SHEET_ROWS, SHEET_COLUMNS, *SHAPE)[...] = images


CIFAR10 = NamedSet(
    name="cifar10",
    read=read,
    present=lambda data_dir: _reader(data_dir) is not None,
    n_train=50_000,
    n_test=10_000,
    shape=SHAPE,
    classes=CLASSES,
    licence="none stated; research use",
    origin="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
    files=f"cifar10/{ARCHIVE}, or its *.bin, or cifar10/{{train,test}}_*.webp with labels.npz",
    downloads=(
        Download(
            ARCHIVE,
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            (
                f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
                f"https://cave.cs.toronto.edu/kriz/{ARCHIVE}",
            ),
        ),
    ),
)
