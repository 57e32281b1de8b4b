"""A net and its mirror: layers that go up to a code, and each of them turned over.

    h = f(W x + b),  x̃ = g(W' h + b')

A level is a dense layer or a convolution with its activation f and, of a convolution, the
max-pooling behind it. Turned over, a dense layer is one of the other shape and a convolution its
transpose; each value that was pooled is copied to all places of its window, for nothing tells where
the maximum was. With tied weights W' is the transpose of W (Rumelhart, Hinton, Williams 1986;
Bourlard & Kamp 1988).
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.nn.architecture import Conv, Dense, Layer, Pool
from whatwhere.nn.conv import same_conv, same_deconv
from whatwhere.nn.units import MODERN, activation, initialize
from whatwhere.nn.where import cells

Shape = tuple[int, ...]  # (C, H, W), or (K,) of a dense layer


class Up(nn.Module):
    """One level on the way up.

    Parameters
    ----------
    layer : Conv, Dense or None
        None where a pool stands alone.
    pool : int
        Side of the windows behind it; 1 for none.
    below : tuple of int
        (C, H, W) or (K,).
    unit : str
        The activation f; the identity where there is no layer.

    Attributes
    ----------
    shape, below : tuple of int
        Of what comes out, and of what goes in.
    n_maps, height, width : int
        Of what is pooled.
    """

    def __init__(self, layer: Conv | Dense | None, pool: int, below: Shape, unit: str) -> None:
        super().__init__()
        self.below, self.pool = tuple(below), pool
        self.unit = "identity" if layer is None else unit
        self.dense, self.size = isinstance(layer, Dense), 1
        self.affine: nn.Module | None = None
        shape = self.below
        if isinstance(layer, Dense):
            self.affine, shape = nn.Linear(prod(below), layer.units), (layer.units,)
        elif isinstance(layer, Conv):
            self.affine, self.size = same_conv(below[0], layer.maps, layer.size), layer.size
            shape = (layer.maps, *below[1:])
        self.n_maps, self.height, self.width = shape if len(shape) == 3 else (*shape, 1, 1)
        if pool > 1:
            shape = (shape[0], *(cells(n, pool, pool) for n in shape[1:]))
        self.shape = shape
        self._activation = activation(self.unit)

    @property
    def weight(self) -> Tensor | None:
        """W, of a dense layer (K, D), of a convolution (K, C, h, w)."""
        # A convolution of even size stands behind a layer that pads.
        return next((p for p in self.parameters() if p.ndim > 1), None)

    def forward(self, x: Tensor) -> Tensor:
        """Return h (B, *shape) of x (B, *below)."""
        if self.affine is not None:
            x = self._activation(self.affine(x.flatten(1) if self.dense else x))
        return x if self.pool == 1 else F.max_pool2d(x, self.pool, ceil_mode=True)


class Down(nn.Module):
    """The same level turned over, before the activation g: that is the business of what is below.

    Parameters
    ----------
    up : Up
    tied : bool
        Whether it shares the weights of `up`, and has but a bias of its own.
    """

    def __init__(self, up: Up, *, tied: bool = False) -> None:
        super().__init__()
        self.tied = tied or up.affine is None
        self.affine: nn.Module | None = None
        n = prod(up.below) if up.dense else up.below[0]
        if self.tied:
            self.bias = nn.Parameter(torch.zeros(n))
        elif up.dense:
            self.affine = nn.Linear(prod(up.shape), n)
        else:
            self.affine = same_deconv(up.n_maps, n, up.size)

    def forward(self, h: Tensor, up: Up) -> Tensor:
        """Return W' h + b' (B, *below) of h (B, *shape); `up` is the level on the way up."""
        if up.pool > 1:
            h = h.repeat_interleave(up.pool, 2).repeat_interleave(up.pool, 3)
            h = h[..., : up.height, : up.width]
        if self.affine is not None:
            x = self.affine(h)
        elif up.weight is None:
            x = h + self.bias[:, None, None]
        elif up.dense:
            x = F.linear(h, up.weight.t(), self.bias)
        else:
            x = F.conv_transpose2d(h, up.weight, self.bias)
            near = (up.size - 1) // 2
            x = x[..., near : near + up.height, near : near + up.width]
        return x.view(-1, *up.below)


class Mirror(nn.Module):
    """An encoder, level by level, and its mirror.

    Parameters
    ----------
    layers : sequence of Layer
        Bottom first; see `whatwhere.nn.architecture.parse`.
    shape : (C, H, W)
        Of one image.
    unit : str
        The activation of the levels.
    code_unit : str
        That of the topmost one.
    output : str
        The activation g of the lowest level of the decoder, which gives the image. Each other one
        gives what a level of the encoder gives, by the same activation.
    tied : bool
        Whether the decoder shares the encoder's weights.
    initialization : {"modern", "historic"}
        See `whatwhere.nn.units.initialize`.
    code_rule : callable (Tensor) -> Tensor, optional
        What becomes of the code at last, for instance that all but the largest become 0; a module
        may have state.

    Attributes
    ----------
    encoder, decoder : ModuleList of `Up` and of `Down`
        Bottom first, both of them.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Shape,
        *,
        unit: str,
        code_unit: str,
        output: str,
        tied: bool = False,
        initialization: str = MODERN,
        code_rule: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        levels = _levels(layers)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.output, self.code_rule = output, code_rule
        self.shape, below = tuple(shape), tuple(shape)
        for place, (layer, pool) in enumerate(levels):
            up = Up(layer, pool, below, code_unit if place + 1 == len(levels) else unit)
            initialize(up, up.unit, initialization)
            self.encoder.append(up)
            below = up.shape
        for place, up in enumerate(self.encoder):
            assert isinstance(up, Up)
            down = Down(up, tied=tied)
            # The image's scores begin small, whatever their unit.
            initialize(down, self.unit_below(place) if place else "identity", initialization)
            self.decoder.append(down)
        self._units = [activation(self.unit_below(place)) for place in range(len(levels))]

    def unit_below(self, level: int) -> str:
        """Return the activation of what `level` rebuilds: the level below it, or the image."""
        if level == 0:
            return self.output
        below = self.encoder[level - 1]
        assert isinstance(below, Up)
        return below.unit

    def code(self, x: Tensor) -> Tensor:
        """Return the code of images x (B, C, H, W), in the shape of the topmost level."""
        for up in self.encoder:
            x = up(x)
        return x if self.code_rule is None else self.code_rule(x)

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Return what each level gives, lowest first: level1, level2, ...; the last is the code."""
        below = []
        for up in self.encoder:
            below.append(x)
            x = up(x)
        top = x if self.code_rule is None else self.code_rule(x)
        return {f"level{number}": level for number, level in enumerate([*below[1:], top], 1)}

    def scores(self, code: Tensor) -> Tensor:
        """Return what the decoder makes of a code, before its last activation: (B, C, H, W)."""
        x = code
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](x, self.encoder[level])
            if level:
                x = self._units[level](x)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """Return the code, flat: (B, K)."""
        return self.code(x).flatten(1)

    def decode(self, code: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of flat codes (B, K)."""
        return self._units[0](self.scores(code.view(len(code), *self.code_shape)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the images (B, C, H, W) rebuilt from their own codes."""
        return self._units[0](self.scores(self.code(x)))

    @property
    def code_shape(self) -> Shape:
        """Of the topmost level: (C, h, w) or (K,); without a level it is the image's."""
        return next((up.shape for up in reversed(self.encoder) if isinstance(up, Up)), self.shape)

    def filters(self) -> Tensor | None:
        """Return the filters that look at the image, (K, C, h, w), or None where no layer does."""
        first = self.encoder[0] if len(self.encoder) else None
        weight = first.weight if isinstance(first, Up) else None
        if weight is None:
            return None
        weight = weight.detach()
        return weight.view(-1, *self.shape) if weight.ndim == 2 else weight


def _levels(layers: Sequence[Layer]) -> list[tuple[Conv | Dense | None, int]]:
    """Return each layer with the pool behind it; a pool that has no layer stands alone."""
    levels: list[tuple[Conv | Dense | None, int]] = []
    for layer in layers:
        if not isinstance(layer, Pool):
            levels.append((layer, 1))
        elif levels and levels[-1][1] == 1:
            levels[-1] = (levels[-1][0], layer.size)
        else:
            levels.append((None, layer.size))
    return levels
