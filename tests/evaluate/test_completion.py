import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere import CNN, RBM, SWWAE
from whatwhere.core import UNLABELED, HasFreeEnergy, InputError
from whatwhere.data.images import Images
from whatwhere.data.sources import load
from whatwhere.evaluate import completion

HALVES = ["left", "right", "top", "bottom"]


def pictures(n=12, c=1, h=8, w=8, dtype=np.uint8):
    x = np.random.default_rng(0).integers(0, 256, (n, c, h, w)).astype(np.uint8)
    x = x if dtype == np.uint8 else x / np.float32(255)
    return Images(x, np.full(n, UNLABELED), ())


@pytest.fixture(scope="module")
def learner():
    return SWWAE("(4)3c-2p", epochs=2, random_state=0).fit(pictures().x)


@given(h=st.integers(2, 40), w=st.integers(2, 40))
def test_a_half_hides_the_half_that_its_opposite_shows(h, w):
    for one, other in (("left", "right"), ("top", "bottom")):
        first, second = (completion.mask(name, (1, h, w)) for name in (one, other))
        assert not (first & second).any()
        assert (first == second[::-1, ::-1]).all()
        assert first.sum() >= h * w / 3
    assert completion.mask("left", (1, h, w))[:, 0].all()
    assert completion.mask("top", (1, h, w))[0].all()


@given(size=st.integers(1, 10).map(lambda n: 4 * n))
def test_the_center_is_a_quarter_of_the_image(size):
    hidden = completion.mask("center", (3, size, size))
    assert hidden.mean() == 0.25
    assert (hidden == hidden[::-1, ::-1]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_black_in_a_file_is_hidden_whatever_its_mode(tmp_path, mode):
    gray = np.full((4, 6), 255, np.uint8)
    gray[1, 2:5] = 0
    image = Image.fromarray(gray)
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "mask.png")
    hidden = completion.mask(str(tmp_path / "mask.png"), (3, 4, 6))
    assert (hidden == (gray == 0)).all()


def test_the_threshold_of_a_file_is_128(tmp_path):
    Image.fromarray(np.array([[127, 128]], np.uint8)).save(tmp_path / "mask.png")
    assert completion.mask(str(tmp_path / "mask.png"), (1, 1, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("value", "size", "message"),
    [
        (0, (8, 8), "hides everything"),
        (255, (8, 8), "hides nothing"),
        (0, (8, 9), r"has 9 x 8 pixels \(width x height\), and the images have 8 x 8"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(tmp_path, value, size, message):
    path = tmp_path / "mask.png"
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    with pytest.raises(InputError, match=message):
        completion.mask(str(path), (1, 8, 8))


def test_a_mask_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("text")
    for spec, message in (
        ("diagonal", "left, right, top, bottom, center or a FILE.png"),
        (str(tmp_path / "gone.png"), "no such file"),
        (str(tmp_path / "text.png"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            completion.mask(spec, (1, 8, 8))
    with pytest.raises(InputError, match="hides nothing"):
        completion.mask("left", (1, 8, 1))
    with pytest.raises(InputError, match="hides everything"):
        completion.mask("center", (1, 3, 3))


@pytest.mark.parametrize("spec", [*HALVES, "center"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_seen_stays_and_what_is_hidden_is_not_looked_at(learner, spec, dtype):
    hidden = completion.mask(spec, (1, 8, 8))
    x = pictures(dtype=dtype).x
    completed = completion.complete(learner, x, hidden)
    unit = x / np.float32(255) if dtype == np.uint8 else x
    assert np.array_equal(completed[..., ~hidden], unit[..., ~hidden])
    assert completed.dtype == np.float32
    assert completed.min() >= 0
    assert completed.max() <= 1
    other = x.copy()
    other[..., hidden] = 0
    assert np.array_equal(completion.complete(learner, other, hidden), completed)


def test_completion_begins_with_the_mean_of_what_is_seen_in_each_channel(learner):
    x = pictures(3, 3).x
    hidden = completion.mask("top", (3, 8, 8))
    start = completion.complete(learner, x, hidden, steps=0)
    expected = (x[:, :, 4:] / 255).mean(axis=(2, 3))
    assert start[:, :, :4] == pytest.approx(
        np.broadcast_to(expected[..., None, None], (3, 3, 4, 8))
    )


def test_one_step_takes_the_hidden_pixels_from_the_reconstruction(learner):
    x = pictures().x
    hidden = completion.mask("left", (1, 8, 8))
    start = completion.complete(learner, x, hidden, steps=0)
    once = completion.complete(learner, x, hidden, steps=1)
    assert np.array_equal(once, np.where(hidden, learner.reconstruct(start).clip(0, 1), start))
    assert np.abs(once - start).max() > 0


def test_an_image_is_completed_whatever_stands_beside_it(learner):
    x = pictures().x
    hidden = completion.mask("bottom", (1, 8, 8))
    other = np.concatenate([x[:1], x[:0:-1]])  # as many: other sizes of a batch round otherwise
    one, again = (completion.complete(learner, images, hidden, steps=2) for images in (x, other))
    assert one[0] == pytest.approx(again[0], abs=1e-5)
    assert one[1:] != pytest.approx(again[1:], abs=1e-2)


@pytest.mark.parametrize("n", [1, 2, 30])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 20), (1, 60, 40)])
def test_a_picture_is_drawn_and_the_errors_are_those_of_hidden_pixels(tmp_path, n, shape):
    images = pictures(max(n, 2), *shape)
    learner = SWWAE("(2)3c-2p", epochs=1, random_state=0).fit(images.x)
    hidden = completion.mask("right", shape)
    told = completion.draw(learner, images, n, hidden, tmp_path / "new.png")
    x = images.x[:n]
    wrong = (completion.complete(learner, x, hidden) - x / 255)[..., hidden]
    assert told["n"] == n
    assert told["hidden"] == 0.5
    assert told["mse"] == pytest.approx((wrong**2).mean())
    start = (completion.complete(learner, x, hidden, steps=0) - x / 255)[..., hidden]
    assert told["mse_start"] == pytest.approx((start**2).mean())
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.width <= 1010
    assert [path.name for path in tmp_path.iterdir()] == ["new.png"]


def test_a_learner_that_does_not_reconstruct_is_refused(tmp_path):
    images = pictures()
    cnn = CNN("(4)3c-2p", epochs=1, random_state=0).fit(images.x, np.arange(12) % 2)
    hidden = completion.mask("left", (1, 8, 8))
    with pytest.raises(InputError, match=r"completing images needs that.*--model swwae"):
        completion.draw(cnn, images, 3, hidden, tmp_path / "new.png")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_refused(tmp_path, learner):
    (tmp_path / "new.png").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        completion.draw(
            learner, pictures(), 3, completion.mask("left", (1, 8, 8)), tmp_path / "new.png"
        )
    assert (tmp_path / "new.png").read_text() == "mine"


@pytest.fixture(scope="module")
def digits():
    return load("digits").train.take(np.arange(200))


@pytest.fixture(scope="module")
def machine(digits):
    return RBM(24, epochs=15, random_state=0).fit(digits.x[:150])


def test_completions_are_drawn_as_often_as_the_machine_has_them():
    """All 16 images of 4 pixels, of which 2 are known: the mean of draws is the exact one."""
    model = RBM(3, epochs=1, random_state=0).fit(np.zeros((4, 1, 2, 2), np.uint8))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.module_.parameters():
            parameter.normal_(std=1.0)
        hidden, module = completion.mask("left", (1, 2, 2)), model.module_
        assert isinstance(module, HasFreeEnergy)
        for known in ((0, 0), (0, 1), (1, 1)):
            whole = torch.zeros(4, 1, 2, 2)
            whole[:, 0, :, 1] = torch.tensor(known).float()
            whole[:, 0, :, 0] = torch.tensor([(0, 0), (0, 1), (1, 0), (1, 1)]).float()
            exact = torch.softmax(-module.free_energy(whole), 0) @ whole[..., 0].flatten(1)
            drawn = completion.draws(model, whole[:1].numpy(), hidden, 4000, steps=20)
            mean = drawn.mean(axis=0)[0, 0, :, 0]
            assert mean == pytest.approx(exact.numpy(), abs=4 * 0.5 / np.sqrt(4000))


def test_each_draw_keeps_what_is_seen_and_does_not_look_at_what_is_hidden(machine, digits):
    hidden = completion.mask("top", (1, 8, 8))
    x = digits.x[150:157]
    drawn = completion.draws(machine, x, hidden, 3, steps=4)
    assert drawn.shape == (3, 7, 1, 8, 8)
    seen = np.broadcast_to((x / 255).astype(np.float32), drawn.shape)
    assert np.array_equal(drawn[..., ~hidden], seen[..., ~hidden])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert not np.array_equal(drawn[0], drawn[1])
    other = x.copy()
    other[..., hidden] = 0
    assert np.array_equal(completion.draws(machine, other, hidden, 3, steps=4), drawn)
    assert not np.array_equal(completion.draws(machine, x, hidden, 3, 4, seed=1), drawn)


def test_the_parts_of_many_images_are_put_together_in_order(machine, digits, monkeypatch):
    hidden = completion.mask("left", (1, 8, 8))
    monkeypatch.setattr(completion, "INFERENCE_BATCH", 12)
    drawn = completion.draws(machine, digits.x[:10], hidden, 5, steps=2)
    seen = np.broadcast_to(digits.x[:10] / 255, drawn.shape)
    assert np.array_equal(drawn[..., ~hidden], seen[..., ~hidden].astype(np.float32))
    completed = completion.complete(machine, digits.x[:10], hidden, steps=2)
    assert np.array_equal(completed[..., ~hidden], seen[0][..., ~hidden].astype(np.float32))


def test_the_mean_of_chains_is_nearer_to_the_truth_than_a_draw_and_than_the_mean_of_what_is_seen(
    machine, digits, tmp_path
):
    hidden = completion.mask("bottom", (1, 8, 8))
    told = completion.draw(
        machine, digits.take(np.arange(150, 200)), 50, hidden, tmp_path / "n.png"
    )
    assert told["mse"] < told["mse_single"]
    assert told["mse"] < 0.8 * told["mse_start"]


def test_a_learner_that_walks_and_reconstructs_walks(machine, digits, monkeypatch):
    monkeypatch.setattr(machine.module_, "reconstruct", None)
    hidden = completion.mask("left", (1, 8, 8))
    assert completion.complete(machine, digits.x[:2], hidden, steps=2).shape == (2, 1, 8, 8)


def test_the_picture_of_a_learner_that_walks_shows_three_draws_more(machine, learner, tmp_path):
    hidden = completion.mask("right", (1, 8, 8))
    told = [
        completion.draw(model, pictures(), 4, hidden, tmp_path / f"{k}.png", steps=2)
        for k, model in enumerate((learner, machine))
    ]
    assert ["mse_single" in each for each in told] == [False, True]
    heights = []
    for k in (0, 1):
        with Image.open(tmp_path / f"{k}.png") as picture:
            heights.append(picture.height)
    assert heights[1] == pytest.approx(2 * heights[0], abs=10)


def test_a_learner_that_does_not_walk_draws_no_completions(learner):
    with pytest.raises(InputError, match="does not draw new images"):
        completion.draws(learner, pictures().x, completion.mask("left", (1, 8, 8)), 2)
