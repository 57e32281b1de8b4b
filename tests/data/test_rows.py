import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import UNLABELED
from whatwhere.data.rows import Rows

ALL_BYTES = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)


def test_every_byte_becomes_the_same_bits_as_its_quotient_by_255():
    batch = Rows(ALL_BYTES).take(torch.arange(256))
    expected = ALL_BYTES.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(batch.x.numpy(), expected)
    assert (batch.x.min(), batch.x.max()) == (0, 1)
    assert batch.x.dtype == torch.float32


def test_bytes_and_their_floats_give_the_same_bits():
    rows = torch.arange(256)
    floats = Rows(ALL_BYTES.astype(np.float32) / np.float32(255)).take(rows)
    assert torch.equal(Rows(ALL_BYTES).take(rows).x, floats.x)


def test_bytes_stay_bytes_in_memory_and_share_it_with_the_array():
    x = ALL_BYTES.copy()
    rows = Rows(x)
    assert rows.x.dtype == torch.uint8
    assert rows.x.data_ptr() == x.ctypes.data


def test_a_batch_holds_the_rows_asked_for_in_their_order():
    rows = Rows(ALL_BYTES, np.arange(256) % 7)
    batch = rows.take(torch.tensor([9, 3, 9]))
    assert (batch.x * 255).round().flatten().tolist() == [9, 3, 9]
    assert batch.y.tolist() == [2, 3, 2]
    assert batch.rows.tolist() == [9, 3, 9]
    assert batch.y.dtype == batch.rows.dtype == torch.int64
    assert (len(rows), rows.shape) == (256, (1, 1, 1))


def test_without_labels_every_row_is_unlabeled():
    assert (Rows(ALL_BYTES).y == UNLABELED).all()


@given(low=st.floats(-1e3, 1e3), width=st.floats(1e-2, 1e3))
def test_a_value_range_is_mapped_to_0_and_1(low, width):
    ends = torch.tensor([low, low + width], dtype=torch.float64).reshape(2, 1, 1, 1)
    batch = Rows(ends, value_range=(low, low + width)).take(torch.tensor([0, 1]))
    # Rounding to float32 moves a value by up to half a unit in its last place.
    tolerance = 4 * 2**-24 * (abs(low) + width) / width + 1e-6
    np.testing.assert_allclose(batch.x.flatten(), [0, 1], atol=tolerance)


def test_a_value_range_of_bytes_may_be_given_too():
    batch = Rows(ALL_BYTES, value_range=(0, 51)).take(torch.tensor([51]))
    assert batch.x.item() == 1


def test_taking_a_batch_leaves_the_images_as_they_were():
    x = torch.rand(5, 1, 2, 2)
    rows = Rows(x.clone(), value_range=(-1, 3))
    rows.take(torch.arange(5)).x.zero_()
    assert torch.equal(rows.x, x)


@pytest.mark.parametrize("kind", ["read-only", "reversed", "transposed"])
def test_an_array_that_torch_cannot_share_is_copied(kind):
    x = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3)
    if kind == "read-only":
        x.flags.writeable = False
    elif kind == "reversed":
        x = x[::-1]
    else:
        x = x.transpose(0, 1, 3, 2)
    rows = Rows(x)
    np.testing.assert_array_equal(rows.x.numpy(), x)
    assert rows.x.is_contiguous()
