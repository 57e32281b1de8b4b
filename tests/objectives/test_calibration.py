from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from whatwhere.objectives.calibration import ENOUGH, enough, fit_temperature, nll


def drawn(
    seed: int, n: int = 200, n_classes: int = 4, true: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, and classes drawn from what they say at a temperature."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=2, size=(n, n_classes))
    sums = softmax(scores / true, axis=1).cumsum(axis=1)
    return scores, (rng.random((n, 1)) > sums[:, :-1]).sum(axis=1)


SEEDS = st.integers(0, 2**31)


def test_the_nll_is_that_of_the_softmax_of_scores_by_temperature():
    scores, y = drawn(0)
    by_hand = [-log(softmax(row / 2.5)[label]) for row, label in zip(scores, y, strict=True)]
    assert nll(scores, y, 2.5) == pytest.approx(np.mean(by_hand), rel=1e-12)


def test_sure_and_wrong_scores_have_a_finite_nll():
    assert nll(np.array([[1e4, -1e4]]), np.array([1])) == 2e4


@given(SEEDS)
def test_at_the_temperature_the_nll_has_slope_zero(seed: int):
    scores, y = drawn(seed)
    scaled = scores / fit_temperature(scores, y)
    # d nll / d log T = mean of (score of the true class - expected score), both divided by T.
    own = scaled[np.arange(len(y)), y]
    slope = np.mean(own - (softmax(scaled, axis=1) * scaled).sum(axis=1))
    assert slope == pytest.approx(0, abs=1e-6)


@given(SEEDS, st.floats(-1, 1))
def test_no_other_temperature_has_a_smaller_nll(seed: int, step: float):
    scores, y = drawn(seed)
    best = fit_temperature(scores, y)
    assert nll(scores, y, best * np.exp(step)) >= nll(scores, y, best) - 1e-12


@given(SEEDS, st.floats(0.2, 5))
def test_scores_that_are_so_many_times_larger_have_so_many_times_the_temperature(seed, factor):
    scores, y = drawn(seed)
    assert fit_temperature(factor * scores, y) == pytest.approx(
        factor * fit_temperature(scores, y), rel=1e-5
    )


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_a_temperature_is_found_again_as_closely_as_the_draws_allow(true: float):
    scores, y = drawn(0, n=4000, true=true)
    logs = log_softmax(scores / true, axis=1)
    mean = (np.exp(logs) * logs).sum(axis=1, keepdims=True)
    # The information on log T in a row is the variance of its log probability.
    information = (np.exp(logs) * (logs - mean) ** 2).sum()
    assert abs(log(fit_temperature(scores, y) / true)) < 4 / sqrt(information)


@given(SEEDS)
def test_the_likeliest_class_stays_the_likeliest(seed: int):
    scores, y = drawn(seed)
    scaled = scores / fit_temperature(scores, y)
    assert (scaled.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_where_every_row_is_right_no_temperature_is_the_best_and_it_stays_1():
    scores, _ = drawn(0)
    assert fit_temperature(scores, scores.argmax(axis=1)) == 1.0


def test_scores_that_are_always_wrong_have_the_largest_temperature():
    scores, _ = drawn(0)
    assert fit_temperature(scores, scores.argmin(axis=1)) == pytest.approx(100, rel=1e-3)


def test_few_labels_or_one_class_are_not_enough():
    assert enough(np.arange(ENOUGH) % 2)
    assert not enough(np.arange(ENOUGH - 1) % 2)
    assert not enough(np.zeros(ENOUGH, int))
