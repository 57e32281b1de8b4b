"""Judging a fitted learner on images: one protocol, whatever the method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere import runs
from whatwhere.core import UNLABELED, HasFilters, InputError, Reconstructs
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import measures, panels, probes
from whatwhere.learner import ImageClassifier, Learner, infer

SHOWN = 12  # reconstructions in a panel
MOST_LABELS_FOR_SVM = 5000  # a kernel machine's time grows with the square of its labels


def evaluate(learner: Learner, test: Images) -> dict[str, Any]:
    """Judge the learner on labeled test images.

    Returns
    -------
    dict
        ``n``; ``accuracy`` in [0, 1], ``error`` and its 95 % ``interval`` in percent and the
        ``confusion`` matrix (null for a learner without classes); ``reconstruction_mse``, a pixel
        in [0, 1], where the learner reconstructs.
    """
    told: dict[str, Any] = {"n": len(test), "accuracy": None, "error": None}
    known = test.y != UNLABELED
    if isinstance(learner, ImageClassifier) and len(learner.classes_) and known.any():
        predicted = learner.predict(test.x[known])
        truth = np.array(test.classes)[test.y[known]]
        strangers = np.setdiff1d(truth, learner.classes_)
        if len(strangers):
            raise InputError(
                f"the test images have the class {strangers[0]!r}, which the run does not know; "
                f"it knows {', '.join(map(str, learner.classes_[:5]))}"
            )
        told |= measures.classification(truth, predicted, learner.classes_.tolist())
    if isinstance(learner.module_, Reconstructs):
        told["reconstruction_mse"] = reconstruction_mse(learner, test.x)
    return told


def reconstruction_mse(learner: Learner, images: np.ndarray) -> float:
    """Return the mean squared error a pixel, in [0, 1]², over all images (n, C, H, W)."""
    errors = infer(
        learner.module_,
        Rows(images),
        lambda module, x: (module.reconstruct(x) - x).square().double(),
    )
    return sum(float(part.sum()) for part in errors) / images.size


def floors(train: Images, test: Images) -> list[dict[str, Any]]:
    """Return what simple methods reach on the same test images with the same labels."""
    known = test.y != UNLABELED
    if not known.any() or len(np.unique(train.y[train.y != UNLABELED])) < 2:
        return []
    if train.n_labeled > MOST_LABELS_FOR_SVM:
        return []
    predicted = probes.floor_svm(train.x, train.y, test.x[known])
    told = measures.classification(test.y[known], predicted, list(range(len(test.classes))))
    name = f"SVM on raw pixels, same {train.n_labeled} labels"
    return [{"name": name, "error": told["error"], "interval": told["interval"]}]


def probe(learner: Learner, train: Images, test: Images, name: str) -> Mapping[str, Any]:
    """Judge the learner's features: a simple classifier on them, fitted to the labeled rows."""
    shown, known = train.y != UNLABELED, test.y != UNLABELED
    if not shown.any() or not known.any():
        raise InputError("a probe needs labels, in the training and in the test part")
    fitted = probes.PROBES[name]().fit(learner.transform(train.x[shown]), train.y[shown])
    predicted = fitted.predict(learner.transform(test.x[known]))
    told = measures.classification(test.y[known], predicted, list(range(len(test.classes))))
    return told | {"classes": list(test.classes), "probe": name, "n_labeled": int(shown.sum())}


def draw_panels(learner: Learner, images: Images, run: Path, *, tested: bool) -> None:
    """Write the pictures of a run: what any learner that can do it shows.

    Parameters
    ----------
    learner : Learner
    images : Images
        Of the test part where there is one (`tested`), else of the training part.
    run : Path
    tested : bool
    """
    folder = run / runs.PANELS
    folder.mkdir(exist_ok=True)
    module = learner.module_
    if isinstance(module, Reconstructs):
        first = images.take(np.arange(min(SHOWN, len(images))))
        originals = Rows(first.x).take(_all(first)).x.numpy()
        rebuilt = learner.reconstruct(first.x)
        panels.reconstructions(folder, originals, rebuilt, reconstruction_mse(learner, first.x))
    if isinstance(module, HasFilters) and (filters := module.filters()) is not None:
        panels.filters(folder, filters.cpu().numpy())
    known = images.y != UNLABELED
    if tested and isinstance(learner, ImageClassifier) and len(learner.classes_) and known.any():
        labeled = images.take(np.flatnonzero(known))
        probability = learner.predict_proba(labeled.x)
        predicted = learner.classes_[probability.argmax(1)]
        truth = np.array(labeled.classes)[labeled.y]
        names = None if labeled.names is None else list(labeled.names)
        panels.mistakes(folder, labeled.x, truth, predicted, probability.max(1), names)


def _all(images: Images) -> Any:
    import torch

    return torch.arange(len(images))
