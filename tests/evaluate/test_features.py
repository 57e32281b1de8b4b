from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from whatwhere import CNN, DBN, RBM, SWWAE, Autoencoder, StackedAutoencoder, Whitening
from whatwhere.core import HasLevels, HasWhere, InputError
from whatwhere.data.rows import Rows
from whatwhere.evaluate.features import POOLS, as_seen, features, level_names, quadrants
from whatwhere.learner import infer

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 8, "random_state": 0}
ARCHITECTURE = "(4)3c-3p-(5)3c-2p-6fc"  # windows that the border clips


def images(n=24, shape=(1, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def swwae():
    return SWWAE(ARCHITECTURE, **SHORT).fit(images())


LEARNERS = {
    "swwae": lambda: SWWAE("(4)3c-2p-(5)3c", **SHORT).fit(images()),
    "cnn": lambda: CNN(ARCHITECTURE, **SHORT).fit(images(), np.arange(24) % 2),
    "no layer": lambda: CNN("2fc", **SHORT).fit(images(), np.arange(24) % 2),
    "autoencoder": lambda: Autoencoder("(3)3c-2p-4fc", **SHORT).fit(images()),
    "stacked": lambda: StackedAutoencoder("6fc-4fc", random_state=0).fit(images()),
    "dbn": lambda: DBN("6fc-4fc", random_state=0).fit(images()),
    "dbn with classes": lambda: DBN("6fc-4fc", random_state=0).fit(images(), np.arange(24) % 2),
    "rbm": lambda: RBM(5, random_state=0).fit(images()),
    "whitening": lambda: Whitening().fit(images()),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_the_top_is_what_transform_gives_and_all_is_the_levels_side_by_side(name):
    learner = LEARNERS[name]()
    np.testing.assert_array_equal(features(learner, images(5)), learner.transform(images(5)))
    names = level_names(learner)
    assert names == [f"level{number}" for number in range(1, len(names) + 1)]
    each = [features(learner, images(5), level=level, pool="max") for level in names]
    joined = features(learner, images(5), level="all", pool="max")
    np.testing.assert_array_equal(joined, np.concatenate(each, axis=1))
    assert joined.dtype == np.float32


def test_the_levels_of_an_autoencoder_are_maps_first_and_its_code_last():
    learner = LEARNERS["autoencoder"]()
    first, code = (features(learner, images(3), level=name) for name in level_names(learner))
    assert (first.shape, code.shape) == ((3, 3 * 4 * 4), (3, 4))


def test_levels_of_a_swwae_are_its_what_and_the_dense_layers(swwae):
    what, _ = swwae.what_where(images(5))
    levels = [features(swwae, images(5), level=name) for name in level_names(swwae)]
    assert len(levels) == 3
    for level, maps in zip(levels, what, strict=False):
        np.testing.assert_array_equal(level, maps.reshape(5, -1))


def levels_of(learner, x, function):
    (found,) = infer(learner.module_, Rows(x), function)
    return list(found.values())


def test_what_and_where_summed_over_the_places_is_what(swwae):
    assert isinstance(swwae.module_, HasWhere)
    plain = levels_of(swwae, images(5), lambda net, x: net.levels(x))
    spread = levels_of(swwae, images(5), lambda net, x: net.levels_with_where(x))
    for maps, places, p in zip(plain, spread, (3, 2), strict=False):
        b, c, h, w = maps.shape
        assert places.shape == (b, c * p * p, h, w)
        split = places.view(b, c, p * p, h, w)
        assert torch.equal(split.sum(dim=2), maps)
        assert int((split != 0).sum(dim=2).max()) == 1
    assert torch.equal(plain[2], spread[2]), "a dense layer knows of no place"


def test_what_and_where_is_the_unpooled_map_space_to_depth(swwae):
    spread = levels_of(swwae, images(5), lambda net, x: net.levels_with_where(x))
    (code,) = infer(swwae.module_, Rows(images(5)), lambda net, x: net.encoder(x))
    pools = [step for step in swwae.module_.encoder.steps if hasattr(step, "unpool")]
    for pool, what, where, places in zip(pools, code.what, code.where, spread, strict=False):
        whole = (what.shape[2] * pool.size, what.shape[3] * pool.size)
        assert torch.equal(F.pixel_unshuffle(pool.unpool(what, where, whole), pool.size), places)


def test_a_constant_map_has_constant_quadrants():
    maps = torch.full((2, 3, 5, 7), 0.25)
    assert torch.equal(quadrants(maps), torch.full((2, 3, 2, 2), 0.25))


@pytest.mark.parametrize("axis", [2, 3])
def test_quadrants_of_a_mirrored_map_are_the_mirrored_quadrants(axis):
    maps = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quadrants(maps.flip(axis)), quadrants(maps).flip(axis))


@pytest.mark.parametrize("height", range(2, 8))
@pytest.mark.parametrize("width", range(2, 8))
def test_quadrants_are_torchs_adaptive_pooling(height: int, width: int, generator):
    maps = torch.randn(2, 3, height, width, generator=generator)
    assert torch.equal(quadrants(maps), F.adaptive_max_pool2d(maps, 2))


def test_quadrants_are_the_maxima_of_four_quarters_and_small_maps_stay():
    maps = torch.arange(32.0).view(1, 2, 4, 4)
    by_hand = [
        [maps[0, c, i : i + 2, j : j + 2].max() for i in (0, 2) for j in (0, 2)] for c in (0, 1)
    ]
    assert quadrants(maps).flatten(2)[0].tolist() == by_hand
    line = torch.rand(1, 2, 1, 5)
    assert quadrants(line).shape == (1, 2, 1, 2)
    assert torch.equal(quadrants(line[..., :1]), line[..., :1])


def test_what_is_left_of_a_level_is_as_the_pool_says(swwae):
    lengths = {
        pool: features(swwae, images(2), level="level1", pool=pool).shape[1] for pool in POOLS
    }
    assert lengths == {"none": 4 * 9, "quadrants": 4 * 4, "mean": 4, "max": 4}
    vectors = [features(swwae, images(2), level="level3", pool=pool) for pool in POOLS]
    assert all((vector == vectors[0]).all() for vector in vectors)
    spread = features(swwae, images(2), level="level1", pool="quadrants", where=True)
    assert spread.shape == (2, 4 * 9 * 4)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"level": "level9"}, "no level is called 'level9'; did you mean level"),
        ({"level": "top"}, "there are level1, level2, level3, all"),
        ({"pool": "sum"}, "no way to pool is called 'sum'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(swwae, asked, words):
    with pytest.raises(InputError, match=words):
        features(swwae, images(2), **asked)


def test_where_is_refused_of_a_learner_that_keeps_none():
    learner = Whitening().fit(images())
    assert not isinstance(learner.module_, HasLevels)
    with pytest.raises(InputError, match="whitening does not keep where"):
        features(learner, images(2), where=True)


def test_images_of_another_size_are_refused_until_they_are_brought_to_it(swwae):
    others = images(4, (3, 16, 12))
    with pytest.raises(InputError, match="as_seen brings them"):
        features(swwae, others)
    assert features(swwae, as_seen(swwae, others)).shape == (4, 6)


def test_images_of_the_learners_own_kind_stay_the_same_array(swwae):
    own = images(3)
    assert as_seen(swwae, own) is own


def test_gray_becomes_color_by_repeating_and_color_gray_by_its_luma(swwae):
    color = SWWAE("(2)3c-2p", **SHORT).fit(images(shape=(3, 8, 8)))
    gray = images(4)
    np.testing.assert_array_equal(as_seen(color, gray), gray.repeat(3, axis=1))
    colored = images(4, (3, 8, 8))
    by_pillow = [np.asarray(Image.fromarray(x.transpose(1, 2, 0)).convert("L")) for x in colored]
    seen = as_seen(swwae, colored)
    assert seen.dtype == np.uint8
    assert np.abs(seen[:, 0].astype(int) - np.array(by_pillow)).max() <= 1
    np.testing.assert_array_equal(as_seen(swwae, as_seen(color, gray)), gray)


def test_other_sizes_are_resized_as_pillow_does(swwae):
    large = images(4, (1, 20, 13))
    by_pillow = [
        np.asarray(Image.fromarray(x[0]).resize((8, 8), Image.Resampling.BILINEAR)) for x in large
    ]
    assert np.abs(as_seen(swwae, large)[:, 0].astype(int) - np.array(by_pillow)).max() <= 1


def test_floats_stay_floats_in_their_range(swwae):
    large = images(4, (1, 20, 13)) / np.float32(255)
    seen = as_seen(swwae, large)
    assert seen.dtype == np.float32
    assert seen.min() >= large.min()
    assert seen.max() <= large.max()
    from_bytes = as_seen(swwae, images(4, (1, 20, 13)))
    assert np.abs(seen * 255 - from_bytes).max() < 0.51


def test_other_channels_are_refused(swwae):
    with pytest.raises(InputError, match="images of 4 channels, but the learner was fitted to 1"):
        as_seen(swwae, images(2, (4, 8, 8)))
