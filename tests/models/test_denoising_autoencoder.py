from typing import Any

import numpy as np
import pytest
import torch

from whatwhere import DenoisingAutoencoder
from whatwhere.core import InputError
from whatwhere.data.corruption import corruption

SIGMA = 0.3


def cloud(n: int = 4000) -> np.ndarray:
    """Return draws of a Gaussian in the plane, deviations 1 and 0.3 along its axes."""
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    return (np.random.default_rng(0).normal(size=(n, 2)) * [1.0, 0.3] @ turn).astype(np.float32)


def pull(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the score that the model estimates: (x̃ - x) / σ²."""
    return (model.reconstruct(x)[:, 0, 0] - x) / SIGMA**2


def test_a_linear_one_learns_the_score_of_the_smoothed_gaussian():
    x = cloud()
    model = DenoisingAutoencoder(
        "2fc", activation="identity", corruption="gaussian", level=SIGMA, learning_rate=0.02,
        epochs=40, random_state=0,
    ).fit(x)  # fmt: skip
    smoothed = np.cov(x.T) + SIGMA**2 * np.eye(2)
    expected = -(x - x.mean(axis=0)) @ np.linalg.inv(smoothed)
    error = np.linalg.norm(pull(model, x) - expected) / np.linalg.norm(expected)
    assert error < 0.05


def test_a_curved_one_points_to_the_nearer_of_two_clusters():
    draws = np.random.default_rng(0)
    centers = np.where(draws.random((3000, 1)) < 0.5, -1.5, 1.5)
    x = (centers + 0.1 * draws.normal(size=(3000, 1))).astype(np.float32)
    model = DenoisingAutoencoder(
        "20fc", activation="tanh", corruption="gaussian", level=SIGMA, learning_rate=0.01,
        epochs=60, random_state=0,
    ).fit(x)  # fmt: skip
    at = np.array([[-1.8], [-1.1], [1.1], [1.8]], np.float32)
    # The score of two Gaussians of variance 0.1² + σ², far apart: (center - x) / variance.
    expected = (np.sign(at) * 1.5 - at) / (0.01 + SIGMA**2)
    np.testing.assert_allclose(pull(model, at), expected, rtol=0.2)


def test_what_is_rebuilt_is_the_clean_image():
    draws = np.random.default_rng(0)
    bars = np.zeros((400, 6, 6), np.float32)
    bars[np.arange(400), draws.integers(0, 6, 400)] = 1.0
    noisy = np.where(draws.random(bars.shape) < 0.3, 0, bars).astype(np.float32)
    model = DenoisingAutoencoder("40fc", epochs=60, learning_rate=0.01, random_state=0).fit(bars)
    before = ((noisy - bars) ** 2).mean()
    after = ((model.reconstruct(noisy)[:, 0] - bars) ** 2).mean()
    assert after < 0.2 * before


def test_without_noise_it_is_the_plain_auto_encoder():
    from whatwhere import Autoencoder

    x = np.random.default_rng(0).random((30, 6, 6), dtype=np.float32)
    none = DenoisingAutoencoder("5fc", level=0.0, epochs=3, random_state=0).fit(x)
    plain = Autoencoder("5fc", epochs=3, random_state=0).fit(x)
    for one, other in zip(none.module_.parameters(), plain.module_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_level_that_its_kind_of_noise_does_not_have_is_refused():
    with pytest.raises(InputError, match=r"level.*1\.5"):
        DenoisingAutoencoder(corruption="masking", level=1.5).check()
    DenoisingAutoencoder(corruption="gaussian", level=1.5).check()


def test_it_says_that_it_undoes_noise():
    undone = DenoisingAutoencoder(corruption="gaussian", level=0.2).undoes
    assert undone == corruption("gaussian", 0.2)
