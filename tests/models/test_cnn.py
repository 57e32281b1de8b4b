from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from whatwhere import CNN
from whatwhere.core import UNLABELED
from whatwhere.learner import Spec
from whatwhere.train.stage import Mixed
from whatwhere.train.trainer import Trainer
from whatwhere.train.update import GradientUpdate

SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 8, "random_state": 0}
SMALL["architecture"] = "(4)3c-2p-(6)3c-2p"


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("n_labeled", [6, 18])
def test_what_unlabeled_images_show_changes_no_bit(n_labeled: int):
    y = np.where(np.arange(24) < n_labeled, np.arange(24) % 3, UNLABELED)
    other = images()
    other[y == UNLABELED] = images(seed=1)[y == UNLABELED]
    first, second = (CNN(**SMALL).fit(X, y) for X in (images(), other))
    np.testing.assert_array_equal(first.predict_proba(images()), second.predict_proba(images()))


def test_its_updates_are_as_many_as_those_of_a_pass_over_the_unlabeled_rows():
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    y = np.where(np.arange(24) < 6, np.arange(24) % 3, UNLABELED)
    CNN(**SMALL, trainer=Trainer(stop=count)).fit(images(), y)
    assert steps == 2 * -(-18 // 4)  # 2 epochs, half of each batch of 8 labeled


def test_without_labels_it_learns_nothing():
    model = CNN(**SMALL).fit(images())
    start = model.build(model.spec_).state_dict()
    assert all(torch.equal(v, start[name]) for name, v in model.module_.state_dict().items())


def test_it_learns_stripes_from_four_labels():
    X = np.zeros((40, 8, 8), np.float32)
    X[::2, ::2, :] = 1.0  # lying
    X[1::2, :, ::2] = 1.0  # standing
    X += np.random.default_rng(0).normal(0, 0.1, X.shape).astype(np.float32)
    X = X.clip(0, 1)
    y = np.where(np.arange(40) < 4, np.arange(40) % 2, UNLABELED)
    model = CNN("(4)3c-2p", epochs=20, batch_size=8, learning_rate=0.01, random_state=0)
    assert model.fit(X, y).score(X, np.arange(40) % 2) == 1.0


@pytest.mark.parametrize("patience", [1, 2])
def test_it_stops_early_and_keeps_what_was_best_on_the_validation_images(patience: int):
    y = np.arange(24) % 3
    held_out = (images(seed=2), y)
    # Labels are drawn without regard to the images: nothing is learned that lasts.
    model = CNN(**{**SMALL, "epochs": 30}, patience=patience, learning_rate=0.02)
    model.fit(images(), y, validation=held_out)
    errors = [record["validation/error"] for record in model.history_]
    assert len(errors) < 30
    assert len(errors) - 1 - int(np.argmin(errors)) == patience
    wrong = 100 * (model.predict(held_out[0]) != y).mean()
    assert wrong == pytest.approx(min(errors), rel=1e-5)


def test_a_class_layer_written_out_is_the_one_that_is_always_there():
    y = np.arange(24) % 3
    plain, written = (
        CNN(architecture, epochs=1, batch_size=8, random_state=0).fit(images(), y)
        for architecture in ("(4)3c-2p", "(4)3c-2p-3fc")
    )
    np.testing.assert_array_equal(plain.predict_proba(images()), written.predict_proba(images()))


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_a_last_pool_or_layer_is_kept_whatever_the_number_of_classes(n_classes: int):
    net = CNN("(4)3c-2p").build(Spec((1, 8, 8), 10, n_classes))
    assert net.encoder.shapes[-1] == (4, 4, 4)


def test_encoder_and_class_layer_are_drawn_from_keys_of_their_own():
    two, three = (CNN("(4)3c-2p").build(Spec((1, 8, 8), 10, n)) for n in (2, 3))
    for one, other in zip(two.encoder.parameters(), three.encoder.parameters(), strict=True):
        assert torch.equal(one, other)


# How much a class counts.

UNEVEN = np.where(np.arange(24) < 16, np.repeat([0, 1, 2, 0], 6), UNLABELED)  # 6, 6 and 4 labels


def weights_of(**params: Any) -> tuple[float, ...]:
    """Return the weights in the loss of a learner fitted to these labels."""
    y = params.pop("y", UNEVEN)
    model = CNN(**{**SMALL, "epochs": 1}, **params).fit(images(), y)
    (stage,) = model.stages(model.module_, model.spec_)
    (update,) = stage.updates
    assert isinstance(update, GradientUpdate)
    assert isinstance(update.objective, partial)
    return update.objective.keywords["class_weight"]


def test_labeled_rows_are_weighted_where_classes_have_unequally_many():
    assert weights_of() == pytest.approx((16 / 18, 16 / 18, 16 / 12))
    assert weights_of(class_weight=None) == ()
    assert weights_of(y=np.arange(24) % 3) == ()


def test_batches_that_are_drawn_balanced_are_not_weighted_too():
    few = np.where(np.arange(24) < 9, [0, 1, 2, 0] * 6, UNLABELED)
    assert weights_of(y=few) == ()


def test_a_dict_says_how_many_times_its_labels_a_class_counts():
    few = np.where(np.arange(24) < 9, [0, 1, 2, 0] * 6, UNLABELED)
    assert weights_of(class_weight={2: 5}) == weights_of(y=few, class_weight={2: 5}) == (1, 1, 5)


def test_few_labels_are_drawn_as_they_are_where_classes_need_not_count_equally():
    spec = Spec((1, 8, 8), 24, n_classes=3, n_labeled=6)
    for weight in (None, {2: 5.0}):
        assert CNN(**SMALL, class_weight=weight).sampler(spec) == Mixed(4, False, balanced=False)
    assert CNN(**SMALL).sampler(spec) == Mixed(4, False, balanced=True)


def test_equally_many_labels_give_the_bits_of_no_weights():
    y = np.arange(24) % 3
    one, other = (
        CNN(**SMALL, class_weight=weight).fit(images(), y) for weight in ("balanced", None)
    )
    np.testing.assert_array_equal(one.predict_proba(images()), other.predict_proba(images()))


def test_a_rare_class_is_predicted_more_often_where_it_counts_equally():
    rng = np.random.default_rng(0)
    y = (np.arange(120) % 10 == 0).astype(int)
    X = rng.normal(0.5, 0.15, (120, 8, 8)) + 0.05 * y[:, None, None]  # hard to tell apart
    X = X.clip(0, 1).astype(np.float32)
    found = [
        CNN("(2)3c-2p", epochs=10, batch_size=20, class_weight=weight, random_state=0)
        .fit(X, y).predict_proba(X)[:, 1].mean()
        for weight in ("balanced", None)
    ]  # fmt: skip
    assert found[0] > 2 * found[1]
