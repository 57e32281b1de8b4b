import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from whatwhere.core import InputError
from whatwhere.data.sources.fitting import allocate, fit_images, fit_picture

FITS = st.sampled_from(["crop", "pad"])
SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(
    sides=SIDES,
    size=st.integers(1, 40),
    fit=FITS,
    color=st.sampled_from([37, (1, 200, 3), 0.25]),
)
def test_an_image_of_one_color_stays_one_of_that_color(sides, size, fit, color):
    mode = {int: "L", tuple: "RGB", float: "F"}[type(color)]
    fitted = fit_picture(Image.new(mode, sides, color), size, fit)
    assert fitted.size == (size, size)
    assert fitted.mode == mode
    np.testing.assert_allclose(np.asarray(fitted) - np.asarray(color), 0, atol=1e-6)


@given(sides=SIDES, size=st.integers(1, 40), fit=FITS, seed=st.integers(0, 99))
def test_no_value_leaves_the_range_that_was_there(sides, size, fit, seed):
    x = np.random.default_rng(seed).integers(0, 256, (1, 2, *sides), dtype=np.uint8)
    for channel in range(2):
        plane = fit_images(x, size, fit)[0, channel]
        assert x[0, channel].min() <= plane.min() <= plane.max() <= x[0, channel].max()
    floats = fit_images(x / np.float32(255), size, fit)
    assert floats.dtype == np.float32
    assert ((floats >= 0) & (floats <= 1)).all()


@given(side=st.integers(1, 30), more=st.integers(0, 30), fit=FITS, upright=st.booleans())
def test_where_one_side_fits_already_pixels_are_not_changed(side, more, fit, upright):
    long = side + more
    x = np.random.default_rng(side).integers(1, 256, (1, 1, long, side), dtype=np.uint8)
    x = x if upright else x.transpose(0, 1, 3, 2)
    size = side if fit == "crop" else long
    fitted = fit_images(x, size, fit)
    start = more // 2
    inner, whole = (x, fitted) if upright else (x.swapaxes(2, 3), fitted.swapaxes(2, 3))
    if fit == "crop":
        np.testing.assert_array_equal(whole, inner[:, :, start : start + side])
    else:
        np.testing.assert_array_equal(whole[..., start : start + side], inner)


def test_padding_has_the_median_color_of_the_border():
    x = np.full((6, 12, 3), (9, 60, 200), np.uint8)
    x[0, :3] = 255  # a stain on the border
    x[2:4, 2:10] = 0  # what is in the middle has no say
    fitted = np.asarray(fit_picture(Image.fromarray(x), 12, "pad"))
    assert (fitted[:3] == (9, 60, 200)).all()
    assert (fitted[9:] == (9, 60, 200)).all()


def test_images_that_fit_are_not_copied():
    x = np.zeros((2, 1, 4, 4), np.uint8)
    assert fit_images(x, 4, "crop") is x


def test_more_memory_than_there_is_is_refused():
    with pytest.raises(InputError, match=r"1,000,000 images of 99999 x 99999 .* --image-size N"):
        allocate((1_000_000, 3, 99_999, 99_999), np.uint8)
