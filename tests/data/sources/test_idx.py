import gzip

import numpy as np
import pytest

from whatwhere.core import InputError
from whatwhere.data.sources import load
from whatwhere.data.sources.idx import read_idx

IMAGES = "mnist/train-images-idx3-ubyte.gz"
LABELS = "mnist/train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize("name", ["values", "values.gz"])
def test_what_was_written_is_read(tmp_path, write_idx, name):
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    write_idx(tmp_path / name, values)
    found = read_idx(tmp_path / name, 3)
    np.testing.assert_array_equal(found, values, strict=True)
    assert found.flags.writeable


def test_both_parts_are_read_with_their_labels(tiny_mnist):
    mnist = load("mnist", data_dir=tiny_mnist)
    assert mnist.test is not None
    assert mnist.train.x.shape == (20, 1, 28, 28)
    assert mnist.test.x.shape == (10, 1, 28, 28)
    assert mnist.train.y.tolist() == [*range(10), *range(10)]
    assert mnist.train.classes == mnist.test.classes == tuple(range(10))


@pytest.mark.parametrize("unpacked", ["train-images-idx3-ubyte", "train-images.idx3-ubyte"])
def test_unpacked_files_are_read_as_their_archives(tiny_mnist, unpacked):
    packed = load("mnist", data_dir=tiny_mnist)
    path = tiny_mnist / IMAGES
    path.with_name(unpacked).write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    found = load("mnist", data_dir=tiny_mnist)
    assert found.train.fingerprint() == packed.train.fingerprint()


def test_the_classes_of_fashion_mnist_are_words(tiny_mnist):
    (tiny_mnist / "mnist").rename(tiny_mnist / "fashion_mnist")
    fashion = load("fashion_mnist", data_dir=tiny_mnist)
    assert len(fashion.train.classes) == 10
    assert fashion.train.classes[9] == "ankle boot"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kept", [0, 3, 4, 7, 15, 16, 17, 75])
def test_a_file_cut_short_at_any_place_is_refused_by_its_name(tmp_path, write_idx, suffix, kept):
    path = tmp_path / f"values{suffix}"
    write_idx(path, np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=path.name):
        read_idx(path, 3)


def test_a_damaged_archive_is_refused(tmp_path, write_idx):
    path = tmp_path / "values.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (50, 4, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut short or damaged"):
        read_idx(path, 3)


def test_a_header_that_promises_more_than_there_is_costs_no_memory(tmp_path, write_idx):
    path = tmp_path / "values"
    write_idx(path, np.zeros((1, 2, 2), np.uint8))
    path.write_bytes(path.read_bytes()[:4] + b"\xff" * 12 + b"\0" * 4)
    with pytest.raises(InputError, match=r"its header promises .* and it holds 4;"):
        read_idx(path, 3)


def test_labels_in_the_place_of_images_are_refused(tiny_mnist):
    (tiny_mnist / IMAGES).write_bytes((tiny_mnist / LABELS).read_bytes())
    with pytest.raises(InputError, match="begins with 00000801 instead of 00000803"):
        load("mnist", data_dir=tiny_mnist)


def test_as_many_labels_as_images_are_needed(tiny_mnist, write_idx):
    write_idx(tiny_mnist / LABELS, np.zeros(19, np.uint8))
    with pytest.raises(InputError, match=r"20 images, but .* 19 labels"):
        load("mnist", data_dir=tiny_mnist)


def test_a_label_beyond_the_classes_is_refused(tiny_mnist, write_idx):
    write_idx(tiny_mnist / LABELS, np.full(20, 10, np.uint8))
    with pytest.raises(InputError, match="holds the label 10"):
        load("mnist", data_dir=tiny_mnist)


def test_both_parts_have_images_of_one_size(tiny_mnist, write_idx):
    write_idx(tiny_mnist / IMAGES, np.zeros((20, 28, 27), np.uint8))
    with pytest.raises(InputError, match="28 x 27 pixels, the test images 28 x 28"):
        load("mnist", data_dir=tiny_mnist)


@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_missing_file_is_named_with_its_folder_and_the_way_out(tiny_mnist, file):
    (tiny_mnist / file).unlink()
    with pytest.raises(InputError) as error:
        load("mnist", data_dir=tiny_mnist)
    for part in ((tiny_mnist / file).stem, str(tiny_mnist / "mnist"), "--data-dir"):
        assert part in str(error.value)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mean", "deviation", "counts"),
    [
        # The published mean and deviation of the training pixels in [0, 1], and test counts.
        ("mnist", 0.1307, 0.3081, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion_mnist", 0.2860, 0.3530, [1000] * 10),
    ],
)
def test_the_real_set_has_its_published_statistics(data_dir, name, mean, deviation, counts):
    images = load(name, data_dir=data_dir)
    assert images.test is not None
    assert (len(images.train), len(images.test)) == (60_000, 10_000)
    assert np.bincount(images.test.y).tolist() == counts
    frequency = np.bincount(images.train.x.ravel(), minlength=256) / images.train.x.size
    values = np.arange(256) / 255
    assert frequency @ values == pytest.approx(mean, abs=1e-4)
    assert np.sqrt(frequency @ (values - mean) ** 2) == pytest.approx(deviation, abs=1e-4)
