"""The encoder and decoder of convolutional nets written as an architecture.

A convolution is  u[i, j, r] = Σ_{k,p,q} x[i + p, j + q, k] h[p, q, k, r] + b[r]  (eq. 1),
same-padded, then batch normalization where asked for, then ReLU. The decoder mirrors the encoder
layer by layer.

References
----------
LeCun et al. Backpropagation applied to handwritten zip code recognition. 1989.
Zeiler, Krishnan, Taylor, Fergus. Deconvolutional networks. CVPR 2010.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from whatwhere.nn.architecture import Conv, Layer, Pool
from whatwhere.nn.where import WhatWhere, cells

Shape = tuple[int, int, int]  # (C, H, W)
Net = TypeVar("Net", bound=nn.Module)


class Code(NamedTuple):
    """What an image became on its way up; lists hold the pooled levels, lowest first.

    Attributes
    ----------
    top : Tensor (B, C, h, w) or (B, K)
        What the last layer gave.
    what, where : list of Tensor (B, C_m, h_m, w_m)
        Both halves of each pooled level.
    """

    top: Tensor
    what: list[Tensor]
    where: list[Tensor]


class Rebuilt(NamedTuple):
    """What the decoder made of a code.

    Attributes
    ----------
    image : Tensor (B, C, H, W)
        Not squashed: values may leave [0, 1].
    what : list of (Tensor or None)
        x̃_m, the map that was unpooled at each level, lowest first; None at the top where the code
        itself was unpooled, so that there is nothing to compare.
    """

    image: Tensor
    what: list[Tensor | None]


def same_conv(n_in: int, n_out: int, size: int, *, bias: bool = True) -> nn.Module:
    """Return a convolution, zero-padded so that a map keeps its size; even kernels lean right."""
    if size % 2:
        return nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=bias)
    near, far = (size - 1) // 2, size // 2
    return nn.Sequential(
        nn.ZeroPad2d((near, far, near, far)), nn.Conv2d(n_in, n_out, size, bias=bias)
    )


class _ToImage(torch.autograd.Function):
    """A transposed convolution to one channel: a matrix product, and the sum of its taps."""

    @staticmethod
    def forward(ctx, maps, weight):
        ctx.save_for_backward(maps, weight)
        (n_in, _, size, _), (n, _, height, width) = weight.shape, maps.shape
        pixels = maps.permute(0, 2, 3, 1).reshape(-1, n_in)
        taps = (weight.reshape(n_in, -1).t() @ pixels.t()).view(size, size, n, height, width)
        image = maps.new_zeros(n, height + size - 1, width + size - 1)
        for p, q in product(range(size), repeat=2):
            image[:, p : p + height, q : q + width] += taps[p, q]
        near = size // 2
        return image[:, None, near : near + height, near : near + width]

    @staticmethod
    def backward(ctx, *gradients):
        maps, weight = ctx.saved_tensors
        padding = [weight.shape[2] // 2] * 2
        return torch.ops.aten.convolution_backward(
            gradients[0],
            maps,
            weight,
            None,
            [1, 1],
            padding,
            [1, 1],
            True,
            [0, 0],
            1,
            [*ctx.needs_input_grad, False],
        )[:2]


_TO_IMAGE: Callable[..., Any] = _ToImage.apply  # torch does not type what `apply` returns


class ToImage(nn.ConvTranspose2d):
    """A transposed convolution to images of one channel, odd in size and same-padded.

    On a CPU it is a matrix product. Measured: from 16, 32 and 64 maps of 28 x 28 with 5 x 5 taps,
    100 images on one thread, 4.4, 5.7 and 9.1 ms; the convolution took 6.9, 13 and 25 ms.
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return the images (B, 1, H, W) of maps (B, n_in, H, W)."""
        # Exporters and compilers want the operation itself, and autocast chooses its type.
        if (
            input.device.type != "cpu"
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input, output_size)
        image = _TO_IMAGE(input, self.weight)
        return image if self.bias is None else image + self.bias


def same_deconv(n_in: int, n_out: int, size: int, *, bias: bool = True) -> nn.Module:
    """Return the transpose of `same_conv`, from (B, n_in, H, W) down to (B, n_out, H, W)."""
    if size % 2:
        kind = ToImage if n_out == 1 else nn.ConvTranspose2d
        return kind(n_in, n_out, size, padding=size // 2, bias=bias)
    near, far = -((size - 1) // 2), -(size // 2)  # negative: crops
    return nn.Sequential(
        nn.ConvTranspose2d(n_in, n_out, size, bias=bias), nn.ZeroPad2d((near, far, near, far))
    )


def _block(linear: nn.Module, norm: nn.Module | None, *, rectify: bool = True) -> nn.Sequential:
    layers = [linear, norm, nn.ReLU() if rectify else None]
    return nn.Sequential(*(layer for layer in layers if layer is not None))


def _initialize(net: nn.Module) -> None:
    """Draw weights that keep the variance through ReLUs (He et al. 2015), and biases of 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # A transposed convolution stores (in, out, ...): its inputs a pixel are torch's
            # fan_out.
            mode = "fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in"
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def in_channels_last(net: Net) -> Net:
    """Return the net with the weights of its convolutions stored channels last.

    Measured: the four convolutions of (16)5c-2p-(32)3c-2p and its mirror, forward and backward with
    100 MNIST images on one CPU thread, took 26 ms so and 48 ms otherwise.
    """
    for parameter in net.parameters():
        if parameter.ndim == 4:
            # `contiguous` leaves a weight of one channel as it is: either layout is the same bytes,
            # but its strides decide in which the convolution computes. Measured: the first of 64
            # maps, forward and backward, 13 ms so and 92 ms otherwise.
            last = parameter.data.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
            parameter.data = last.permute(0, 3, 1, 2)
    return net


class Encoder(nn.Module):
    """Convolutions, what-where pools and dense layers, as an architecture says.

    Parameters
    ----------
    layers : sequence of Layer
        Bottom first; see `whatwhere.nn.architecture.parse`.
    shape : (C, H, W)
        Of one image.
    batch_norm : bool
        Normalize each map (each dense unit) over the batch before its ReLU.
    pool : callable (size) -> WhatWhere
        The kind of *where*.

    Attributes
    ----------
    shapes : list of tuple
        The shape below each layer and, last, that of the top.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Shape,
        *,
        batch_norm: bool = True,
        pool: Callable[[int], WhatWhere] = WhatWhere,
    ) -> None:
        super().__init__()
        self.layers, self.batch_norm = tuple(layers), batch_norm
        self.steps = nn.ModuleList()
        self.shapes: list[tuple[int, ...]] = [tuple(shape)]
        for place, layer in enumerate(layers):
            below = self.shapes[-1]
            pooled = isinstance(layers[place + 1], Pool) if place + 1 < len(layers) else False
            if isinstance(layer, Pool):
                step = pool(layer.size)
                above = (below[0], *(cells(length, step.size, step.stride) for length in below[1:]))
            elif isinstance(layer, Conv):
                step = _block(
                    same_conv(below[0], layer.maps, layer.size, bias=not batch_norm),
                    nn.BatchNorm2d(layer.maps) if batch_norm else None,
                    rectify=not pooled,  # the pool does it
                )
                above = (layer.maps, *below[1:])
            else:
                step = _block(
                    nn.Linear(prod(below), layer.units, bias=not batch_norm),
                    nn.BatchNorm1d(layer.units) if batch_norm else None,
                )
                above = (layer.units,)
            self.steps.append(step)
            self.shapes.append(above)
        _initialize(self)

    def forward(self, x: Tensor) -> Code:
        """Return the code of images x (B, C, H, W)."""
        whats, wheres = [], []
        for place in range(len(self.layers)):
            x, where = self.up(place, x)
            if where is not None:
                whats.append(x)
                wheres.append(where)
        return Code(x, whats, wheres)

    def levels(self, x: Tensor, *, with_where: bool = False) -> dict[str, Tensor]:
        """Return what each layer gave but for convolutions that a pool follows, lowest first.

        Parameters
        ----------
        x : Tensor (B, C, H, W)
        with_where : bool
            Whether the maps of a pool are spread over the places in its windows, as
            `whatwhere.core.HasWhere` has it.

        Returns
        -------
        dict of str to Tensor (B, C_m, h_m, w_m) or (B, K)
            level1, level2, ...; the last is the top. Without a layer it is the image.
        """
        found = []
        for place, layer in enumerate(self.layers):
            x, where = self.up(place, x)
            if isinstance(layer, Pool) and where is not None and with_where:
                found.append(_spread(x, where, layer.size))
            elif self.is_level(place):
                found.append(x)
        return {f"level{number}": level for number, level in enumerate(found or [x], 1)}

    def is_level(self, place: int) -> bool:
        """Say whether what this layer gives is a level: not what is still to be pooled."""
        above = self.layers[place + 1 : place + 2]
        return not (
            isinstance(self.layers[place], Conv) and any(isinstance(a, Pool) for a in above)
        )

    def up(self, place: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what the layer at this place makes of what is below it, and where if it pools."""
        layer, step = self.layers[place], self.steps[place]
        if isinstance(step, WhatWhere):
            return step.pool(x, rectify=place > 0 and isinstance(self.layers[place - 1], Conv))
        return step(x if isinstance(layer, Conv) else x.flatten(1)), None

    @property
    def n_features(self) -> int:
        """How many numbers the top holds."""
        return prod(self.shapes[-1])

    def filters(self) -> Tensor | None:
        """Return the filters that look at the image, (K, C, h, w), or None where no layer does."""
        for layer, step in zip(self.layers, self.steps, strict=True):
            if isinstance(layer, Pool):
                continue
            weight = next(step.parameters()).detach()
            shape = self.shapes[0]
            if isinstance(layer, Conv):
                return weight
            return weight.view(-1, *shape) if weight.shape[1] == prod(shape) else None
        return None


def _spread(what: Tensor, where: Tensor, size: int) -> Tensor:
    """Return (B, C size², h, w): *what* of each map in the map of its place, and 0 in the others.

    Of disjoint windows it is the unpooled map, space to depth. The mark of an inactive window is no
    place, so there is nothing.
    """
    places = torch.arange(size * size, device=where.device).view(-1, 1, 1)
    return (what.unsqueeze(2) * (where.unsqueeze(2) == places)).flatten(1, 2)


class Decoder(nn.Module):
    """The mirror of an `Encoder`: transposed convolutions, unpooling, and dense layers back down.

    Each layer is normalized and rectified as its partner in the encoder is, but for the last, which
    gives the image.

    Parameters
    ----------
    encoder : Encoder
        Its layers and shapes are mirrored; its weights and pools are not kept.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        learning = (
            place for place, layer in enumerate(encoder.layers) if not isinstance(layer, Pool)
        )
        lowest = next(learning, 0)
        self.plan: list[tuple[Layer, tuple[int, ...]]] = []
        for place in reversed(range(len(encoder.layers))):
            layer, below = encoder.layers[place], encoder.shapes[place]
            norm = encoder.batch_norm and place > lowest
            bias = not norm
            if isinstance(layer, Pool):
                pool = encoder.steps[place]
                assert isinstance(pool, WhatWhere)
                step: nn.Module = type(pool)(pool.size, pool.stride)
            elif isinstance(layer, Conv):
                step = same_deconv(layer.maps, below[0], layer.size, bias=bias)
                if place > lowest:
                    step = _block(step, nn.BatchNorm2d(below[0]) if norm else None)
            else:
                n_below = prod(below)
                step = nn.Linear(layer.units, n_below, bias=bias)
                if place > lowest:
                    step = _block(step, nn.BatchNorm1d(n_below) if norm else None)
            self.steps.append(step)
            self.plan.append((layer, below))
        _initialize(self)

    def forward(self, code: Code) -> Rebuilt:
        """Return the image and the pooled maps on the way to it, rebuilt from the top and where."""
        x, wheres = code.top, list(code.where)
        rebuilt: list[Tensor | None] = []
        for (_, below), step in zip(self.plan, self.steps, strict=True):
            if isinstance(step, WhatWhere):
                rebuilt.append(None if x is code.top else x)
                x = step.unpool(x, wheres.pop(), (below[1], below[2]))
            else:
                x = step(x)
                if len(below) == 3:
                    x = x.view(len(x), *below) if x.ndim == 2 else x
        return Rebuilt(x, rebuilt[::-1])
