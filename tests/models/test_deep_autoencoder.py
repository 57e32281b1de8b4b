from typing import Any

import numpy as np
import pytest
import torch

from whatwhere import Autoencoder, DeepAutoencoder
from whatwhere.core import InputError
from whatwhere.models.stacked_autoencoder import fold


def images(n: int = 60) -> np.ndarray:
    """Return a bright bar somewhere: two numbers, its row and its length, tell all."""
    draws = np.random.default_rng(0)
    x = np.zeros((n, 6, 6), np.float32)
    for image in x:
        image[draws.integers(6), : draws.integers(2, 7)] = 0.9
    return x


def test_pretraining_is_a_stage_for_each_layer_and_the_whole_net_comes_last():
    learner = DeepAutoencoder("9fc-6fc-3fc", pretraining="stacked", pretraining_epochs=1, epochs=1)
    learner.fit(images())
    assert [r["stage"] for r in learner.history_] == ["layer1", "layer2", "layer3", "fine-tuning"]


def test_pretrained_layers_rebuild_better_than_random_ones_before_fine_tuning():
    errors = []
    for epochs in (0, 60):
        stages = {f"layer{k}": epochs for k in (1, 2)} | {"fine-tuning": 0}
        learner = DeepAutoencoder(
            "20fc-10fc", pretraining="stacked", pretraining_rate=0.02, stage_epochs=stages,
            random_state=0,
        ).fit(images())  # fmt: skip
        errors.append(((learner.reconstruct(images())[:, 0] - images()) ** 2).mean())
    assert errors[1] < 0.5 * errors[0]


def test_layers_trained_as_rbms_are_unrolled_into_both_halves_of_the_net():
    stages = {"fine-tuning": 0}
    settings: dict[str, Any] = {
        "initialization": "historic",
        "code_activation": "logistic",
        "random_state": 0,
    }
    errors = []
    for epochs in (1, 100):
        learner = DeepAutoencoder(
            "20fc-10fc", pretraining="rbm", pretraining_epochs=epochs, stage_epochs=stages,
            **settings,
        ).fit(images(300))  # fmt: skip
        net: Any = learner.module_
        fold(net)  # as fine-tuning begins
        errors.append(((learner.reconstruct(images())[:, 0] - images()) ** 2).mean())
    assert errors[1] < 0.9 * errors[0]
    for up, down in zip(net.encoder, net.decoder, strict=True):
        assert torch.equal(down.affine.weight, up.affine.weight.T)


def test_rectified_units_cannot_be_trained_as_rbms():
    learner = DeepAutoencoder("9fc-3fc", activation="relu", pretraining="rbm")
    with pytest.raises(InputError, match="layer 1 is dense, of relu units; take activation="):
        learner.fit(images())
    learner = DeepAutoencoder("(2)3c-3fc", pretraining="rbm")
    with pytest.raises(InputError, match="layer 1 is no dense one, of logistic units"):
        learner.fit(images())


def test_historic_weights_and_plain_descent_give_the_average_image_for_every_image():
    learner = DeepAutoencoder(
        "16fc-8fc-4fc-2fc", initialization="historic", optimizer="sgd", learning_rate=0.02,
        epochs=100, random_state=0,
    ).fit(images())  # fmt: skip
    rebuilt = learner.reconstruct(images())[:, 0]
    assert np.ptp(rebuilt, axis=0).max() < 1e-3
    np.testing.assert_allclose(rebuilt[0], images().mean(axis=0), atol=0.1)


def test_modern_weights_and_adam_rebuild_each_image():
    learner = DeepAutoencoder(
        "32fc-16fc-4fc", activation="relu", learning_rate=0.01, epochs=200, random_state=0
    ).fit(images())
    error = ((learner.reconstruct(images())[:, 0] - images()) ** 2).mean()
    assert error < 0.1 * images().var(axis=0).mean()


def test_the_code_is_linear():
    learner = DeepAutoencoder("9fc-3fc", epochs=2, random_state=0).fit(images())
    assert (learner.transform(images()) < 0).any()


def test_one_layer_is_the_plain_auto_encoder():
    deep = DeepAutoencoder("5fc", epochs=2, random_state=0).fit(images())
    plain = Autoencoder("5fc", code_activation="identity", epochs=2, random_state=0).fit(images())
    for one, other in zip(deep.module_.parameters(), plain.module_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_stage_that_is_not_there_is_answered_with_the_nearest():
    learner = DeepAutoencoder("5fc", stage_epochs={"finetuning": 3})
    with pytest.raises(InputError, match="did you mean fine-tuning"):
        learner.fit(images())
