from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from whatwhere import Autoencoder
from whatwhere.core import UNLABELED, Batch, InputError
from whatwhere.learner import Spec
from whatwhere.models.autoencoder import ReconstructionLoss
from whatwhere.nn.mirror import Mirror
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Trainer
from whatwhere.train.update import GradientUpdate

N, D, K = 300, 12, 3


def points() -> Tensor:
    """Return points with a gap behind their K largest eigenvalues, in float64: (N, 1, 1, D)."""
    draws = np.random.default_rng(0)
    scales = np.r_[3.0, 2.5, 2.0, np.full(D - K, 0.5)]
    basis, _ = np.linalg.qr(draws.normal(size=(D, D)))
    x = draws.normal(size=(N, D)) * scales @ basis
    return torch.from_numpy(x - x.mean(axis=0)).view(N, 1, 1, D)


def descend(net: Mirror, x: Tensor, steps: int = 60) -> float:
    """Bring the net to the optimum by L-BFGS over all points, and return its error a point."""
    objective = ReconstructionLoss("squared_error")

    def lbfgs(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, max_iter=20, line_search_fn="strong_wolfe")

    class Points:
        y = torch.full((len(x),), UNLABELED)

        @staticmethod
        def take(rows: Tensor) -> Batch:
            return Batch(x[rows], Points.y[rows], rows)

    update = GradientUpdate(net, objective, lbfgs)
    Trainer().run(net, [Stage("all", [update], steps, len(x))], Points(), seed=0)
    with torch.no_grad():
        return float((net.reconstruct(x) - x).square().sum() / len(x))


def linear(n_units: int, *, tied: bool = False) -> Mirror:
    learner = Autoencoder(f"{n_units}fc", activation="identity", tied=tied)
    return learner.build(Spec((1, 1, D), N, bounds=(-9.0, 9.0))).double()


@pytest.mark.parametrize("tied", [True, False])
def test_a_linear_auto_encoder_spans_the_principal_subspace(tied: bool):
    x = points()
    net = linear(K, tied=tied)
    error = descend(net, x)
    pca = PCA(K).fit(x.view(N, D).numpy())
    down = torch.stack([net.decode(row[None]).flatten() for row in torch.eye(K).double()])
    zero = net.decode(torch.zeros(1, K).double()).flatten()
    span, _ = np.linalg.qr((down - zero).detach().numpy().T)
    cosines = np.linalg.svd(span.T @ np.array(pca.components_).T, compute_uv=False)
    assert np.degrees(np.arccos(cosines.min().clip(max=1))) < 1
    rest = ((pca.inverse_transform(pca.transform(x.view(N, D))) - x.view(N, D).numpy()) ** 2).sum()
    assert error == pytest.approx(rest / N, rel=1e-4)


def test_a_linear_code_as_large_as_the_input_copies_it():
    assert descend(linear(D), points()) < 1e-6


def test_a_code_that_is_smaller_leaves_at_least_what_pca_leaves():
    x = points()
    learner = Autoencoder("6fc-3fc", activation="tanh", code_activation="identity")
    net = learner.build(Spec((1, 1, D), N, bounds=(-9.0, 9.0))).double()
    pca = PCA(K).fit(x.view(N, D).numpy())
    best = pca.explained_variance_ratio_.sum()
    assert descend(net, x, 5) > 0.2 * (1 - best) * float(x.square().sum() / N)


def test_gray_images_get_logistic_units_and_cross_entropy_and_standardized_ones_linear_units():
    gray = np.random.default_rng(0).random((30, 8, 8), dtype=np.float32)
    unit = Autoencoder("4fc", epochs=1).fit(gray)
    assert unit.chosen_["output"], unit.chosen_["loss"] == ("logistic", "cross_entropy")
    real = Autoencoder("4fc", epochs=1).fit(gray.reshape(30, -1) - 0.5)
    assert real.chosen_["output"], real.chosen_["loss"] == ("identity", "squared_error")


def test_a_mismatch_is_refused_before_anything_is_learned():
    real = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    with pytest.raises(InputError, match=r"output='logistic'.*output='identity'"):
        Autoencoder("4fc", output="logistic").fit(real)
    with pytest.raises(InputError, match="loss='cross_entropy'"):
        Autoencoder("4fc", output="identity", loss="cross_entropy").fit(abs(real) / 9)


def test_weight_decay_counts_weights_and_no_biases():
    net = linear(K)
    for p in net.parameters():
        torch.nn.init.constant_(p, 2.0)
    batch = Batch(points(), torch.full((N,), UNLABELED), torch.arange(N))
    terms = ReconstructionLoss("squared_error", weight_decay=0.3)(net, batch)
    assert float(terms["weight_decay"].detach()) == pytest.approx(0.5 * 0.3 * 4 * 2 * D * K)


def test_an_auto_encoder_cannot_name_classes_and_ignores_labels():
    x = np.random.default_rng(0).random((30, 8, 8), dtype=np.float32)
    one = Autoencoder("4fc", epochs=2, random_state=0).fit(x)
    other = Autoencoder("4fc", epochs=2, random_state=0).fit(x, np.arange(30) % 3)
    assert not hasattr(one, "predict")
    np.testing.assert_array_equal(one.transform(x), other.transform(x))


def test_patience_looks_at_the_reconstruction_of_validation_images():
    x = np.random.default_rng(0).random((40, 8, 8), dtype=np.float32)
    learner = Autoencoder("4fc", epochs=50, learning_rate=0.3, patience=2, random_state=0)
    learner.fit(x[:30], validation=(x[30:], None))
    errors = [record["validation/reconstruction"] for record in learner.history_]
    assert len(errors) < 50
    rebuilt = learner.reconstruct(x[30:])[:, 0]
    assert float(((rebuilt - x[30:]) ** 2).mean()) == pytest.approx(min(errors), rel=1e-4)


def test_a_dense_code_on_top_of_other_layers_is_linear_by_default():
    assert Autoencoder("9fc-2fc").code_unit == "identity"
    assert Autoencoder("9fc").code_unit == Autoencoder("(4)3c-2p-(8)3c").code_unit == "relu"
    assert Autoencoder("9fc-2fc", code_activation="tanh").code_unit == "tanh"
