from collections import Counter
from functools import partial

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Batch, InputError
from whatwhere.train.stage import EarlyStopping, InOrder, Labeled, Mixed, Shuffled, Stage
from whatwhere.train.update import GradientUpdate


def labels(n: int, share: float, seed: int) -> Tensor:
    """Return n labels of four classes, and a share of none."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=draws)
    return torch.where(torch.rand(n, generator=draws) < share, UNLABELED, y)


LABELS = st.builds(labels, st.integers(2, 60), st.floats(0, 1), st.integers(0, 2**31))


BATCH_SIZES = st.integers(2, 6) | st.integers(7, 70)


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(batches) -> list[int]:
    return [row for rows in batches for row in rows.tolist()]


@given(LABELS, BATCH_SIZES, st.integers(0, 2**31))
def test_every_row_is_met_once_an_epoch(y: Tensor, batch_size: int, seed: int):
    batches = Shuffled()(y, batch_size, numbers(seed))
    assert sorted(flat(batches)) == list(range(len(y)))


@given(LABELS, BATCH_SIZES)
def test_rows_in_order_are_met_once_as_they_stand_whatever_the_seed(y: Tensor, batch_size: int):
    batches = InOrder()(y, batch_size, numbers(0))
    assert flat(batches) == list(range(len(y)))
    assert all(len(rows) == batch_size for rows in batches[:-1])


@given(LABELS, BATCH_SIZES, st.integers(0, 2**31))
def test_every_labeled_row_is_met_once_where_the_others_are_left_out(y, batch_size, seed):
    batches = Shuffled(unlabeled=False)(y, batch_size, numbers(seed))
    assert sorted(flat(batches)) == (y != UNLABELED).nonzero()[:, 0].tolist()


@given(LABELS, BATCH_SIZES, st.integers(0, 2**31), st.integers(1, 9))
def test_labeled_rows_alone_are_met_equally_often_in_as_many_batches_as_asked(
    y: Tensor, batch_size: int, seed: int, steps: int
):
    batches = Labeled(steps)(y, batch_size, numbers(seed))
    met, known = Counter(flat(batches)), (y != UNLABELED).nonzero()[:, 0].tolist()
    assert sorted(met) == known
    assert not known or max(met.values()) - min(met.values()) <= 1
    assert len(batches) >= (steps if known else 0)
    assert all(len(rows) <= batch_size for rows in batches)


@given(LABELS, BATCH_SIZES, st.integers(0, 2**31), st.booleans())
def test_no_batch_holds_a_single_row(y: Tensor, batch_size: int, seed: int, unlabeled: bool):
    assume(unlabeled or (y != UNLABELED).sum() != 1)
    for rows in Shuffled(unlabeled)(y, batch_size, numbers(seed)):
        assert 2 <= len(rows) <= batch_size + 2


@given(st.integers(2, 60), BATCH_SIZES, st.integers(0, 2**31))
def test_shuffled_batches_are_as_large_as_asked_but_for_the_last(n, batch_size, seed):
    *full, last = Shuffled()(torch.zeros(n, dtype=torch.int64), batch_size, numbers(seed))
    assert all(len(rows) == batch_size for rows in full)
    assert len(last) <= batch_size + 1


def test_without_unlabeled_rows_the_same_labeled_rows_meet():
    y = torch.tensor([0, 1, UNLABELED, 2] * 20)
    whole, part = (Shuffled(use)(y, 10, numbers(0)) for use in (True, False))
    for rows, labeled in zip(whole, part, strict=True):
        assert torch.equal(rows[y[rows] != UNLABELED], labeled)


def test_an_epoch_without_a_labeled_row_has_no_batch():
    y = torch.full((7,), UNLABELED)
    assert not Shuffled(unlabeled=False)(y, 3, numbers(0))


@st.composite
def mixtures(draw) -> tuple[Tensor, int, int, int]:
    """Labels of both kinds, a batch size, labeled rows in it, a seed."""
    y = draw(LABELS)
    assume((y == UNLABELED).any() and (y != UNLABELED).any())
    batch_size = draw(st.integers(2, 30))
    return y, batch_size, draw(st.integers(1, batch_size - 1)), draw(st.integers(0, 2**31))


@given(mixtures())
def test_a_mixed_epoch_is_one_pass_over_the_unlabeled_rows(case):
    y, batch_size, labeled, seed = case
    batches = Mixed(labeled)(y, batch_size, numbers(seed))
    met = [row for row in flat(batches) if y[row] == UNLABELED]
    assert sorted(met) == (y == UNLABELED).nonzero()[:, 0].tolist()
    assert len(batches) == -(-len(met) // (batch_size - labeled))


@given(mixtures())
def test_each_mixed_batch_holds_as_many_labeled_rows_as_asked(case):
    y, batch_size, labeled, seed = case
    for rows in Mixed(labeled)(y, batch_size, numbers(seed)):
        assert (y[rows] != UNLABELED).sum() == labeled
        assert (y[rows[:labeled]] != UNLABELED).all()
        assert len(rows) <= batch_size


@given(mixtures())
def test_classes_are_balanced_in_each_mixed_batch(case):
    y, batch_size, labeled, seed = case
    classes = y[y != UNLABELED].unique().tolist()
    for rows in Mixed(labeled)(y, batch_size, numbers(seed)):
        counts = Counter(y[rows[:labeled]].tolist())
        found = [counts[label] for label in classes]
        assert max(found) - min(found) <= 1


@given(mixtures())
def test_the_rows_of_a_class_are_cycled_evenly(case):
    y, batch_size, labeled, seed = case
    batches = Mixed(labeled, unlabeled=False)(y, batch_size, numbers(seed))
    met = Counter(flat(batches))
    for label in y[y != UNLABELED].unique():
        times = [met[row] for row in (y == label).nonzero()[:, 0].tolist()]
        assert max(times) - min(times) <= 1


@given(mixtures())
def test_labeled_rows_are_cycled_evenly_whatever_their_class_where_that_does_not_count(case):
    y, batch_size, labeled, seed = case
    batches = Mixed(labeled, balanced=False)(y, batch_size, numbers(seed))
    met = Counter(flat(batches))
    times = [met[row] for row in (y != UNLABELED).nonzero()[:, 0].tolist()]
    assert sum(times) == labeled * len(batches)
    assert max(times) - min(times) <= 1


@given(mixtures())
def test_without_unlabeled_rows_the_labeled_batches_are_the_same(case):
    y, batch_size, labeled, seed = case
    whole = Mixed(labeled)(y, batch_size, numbers(seed))
    part = Mixed(labeled, unlabeled=False)(y, batch_size, numbers(seed))
    for rows, own in zip(whole, part, strict=True):
        assert torch.equal(rows[:labeled], own)


@given(mixtures(), st.sampled_from(["mixed", "mixed, labeled", "shuffled", "shuffled, labeled"]))
def test_the_same_seed_gives_the_same_rows(case, kind: str):
    y, batch_size, labeled, seed = case
    use = not kind.endswith("labeled")
    sampler = Mixed(labeled, use) if kind.startswith("mixed") else Shuffled(use)
    torch.manual_seed(1)
    first = sampler(y, batch_size, numbers(seed))
    torch.manual_seed(2)
    assert flat(first) == flat(sampler(y, batch_size, numbers(seed)))


@pytest.mark.parametrize(
    "sampler", [Shuffled(), Shuffled(False), Mixed(5), Mixed(5, False), Mixed(5, balanced=False)]
)
def test_another_seed_gives_another_order(sampler):
    y = torch.arange(80) % 4 - 1
    orders = {tuple(flat(sampler(y, 20, numbers(seed)))) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize("labeled", [0, 10, 11])
def test_a_mixed_batch_that_cannot_be_mixed_is_refused(labeled: int):
    with pytest.raises(InputError, match=f"{labeled} labeled rows in a batch of 10"):
        Mixed(labeled)(torch.tensor([0, 1, UNLABELED]), 10, numbers(0))


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (Shuffled(), "every row once, shuffled"),
        (Shuffled(False), "every labeled row once, shuffled"),
        (Mixed(5), "5 labeled rows a batch, cycled and class-balanced; the rest unlabeled"),
        (Mixed(5, False), "5 labeled rows a batch, cycled and class-balanced; no unlabeled"),
        (
            Mixed(5, balanced=False),
            "5 labeled rows a batch, cycled, whatever their class; the rest unlabeled",
        ),
    ],
)
def test_a_sampler_says_its_rule(sampler, rule: str):
    assert str(sampler) == rule


def test_a_stage_describes_itself_in_words_and_numbers():
    net = nn.Linear(2, 2)
    sgd = partial(torch.optim.SGD, lr=0.1)
    update = GradientUpdate(net, lambda net, batch: {"f": net(batch.x).sum()}, sgd)
    stage = Stage("joint", [update], 7, 50, sampler=Mixed(25))
    assert stage.describe() == {
        "name": "joint",
        "updates": ["loss: SGD (lr 0.1) on all"],
        "epochs": 7,
        "batch_size": 50,
        "sampler": "25 labeled rows a batch, cycled and class-balanced; the rest unlabeled",
        "view": "as they are",
    }


def test_a_stage_leaves_its_images_as_they_are_unless_it_has_a_view():
    batch = Batch(torch.ones(2, 1, 1, 1), torch.zeros(2), torch.arange(2))
    assert Stage("plain", [], 1).view(batch) is batch


def test_early_stopping_looks_at_the_error_unless_told_otherwise():
    assert EarlyStopping(3).metric == "validation/error"
