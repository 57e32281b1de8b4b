"""Probes: simple classifiers that say how good features are. They need no learner of ours.

Each is a scikit-learn estimator: ``PROBES[name]().fit(features, y).predict(features)``.
"""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from whatwhere.core import UNLABELED
from whatwhere.data.rows import Rows

GAMMA = 15.68
"""Of the RBF kernel, times the number of pixels: 0.02 for MNIST's 784."""


def linear() -> Pipeline:
    """Return multinomial logistic regression on standardized features, C = 1."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def knn() -> KNeighborsClassifier:
    """Return the nearest neighbor, by Euclidean distance."""
    return KNeighborsClassifier(n_neighbors=1)


def svm() -> Pipeline:
    """Return a support vector machine with an RBF kernel on standardized features, C = 10."""
    return make_pipeline(StandardScaler(), SVC(C=10))


PROBES: dict[str, Callable[[], Pipeline | KNeighborsClassifier]] = {
    "linear": linear,
    "knn": knn,
    "svm": svm,
}


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return images (n, C, H, W), uint8 or in [0, 1], as float32 rows (n, C * H * W) in [0, 1]."""
    rows = Rows(images)
    pixels = rows.x.flatten(1).numpy().astype(np.float32)
    return pixels / np.float32(rows.value_range[1])


def floor_svm(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Return the classes of test images by a support vector machine on raw pixels.

    RBF kernel, C = 10, gamma = 15.68 / pixels: on MNIST the setting 0.02 of the usual floor.

    Parameters
    ----------
    x_train, x_test : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].
    y_train : ndarray (n,)
        Rows that are `UNLABELED` are left out.
    """
    shown = y_train != UNLABELED
    pixels = raw_pixels(x_train[shown])
    machine = SVC(C=10, gamma=GAMMA / pixels.shape[1]).fit(pixels, y_train[shown])
    return machine.predict(raw_pixels(x_test))
