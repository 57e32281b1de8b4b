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
from importlib import import_module
from importlib.util import find_spec
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
def _corners(height: int, width: int, size: int, stride: int, device: torch.device) -> Tensor:
    """Return the flat index of the corner of each window, int64 (h, w)."""
    rows = stride * torch.arange(cells(height, size, stride), device=device)
    columns = stride * torch.arange(cells(width, size, stride), device=device)
    return rows[:, None] * width + columns


def _narrow(width: int, size: int) -> torch.dtype:
    """Return the smallest signed type for a window's places, and their offsets in the map.

    An offset is counted from the window's corner along the rows of the whole map, a place along
    those of the window. Measured: where from the indices of 100 x 64 x 28 x 28 maps in windows of
    2 x 2, 2.1 ms in one byte by sums, 6.7 ms in eight bytes by a table.
    """
    largest = max((size - 1) * (width + 1), size * size, width)
    return torch.int8 if largest < 2**7 else torch.int16 if largest < 2**15 else torch.int32


def _row(numbers: Tensor, length: int, size: int) -> Tensor:
    """Return in which of `size` rows of this length each of the numbers lies."""
    row = torch.zeros_like(numbers)
    for last in range(length - 1, (size - 1) * length, length):
        row += (numbers - last).clamp_(0, 1)  # a division, in steps that processors do many of
    return row


def _where(index: Tensor, height: int, width: int, size: int, stride: int) -> Tensor:
    """Return where of flat indices int64 (B, C, h, w) into maps of height x width."""
    kind = _narrow(width, size)
    corners = _corners(height, width, size, stride, index.device)
    offset = index.to(kind).sub_(corners.to(kind))  # both wrap around; their difference is right
    return offset.sub_(_row(offset, width, size), alpha=width - size).to(where_type(size))


def _indices(where: Tensor, height: int, width: int, size: int, stride: int) -> Tensor:
    """Return the flat index of each cell, int64 (B, C, h, w); the corner where it is inactive."""
    place = (where + 1).to(_narrow(width, size)).sub_(1).clamp_(min=0)  # 255 + 1 is 0
    offset = place.add_(_row(place, size, size), alpha=width - size)
    return offset.long().add_(_corners(height, width, size, stride, where.device))


def _silenced(values: Tensor, where: Tensor) -> Tensor:
    """Return values (B, C, h, w) with 0 in inactive windows.

    Measured: 1.7 ms for 100 x 64 x 14 x 14; `masked_fill` took 8 ms.
    """
    return torch.ops.aten.threshold_backward(values, (where + 1).to(values.dtype), 0)


@lru_cache
def _tried(device: torch.device) -> Any:
    """Return the module of kernels if they work on this device, else None."""
    try:
        kernels = import_module("whatwhere.nn.triton_where")
        return kernels if kernels.agree(device) else None
    except Exception:  # no compiler, a card that is too old, a driver: torch's operations do it too
        return None


def _kernels(maps: Tensor, size: int, stride: int) -> Any:
    """Return the module of kernels that does without indices, or None where there is none for it.

    It is for disjoint windows on a GPU. A compiler is given torch's operations, which it can fuse.
    """
    on_gpu = maps.is_cuda and find_spec("triton") is not None
    if not on_gpu or stride < size or torch.compiler.is_compiling():
        return None
    return _tried(maps.device)


def _rows(maps: Tensor) -> Tensor:
    """View (B, C, h, w) maps, kept channels last, as (B, h * w, C)."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, maps.shape[1])


def _maps(rows: Tensor, height: int, width: int) -> Tensor:
    """Undo `_rows`."""
    return rows.view(len(rows), height, width, -1).permute(0, 3, 1, 2)


def _place(
    values: Tensor, where: Tensor, height: int, width: int, size: int, stride: int
) -> Tensor:
    """Write values (B, C, h, w) at `where` into maps of zeros; where two meet, their sum."""
    kernels = _kernels(values, size, stride)
    if kernels is not None:
        return kernels.write(values, where, height, width, size)
    index = _indices(where, height, width, size, stride)
    values = _silenced(values, where)
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        # This is what the gradient of max-pooling does; of its input only the shape is read, so
        # that the maps can be their own. Measured: 100 x 64 x 28 x 28 in windows of 2 x 2, 5.6 ms;
        # `scatter_` took 8.3 ms. It is not for a compiler: by that of torch 2.11 they stayed empty.
        shape = (*values.shape[:2], height, width)
        maps = torch.empty(shape, dtype=values.dtype, memory_format=torch.channels_last)
        return torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            values, maps, [size] * 2, [stride] * 2, [0, 0], [1, 1], True, index, grad_input=maps
        )
    rows, at = _rows(values), _rows(index)
    empty = rows.new_zeros(len(rows), height * width, rows.shape[2])
    placed = empty.scatter_add_(1, at, rows) if stride < size else empty.scatter_(1, at, rows)
    return _maps(placed, height, width)


def _pool(z: Tensor, size: int, stride: int, rectify: bool) -> tuple[Tensor, Tensor]:
    """Return what and where (B, C, h, w)."""
    what, index = F.max_pool2d(z, size, stride, ceil_mode=True, return_indices=True)
    where = _where(index, z.shape[2], z.shape[3], size, stride)
    silent = what <= 0 if rectify else what == 0
    where.bitwise_or_(silent.to(where.dtype).neg_())  # all bits: -1, or 255
    if rectify:
        # Not in place for a compiler: torch 2.11 loses the gradient of a result that was changed.
        what = what.clamp(min=0) if torch.compiler.is_compiling() else what.clamp_(min=0)
    return what, where


class _Pool(torch.autograd.Function):
    """Max-pooling that keeps one byte a window for its gradient."""

    @staticmethod
    def forward(ctx, z, size, stride, rectify):
        kernels = _kernels(z, size, stride)
        if kernels is not None:
            what, where = kernels.pool(z, size, rectify)
        else:
            what, where = _pool(z, size, stride, rectify)
        ctx.save_for_backward(where)
        ctx.geometry = *z.shape[-2:], size, stride
        ctx.mark_non_differentiable(where)
        return what, where

    @staticmethod
    def backward(ctx, *gradients):
        (where,) = ctx.saved_tensors
        return _place(gradients[0], where, *ctx.geometry), None, None, None


class _Unpool(torch.autograd.Function):
    """Unpooling of disjoint windows, which keeps one byte a window for its gradient."""

    @staticmethod
    def forward(ctx, what, where, height, width, size):
        ctx.save_for_backward(where)
        ctx.geometry = height, width, size, size
        return _place(what, where, *ctx.geometry)

    @staticmethod
    def backward(ctx, *gradients):
        (where,) = ctx.saved_tensors
        height, width, size, stride = ctx.geometry
        kernels = _kernels(where, size, stride)
        if kernels is not None:
            return kernels.read(gradients[0], where, size), None, None, None, None
        index = _rows(_indices(where, height, width, size, stride))
        what = _maps(_rows(gradients[0]).gather(1, index), *where.shape[-2:])
        return _silenced(what, where), None, None, None, None


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
        index = _rows(_indices(where, height, width, self.size, self.stride))
        rows = _rows(what.masked_fill(inactive(where), 0))
        empty = rows.new_zeros(len(rows), height * width, rows.shape[2])
        return _maps(empty.scatter_reduce(1, index, rows, "amax"), height, width)

    def extra_repr(self) -> str:
        """Say the window in ``repr``."""
        return f"size={self.size}, stride={self.stride}"
