"""What-where pooling: a feature map is split into what was seen and where it was.

With P_ij the window of cell (i, j) and z a feature map,

    what[i, j]  = max over P_ij of z                                            (eq. 1)
    where[i, j] = the place of that maximum within P_ij, 0 to p² - 1            (eq. 2)

and unpooling writes each *what* at its *where* into a map of zeros. A kind of *where* is a class
with the two methods of `WhatWhere`; others stand beside it.

References
----------
Zhao, Mathieu, Goroshin, LeCun. Stacked What-Where Auto-encoders. 2016. arXiv:1506.02351, section 3.
Zeiler, Taylor, Fergus. Adaptive deconvolutional networks for mid and high level feature learning.
ICCV 2011 (the switches).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.core import InputError
from whatwhere.nn.architecture import LARGEST_WINDOW


def where_type(size: int) -> torch.dtype:
    """Return the smallest type that holds the places in a size x size window and `INACTIVE`.

    One byte up to windows of 15 x 15: signed with -1 for inactive up to 11 x 11, unsigned with 255
    up to 15 x 15; above that two bytes, with -1.
    """
    if size * size <= 128:
        return torch.int8
    return torch.uint8 if size * size <= 255 else torch.int16


def inactive(where: Tensor) -> Tensor:
    """Return which windows hold no activation, a boolean tensor of the shape of `where`."""
    return where == (255 if where.dtype == torch.uint8 else -1)


def cells(length: int, size: int, stride: int) -> int:
    """Return how many windows cover `length` pixels; the last is clipped at the border."""
    return max(0, -(-(length - size) // stride)) + 1


@lru_cache(maxsize=64)
def _geometry(
    height: int, width: int, size: int, stride: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the corner of each window, and the tables from flat offset to place and back.

    A flat offset is counted along the rows of the whole map, a place along those of the window.
    """
    rows = stride * torch.arange(cells(height, size, stride), device=device)
    columns = stride * torch.arange(cells(width, size, stride), device=device)
    corners = rows[:, None] * width + columns  # (h, w)
    places = torch.arange(size * size, device=device)
    offsets = places // size * width + places % size  # (p²,)
    to_place = torch.zeros(int(offsets[-1]) + 1, dtype=where_type(size), device=device)
    to_place[offsets] = places.to(to_place.dtype)
    # Inactive windows are looked up too; read without a sign, they are the last of all values.
    to_offset = F.pad(offsets, (0, 256 ** to_place.element_size() - len(offsets)))
    return corners, to_place, to_offset


def _rows(maps: Tensor) -> Tensor:
    """View (B, C, h, w) maps, kept channels last, as (B, h * w, C)."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, maps.shape[1])


def _maps(rows: Tensor, height: int, width: int) -> Tensor:
    """Undo `_rows`."""
    return rows.view(len(rows), height, width, -1).permute(0, 3, 1, 2)


def _indices(where: Tensor, height: int, width: int, size: int, stride: int) -> Tensor:
    """Return the flat index in the map below of each cell, int64 (B, h * w, C)."""
    corners, _, to_offset = _geometry(height, width, size, stride, where.device)
    index = _rows(where).view(torch.uint8 if where.element_size() == 1 else torch.uint16).long()
    return torch.take(to_offset, index).add_(corners.view(1, -1, 1))


def _place(values: Tensor, index: Tensor, height: int, width: int, add: bool) -> Tensor:
    """Write values (B, C, h, w) at `index` into a map of zeros."""
    rows = _rows(values)
    empty = rows.new_zeros(len(rows), height * width, rows.shape[2])
    placed = empty.scatter_add_(1, index, rows) if add else empty.scatter_(1, index, rows)
    return _maps(placed, height, width)


class _Pool(torch.autograd.Function):
    """Max-pooling that keeps one byte a window for its gradient."""

    @staticmethod
    def forward(ctx, z, size, stride, rectify):
        height, width = z.shape[-2:]
        what, index = F.max_pool2d(z, size, stride, ceil_mode=True, return_indices=True)
        corners, to_place, _ = _geometry(height, width, size, stride, z.device)
        where = torch.take(to_place, index.sub_(corners))
        silent = what <= 0 if rectify else what == 0
        if rectify:
            what = what.clamp_(min=0)
        where = where.masked_fill_(silent, 255 if where.dtype == torch.uint8 else -1)
        ctx.save_for_backward(where)
        ctx.geometry = height, width, size, stride
        ctx.mark_non_differentiable(where)
        return what, where

    @staticmethod
    def backward(ctx, *gradients):
        (where,) = ctx.saved_tensors
        height, width, size, stride = ctx.geometry
        index = _indices(where, *ctx.geometry)
        active = gradients[0].masked_fill(inactive(where), 0)
        return _place(active, index, height, width, add=stride < size), None, None, None


class _Unpool(torch.autograd.Function):
    """Unpooling of disjoint windows."""

    @staticmethod
    def forward(ctx, what, where, height, width, size):
        index = _indices(where, height, width, size, size)
        silent = inactive(where)
        ctx.save_for_backward(index, silent)
        return _place(what.masked_fill(silent, 0), index, height, width, add=False)

    @staticmethod
    def backward(ctx, *gradients):
        index, silent = ctx.saved_tensors
        what = _maps(_rows(gradients[0]).gather(1, index), *silent.shape[-2:])
        return what.masked_fill(silent, 0), None, None, None, None


_POOL: Callable[..., Any] = _Pool.apply  # torch does not type what `apply` returns
_UNPOOL: Callable[..., Any] = _Unpool.apply


class WhatWhere(nn.Module):
    """Max-pooling that keeps the place of each maximum, and the unpooling that uses it.

    Windows are clipped at the border, so that every pixel is in one: a map of H x W has
    ceil(H / stride) x ceil(W / stride) cells where windows are disjoint. A window whose maximum is
    0 (after a ReLU: all of it is) says nothing about where, and is marked inactive. For what >= 0
    and disjoint windows, ``pool(unpool(what, where))`` is ``(what, where)``.

    Parameters
    ----------
    size : int
        The p of a p x p window, in cells.
    stride : int, optional
        Step of the windows, 1 to `size`. Default: `size`, disjoint windows.
    overlap : {"max"}
        What a cell holds where windows of `stride` < `size` both write: the larger value.

    Raises
    ------
    InputError
        If the sizes leave gaps, if places do not fit into two bytes, or for another rule of
        overlap: a mean of what was written depends on how often a cell was written, which exchange
        formats lose without a word.

    Examples
    --------
    >>> pool = WhatWhere(2)
    >>> what, where = pool.pool(torch.tensor([[[[0., 3.], [1., 2.]]]]))
    >>> what.item(), where.item()
    (3.0, 1)
    >>> pool.unpool(what, where, (2, 2))
    tensor([[[[0., 3.],
              [0., 0.]]]])
    """

    def __init__(self, size: int, stride: int | None = None, overlap: str = "max") -> None:
        super().__init__()
        self.size, self.stride = size, size if stride is None else stride
        if not 1 <= size <= LARGEST_WINDOW or not 1 <= self.stride <= size:
            raise InputError(
                f"what-where pooling has size={size}, stride={stride}: it takes a size from 1 to "
                f"{LARGEST_WINDOW} and a stride from 1 to the size"
            )
        if overlap != "max":
            raise InputError(
                f"overlap={overlap!r}: windows that overlap are unpooled by their maximum; "
                "use overlap='max', or a stride equal to the size"
            )

    def pool(self, z: Tensor, *, rectify: bool = False) -> tuple[Tensor, Tensor]:
        """Return what (B, C, h, w) and where, of the same shape, for maps z (B, C, H, W).

        The gradient of *what* goes to the place of the maximum, and of an inactive window nowhere;
        *where* has none. With `rectify` the result is that of ``pool(relu(z))``, for less: the
        maximum and the ReLU may change places, and there are fewer maxima than pixels.
        """
        z = z.contiguous(memory_format=torch.channels_last)
        what, where = _POOL(z, self.size, self.stride, rectify)
        return what, where

    def unpool(self, what: Tensor, where: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the map (B, C, *size) that holds each `what` at its `where`, and 0 elsewhere."""
        height, width = size
        what = what.contiguous(memory_format=torch.channels_last)
        if self.stride == self.size:
            return _UNPOOL(what, where, height, width, self.size)
        index = _indices(where, height, width, self.size, self.stride)
        rows = _rows(what.masked_fill(inactive(where), 0))
        empty = rows.new_zeros(len(rows), height * width, rows.shape[2])
        return _maps(empty.scatter_reduce(1, index, rows, "amax"), height, width)

    def extra_repr(self) -> str:
        """Say the window in ``repr``."""
        return f"size={self.size}, stride={self.stride}"
