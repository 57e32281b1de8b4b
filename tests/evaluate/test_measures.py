import json
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from whatwhere.core import InputError
from whatwhere.evaluate.measures import (
    auroc,
    calibration_error,
    classification,
    mean_interval,
    paired_difference,
    wilson,
)

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
values = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(counts)
def test_the_interval_of_a_rate_holds_it_and_stays_within_all_and_nothing(count):
    errors, n = count
    low, high = wilson(errors, n)
    assert 0 <= low <= 100 * errors / n + 1e-9
    assert 100 * errors / n - 1e-9 <= high <= 100


@given(counts)
def test_the_interval_of_errors_mirrors_that_of_hits(count):
    errors, n = count
    low, high = wilson(errors, n)
    assert wilson(n - errors, n) == pytest.approx((100 - high, 100 - low))


@given(counts)
def test_the_interval_of_a_rate_ends_where_the_score_test_just_accepts(count):
    errors, n = count
    for end in wilson(errors, n):
        p, rate = end / 100, errors / n
        # Wilson's ends solve (rate - p)² = z² p (1 - p) / n, with z of 2.5 % in each tail.
        assert (rate - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=1e-7)


def test_a_higher_level_and_fewer_images_widen_the_interval_of_a_rate():
    def width(*arguments):
        low, high = wilson(*arguments)
        return high - low

    assert width(10, 100, 0.99) > width(10, 100) > width(100, 1000)


def test_the_interval_of_a_rate_holds_the_true_rate_as_often_as_it_says():
    drawn = np.random.default_rng(0).binomial(200, 0.08, size=400)
    ends = {errors: wilson(int(errors), 200) for errors in np.unique(drawn)}
    held = np.mean([ends[errors][0] <= 8 <= ends[errors][1] for errors in drawn])
    assert abs(held - 0.95) < 4 * sqrt(0.95 * 0.05 / 400)


def test_confusion_has_true_classes_in_rows_and_predicted_ones_in_columns():
    told = classification(["a", "a", "b"], ["a", "b", "b"], ["b", "a"])
    assert told["confusion"] == [[1, 0], [1, 1]]
    assert told["classes"] == ["b", "a"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_accuracy_error_and_confusion_tell_the_same(labels):
    truth, said = zip(*labels, strict=True)
    told = classification(truth, said, range(4))
    confusion = np.array(told["confusion"])
    assert confusion.sum() == told["n"] == len(labels)
    assert told["accuracy"] == confusion.trace() / told["n"]
    assert told["error"] == pytest.approx(100 - 100 * told["accuracy"])
    assert tuple(told["interval"]) == wilson(told["n"] - confusion.trace(), told["n"])
    assert (confusion.sum(axis=1) == np.bincount(truth, minlength=4)).all()


@given(st.permutations(range(12)))
def test_a_classification_does_not_depend_on_the_order_of_images(order):
    truth, said = np.arange(12) % 3, np.arange(12) % 2
    shuffled = classification(truth[order], said[order], range(3))
    assert shuffled == classification(truth, said, range(3))


def test_a_classification_of_arrays_can_be_written_as_json():
    told = classification(np.array(["x", "y"]), np.array(["y", "y"]), ("x", "y"))
    assert json.loads(json.dumps(told)) == told


def test_a_hidden_label_is_neither_an_error_nor_a_hit():
    with pytest.raises(InputError, match="2 of 3 test images have no label"):
        classification([0, -1, -1], [0, 0, -1], [0, 1])


def test_a_hidden_label_is_refused_even_where_a_class_is_called_so():
    with pytest.raises(InputError, match="no label"):
        classification([-1, 1], [1, 1], [-1, 1])


@pytest.mark.parametrize(
    ("truth", "said", "words"),
    [
        ([], [], "no image to judge"),
        ([0, 1], [0], "2 labels and 1 predictions"),
        ([0, 7], [0, 0], "label 7 is not among the classes 0, 1"),
        ([0, 1], [0, 7], "prediction 7 is not among the classes 0, 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(truth, said, words):
    with pytest.raises(InputError, match=words) as caught:
        classification(truth, said, [0, 1])
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**31))
def test_the_balanced_error_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    said = np.where(rng.random(60) < 0.6, truth, rng.integers(0, 4, 60))
    told = classification(truth, said, range(4))
    expected = 100 * (1 - balanced_accuracy_score(truth, said))
    assert told["balanced_error"] == pytest.approx(expected)


def test_a_class_without_images_has_no_part_in_the_balanced_error():
    told = classification(["a", "a", "b"], ["a", "c", "b"], ["a", "b", "c"])
    assert told["balanced_error"] == pytest.approx(25)


# Probabilities.


def two_classes(shares: list[float]) -> np.ndarray:
    """Return probabilities of two classes, the first the likelier."""
    return np.array([[share, 1 - share] for share in shares])


def test_bins_that_are_right_as_often_as_they_say_have_no_calibration_error():
    probability = two_classes([0.5, 0.5] + [0.75] * 4)
    assert calibration_error(probability, [0, 1, 0, 0, 0, 1]) == pytest.approx(0, abs=1e-12)


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    # Four images that are right once, sure by 0.6, and two right ones, sure by 0.9.
    probability = two_classes([0.6] * 4 + [0.9] * 2)
    told = calibration_error(probability, [0, 1, 1, 1, 0, 0])
    assert told == pytest.approx(100 * (4 * 0.35 + 2 * 0.1) / 6)


def test_bins_hold_equally_many_images_where_no_two_are_equally_sure():
    # Two bins: three images sure by 0.6 on average, one of them right; three by 0.9, two right.
    probability = two_classes([0.59, 0.6, 0.61, 0.89, 0.9, 0.91])
    told = calibration_error(probability, [0, 1, 1, 0, 1, 0], bins=2)
    assert told == pytest.approx(100 * ((0.6 - 1 / 3) + (0.9 - 2 / 3)) / 2)


@given(st.integers(0, 2**31))
def test_the_order_of_images_changes_no_calibration_error(seed):
    rng = np.random.default_rng(seed)
    probability = two_classes(list(rng.choice([0.5, 0.6, 0.7, 0.8, 0.95], 50)))
    truth, order = rng.integers(0, 2, 50), rng.permutation(50)
    told = calibration_error(probability[order], truth[order])
    assert told == pytest.approx(calibration_error(probability, truth))


def test_the_calibration_error_of_a_perfect_model_is_what_chance_makes_it():
    rng = np.random.default_rng(0)
    surest = rng.uniform(0.5, 1, 15_000)
    truth = (rng.random(15_000) > surest).astype(int)
    # With 1,000 images a bin: 100 √(2/π) √(p (1 - p) / 1,000) points, averaged over p.
    p = np.linspace(0.5, 1, 1000)
    expected = 100 * np.sqrt(2 / np.pi / 1000) * np.sqrt(p * (1 - p)).mean()
    # The gap of a bin has the deviation 0.76 of its mean; there are 15.
    told = calibration_error(two_classes(list(surest)), truth)
    assert told == pytest.approx(expected, rel=4 * 0.76 / sqrt(15))


# Areas under the ROC curve.

few_scores = st.lists(st.integers(0, 6), min_size=1, max_size=25)


def cases(positive, others) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, and which of them are positive."""
    return np.array([*positive, *others], dtype=float), np.arange(
        len(positive) + len(others)
    ) < len(positive)


def normal_cases(rng, apart: float, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return normal scores, those of the m positive cases so many deviations higher."""
    return cases(rng.normal(apart, 1, m), rng.normal(0, 1, n))


@given(few_scores, few_scores)
def test_the_area_is_how_often_a_positive_case_is_larger_a_tie_counting_half(positive, others):
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in others]
    told = auroc(*cases(positive, others))
    assert told["auroc"] == pytest.approx(np.mean(pairs))
    u = stats.mannwhitneyu(positive, others, method="asymptotic").statistic
    assert told["auroc"] == pytest.approx(u / (len(positive) * len(others)))


@given(few_scores, few_scores)
def test_the_area_lies_in_its_interval_and_that_between_0_and_1(positive, others):
    told = auroc(*cases(positive, others))
    low, high = told["interval"]
    assert 0 <= low <= told["auroc"] <= high <= 1


@given(few_scores, few_scores)
def test_the_area_of_the_opposite_score_is_the_rest(positive, others):
    x, truth = cases(positive, others)
    there, back = auroc(x, truth), auroc(-x, truth)
    assert there["auroc"] + back["auroc"] == pytest.approx(1)
    mirrored = [1 - end for end in reversed(back["interval"])]
    assert there["interval"] == pytest.approx(mirrored, abs=1e-6)


@given(few_scores, few_scores)
def test_only_the_order_of_scores_matters(positive, others):
    x, truth = cases(positive, others)
    assert auroc(np.exp(3 * x), truth) == auroc(x, truth)


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_constant_score_has_an_area_of_a_half(m, n):
    assert auroc(*cases(np.ones(m), np.ones(n)))["auroc"] == 0.5


def test_more_cases_narrow_the_interval_of_an_area_like_their_root():
    def width(copies: int) -> float:
        low, high = auroc(*cases([2, 3, 5, 7] * copies, [1, 2, 4, 6] * copies))["interval"]
        return high - low

    assert width(1) > width(4) > width(16) > width(64)
    assert width(400) == pytest.approx(width(100) / 2, rel=0.02)


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_the_interval_of_an_area_holds_the_true_one_about_as_often_as_it_says(apart):
    rng = np.random.default_rng(0)
    area = stats.norm.cdf(apart / sqrt(2))
    ends = [auroc(*normal_cases(rng, apart, 40, 60))["interval"] for _ in range(400)]
    held = np.mean([low <= area <= high for low, high in ends])
    # Of 400 intervals; the variance is that of exponential scores, so these may be held more often.
    assert held > 0.95 - 4 * sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    ("score", "positive", "words"),
    [
        ([1.0, 2.0], [True, True], "2 of 2 cases are positive"),
        ([1.0, 2.0], [False, False], "0 of 2 cases are positive"),
        ([np.nan, 2.0], [True, False], "1 of 2 scores are not finite"),
    ],
)
def test_an_area_that_cannot_be_told_is_refused_in_one_line(score, positive, words):
    with pytest.raises(InputError, match=words) as caught:
        auroc(score, positive)
    assert "\n" not in str(caught.value)


# Means over draws.


def test_the_interval_of_a_mean_is_students():
    # A textbook's: of 2 values, t is 12.7062 and the deviation of the mean half their distance.
    told = mean_interval([1.0, 3.0])
    assert told["mean"] == 2
    assert told["sd"] == pytest.approx(sqrt(2))
    assert told["interval"] == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-3)
    assert told["n"] == 2


@given(values, st.floats(-50, 50))
def test_a_shift_of_all_values_shifts_the_interval_and_leaves_the_deviation(x, shift):
    told, shifted = mean_interval(x), mean_interval(np.array(x) + shift)
    assert shifted["interval"] == pytest.approx(np.array(told["interval"]) + shift, abs=1e-6)
    assert shifted["sd"] == pytest.approx(told["sd"], abs=1e-6)


def test_the_interval_of_a_mean_holds_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(5, 2, size=(2000, 3))
    ends = np.array([mean_interval(draw)["interval"] for draw in draws])
    held = ((ends[:, 0] <= 5) & (ends[:, 1] >= 5)).mean()
    assert abs(held - 0.95) < 4 * sqrt(0.95 * 0.05 / len(draws))


def test_one_value_has_a_mean_and_no_interval():
    assert mean_interval([4.0]) == {"mean": 4.0, "sd": None, "n": 1, "interval": None}


def test_no_value_has_no_mean():
    with pytest.raises(InputError, match="run one draw"):
        mean_interval([])


@given(values)
def test_what_is_common_to_a_draw_falls_out_of_a_paired_difference(hardness):
    a = {draw: value + 3 for draw, value in enumerate(hardness)}
    b = dict(enumerate(hardness))
    told = paired_difference(a, b)
    assert told["mean"] == pytest.approx(3, abs=1e-9)
    assert told["interval"] == pytest.approx([3, 3], abs=1e-6)


def test_a_paired_difference_looks_at_draws_that_both_have():
    told = paired_difference({0: 9.0, 1: 8.0, 2: 5.0}, {2: 4.0, 1: 6.0, 7: 0.0})
    assert told["mean"] == 1.5
    assert told["n"] == 2


def test_a_paired_difference_of_arrays_goes_place_by_place():
    told = paired_difference([3.0, 5.0], np.array([1.0, 1.0]))
    assert (told["mean"], told["n"]) == (3.0, 2)


@given(values)
def test_a_paired_difference_changes_sign_with_its_sides(x):
    a, b = dict(enumerate(x)), dict(enumerate(reversed(x)))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there["mean"] == pytest.approx(-back["mean"])
    assert there["sd"] == pytest.approx(back["sd"])


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [({0: 1.0}, {1: 1.0}, "no draw in common"), ([1.0, 2.0], [1.0], "2 values and 1")],
)
def test_draws_that_cannot_be_paired_are_refused(a, b, words):
    with pytest.raises(InputError, match=words):
        paired_difference(a, b)
