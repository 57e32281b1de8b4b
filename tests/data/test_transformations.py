import colorsys
from math import cos, log, pi, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from torch import Tensor

from whatwhere.core import InputError
from whatwhere.data.transformations import (
    CONTRAST,
    KINDS,
    PLANES,
    Boxes,
    Curves,
    Palette,
    Transformations,
    Warp,
    contrast,
    crop,
    recolor,
)


def whole(n: int) -> Boxes:
    return Boxes(torch.zeros(n), torch.zeros(n), torch.ones(n))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def palette(channels: int, seed: int = 0) -> Palette:
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
    return Palette(torch.rand(channels, generator=generator), turn)


def warp(*, dy: float = 0, dx: float = 0, scale: float = 1, turn: float = 0) -> Warp:
    return Warp(torch.tensor([[dy, dx]]), torch.tensor([scale]), torch.tensor([turn]))


def recolored(x: Tensor, curves: Curves, turn: Tensor | None) -> Tensor:
    out = x.clone()
    recolor(out, curves, turn, x.new_empty(PLANES, len(x), *x.shape[2:]))
    return out


def run(kinds: tuple[str, ...], x: Tensor, *, bounded: bool = True, seed: int = 0) -> Tensor:
    c, h, w = x.shape[1:]
    rule = Transformations(kinds, bounded)
    uniform = random(len(x), rule.numbers(c), seed=seed)
    return rule(x, whole(len(x)), (h, w), palette(c), uniform)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 7, 9), (4, 1, 5)])
def test_without_a_transformation_a_patch_is_the_image(shape):
    x = random(6, *shape)
    torch.testing.assert_close(run((), x), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_each_transformation_changes_color_patches(kind):
    x = random(4, 3, 8, 8)
    assert ((run((kind,), x) - x).abs().mean(dim=(1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stay_in_their_range(kind):
    x = random(50, 3, 6, 6).round()  # black and white make it the hardest
    out = run((kind,), x)
    assert out.isfinite().all()
    assert out.min() >= 0 and out.max() <= 1 + 1e-6  # a mean of ones is rounded


def test_gray_images_have_value_and_no_color():
    x = random(4, 1, 8, 8)
    torch.testing.assert_close(run(("color",), x), x, rtol=0, atol=1e-6)
    assert (run(("brightness",), x) - x).abs().max() > 0.01


def test_what_is_not_in_the_range_keeps_its_colors_but_for_contrast():
    x = 10 * random(4, 3, 8, 8) - 5
    for kind in ("brightness", "color"):
        torch.testing.assert_close(run((kind,), x, bounded=False), x, rtol=0, atol=1e-5)
    assert run(("contrast",), x, bounded=False).min() < 0


def test_the_same_numbers_make_the_same_patches_whatever_stands_beside_them():
    x, rule = random(7, 3, 8, 8), Transformations()
    uniform = random(7, rule.numbers(3))
    all_at_once = rule(x, whole(7), (8, 8), palette(3), uniform)
    one = rule(x[2:3], whole(1), (8, 8), palette(3), uniform[2:3])
    torch.testing.assert_close(one, all_at_once[2:3], rtol=0, atol=1e-6)


def test_a_shift_by_whole_pixels_moves_them():
    x = random(1, 2, 10, 10)
    out = crop(x, whole(1), (10, 10), warp(dy=0.2, dx=-0.1))
    torch.testing.assert_close(out[:, :, 2:, :-1], x[:, :, :-2, 1:], rtol=0, atol=1e-5)
    # What comes in is the mirror of what is there.
    torch.testing.assert_close(out[:, :, :2, :-1], x[:, :, :2, 1:].flip(2), rtol=0, atol=1e-5)


def test_a_quarter_turn_is_counterclockwise():
    x = random(1, 2, 9, 9)
    out = crop(x, whole(1), (9, 9), warp(turn=pi / 2))
    torch.testing.assert_close(out, x.rot90(dims=(2, 3)), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(
    dy=st.floats(-0.2, 0.2),
    dx=st.floats(-0.2, 0.2),
    scale=st.floats(0.7, 1.4),
    turn=st.floats(-0.35, 0.35),
)
def test_a_warp_is_scipys_affine_transform(dy, dx, scale, turn):
    side = 16
    x = random(1, 1, side, side)
    out = crop(x, whole(1), (side, side), warp(dy=dy, dx=dx, scale=scale, turn=turn))
    # Output pixel p shows the input at c + R (p - c) / scale - shift.
    matrix = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) / scale
    middle = (side - 1) / 2
    offset = middle - matrix @ [middle, middle] - side * np.array([dy, dx])
    image = x[0, 0].numpy().astype(np.float64)
    wanted = affine_transform(image, matrix, offset, order=1, mode="reflect")
    np.testing.assert_allclose(out[0, 0].numpy(), wanted, atol=2e-4)


def test_a_box_is_the_part_of_the_image_that_it_names():
    x = random(1, 3, 12, 20)
    # 4 x 6 pixels from row 6 and column 2 on: its center is at (8, 5) of (12, 20).
    box = Boxes(torch.tensor([2 * 8 / 12 - 1]), torch.tensor([2 * 5 / 20 - 1]), torch.ones(1))
    torch.testing.assert_close(crop(x, box, (4, 6)), x[:, :, 6:10, 2:8], rtol=0, atol=1e-5)


def test_a_zoomed_patch_is_made_of_means_not_of_single_pixels():
    # A checkerboard of single pixels is gray from afar.
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    box = Boxes(torch.zeros(1), torch.zeros(1), torch.full((1,), 4.0))
    out = crop(board.float()[None, None], box, (8, 8))
    torch.testing.assert_close(out, torch.full_like(out, 0.5))


def test_contrast_scales_the_projections_on_the_principal_colors():
    x, colors, factors = random(5, 3, 4, 4), palette(3), 0.5 + random(5, 3, seed=1)
    contrast(x, colors, factors, out := torch.empty_like(x))
    mean = colors.mean[:, None, None]
    before = torch.einsum("kc,bchw->bkhw", colors.principal, x - mean)
    after = torch.einsum("kc,bchw->bkhw", colors.principal, out - mean)
    torch.testing.assert_close(after, factors[:, :, None, None] * before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [33, 48, 65, 131])
def test_an_image_that_shrinks_stays_where_it_is(side):
    ramp = torch.arange(float(side)).expand(1, 1, side, side)
    zoom = side / 8
    box = Boxes(torch.zeros(1), torch.zeros(1), torch.tensor([zoom]))
    out = crop(ramp, box, (8, 8))[0, 0]
    # A pixel of the patch is as bright as the middle of what it covers; at the border less exactly.
    wanted = zoom * (torch.arange(8) + 0.5) - 0.5
    assert ((out - wanted).abs() < zoom / 8).all()


def test_from_two_thirds_on_what_shrinks_is_averaged():
    board = ((torch.arange(48)[:, None] + torch.arange(48)) % 2).float()[None, None]
    box = Boxes(torch.zeros(1), torch.zeros(1), torch.tensor([1.5]))
    out = crop(board, box, (32, 32), warp(scale=0.7))
    assert float(out.std()) < 0.02


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_a_shift_is_a_part_of_what_the_patch_shows(zoom):
    x = random(1, 1, 40, 40)
    box = Boxes(torch.zeros(1), torch.zeros(1), torch.tensor([zoom]))
    moved = crop(x, box, (10, 10), warp(dy=0.2))
    torch.testing.assert_close(moved[:, :, 2:], crop(x, box, (10, 10))[:, :, :-2])


def test_each_number_is_uniform_over_its_own_range_and_moves_nothing_else():
    """What a patch is made from: shift, scale, turn, contrast, two curves, and the hue."""
    n, rule, c = 20_000, Transformations(), 3
    u = random(n, rule.numbers(c))
    drawn = rule._warp(u[:, :4])
    told = {
        "dy": (drawn.shift[:, 0] + 0.2) / 0.4,
        "dx": (drawn.shift[:, 1] + 0.2) / 0.4,
        "scale": (drawn.scale / 0.7).log() / log(2),
        "turn": (drawn.turn * 180 / pi + 20) / 40,
    }
    for number, (name, share) in enumerate(told.items()):
        torch.testing.assert_close(share, u[:, number], rtol=1e-4, atol=1e-4, msg=name)
    # The rest by what it does to one pixel: each of the numbers changes it on its own.
    x = torch.tensor([0.6, 0.4, 0.3]).view(1, 3, 1, 1)
    middle = torch.full((1, rule.numbers(c)), 0.5)
    at_rest = rule(x, whole(1), (1, 1), palette(c), middle)
    seen = set()
    for number in range(4, rule.numbers(c)):
        other = middle.clone()
        other[0, number] = 0.8
        out = rule(x, whole(1), (1, 1), palette(c), other)
        assert (out - at_rest).abs().max() > 1e-3, number
        seen.add(tuple(out.flatten().tolist()))
    assert len(seen) == rule.numbers(c) - 4


def test_gray_pixels_stay_gray_with_a_turned_hue_and_without():
    gray = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1).clone()
    curves = Curves(torch.ones(3, 2), torch.ones(3, 2), torch.tensor([[0.1, 0.05]]).expand(3, 2))
    for turn in (None, torch.full((3,), 0.05)):
        out = recolored(gray, curves, turn)
        torch.testing.assert_close(out, (gray + 0.05).clamp(max=1))


@settings(deadline=None)
@given(
    pixel=st.tuples(*[st.integers(0, 255)] * 3).filter(lambda p: max(p) > min(p)),
    turn=st.floats(-0.1, 0.1),
    power=st.tuples(*[st.floats(0.25, 4)] * 2),
    factor=st.tuples(*[st.floats(0.7, 1.4)] * 2),
    added=st.tuples(*[st.floats(-0.1, 0.1)] * 2),
)
def test_colors_are_those_of_the_standard_library(pixel, turn, power, factor, added):
    rgb = [part / 255 for part in pixel]
    curves = Curves(*(torch.tensor([part]) for part in (power, factor, added)))
    out = recolored(torch.tensor(rgb).view(1, 3, 1, 1), curves, torch.tensor([turn]))
    hue, *rest = colorsys.rgb_to_hsv(*rgb)
    saturation, value = (
        min(max(f * part**p + a, 0), 1)
        for part, p, f, a in zip(rest, power, factor, added, strict=True)
    )
    wanted = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    np.testing.assert_allclose(out.flatten().numpy(), wanted, atol=2e-4)


def test_factors_are_as_often_above_one_as_below():
    factors = Transformations._between(CONTRAST, random(20_000), log_scale=True)
    assert CONTRAST[0] <= factors.min() and factors.max() <= CONTRAST[1]
    assert abs(float(factors.log().mean())) < 5 * log(4) / 12**0.5 / 20_000**0.5


def test_what_images_do_not_have_is_not_told():
    told = {channels: Transformations().of(channels).kinds[3:] for channels in (1, 2, 3, 4)}
    assert told[3] == ("contrast", "brightness", "color")
    assert told[1] == ("contrast", "brightness")
    assert told[2] == told[4] == ("contrast",)
    assert Transformations(bounded=False).of(3).kinds == KINDS[:4]


def test_names_are_read():
    assert Transformations.read("all").kinds == KINDS
    assert Transformations.read("none").kinds == ()
    assert Transformations.read("rotation + color").kinds == ("rotation", "color")
    with pytest.raises(InputError, match="all stands alone"):
        Transformations.read("all+color")
    with pytest.raises(InputError, match="there is no transformation 'rotatoin'"):
        Transformations.read("rotatoin+color")
