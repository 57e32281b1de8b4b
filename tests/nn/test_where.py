from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from whatwhere.core import InputError
from whatwhere.nn.where import WhatWhere, cells, inactive, where_type

SIZES = list(range(1, 17))


class Case(NamedTuple):
    """Random maps z (B, C, H, W) in float64 without ties, and a window."""

    z: Tensor
    size: int


@st.composite
def cases(draw, largest_window: int = 16) -> Case:
    """Maps of any size, odd ones and ones smaller than the window too."""
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    size = draw(st.integers(1, largest_window))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return Case(torch.from_numpy(rng.normal(size=(batch, channels, height, width))), size)


def torch_pool(z: Tensor, size: int, stride: int | None = None) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(z, size, stride or size, ceil_mode=True, return_indices=True)


def windows(height: int, width: int, size: int, stride: int):
    """Yield (cell row, cell column, pixel rows, pixel columns), each window clipped."""
    for i, j in product(range(cells(height, size, stride)), range(cells(width, size, stride))):
        top, left = i * stride, j * stride
        yield i, j, range(top, min(top + size, height)), range(left, min(left + size, width))


# What is taken apart can be put together again.


@given(cases(), st.integers(0, 2**31))
def test_pooling_what_was_unpooled_gives_what_and_where(case: Case, seed: int):
    pool, (batch, channels, height, width) = WhatWhere(case.size), case.z.shape
    rng = np.random.default_rng(seed)
    shape = (
        batch,
        channels,
        cells(height, case.size, case.size),
        cells(width, case.size, case.size),
    )
    what = torch.from_numpy(rng.choice([0.0, 0.5, 1.0, 3.0], size=shape))
    where = torch.zeros(shape, dtype=where_type(case.size))
    for i, j, rows, columns in windows(height, width, case.size, case.size):
        down = rng.integers(len(rows), size=shape[:2])
        right = rng.integers(len(columns), size=shape[:2])
        where[:, :, i, j] = torch.from_numpy(down * case.size + right).to(where.dtype)
    where[what == 0] = 255 if where.dtype == torch.uint8 else -1

    again = pool.pool(pool.unpool(what, where, (height, width)))

    assert torch.equal(again[0], what)
    assert torch.equal(again[1], where)


@given(cases())
def test_unpooling_keeps_each_maximum_in_its_place_and_nothing_else(case: Case):
    z, pool = case.z.relu(), WhatWhere(case.size)
    rebuilt = pool.unpool(*pool.pool(z), (z.shape[2], z.shape[3]))
    assert torch.equal(rebuilt, torch.where(rebuilt != 0, z, 0))
    assert torch.equal(torch_pool(rebuilt, case.size)[0], torch_pool(z, case.size)[0])
    n_cells = torch_pool(z, case.size)[0].count_nonzero()
    assert rebuilt.count_nonzero() == n_cells


@given(cases())
def test_pooling_and_unpooling_again_changes_nothing(case: Case):
    pool, size = WhatWhere(case.size), (case.z.shape[2], case.z.shape[3])
    once = pool.unpool(*pool.pool(case.z.relu()), size)
    assert torch.equal(pool.unpool(*pool.pool(once), size), once)


# The same as torch's own operations.


@given(cases(), st.data())
def test_what_is_torchs_max_pooling_clipped_at_the_border(case: Case, data):
    stride = data.draw(st.integers(1, case.size))
    z = case.z
    if min(z.shape[2:]) < case.size:  # where torch leaves no window
        stride = case.size
    what, _ = WhatWhere(case.size, stride).pool(z)
    assert torch.equal(what, torch_pool(z, case.size, stride)[0])


@given(cases())
def test_where_is_the_place_within_the_window_that_torch_counts_in_the_map(case: Case):
    z, width = case.z, case.z.shape[3]
    _, where = WhatWhere(case.size).pool(z)
    _, index = torch_pool(z, case.size)
    down, right = index // width % case.size, index % width % case.size
    assert torch.equal(where.long(), down * case.size + right)


@given(cases(), st.data())
def test_the_gradient_of_pooling_is_that_of_torch(case: Case, data):
    stride = data.draw(st.integers(1, case.size))
    if min(case.z.shape[2:]) < case.size:
        stride = case.size
    ours, theirs = (case.z.clone().requires_grad_() for _ in range(2))
    what, _ = WhatWhere(case.size, stride).pool(ours.relu())
    expected, _ = torch_pool(theirs.relu(), case.size, stride)
    weight = torch.linspace(-1, 2, what.numel(), dtype=what.dtype).view(what.shape)
    (what * weight).sum().backward()
    (expected * weight).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-13)


@given(cases())
def test_the_gradient_of_a_rebuilt_pixel_reaches_it_where_it_was_the_maximum(case: Case):
    pool, z = WhatWhere(case.size), case.z.clone().requires_grad_()
    rebuilt = pool.unpool(*pool.pool(z.relu()), (z.shape[2], z.shape[3]))
    weight = torch.linspace(-1, 2, rebuilt.numel(), dtype=rebuilt.dtype).view(rebuilt.shape)
    (rebuilt * weight).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.where(rebuilt != 0, weight, 0).detach())


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_unpooling_and_its_gradient_are_those_of_torch(size: int, n: int, m: int, seed: int):
    values = np.random.default_rng(seed).normal(size=(2, 3, n * size, m * size))
    ours, theirs = (torch.from_numpy(values.copy()).requires_grad_() for _ in range(2))
    pool = WhatWhere(size)
    rebuilt = pool.unpool(*pool.pool(ours.relu()), (n * size, m * size))
    expected = F.max_unpool2d(*torch_pool(theirs.relu(), size), [size, size])
    assert torch.equal(rebuilt, expected)
    (rebuilt**3).sum().backward()
    (expected**3).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 3), (3, 1), (3, 2), (4, 2)])
def test_the_gradients_are_those_of_small_differences(size: int, stride: int, rng):
    pool = WhatWhere(size, stride)
    # Numbers 0.1 apart: small differences change no maximum.
    z = torch.from_numpy(rng.permutation(2 * 2 * 5 * 7).reshape(2, 2, 5, 7) * 0.1 - 5.05)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: pool.pool(z)[0], z)
    assert torch.autograd.gradcheck(lambda z: pool.pool(z, rectify=True)[0], z)
    what, where = pool.pool(z.detach(), rectify=True)
    what = (what + 0.01 * torch.arange(what.numel()).view(what.shape)).requires_grad_()
    assert torch.autograd.gradcheck(lambda what: pool.unpool(what, where, (5, 7)), what)


@given(cases())
def test_rectified_pooling_is_pooling_after_a_relu(case: Case):
    pool = WhatWhere(case.size)
    one, other = (case.z.clone().requires_grad_() for _ in range(2))
    together, apart = pool.pool(one, rectify=True), pool.pool(other.relu())
    assert torch.equal(together[0], apart[0])
    assert torch.equal(together[1], apart[1])
    weight = torch.linspace(-1, 2, together[0].numel(), dtype=one.dtype).view(together[0].shape)
    (together[0] * weight).sum().backward()
    (apart[0] * weight).sum().backward()
    assert one.grad is not None and other.grad is not None
    assert torch.equal(one.grad, other.grad)


# Where.


@pytest.mark.parametrize("size", SIZES)
def test_where_lies_in_its_window_or_is_inactive(size: int, rng):
    z = torch.from_numpy(rng.normal(size=(3, 2, 33, 35)))
    _, where = WhatWhere(size).pool(z, rectify=True)
    active = where[~inactive(where)].long()
    assert active.min() >= 0
    assert active.max() <= size * size - 1


@pytest.mark.parametrize("size", SIZES)
def test_every_place_of_a_window_can_be_told(size: int):
    # One image a place: a single bright pixel.
    z = torch.eye(size * size).view(size * size, 1, size, size)
    _, where = WhatWhere(size).pool(z)
    assert where.flatten().tolist() == list(range(size * size))
    assert not inactive(where).any()


@pytest.mark.parametrize("size", [1, 2, 8, 11, 12, 15])
def test_where_takes_one_byte_up_to_windows_of_15(size: int):
    _, where = WhatWhere(size).pool(torch.ones(1, 1, 16, 16))
    assert where.element_size() == 1


@pytest.mark.parametrize("size", [16, 100, 181])
def test_where_takes_two_bytes_in_larger_windows(size: int):
    z = torch.zeros(1, 1, size, size)
    z[..., -1, -1] = 1
    what, where = WhatWhere(size).pool(z)
    assert where.element_size() == 2
    assert where.item() == size * size - 1
    assert torch.equal(WhatWhere(size).unpool(what, where, (size, size)), z)


def test_a_window_too_large_for_two_bytes_is_refused():
    with pytest.raises(InputError, match="182"):
        WhatWhere(182)


@pytest.mark.parametrize("size", SIZES)
def test_inactive_windows_unpool_to_zero_and_pass_no_gradient(size: int):
    pool, z = WhatWhere(size), torch.zeros(2, 3, 17, 18, requires_grad=True)
    what, where = pool.pool(z)
    assert inactive(where).all()
    what.sum().backward()
    assert z.grad is not None and not z.grad.any()
    # Even where a later layer has made something of their zeros.
    loud = torch.ones_like(what).requires_grad_()
    rebuilt = pool.unpool(loud, where, (17, 18))
    assert not rebuilt.any()
    rebuilt.sum().backward()
    assert loud.grad is not None and not loud.grad.any()


@pytest.mark.parametrize("size", [1, 2, 3, 12, 16])
def test_no_gradient_of_an_inactive_window_gets_through_not_even_an_infinite_one(size: int):
    pool, z = WhatWhere(size), torch.zeros(1, 2, 17, 18, requires_grad=True)
    what, where = pool.pool(z)
    (down,) = torch.autograd.grad(what, z, torch.full_like(what, torch.inf))
    assert not down.any()
    loud = torch.full_like(what, torch.nan).requires_grad_()
    rebuilt = pool.unpool(loud, where, (17, 18))
    assert not rebuilt.any()
    (up,) = torch.autograd.grad(rebuilt, loud, torch.full_like(rebuilt, torch.inf))
    assert not up.any()


@pytest.mark.parametrize("size", [1, 2, 3, 12, 16])
def test_what_is_not_a_number_is_the_maximum_and_is_where_it_was(size: int):
    pool, z = WhatWhere(size), torch.rand(1, 1, 16, 16)
    z[0, 0, 9, 6] = torch.nan
    what, where = pool.pool(z, rectify=True)
    cell = 9 // size, 6 // size
    assert what.isnan().nonzero().tolist() == [[0, 0, *cell]]
    assert where[0, 0][cell].item() == 9 % size * size + 6 % size


def test_the_first_of_equal_maxima_is_where():
    _, where = WhatWhere(2).pool(torch.full((1, 1, 2, 2), 3.0))
    assert where.item() == 0


# Offsets in rows of up to 126 pixels fit into one byte, and up to 32,766 into two.
@pytest.mark.parametrize("width", [1, 2, 126, 127, 128, 32766, 32767, 32768])
def test_where_is_told_in_maps_of_any_width(width: int, rng):
    values = torch.from_numpy(rng.normal(size=(1, 2, 4, width)))
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    what, where = WhatWhere(2).pool(ours)
    expected, index = torch_pool(theirs, 2)
    assert torch.equal(where.long(), index // width % 2 * 2 + index % width % 2)
    rebuilt = WhatWhere(2).unpool(what, where, (4, width))
    assert torch.equal(rebuilt, torch.where(rebuilt != 0, values, 0))
    (rebuilt**2).sum().backward()
    (expected**2).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


# Windows that overlap.


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (3, 1), (3, 2), (5, 2), (4, 3)])
def test_overlapping_windows_are_unpooled_by_their_maximum(size: int, stride: int, rng):
    pool, height, width = WhatWhere(size, stride), 7, 9
    z = torch.from_numpy(rng.normal(size=(2, 3, height, width))).relu()
    what, where = pool.pool(z)
    what = what * torch.from_numpy(rng.uniform(0.1, 2, size=what.shape))  # they now disagree
    expected = torch.zeros(2, 3, height, width, dtype=torch.float64)
    for i, j, rows, columns in windows(height, width, size, stride):
        for b, c in product(range(2), range(3)):
            place = int(where[b, c, i, j])
            if place >= 0:
                row, column = rows[place // size], columns[place % size]
                expected[b, c, row, column] = max(expected[b, c, row, column], what[b, c, i, j])
    assert torch.equal(pool.unpool(what, where, (height, width)), expected)


@pytest.mark.parametrize("overlap", ["mean", "sum", ""])
def test_any_other_rule_of_overlap_is_refused(overlap: str):
    with pytest.raises(InputError, match=f"overlap={overlap!r}.*maximum"):
        WhatWhere(3, 2, overlap)


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (-1, None), (2, 3), (2, 0)])
def test_windows_that_leave_gaps_are_refused(size: int, stride: int | None):
    with pytest.raises(InputError, match=f"size={size}"):
        WhatWhere(size, stride)


# How it computes.


@pytest.mark.parametrize("size", [2, 3])
def test_pool_and_unpool_keep_one_byte_a_cell_for_their_gradients(size: int):
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    pool, z = WhatWhere(size), torch.rand(2, 3, 12, 12, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        what, where = pool.pool(z, rectify=True)
        assert sum(tensor.nbytes for tensor in kept) == what.numel()
        pool.unpool(what, where, (12, 12))
    # The second is the first's *where* once more.
    assert sum(tensor.nbytes for tensor in kept) == 2 * what.numel()
    assert len({tensor.data_ptr() for tensor in kept}) == 1


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_it_runs_where_only_deterministic_operations_are_allowed(size: int, stride: int, rng):
    pool = WhatWhere(size, stride)
    values = torch.from_numpy(rng.normal(size=(4, 3, 9, 9)))

    def run() -> tuple[Tensor, ...]:
        z = values.clone().requires_grad_()
        what, where = pool.pool(z, rectify=True)
        rebuilt = pool.unpool(what, where, (9, 9))
        (rebuilt**2).sum().backward()
        assert z.grad is not None
        return what, where, rebuilt, z.grad

    torch.use_deterministic_algorithms(True)
    first, second = run(), run()
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_maps_keep_their_type(dtype: torch.dtype):
    z = torch.arange(16.0).view(1, 1, 4, 4).to(dtype)
    what, where = WhatWhere(2).pool(z)
    assert what.dtype == dtype
    assert WhatWhere(2).unpool(what, where, (4, 4)).dtype == dtype


def test_the_layout_in_memory_changes_nothing(rng):
    z = torch.from_numpy(rng.normal(size=(2, 3, 5, 6)))
    for one, other in zip(
        WhatWhere(2).pool(z),
        WhatWhere(2).pool(z.contiguous(memory_format=torch.channels_last)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_pooling_leaves_its_input_as_it_was(rng):
    z = torch.from_numpy(rng.normal(size=(2, 3, 5, 6)))
    z = z.contiguous(memory_format=torch.channels_last)
    before = z.clone()
    WhatWhere(1).pool(z, rectify=True)
    WhatWhere(2).pool(z, rectify=True)
    assert torch.equal(z, before)
