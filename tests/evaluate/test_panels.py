import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whatwhere.evaluate import panels


def noise(k, c=1, h=8, w=8, seed=0):
    return np.random.default_rng(seed).random((k, c, h, w), dtype=np.float32)


def read(folder: Path, name: str):
    with Image.open(folder / f"{name}.png") as image:
        picture = np.asarray(image)
    return picture, json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def distinct(picture, side):
    """Shrink a picture of images without gaps: each enlarged pixel once."""
    return picture[side // 2 :: side, side // 2 :: side]


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_in_a_grid_is_enlarged_pixel_by_pixel(size, channels):
    images = np.random.default_rng(0).integers(0, 256, (12, channels, size, size), dtype=np.uint8)
    picture = panels.grid(images)
    side = (picture.shape[1] + panels.GAP) // 12 - panels.GAP
    factor = side // size
    assert side == factor * size
    assert factor >= 2
    for place in range(12):
        left = place * (side + panels.GAP)
        shown = distinct(picture[:side, left : left + side], factor)
        assert (shown == np.broadcast_to(images[place].transpose(1, 2, 0), shown.shape)).all()


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 32), (300, 400), (1, 64), (2000, 10)])
def test_a_row_of_twelve_images_fits_the_width_whatever_their_size(shape):
    picture = panels.grid(noise(12, 1, *shape))
    assert picture.shape[1] <= panels.WIDTH
    assert picture.shape[0] <= panels.WIDTH


def test_images_of_common_sizes_fill_most_of_the_width():
    for size in (8, 16, 28, 32, 64, 500):
        assert panels.grid(noise(12, 1, size, size)).shape[1] > 0.75 * panels.WIDTH


def test_a_row_that_is_not_full_ends_in_white():
    picture = panels.grid(np.zeros((5, 1, 8, 8), np.uint8), columns=3)
    height, width = (length + panels.GAP for length in picture.shape[:2])
    last = picture[height // 2 :, 2 * width // 3 :]
    assert (last == 255).all()
    assert (picture[0, : width // 3 - panels.GAP] == 0).all()


def test_bytes_and_floats_give_the_same_picture():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
    assert (panels.grid(images) == panels.grid(images / np.float32(255))).all()


def test_values_outside_the_range_are_cut_off_and_no_number_is_black():
    images = np.array([-3.0, 0.0, 1.0, 7.0, np.nan]).reshape(5, 1, 1, 1)
    seen = panels.grid(images, columns=5)[0, :: panels.LARGEST + panels.GAP, 0]
    assert seen.tolist() == [0, 0, 255, 255, 0]


def test_of_two_or_five_channels_the_mean_is_shown():
    for channels in (2, 5):
        images = noise(3, channels)
        expected = panels.grid(images.mean(axis=1, keepdims=True))
        assert np.abs(panels.grid(images).astype(int) - expected).max() <= 1


def test_each_image_stands_above_its_reconstruction():
    originals, rebuilt = noise(3, seed=1), noise(3, seed=2)
    picture = panels.pairs(originals, rebuilt)
    height = (picture.shape[0] - panels.GAP) // 2
    assert (picture[:height] == panels.grid(originals)).all()
    assert (picture[height + panels.GAP :] == panels.grid(rebuilt)).all()


def test_many_pairs_are_drawn_in_strips_of_one_width():
    images = noise(30)
    picture = panels.pairs(images, images)
    one = panels.pairs(images[:12], images[:12])
    assert picture.shape[1] == one.shape[1]
    assert (picture[: one.shape[0]] == one).all()
    assert picture.shape[0] == 3 * one.shape[0] + 2 * 3 * panels.GAP


def test_pictures_without_color_are_gray_files(tmp_path):
    panels.reconstructions(tmp_path, noise(2), noise(2))
    gray, _ = read(tmp_path, "reconstructions")
    panels.reconstructions(tmp_path, noise(2, 3), noise(2, 3))
    color, _ = read(tmp_path, "reconstructions")
    assert (gray.ndim, color.ndim) == (2, 3)


def test_the_words_of_reconstructions_tell_their_error(tmp_path):
    panels.reconstructions(tmp_path, np.zeros((2, 1, 4, 4)), np.full((2, 1, 4, 4), 0.5))
    assert "0.25" in read(tmp_path, "reconstructions")[1]["caption"]
    panels.reconstructions(tmp_path, noise(2), noise(2), 0.0123)
    assert "0.012" in read(tmp_path, "reconstructions")[1]["caption"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_is_scaled_about_gray(tmp_path, channels):
    weights = np.random.default_rng(0).normal(size=(4, channels, 5, 5))
    panels.filters(tmp_path, weights)
    picture, _ = read(tmp_path, "filters")
    panels.filters(tmp_path, -weights)
    negative, _ = read(tmp_path, "filters")
    inside = picture[:100, :100].astype(int)
    assert np.abs(inside + negative[:100, :100] - 255).max() <= 1
    panels.filters(tmp_path, 1e-6 * weights)
    assert (read(tmp_path, "filters")[0] == picture).all()


def test_a_filter_of_zeros_is_gray(tmp_path):
    panels.filters(tmp_path, np.zeros((1, 1, 3, 3)))
    picture, _ = read(tmp_path, "filters")
    assert np.unique(picture).tolist() == [128]


def test_of_many_filters_a_hundred_are_shown_and_the_words_say_so(tmp_path):
    panels.filters(tmp_path, noise(500, 1, 28, 28))
    picture, words = read(tmp_path, "filters")
    assert "first 100 of 500 filters" in words["caption"]
    assert picture.shape[1] <= panels.WIDTH


def guesses(n=40):
    truth = np.arange(n) % 4
    said = np.where(np.arange(n) % 2, truth, (truth + 1) % 4)  # every other one is wrong
    return noise(n), truth, said, np.linspace(0.3, 0.99, n)


def test_mistakes_are_the_wrong_ones_and_the_surest_come_first(tmp_path):
    images, truth, said, probability = guesses()
    panels.mistakes(tmp_path, images, truth, said, probability, most=6)
    _, words = read(tmp_path, "mistakes")
    assert [row["row"] for row in words["rows"]] == [38, 36, 34, 32, 30, 28]
    for row in words["rows"]:
        assert row["true"] == truth[row["row"]] != row["predicted"] == said[row["row"]]
        assert row["probability"] == probability[row["row"]]
    assert "6 surest of 20 mistakes among 40 images" in words["caption"]


def test_equally_sure_mistakes_keep_the_order_of_the_images(tmp_path):
    images, truth, said, _ = guesses()
    panels.mistakes(tmp_path, images, truth, said, np.full(40, 0.5), most=4)
    assert [row["row"] for row in read(tmp_path, "mistakes")[1]["rows"]] == [0, 2, 4, 6]


def test_a_mistake_is_told_by_its_file_where_there_is_one(tmp_path):
    images, truth, said, probability = guesses()
    names = [f"röst/{place}.png" for place in range(40)]
    panels.mistakes(tmp_path, images, truth, said, probability, names, most=2)
    rows = read(tmp_path, "mistakes")[1]["rows"]
    assert [row["file"] for row in rows] == ["röst/38.png", "röst/36.png"]
    assert all("row" not in row for row in rows)


def test_a_mistake_is_told_by_its_row_in_the_data_set(tmp_path):
    images, truth, said, probability = guesses()
    rows = 100 + np.arange(40)
    panels.mistakes(tmp_path, images, truth, said, probability, rows=rows, most=1)
    assert read(tmp_path, "mistakes")[1]["rows"][0]["row"] == 138


def test_without_a_mistake_there_is_no_picture(tmp_path):
    images, truth, _, probability = guesses()
    panels.mistakes(tmp_path, images, truth, truth, probability)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(1, "The only mistake among 40 images"), (3, "All 3 mistakes among 40 images")],
)
def test_the_words_count_the_mistakes(tmp_path, wrong, words):
    images, truth, _, probability = guesses()
    said = truth.copy()
    said[:wrong] += 1
    panels.mistakes(tmp_path, images, truth, said, probability)
    assert words in read(tmp_path, "mistakes")[1]["caption"]


def test_class_names_of_any_length_stay_in_their_column(tmp_path):
    names = np.array(["an extraordinarily long name of a class", "b" * 80, "c"])
    truth, said = np.array([0, 1, 2]), np.array([1, 0, 0])
    panels.mistakes(tmp_path, noise(3), names[truth], names[said], np.ones(3))
    picture, words = read(tmp_path, "mistakes")
    column = (picture.shape[1] + panels.GAP) // panels.MISTAKE_COLUMNS
    for place in range(1, 3):
        assert (picture[:, place * column - panels.GAP : place * column] == 255).all()
    assert words["rows"][0]["true"] == names[0]
    text = picture[panels.LARGEST : panels.LARGEST + panels.LINE, : column - panels.GAP]
    assert (text < 128).any()


def test_labels_are_drawn_below_the_images(tmp_path):
    white = np.ones((1, 1, 8, 8))
    panels.mistakes(tmp_path, white, np.array([1]), np.array([0]), np.array([0.5]))
    picture, _ = read(tmp_path, "mistakes")
    assert (picture[: panels.LARGEST] == 255).all()
    assert (picture[panels.LARGEST :] < 128).any()


def test_panels_have_words_and_an_order(tmp_path):
    images, truth, said, probability = guesses()
    panels.reconstructions(tmp_path, images, images)
    panels.filters(tmp_path, images)
    panels.mistakes(tmp_path, images, truth, said, probability)
    words = [read(tmp_path, name)[1] for name in ("reconstructions", "filters", "mistakes")]
    assert all(told["title"] and told["caption"] for told in words)
    assert all(before["order"] < after["order"] for before, after in pairwise(words))
    assert len(list(tmp_path.iterdir())) == 6
