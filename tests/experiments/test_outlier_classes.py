"""Classes held out: what is learned from, what is scored, and that a good score is found good."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.sources import load
from whatwhere.experiments import outlier_classes
from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell
from whatwhere.train.trainer import Trainer


@pytest.fixture(scope="module")
def read() -> Read:
    data = load("digits")
    return Read(data, data.train, None)


def cell(model: str = "pca", n_train: int | None = None, held_out: int = 0, **given: Any) -> Cell:
    job = Job("digits", model, labels="none", settings=given or None, seed=held_out)
    return Cell("row", "column", held_out, job, options={"held_out": held_out, "n_train": n_train})


@pytest.mark.parametrize("n_train", [None, 100])
@pytest.mark.parametrize("held_out", [0, 7])
def test_neither_the_class_held_out_nor_any_label_is_learned_from(read, held_out, n_train):
    one = cell(held_out=held_out, n_train=n_train)
    rows = outlier_classes.shown(one, read.data.train.y)
    train = outlier_classes.without_class(one, read).train
    classes = np.unique(read.data.train.y[rows])
    assert classes.tolist() == [digit for digit in range(10) if digit != held_out]
    assert np.array_equal(train.x, read.data.train.x[rows])
    assert (train.y == UNLABELED).all()
    assert len(train) == (n_train or (read.data.train.y != held_out).sum())


def test_every_method_learns_from_the_same_images_of_a_class_held_out(read):
    y = read.data.train.y
    one, other = cell("pca", 100), cell("autoencoder", 100, epochs=3)
    assert np.array_equal(outlier_classes.shown(one, y), outlier_classes.shown(other, y))
    assert not np.array_equal(
        outlier_classes.shown(one, y), outlier_classes.shown(cell("pca", 100, held_out=1), y)
    )


def test_a_score_that_knows_the_class_is_perfect_and_its_opposite_the_worst(read):
    held_out = (read.data.test.y == 0).astype(float)
    metrics = outlier_classes.judged(cell(), read, held_out).metrics
    assert metrics["auroc"] == 1
    assert metrics["n"] == len(held_out)
    assert metrics["n_positive"] == held_out.sum()
    assert outlier_classes.judged(cell(), read, -held_out).metrics["auroc"] == 0


@pytest.mark.parametrize(
    ("method", "model", "given"),
    [
        (outlier_classes.pca, "pca", {"n_components": 16}),
        (outlier_classes.isolation_forest, "isolation_forest", {}),
        (outlier_classes.learner, "whitening", {}),
        (outlier_classes.learner, "autoencoder", {"architecture": "16fc", "epochs": 30}),
    ],
)
def test_every_method_finds_images_of_noise(read, method, model, given):
    # Noise in place of the digit 0, in the test part alone.
    test = read.data.test
    noise = np.random.default_rng(0).integers(0, 256, test.x.shape, dtype=np.uint8)
    x = np.where((test.y == 0)[:, None, None, None], noise, test.x)
    odd = replace(read, data=replace(read.data, test=replace(test, x=x)))
    assert method(cell(model, **given), odd, Trainer()).metrics["auroc"] > 0.95


def test_differences_to_pca_are_paired_by_the_class_held_out():
    plan = outlier_classes.plan("quick", None, None)
    assert all(other == outlier_classes.PCA_ROW for _, other in plan.differences)
    assert len(plan.differences) == len(plan.rows) - 1
    assert all(cell.draw == cell.options["held_out"] for cell in plan.cells)
    assert {cell.draw for cell in plan.cells} == {0, 1, 2}
    full = outlier_classes.plan("full", None, None)
    assert {cell.draw for cell in full.cells} == set(range(10))
    assert {cell.options["n_train"] for cell in full.cells} == {None}


def test_more_classes_than_there_are_cannot_be_held_out():
    with pytest.raises(InputError, match="10 at most"):
        outlier_classes.plan("full", 11, None)
