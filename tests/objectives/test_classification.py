from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from whatwhere.core import UNLABELED, Batch
from whatwhere.objectives.classification import class_weights, classification, cross_entropy


def draw(seed: int, n: int = 7, n_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=3, size=(n, n_classes))).requires_grad_()
    return logits, torch.from_numpy(rng.integers(UNLABELED, n_classes, n))


@given(st.integers(0, 2**31))
def test_it_is_the_mean_over_labeled_rows_of_minus_the_log_softmax(seed: int):
    logits, y = draw(seed)
    y[0] = 0  # one row has a label
    losses = [
        -log(exp(row[label]) / sum(exp(score) for score in row))
        for row, label in zip(logits.tolist(), y.tolist(), strict=True)
        if label != UNLABELED
    ]
    assert cross_entropy(logits, y).item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@given(st.integers(0, 2**31))
def test_it_is_torchs_cross_entropy_where_all_rows_are_labeled(seed: int):
    logits, y = draw(seed)
    y = y.clamp(min=0)
    torch.testing.assert_close(cross_entropy(logits, y), F.cross_entropy(logits, y))


@given(st.integers(0, 2**31), st.floats(-50, 50))
def test_what_an_unlabeled_row_scores_changes_nothing(seed: int, score: float):
    logits, y = draw(seed)
    other = logits.detach().clone()
    other[y == UNLABELED] = score
    assert torch.equal(cross_entropy(logits, y), cross_entropy(other, y))


@given(st.integers(0, 2**31))
def test_only_labeled_rows_get_a_gradient(seed: int):
    logits, y = draw(seed)
    cross_entropy(logits, y).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(dim=1) > 0, y != UNLABELED)


def test_a_batch_without_a_label_gives_zero_and_no_gradient():
    logits, y = draw(0)
    loss = cross_entropy(logits, torch.full_like(y, UNLABELED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_unlabeled_rows_add_nothing_to_the_mean():
    logits, y = draw(1)
    y = y.clamp(min=0)
    more = torch.cat([logits, torch.full((5, 4), 2.0, dtype=logits.dtype)])
    padded = torch.cat([y, torch.full((5,), UNLABELED)])
    torch.testing.assert_close(cross_entropy(more, padded), cross_entropy(logits, y))


def test_sure_and_wrong_scores_give_a_finite_loss():
    logits = torch.tensor([[1e4, -1e4]])
    assert cross_entropy(logits, torch.tensor([1])).item() == 2e4


def test_the_only_term_of_classification_is_the_nll():
    class Linear(nn.Module):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    logits, y = draw(2)
    batch = Batch(logits.view(7, 1, 2, 2), y, torch.arange(7))
    terms = classification(Linear(), batch)
    assert list(terms) == ["nll"]
    assert torch.equal(terms["nll"], cross_entropy(logits, y))


# Class weights.

COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=8)


@given(COUNTS)
def test_classes_of_weighted_rows_count_equally_and_the_mean_weight_of_a_row_is_1(counts):
    weights = class_weights(counts) or (1.0,) * len(counts)
    shares = [weight * count for weight, count in zip(weights, counts, strict=True)]
    assert shares == pytest.approx([sum(counts) / len(counts)] * len(counts))
    assert sum(shares) / sum(counts) == pytest.approx(1)


@given(COUNTS.filter(lambda counts: len(set(counts)) > 1))
def test_weights_are_those_of_scikit_learn(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=y)
    assert class_weights(counts) == pytest.approx(theirs)


def test_classes_with_equally_many_labels_have_no_weights():
    assert class_weights([7, 7, 7]) == class_weights([]) == ()


@given(st.integers(0, 2**31), st.integers(2, 5))
def test_weighting_a_rare_class_is_repeating_its_rows(seed: int, times: int):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2 * times + 2, 3)))
    y = torch.tensor([0] * 2 * times + [1] * 2)
    repeated = torch.cat([torch.arange(2 * times), torch.arange(-2, 0).repeat(times)])
    net = nn.Linear(3, 2).double()

    def gradient(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, list(net.parameters())))

    weights = class_weights([2 * times, 2])
    weighted = gradient(cross_entropy(net(x), y, weights))
    plain = gradient(cross_entropy(net(x[repeated]), y[repeated]))
    for one, other in zip(weighted, plain, strict=True):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 2**31))
def test_the_mean_over_batches_is_the_weighted_loss_of_the_data(seed: int):
    logits, y = draw(seed, n=12)
    y = y.clamp(min=0)
    weights = (0.5, 1.5, 1.0, 2.0)
    batches = torch.from_numpy(np.random.default_rng(seed).permutation(12)).split(3)
    means = [cross_entropy(logits[rows], y[rows], weights) for rows in batches]
    torch.testing.assert_close(torch.stack(means).mean(), cross_entropy(logits, y, weights))


@given(st.integers(0, 2**31))
def test_unlabeled_rows_have_no_weight(seed: int):
    logits, y = draw(seed)
    y[0] = 1
    known = y != UNLABELED
    weights = (0.5, 1.5, 1.0, 2.0)
    loss = cross_entropy(logits, y, weights)
    torch.testing.assert_close(loss, cross_entropy(logits[known], y[known], weights))
    loss.backward()
    assert logits.grad is not None and not logits.grad[~known].any()
    assert cross_entropy(logits, torch.full_like(y, UNLABELED), weights) == 0


def test_a_weighted_loss_is_no_less_exact_in_half_precision():
    logits, y = draw(3)
    y = y.clamp(min=0)
    weights = (0.3, 1.7, 1.1, 0.9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits.bfloat16(), y, weights)
    expected = cross_entropy(logits.bfloat16().double(), y, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
