"""Random transformations of patches: shifts, scales, rotations and colors, fused on the batch.

One affine grid moves, scales and rotates; one matrix a patch changes the contrast along the
principal colors; one pass in hue, saturation and value does the rest. All is done on the device of
the images. What is random comes as uniform numbers, a row a patch, so that a patch can be made
again from its numbers.

References
----------
Dosovitskiy, Fischer, Springenberg, Riedmiller, Brox. Discriminative unsupervised feature learning
with exemplar convolutional neural networks. TPAMI 2016. arXiv:1406.6909, section 3.1.
"""

from dataclasses import dataclass
from math import floor, log, log2, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.core import InputError, unknown

TRANSLATION = (-0.2, 0.2)  # of the patch's side
SCALING = (0.7, 1.4)
ROTATION = (-20.0, 20.0)  # degrees
CONTRAST = (0.5, 2.0)  # factor of each principal color
POWER, FACTOR, ADDED = (0.25, 4.0), (0.7, 1.4), (-0.1, 0.1)  # of saturation and of value
HUE = (-0.1, 0.1)  # of the circle

KINDS = ("translation", "scaling", "rotation", "contrast", "brightness", "color")
ALL = "all"
TINY = 1e-30
AVERAGED = (
    0.4  # added to log2: from 1.5 pixels of the image a pixel of the patch on, they are averaged
)
AT_ONCE = 2**19  # numbers of a part of the batch: it then stays in a CPU's cache
PLANES = 5  # that `recolor` works in


class Boxes(NamedTuple):
    """Where patches lie in their images.

    Attributes
    ----------
    y, x : Tensor (B,)
        Their centers, from -1 (the upper and left border) to 1.
    zoom : Tensor (B,)
        How many pixels of the image become one of the patch; 1 or more.
    """

    y: Tensor
    x: Tensor
    zoom: Tensor


class Palette(NamedTuple):
    """The colors of a set of images.

    Attributes
    ----------
    mean : Tensor (C,)
    principal : Tensor (C, C)
        Orthonormal rows: the principal components of the pixels.
    """

    mean: Tensor
    principal: Tensor


@dataclass(frozen=True)
class Transformations:
    """Which transformations there are; all of them are applied to each patch.

    - translation: up to 0.2 of the patch's side, along both axes;
    - scaling: by 0.7 to 1.4;
    - rotation: by -20 to 20 degrees;
    - contrast: the projection of the pixels on each principal color times 0.5 to 2;
    - brightness: saturation and value of all pixels to a power of 0.25 to 4, times 0.7 to 1.4, plus
      -0.1 to 0.1;
    - color: the hue turned by -0.1 to 0.1 of its circle.

    Factors and powers are uniform in their logarithm, all else is uniform. What comes in from
    outside of the image is its mirror. An image of one channel has its value, no saturation and no
    hue; one of two, or of more than three, has neither of the last two transformations.

    Parameters
    ----------
    kinds : tuple of str
        Out of `KINDS`.
    bounded : bool
        Whether pixels are in [0, 1] and are to stay there. If not, the last two transformations,
        which have no meaning then, are left out.
    """

    kinds: tuple[str, ...] = KINDS
    bounded: bool = True

    @classmethod
    def read(cls, names: str, *, bounded: bool = True) -> "Transformations":
        """Return those that are named: ``all``, ``none``, or some, joined by +.

        Raises
        ------
        InputError
            Naming the one that there is not.
        """
        if names in (ALL, "none"):
            return cls(KINDS if names == ALL else (), bounded)
        given = tuple(name.strip() for name in names.split("+"))
        for name in given:
            if name in (ALL, "none"):
                raise InputError(f"transformations={names}: {name} stands alone, without a +")
            if name not in KINDS:
                raise unknown("there is no transformation", name, (*KINDS, ALL, "none"))
        return cls(given, bounded)

    def of(self, channels: int) -> "Transformations":
        """Return those that images of so many channels have."""
        left = {1: KINDS[:5], 3: KINDS}.get(channels, KINDS[:4]) if self.bounded else KINDS[:4]
        return Transformations(tuple(kind for kind in self.kinds if kind in left), self.bounded)

    @staticmethod
    def numbers(channels: int) -> int:
        """Return how many uniform numbers a patch takes."""
        return 11 + channels

    def __call__(
        self,
        images: Tensor,
        boxes: Boxes,
        size: tuple[int, int],
        palette: Palette,
        uniform: Tensor,
    ) -> Tensor:
        """Return transformed patches (B, C, h, w).

        Parameters
        ----------
        images : Tensor (B, C, H, W)
        boxes : Boxes
            Of one patch in each of them.
        size : (h, w)
            Of a patch.
        palette : Palette
        uniform : Tensor (B, numbers(C))
            In [0, 1).
        """
        rows = len(images)
        if images.device.type == "cpu":
            channels = images.shape[1]
            numbers = max(size[0] * size[1], images[0, 0].numel() // 4)  # of its means over 2 x 2
            rows = max(1, AT_ONCE // (channels * numbers))
        # Filled part by part, so that no more than one part is held beside it, and in planes that
        # all parts share. Measured: without them `recolor` takes 1.7 times as long.
        made = images.new_empty(len(images), images.shape[1], *size)
        room = images.new_empty(PLANES, min(rows, len(images)), *size)
        parts = zip(
            images.split(rows),
            *(part.split(rows) for part in (*boxes, uniform)),
            made.split(rows),
            strict=True,
        )
        for x, *box, u, out in parts:
            self._part(x, Boxes(*box), palette, u, out, room)
        return made

    def _part(
        self,
        images: Tensor,
        boxes: Boxes,
        palette: Palette,
        u: Tensor,
        out: Tensor,
        room: Tensor,
    ) -> None:
        channels, h, w = out.shape[1:]
        place, color = u[:, :4], u[:, 4:]
        x = crop(images, boxes, (h, w), self._warp(place))
        if "contrast" in self.kinds:
            factors = self._between(CONTRAST, color[:, :channels], log_scale=True)
            contrast(x, palette, factors, out)
            if self.bounded:
                out.clamp_(0, 1)
        else:
            out.copy_(x)
        rest = color[:, channels:]
        curves, kinds = None, set(self.of(channels).kinds)
        if "brightness" in kinds:
            curves = Curves(
                self._between(POWER, rest[:, 0:2], log_scale=True),
                self._between(FACTOR, rest[:, 2:4], log_scale=True),
                self._between(ADDED, rest[:, 4:6]),
            )
        turn = self._between(HUE, rest[:, 6]) if "color" in kinds else None
        if channels == 3 and kinds.intersection(KINDS[4:]):
            recolor(out, curves, turn, room)
        elif curves is not None:
            curves.bend(out, 1)

    def _warp(self, u: Tensor) -> "Warp":
        rows = u.new_ones(len(u))
        shift, scale, turn = u.new_zeros(len(u), 2), rows, u.new_zeros(len(u))
        if "translation" in self.kinds:
            shift = self._between(TRANSLATION, u[:, :2])
        if "scaling" in self.kinds:
            scale = self._between(SCALING, u[:, 2], log_scale=True)
        if "rotation" in self.kinds:
            turn = self._between(ROTATION, u[:, 3]) * (pi / 180)
        return Warp(shift, scale, turn)

    @staticmethod
    def _between(ends: tuple[float, float], u: Tensor, *, log_scale: bool = False) -> Tensor:
        low, high = ends
        if log_scale:
            return (u * log(high / low) + log(low)).exp()
        return low + (high - low) * u

    def __str__(self) -> str:
        """Say the rule, for the stage table."""
        return f"transformed at random: {', '.join(self.kinds) or 'not at all'}"


class Warp(NamedTuple):
    """How patches are moved.

    Attributes
    ----------
    shift : Tensor (B, 2)
        Down and to the right, in sides of a patch.
    scale : Tensor (B,)
        Above 1, what is seen grows.
    turn : Tensor (B,)
        Counterclockwise, in radians.
    """

    shift: Tensor
    scale: Tensor
    turn: Tensor


def crop(images: Tensor, boxes: Boxes, size: tuple[int, int], warp: Warp | None = None) -> Tensor:
    """Return patches of images (B, C, H, W), bilinear, as (B, C, h, w).

    Where a pixel of the patch covers several of the image, it is read from a copy of the image
    whose pixels are means over as many (2 x 2, 4 x 4, ...).

    Parameters
    ----------
    images : Tensor (B, C, H, W)
    boxes : Boxes
    size : (h, w)
    warp : Warp, optional
    """
    (height, width), (h, w) = images.shape[2:], size
    if warp is None:
        still = boxes.zoom.new_zeros(len(images))
        warp = Warp(still[:, None].expand(-1, 2), still + 1, still)
    step = boxes.zoom / warp.scale
    cos, sin = step * warp.turn.cos(), step * warp.turn.sin()
    # What is seen moves by the shift, so what is looked at moves the other way.
    dy, dx = (-boxes.zoom * side for side in warp.shift.unbind(1))
    u, v = (_centers(side, images) for side in (w, h))
    x = boxes.x + dx * (2 * w / width), cos * (w / width), -sin * (h / width)
    y = boxes.y + dy * (2 * h / height), sin * (w / height), cos * (h / height)
    # An outer sum of points, as complex numbers. Measured: all six transformations take 0.86 of the
    # time that they take with one plane a coordinate.
    rows = torch.complex(*(at[:, None] + down[:, None] * v for at, _, down in (x, y)))
    columns = torch.complex(*(along[:, None] * u for _, along, _ in (x, y)))
    grid = torch.view_as_real(rows[:, :, None] + columns[:, None, :])
    patches = _look(images, grid)
    smallest = min(height / h, width / w) / SCALING[0]  # the largest step that there can be
    for level in range(1, floor(log2(max(smallest, 1)) + AVERAGED) + 1):
        images = F.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
        covered = [2**level * side for side in images.shape[2:]]
        # Of an odd side the last cell reaches over the border, and so does the whole.
        parts = width / covered[1], height / covered[0]
        stretch = torch.stack([grid.new_full((), part) for part in parts])
        seen = _look(images, (grid + 1) * stretch - 1)
        due = (step.log2() + AVERAGED).floor()[:, None, None, None]
        patches = torch.where(due >= level, seen, patches)
    return patches


def _centers(side: int, like: Tensor) -> Tensor:
    """Return the centers of so many pixels on a side that goes from -1 to 1."""
    return (2 * torch.arange(side, dtype=like.dtype, device=like.device) + 1) / side - 1


def _look(images: Tensor, grid: Tensor) -> Tensor:
    # A mirror image about the border itself, so that a shifted patch has no seam.
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def contrast(x: Tensor, palette: Palette, factors: Tensor, out: Tensor) -> None:
    """Make patches whose projections on the principal colors are scaled.

    Parameters
    ----------
    x : Tensor (B, C, h, w)
    palette : Palette
    factors : Tensor (B, C)
    out : Tensor (B, C, h, w)
        What is filled with them.
    """
    mean, rows = palette
    matrix = torch.einsum("ki,bk,kj->bij", rows, factors, rows)
    offset = mean - matrix @ mean
    torch.bmm(matrix, x.flatten(2), out=out.flatten(2))
    out.add_(offset[:, :, None, None])


class Curves(NamedTuple):
    """What becomes of saturation (column 0) and value (column 1): factor · s^power + added.

    Attributes
    ----------
    power, factor, added : Tensor (B, 2)
    """

    power: Tensor
    factor: Tensor
    added: Tensor

    def bend(self, s: Tensor, column: int) -> Tensor:
        """Bend saturation or value, in [0, 1], of shape (B, ...), in place."""
        power, factor, added = (part[:, column].view(-1, *[1] * (s.ndim - 1)) for part in self)
        # By the logarithm, which is -inf for 0. Measured: a fifth of the time of `pow`.
        return s.log2_().mul_(power).add_(factor.log2()).exp2_().add_(added).clamp_(0, 1)


def recolor(x: Tensor, curves: Curves | None, turn: Tensor | None, room: Tensor) -> None:
    """Bend saturation and value of color patches, and turn their hue, in place.

    A pixel is v (1 - s (1 - w)), where w in [0, 1] of each channel depends on the hue alone.

    Parameters
    ----------
    x : Tensor (B, 3, h, w)
        In [0, 1].
    curves : Curves, optional
    turn : Tensor (B,), optional
        Parts of the circle, less than a sixth.
    room : Tensor (PLANES, B or more, h, w)
        To work in.
    """
    value, chroma, saturation, *others = room[:, : len(x)]
    r, g, b = x.unbind(1)
    torch.maximum(torch.maximum(r, g, out=value), b, out=value)
    torch.minimum(torch.minimum(r, g, out=chroma), b, out=chroma)
    torch.sub(value, chroma, out=chroma)
    torch.clamp(value, min=TINY, out=saturation)
    torch.div(chroma, saturation, out=saturation)
    away = torch.sub(value[:, None], x, out=x).div_(chroma.clamp_(min=TINY)[:, None])  # 1 - w
    if curves is not None:
        colored = torch.ceil(saturation, out=chroma)
        # A gray pixel has no hue that a saturation could show.
        curves.bend(saturation, 0).mul_(colored)
        curves.bend(value, 1)
    span = saturation.mul_(value)
    if turn is not None:
        _turn(away, turn, chroma, *others)
        value.add_(span)  # the pixel is v + v s less v s (2 - w)
    torch.sub(value[:, None], away.mul_(span[:, None]), out=x)


def _turn(away: Tensor, turn: Tensor, stronger: Tensor, hue: Tensor, other: Tensor) -> None:
    """Make 2 - w (B, 3, h, w) of the hues turned by parts of the circle, in place.

    Parameters
    ----------
    away : Tensor (B, 3, h, w)
        1 - w, where one channel at least is 0.
    turn : Tensor (B,)
        Less than a sixth of the circle.
    stronger, hue, other : Tensor (B, h, w)
        To work in.
    """
    r, g, b = away.unbind(1)
    # In sixths of the circle, red is 0, green 2, blue 4; the strongest channel is 0 away, and so
    # `ceil` says whether another one is stronger. The hue is from -1 to 5, the turn in (-1, 1).
    torch.sub(r, b, out=hue).add_(2)
    torch.sub(g, r, out=other).add_(4)
    hue.lerp_(other, torch.ceil(g, out=stronger))
    torch.sub(b, g, out=other)
    torch.lerp(other, hue, torch.ceil(r, out=stronger), out=hue).add_(6 * turn[:, None, None])
    # w is 1 up to one sixth from the channel's own hue, and 0 from two sixths on.
    torch.sub(hue, 3, out=r).abs_().sub_(3).abs_()
    torch.sub(hue, 2, out=g).abs_()
    torch.sub(hue, 1, out=b).abs_().sub_(3).abs_()
    away.clamp_(1, 2)
