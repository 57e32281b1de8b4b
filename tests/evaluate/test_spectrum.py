import json

import numpy as np
import pytest
from PIL import Image

from whatwhere import CNN, Whitening
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import spectrum


def smooth(n=30, shape=(1, 8, 8), dead=0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, *shape)).cumsum(axis=2).cumsum(axis=3)
    x = (255 * (x - x.min()) / np.ptp(x)).astype(np.uint8)
    x[:, :, :dead] = 7
    return Images(x, np.full(n, UNLABELED), ())


def words(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("zca", {"spectrum", "code_images"}),
        ("pca", {"spectrum"}),
        ("standardize", {"code_images"}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_module_shows_what_it_has(tmp_path, kind, files, channels):
    images = smooth(shape=(channels, 8, 8))
    spectrum.write(tmp_path, Whitening(kind).fit(images.x), images)
    assert {path.stem for path in tmp_path.glob("*.png")} == files
    assert {path.stem for path in tmp_path.glob("*.json")} == files
    for name in files:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width <= 900 and picture.height > 20
        assert words(tmp_path, name)["title"] and words(tmp_path, name)["caption"]


def test_a_learner_without_either_shows_nothing(tmp_path):
    images = smooth()
    y = np.arange(30) % 2
    spectrum.write(tmp_path, CNN("(2)3c-2p", epochs=1, random_state=0).fit(images.x, y), images)
    assert not list(tmp_path.iterdir())


def test_images_that_are_all_the_same_have_no_spectrum_to_draw(tmp_path):
    images = Images(np.full((4, 1, 5, 5), 9, np.uint8), np.full(4, UNLABELED), ())
    spectrum.write(tmp_path, Whitening().fit(images.x), images)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"code_images"}


def test_the_caption_counts_what_is_there(tmp_path):
    images = smooth(n=200, dead=3)
    model = Whitening("pca", eps=0.0, n_components=4).fit(images.x)
    spectrum.write(tmp_path, model, images)
    caption = words(tmp_path, "spectrum")["caption"]
    x = images.x.reshape(200, -1) / 255
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    share = values.cumsum() / values.sum()
    assert f"their {64} principal" in caption
    assert "along 24 there is none" in caption
    assert f"keeps 4 of them, with {100 * share[3]:.1f} % of it" in caption
    half = int((share < 0.5).sum()) + 1
    assert ("The first holds half" if half == 1 else f"The first {half} hold half") in caption
    assert "Along 4 it is more than a half" in caption


def test_a_code_of_0_is_gray_and_only_strays_are_cut_off():
    codes = np.random.default_rng(0).normal(size=(5, 1, 10, 10))
    codes[0, 0, 0, 0], codes[1, 0, 0, 0] = 0, 1000
    shown = spectrum.shades(codes)
    assert shown[0, 0, 0, 0] == 0.5 and shown.min() >= 0 and shown.max() == 1
    assert ((shown == 0) | (shown == 1)).mean() < 0.02
    assert (np.sign(shown - 0.5) == np.sign(codes)).all()
    assert (spectrum.shades(np.zeros((2, 1, 3, 3))) == 0.5).all()


def test_the_graph_does_not_depend_on_the_readers_settings():
    import matplotlib as mpl

    before, after = np.array([2.0, 0.5, 0.0]), np.array([1.0, 0.9])
    plain = spectrum.plot(before, after)
    assert plain.shape == (432, 900, 3) and plain.dtype == np.uint8
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):
        np.testing.assert_array_equal(spectrum.plot(before, after), plain)
