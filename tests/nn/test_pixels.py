"""Images as states of visible units, and back."""

import pytest
import torch

from whatwhere.core import Batch, InputError
from whatwhere.nn.pixels import FAINT, Drawn, Pixels, kind_for

SHAPE = (2, 3, 2)


def images(n: int = 50) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def learned(kind: str, x: torch.Tensor, levels: int = 2) -> Pixels:
    pixels = Pixels(kind, SHAPE, levels)
    flat = x.flatten(1).double()
    states = flat if kind == "gaussian" else pixels.states(x).double()
    pixels.learn(len(x), flat.sum(0), flat.square().sum(0), states.sum(0))
    return pixels


def test_data_in_the_unit_interval_are_binary_and_others_gaussian():
    assert kind_for(None, (0.0, 1.0)) == "binary"
    assert kind_for(None, (-1.0, 1.0)) == "gaussian"
    assert kind_for("gaussian", (0.0, 1.0)) == "gaussian"


def test_data_beyond_the_unit_interval_cannot_be_binary():
    with pytest.raises(InputError, match="-1 to 2; take visible='gaussian'"):
        kind_for("binary", (-1.0, 2.0))


@pytest.mark.parametrize("kind", ["binary", "gaussian"])
def test_states_turn_back_into_the_images_that_they_came_from(kind: str):
    x = images()
    pixels = learned(kind, x)
    torch.testing.assert_close(pixels.images(pixels.states(x)), x)


def test_grays_of_multinomial_pixels_turn_back_into_the_nearest_level():
    pixels = Pixels("multinomial", SHAPE, 5)
    x = images()
    states = pixels.states(x)
    assert states.shape == (50, 12 * 5)
    assert bool((states.view(50, 12, 5).sum(2) == 1).all())
    torch.testing.assert_close(pixels.images(states), (x * 4).round() / 4)


def test_gaussian_pixels_are_standardized_and_faint_ones_stay_faint():
    x = images(2000)
    x[:, 0, 0, 0] = 0.25  # never varies
    pixels = learned("gaussian", x)
    states = pixels.states(x)
    torch.testing.assert_close(states.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    assert float(states[:, 0].abs().max()) < 1e-5
    deviation = (1 / 12 + FAINT) ** 0.5
    assert bool(((pixels.deviation[1:] - deviation).abs() < 0.02).all())
    torch.testing.assert_close(pixels.volume(), pixels.deviation.log().sum())


@pytest.mark.parametrize(("kind", "levels"), [("binary", 2), ("multinomial", 4)])
def test_the_base_biases_have_the_means_of_the_data(kind: str, levels: int):
    x = images(2000)
    pixels = learned(kind, x, levels)
    means = pixels.units.mean(pixels.base.clone()[None])[0]
    torch.testing.assert_close(means, pixels.states(x).mean(0), atol=1e-3, rtol=0)


def test_a_pixel_that_is_always_black_has_a_bias_that_is_finite():
    pixels = learned("binary", torch.zeros(50, *SHAPE))
    assert bool(pixels.base.isfinite().all())


def test_binary_pixels_are_drawn_with_the_probability_that_the_gray_says():
    torch.manual_seed(0)
    x = images(1).expand(20_000, *SHAPE)
    drawn = Pixels("binary", SHAPE).draw(x)
    assert bool(((drawn == 0) | (drawn == 1)).all())
    torch.testing.assert_close(drawn.mean(0), x[0], atol=0.02, rtol=0)


def test_a_mask_of_pixels_covers_the_units_of_all_channels_and_levels():
    mask = torch.tensor([[True, False], [False, False], [False, True]])
    assert Pixels("binary", SHAPE).mask(mask).tolist() == [1, 0, 0, 0, 0, 1] * 2
    units = Pixels("multinomial", SHAPE, 3).mask(mask)
    assert units.tolist() == [b for b in [1, 0, 0, 0, 0, 1] * 2 for _ in range(3)]


def test_the_view_says_what_it_does():
    x, y = images(4), torch.zeros(4, dtype=torch.long)
    view = Drawn(Pixels("binary", SHAPE), binarize=False)
    assert torch.equal(view(Batch(x, y, y)).x, x.flatten(1))
    assert str(view) == "pixels as probabilities"
    assert str(Drawn(Pixels("binary", SHAPE), binarize=True)) == "each pixel drawn as 0 or 1"
    assert str(Drawn(Pixels("gaussian", SHAPE), binarize=True)) == "pixels as gaussian units"
