"""MNIST and Fashion-MNIST from their original files, gzipped or not.

An IDX file is a header and the values as bytes. The header is big-endian, four bytes a number: the
magic 0x0800 + number of dimensions (0x08 says unsigned bytes), then each dimension.

References
----------
LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. Proceedings
of the IEEE 86(11), 1998.
Xiao, Rasul, Vollgraf. Fashion-MNIST. 2017. arXiv:1708.07747.
"""

import gzip
import io
import zlib
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources.named import Download, NamedSet, missing

UNSIGNED_BYTES = 0x0800
N_CLASSES = 10


def read_idx(path: Path, n_dimensions: int) -> np.ndarray:
    """Return the values of an IDX file of unsigned bytes, in the shape its header gives.

    Raises
    ------
    InputError
        If the file is cut short, damaged, too long, or of another kind.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _values(file, path, n_dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is cut short or damaged ({type(error).__name__}): fetch it again"
        ) from error


def _values(file: BinaryIO | gzip.GzipFile, path: Path, n_dimensions: int) -> np.ndarray:
    expected = (UNSIGNED_BYTES + n_dimensions).to_bytes(4, "big")
    magic, sizes = file.read(4), file.read(4 * n_dimensions)
    if magic != expected:
        raise InputError(
            f"{path} is no IDX file of unsigned bytes in {n_dimensions} dimensions: it begins with "
            f"{magic.hex() or 'nothing'} instead of {expected.hex()}; fetch the original file again"
        )
    if len(sizes) < 4 * n_dimensions:
        raise EOFError
    shape = tuple(map(int, np.frombuffer(sizes, ">u4")))
    # Read in pieces into memory that grows with the file, so that a false header costs nothing.
    content = io.BytesIO()
    while len(piece := file.read(1 << 20)):
        content.write(piece)
    n_bytes = content.tell()
    if n_bytes != prod(shape) or n_bytes == 0:
        raise InputError(
            f"{path} is cut short or damaged: its header promises {prod(shape):,} values "
            f"({' x '.join(map(str, shape))}), and it holds {n_bytes:,}; fetch it again"
        )
    # A writable view: torch refuses to share memory that is not.
    return np.frombuffer(content.getbuffer(), np.uint8).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    """Return the file, unpacked or not; some tools unpack `-idx3-` as `.idx3-`."""
    for name in (stem, f"{stem}.gz", stem.replace("-idx", ".idx")):
        if (folder / name).is_file():
            return folder / name
    return None


def _part(name: str, data_dir: Path, part: str, classes: tuple[int | str, ...]) -> Images:
    folder = data_dir / name
    paths = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        path = _find(folder, stem)
        if path is None:
            raise missing(name, f"file {stem} or {stem}.gz", folder, data_dir)
        paths.append(path)
    x, y = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(x) != len(y):
        raise InputError(
            f"{paths[0]} holds {len(x):,} images, but {paths[1].name} {len(y):,} labels: "
            "fetch both again"
        )
    if y.max() >= len(classes):
        raise InputError(
            f"{paths[1]} holds the label {y.max()}, but {name} has the classes 0 to "
            f"{len(classes) - 1}: fetch the original file again"
        )
    return Images(x[:, np.newaxis], y.astype(np.int64), classes)


def read(name: str, classes: tuple[int | str, ...], data_dir: Path) -> DataSet:
    """Return the set `name` from its four files in the folder of that name.

    Raises
    ------
    InputError
        If a file is missing or damaged, or if the files do not fit together.
    """
    folder = data_dir / name
    train, test = (_part(name, data_dir, part, classes) for part in ("train", "t10k"))
    if train.shape != test.shape:
        raise InputError(
            f"{folder}: the training images have {train.shape[1]} x {train.shape[2]} pixels, "
            f"the test images {test.shape[1]} x {test.shape[2]}: fetch the original files again"
        )
    return DataSet(name, train, test)


def _present(name: str, data_dir: Path) -> bool:
    return _find(data_dir / name, "train-images-idx3-ubyte") is not None


def _downloads(mirrors: tuple[str, ...], facts: dict[str, tuple[int, str]]) -> tuple[Download, ...]:
    return tuple(
        Download(f"{stem}.gz", *fact, tuple(f"{mirror}/{stem}.gz" for mirror in mirrors))
        for stem, fact in facts.items()
    )


def _named(
    name: str,
    classes: tuple[int | str, ...],
    licence: str,
    origin: str,
    downloads: tuple[Download, ...],
) -> NamedSet:
    return NamedSet(
        name=name,
        read=partial(read, name, classes),
        present=partial(_present, name),
        n_train=60_000,
        n_test=10_000,
        shape=(1, 28, 28),
        classes=classes,
        licence=licence,
        origin=origin,
        files=f"{name}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte[.gz]",
        downloads=downloads,
    )


MNIST = _named(
    "mnist",
    tuple(range(N_CLASSES)),
    "CC BY-SA 3.0",
    "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
    # The first publisher's own site has refused downloads for years.
    _downloads(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        {
            "train-images-idx3-ubyte": (
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1-ubyte": (
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3-ubyte": (
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1-ubyte": (
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        },
    ),
)
FASHION_MNIST = _named(
    "fashion_mnist",
    (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "MIT",
    "Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747, 2017",
    _downloads(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            # A website of this kind is served without TLS; the hashes decide.
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ),
        {
            "train-images-idx3-ubyte": (
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1-ubyte": (
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3-ubyte": (
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1-ubyte": (
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        },
    ),
)
