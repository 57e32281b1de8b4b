"""The face of a method that never looks at labels."""

from typing import Any, Self

from whatwhere.learner.learner import Learner


class FeatureLearner(Learner):
    """A `Learner` of features alone. Abstract."""

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        start: Learner | None = None,
    ) -> Self:
        """Learn from images.

        Parameters
        ----------
        X : array-like (n, H, W), (n, C, H, W) or (n, features)
        y : ignored
            Here for scikit-learn's pipelines, and for what compares learners.
        validation : (X, y), optional
            Images that are not trained on; after each epoch the learner is judged on them, and
            early stopping looks at them. The labels are ignored.
        start : Learner, optional
            Fitted: training begins with its weights, those of the parts that both nets have.

        Raises
        ------
        InputError
            If images cannot be read, or the weights of `start` do not fit.
        """
        begun = self._begun(start)
        rows = self._rows(X, reset=True)
        held_out = None if validation is None else self._rows(validation[0], reset=False)
        return self._train(rows, validation=held_out, start=begun)
