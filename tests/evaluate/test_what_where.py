import colorsys
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere import CNN, SWWAE
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import what_where


def noise(n=10, shape=(1, 8, 8), dtype=np.uint8, labeled=False):
    x = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    x = x if dtype == np.uint8 else x / np.float32(255)
    y = (np.arange(n) % 2 if labeled else np.full(n, UNLABELED)).astype(np.int64)
    return Images(x, y, ("a", "b") if labeled else ())


@given(size=st.integers(1, 6))
def test_each_place_of_a_window_has_a_color_of_its_own_and_none_is_white(size):
    table = what_where.colors(size).astype(int)
    assert table.shape == (size * size, 3)
    assert len(np.unique(table, axis=0)) == size * size
    assert (table.min(axis=1) < 200).all()


@given(size=st.integers(2, 9))
def test_opposite_places_have_opposite_hues(size):
    table = what_where.colors(size) / 255
    hues = np.array([colorsys.rgb_to_hsv(*color)[0] for color in table])
    away = np.abs(hues - hues[::-1])
    middle = size * size // 2 if size % 2 else None
    for place in range(size * size):
        if place != middle:
            assert away[place] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("dtype", "inactive"), [(np.int8, -1), (np.uint8, 255), (np.int16, -1)])
def test_inactive_windows_are_white_and_the_others_have_the_color_of_their_place(dtype, inactive):
    where = np.array([[0, 3], [inactive, 8]], dtype)
    painted = what_where.paint(where, 3)
    table = what_where.colors(3)
    assert painted[1, 0].tolist() == [255, 255, 255]
    assert (painted[[0, 0, 1], [0, 1, 1]] == table[[0, 3, 8]]).all()


@given(size=st.integers(1, 8), inactive=st.integers(0, 5))
def test_the_size_of_a_window_is_read_from_its_places(size, inactive):
    where = np.r_[np.arange(size * size), np.full(inactive, -1)].astype(np.int8)
    assert what_where._window(where) == size


def test_strong_maps_are_shown_first_with_their_own_where():
    what = np.zeros((1, 3, 1, 1), np.float32)
    what[0, :, 0, 0] = [0.0, 1.0, 0.25]
    where = np.array([-1, 3, 0], np.int8).reshape(1, 3, 1, 1)
    picture = what_where.picture(np.ones((1, 1, 8, 8), np.float32), [what], [where], [2])
    step, half = what_where.SIDE + 4, what_where.SIDE // 2
    middles = what_where.MARGIN + half + step * np.arange(3)
    seen = picture[step + half, middles]
    assert seen[:, 0].tolist() == [255, 64, 0]
    places = picture[2 * step + half, middles].astype(int)
    table = what_where.colors(2).astype(int)
    assert (places[0] == table[3]).all()
    # The weaker has the same hue, nearer to white: sqrt(0.25) is half of what it may lose.
    assert np.abs(places[1] - (255 - 0.6 * (255 - table[0]))).max() <= 1
    assert (places[2] == 255).all()


def test_images_of_different_classes_are_shown_where_classes_are_known():
    y = np.repeat(np.arange(4), 50).astype(np.int64)
    images = Images(np.zeros((200, 1, 4, 4), np.uint8), y, (0, 1, 2, 3))
    assert sorted(y[what_where._four(images)]) == [0, 1, 2, 3]
    hidden = np.where(np.arange(200) % 50 == 7, y, UNLABELED)
    rows = what_where._four(Images(images.x, hidden, images.classes))
    assert sorted(rows) == [7, 57, 107, 157]


@given(n=st.integers(1, 9), classes=st.integers(0, 5))
def test_no_image_is_shown_twice(n, classes):
    y = (np.arange(n) % classes if classes else np.full(n, UNLABELED)).astype(np.int64)
    rows = what_where._four(Images(np.zeros((n, 1, 2, 2), np.uint8), y, tuple(range(classes))))
    assert len(rows) == len(set(rows.tolist())) == min(n, 4)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 13), (1, 300, 100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("labeled", [True, False])
def test_a_picture_with_words_is_drawn_of_any_images(tmp_path, n, shape, dtype, labeled):
    images = noise(10, shape, dtype, labeled)
    learner = SWWAE("(2)3c-3p-(8)3c-2p", epochs=1, random_state=0)
    learner.fit(images.x, images.y if labeled else None)
    what_where.write(tmp_path, learner, images.take(np.arange(n)))
    words = json.loads((tmp_path / "what_where.json").read_text(encoding="utf-8"))
    assert words["order"] == 12
    assert "3 x 3 and 2 x 2" in words["caption"]
    assert f"{min(n, 4)} image" in words["caption"]
    with Image.open(tmp_path / "what_where.png") as picture:
        assert picture.width <= 930


@pytest.mark.parametrize(
    "learner", [CNN("(2)3c-2p", epochs=1), SWWAE("(2)3c", epochs=1), SWWAE("4fc", epochs=1)]
)
def test_nothing_is_drawn_where_there_is_no_what_and_where(tmp_path, learner):
    images = noise()
    what_where.write(tmp_path, learner.fit(images.x), images)
    assert not list(tmp_path.iterdir())
