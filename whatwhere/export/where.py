"""What-where pooling for other programs, and as another program has done it.

Exchange formats have no what-where pooling. In the operations that they have, with w the maxima of
the windows, written large again so that each pixel sees that of its window,

    where = min over P_ij of the places at which z = w                                     (eq. 1)
    unpooled[pixel] = what of its window if where says this pixel, else 0                  (eq. 2)

for disjoint windows: no indices and no scattering, which are slow elsewhere. Windows that overlap
are scattered, the larger value winning.

*Where* is no continuous function of the image. Where two pixels of a window are equal to rounding,
two programs may take the one or the other, both rightly, and rebuild other images. `Replay` tells
this from an error: it does as the other program did, and measures how far from the maximum that is.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.nn.where import WhatWhere, where_type

INACTIVE = -1


def corners(cells: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return the rows (h, 1) and columns (w,) of the windows' corners, for cells (B, C, h, w)."""
    h, w = cells.shape[-2:]
    return stride * torch.arange(h)[:, None], stride * torch.arange(w)


def flat_index(where: Tensor, width: int, size: int, stride: int) -> Tensor:
    """Return the index (B, C, h * w) of each place in a map of that width, its rows joined.

    That of an inactive window is its corner's.
    """
    place, (rows, columns) = where.clamp(min=0), corners(where, stride)
    return ((rows + place // size) * width + columns + place % size).flatten(2)


class Exportable(WhatWhere):
    """`WhatWhere` in operations that exchange formats have. Abstract.

    Parameters
    ----------
    wheres : list of Tensor
        To it each pooling adds its *where*.
    """

    def __init__(self, size: int, stride: int, wheres: list[Tensor]) -> None:
        super().__init__(size, stride)
        self.wheres = wheres

    def _code(self, what: Tensor, where: Tensor, rectify: bool) -> tuple[Tensor, Tensor]:
        silent = what <= 0 if rectify else what == 0
        where = where.masked_fill(silent, INACTIVE)
        self.wheres.append(where)
        return what.relu() if rectify else what, where


class Disjoint(Exportable):
    """Disjoint windows.

    Measured: with (16)5c-2p-(32)3c-3p on one CPU thread, onnxruntime gave all outputs for 3,400
    images/s so, for 2,100 by an ArgMax over each window, and for 1,600 by MaxPool's own indices.
    """

    def pool(self, z: Tensor, *, rectify: bool = False) -> tuple[Tensor, Tensor]:
        """Return what and where (B, C, h, w) of maps z (B, C, H, W)."""
        what = F.max_pool2d(z, self.size, ceil_mode=True)
        height, width = z.shape[-2:]
        found = z == self._enlarge(what, height, width)
        places = torch.where(found, -self._places(height, width), -float(self.size**2))
        where = -F.max_pool2d(places, self.size, ceil_mode=True)
        return self._code(what, where, rectify)

    def unpool(self, what: Tensor, where: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the map (B, C, *size) that holds each `what` at its `where`, and 0 elsewhere."""
        here = self._enlarge(where, *size) == self._places(*size)
        return torch.where(here, self._enlarge(what, *size), 0.0)

    def _places(self, height: int, width: int) -> Tensor:
        """Return the place of each pixel in its window, (H, W); floats hold them exactly."""
        rows, columns = torch.arange(height) % self.size, torch.arange(width) % self.size
        return (rows[:, None] * self.size + columns).float()

    def _enlarge(self, cells: Tensor, height: int, width: int) -> Tensor:
        """Write (B, C, h, w) into each pixel of its window, (B, C, H, W)."""
        large = F.interpolate(cells, scale_factor=float(self.size), mode="nearest")
        return large[:, :, :height, :width]


class Overlapping(Exportable):
    """Windows that may overlap."""

    def pool(self, z: Tensor, *, rectify: bool = False) -> tuple[Tensor, Tensor]:
        """Return what and where (B, C, h, w) of maps z (B, C, H, W)."""
        what, index = F.max_pool2d(z, self.size, self.stride, ceil_mode=True, return_indices=True)
        width, (rows, columns) = z.shape[-1], corners(what, self.stride)
        place = (index // width - rows) * self.size + index % width - columns
        return self._code(what, place, rectify)

    def unpool(self, what: Tensor, where: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the map (B, C, *size) that holds each `what` at its `where`, and 0 elsewhere."""
        values = what.masked_fill(where == INACTIVE, 0.0).flatten(2)
        empty = values.new_zeros(1, 1, 1).expand(*values.shape[:2], size[0] * size[1])
        index = flat_index(where, size[1], self.size, self.stride)
        return empty.scatter_reduce(2, index, values, "amax").unflatten(2, size)


class Replay(WhatWhere):
    """`WhatWhere` that takes *where* as it is given, and tells how far off the maximum that is.

    Attributes
    ----------
    given : list of Tensor (B, C, h, w)
        Places, -1 where inactive, in the order of the pools; shared by the pools of a net.
    shortfalls : list of float
        How much less than the maximum a window holds at the given place, for each pool the
        most, in units of its largest maximum or of 1 if that is larger.
    """

    def __init__(
        self, size: int, stride: int, given: list[Tensor], shortfalls: list[float]
    ) -> None:
        super().__init__(size, stride)
        self.given, self.shortfalls = given, shortfalls

    def pool(self, z: Tensor, *, rectify: bool = False) -> tuple[Tensor, Tensor]:
        """Return what, the maxima, and the given where; -1 in place of what no window has."""
        what, _ = super().pool(z, rectify=rectify)
        where = self.given.pop(0).long()
        outside = (where < INACTIVE) | (where >= self.size**2)
        where = where.masked_fill(outside, INACTIVE)
        # What a window has beyond the border holds nothing.
        height, width = (self.stride * (n - 1) + self.size for n in what.shape[-2:])
        whole = F.pad(z, (0, width - z.shape[-1], 0, height - z.shape[-2]), value=-torch.inf)
        index = flat_index(where, width, self.size, self.stride)
        held = whole.flatten(2).gather(2, index).view_as(what).masked_fill(where == INACTIVE, 0.0)
        held = held.masked_fill(outside, -torch.inf)
        self.shortfalls.append(float((what - held).abs().max() / what.abs().max().clamp(min=1)))
        return what, where.masked_fill(held.isinf(), INACTIVE).to(where_type(self.size))


def exportable(net: nn.Module) -> tuple[nn.Module, list[Tensor]]:
    """Return a copy of the net in operations that exchange formats have.

    Only `WhatWhere` is replaced; other kinds of *where* stay as they are.

    Returns
    -------
    net : Module
    wheres : list of Tensor (B, C_m, h_m, w_m)
        To it each pool of the copy adds its *where* when it is run, places or -1.
    """
    wheres: list[Tensor] = []

    def form(pool: WhatWhere) -> WhatWhere:
        kind = Disjoint if pool.stride == pool.size else Overlapping
        return kind(pool.size, pool.stride, wheres)

    return _with_pools(net, form), wheres


def replaying(net: nn.Module) -> tuple[nn.Module, list[Tensor], list[float]]:
    """Return a copy of the net whose pools are `Replay`, with the lists that they share."""
    given: list[Tensor] = []
    shortfalls: list[float] = []
    copy = _with_pools(net, lambda pool: Replay(pool.size, pool.stride, given, shortfalls))
    return copy, given, shortfalls


def _with_pools(net: nn.Module, form: Callable[[WhatWhere], WhatWhere]) -> nn.Module:
    copy = deepcopy(net)
    for parent in list(copy.modules()):
        for name, pool in parent.named_children():
            if type(pool) is WhatWhere:
                setattr(parent, name, form(pool))
    return copy
