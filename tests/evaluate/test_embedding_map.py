import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere import CNN
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images, hide_labels
from whatwhere.evaluate import embedding_map


def striped(n, c=1, h=8, w=8, classes=("left", "right"), names=False, dtype=np.uint8):
    rng = np.random.default_rng(0)
    y = (np.arange(n) % 2).astype(np.int64)
    x = rng.integers(0, 60, (n, c, h, w))
    x[y == 0, :, :, : w // 2] += 180
    x[y == 1, :, :, w // 2 :] += 180
    x = x.astype(np.uint8) if dtype == np.uint8 else (x / 255).astype(np.float32)
    return Images(x, y, classes, tuple(f"scans/{k}.png" for k in range(n)) if names else None)


def fitted(images, labeled=True):
    learner = CNN("(4)3c-2p", epochs=1, random_state=0)
    if not labeled:
        return learner.fit(images.x)
    learner.fit(images.x, images.y)
    learner.name_classes(images.classes)
    return learner


def read(folder):
    with Image.open(folder / "map.png") as image:
        picture = np.asarray(image)
    return picture, json.loads((folder / "map.json").read_text(encoding="utf-8"))


@given(n=st.integers(1, 12), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_places_lie_on_the_page_and_fill_one_axis(n, d, seed):
    embedded = np.random.default_rng(seed).normal(size=(n, d))
    places, method = embedding_map.layout(embedded)
    assert method == "PCA"
    assert places.shape == (n, 2)
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.ptp(places, axis=0).max() == pytest.approx(1.0 if n > 1 else 0.0)


@pytest.mark.parametrize("n", [10, 80])
def test_two_groups_of_embeddings_stay_two_groups_on_the_map(n):
    rng = np.random.default_rng(0)
    side = np.arange(n) % 2
    embedded = rng.normal(size=(n, 20)) + 40 * side[:, None]
    places, method = embedding_map.layout(embedded)
    assert method == ("t-SNE" if n >= 50 else "PCA")
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(n)
    assert (side[distance.argmin(axis=1)] == side).all()


def test_images_that_are_all_the_same_lie_in_the_middle():
    places, _ = embedding_map.layout(embedding_map.components(np.ones((60, 5)), 50))
    assert (places == 0.5).all()


def test_the_same_images_give_the_same_map(tmp_path):
    images = striped(70)
    told = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        embedding_map.write(tmp_path / name, fitted(images), images)
        told.append(read(tmp_path / name)[1])
    assert told[0] == told[1]


def test_each_point_tells_its_image(tmp_path):
    images = hide_labels(striped(40, names=True), np.arange(20))
    learner = fitted(images)
    embedding_map.write(tmp_path, learner, images)
    picture, words = read(tmp_path)
    assert (words["kind"], words["order"], words["tile"]) == ("map", 15, 32)
    assert picture.shape[:2] == (2 * 32, 30 * 32)
    for k, point in enumerate(words["points"]):
        assert point["tile"] == k
        assert point["file"] == f"scans/{k}.png"
        assert point["class"] == (images.classes[images.y[k]] if k < 20 else None)
        assert point["predicted"] == learner.predict(images.x[k : k + 1])[0]
        assert 0.5 <= point["probability"] <= 1
        row, column = divmod(k, words["columns"])
        shown = picture[32 * row : 32 * row + 32 : 4, 32 * column : 32 * column + 32 : 4]
        assert (shown == images.x[k, 0]).all()


def test_of_many_images_a_draw_is_shown_and_the_words_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_map, "MOST", 20)
    images = striped(64)
    embedding_map.write(tmp_path, fitted(images), images)
    words = read(tmp_path)[1]
    rows = [point["row"] for point in words["points"]]
    assert "20 of 64 images" in words["caption"]
    assert rows == sorted(set(rows))
    assert rows != list(range(20))
    for point in words["points"]:
        assert point["class"] == images.classes[images.y[point["row"]]]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_learner_without_classes_has_a_map_of_however_few_images(tmp_path, n, shape, dtype):
    train = striped(10, *shape, classes=(), dtype=dtype)
    few = Images(train.x[:n], np.full(n, UNLABELED), ())
    embedding_map.write(tmp_path, fitted(train, labeled=False), few)
    picture, words = read(tmp_path)
    assert picture.shape[:2] == (32, 32 * n)
    for point in words["points"]:
        assert point["class"] is point["predicted"] is point["probability"] is None


def test_an_image_that_is_not_square_has_white_borders():
    black = np.zeros((1, 1, 4, 8), np.uint8)
    tile = embedding_map.thumbnails(black)[:, :32]
    assert (tile[8:24] == 0).all()
    assert (tile[:8] == 255).all()
    assert (tile[24:] == 255).all()


def test_wide_embeddings_are_projected_and_keep_their_neighbors(monkeypatch):
    images = striped(30)
    learner = fitted(images)
    monkeypatch.setattr(embedding_map, "PART", 7)
    monkeypatch.setattr(embedding_map, "MOST_FEATURES", 10)
    monkeypatch.setattr(embedding_map, "PROJECTED", 20)
    embedded = embedding_map.embed(learner, images.x)
    assert embedded.shape == (30, 20)
    distance = np.linalg.norm(embedded[:, None] - embedded[None], axis=2) + 1e9 * np.eye(30)
    assert (images.y[distance.argmin(axis=1)] == images.y).all()


def test_large_images_are_fewer():
    assert len(embedding_map.draw(5000, 600, (1, 28, 28), "map")) == 600
    assert len(embedding_map.draw(5000, 600, (3, 256, 256), "map")) == 244
    assert len(embedding_map.draw(7, 600, (3, 4096, 4096), "map")) == 7
