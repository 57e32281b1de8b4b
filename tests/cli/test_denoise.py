"""Taking noise out of images, as a user meets it."""

import re

import numpy as np
import pytest
from PIL import Image

from whatwhere import CNN, SWWAE


@pytest.fixture
def run(photos, tmp_path):
    """A run that was trained to undo noise."""
    x, _ = photos.digits()
    return SWWAE("(4)3c-2p", noise=0.3, epochs=2, random_state=0).fit(x).save(tmp_path / "run")


def test_every_image_of_a_folder_is_denoised_under_its_own_name(photos, say, tmp_path, run):
    x, _ = photos.digits(6)
    names = ["a/0.png", "a/1.jpg", "b/0.png", "b/0.bmp", "b/2.png", "b/3.png"]
    photos.write_images(tmp_path / "photos", x, names)
    (tmp_path / "photos" / "b" / "broken.png").write_text("not an image")
    out = tmp_path / "clean"
    code, said, told = say("denoise", run, tmp_path / "photos", "--out", out, "-n", 4)
    assert code == 0, told
    assert f"6 denoised images in {out}, the first 4 before and after in {out}/before" in said
    assert "mean squared error" not in said
    assert "not trained to undo noise" not in told
    assert f"all in {tmp_path / 'clean-skipped.csv'}" in told
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    wanted = ["a/0.png", "a/1.png", "b/0.bmp.png", "b/0.png", "b/2.png", "b/3.png"]
    assert found == sorted([*wanted, "before-after.png"])
    with Image.open(out / "b/2.png") as image:
        assert image.size == (8, 8)


def test_noise_is_added_to_see_how_much_of_it_is_taken_out(say, tmp_path, run):
    out = tmp_path / "clean"
    words = ("denoise", run, "digits", "--split", "test", "--noise", "gaussian", "--out", out)
    code, said, _ = say(*words, "--level", "0.25")
    assert code == 0
    assert re.search(
        r"^Gaussian noise of deviation 0.25: mean squared error a pixel 0\.\d{5} with the noise, "
        r"0\.\d{5} denoised$",
        said,
        re.MULTILINE,
    )
    assert len(list(out.glob("row-*.png"))) == 599


def test_a_run_that_was_not_trained_to_undo_noise_says_so(photos, say, refused, tmp_path):
    x, _ = photos.digits()
    np.savez(tmp_path / "new.npz", x=x)
    plain = SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(x).save(tmp_path / "plain")
    code, _, told = say("denoise", plain, tmp_path / "new.npz", "--out", tmp_path / "clean")
    assert code == 0
    assert len(told.strip().splitlines()) == 1
    assert f"{plain} was not trained to undo noise" in told
    cnn = CNN("(4)3c-2p", epochs=1, random_state=0).fit(x, np.arange(len(x)) % 2)
    words = ("denoise", cnn.save(tmp_path / "cnn"), tmp_path / "new.npz", "--out", tmp_path / "no")
    assert "does not reconstruct" in refused(*words)
    assert not (tmp_path / "no").exists()


def test_denoised_images_are_not_written_over_others_nor_among_them(
    photos, refused, tmp_path, run, folder
):
    words = ("denoise", run, folder, "--out")
    assert "not empty" in refused(*words, run)
    assert "read as images" in refused(*words, folder / "clean")
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(*words, tmp_path / "file")
    assert not (folder / "clean").exists()
    large = ("denoise", run, folder, "--image-size", 9, "--out", tmp_path / "large")
    assert "--image-size 8" in refused(*large)
    assert not (tmp_path / "large").exists()
