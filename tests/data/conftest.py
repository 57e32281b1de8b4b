import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whatwhere.data.images import Images


@pytest.fixture
def images() -> Images:
    """60 images of 4 classes, 15 each, in turn; each image is told by its first two pixels."""
    return make_images(np.arange(60) % 4)


@pytest.fixture
def few_labels() -> Images:
    """60 images, of which 30 have no label."""
    return make_images(np.where(np.arange(60) % 2, np.arange(60) % 3, -1))


@pytest.fixture
def labeled_as() -> Callable[[list[int] | np.ndarray], Images]:
    return make_images


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    return idx_file


@pytest.fixture
def tiny_mnist(tmp_path: Path) -> Path:
    """A data folder with mnist/ in the original format: 20 + 10 images."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 10)):
        x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        idx_file(tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz", x)
        y = np.arange(n, dtype=np.uint8) % 10
        idx_file(tmp_path / "mnist" / f"{part}-labels-idx1-ubyte.gz", y)
    return tmp_path


def make_images(y: list[int] | np.ndarray) -> Images:
    y = np.asarray(y, dtype=np.int64)
    x = np.zeros((len(y), 1, 2, 3), np.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = np.arange(len(y)) // 256, np.arange(len(y)) % 256
    return Images(x, y, tuple(f"class {place}" for place in range(int(y.max(initial=-1)) + 1)))


def idx_file(path: Path, array: np.ndarray) -> None:
    header = np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes()
    content = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
