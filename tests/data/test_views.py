import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import Batch, InputError
from whatwhere.data.views import RandomShift


def batch_of(x: torch.Tensor) -> Batch:
    rows = torch.arange(len(x))
    return Batch(x, rows % 3, rows)


def shifted(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Shift by a slow loop of the definition: out[i, j] = image[i - dy, j - dx], zero outside."""
    _, h, w = image.shape
    out = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            if 0 <= i - dy < h and 0 <= j - dx < w:
                out[:, i, j] = image[:, i - dy, j - dx]
    return out


@given(
    pixels=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 99),
)
def test_each_image_is_one_of_its_shifts(pixels, shape, seed):
    # No zero in the image, so that zeros in the result came in from the border.
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1
    out = RandomShift(pixels)(batch_of(x)).x
    assert out.shape == x.shape
    steps = range(-pixels, pixels + 1)
    for before, after in zip(x.numpy(), out.numpy(), strict=True):
        assert any(np.array_equal(shifted(before, dy, dx), after) for dy in steps for dx in steps)


def test_every_shift_is_as_likely_as_any_other():
    n, p = 20_000, 2
    x = torch.zeros(n, 1, 5, 5)
    x[:, :, 2, 2] = 1
    torch.manual_seed(0)
    hits = RandomShift(p)(batch_of(x)).x.sum(dim=(0, 1))
    share = 1 / 25
    assert hits.sum() == n
    assert (hits - n * share).abs().max() < 5 * (n * share * (1 - share)) ** 0.5


def test_channels_of_an_image_move_together():
    x = torch.rand(50, 1, 6, 6).expand(50, 3, 6, 6)
    out = RandomShift(2)(batch_of(x)).x
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])


def test_labels_rows_and_the_batch_itself_stay():
    batch = batch_of(torch.rand(8, 1, 4, 4))
    before = batch.x.clone()
    out = RandomShift(1)(batch)
    assert out.y is batch.y
    assert out.rows is batch.rows
    assert torch.equal(batch.x, before)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    batch = batch_of(torch.rand(50, 1, 8, 8))
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(RandomShift(2)(batch).x)
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_a_shift_by_no_pixel_is_the_identity():
    batch = batch_of(torch.rand(8, 1, 4, 4))
    assert RandomShift(0)(batch) is batch


@pytest.mark.parametrize("pixels", [-1, 1.5, float("nan"), float("inf")])
def test_a_shift_is_by_whole_pixels(pixels):
    with pytest.raises(InputError, match="give 0, 1, 2"):
        RandomShift(pixels)


def test_a_shift_says_its_rule():
    assert str(RandomShift(2)) == "shift by up to 2 pixels"
    assert str(RandomShift(1)) == "shift by up to 1 pixel"
