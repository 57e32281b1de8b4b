import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from whatwhere import CNN, RBM
from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.data.sources import load
from whatwhere.evaluate import panels, sampling


@pytest.fixture(scope="module")
def images() -> Images:
    return load("digits").train.take(np.arange(100))


@pytest.fixture(scope="module")
def rbm(images: Images) -> RBM:
    return RBM(6, epochs=2, random_state=0).fit(images.x)


@pytest.fixture
def tiny() -> RBM:
    """Four pixels and three hidden units, with weights that matter: all 128 states are few."""
    model = RBM(3, epochs=1, random_state=0).fit(np.zeros((4, 1, 2, 2), np.uint8))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.module_.parameters():
            parameter.normal_(std=1.0)
    return model


def test_long_chains_show_each_pixel_as_often_as_the_machine_has_it(tiny):
    v = torch.tensor(np.stack(np.unravel_index(np.arange(16), (2,) * 4), 1)).float()
    with torch.no_grad():
        exact = torch.softmax(-tiny.module_.free_energy(v.view(16, 1, 2, 2)), 0) @ v
    n = 4000
    drawn = sampling.samples(tiny, n, steps=30).reshape(n, 4)
    # Means of pixels lie in [0, 1]: their deviation is at most 1/2.
    assert drawn.mean(axis=0) == pytest.approx(exact.numpy(), abs=4 * 0.5 / np.sqrt(n))


def test_the_same_seed_draws_the_same_and_another_one_other_images(rbm):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one = sampling.samples(rbm, 5, steps=3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(one, sampling.samples(rbm, 5, steps=3, seed=1))
    assert not np.array_equal(one, sampling.samples(rbm, 5, steps=3, seed=2))
    assert one.shape == (5, 1, 8, 8)
    assert one.min() >= 0
    assert one.max() <= 1


def test_noise_is_even_in_each_pixel(rbm):
    drawn = sampling.noise(rbm, 2000)
    assert drawn.shape == (2000, 1, 8, 8)
    assert drawn.mean(axis=0) == pytest.approx(np.full((1, 8, 8), 0.5), abs=5 * 0.29 / 2000**0.5)


def test_chains_begin_at_the_images_and_are_seen_at_each_moment(rbm, images):
    x = images.x[:4]
    seen = sampling.walk(rbm, x, [0, 1, 4])
    assert seen.shape == (3, 4, 1, 8, 8)
    assert seen[0] == pytest.approx(x / 255)
    assert not np.array_equal(seen[1], seen[2])
    # Looking on the way draws no numbers, so it changes nothing.
    assert np.array_equal(seen[2], sampling.walk(rbm, x, [4])[0])


@pytest.mark.parametrize(
    ("steps", "moments"),
    [(1, [0, 1]), (10, [0, 1, 10]), (500, [0, 1, 10, 100, 500]), (1000, [0, 1, 10, 100, 1000])],
)
def test_a_filmstrip_has_the_powers_of_ten_and_the_last_step(steps, moments):
    assert sampling.until(steps) == moments


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 20), (1, 200, 300)])
def test_a_filmstrip_has_a_row_a_chain_and_a_column_a_moment(shape):
    rng = np.random.default_rng(0)
    chains = {name: rng.uniform(size=(3, n, *shape)) for name, n in (("one", 2), ("other", 3))}
    moments = [0, 1, 1000]
    drawn = sampling.filmstrip(chains, moments)
    longer = sampling.filmstrip(chains | {"more": chains["one"]}, moments)
    row = (len(longer) - len(drawn)) // 2
    assert len(drawn) == 5 * row + panels.LINE + panels.GAP
    assert drawn.shape[1] <= panels.WIDTH + panels.GAP


def test_a_grid_and_a_filmstrip_beside_it_are_drawn(rbm, images, tmp_path):
    told = sampling.draw(rbm, tmp_path / "new.png", 10, steps=2)
    assert (told.n, told.shown) == (10, 8)
    assert told.filmstrip == tmp_path / "new-filmstrip.png"
    assert {path.name for path in tmp_path.iterdir()} == {"new.png", "new-filmstrip.png"}
    expected = sampling.grid(sampling.samples(rbm, 10, steps=2))
    with Image.open(tmp_path / "new.png") as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), expected)
    few = images.take(np.arange(3))
    assert sampling.draw(rbm, tmp_path / "other.png", 10, 2, images=few).n == 3


def test_which_images_chains_begin_at_depends_on_the_seed(rbm, images, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sampling.draw(rbm, tmp_path / f"{name}.png", 3, 1, seed, images)
    a, b, c = ((tmp_path / f"{name}-filmstrip.png").read_bytes() for name in "abc")
    assert a == b != c


def test_what_cannot_be_drawn_is_refused_and_nothing_written(rbm, images, tmp_path):
    cnn = CNN("(2)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    with pytest.raises(InputError, match=r"run of cnn does not draw.*--model rbm, dbn or dbm"):
        sampling.draw(cnn, tmp_path / "new.png")
    large = replace(images, x=np.zeros((100, 1, 9, 9), np.uint8))
    with pytest.raises(InputError, match="bring them to that size"):
        sampling.draw(rbm, tmp_path / "new.png", images=large)
    assert not list(tmp_path.iterdir())
    (tmp_path / "new-filmstrip.png").write_text("mine")
    with pytest.raises(InputError, match=r"new-filmstrip.png exists"):
        sampling.draw(rbm, tmp_path / "new.png")
    assert [path.name for path in tmp_path.iterdir()] == ["new-filmstrip.png"]


def test_the_panels_say_how_far_chains_went(rbm, images, tmp_path, monkeypatch):
    sampling.write(tmp_path, rbm, images)
    assert {path.name for path in tmp_path.glob("*.png")} == {"samples.png", "chains.png"}
    words = json.loads((tmp_path / "samples.json").read_text(encoding="utf-8"))
    assert "32 chains, begun at noise, after 1,000 steps" in words["caption"]
    # A large machine walks fewer steps, so that a panel takes seconds.
    monkeypatch.setattr(sampling, "EFFORT", 1)
    sampling.write(tmp_path, rbm, images)
    assert "after 10 steps" in json.loads((tmp_path / "samples.json").read_text())["caption"]


def test_a_learner_that_does_not_walk_has_no_samples(images, tmp_path):
    cnn = CNN("(2)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    sampling.write(tmp_path, cnn, images)
    assert not list(tmp_path.iterdir())
