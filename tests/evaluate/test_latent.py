import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere import CNN, SWWAE, Autoencoder
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import latent, panels


def pictures(n=60, c=1, h=8, w=8):
    x = np.random.default_rng(0).integers(0, 256, (n, c, h, w)).astype(np.uint8)
    return Images(x, np.arange(n) % 3, (0, 1, 2))


def coder(k, images):
    """An auto-encoder whose codes are k numbers."""
    model = Autoencoder(f"{k}fc", code_activation="identity", epochs=1, random_state=0)
    return model.fit(images.x)


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def words(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def gaussian(deviations, m=400, seed=0):
    """Codes with these deviations along rotated axes, which are returned too."""
    rng = np.random.default_rng(seed)
    k = len(deviations)
    turn = np.linalg.qr(rng.normal(size=(k, k)))[0]
    return rng.normal(size=(m, k)) * deviations @ turn.T + 3, turn


@given(seed=st.integers(0, 50), k=st.integers(2, 12), m=st.integers(20, 200))
def test_walks_go_along_the_eigenvectors_of_the_covariance_by_its_deviations(seed, k, m):
    codes, _ = gaussian(np.geomspace(30, 1, k), m, seed)
    found = latent.walks(codes)
    variances, directions = np.linalg.eigh(np.cov(codes.T))
    n = min(latent.WALKS, k)
    assert found.principal
    assert found.codes.shape == (n, latent.STEPS, k)
    assert found.parts == pytest.approx(variances[::-1][:n] / variances.sum())
    ends = found.codes[:, -1] - codes.mean(axis=0)
    expected = 2 * np.sqrt(variances[::-1][:n, None]) * directions.T[::-1][:n]
    sign = np.sign((ends * expected).sum(axis=1, keepdims=True))
    assert ends == pytest.approx(sign * expected, abs=1e-6)


@given(seed=st.integers(0, 50), k=st.integers(1, 8))
def test_a_walk_is_straight_and_even_with_the_mean_code_in_its_middle(seed, k):
    codes, _ = gaussian(np.geomspace(5, 1, k), 50, seed)
    found = latent.walks(codes).codes
    middle = found[:, latent.STEPS // 2]
    assert middle == pytest.approx(np.broadcast_to(codes.mean(axis=0), middle.shape))
    steps = np.diff(found, axis=1)
    assert steps == pytest.approx(np.broadcast_to(steps[:, :1], steps.shape))


@pytest.mark.parametrize(("m", "k"), [(400, 3), (400, 50), (200, 300)])
def test_where_no_direction_is_wider_than_chance_single_numbers_are_changed(m, k):
    codes, _ = gaussian(np.ones(k), m)
    found = latent.walks(codes)
    assert not found.principal
    away = found.codes - codes.mean(axis=0)
    for number in range(min(k, latent.WALKS)):
        assert not np.delete(away[number], number, axis=1).any()
    ends = 2 * codes.std(axis=0)[: len(away)]
    assert [away[number, -1, number] for number in range(len(away))] == pytest.approx(ends)
    wide, _ = gaussian(np.array([4.0] + [1.0] * (k - 1)), m)
    assert latent.walks(wide).principal


def test_a_number_that_is_always_the_same_is_no_direction():
    codes, _ = gaussian(np.array([2.0, 1.0]), 100)
    found = latent.walks(np.pad(codes, ((0, 0), (1, 2)), constant_values=0.5))
    assert len(found.parts) == 2
    assert found.codes[..., [0, 3, 4]] == pytest.approx(0.5)


def test_an_axis_goes_from_below_5_to_above_95_percent_of_the_codes():
    codes = np.random.default_rng(0).exponential(size=(1000, 2)) * [1, 100]
    cut = latent.axes(codes)
    assert cut.shape == (2, latent.SIDE)
    for values, own in zip(cut, codes.T, strict=True):
        assert (np.diff(values) > 0).all()
        assert (own < values[0]).mean() == pytest.approx(0.05, abs=0.002)
        assert (own > values[-1]).mean() == pytest.approx(0.05, abs=0.002)
        assert values[latent.SIDE // 2] == pytest.approx(np.median(own))


def test_a_way_between_images_begins_and_ends_with_their_own_reconstructions():
    images = pictures()
    model = coder(5, images)
    one, other = images.x[:4], images.x[4:8]
    codes = latent.between(model.transform(one), model.transform(other))
    decoded = latent.decode(model, codes).reshape(4, latent.STEPS, *one.shape[1:])
    assert decoded[:, 0] == pytest.approx(model.reconstruct(one), abs=1e-5)
    assert decoded[:, -1] == pytest.approx(model.reconstruct(other), abs=1e-5)
    middle = (model.transform(one) + model.transform(other)) / 2
    assert codes[:, latent.STEPS // 2] == pytest.approx(middle, abs=1e-5)


@given(y=st.lists(st.integers(-1, 2), max_size=30))
def test_no_image_is_in_two_pairs_and_labels_differ_where_they_can(y):
    y = np.array(y, dtype=np.int64)
    one, other = latent.pairs(y)
    assert len(one) == len(other) == min(latent.PAIRS, len(y) // 2)
    assert len({*one, *other}) == 2 * len(one)
    again = latent.pairs(y)
    assert (one == again[0]).all()
    assert (other == again[1]).all()
    used: set[int] = {*one.tolist()}
    for first, second in zip(one.tolist(), other.tolist(), strict=True):
        free = [row for row in range(len(y)) if row not in used]
        if y[first] == y[second]:
            assert all(y[row] == y[first] for row in free)
        used.add(second)


@pytest.mark.parametrize(
    ("k", "names"),
    [
        (1, ["latent_walks"]),
        (2, ["latent_grid"]),
        (3, ["latent_between", "latent_walks"]),
        (40, ["latent_between", "latent_walks"]),
    ],
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 20), (1, 120, 10)])
def test_short_codes_are_drawn_whole_and_of_longer_ones_there_are_walks(tmp_path, k, names, shape):
    images = pictures(40, *shape)
    latent.write(tmp_path, coder(k, images), images)
    assert written(tmp_path) == sorted(f"{name}.{end}" for name in names for end in ("json", "png"))
    for name in names:
        assert "decoder never learned" in words(tmp_path, name)["caption"]
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert 500 <= picture.width <= 900


def test_the_grid_has_small_codes_at_the_lower_left(tmp_path):
    images = pictures()
    model = coder(2, images)
    latent.write(tmp_path, model, images)
    assert "codes of 60 images" in words(tmp_path, "latent_grid")["caption"]
    across, up = latent.axes(model.transform(images.x))
    with Image.open(tmp_path / "latent_grid.png") as picture:
        drawn = np.asarray(picture.convert("RGB"))
    side, head = 56, panels.LINE + panels.GAP
    step = side + panels.GAP
    last = latent.SIDE - 1
    for row, column in ((0, 0), (last, 0), (0, last), (4, 7)):
        code = np.array([[across[column], up[last - row]]])
        expected = panels.color(latent.decode(model, code))[0]
        top, left = head + row * step, latent.GRID_MARGIN + column * step
        assert (drawn[top : top + side : 7, left : left + side : 7] == expected).all()


def test_what_does_not_decode_or_has_one_code_only_gets_no_picture(tmp_path):
    images = pictures()
    latent.write(tmp_path, SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(images.x), images)
    cnn = CNN("(4)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    latent.write(tmp_path, cnn, images)
    same = Images(np.full((4, 1, 8, 8), 9, np.uint8), np.full(4, UNLABELED), ())
    latent.write(tmp_path, coder(3, images), same)
    assert not written(tmp_path)


def test_one_image_is_no_way_between_two(tmp_path):
    images = pictures()
    latent.write(tmp_path, coder(3, images), images.take([0]))
    assert not written(tmp_path)
