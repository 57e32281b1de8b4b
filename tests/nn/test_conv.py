from itertools import product
from math import exp, prod
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whatwhere.nn.architecture import parse
from whatwhere.nn.conv import Decoder, Encoder, in_channels_last, same_conv, same_deconv
from whatwhere.nn.where import WhatWhere

SIZES = [1, 2, 3, 4, 5]
ARCHITECTURES = [
    "(3)3c-2p-(4)3c-2p",
    "(3)3c-(2)2c-2p-(4)4c-3p-5fc",
    "2p-(3)3c",
    "2p-2p",
    "(3)5c-2p-(4)3c-6fc-5fc",
    "(3)3c-(4)3c",
    "7fc",
    "(3)1c-9p-4fc",
]
SHAPES = [(1, 8, 8), (1, 5, 7), (3, 9, 4), (1, 1, 10), (2, 1, 1), (1, 28, 28)]


def equation_1(x: Tensor, h: Tensor, b: Tensor) -> Tensor:
    """u[i, j, r] = Σ_{k,p,q} x[i + p, j + q, k] h[p, q, k, r] + b[r], x zero outside.

    x (C, H, W), h (R, C, P, Q) and b (R,) as torch stores them; p runs from -(P - 1) // 2.
    """
    n_in, height, width = x.shape
    n_out, _, size, _ = h.shape
    u = torch.zeros(n_out, height, width, dtype=x.dtype)
    near = (size - 1) // 2
    for i, j, r in product(range(height), range(width), range(n_out)):
        total = b[r].item()
        for k, p, q in product(range(n_in), range(size), range(size)):
            row, column = i + p - near, j + q - near
            if 0 <= row < height and 0 <= column < width:
                total += x[k, row, column].item() * h[r, k, p, q].item()
        u[r, i, j] = total
    return u


def weights_of(layer: nn.Module) -> list[Tensor]:
    return list(layer.parameters())


Net = TypeVar("Net", bound=nn.Module)


def randomly(net: Net) -> Net:
    """Give every parameter and statistic a value of its own, in float64."""
    draws = torch.Generator().manual_seed(1)
    net = net.double()
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=draws, dtype=value.dtype) * 0.8 + 0.1)
                if value.ndim > 1:
                    value.sub_(0.5)
    return net


@pytest.mark.parametrize("size", SIZES)
def test_a_convolution_is_equation_1(size: int, rng):
    layer = randomly(same_conv(2, 3, size))
    x = torch.from_numpy(rng.normal(size=(1, 2, 5, 4)))
    torch.testing.assert_close(layer(x)[0], equation_1(x[0], *weights_of(layer)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(4, 4), (1, 7), (1, 1), (2, 9)])
def test_a_deconvolution_is_the_transpose_of_the_convolution(size: int, shape, rng):
    conv, deconv = same_conv(2, 3, size, bias=False), same_deconv(3, 2, size, bias=False)
    randomly(conv)
    randomly(deconv)
    with torch.no_grad():
        weights_of(deconv)[0].copy_(weights_of(conv)[0])
    x = torch.from_numpy(rng.normal(size=(1, 2, *shape)))
    y = torch.from_numpy(rng.normal(size=(1, 3, *shape)))
    torch.testing.assert_close((conv(x) * y).sum(), (x * deconv(y)).sum())


@pytest.mark.parametrize("size", SIZES)
def test_convolution_and_deconvolution_keep_the_size_of_a_map(size: int):
    x = torch.zeros(1, 2, 6, 3)
    assert same_conv(2, 5, size)(x).shape == (1, 5, 6, 3)
    assert same_deconv(2, 5, size)(x).shape == (1, 5, 6, 3)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_pooling_takes_the_maximum_of_each_clipped_window(size: int, rng):
    z = torch.from_numpy(rng.normal(size=(2, 3, 7, 5)))
    what, _ = WhatWhere(size).pool(z)
    for b, c in product(range(2), range(3)):
        for i, j in product(range(-(-7 // size)), range(-(-5 // size))):
            window = [
                z[b, c, row, column].item()
                for row in range(i * size, min((i + 1) * size, 7))
                for column in range(j * size, min((j + 1) * size, 5))
            ]
            assert what[b, c, i, j] == max(window)


# The textbook's examples.


def test_a_diagonal_filter_finds_the_diagonal():
    image = torch.tensor(
        [
            [1.0, 0, 0, 0, 0, 1],
            [0, 1, 0, 0, 1, 0],
            [0, 0, 1, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [0, 1, 0, 0, 1, 0],
            [0, 0, 1, 0, 1, 0],
        ]
    )
    diagonal = torch.eye(3) * 2 - 1  # 1 on the diagonal, -1 beside it
    same = same_conv(1, 1, 3, bias=False)
    with torch.no_grad():
        weights_of(same)[0].copy_(diagonal)
    # Without padding 6 x 6 becomes 4 x 4: what same padding gives, but for its border.
    found = same(image.view(1, 1, 6, 6))[0, 0, 1:-1, 1:-1]
    assert found.tolist() == [[3, -1, -3, -1], [-3, 1, 0, -3], [-3, -3, 0, 1], [3, -2, -2, -1]]
    what, where = WhatWhere(2).pool(found.view(1, 1, 4, 4), rectify=True)
    assert what[0, 0].tolist() == [[3, 0], [3, 1]]
    assert where[0, 0].tolist() == [[0, -1], [2, 1]]


def test_the_softmax_of_the_scores_is_each_exponential_over_their_sum(rng):
    scores = torch.from_numpy(rng.normal(size=(4, 5)))
    expected = [[exp(a) / sum(exp(other) for other in row) for a in row] for row in scores.tolist()]
    torch.testing.assert_close(scores.softmax(1), torch.tensor(expected, dtype=torch.float64))


# Encoders.


def test_the_encoder_is_its_layers_one_by_one(rng):
    encoder = randomly(Encoder(parse("(2)3c-2p-(3)2c-4fc"), (1, 5, 6), batch_norm=False))
    h1, b1, h2, b2, w, b = encoder.parameters()
    x = torch.from_numpy(rng.normal(size=(2, 1, 5, 6)))
    for image, top in zip(x, encoder(x).top, strict=True):
        maps = equation_1(image, h1, b1).relu()
        maps = nn.functional.max_pool2d(maps, 2, ceil_mode=True)
        maps = equation_1(maps, h2, b2).relu()
        torch.testing.assert_close(top, (w @ maps.flatten() + b).relu())


def test_batch_normalization_stands_between_convolution_and_relu(rng):
    encoder = randomly(Encoder(parse("(2)3c-(2)1c"), (1, 4, 4)))
    first, norm, _ = encoder.steps[0].children()
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert first.bias is None  # the normalization would take it away
    x = torch.from_numpy(rng.normal(size=(3, 1, 4, 4)))
    u = first(x)
    mean = u.mean(dim=(0, 2, 3), keepdim=True)
    deviation = (u - mean).square().mean(dim=(0, 2, 3), keepdim=True).add(norm.eps).sqrt()
    scale, offset = (p.view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    expected = ((u - mean) / deviation * scale + offset).relu()
    torch.testing.assert_close(encoder.steps[0](x), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_shapes_are_as_announced(architecture: str, shape, batch_norm: bool):
    encoder = Encoder(parse(architecture), shape, batch_norm=batch_norm)
    code = encoder(torch.rand(3, *shape))
    assert code.top.shape == (3, *encoder.shapes[-1])
    assert encoder.n_features == code.top[0].numel()
    levels = [
        encoder.shapes[place + 1]
        for place, piece in enumerate(architecture.split("-"))
        if piece.endswith("p")
    ]
    assert [tuple(what.shape[1:]) for what in code.what] == levels
    assert [tuple(where.shape[1:]) for where in code.where] == levels


def test_weights_keep_the_variance_through_relus():
    encoder = Encoder(parse("(40)5c-(40)5c-400fc"), (3, 8, 8), batch_norm=False)
    for weight in encoder.parameters():
        if weight.ndim == 1:
            assert not weight.any()
        else:
            n_inputs = prod(weight.shape[1:])
            assert weight.var().item() == pytest.approx(2 / n_inputs, rel=0.1)


def test_weights_of_the_decoder_keep_the_variance_too():
    decoder = Decoder(Encoder(parse("(40)5c-(40)5c-400fc"), (3, 8, 8), batch_norm=False))
    for weight in decoder.parameters():
        if weight.ndim == 4:  # (in, out, h, w): each pixel below hears in * h * w above
            n_inputs = weight.shape[0] * weight.shape[2] * weight.shape[3]
            assert weight.var().item() == pytest.approx(2 / n_inputs, rel=0.1)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("(5)3c-2p", (5, 2, 3, 3)), ("2p-(5)3c", (5, 2, 3, 3)), ("7fc", (7, 2, 6, 6))],
)
def test_filters_read_like_small_images(architecture: str, shape):
    filters = Encoder(parse(architecture), (2, 6, 6)).filters()
    assert filters is not None and filters.shape == shape
    assert not filters.requires_grad


@pytest.mark.parametrize("architecture", ["2p", "2p-7fc"])
def test_a_net_whose_layers_do_not_look_at_the_image_has_no_filters(architecture: str):
    assert Encoder(parse(architecture), (2, 6, 6)).filters() is None


# How it computes.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_way_down_to_one_channel_is_torchs_transposed_convolution(size: int, bias: bool, rng):
    layer = randomly(same_deconv(3, 1, size, bias=bias))
    assert isinstance(layer, nn.ConvTranspose2d)
    maps = torch.from_numpy(rng.normal(size=(2, 3, 5, 7))).requires_grad_()
    expected = nn.functional.conv_transpose2d(maps, layer.weight, layer.bias, padding=size // 2)
    torch.testing.assert_close(layer(maps), expected)
    weight = torch.from_numpy(rng.normal(size=expected.shape))
    towards = [maps, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad((layer(maps) * weight).sum(), towards),
        torch.autograd.grad((expected * weight).sum(), towards),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_way_down_to_one_channel_takes_the_type_that_autocast_wants():
    layer = same_deconv(3, 1, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.rand(2, 3, 5, 7)).dtype == torch.bfloat16


@pytest.mark.parametrize("n_channels", [1, 3])
def test_weights_that_are_channels_last_keep_maps_and_gradients_so(n_channels: int):
    shape = (n_channels, 8, 8)
    net = in_channels_last(Encoder(parse("(4)5c-2p-(6)3c-(5)1c"), shape, batch_norm=False))
    maps = net.steps[0](torch.rand(2, *shape))
    assert maps.is_contiguous(memory_format=torch.channels_last)
    net(torch.rand(2, *shape)).top.sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


# Decoders.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_decoder_mirrors_every_shape(architecture: str, shape, batch_norm: bool):
    encoder = Encoder(parse(architecture), shape, batch_norm=batch_norm)
    code = encoder(torch.rand(3, *shape))
    rebuilt = Decoder(encoder)(code)
    assert rebuilt.image.shape == (3, *shape)
    assert len(rebuilt.what) == len(code.what)
    for below, what in zip(rebuilt.what, code.what, strict=True):
        assert below is None or below.shape == what.shape


@pytest.mark.parametrize(
    ("architecture", "rebuilt"),
    [
        ("(3)3c-2p-(4)3c-2p", [True, False]),  # the top is the code itself
        ("(3)3c-2p-(4)3c", [True]),
        ("(3)3c-2p-(4)3c-2p-5fc", [True, True]),
        ("2p-2p", [True, False]),
        ("(3)3c-5fc", []),
    ],
)
def test_every_level_below_the_code_is_rebuilt(architecture: str, rebuilt: list[bool]):
    encoder = Encoder(parse(architecture), (1, 8, 8))
    what = Decoder(encoder)(encoder(torch.rand(2, 1, 8, 8))).what
    assert [below is not None for below in what] == rebuilt


def test_the_decoder_is_its_steps_one_by_one(rng):
    encoder = randomly(Encoder(parse("(2)3c-2p-(3)3c-2p-4fc"), (1, 5, 6), batch_norm=False))
    decoder = randomly(Decoder(encoder))
    x = torch.from_numpy(rng.normal(size=(2, 1, 5, 6)))
    code = encoder(x)
    w, b, h2, b2, h1, b1 = decoder.parameters()
    pool = WhatWhere(2)

    upper = (code.top @ w.T + b).relu().view(2, 3, 2, 2)
    maps = pool.unpool(upper, code.where[1], (3, 3))
    lower = nn.functional.conv_transpose2d(maps, h2, b2, padding=1).relu()
    maps = pool.unpool(lower, code.where[0], (5, 6))
    image = nn.functional.conv_transpose2d(maps, h1, b1, padding=1)  # the last is not rectified

    rebuilt = decoder(code)
    torch.testing.assert_close(rebuilt.image, image)
    torch.testing.assert_close(rebuilt.what[1], upper)
    torch.testing.assert_close(rebuilt.what[0], lower)


def test_the_image_may_leave_the_range_of_a_relu():
    torch.manual_seed(0)
    encoder = Encoder(parse("(3)3c-2p"), (1, 8, 8))
    image = Decoder(encoder)(encoder(torch.rand(4, 1, 8, 8))).image
    assert image.min() < 0


def test_the_decoder_keeps_no_weight_of_the_encoder():
    encoder = Encoder(parse("(3)3c-2p-5fc"), (1, 8, 8))
    decoder = Decoder(encoder)
    shared = {id(p) for p in encoder.parameters()} & {id(p) for p in decoder.parameters()}
    assert not shared
    assert not {id(m) for m in encoder.modules()} & {id(m) for m in decoder.modules()}


def test_nets_without_a_layer_that_learns_can_be_decoded():
    encoder = Encoder(parse("2p"), (1, 5, 5))
    x = torch.from_numpy(np.random.default_rng(0).random((2, 1, 5, 5))).float()
    image = Decoder(encoder)(encoder(x)).image
    assert torch.equal(image, torch.where(image != 0, x, 0))
    nothing = Encoder((), (1, 5, 5))
    assert torch.equal(Decoder(nothing)(nothing(x)).image, x)
