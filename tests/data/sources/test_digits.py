import numpy as np
from sklearn.datasets import load_digits

from whatwhere.data.sources import NAMES, load


def test_no_count_of_dots_is_lost_in_a_byte(tmp_path):
    digits = NAMES["digits"].read(tmp_path).train
    counts, y = load_digits(return_X_y=True)
    np.testing.assert_array_equal(
        np.rint(digits.x.reshape(1797, 64) / 255 * 16), counts, strict=True
    )
    np.testing.assert_array_equal(digits.y, y)
    assert (digits.x.min(), digits.x.max()) == (0, 255)


def test_a_third_of_each_class_is_the_test_part():
    digits = load("digits")
    assert digits.test is not None
    assert (len(digits.train), len(digits.test)) == (1198, 599)
    train, test = (np.bincount(part.y) for part in (digits.train, digits.test))
    assert np.abs(test - (train + test) / 3).max() < 1


def test_the_split_is_the_same_on_every_call():
    first, second = load("digits"), load("digits")
    assert first.train.fingerprint() == second.train.fingerprint()


def test_another_test_fraction_may_be_asked_for():
    digits = load("digits", test_fraction=0.1)
    assert digits.test is not None
    assert len(digits.test) == 180


def test_all_digits_are_in_their_own_order():
    everything = load("digits", split="all")
    assert everything.test is None
    np.testing.assert_array_equal(everything.train.y, load_digits(return_X_y=True)[1])
