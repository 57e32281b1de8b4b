from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from whatwhere.core import UNLABELED, Batch
from whatwhere.objectives.classification import classification, cross_entropy


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
