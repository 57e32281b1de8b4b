from typing import Any

import numpy as np
import pytest
import torch

from whatwhere import CNN
from whatwhere.core import UNLABELED
from whatwhere.learner import Spec
from whatwhere.train.trainer import Trainer

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
