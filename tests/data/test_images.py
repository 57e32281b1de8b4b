from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import (
    Images,
    draw_labels,
    draw_validation,
    hide_labels,
    split_test,
)


def per_class(images: Images, rows: np.ndarray) -> list[int]:
    return np.bincount(images.y[rows], minlength=len(images.classes)).tolist()


@given(n=st.integers(4, 60), seed=st.integers(0, 99))
def test_a_draw_of_labels_is_balanced(n, seed):
    images = Images(np.zeros((60, 1, 1, 1), np.uint8), np.arange(60) % 4, ("a", "b", "c", "d"))
    rows = draw_labels(images, n, seed=seed)
    assert len(set(rows)) == len(rows) == n
    assert (np.diff(rows) > 0).all()
    counts = per_class(images, rows)
    assert max(counts) - min(counts) <= 1


def test_a_larger_draw_with_the_same_seed_contains_the_smaller(images):
    draws = [set(draw_labels(images, n, seed=7)) for n in range(4, 61)]
    assert all(small < large for small, large in pairwise(draws))


def test_a_draw_depends_on_the_labels_and_the_seed_and_not_on_the_pixels(images):
    rows = draw_labels(images, 10, seed=0)
    other_pixels = replace(images, x=255 - images.x)
    np.testing.assert_array_equal(rows, draw_labels(other_pixels, 10, seed=0))
    np.testing.assert_array_equal(rows, draw_labels(images, 10, seed=0))
    assert set(rows) != set(draw_labels(images, 10, seed=1))


def test_which_classes_get_one_more_label_is_drawn_too(images):
    luckiest = {tuple(per_class(images, draw_labels(images, 5, seed=seed))) for seed in range(40)}
    assert len(luckiest) == 4


def test_every_image_of_a_class_is_drawn_as_often_as_any_other(images):
    n_draws, share = 400, 3 / 15
    hits = sum(np.isin(np.arange(60), draw_labels(images, 12, seed=s)) for s in range(n_draws))
    deviation = np.sqrt(n_draws * share * (1 - share))
    assert np.abs(hits - n_draws * share).max() < 5 * deviation


def test_unlabeled_rows_are_never_drawn(few_labels):
    rows = draw_labels(few_labels, 21, seed=0)
    assert (few_labels.y[rows] != UNLABELED).all()


def test_the_largest_balanced_draw_is_named_and_can_be_drawn(labeled_as):
    images = labeled_as([0] * 9 + [1] * 2 + [2] * 5)
    with pytest.raises(InputError, match="class 1 has 2 labeled images, so ask for 6 at most"):
        draw_labels(images, 7, seed=0)
    assert per_class(images, draw_labels(images, 6, seed=0)) == [2, 2, 2]


def test_fewer_labels_than_classes_are_refused(images):
    with pytest.raises(InputError, match="3 labels are too few for 4 classes"):
        draw_labels(images, 3, seed=0)


def test_labels_cannot_be_drawn_where_there_are_none(labeled_as):
    with pytest.raises(InputError, match="none of the 5 images has a label"):
        draw_labels(labeled_as([-1] * 5), 2, seed=0)


@pytest.mark.parametrize("size", [12, 0.2])
def test_validation_is_in_proportion_and_apart_from_the_drawn_labels(labeled_as, size):
    images = labeled_as([0] * 40 + [1] * 20)
    keep = draw_labels(images, 6, seed=0)
    rows = draw_validation(images, size, keep=keep, seed=0)
    assert len(rows) == 12
    assert not set(rows) & set(keep)
    assert (np.diff(rows) > 0).all()
    assert per_class(images, rows) == [8, 4]


def test_validation_can_be_drawn_where_all_labels_are_shown(images):
    rows = draw_validation(images, 8, keep=[], seed=0)
    assert per_class(images, rows) == [2, 2, 2, 2]


def test_validation_takes_labeled_rows_only(few_labels):
    rows = draw_validation(few_labels, 0.5, keep=[], seed=0)
    assert len(rows) == 15
    assert (few_labels.y[rows] != UNLABELED).all()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (41, "40 labeled images are left beside the 20"),
        (0, "give a count from 1 to 40"),
        (-5, "give a count from 1 to 40"),
        (1.0, "a number between 0 and 1"),
        (0.0, "a number between 0 and 1"),
        (float("nan"), "a number between 0 and 1"),
    ],
)
def test_an_impossible_validation_is_refused(images, size, reason):
    with pytest.raises(InputError, match=reason):
        draw_validation(images, size, keep=range(20), seed=0)


def test_validation_needs_labels_that_are_left(images, labeled_as):
    with pytest.raises(InputError, match="all 60 labels are trained on"):
        draw_validation(images, 5, keep=range(60), seed=0)
    with pytest.raises(InputError, match="none of the 9 images has one"):
        draw_validation(labeled_as([-1] * 9), 5, keep=[], seed=0)


@given(fraction=st.floats(0.05, 0.95), seed=st.integers(0, 9))
def test_a_split_keeps_every_image_once_and_each_class_in_proportion(fraction, seed):
    y = np.array([0] * 40 + [1] * 20)
    x = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    train, test = split_test(Images(x, y, (0, 1)), fraction, seed)
    assert len(test) == round(60 * fraction)
    assert sorted([*train.x.ravel(), *test.x.ravel()]) == list(range(60))
    for part in (train, test):
        assert (np.diff(part.x.ravel().astype(int)) > 0).all()
        np.testing.assert_array_equal(part.y, y[part.x.ravel()])
    assert abs(np.count_nonzero(test.y == 0) - 40 * fraction) < 1


def test_unlabeled_images_stay_in_the_training_part(few_labels):
    train, test = split_test(few_labels, 0.5)
    assert len(test) == 15
    assert test.n_labeled == 15
    assert len(train) - train.n_labeled == 30


def test_a_set_without_labels_is_split_too(labeled_as):
    train, test = split_test(labeled_as([-1] * 10), 0.3)
    assert (len(train), len(test)) == (7, 3)


def test_a_split_leaves_each_class_an_image_to_learn_from(labeled_as):
    train, _ = split_test(labeled_as([0] * 20 + [1]), 0.9)
    assert set(train.y) == {0, 1}


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_test_fraction_lies_between_0_and_1(images, fraction):
    with pytest.raises(InputError, match="a number between 0 and 1"):
        split_test(images, fraction)


def test_a_test_part_without_an_image_is_refused(labeled_as):
    with pytest.raises(InputError, match="leaves no test image"):
        split_test(labeled_as([0, 1, 2]), 0.1)


def test_hidden_labels_are_unlabeled_and_the_others_stay(images):
    hidden = hide_labels(images, [3, 5])
    assert np.flatnonzero(hidden.y != UNLABELED).tolist() == [3, 5]
    assert hidden.y[[3, 5]].tolist() == [3, 1]
    assert images.n_labeled == 60
    assert hidden.n_labeled == 2
    assert hide_labels(images, []).n_labeled == 0


def test_taken_rows_bring_their_pixels_labels_and_names(images):
    named = replace(images, names=tuple(f"{row}.png" for row in range(60)))
    part = named.take([5, 2])
    assert part.names == ("5.png", "2.png")
    assert part.y.tolist() == [1, 2]
    assert part.x[:, 0, 0, 1].tolist() == [5, 2]
    assert part.shape == (1, 2, 3)
    part.x[:] = 0
    assert images.x[5, 0, 0, 1] == 5


def test_equal_images_have_equal_fingerprints(images):
    twin = images.take(range(60))
    assert twin.fingerprint() == images.fingerprint()
    transposed_in_memory = replace(images, x=np.asfortranarray(images.x))
    assert transposed_in_memory.fingerprint() == images.fingerprint()


@pytest.mark.parametrize("change", ["pixel", "label", "class", "shape", "type", "order"])
def test_a_fingerprint_tells_whatever_differs(images, change):
    x, y, classes = images.x.copy(), images.y.copy(), images.classes
    if change == "pixel":
        x[59, 0, 1, 2] += 1
    elif change == "label":
        y[0] = 3
    elif change == "class":
        classes = (*classes[:3], "another")
    elif change == "shape":
        x = x.reshape(60, 1, 3, 2)
    elif change == "type":
        x = x.astype(np.float32)
    else:
        x = x[::-1]
    assert Images(x, y, classes).fingerprint() != images.fingerprint()
