import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.sources import load
from whatwhere.data.sources.stl10 import FILES, PAGE, STL10

LABELED, UNKNOWN, TESTED = 3, 4, 2
IMAGE = 27_648


def pictures(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 96, 96), dtype=np.uint8)


def column_by_column(images: np.ndarray) -> bytes:
    """Lay images out as published, one column of one color after the other."""
    return b"".join(
        image[color, :, column].tobytes()
        for image in images
        for color in range(3)
        for column in range(96)
    )


def put(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "train_X.bin").write_bytes(column_by_column(pictures(0, LABELED)))
    (folder / "train_y.bin").write_bytes(bytes([10, 1, 4]))
    (folder / "unlabeled_X.bin").write_bytes(column_by_column(pictures(1, UNKNOWN)))
    (folder / "test_X.bin").write_bytes(column_by_column(pictures(2, TESTED)))
    (folder / "test_y.bin").write_bytes(bytes([2, 10]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "stl10")
    return tmp_path / "stl10"


def refused(data_dir: Path) -> str:
    with pytest.raises(InputError) as error:
        load("stl10", data_dir=data_dir)
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("place", ["stl10", "stl10/stl10_binary", "stl10_binary"])
def test_labeled_images_are_followed_by_unlabeled_ones(tmp_path, place):
    put(tmp_path / place)
    assert STL10.present(tmp_path)
    stl10 = load("stl10", data_dir=tmp_path)
    assert stl10.test is not None
    expected = np.concatenate([pictures(0, LABELED), pictures(1, UNKNOWN)])
    np.testing.assert_array_equal(stl10.train.x, expected, strict=True)
    np.testing.assert_array_equal(stl10.test.x, pictures(2, TESTED), strict=True)
    assert stl10.train.y.tolist() == [9, 0, 3, *[UNLABELED] * UNKNOWN]
    assert stl10.test.y.tolist() == [1, 9]
    assert stl10.train.n_labeled == LABELED
    names = [stl10.train.classes[label] for label in (*stl10.train.y[:3], *stl10.test.y)]
    assert names == ["truck", "airplane", "cat", "bird", "truck"]


def test_a_byte_is_at_the_place_that_the_format_gives_it(folder):
    content = (folder / "unlabeled_X.bin").read_bytes()
    x = load("stl10", data_dir=folder.parent).train.x
    for image, color, row, column in ((0, 0, 1, 0), (1, 2, 0, 95), (3, 1, 37, 61)):
        offset = image * IMAGE + color * 96 * 96 + column * 96 + row
        assert x[LABELED + image, color, row, column] == content[offset]


def test_images_are_arrays_of_their_own_in_rows(folder):
    x = load("stl10", data_dir=folder.parent).train.x
    assert type(x) is np.ndarray
    assert x.flags.c_contiguous
    assert x.flags.owndata


def test_reading_takes_no_more_memory_than_the_images(folder):
    (folder / "unlabeled_X.bin").write_bytes(bytes(100 * IMAGE))
    load("stl10", data_dir=folder.parent)
    tracemalloc.start()
    try:
        stl10 = load("stl10", data_dir=folder.parent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stl10.test is not None
    needed = stl10.train.x.nbytes + stl10.test.x.nbytes
    assert needed <= peak < 1.1 * needed


def test_a_whole_folder_is_read_before_one_with_some_of_the_files(folder):
    put(folder.parent / "stl10_binary")
    (folder / "test_y.bin").unlink()
    assert STL10.present(folder.parent)
    assert len(load("stl10", data_dir=folder.parent).train) == LABELED + UNKNOWN


def test_nothing_at_all_is_answered_with_the_page_and_the_archive(tmp_path):
    assert not STL10.present(tmp_path)
    line = refused(tmp_path)
    for part in (PAGE, "stl10_binary.tar.gz", str(tmp_path / "stl10"), "--data-dir"):
        assert part in line
    assert "whatwhere data download" not in line


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["stl10", "stl10_binary"])
def test_a_missing_file_is_named_the_unlabeled_one_too(tmp_path, place, name):
    put(tmp_path / place)
    (tmp_path / place / name).unlink()
    assert not STL10.present(tmp_path)
    assert f"no {name} (of stl10_binary.tar.gz, unpacked) in {tmp_path / place};" in refused(
        tmp_path
    )


@pytest.mark.parametrize("kept", [0, 1, IMAGE - 1, IMAGE + 1])
@pytest.mark.parametrize("name", ["train_X.bin", "unlabeled_X.bin", "test_X.bin"])
def test_a_file_that_ends_within_an_image_is_refused(folder, name, kept):
    path = folder / name
    path.write_bytes(path.read_bytes()[:kept])
    line = refused(folder.parent)
    assert line.startswith(f"{path} is cut short or damaged: {kept:,} bytes are no whole number")
    assert "again" in line


@pytest.mark.parametrize("name", ["train_y.bin", "test_y.bin"])
@pytest.mark.parametrize("wrong", [0, 11, 255])
def test_a_label_that_is_no_class_is_refused(folder, name, wrong):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(bytes([wrong]) + content[1:])
    line = refused(folder.parent)
    assert line.startswith(f"{folder / name} holds labels that are not from 1 to 10: ")


@pytest.mark.parametrize("content", [b"", b"\1", bytes([1]) * 9])
def test_as_many_labels_as_images_are_needed(folder, content):
    (folder / "test_y.bin").write_bytes(content)
    line = refused(folder.parent)
    assert f"test_y.bin has {len(content)} labels, but test_X.bin has 2 images" in line
