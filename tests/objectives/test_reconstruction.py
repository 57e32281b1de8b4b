import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli

from whatwhere.core import InputError
from whatwhere.objectives.reconstruction import cross_entropy, fit_for, squared_error

SCORES = torch.randn(4, 1, 3, 5, generator=torch.Generator().manual_seed(0)).double()
X = torch.rand(4, 1, 3, 5, generator=torch.Generator().manual_seed(1)).double()


def test_both_losses_are_sums_over_an_image_and_means_over_images():
    one = [squared_error(SCORES[k : k + 1], X[k : k + 1], "identity") for k in range(4)]
    torch.testing.assert_close(squared_error(SCORES, X, "identity"), torch.stack(one).mean())
    one = [cross_entropy(SCORES[k : k + 1], X[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(cross_entropy(SCORES, X), torch.stack(one).mean())


def test_the_squared_error_is_that_of_the_unit():
    expected = (torch.sigmoid(SCORES) - X).square().sum() / 4
    torch.testing.assert_close(squared_error(SCORES, X, "logistic"), expected)


def test_the_cross_entropy_of_binary_images_is_their_negative_log_likelihood():
    x = X.round()
    nll = -Bernoulli(logits=SCORES).log_prob(x).sum() / 4
    torch.testing.assert_close(cross_entropy(SCORES, x), nll)


def test_each_loss_has_the_gradient_rebuilt_minus_image_for_its_own_unit():
    scores = SCORES.clone().requires_grad_()
    cross_entropy(scores, X).backward()
    torch.testing.assert_close(scores.grad, (torch.sigmoid(SCORES) - X) / 4)
    scores = SCORES.clone().requires_grad_()
    (0.5 * squared_error(scores, X, "identity")).backward()
    torch.testing.assert_close(scores.grad, (SCORES - X) / 4)


def test_extreme_scores_stay_finite():
    assert cross_entropy(torch.full((1, 2), 1e4), torch.tensor([[0.0, 1.0]])).isfinite()


@pytest.mark.parametrize(
    ("bounds", "output", "loss", "expected"),
    [
        ((0, 1), None, None, ("logistic", "cross_entropy")),
        ((0.2, 0.3), None, None, ("logistic", "cross_entropy")),
        ((-0.1, 1), None, None, ("identity", "squared_error")),
        ((0, 7), None, None, ("identity", "squared_error")),
        ((0, 1), None, "squared_error", ("identity", "squared_error")),
        ((0, 1), "logistic", "squared_error", ("logistic", "squared_error")),
        ((0, 1), "identity", None, ("identity", "squared_error")),
        ((0, 1), None, "cross_entropy", ("logistic", "cross_entropy")),
    ],
)
def test_unit_and_loss_go_by_the_kind_of_the_data(bounds, output, loss, expected):
    assert fit_for(bounds, output, loss) == expected


@pytest.mark.parametrize(
    ("bounds", "output", "loss", "words"),
    [
        ((-1, 1), "logistic", None, r"\(0, 1\).*-1 to 1.*output='identity'.*value_range"),
        ((0, 3), None, "cross_entropy", "from 0 to 3"),
        ((0, 1), "identity", "cross_entropy", "that of probabilities.*output='logistic'"),
    ],
)
def test_what_does_not_go_together_is_refused_and_explained(bounds, output, loss, words):
    with pytest.raises(InputError, match=words):
        fit_for(bounds, output, loss)


def test_a_half_of_the_squared_error_is_a_gaussian_log_likelihood_up_to_a_constant():
    gap = F.gaussian_nll_loss(SCORES, X, torch.ones_like(X), reduction="sum") / 4
    torch.testing.assert_close(0.5 * squared_error(SCORES, X, "identity"), gap)
