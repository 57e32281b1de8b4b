import csv
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from whatwhere import CNN, SWWAE
from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import Images
from whatwhere.evaluate import judge, outliers
from whatwhere.learner import FeatureLearner


def scans(n=40, c=1, h=8, w=8, dtype=np.uint8, names=False):
    """Dark images; the last is noise."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (n, c, h, w)).astype(np.uint8)
    x[-1] = rng.integers(0, 256, (c, h, w))
    x = x if dtype == np.uint8 else x / np.float32(255)
    told = tuple(f"scans/{k:03}.png" for k in range(n)) if names else None
    return Images(x, np.full(n, UNLABELED), (), told)


def swwae(images):
    return SWWAE("(4)3c-2p", epochs=2, random_state=0).fit(images.x)


class MeanAndScore(torch.nn.Module):
    """The normal distribution around a mean image, with deviation 1."""

    mean: torch.Tensor

    def __init__(self, shape):
        super().__init__()
        self.register_buffer("mean", torch.full(shape, 0.08))

    def encode(self, x):
        return (x - self.mean).flatten(1)

    def score(self, x):
        return -self.encode(x).square().sum(1) / 2


class Rebuilding(MeanAndScore):
    def reconstruct(self, x):
        return self.mean.expand_as(x)


class Normal(FeatureLearner):
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}
    net = MeanAndScore

    def build(self, spec):
        return self.net(spec.shape)

    def stages(self, module, spec):
        return []


class NormalThatRebuilds(Normal):
    net = Rebuilding


@pytest.fixture(scope="module")
def fitted():
    return swwae(scans())


@pytest.mark.parametrize("kind", [Normal, NormalThatRebuilds])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_learner_that_scores_ranks_by_its_score_the_smallest_first(kind, dtype):
    images = scans(dtype=dtype)
    learner = kind().fit(images.x)
    unit = images.x / 255 if dtype == np.uint8 else images.x
    score = -((unit - 0.08) ** 2).sum(axis=(1, 2, 3)) / 2
    found = outliers.unusual(learner, images.x)
    assert found.dtype == np.float64
    assert found == pytest.approx(-score, rel=1e-5)
    table = outliers.rank(learner, images)
    assert list(table) == ["rank", "row", "score"]
    assert table["row"][0] == 39
    assert (np.diff(table["score"]) >= 0).all()
    assert np.array_equal(table["score"], -found[table["row"]])


def test_a_learner_that_only_reconstructs_ranks_by_its_errors(fitted):
    x = scans().x
    assert np.array_equal(outliers.unusual(fitted, x), outliers.errors(fitted, x))


@pytest.mark.parametrize("kind", [Normal, NormalThatRebuilds])
def test_the_gallery_of_a_learner_that_scores_shows_what_it_can(tmp_path, kind):
    images = scans()
    learner = kind().fit(images.x)
    outliers.write(learner, images, tmp_path / "odd.csv")
    with Image.open(tmp_path / "odd.png") as picture:
        drawn = np.asarray(picture)
    factor = 8 if kind is NormalThatRebuilds else 146 // 8
    cell = (900 - 4 * 5) // 6
    shown = (17 if kind is NormalThatRebuilds else 8) * factor
    left, head = (cell - shown) // 2, 2 * 18 + 2 * 4
    found = drawn[head : head + 8 * factor : factor, left : left + 8 * factor : factor]
    assert (found == images.x[39, 0]).all()


def test_images_of_another_size_are_not_scored():
    learner = Normal().fit(scans().x)
    with pytest.raises(InputError, match="bring them to that size"):
        outliers.unusual(learner, scans(h=9).x)


def test_the_errors_of_all_images_have_the_mean_of_the_whole(fitted):
    images = scans()
    found = outliers.errors(fitted, images.x)
    assert found.shape == (40,)
    assert found.mean() == pytest.approx(judge.reconstruction_mse(fitted, images.x), rel=1e-6)


def test_images_are_ranked_worst_first_and_each_once(fitted):
    images = scans()
    table = outliers.rank(fitted, images)
    assert list(table) == ["rank", "row", "reconstruction_mse", "times_median"]
    assert table["rank"].tolist() == list(range(1, 41))
    assert sorted(table["row"].tolist()) == list(range(40))
    assert (np.diff(table["reconstruction_mse"]) <= 0).all()
    assert table["row"][0] == 39
    median = np.median(table["reconstruction_mse"])
    assert table["times_median"] * median == pytest.approx(table["reconstruction_mse"])
    own = outliers.errors(fitted, images.x)
    assert np.array_equal(table["reconstruction_mse"], own[table["row"]])


def test_the_order_of_the_images_does_not_matter(fitted):
    images = scans(names=True)
    order = np.random.default_rng(1).permutation(40)
    one, other = outliers.rank(fitted, images), outliers.rank(fitted, images.take(order))
    assert one["file"].tolist() == other["file"].tolist()


def test_images_that_are_rebuilt_without_error_are_once_the_median():
    assert outliers._times_median(np.zeros(3)).tolist() == [1, 1, 1]
    assert outliers._times_median(np.array([0, 0, 2.0])).tolist() == [1, 1, np.inf]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_ranking_is_written_with_a_gallery_beside_it(tmp_path, fitted, ending):
    outliers.write(fitted, scans(names=True), tmp_path / f"worst.{ending}")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"worst.{ending}", "worst.png"])
    if ending == "csv":
        with (tmp_path / "worst.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows[0]["file"] == "scans/039.png"
        assert rows[0]["rank"] == "1"


@pytest.mark.parametrize("taken", ["worst.csv", "worst.png"])
def test_a_file_that_is_there_is_refused_and_nothing_is_written(tmp_path, fitted, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="exists"):
        outliers.write(fitted, scans(), tmp_path / "worst.csv")
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_a_learner_that_does_not_reconstruct_is_refused_and_the_way_out_is_named(tmp_path):
    images = replace(scans(), y=np.arange(40) % 2)
    cnn = CNN("(4)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    with pytest.raises(InputError, match=r"cnn does not reconstruct.*--model swwae"):
        outliers.write(cnn, images, tmp_path / "worst.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", [1, 2, 30])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 40), (1, 300, 200)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_gallery_is_drawn_of_any_images(tmp_path, n, shape, dtype):
    images = scans(max(n, 2), *shape, dtype=dtype).take(np.arange(n))
    learner = SWWAE("(2)3c-2p", epochs=1, random_state=0).fit(scans(2, *shape, dtype=dtype).x)
    outliers.write(learner, images, tmp_path / "worst.csv")
    with Image.open(tmp_path / "worst.png") as picture:
        assert 800 <= picture.width <= 900


def test_the_gallery_shows_the_worst_image_first_with_its_reconstruction(fitted):
    images = scans()
    picture = outliers.gallery(fitted, images)
    head = 2 * 18 + 2 * 4
    worst = images.x[39, 0]
    found = picture[head:, :, 0]
    factor = 8  # 8 pixels, one between, and 8 others fit eight times into 146
    cell = (900 - 4 * 5) // 6
    left = (cell - 17 * factor) // 2
    assert (found[: 8 * factor : factor, left : left + 8 * factor : factor] == worst).all()
    rebuilt = np.rint(255 * fitted.reconstruct(worst[None, None])[0, 0].clip(0, 1))
    right = left + 9 * factor
    assert (found[: 8 * factor : factor, right : right + 8 * factor : factor] == rebuilt).all()
