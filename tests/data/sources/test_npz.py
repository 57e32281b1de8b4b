import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import DataSet
from whatwhere.data.sources import load

X = np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)
Y = np.array([3, 5, 3, -1, 5, 3])


@pytest.fixture
def read(tmp_path: Path):
    def write_and_read(**arrays: np.ndarray) -> DataSet:
        np.savez(tmp_path / "own.npz", allow_pickle=True, **arrays)
        return load(tmp_path / "own.npz")

    return write_and_read


def read_bytes(content: bytes, folder: Path) -> DataSet:
    (folder / "own.npz").write_bytes(content)
    return load(folder / "own.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("npz")


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


@given(
    x=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int64, np.uint32]),
        st.tuples(*[st.integers(1, 5)] * 3),
        elements=st.integers(0, 127),
    )
    | hnp.arrays(
        st.sampled_from([np.float16, np.float32, ">f8"]),
        st.tuples(*[st.integers(1, 5)] * 2, st.integers(5, 6), st.sampled_from([1, 3, 4])),
        elements=st.floats(0, 1, width=16),
    )
)
def test_whatever_images_are_written_are_read(folder, x):
    found = read_bytes(packed(x=x), folder).train
    expected = x[..., np.newaxis] if x.ndim == 3 else x
    np.testing.assert_array_equal(found.x, expected.transpose(0, 3, 1, 2))
    assert found.x.dtype == (np.float32 if x.dtype.kind == "f" else np.uint8)
    assert found.x.flags.c_contiguous
    assert found.n_labeled == 0


@given(
    labels=st.lists(st.integers(-1, 300), min_size=6, max_size=6)
    | st.lists(st.text("abc é", max_size=3), min_size=6, max_size=6)
)
def test_the_class_of_every_label_is_what_was_written(folder, labels):
    images = read_bytes(packed(x=X, y=np.array(labels)), folder).train
    found = [None if place == UNLABELED else images.classes[place] for place in images.y]
    assert found == [None if label in (-1, "") else label for label in labels]
    assert list(images.classes) == sorted(set(images.classes))


@given(data=st.data())
def test_a_damaged_file_is_refused_in_one_line_or_read_as_it_was(folder, data):
    content = bytearray(packed(x=X, y=Y))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        images = read_bytes(bytes(content), folder).train
    except InputError as error:
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(images.x[:, 0], X)


def test_the_keras_convention_has_a_test_part_with_the_same_classes(read):
    data = read(x_train=X, y_train=Y, x_test=X[:2], y_test=np.array([7, 5]))
    assert data.train.classes == data.test.classes == (3, 5, 7)
    assert data.train.y.tolist() == [0, 1, 0, -1, 1, 0]
    assert data.test.y.tolist() == [2, 1]
    np.testing.assert_array_equal(data.test.x, data.train.x[:2])


def test_kerass_column_of_labels_is_read(read):
    assert read(x=X, y=Y[:, np.newaxis]).train.y.tolist() == [0, 1, 0, -1, 1, 0]


@pytest.mark.parametrize("keys", [("x", "y"), ("images", "labels"), ("x", "labels")])
def test_a_set_without_a_test_part_has_one_of_two_names(read, keys):
    data = read(**dict(zip(keys, (X, Y), strict=True)))
    assert data.test is None
    assert data.train.n_labeled == 5


def test_labels_are_optional_in_either_part(read):
    data = read(x_train=X, x_test=X, y_test=np.array(list("abcabc")))
    assert data.train.n_labeled == 0
    assert data.train.classes == ("a", "b", "c")
    data = read(x_train=X, y_train=Y, x_test=X)
    assert data.test.n_labeled == 0


def test_unlabeled_rows_stay_in_the_test_part_so_that_row_numbers_hold(read):
    data = read(x_train=X, y_train=Y, x_test=X, y_test=Y)
    assert len(data.test) == 6
    assert data.test.n_labeled == 5


def test_booleans_are_black_and_white(read):
    x = X > 127
    np.testing.assert_array_equal(read(x=x).train.x[:, 0], np.where(x, 255, 0))


def test_other_arrays_are_left_alone(read):
    assert len(read(x=X, subject=np.array([{}], dtype=object)).train) == 6


F = X / 255
NAN, INFINITE = (np.where(X > 200, value, F) for value in (np.nan, np.inf))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "has no images: it holds nothing; expected is x_train"),
        ({"pixels": X, "a": Y}, "has no images: it holds 'a', 'pixels'; expected is x_train"),
        ({"x": X, "images": X}, "has both x and images"),
        ({"x": X, "y": Y, "labels": Y}, "has both y and labels"),
        ({"x_train": X, "y_test": Y}, "has y_test but no x_test"),
        ({"x_test": X}, "has x_test but no x_train"),
        ({"x": X, "x_test": X}, "has x_test but no x_train"),
        ({"x": X.reshape(6, -1)}, r"shape \(6, 35\): images are \(n, H, W\)"),
        ({"x": X[:0]}, "there is no pixel in it"),
        ({"x": np.zeros((6, 3, 8, 8), np.uint8)}, "channels first: save"),
        ({"x": F * 255}, "floats from .* divide by 255"),
        ({"x": F * 2 - 1}, r"floats from .* scale them"),
        ({"x": NAN}, "not finite"),
        ({"x": INFINITE}, "not finite"),
        ({"x": X.astype(int) * 257}, "whole numbers from .* scale them to floats"),
        ({"x": X.astype(int) - 9}, "whole numbers from .* scale them to floats"),
        ({"x": X * 1j}, "array of complex128"),
        ({"x": X.astype(str)}, "pixels are uint8"),
        ({"x": X.astype(object)}, "x of .* holds Python objects"),
        ({"x": X, "y": Y.astype(object)}, "y of .* holds Python objects"),
        ({"x": X, "y": Y[:5]}, "but x has 6 images"),
        ({"x": X, "y": np.array(3)}, "but x has 6 images"),
        ({"x": X, "y": np.eye(6)}, r"y\.argmax\(axis=1\)"),
        ({"x": X, "y": Y.astype(float)}, r"y\.astype\(int\)"),
        ({"x": X, "y": Y - 1}, "holds the label -2"),
        ({"x": X, "y": np.full(6, 2**63, np.uint64)}, "holds the label 9223372036854775808"),
        ({"x_train": X, "x_test": X[:, 1:]}, "5 x 7 pixels.*4 x 7 pixels"),
        ({"x_train": X, "x_test": F}, "uint8, test images of .* float32"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)},
            "numbers in one of y_train and y_test and strings in the other",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_cure(read, arrays, reason):
    with pytest.raises(InputError, match=reason) as error:
        read(**arrays)
    assert "own.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x05\x06" + b"\0" * 17, b"\x80\x04N."])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"own\.npz is cut short or no \.npz"):
        read_bytes(content, tmp_path)


def test_a_lone_array_called_npz_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, X)
    with pytest.raises(InputError, match=r"numpy\.savez_compressed"):
        read_bytes(file.getvalue(), tmp_path)


def test_a_zip_of_other_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x", b"picture")
    with pytest.raises(InputError, match="is no array"):
        load(tmp_path / "own.npz")


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npz is not there"):
        load(tmp_path / "gone.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz is a folder"):
        load(tmp_path / "folder.npz")
