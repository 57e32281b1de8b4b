import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources import Reading, load

MakeFolder = Callable[..., Path]
SOON = 60  # seconds in which a program that hangs is told from one that does not


@pytest.fixture
def folder(tmp_path: Path, write: Callable, draw: Callable) -> MakeFolder:
    """Make a folder of images by their names; the seed of each is its place."""

    def make(*names: str) -> Path:
        root = tmp_path / "photos"
        root.mkdir()
        for seed, name in enumerate(names):
            write(root / name, draw(seed))
        return root

    return make


def told(images: Images | None) -> dict[str, Any]:
    """Return the class of each file."""
    assert images is not None
    assert images.names is not None
    classes = [None if place == UNLABELED else images.classes[place] for place in images.y]
    return dict(zip(images.names, classes, strict=True))


def table(root: Path, text: str) -> Reading:
    path = root.with_name("labels.csv")
    path.write_text(text)
    return Reading(labels=str(path))


def refused(data: Path, match: str, reading: Reading | None = None) -> None:
    with pytest.raises(InputError, match=match) as error:
        load(data, reading=reading)
    assert str(error.value).isprintable()


@given(
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=40, unique=True),
    keep_depth=st.booleans(),
)
def test_each_row_holds_the_pixels_of_its_file(tmp_path_factory, seeds, keep_depth):
    root = tmp_path_factory.mktemp("rows")
    images = {seed: np.random.default_rng(seed).integers(0, 256, (5, 7), "u1") for seed in seeds}
    for seed, image in images.items():
        (root / f"{seed % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(root / f"{seed % 3}" / f"{seed}.png")
    data = load(root, reading=Reading(keep_depth=keep_depth))
    names = data.train.names
    assert names is not None
    assert sorted(names) == sorted(f"{seed % 3}/{seed}.png" for seed in seeds)
    expected = np.stack([images[int(Path(name).stem)][np.newaxis] for name in names])
    x = data.train.x
    np.testing.assert_array_equal(x, expected / np.float32(255) if keep_depth else expected)
    assert x.dtype == (np.float32 if keep_depth else np.uint8)
    assert x.flags.writeable


def test_class_folders_name_the_classes_and_are_searched_to_any_depth(folder):
    data = load(folder("dog/1.png", "cat/x/y/2.png", "cat/3.PNG"))
    assert told(data.train) == {"cat/3.PNG": "cat", "cat/x/y/2.png": "cat", "dog/1.png": "dog"}
    assert data.train.classes == ("cat", "dog")
    assert data.test is None
    assert data.skipped == ()
    assert data.name.endswith("photos")


def test_a_flat_folder_is_unlabeled(folder):
    data = load(folder("b.png", "a.png"))
    assert told(data.train) == {"a.png": None, "b.png": None}
    assert data.train.classes == ()


@pytest.mark.parametrize("name", ["unlabeled", "Unlabeled", "-1"])
def test_files_beside_class_folders_and_in_unlabeled_are_unlabeled(folder, name):
    data = load(folder("cat/1.png", "dog/1.png", "1.png", f"{name}/1.png", f"{name}/cat/1.png"))
    labels = told(data.train)
    assert labels.pop("cat/1.png") == "cat"
    assert labels.pop("dog/1.png") == "dog"
    assert labels == {"1.png": None, f"{name}/1.png": None, f"{name}/cat/1.png": None}


def test_a_single_class_folder_is_one_class(folder):
    assert load(folder("cat/1.png", "cat/2.png")).train.classes == ("cat",)


def test_train_and_test_may_stand_above_class_folders(folder):
    data = load(folder("train/cat/1.png", "train/2.png", "Test/dog/3.png", "Test/4.png"))
    assert told(data.train) == {"train/2.png": None, "train/cat/1.png": "cat"}
    assert told(data.test) == {"Test/4.png": None, "Test/dog/3.png": "dog"}
    assert data.test is not None
    assert data.train.classes == data.test.classes == ("cat", "dog")


def test_train_and_test_may_stand_above_flat_folders(folder):
    data = load(folder("train/1.png", "test/2.png"))
    assert (told(data.train), told(data.test)) == ({"train/1.png": None}, {"test/2.png": None})


def test_unlabeled_beside_train_and_test_joins_the_training_part(folder):
    data = load(folder("train/cat/1.png", "test/cat/2.png", "UNLABELED/x/3.png", "4.png"))
    labels = told(data.train)
    assert labels == {"4.png": None, "UNLABELED/x/3.png": None, "train/cat/1.png": "cat"}


def test_train_alone_is_no_class(folder):
    data = load(folder("train/cat/1.png", "train/dog/1.png", "unlabeled/1.png"))
    assert data.train.classes == ("cat", "dog")
    assert data.test is None


def test_test_is_a_class_where_there_is_no_train(folder):
    assert load(folder("control/1.png", "test/1.png")).train.classes == ("control", "test")


@pytest.mark.parametrize(
    "names",
    [("train/a/1.png", "test/a/1.png", "val/a/1.png"), ("train/a/1.png", "val/a/1.png")],
)
def test_a_third_part_is_not_taken_for_a_class(folder, names):
    refused(folder(*names), r"holds train/ and beside it val/: move .* call the part .* test/")


def test_a_train_and_a_bus_are_classes(folder):
    assert load(folder("train/1.png", "bus/1.png")).train.classes == ("bus", "train")


def test_numbers_are_sorted_as_numbers(folder):
    names = ["10/b12.png", "9/b2.png", "10/b7.png", "x/1.png", "09/a.png"]
    data = load(folder(*names))
    assert data.train.classes == ("09", "9", "10", "x")
    assert data.train.names == ("09/a.png", "9/b2.png", "10/b7.png", "10/b12.png", "x/1.png")


def test_one_image_in_color_makes_all_of_them_color(folder, write, draw):
    root = folder("1.png", "2.png")
    assert load(root).train.shape == (1, 5, 7)
    write(root / "3.png", draw(3, channels=3))
    x = load(root).train.x
    assert x.shape == (3, 3, 5, 7)
    np.testing.assert_array_equal(x[0], np.stack([draw(0)] * 3))
    np.testing.assert_array_equal(x[2], draw(3, channels=3).transpose(2, 0, 1))


def test_an_image_in_color_that_cannot_be_decoded_makes_nothing_color(folder, write, draw):
    root = folder("1.png")
    write(root / "0.png", draw(3, channels=3))
    content = bytearray((root / "0.png").read_bytes())
    content[content.index(b"IDAT") + 12] ^= 0xFF
    (root / "0.png").write_bytes(content)
    data = load(root)
    np.testing.assert_array_equal(data.train.x, draw(0)[np.newaxis, np.newaxis])
    assert [one.file for one in data.skipped] == ["0.png"]


def test_deep_and_shallow_images_share_one_scale(folder, write, draw):
    root = folder("1.png")
    write(root / "2.png", draw(0).astype(np.uint16) * 257)
    data = load(root)
    np.testing.assert_array_equal(data.train.x[0], data.train.x[1])
    kept = load(root, reading=Reading(keep_depth=True)).train.x
    np.testing.assert_allclose(kept[0], kept[1], atol=1e-7)


def test_sizes_that_differ_are_refused_with_two_of_them_and_the_cure(folder, write, draw):
    root = folder("1.png", "2.png", "3.png")
    write(root / "0.png", draw(0, 9, 8))
    refused(
        root,
        r"different sizes: 1\.png has 7 x 5 pixels \(width x height\), 0\.png has 8 x 9 pixels, "
        r"and 1 of 4 differ.*--image-size 64 --fit crop\|pad",
    )
    assert load(root, reading=Reading(image_size=4)).train.shape == (1, 4, 4)


def test_an_image_that_lay_on_its_side_has_the_size_of_the_upright_one(folder, draw):
    root = folder("1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw(1, 7, 5)).save(root / "2.png", exif=exif)
    np.testing.assert_array_equal(load(root).train.x[1, 0], np.rot90(draw(1, 7, 5), -1))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image_size": 0}, "--image-size 0 is not possible: give 1 to 4096"),
        ({"image_size": -3}, "--image-size -3 is not possible"),
        ({"image_size": 10**9}, "--image-size 1000000000 is not possible"),
        ({"fit": "stretch"}, "--fit stretch: it takes crop or pad"),
    ],
)
def test_an_impossible_reading_is_refused(values, reason):
    with pytest.raises(InputError, match=reason):
        Reading(**values)


def test_whatever_lies_about_is_skipped_with_its_reason_and_nothing_is_said(hostile, draw, capfd):
    root, reasons = hostile
    data = load(root)
    np.testing.assert_array_equal(data.train.x, draw(0)[np.newaxis, np.newaxis])
    assert data.train.names == ("good.png",)
    found = dict(data.skipped)
    assert found.keys() == reasons.keys()
    for file, reason in reasons.items():
        assert found[file].startswith(reason), file
        assert found[file].isprintable()
        assert len(found[file]) < 200
    assert capfd.readouterr() == ("", "")
    assert load(root).skipped == data.skipped


def test_what_systems_and_spreadsheets_leave_is_passed_over_in_silence(folder):
    root = folder("a.png", ".hidden.png", ".git/b.png")
    for name in ("Thumbs.db", "desktop.ini", "labels.csv", "LABELS.CSV"):
        (root / name).write_bytes(b"x")
    data = load(root)
    assert data.train.names == ("a.png",)
    assert data.skipped == ()


def test_a_file_or_folder_that_may_not_be_read_is_skipped(write, draw):
    code = (
        "import os, sys\n"
        "from whatwhere.data.sources import load, Reading\n"
        "reading = Reading(cache=False)\n"
        "load('.', reading=reading)\n"  # everything is imported
        "if os.geteuid() == 0:\n"
        "    os.seteuid(65534)\n"  # the superuser may read all
        "print(*map(': '.join, load('.', reading=reading).skipped), sep='\\n')\n"
    )
    # Not below pytest's own folder, which is closed to all but its owner.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for seed, name in enumerate(["a.png", "b.png", "c/d.png"]):
            write(Path(folder, name), draw(seed))
        closed = [Path(folder, "b.png"), Path(folder, "c")]
        for path in closed:
            path.chmod(0)
        run = [sys.executable, "-c", code]
        out = subprocess.run(
            run, cwd=folder, capture_output=True, text=True, timeout=SOON, check=False
        )
        closed[1].chmod(0o700)
    assert (out.returncode, out.stderr) == (0, "")
    assert out.stdout.splitlines() == [
        "b.png: cannot be read: Permission denied",
        "c: cannot be read: Permission denied",
    ]


def test_links_to_files_and_folders_are_followed(folder, tmp_path, draw):
    root = folder("b/real/1.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(draw(5)).save(elsewhere / "2.png")
    (root / "c").symlink_to(elsewhere)
    (root / "a").mkdir()
    (root / "a" / "1.png").symlink_to(root / "b" / "real" / "1.png")
    (root / "a" / "twin").symlink_to(root / "b" / "real")
    data = load(root)
    assert told(data.train) == {"a/1.png": "a", "b/real/1.png": "b", "c/2.png": "c"}
    assert dict(data.skipped) == {"a/twin": "a link to a folder that is read already"}


def test_a_folder_without_an_image_is_refused(folder):
    root = folder()
    refused(root, "photos holds no image: put PNG, JPEG, WebP, BMP or TIFF files there")
    (root / "labels.csv").write_text("file,label\n")
    (root / "empty").mkdir()
    refused(root, "photos holds no image")
    (root / "notes.txt").write_text("to do")
    (root / "empty.png").write_bytes(b"")
    refused(root, r"no image that can be read \(2 files; empty\.png: empty: there is no byte in it")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_an_image_is_refused(folder, part):
    other = {"train": "test", "test": "train"}[part]
    root = folder(f"{other}/1.png")
    (root / part).mkdir()
    (root / part / "1.png").write_bytes(b"junk")
    refused(root, rf"no image that can be read in its {part} part.*{part}/1\.png: no image of a")


def test_a_table_of_labels_overrides_class_folders(folder):
    root = folder("cat/1.png", "cat/2.png", "dog/3.png", "4.png")
    data = load(root, reading=table(root, "file,label\ncat/1.png,tabby\n4.png,10\ncat/2.png,\n"))
    assert told(data.train) == {
        "4.png": "10",
        "cat/1.png": "tabby",
        "cat/2.png": None,
        "dog/3.png": None,
    }
    assert data.train.classes == ("10", "tabby")


def test_a_part_of_which_the_table_names_no_file_keeps_its_class_folders(folder):
    root = folder("train/1.png", "train/2.png", "test/cat/3.png", "test/dog/4.png")
    data = load(root, reading=table(root, "file,label\ntrain/1.png,cat\n"))
    assert told(data.train) == {"train/1.png": "cat", "train/2.png": None}
    assert told(data.test) == {"test/cat/3.png": "cat", "test/dog/4.png": "dog"}
    assert data.train.classes == ("cat", "dog")


def test_a_table_may_name_files_that_are_skipped(folder):
    root = folder("1.png", "2.png")
    (root / "3.png").write_bytes(b"junk")
    (root / "4.png").symlink_to("gone.png")
    text = "file,label\n1.png,a\n2.png,b\n3.png,c\n4.png,d\n"
    data = load(root, reading=table(root, text))
    assert told(data.train) == {"1.png": "a", "2.png": "b"}
    assert data.train.classes == ("a", "b")


def test_a_table_that_names_strangers_is_refused(folder):
    root = folder("1.png")
    reading = table(root, "file,label\n1.png,a\nx.png,b\ny.png,b\n")
    refused(root, r"names 2 files that .*photos does not hold \(x\.png and y\.png\)", reading)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_what_was_skipped_is_told_with_every_part(folder, split):
    root = folder("train/a/1.png", "train/b/2.png", "test/a/3.png")
    (root / "test" / "junk").write_bytes(b"junk")
    (root / "train" / "junk").write_bytes(b"junk")
    data = load(root, split=split)
    assert [one.file for one in data.skipped] == ["test/junk", "train/junk"]
    assert len(data.train) == {"train": 2, "test": 1, "all": 3}[split]


def test_a_test_part_can_be_cut_off_a_folder(folder):
    root = folder("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    (root / "junk").write_bytes(b"junk")
    data = load(root, test_fraction=0.5)
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (2, 2)
    assert [one.file for one in data.skipped] == ["junk"]
    with pytest.raises(InputError, match=r"has no test part.*test/ beside train/ in a folder"):
        load(root, split="test")


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.mkdir()
    refused(root, r"caf\\udce9 is not UTF-8, or holds control characters: rename the folder")


def test_names_in_any_script_are_read(folder):
    names = ("Bildschirmfoto um 1.23\u202fPM.png", "猫/👩\u200d🚀.png", "é/ß.png")
    data = load(folder(*names))
    assert set(told(data.train)) == set(names)
    assert data.train.classes == ("é", "猫")


def test_sizes_hold_for_arrays_and_named_sets_too(tmp_path, draw):
    x = np.stack([draw(seed, 6, 8) for seed in range(3)])
    np.savez(tmp_path / "own.npz", x_train=x, x_test=x[:2], allow_pickle=False)
    data = load(tmp_path / "own.npz", reading=Reading(image_size=6))
    assert data.test is not None
    np.testing.assert_array_equal(data.train.x[:, 0], x[:, :, 1:7])
    np.testing.assert_array_equal(data.test.x[:, 0], x[:2, :, 1:7])
    digits: DataSet = load("digits", reading=Reading(image_size=12))
    assert digits.train.shape == (1, 12, 12)


def test_a_table_of_labels_goes_with_a_folder_only(tmp_path, draw):
    np.savez(tmp_path / "own.npz", x=draw(0)[np.newaxis], allow_pickle=False)
    reading = Reading(labels="labels.csv")
    refused(tmp_path / "own.npz", r"labels from a CSV go with a folder of images", reading)
    refused(Path("digits"), r"an \.npz holds its own y", reading)
