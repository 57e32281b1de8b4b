import json
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere import CNN, SWWAE, DenoisingAutoencoder
from whatwhere.core import UNLABELED, InputError, seeded
from whatwhere.data.corruption import KINDS, corruption
from whatwhere.data.images import Images
from whatwhere.evaluate import denoising, panels


def pictures(n=12, c=1, h=8, w=8, dtype=np.uint8, names=None):
    x = np.random.default_rng(0).integers(0, 256, (n, c, h, w)).astype(np.uint8)
    x = x if dtype == np.uint8 else x / np.float32(255)
    return Images(x, np.full(n, UNLABELED), (), names)


def fitted(images):
    return SWWAE("(4)3c-2p", epochs=2, random_state=0).fit(images.x)


def written(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def named(*names):
    return denoising.files(pictures(len(names), names=names))


@pytest.fixture(scope="module")
def learner():
    return fitted(pictures())


FOLDERS, ENDINGS = ["", "a/", "A/", "a.png/"], [".png", ".PNG", ".jpg", ".png.png", ".jpg.png", ""]
PARTS = st.tuples(*map(st.sampled_from, (FOLDERS, "aAb", ENDINGS)))
NAMES = st.lists(PARTS.map("".join), min_size=1, unique=True)


@given(names=NAMES)
def test_no_two_images_become_one_file_and_each_stays_in_its_folder(names):
    found = named(*names)
    folded = [name.casefold() for name in found]
    assert len({*folded}) == len(names)
    assert not {*folded} & {
        str(p).casefold() for name in found for p in PurePosixPath(name).parents
    }
    assert denoising.OVERVIEW not in folded
    for name, own in zip(found, names, strict=True):
        assert name.endswith(".png")
        assert PurePosixPath(name).parent == PurePosixPath(own).parent


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("cat/1.jpg", "dog/1.png"), ["cat/1.png", "dog/1.png"]),
        (("a.jpg", "a.png", "a.tif"), ["a.jpg.png", "a.png", "a.tif.png"]),
        (("a.jpg", "a.png", "a.jpg.png"), ["a.jpg-2.png", "a.png", "a.jpg.png"]),
        (("A.png", "a.png"), ["A.png", "a.png.png"]),
        (("a.jpg", "a.png/b.png"), ["a.jpg.png", "a.png/b.png"]),
        (("before-after.png",), ["before-after.png.png"]),
    ],
)
def test_a_name_is_kept_but_for_its_ending_unless_that_is_taken(names, found):
    assert named(*names) == found


def test_rows_are_numbered_so_that_names_sort_as_rows_do():
    assert denoising.files(pictures(13))[-1] == "row-00012.png"
    many = Images(np.zeros((100_001, 1, 1, 1), np.uint8), np.zeros(100_001, np.int64), (0,))
    names = denoising.files(many)
    assert names == sorted(names)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_image_is_written_as_it_is_rebuilt(tmp_path, shape, dtype):
    names = tuple(f"{'ab'[k % 2]}/{k}.jpg" for k in range(12))
    images = pictures(12, *shape, dtype=dtype, names=names)
    model = fitted(images)
    told = denoising.write(model, images, tmp_path / "new")
    assert told == (12, 12, None, None)
    files = denoising.files(images)
    assert written(tmp_path / "new") == sorted([*files, "before-after.png"])
    rebuilt = np.rint(255 * model.reconstruct(images.x).clip(0, 1))
    for k, name in enumerate(files):
        with Image.open(tmp_path / "new" / name) as image:
            found = np.asarray(image.convert("RGB" if shape[0] == 3 else "L"))
        expected = rebuilt[k].transpose(1, 2, 0) if shape[0] == 3 else rebuilt[k, 0]
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_errors_are_those_to_the_images_as_they_came(tmp_path, learner, kind):
    images = pictures()
    told = denoising.write(learner, images, tmp_path / "new", corruption(kind, 0.3))
    clean = images.x / 255
    files = [tmp_path / "new" / name for name in denoising.files(images)]
    found = np.stack([np.asarray(Image.open(path)) for path in files])[:, None] / 255
    assert told.denoised == pytest.approx(((found - clean) ** 2).mean(), abs=1e-3)
    with seeded("denoise", 0):
        noisy = corruption(kind, 0.3)(torch.from_numpy(clean.astype(np.float32))).numpy().clip(0, 1)
    assert told.noisy == pytest.approx(((noisy - clean) ** 2).mean())
    again = denoising.write(learner, images, tmp_path / "again", corruption(kind, 0.3))
    assert again == told
    for path in files:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_noise_of_level_0_changes_nothing(tmp_path, learner):
    told = denoising.write(learner, pictures(), tmp_path / "new", corruption("gaussian", 0))
    assert told.noisy == 0
    denoising.write(learner, pictures(), tmp_path / "plain")
    for name in denoising.files(pictures()):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("new", "plain"))
        assert one == other


def test_images_are_taken_a_part_at_a_time_and_progress_is_told(tmp_path, learner, monkeypatch):
    whole = denoising.write(learner, pictures(), tmp_path / "whole")
    monkeypatch.setattr(denoising, "PART_PIXELS", 5 * 64)
    said = []
    parts = denoising.write(learner, pictures(), tmp_path / "parts", n=7, progress=said.append)
    assert said == [5, 10, 12]
    assert whole.n == parts.n == 12
    assert parts.shown == 7
    for name in denoising.files(pictures()):
        one, other = (
            np.asarray(Image.open(tmp_path / folder / name)).astype(int)
            for folder in ("whole", "parts")
        )
        assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("n", [1, 5, 30])
def test_the_overview_has_a_row_more_where_noise_was_added(tmp_path, learner, n):
    denoising.write(learner, pictures(), tmp_path / "plain", n=n)
    denoising.write(learner, pictures(), tmp_path / "noisy", corruption("masking", 0.5), n=n)
    heights = []
    for folder in ("plain", "noisy"):
        with Image.open(tmp_path / folder / "before-after.png") as picture:
            heights.append(picture.height)
    assert 2 * heights[1] == 3 * heights[0]


def test_what_was_written_before_an_interruption_is_whole(tmp_path, learner, monkeypatch):
    monkeypatch.setattr(denoising, "PART_PIXELS", 5 * 64)

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoising.write(learner, pictures(), tmp_path / "new", progress=stop)
    assert written(tmp_path / "new") == [f"row-{row:05}.png" for row in range(5)]
    for path in (tmp_path / "new").iterdir():
        Image.open(path).load()


@pytest.mark.parametrize(
    ("place", "message"),
    [("full", "not empty"), ("file", "is a file"), ("gone/new", "make it first")],
)
def test_a_folder_that_cannot_be_filled_is_refused(tmp_path, learner, place, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=message):
        denoising.write(learner, pictures(), tmp_path / place)
    assert written(tmp_path) == ["file", "full/mine.txt"]


def test_a_learner_that_cannot_is_refused_and_nothing_is_written(tmp_path, learner):
    images = pictures()
    cnn = CNN("(4)3c-2p", epochs=1, random_state=0).fit(images.x, np.arange(12) % 2)
    with pytest.raises(InputError, match="cnn does not reconstruct images, and denoising needs"):
        denoising.write(cnn, images, tmp_path / "new")
    with pytest.raises(InputError, match="bring them to that size"):
        denoising.write(learner, pictures(3, 1, 9, 9), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_learner_says_whether_it_is_trained_to_undo_noise():
    assert CNN().undoes is None
    assert SWWAE().undoes is None
    assert SWWAE(noise=0.2).undoes == corruption("gaussian", 0.2)
    assert SWWAE(noise=0.2, reconstruction=0, middle=0).undoes is None


def test_a_learner_trained_to_undo_noise_takes_some_of_it_out(tmp_path):
    x = np.zeros((200, 1, 8, 8), np.uint8)  # bars, which are easy to learn
    x[np.arange(200), 0, :, np.arange(200) % 8] = 255
    images = Images(x, np.full(200, UNLABELED), ())
    model = SWWAE("(8)3c-2p", noise=0.3, epochs=20, batch_size=20, random_state=0).fit(x)
    told = denoising.write(model, images, tmp_path / "new", corruption("gaussian", 0.3))
    assert told.noisy is not None
    assert told.denoised is not None
    assert told.denoised < told.noisy / 2
    assert told.shown == panels.COLUMNS


def test_the_panel_shows_what_the_learner_is_trained_to_undo(learner, tmp_path):
    images = pictures()
    denoising.panel(tmp_path, learner, images)
    assert not list(tmp_path.iterdir())  # it undoes nothing
    noisy = DenoisingAutoencoder("20fc", level=0.4, epochs=2, random_state=0).fit(images.x)
    denoising.panel(tmp_path, noisy, images)
    told = json.loads((tmp_path / "denoising.json").read_text(encoding="utf-8"))
    assert "masking: 0.4" in told["caption"]
    assert (tmp_path / "denoising.png").exists()
