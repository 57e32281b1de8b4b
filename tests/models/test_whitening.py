from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from whatwhere import Whitening
from whatwhere.core import (
    Decodes,
    Encodes,
    EncodesAsImages,
    HasFilters,
    HasSpectrum,
    InputError,
    Reconstructs,
    Scores,
)
from whatwhere.learner import Spec
from whatwhere.models.whitening import gram
from whatwhere.train.trainer import Interrupted, Trainer

KINDS = ("zca", "pca", "standardize")


def digits(n=600):
    """Images of 8 x 8 in [0, 1], some of whose pixels are always black."""
    return load_digits(return_X_y=True)[0][:n].reshape(-1, 1, 8, 8).astype(np.float32) / 16


def points(n=400, size=6, seed=0):
    """Rows whose variances along some rotated axes are from 1 to 0.01."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
    narrow = rng.normal(size=(n, size)) * np.logspace(0, -1, size)
    return (narrow @ rotation + rng.normal(size=size)).astype(np.float32)


def fit(X: Any, kind: str = "zca", **params: Any) -> Any:
    return Whitening(kind, **{"eps": 0.0, "value_range": (0, 1), **params}).fit(X)


def flat(X):
    return X.reshape(len(X), -1).astype(np.float64)


def up_to_sign(one, other):
    """Return `one`, each column turned to the side of the other's."""
    return one * np.sign((one * other).sum(axis=0))


# Laws of what it does.


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.5])
def test_the_covariance_of_pca_whitened_images_is_lambda_over_lambda_and_eps(eps: float):
    X = digits()
    values = np.linalg.eigvalsh(np.cov(flat(X).T))[::-1].clip(0)
    codes = fit(X, "pca", eps=eps).transform(X).astype(np.float64)
    wide = values > 1e-5 * values[0]
    expected = np.where(wide, values / (values + eps + 1e-300), 0)
    covariance = np.cov(codes.T)
    np.testing.assert_allclose(covariance[np.ix_(wide, wide)], np.diag(expected[wide]), atol=2e-3)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_of_zca_it_is_the_same_turned_back(eps: float):
    X = points()
    values, vectors = np.linalg.eigh(np.cov(X.T.astype(np.float64)))
    expected = vectors * (values / (values + eps)) @ vectors.T
    np.testing.assert_allclose(np.cov(fit(X, eps=eps).transform(X).T), expected, atol=1e-4)


def test_zca_is_symmetric_and_pca_a_rotation_of_it():
    X = digits()
    zca, pca = (fit(X, kind, eps=0.01).module_ for kind in ("zca", "pca"))
    assert torch.allclose(zca.matrix(), zca.matrix().T, atol=1e-5)
    assert not torch.allclose(pca.matrix(), pca.matrix().T, atol=1e-2)
    squares = [net.matrix().T @ net.matrix() for net in (zca, pca)]  # P'P = (Σ + ε)⁻¹
    torch.testing.assert_close(*squares, rtol=1e-4, atol=1e-2)
    covariance = torch.tensor(np.cov(flat(X).T) + 0.01 * np.eye(64))
    torch.testing.assert_close(
        squares[0].double() @ covariance, torch.eye(64).double(), rtol=0, atol=1e-4
    )


@given(seed=st.integers(0, 2**31))
def test_no_other_white_code_is_as_close_to_the_images_as_zcas(seed: int):
    X = points()
    away = X - X.mean(axis=0)
    codes = fit(X).transform(X)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    nearest = np.square(codes - away).sum()
    deviations = np.sqrt(np.linalg.eigvalsh(np.cov(X.T)))
    assert nearest == pytest.approx(len(X) * np.square(1 - deviations).sum(), rel=0.01)
    assert nearest < np.square(codes @ turn - away).sum()
    np.testing.assert_allclose(np.cov((codes @ turn).T), np.eye(6), atol=1e-3)  # as white as it


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.1])
def test_the_inverse_undoes_it_on_images_that_were_learned_from(kind: str, eps: float):
    X = digits()
    model = fit(X, kind, eps=eps)
    for x in (X, X[:7]):
        np.testing.assert_allclose(model.inverse_transform(model.transform(x)), x, atol=2e-5)
        np.testing.assert_allclose(model.reconstruct(x), x, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_the_inverse_undoes_it_on_any_image(kind: str, eps: float):
    noise = np.random.default_rng(1).random((20, 1, 8, 8), dtype=np.float32)
    model = fit(digits(), kind, eps=eps)
    np.testing.assert_allclose(model.inverse_transform(model.transform(noise)), noise, atol=2e-5)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_turned_images_have_the_same_pca_code_and_a_turned_zca_code(seed: int):
    X = points()
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    turned = (X @ turn).astype(np.float32)
    pca, of_turned = (fit(x, "pca", eps=0.01).transform(x) for x in (X, turned))
    np.testing.assert_allclose(up_to_sign(of_turned, pca), pca, atol=1e-3)
    zca, of_turned = (fit(x, eps=0.01).transform(x) for x in (X, turned))
    np.testing.assert_allclose(of_turned, zca @ turn, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_minus_half_the_squared_distance_of_mahalanobis(kind: str):
    X, eps = points(), 0.02
    covariance = np.cov(X.T.astype(np.float64)) + eps * np.eye(6)
    if kind == "standardize":
        covariance = np.diag(X.var(axis=0, dtype=np.float64) + eps)
    away = X - X.mean(axis=0, dtype=np.float64)
    expected = -0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    module = fit(X, kind, eps=eps).module_
    score = module.score(torch.from_numpy(X)[:, None, None])
    np.testing.assert_allclose(score, expected, rtol=1e-4)


# Laws of how it adds up.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [2, 7, 100, 599, 600, 5000])
def test_any_batch_size_gives_the_same_up_to_rounding(kind: str, batch_size: int):
    X = digits()
    one, other = (fit(X, kind, eps=0.01, batch_size=size) for size in (batch_size, 128))
    tensors = [net.module_.matrix() for net in (one, other)]
    torch.testing.assert_close(*[t.T @ t for t in tensors], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(one.module_.mean, X.reshape(600, -1).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(one.module_.variance, other.module_.variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_small_differences_far_from_0_do_not_cancel(kind: str):
    X = 1000 + 0.05 * points(300)
    exact = X.astype(np.float64)
    variances = exact.var(axis=0)
    if kind != "standardize":
        variances = np.linalg.eigvalsh(np.cov(exact.T))[::-1]
    model = fit(X, kind, batch_size=37)
    np.testing.assert_allclose(model.module_.variance, variances, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 5, 200])
def test_a_gram_matrix_is_that_of_all_pairs_of_columns(size: int):
    x = torch.randn(20, size, dtype=torch.float64)
    torch.testing.assert_close(gram(x), torch.einsum("ni,nj->ij", x, x))
    assert torch.equal(gram(x), gram(x).T)


def test_the_batch_that_is_chosen_has_fewer_images_where_these_are_large_or_few():
    specs = [Spec((1, 28, 28), 60_000), Spec((3, 96, 96), 60_000), Spec((1, 28, 28), 50)]
    assert [Whitening().choose(spec)["batch_size"] for spec in specs] == [4012, 113, 50]
    assert Whitening(batch_size=7).choose(specs[0]) == {}


def test_stopped_within_its_epoch_it_has_whitened_what_it_saw():
    X = digits(100)
    asked = iter([False, True])
    model: Any = Whitening("pca", batch_size=20, trainer=Trainer(stop=lambda: next(asked)))
    with pytest.raises(Interrupted):
        model.fit(X)
    expected = fit(X[:40], "pca", eps=0.01)
    np.testing.assert_allclose(model.module_.variance, expected.module_.variance, atol=1e-6)


def test_left_out_stages_leave_images_as_they_are():
    X = digits(30)
    model = Whitening(eps=0.0, stage_epochs={"moments": 0}).fit(X)
    np.testing.assert_array_equal(model.transform(X), X.reshape(30, -1))


# Beside scikit-learn.


@pytest.mark.parametrize("n_components", [None, 1, 20, 61])
def test_pca_without_eps_is_scikit_learns_up_to_sign(n_components: int | None):
    X = digits(1500)
    ours = fit(X, "pca", n_components=n_components)
    theirs = PCA(n_components, whiten=True).fit(flat(X))
    wide = theirs.explained_variance_ > 1e-4 * theirs.explained_variance_[0]
    assert wide.sum() >= min(n_components or 64, 50)
    np.testing.assert_allclose(
        ours.module_.variance[: len(wide)], theirs.explained_variance_, rtol=1e-3, atol=1e-6
    )
    expected = theirs.transform(flat(X))[:, wide]
    codes = ours.transform(X)
    assert codes.shape == (1500, n_components or 64)
    np.testing.assert_allclose(up_to_sign(codes[:, wide], expected), expected, atol=5e-3)


@pytest.mark.parametrize("kind", ["pca", "zca"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_fewer_components_give_the_best_images_of_that_rank(kind: str, eps: float):
    X = digits()
    model, theirs = fit(X, kind, n_components=5, eps=eps), PCA(5, whiten=True).fit(flat(X))
    expected = theirs.inverse_transform(theirs.transform(flat(X))).reshape(X.shape)
    for rebuilt in (model.reconstruct(X), model.inverse_transform(model.transform(X))):
        np.testing.assert_allclose(rebuilt, expected, atol=1e-4)
    assert model.transform(X).shape[1] == {"pca": 5, "zca": 64}[kind]


def test_standardizing_without_eps_is_scikit_learns_scaler():
    X = digits()
    ours = fit(X, "standardize")
    theirs: Any = StandardScaler().fit(flat(X))
    np.testing.assert_allclose(ours.transform(X), theirs.transform(flat(X)), atol=2e-5)
    noise = np.random.default_rng(1).random((20, 1, 8, 8), dtype=np.float32)
    expected = theirs.transform(flat(noise))
    np.testing.assert_allclose(ours.transform(noise), expected, rtol=1e-4, atol=1e-4)


# Pixels and directions without variance.


@pytest.mark.parametrize("kind", KINDS)
def test_without_eps_dead_pixels_have_code_0_in_training_images(kind: str):
    X = digits()
    dead = X.reshape(600, -1).std(axis=0) == 0
    assert dead.sum() > 1
    model = fit(X, kind)
    codes = model.transform(X)
    assert np.isfinite(codes).all()
    if kind != "pca":
        np.testing.assert_allclose(codes[:, dead], 0, atol=1e-4)
    lit = X[:3].copy()
    lit.reshape(3, -1)[:, dead] = 1  # never seen: kept as it is, not blown up
    away = np.square(model.transform(lit) - codes[:3]).sum(axis=1)
    np.testing.assert_allclose(away, dead.sum(), rtol=1e-3)
    np.testing.assert_allclose(model.reconstruct(lit), lit, atol=2e-5)


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_without_eps_fewer_images_than_pixels_are_whitened_in_the_space_they_span(kind: str):
    X = np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32)
    model = fit(X, kind)
    codes = model.transform(X)
    values = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    np.testing.assert_allclose(values, np.arange(64) < 11, atol=1e-3)
    np.testing.assert_allclose(model.inverse_transform(codes), X, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_all_the_same_have_code_0(kind: str):
    X = np.full((5, 1, 3, 3), 0.3, np.float32)
    for contrast in (None, 55.0):
        model = fit(X, kind, contrast=contrast)
        assert not model.transform(X).any()
        np.testing.assert_allclose(model.reconstruct(X), X, rtol=1e-6)


# Global contrast normalization.


def test_contrast_is_normalized_before_all_else():
    X = digits()
    away = flat(X) - flat(X).mean(axis=1, keepdims=True)
    normalized = (55 * away / np.linalg.norm(away, axis=1, keepdims=True)).astype(np.float32)
    model, plain = fit(X, eps=0.1, contrast=55.0), fit(normalized, eps=0.1)
    np.testing.assert_allclose(model.transform(X), plain.transform(normalized), atol=2e-3)
    brighter = 0.5 * X + 0.2  # another brightness and contrast is the same image
    np.testing.assert_allclose(model.transform(brighter), model.transform(X), atol=1e-3)


def test_images_of_one_gray_are_0_after_it_whatever_the_gray():
    module = fit(digits(), contrast=55.0).module_
    grays = torch.linspace(0, 1, 50)[:, None, None, None].expand(50, 1, 8, 8)
    assert not module.normalize(grays)[0].any()
    faint = grays.clone()
    faint[:, 0, 3, 3] += 1 / 255
    torch.testing.assert_close(module.normalize(faint)[0].norm(dim=1), torch.full((50,), 55.0))


@pytest.mark.parametrize("kind", KINDS)
def test_reconstructions_have_the_brightness_and_contrast_of_their_image(kind: str):
    X = digits()
    model = fit(X, kind, eps=0.1, contrast=10.0)
    np.testing.assert_allclose(model.reconstruct(X), X, atol=1e-4)
    normalized = model.inverse_transform(model.transform(X)).reshape(600, -1)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 10, rtol=1e-4)
    np.testing.assert_allclose(normalized.mean(axis=1), 0, atol=1e-4)
    if kind != "standardize":
        fewer = fit(X, kind, eps=0.1, contrast=10.0, n_components=6)
        assert np.square(fewer.reconstruct(X) - X).mean() < 0.6 * X.var(axis=0).mean()


def test_what_codes_alone_stand_for_has_the_usual_brightness_and_contrast():
    X = digits()
    model = fit(X, eps=0.1, contrast=10.0)
    decoded = model.module_.decode(torch.from_numpy(model.transform(X))).numpy().reshape(600, -1)
    own = X.reshape(600, -1)
    norms = np.linalg.norm(own - own.mean(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(decoded.mean(axis=1), own.mean(), rtol=1e-3)
    spread = np.linalg.norm(decoded - decoded.mean(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(spread, norms.mean(), rtol=1e-3)


# What the module can do.


def test_it_can_do_what_each_kind_can():
    for kind in KINDS:
        module = fit(digits(50), kind).module_
        for capability in (Encodes, Decodes, Reconstructs, Scores, HasFilters, HasSpectrum):
            assert isinstance(module, capability)
        assert isinstance(module, EncodesAsImages)


def test_filters_are_the_rows_of_the_matrix_and_zcas_begin_with_the_pixel_that_varies_most():
    X = digits()
    x = torch.from_numpy(X)
    pca, zca = (fit(X, kind, eps=0.01).module_ for kind in ("pca", "zca"))
    away = (x - x.mean(dim=0)).flatten(1)
    torch.testing.assert_close(
        away @ pca.filters().flatten(1).T, pca.encode(x), rtol=1e-3, atol=1e-3
    )
    order = away.var(dim=0).argsort(descending=True, stable=True)
    found = away @ zca.filters().flatten(1).T
    torch.testing.assert_close(found[:, :20], zca.encode(x)[:, order[:20]], rtol=1e-3, atol=1e-3)
    assert fit(X, "standardize").module_.filters() is None


def test_the_spectrum_is_that_of_the_images_and_of_the_code():
    X = digits()
    for kind in ("pca", "zca"):
        module = fit(X, kind, eps=0.05, n_components=9).module_
        before, after = module.spectrum()
        assert before.shape == (64,) and after.shape == (9,)
        torch.testing.assert_close(after, before[:9] / (before[:9] + 0.05))
        assert float(before.sum()) == pytest.approx(flat(X).var(axis=0, ddof=1).sum(), rel=1e-5)
    assert fit(X, "standardize").module_.spectrum() is None


def test_codes_of_zca_and_standardization_are_images():
    x = torch.from_numpy(digits(20))
    for kind in ("zca", "standardize"):
        module = fit(digits(20), kind).module_
        assert torch.equal(module.code_images(x).flatten(1), module.encode(x))
        assert module.code_images(x).shape == x.shape
    assert fit(digits(20), "pca").module_.code_images(x) is None


def test_codes_are_turned_back_into_the_units_of_the_value_range():
    X = (digits() * 255).astype(np.uint8)
    model = Whitening(value_range=(0, 255)).fit(X)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), X, atol=0.01)


# What a user can get wrong.


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"kind": "ica"}, "kind.*'ica'"),
        ({"eps": -1e-3}, "eps.*-0.001"),
        ({"n_components": 0}, "n_components.*0"),
        ({"n_components": 65}, "n_components=65.*64 values"),
        ({"contrast": 0.0}, "contrast.*0"),
        ({"kind": "standardize", "n_components": 3}, "n_components=3.*no components"),
    ],
)
def test_hyper_parameters_that_cannot_be_are_refused_in_words(params: dict, words: str):
    with pytest.raises(InputError, match=words) as error:
        Whitening(**params).fit(digits(20))
    assert "\n" not in str(error.value)


def test_images_too_large_for_a_covariance_are_refused_but_can_be_standardized():
    X = np.random.default_rng(0).integers(0, 256, (3, 3, 80, 80), np.uint8)
    with pytest.raises(InputError, match=r"19,200 values.*--image-size") as error:
        Whitening().fit(X)
    assert "\n" not in str(error.value)
    assert np.isfinite(Whitening("standardize").fit(X).transform(X)).all()


def test_codes_of_another_length_are_refused():
    model = fit(digits(20), "pca", n_components=4)
    with pytest.raises(InputError, match=r"codes of 5 numbers.*gives 4"):
        model.inverse_transform(np.zeros((2, 5)))
