"""The face of a method that also names classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from whatwhere.core import UNLABELED, Classifies, InputError, labeled
from whatwhere.data.rows import Rows
from whatwhere.learner.inference import infer
from whatwhere.learner.learner import Learner
from whatwhere.objectives import calibration


class ImageClassifier(ClassifierMixin, Learner):
    """A `Learner` that also predicts, once some rows of `y` are not `UNLABELED`. Abstract."""

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        start: Learner | None = None,
    ) -> Self:
        """Learn from images and labels; -1 (or no `y`) marks what is not labeled.

        Parameters
        ----------
        X : array-like (n, H, W), (n, C, H, W) or (n, features)
        y : array-like (n,), optional
            Any labels, and -1 where there is none.
        validation : (X, y), optional
            Images that are not trained on; after each epoch the learner is judged on them, and
            early stopping looks at them. Where they have labels enough, the temperature of
            `predict_proba` is fitted to them at the end (if they also stopped the training early,
            they are no longer quite unseen then, and the probabilities a little too sure).
        start : Learner, optional
            Fitted: training begins with its weights. Whatever both nets have (encoder, decoder,
            class layer) has to be of the same sizes and is copied; of a decoder that only one of
            them has, nothing is. The class layer keeps the rows of the classes that both know, by
            their values in `classes_`; those of new classes are fresh. The rest is as without:
            the learner's own hyper-parameters, and a fresh optimizer.

        Raises
        ------
        InputError
            If `y` names one class only (-1 is none), images cannot be read, or the weights of
            `start` do not fit.
        """
        begun = self._begun(start)  # first, for it may be this learner
        labels = None
        if y is None:
            self.classes_ = np.empty(0, dtype=int)
        else:
            labels = self._labels(X, y)
        rows = self._rows(X, labels, reset=True)
        held_out = self._validation(validation)
        self.temperature_, self.n_calibration_ = 1.0, 0  # an interrupted learner has these
        self._train(rows, len(self.classes_), held_out, begun)
        if held_out is not None and len(self.classes_):
            self._calibrate(held_out)
        return self

    def _labels(self, X: Any, y: Any) -> np.ndarray:
        """Return the places of the labels in `classes_`, which is set here."""
        _, y = validate_data(self, X, y, dtype=None, allow_nd=True, ensure_min_samples=2)
        known = np.array(labeled(y.tolist()), dtype=bool)
        named = y[known]
        if named.dtype == object:  # names beside -1: without it they have a type of their own
            named = np.array(named.tolist())
        check_classification_targets(named)
        self.classes_, codes = np.unique(named, return_inverse=True)
        if len(self.classes_) == 1:
            (only,) = self.classes_.tolist()
            raise InputError(
                f"y names one class only, {only!r}; a classifier needs two or more "
                "(-1 is none: it means unlabeled)"
            )
        labels = np.full(len(y), UNLABELED)
        labels[known] = codes
        return labels

    def _validation(self, validation: tuple[Any, Any] | None) -> Rows | None:
        if validation is None:
            return None
        X, y = validation
        if y is None:
            return self._rows(X, None, reset=False)
        if len(y) != len(X):
            raise InputError(f"validation has {len(X)} images and {len(y)} labels; give one each")
        known = np.isin(y, self.classes_)
        if len(self.classes_) and not known.all():
            stranger = np.asarray(y)[~known].tolist()[0]
            raise InputError(f"validation has the label {stranger!r}, which training has not")
        codes = np.searchsorted(self.classes_, y) if len(self.classes_) else None
        return self._rows(X, codes, reset=False)

    def _calibrate(self, held_out: Rows) -> None:
        """Fit the temperature to labeled images that were not trained on, if there are enough."""
        y = held_out.y.cpu().numpy()
        if not calibration.enough(y):
            return
        parts = infer(self.module_, held_out, lambda net, x: net.logits(x).double().cpu())
        scores = torch.cat(list(parts)).numpy()
        self.temperature_, self.n_calibration_ = calibration.fit_temperature(scores, y), len(y)

    def logits(self, X: Any) -> np.ndarray:
        """Return the class scores before the softmax, float32 (n_samples, n_classes)."""
        self._check_classes()
        return self._apply(lambda module, x: module.logits(x), X, Classifies)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities softmax(logits / T), float32 (n_samples, n_classes).

        T is `temperature_`, fitted to `n_calibration_` labels of validation images; without enough
        of them it is 1, and the probabilities are apt to be too sure.
        """
        self._check_classes()
        T = self.temperature_
        return self._apply(lambda module, x: (module.logits(x) / T).softmax(1), X, Classifies)

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each row; no temperature changes it."""
        scores = self.logits(X)  # first, for it says what is missing
        return self.classes_[scores.argmax(axis=1)]

    def _check_classes(self) -> None:
        check_is_fitted(self)
        if len(self.classes_) == 0:
            raise InputError(f"this {type(self).__name__} was fitted without labels: no classes")

    def name_classes(self, names: Sequence[Any]) -> None:
        """Call the classes so from now on; `names` stand in the order of `classes_`."""
        assert len(names) == len(self.classes_), "one name a class"
        self._set_classes(list(names))

    def describe(self) -> dict[str, Any]:
        """Return all but the weights, as JSON holds it; `restore` reads it."""
        told = {"temperature": self.temperature_, "n_calibration": self.n_calibration_}
        return super().describe() | told

    @classmethod
    def restore(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """Return the learner that `describe` told of, with the weights in `folder`."""
        learner = super().restore(config, folder)
        learner.temperature_ = config.get("temperature", 1.0)
        learner.n_calibration_ = config.get("n_calibration", 0)
        return learner

    def _classes(self) -> list[Any]:
        return self.classes_.tolist()

    def _known_classes(self) -> list[Any]:
        """Return the classes, none before `fit` has seen them: a plan may be made before."""
        return self.classes_.tolist() if hasattr(self, "classes_") else []

    def _set_classes(self, classes: list[Any]) -> None:
        self.classes_ = np.array(classes) if classes else np.empty(0, dtype=int)
