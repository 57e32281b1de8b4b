"""Images as states of a Boltzmann machine's lowest layer, and back."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.core import Batch, InputError
from whatwhere.nn.boltzmann import Binary, Gaussian, Multinomial, Units

BINARY, GAUSSIAN, MULTINOMIAL = "binary", "gaussian", "multinomial"
KINDS = (BINARY, GAUSSIAN, MULTINOMIAL)

UNIT_INTERVAL = (0.0, 1.0)
FAINT = 0.01
"""Is added to a pixel's variance before it is brought to 1: one that hardly varies stays faint."""


def kind_for(kind: str | None, bounds: tuple[float, float]) -> str:
    """Return the kind of pixels: what is given, or binary for data in [0, 1], else gaussian.

    Raises
    ------
    InputError
        If data beyond [0, 1] are to be binary or multinomial.
    """
    inside = bounds[0] >= UNIT_INTERVAL[0] and bounds[1] <= UNIT_INTERVAL[1]
    if kind is None:
        return BINARY if inside else GAUSSIAN
    if kind != GAUSSIAN and not inside:
        raise InputError(
            f"visible={kind!r} is for data in [0, 1], and these go from {bounds[0]:g} to "
            f"{bounds[1]:g}; take visible='gaussian', or say their value_range"
        )
    return kind


class Pixels(nn.Module):
    """What the visible units are, and what a pixel is to them.

    Parameters
    ----------
    kind : {"binary", "gaussian", "multinomial"}
        Binary: a pixel is the probability of 1. Gaussian: less its mean, over its deviation.
        Multinomial: the nearest of `levels` grays, one of K.
    shape : (C, H, W)
        Of an image.
    levels : int
        Grays of multinomial pixels.

    Attributes
    ----------
    units : Units
    mean, deviation : Tensor (D,)
        Of each pixel of the training images; 0 and 1 before they are known.
    base : Tensor (units.size,)
        Biases of units that are independent of one another, and have the data's means.
    known : Tensor ()
        Whether the images were looked at, 0 or 1.
    """

    mean: Tensor
    deviation: Tensor
    base: Tensor
    known: Tensor

    def __init__(self, kind: str, shape: tuple[int, ...], levels: int = 2) -> None:
        super().__init__()
        self.kind, self.shape, self.levels = kind, tuple(shape), levels
        n = prod(shape)
        self.units: Units = {
            BINARY: Binary(n),
            GAUSSIAN: Gaussian(n),
            MULTINOMIAL: Multinomial(n * levels, levels),
        }[kind]
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("deviation", torch.ones(n))
        self.register_buffer("base", torch.zeros(self.units.size))
        self.register_buffer("known", torch.zeros(()))

    def states(self, x: Tensor) -> Tensor:
        """Return the states of images x (B, C, H, W): (B, n); binary ones are probabilities."""
        x = x.flatten(1)
        if self.kind == GAUSSIAN:
            return (x - self.mean) / self.deviation
        if self.kind == MULTINOMIAL:
            level = (x * (self.levels - 1)).round().long().clamp(0, self.levels - 1)
            return F.one_hot(level, self.levels).flatten(1).to(x.dtype)
        return x

    def draw(self, x: Tensor) -> Tensor:
        """Return images of which each pixel is a state: of a binary one, 0 or 1 is drawn."""
        return self.units.draw(x) if self.kind == BINARY else x

    def images(self, v: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of states or means v (B, n)."""
        if self.kind == GAUSSIAN:
            v = v * self.deviation + self.mean
        elif self.kind == MULTINOMIAL:
            grays = torch.linspace(0, 1, self.levels, device=v.device)
            v = v.view(len(v), -1, self.levels) @ grays
        return v.view(-1, *self.shape)

    def mask(self, mask: Tensor) -> Tensor:
        """Return which units show pixels of a mask (H, W), (n,): those of all channels."""
        spread = mask.expand(self.shape).flatten()
        return spread.repeat_interleave(self.levels) if self.kind == MULTINOMIAL else spread

    def volume(self) -> Tensor:
        """Return Σ log of a pixel's deviation: the density of images is that much below v's."""
        return self.deviation.log().sum()

    def learn(self, n: int, sums: Tensor, squares: Tensor, states: Tensor) -> None:
        """Take over the statistics of n images.

        Parameters
        ----------
        n : int
        sums, squares : Tensor (D,)
            Of the pixels, and of their squares.
        states : Tensor (units.size,)
            Of the states; looked at where they are binary or multinomial.
        """
        if self.kind == GAUSSIAN:
            self.mean.copy_(sums / n)
            variance = squares / n - (sums / n).square()
            self.deviation.copy_((variance.clamp(min=0) + FAINT).sqrt())
        elif self.kind == BINARY:
            # Half an image of gray more, for no probability is 0 or 1.
            self.base.copy_(((states + 0.5) / (n + 1)).logit())
        else:
            self.base.copy_(((states + 1 / self.levels) / (n + 1)).log())
        self.known.fill_(1)


class Drawn:
    """A view: images as states of visible units, drawn anew at each batch where they are binary.

    Parameters
    ----------
    pixels : Pixels
    binarize : bool
        False leaves gray pixels as probabilities.
    """

    def __init__(self, pixels: Pixels, *, binarize: bool) -> None:
        self.pixels, self.binarize = pixels, binarize

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with states (B, n) in place of its images."""
        x = self.pixels.draw(batch.x) if self.binarize else batch.x
        return batch._replace(x=self.pixels.states(x))

    def __str__(self) -> str:
        """Say it."""
        if self.pixels.kind == BINARY:
            return "each pixel drawn as 0 or 1" if self.binarize else "pixels as probabilities"
        return f"pixels as {self.pixels.kind} units"
