"""Probes: simple classifiers that say how good features are. They need no learner of ours.

``PROBES[name]().fit(features, y).predict(features)`` with features of any net, or with raw pixels.
Before any probe, features are centered and all divided by one number, so that their total variance
is 1. A feature keeps its weight relative to the others: dividing each by its own deviation would
blow up pixels that are hardly ever lit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from whatwhere.core import UNLABELED, InputError, labeled

ENOUGH = 10  # labels a class, from which on C is chosen: two in each of five folds
FOLDS = 5
# C is the variance of a prior on the weights: the best one does not depend on the number of rows.
MOST_TO_CHOOSE = 1000
N_COMPONENTS, MOST_FOR_PCA = 100, 10_000


@dataclass
class Probe:
    """A classifier on scaled features.

    Parameters
    ----------
    classifier : Any
        Of scikit-learn. It stays as it is: what is fitted is a copy, `fitted_`.
    choices : tuple of float
        Values of its `C`. Where each class has 10 labels or more, the best one in 5-fold
        cross-validation on about 1000 of them at most is taken; else `C` stays as it is.
    scoring : str
        What is best: scikit-learn's name of a score.
    """

    classifier: Any
    choices: tuple[float, ...] = ()
    # Measured: accuracy in place of likelihood chooses by chance among hundreds of labels.
    scoring: str = "neg_log_loss"

    def fit(self, features: ArrayLike, y: ArrayLike) -> Self:
        """Fit to the labeled rows.

        Parameters
        ----------
        features : array-like (n, K)
            Finite.
        y : array-like (n,)
            Classes; rows that are `UNLABELED` are left out.

        Raises
        ------
        InputError
            If fewer than two classes have labels, or the features are no finite table.
        """
        x, labels = check_table(features), np.asarray(y)
        if len(x) != len(labels):
            raise InputError(
                f"{len(x)} rows of features and {len(labels)} labels; give a label a row"
            )
        shown = np.array(labeled(labels.tolist()), dtype=bool)
        x, labels = x[shown], labels[shown]
        _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            raise InputError(
                f"the {len(labels)} labels name {len(counts)} of the classes (-1 is none: it means "
                "unlabeled); a probe needs two or more, so show it more labels"
            )
        self.center_ = x.mean(axis=0)
        # Squares of what is very large or very small would leave the range of floats.
        centered = x - self.center_
        largest = float(np.abs(centered).max()) or 1.0
        self.scale_ = largest * (float(np.sqrt((centered / largest).var(axis=0).sum())) or 1.0)
        x = self._scaled(x)
        self.fitted_: Any = clone(self.classifier)
        if self.choices and counts.min() >= ENOUGH:
            few = _balanced(codes, MOST_TO_CHOOSE // len(counts))
            search = GridSearchCV(
                self.classifier, {"C": self.choices}, scoring=self.scoring, cv=FOLDS, refit=False
            )
            self.fitted_.set_params(**search.fit(x[few], codes[few]).best_params_)
        self.fitted_.fit(x, labels)
        return self

    def predict(self, features: ArrayLike) -> np.ndarray:
        """Return the class of each row of features (n, K)."""
        return self.fitted_.predict(self._scaled(check_table(features)))

    def predict_proba(self, features: ArrayLike) -> np.ndarray:
        """Return the class probabilities (n, n_classes), in the order of sorted classes.

        Raises
        ------
        InputError
            If the classifier has none worth the name: only `linear` has.
        """
        if not isinstance(self.classifier, LogisticRegression):
            name = type(self.classifier).__name__
            raise InputError(f"{name} gives no probabilities; use the probe 'linear'")
        return self.fitted_.predict_proba(self._scaled(check_table(features)))

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        if features.shape[1] != len(self.center_):
            raise InputError(
                f"{features.shape[1]} features a row, but the probe was fitted to "
                f"{len(self.center_)}; give it features of the same net"
            )
        return (features - self.center_) / self.scale_


def linear() -> Probe:
    """Return logistic regression; C is 10, or chosen from 1, 10, 100 and 1000 (see `Probe`).

    Measured on the pixels of MNIST, test error with 100, 600, 1000 and 3000 labels: 24.7, 14.2,
    12.4 and 9.9 % (each feature divided by its own deviation instead, with the first three: 28.4,
    14.8 and 13.0 %). With 60,000 labels and 500 features of an auto-encoder it takes 41
    seconds on one thread, the choice of C among them.
    """
    return Probe(LogisticRegression(C=10.0, max_iter=2000), choices=(1.0, 10.0, 100.0, 1000.0))


def knn() -> Probe:
    """Return the nearest neighbor: with few labels, the second is often of another class."""
    return Probe(KNeighborsClassifier(n_neighbors=1))


def svm() -> Probe:
    """Return a support vector machine with C = 10 and the RBF kernel exp(-‖x - x'‖² / v).

    v is the total variance of the features. On the pixels of MNIST this is a gamma of 0.019, where
    0.02 is usual; nothing is tuned, so that few labels are enough. Measured there, test error with
    100, 600, 1000 and 3000 labels: 22.1, 8.6, 6.8 and 4.4 %.
    """
    return Probe(SVC(C=10.0).set_params(gamma=1.0))


def linear_svm() -> Probe:
    """Return linear support vector machines, one for each class against all others.

    C is 1, or chosen by accuracy from 0.01, 0.1, 1 and 10 (see `Probe`); the hinge is squared.
    Measured on the pixels of MNIST with C = 1, test error with 100, 1000 and 3000 labels: 25.7,
    13.3 and 11.2 %; C = 0.1 and C = 10 are 0.5 to 2 points worse, whatever the number of labels.
    """
    machine = LinearSVC(C=1.0, dual="auto", max_iter=10_000, random_state=0)
    return Probe(machine, choices=(0.01, 0.1, 1.0, 10.0), scoring="accuracy")


PROBES: dict[str, Callable[[], Probe]] = {
    "linear": linear,
    "knn": knn,
    "linear_svm": linear_svm,
    "svm": svm,
}


Floor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(training images, their labels, test images) -> classes of the test images."""


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return images as rows of features.

    Parameters
    ----------
    images : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].

    Returns
    -------
    ndarray (n, C * H * W), float32 in [0, 1]

    Raises
    ------
    InputError
        If floats are outside [0, 1]: most likely they are bytes.
    """
    pixels = np.asarray(images).reshape(len(images), -1)
    if pixels.dtype == np.uint8:
        return pixels / np.float32(255)
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError(
            f"images hold values from {pixels.min():g} to {pixels.max():g}; floats are read as "
            "[0, 1]: pass uint8, or bring them to [0, 1]"
        )
    return pixels.astype(np.float32)


def floor_svm(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Return the classes of test images by the probe `svm` on raw pixels.

    This is what the labels alone are worth without a net.

    Parameters
    ----------
    x_train, x_test : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].
    y_train : ndarray (n,)
        Classes; rows that are `UNLABELED` are left out.

    Returns
    -------
    ndarray (n_test,)
        Of the classes in `y_train`.
    """
    shown = np.asarray(y_train) != UNLABELED  # before the pixels become floats: these may be many
    machine = svm().fit(raw_pixels(x_train[shown]), y_train[shown])
    return machine.predict(raw_pixels(x_test))


def floor_pca(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Return the classes of test images by the probe `svm` on their principal components.

    The components are those of all training images, with label or without, so this is what the
    simplest learning without labels is worth: 100 of them at most, of 10,000 images at most.

    Parameters
    ----------
    x_train, y_train, x_test
        As for `floor_svm`.

    Returns
    -------
    ndarray (n_test,)
        Of the classes in `y_train`.
    """
    shown = np.asarray(y_train) != UNLABELED
    few, fresh = principal_components(x_train, x_train[shown], x_test)
    return svm().fit(few, y_train[shown]).predict(fresh)


def principal_components(fitted: np.ndarray, *parts: np.ndarray) -> list[np.ndarray]:
    """Return the principal components of each part of the images.

    Parameters
    ----------
    fitted : ndarray (n, C, H, W)
        Whose components these are: 100 of them at most, of 10,000 images at most.
    *parts : ndarray (m, C, H, W)

    Returns
    -------
    list of ndarray (m, K), float32
    """
    rows = np.random.default_rng(0).permutation(len(fitted))[:MOST_FOR_PCA]
    pixels = raw_pixels(fitted[np.sort(rows)])
    pca = PCA(min(N_COMPONENTS, *pixels.shape), svd_solver="randomized", random_state=0).fit(pixels)
    return [pca.transform(raw_pixels(part)) for part in parts]


def check_table(features: ArrayLike) -> np.ndarray:
    """Return features as finite floats (n, K).

    Raises
    ------
    InputError
        If they are none.
    """
    x = np.asarray(features)
    if x.ndim != 2:
        raise InputError(f"features of shape {x.shape}; a probe reads (n, K): flatten each row")
    if x.shape[1] == 0 or x.dtype.kind not in "biuf":
        what = "no column" if x.shape[1] == 0 else f"the type {x.dtype}"
        raise InputError(f"features of {what}; a probe reads one real number a column, or more")
    x = x.astype(np.float32 if x.dtype == np.float32 else np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad)} of {len(x)} rows of features are not finite, the first is row {bad[0]}; "
            "train with a smaller learning rate, or leave them out"
        )
    return x


def _balanced(codes: np.ndarray, n: int) -> np.ndarray:
    """Return so many rows of each class, `ENOUGH` at least, drawn the same way each time."""
    order = np.random.default_rng(0).permutation(len(codes))
    rows = [order[codes[order] == code][: max(n, ENOUGH)] for code in np.unique(codes)]
    return np.concatenate(rows)
