import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whatwhere.core import InputError
from whatwhere.data.sources import load
from whatwhere.data.sources.cifar10 import CIFAR10

ARCHIVE = "cifar-10-binary.tar.gz"
N = 4


def pictures(number: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def batches() -> dict[str, bytes]:
    """Return the six binary files with N images each: image i of a file has the label i."""
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    return {
        name: b"".join(bytes([label]) + x.tobytes() for label, x in enumerate(pictures(number)))
        for number, name in enumerate(names)
    }


def unpack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in batches().items():
        (folder / name).write_bytes(content)


def pack(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_sheet(path: Path, images: np.ndarray) -> None:
    """Lay 1,000 images out, one by one, 40 in a row."""
    sheet = np.zeros((800, 1280, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = 32 * (number // 40), 32 * (number % 40)
        sheet[top : top + 32, left : left + 32] = image.transpose(1, 2, 0)
    Image.fromarray(sheet).save(path, lossless=True, method=0, quality=0)


def coarse(number: int) -> np.ndarray:
    """Return 1,000 images of one colour each, which are packed fast."""
    colors = np.random.default_rng(number).integers(0, 256, (1000, 3, 1, 1), dtype=np.uint8)
    images = np.broadcast_to(colors, (1000, 3, 32, 32)).copy()
    images[:, 0, 0, 1] = 255  # so that a row taken for a column shows
    images[:, 1, 2, 0] = 255
    return images


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for number, name in enumerate(("train_00", "train_01", "test_00")):
        write_sheet(folder / f"{name}.webp", coarse(number))
    labels = (np.arange(3000) % 10).astype(np.uint8)
    np.savez(folder / "labels.npz", train_labels=labels[:2000], test_labels=labels[2000:])
    return tmp_path


@pytest.mark.parametrize(
    "folder", ["cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"]
)
def test_the_unpacked_files_are_read_in_order(tmp_path, folder):
    unpack(tmp_path / folder)
    cifar10 = load("cifar10", data_dir=tmp_path)
    assert cifar10.test is not None
    expected = np.concatenate([pictures(number) for number in range(5)])
    np.testing.assert_array_equal(cifar10.train.x, expected, strict=True)
    np.testing.assert_array_equal(cifar10.test.x, pictures(5), strict=True)
    assert cifar10.train.y.tolist() == [*range(N)] * 5
    assert cifar10.train.classes[3] == "cat"


@pytest.mark.parametrize("folder", ["cifar10", "."])
def test_the_archive_is_read_as_its_files(tmp_path, folder):
    unpack(tmp_path / "unpacked/cifar10")
    pack(tmp_path / folder / ARCHIVE, {"batches.meta.txt": b"airplane\n", **batches()})
    assert CIFAR10.present(tmp_path)
    archive = load("cifar10", data_dir=tmp_path)
    files = load("cifar10", data_dir=tmp_path / "unpacked")
    assert archive.train.fingerprint() == files.train.fingerprint()


def test_sheets_are_cut_into_their_images(sheets):
    cifar10 = load("cifar10", data_dir=sheets)
    assert cifar10.test is not None
    np.testing.assert_array_equal(cifar10.train.x, np.concatenate([coarse(0), coarse(1)]))
    np.testing.assert_array_equal(cifar10.test.x, coarse(2))
    assert cifar10.test.y.tolist() == [*range(10)] * 100


@pytest.mark.parametrize(
    "pickle", ["cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10/data_batch_1"]
)
def test_a_pickle_is_refused_with_the_name_of_the_other_form(tmp_path, pickle):
    (tmp_path / pickle).parent.mkdir(exist_ok=True)
    (tmp_path / pickle).write_bytes(b"")
    with pytest.raises(InputError, match=f"is a pickle.*{ARCHIVE}"):
        load("cifar10", data_dir=tmp_path)


def test_nothing_at_all_is_answered_with_what_was_looked_for(tmp_path):
    assert not CIFAR10.present(tmp_path)
    with pytest.raises(InputError) as error:
        load("cifar10", data_dir=tmp_path)
    for part in (ARCHIVE, "train_00.webp", str(tmp_path), "--data-dir", "WHATWHERE_DATA"):
        assert part in str(error.value)


def test_a_missing_batch_is_named(tmp_path):
    unpack(tmp_path / "cifar10")
    (tmp_path / "cifar10/data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"no file data_batch_3\.bin"):
        load("cifar10", data_dir=tmp_path)


def test_an_archive_without_a_batch_is_refused(tmp_path):
    files = batches()
    del files["test_batch.bin"]
    pack(tmp_path / "cifar10" / ARCHIVE, files)
    with pytest.raises(InputError, match=r"holds no test_batch\.bin"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 1000, 20_000])
def test_an_archive_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "cifar10" / ARCHIVE
    pack(path, batches())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=ARCHIVE):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 3072, 3074])
def test_a_batch_that_ends_within_a_record_is_refused(tmp_path, kept):
    unpack(tmp_path / "cifar10")
    path = tmp_path / "cifar10/data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"data_batch_2\.bin is cut short"):
        load("cifar10", data_dir=tmp_path)


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    unpack(tmp_path / "cifar10")
    (tmp_path / "cifar10/test_batch.bin").write_bytes(b"\x0a" + b"\0" * 3072)
    with pytest.raises(InputError, match="not whole numbers from 0 to 9"):
        load("cifar10", data_dir=tmp_path)


def test_a_missing_or_damaged_sheet_is_named(sheets):
    path = sheets / "cifar10/train_01.webp"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train_01\.webp is cut short"):
        load("cifar10", data_dir=sheets)
    path.unlink()
    with pytest.raises(InputError, match=r"no file train_01\.webp"):
        load("cifar10", data_dir=sheets)
    Image.new("RGB", (1280, 32)).save(path, lossless=True)
    with pytest.raises(InputError, match="1280 x 32 pixels"):
        load("cifar10", data_dir=sheets)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"test_labels": np.zeros(1000, int)}, "has no train_labels, only test_labels"),
        ({"train_labels": np.zeros(999, int)}, "999 train_labels, no whole number of sheets"),
        ({"train_labels": np.full(1000, 10)}, "not whole numbers from 0 to 9"),
        ({"train_labels": np.zeros(1000)}, "not whole numbers from 0 to 9"),
    ],
)
def test_labels_that_do_not_fit_the_sheets_are_refused(sheets, labels, reason):
    np.savez(sheets / "cifar10/labels.npz", **labels)
    with pytest.raises(InputError, match=reason):
        load("cifar10", data_dir=sheets)


@pytest.mark.data
def test_the_real_set_has_its_published_statistics(data_dir):
    cifar10 = load("cifar10", data_dir=data_dir)
    assert cifar10.test is not None
    assert (len(cifar10.train), len(cifar10.test)) == (50_000, 10_000)
    assert np.bincount(cifar10.train.y).tolist() == [5000] * 10
    assert np.bincount(cifar10.test.y).tolist() == [1000] * 10
    channels = cifar10.train.x.transpose(1, 0, 2, 3).reshape(3, -1)
    frequency = np.stack([np.bincount(channel, minlength=256) for channel in channels])
    frequency, values = frequency / channels.shape[1], np.arange(256) / 255
    mean = frequency @ values
    deviation = np.sqrt(frequency @ values**2 - mean**2)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(deviation, [0.2470, 0.2435, 0.2616], atol=1e-4)
