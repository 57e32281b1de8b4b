from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import InputError
from whatwhere.data.corruption import KINDS, corruption

PARTS = ["masking", "salt-and-pepper"]
SHAPE = (20, 3, 40, 50)


def gray(seed: int = 0) -> torch.Tensor:
    """Images without 0 and 1, so that what was set to them can be told."""
    return 0.2 + 0.6 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_level_0_is_the_identity(kind):
    x = gray()
    assert torch.equal(corruption(kind, 0)(x), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_images_given_stay_as_they_are_and_a_new_tensor_is_returned(kind, dtype):
    x = gray().to(dtype)
    before = x.clone()
    noisy = corruption(kind, 0.5)(x)
    assert torch.equal(x, before)
    assert noisy.data_ptr() != x.data_ptr()
    assert noisy.shape == x.shape
    assert noisy.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(kind):
    noise = corruption(kind, 0.3)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(noise(gray()))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("kind", PARTS)
@given(level=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_part_that_is_changed_is_binomial_around_the_level(kind, level, seed):
    x = gray()
    torch.manual_seed(seed)
    changed = (corruption(kind, level)(x) != x).sum().item()
    deviation = (x.numel() * level * (1 - level)) ** 0.5
    assert abs(changed - x.numel() * level) <= 5 * deviation + 1


@pytest.mark.parametrize("kind", PARTS)
def test_values_are_changed_independently_of_their_neighbors(kind):
    torch.manual_seed(0)
    x = gray()
    changed = (corruption(kind, 0.5)(x) != x).double()
    for axis in range(4):
        one, next_one = changed.narrow(axis, 1, 1), changed.narrow(axis, 0, 1)
        both = (one * next_one).mean().item()
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / one.numel()) ** 0.5


def test_masked_values_are_0_and_the_others_stay():
    torch.manual_seed(0)
    x = gray()
    noisy = corruption("masking", 0.4)(x)
    assert ((noisy == 0) | (noisy == x)).all()


def test_salt_is_as_frequent_as_pepper_and_the_others_stay():
    torch.manual_seed(0)
    x = gray()
    noisy = corruption("salt-and-pepper", 0.4)(x)
    salt, pepper = (noisy == 1), (noisy == 0)
    assert (salt | pepper | (noisy == x)).all()
    deviation = (0.2 * 0.8 / x.numel()) ** 0.5
    assert abs(salt.double().mean() - 0.2) < 5 * deviation
    assert abs(pepper.double().mean() - 0.2) < 5 * deviation


@given(level=st.floats(0.01, 5), seed=st.integers(0, 99))
def test_gaussian_noise_has_mean_0_and_that_deviation(level, seed):
    torch.manual_seed(seed)
    x = gray().double()
    added = corruption("gaussian", level)(x) - x
    n = added.numel()
    assert abs(added.mean()) < 5 * level / n**0.5
    assert abs(added.var() / level**2 - 1) < 5 * (2 / n) ** 0.5


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("level", [-0.1, 1.1, nan, inf])
def test_what_is_no_part_is_refused(kind, level):
    with pytest.raises(InputError, match=f"not possible for {kind} noise; give from 0 to 1"):
        corruption(kind, level)


@pytest.mark.parametrize("level", [-0.1, nan, inf])
def test_what_is_no_deviation_is_refused(level):
    with pytest.raises(InputError, match="not possible for gaussian noise; give 0 or more"):
        corruption("gaussian", level)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean masking"):
        corruption("mask", 0.1)


def test_each_says_its_rule():
    assert str(corruption("masking", 0.3)) == "masking: 0.3 of the pixels set to 0"
    assert str(corruption("gaussian", 0.25)) == "Gaussian noise of deviation 0.25"
    said = "salt and pepper: 0.1 of the pixels set to 0 or 1"
    assert str(corruption("salt-and-pepper", 0.1)) == said
