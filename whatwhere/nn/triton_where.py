"""What-where pooling of disjoint windows on a GPU, each direction in one pass over the maps.

Each program takes a run of cells. To pool, it reads the pixels of each cell's window in row order
and keeps the largest and its place; to write (unpooling, and the gradient of pooling) it fills each
window with its one value and zeros; to read (the gradient of unpooling) it fetches one pixel a
cell. Nothing of eight bytes a cell is ever in memory, and no two cells write the same pixel, so
that every result is the same each time.

The torch form in `whatwhere.nn.where` is the reference: under Triton's interpreter they agree with
it to the bit, and they compile for CUDA GPUs of capability 8.0 and 9.0. They have not run on a GPU
yet, and their speed has not been measured: `agree` tries them on a device before they are used.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whatwhere.nn.where import WhatWhere, cells, where_type

# By name, and only where it is: it comes with torch for GPUs, and with no other.
triton: Any = import_module("triton") if find_spec("triton") else None
tl: Any = import_module("triton.language") if triton else None
if TYPE_CHECKING:
    constexpr = Any
else:
    constexpr = tl.constexpr if triton else Any

BLOCK = 512
"""Cells a program takes."""

STEPS = ("image_step", "channel_step", "row_step", "column_step")


def _corner(cell, channels, h, w, SIZE: constexpr):
    """Return the image and channel, and the first row and column, of cells counted (B, h, w, C)."""
    channel = cell % channels
    rest = cell // channels
    column = rest % w * SIZE
    row = rest // w % h * SIZE
    return rest // (w * h), channel, row, column


def _pool_kernel(
    z,
    what,
    where,
    n,
    channels,
    height,
    width,
    h,
    w,
    image_step,
    channel_step,
    row_step,
    column_step,
    SIZE: constexpr,
    INACTIVE: constexpr,
    RECTIFY: constexpr,
    BLOCK: constexpr,
):
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = cell < n
    image, channel, row, column = _corner(cell, channels, h, w, SIZE)
    at = z + image * image_step + channel * channel_step + row * row_step + column * column_step
    wide = tl.float64 if z.dtype.element_ty == tl.float64 else tl.float32
    largest = tl.load(at, mask=real, other=0.0).to(wide)
    place = tl.full((BLOCK,), 0, tl.int32)
    for k in range(1, SIZE * SIZE):
        down, right = k // SIZE, k % SIZE
        inside = real & (row + down < height) & (column + right < width)
        value = tl.load(at + down * row_step + right * column_step, mask=inside, other=0.0)
        value = value.to(wide)
        # As torch does: the first of equal ones, and the last that is not a number.
        better = inside & ((value > largest) | ~(value <= float("inf")))
        largest = tl.where(better, value, largest)
        place = tl.where(better, k, place)
    if RECTIFY:
        place = tl.where(largest <= 0, INACTIVE, place)
        largest = tl.where(largest < 0, 0.0, largest)
    else:
        place = tl.where(largest == 0, INACTIVE, place)
    tl.store(what + cell, largest.to(z.dtype.element_ty), mask=real)
    tl.store(where + cell, place.to(where.dtype.element_ty), mask=real)


def _write_kernel(
    values,
    where,
    maps,
    n,
    channels,
    height,
    width,
    h,
    w,
    SIZE: constexpr,
    INACTIVE: constexpr,
    BLOCK: constexpr,
):
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = cell < n
    image, channel, row, column = _corner(cell, channels, h, w, SIZE)
    value = tl.load(values + cell, mask=real, other=0.0)
    place = tl.load(where + cell, mask=real, other=INACTIVE).to(tl.int32)
    at = maps + ((image * height + row) * width + column) * channels + channel
    for k in range(SIZE * SIZE):
        down, right = k // SIZE, k % SIZE
        inside = real & (row + down < height) & (column + right < width)
        pixel = tl.where(place == k, value, 0.0)  # INACTIVE is no k
        tl.store(at + (down * width + right) * channels, pixel, mask=inside)


def _read_kernel(
    maps,
    where,
    values,
    n,
    channels,
    height,
    width,
    h,
    w,
    image_step,
    channel_step,
    row_step,
    column_step,
    SIZE: constexpr,
    INACTIVE: constexpr,
    BLOCK: constexpr,
):
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = cell < n
    image, channel, row, column = _corner(cell, channels, h, w, SIZE)
    place = tl.load(where + cell, mask=real, other=INACTIVE).to(tl.int32)
    row += place // SIZE
    column += place % SIZE
    at = maps + image * image_step + channel * channel_step + row * row_step + column * column_step
    value = tl.load(at, mask=real & (place != INACTIVE), other=0.0)
    tl.store(values + cell, value, mask=real)


if triton:
    _corner, _pool_kernel, _write_kernel, _read_kernel = map(
        triton.jit, (_corner, _pool_kernel, _write_kernel, _read_kernel)
    )


def _empty(like: Tensor, height: int, width: int, kind: torch.dtype) -> Tensor:
    """Return maps (B, C, height, width), channels last whatever the sizes, to be written."""
    rows = torch.empty((len(like), height, width, like.shape[1]), dtype=kind, device=like.device)
    return rows.permute(0, 3, 1, 2)


def _as_cells(maps: Tensor) -> Tensor:
    """Return (B, C, h, w) in the order in which cells are counted, (B, h, w, C)."""
    return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _run(kernel: Any, *tensors: Tensor, cell: Tensor, maps: Tensor, size: int, **more: Any) -> None:
    """Run a kernel over all cells of these maps; `cell` is any tensor of their number."""
    n, (height, width), (h, w) = cell.numel(), maps.shape[2:], cell.shape[2:]
    more |= {"SIZE": size, "INACTIVE": 255 if where_type(size) == torch.uint8 else -1}
    if n:
        grid = (triton.cdiv(n, BLOCK),)
        kernel[grid](*tensors, n, maps.shape[1], height, width, h, w, **more, BLOCK=BLOCK)


def pool(z: Tensor, size: int, rectify: bool) -> tuple[Tensor, Tensor]:
    """Return what and where (B, C, h, w) of maps z (B, C, H, W), as `WhatWhere.pool` does."""
    h, w = cells(z.shape[2], size, size), cells(z.shape[3], size, size)
    what, where = _empty(z, h, w, z.dtype), _empty(z, h, w, where_type(size))
    steps = dict(zip(STEPS, z.stride(), strict=True))
    _run(_pool_kernel, z, what, where, cell=what, maps=z, size=size, RECTIFY=rectify, **steps)
    return what, where


def write(values: Tensor, where: Tensor, height: int, width: int, size: int) -> Tensor:
    """Return maps (B, C, height, width) with each value at its `where`, and 0 elsewhere."""
    maps = _empty(values, height, width, values.dtype)
    values, where = _as_cells(values), _as_cells(where)
    _run(_write_kernel, values, where, maps, cell=values, maps=maps, size=size)
    return maps


def read(maps: Tensor, where: Tensor, size: int) -> Tensor:
    """Return what (B, C, h, w) stands in the maps at `where`, and 0 for inactive windows."""
    where = _as_cells(where)
    values = _empty(maps, where.shape[2], where.shape[3], maps.dtype)
    steps = dict(zip(STEPS, maps.stride(), strict=True))
    _run(_read_kernel, maps, where, values, cell=values, maps=maps, size=size, **steps)
    return values


def agree(device: torch.device) -> bool:
    """Return whether the kernels give on a device, for small maps, what torch gives on a CPU."""
    z = (torch.arange(2.0 * 3 * 5 * 7) * 7 % 11 - 4).view(2, 3, 5, 7)  # with ties, zeros and less
    for size in (2, 3):
        reference = WhatWhere(size)
        what, where = reference.pool(z, rectify=True)
        maps = reference.unpool(what.requires_grad_(), where, (5, 7))
        (gradient,) = torch.autograd.grad(maps, what, z)
        there, at = z.to(device), where.to(device)
        found = [
            *pool(there, size, True),
            write(what.detach().to(device), at, 5, 7, size),
            read(there, at, size),
        ]
        wanted = (what, where, maps, gradient)
        if not all(torch.equal(a.cpu(), b) for a, b in zip(found, wanted, strict=True)):
            return False
    return True
