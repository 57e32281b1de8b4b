"""Judging a fitted learner on images: one protocol, whatever the method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from whatwhere import runs
from whatwhere.core import UNLABELED, InputError, Reconstructs
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import likelihood, measures, panels, probes
from whatwhere.learner import ImageClassifier, Learner, infer
from whatwhere.objectives.calibration import nll

MOST_LABELS_FOR_SVM = 5000  # a kernel machine's time grows with the square of its labels


def evaluate(learner: Learner, test: Images, *, careful: bool = False) -> dict[str, Any]:
    """Judge the learner on labeled test images.

    Parameters
    ----------
    learner : Learner
    test : Images
    careful : bool
        Whether log Z may take the minutes that a number to be published takes.

    Returns
    -------
    dict
        ``n``; ``accuracy`` in [0, 1], ``error`` and its 95 % ``interval`` and ``balanced_error`` in
        percent, the ``confusion`` matrix, and ``calibration``: see there (null or missing for a
        learner without classes); where the learner reconstructs, the mean squared error a pixel in
        [0, 1], ``reconstruction_mse``, and the squared error summed over the pixels of an image,
        ``reconstruction_sse``, which is a mean over images; where it knows how probable images are,
        what `likelihood.measure` tells.
    """
    told: dict[str, Any] = {"n": len(test), "accuracy": None, "error": None}
    known = test.y != UNLABELED
    if isinstance(learner, ImageClassifier) and len(learner.classes_) and known.any():
        scores = learner.logits(test.x[known])
        truth = np.array(test.classes)[test.y[known]]
        strangers = np.setdiff1d(truth, learner.classes_)
        if len(strangers):
            raise InputError(
                f"the test images have the class {strangers[0].item()!r}, which the run does not "
                f"know; it knows {', '.join(map(str, learner.classes_[:5]))}"
            )
        predicted = learner.classes_[scores.argmax(axis=1)]
        told |= measures.classification(truth, predicted, learner.classes_.tolist())
        columns = {name: column for column, name in enumerate(learner.classes_.tolist())}
        places = np.array([columns[name] for name in truth.tolist()])
        told["calibration"] = calibration(learner, scores, places)
    if isinstance(learner.module_, Reconstructs):
        told["reconstruction_mse"] = mse = reconstruction_mse(learner, test.x)
        told["reconstruction_sse"] = mse * test.x[0].size
    return told | likelihood.measure(learner, test.x, careful=careful)


def calibration(
    learner: ImageClassifier, scores: np.ndarray, truth: np.ndarray
) -> dict[str, float | int]:
    """Judge the learner's probabilities.

    Parameters
    ----------
    learner : ImageClassifier
    scores : ndarray (n, n_classes)
        Its `logits` of labeled images.
    truth : ndarray (n,)
        The true classes, as columns of `scores`.

    Returns
    -------
    dict
        ``temperature``, and on how many labels it was fitted: ``n_validation``, 0 where it was not.
        ``error``, see `measures.calibration_error`, and ``nll`` in nats an image; where it was
        fitted, ``error_before`` and ``nll_before`` are what they would be without.
    """
    fitted, n = learner.temperature_, learner.n_calibration_
    told: dict[str, float | int] = {"temperature": fitted, "n_validation": n}
    for suffix, temperature in {"": fitted, "_before": 1.0}.items():
        if suffix and not n:
            continue
        probability = softmax(scores.astype(np.float64) / temperature, axis=1)
        told[f"error{suffix}"] = measures.calibration_error(probability, truth)
        told[f"nll{suffix}"] = nll(scores, truth, temperature)
    return told


def reconstruction_mse(learner: Learner, images: np.ndarray) -> float:
    """Return the mean squared error a pixel, in [0, 1]², over all images (n, C, H, W)."""
    errors = infer(
        learner.module_,
        Rows(images),
        lambda module, x: (module.reconstruct(x) - x).square().double(),
    )
    return sum(float(part.sum()) for part in errors) / images.size


def rebuild(learner: Learner, x: np.ndarray, purpose: str) -> np.ndarray:
    """Return images rebuilt from their codes, float32 (n, C, H, W), in [0, 1] but for overshoot.

    Raises
    ------
    InputError
        If the learner does not reconstruct: `purpose` says what it was wanted for. If the images
        are not of its size.
    """
    if not isinstance(learner.module_, Reconstructs):
        name = runs.snake_case(type(learner).__name__)
        raise InputError(
            f"a run of {name} does not reconstruct images, and {purpose} needs that; "
            "fit one with --model swwae or autoencoder"
        )
    return learner.reconstruct(x)


FLOORS: Mapping[str, probes.Floor] = {
    "SVM on raw pixels": probes.floor_svm,
    "SVM on principal components": probes.floor_pca,
}


def floor(train: Images, test: Images, method: probes.Floor = probes.floor_svm) -> dict[str, Any]:
    """Judge a simple method, by default an SVM on raw pixels, fitted to the labels that are shown.

    Returns
    -------
    dict
        `measures.classification` of the labeled test images.

    Raises
    ------
    InputError
        If fewer than two classes are shown, or no test image has a label.
    """
    shown = len(np.unique(train.y[train.y != UNLABELED]))
    if shown < 2:
        raise InputError(
            f"the training images show {shown or 'no'} class{'es' * (not shown)}, and a support "
            "vector machine needs two; show more labels"
        )
    known = test.y != UNLABELED
    if not known.any():
        raise InputError(f"none of the {len(test)} test images has a label; name a labeled part")
    predicted = method(train.x, train.y, test.x[known])
    return measures.classification(test.y[known], predicted, list(range(len(test.classes)))) | {
        "classes": list(test.classes)
    }


def floors(train: Images, test: Images) -> list[dict[str, Any]]:
    """Return what simple methods reach on the same test images with the same labels.

    Empty where they cannot be fitted or judged, or would take longer than the run itself.
    """
    shown = train.y[train.y != UNLABELED]
    if len(np.unique(shown)) < 2 or len(shown) > MOST_LABELS_FOR_SVM:
        return []
    if not (test.y != UNLABELED).any():
        return []
    found = {name: floor(train, test, method) for name, method in FLOORS.items()}
    return [
        {
            "name": f"{name}, same {len(shown)} labels",
            "error": told["error"],
            "interval": told["interval"],
        }
        for name, told in found.items()
    ]


def probe(learner: Learner, train: Images, test: Images, name: str) -> Mapping[str, Any]:
    """Judge the learner's features: a simple classifier on them, fitted to the labeled rows."""
    shown, known = train.y != UNLABELED, test.y != UNLABELED
    if not shown.any() or not known.any():
        raise InputError("a probe needs labels, in the training and in the test part")
    fitted = probes.PROBES[name]().fit(learner.transform(train.x[shown]), train.y[shown])
    predicted = fitted.predict(learner.transform(test.x[known]))
    told = measures.classification(test.y[known], predicted, list(range(len(test.classes))))
    return told | {"classes": list(test.classes), "probe": name, "n_labeled": int(shown.sum())}


def draw_reconstructions(learner: Learner, images: Images, n: int, out: Path) -> float:
    """Draw the first images above what the learner rebuilds from their codes.

    Parameters
    ----------
    learner : Learner
    images : Images
    n : int
        Images in the picture; fewer where there are fewer.
    out : Path
        A PNG, written whole or not at all.

    Returns
    -------
    float
        Mean squared error a pixel of these images, in [0, 1]².

    Raises
    ------
    InputError
        If the learner does not reconstruct, or the images are not of its size.
    """
    first = images.x[:n]
    panels.save(out, panels.pairs(first, rebuild(learner, first, "showing reconstructions")))
    return reconstruction_mse(learner, first)
