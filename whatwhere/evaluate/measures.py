"""Numbers with their uncertainty: errors, means over draws, paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from whatwhere.core import UNLABELED, InputError


def wilson(errors: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an error rate, in percent.

    Parameters
    ----------
    errors, n : int
        So many wrong out of so many.
    level : float in (0, 1)

    References
    ----------
    Wilson. Probable inference, the law of succession, and statistical inference. 1927.
    """
    interval = stats.binomtest(errors, n).proportion_ci(level, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def classification(y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any]) -> dict[str, Any]:
    """Return how often the predicted classes are right.

    Parameters
    ----------
    y_true, y_pred : array-like (n,)
        Labels out of `classes`.
    classes : sequence
        Rows (true) and columns (predicted) of the confusion matrix.

    Returns
    -------
    dict
        ``n``, ``accuracy`` in [0, 1], ``error`` in percent, its 95 % ``interval``, ``confusion`` as
        lists of counts, ``classes``.

    Raises
    ------
    InputError
        If there is nothing to judge, or a label is hidden: that is no error and no hit.
    """
    truth, said = np.asarray(y_true), np.asarray(y_pred)
    if len(truth) == 0:
        raise InputError("no image to judge; give a test part with labels")
    if np.issubdtype(truth.dtype, np.number) and (truth == UNLABELED).any():
        hidden = int((truth == UNLABELED).sum())
        raise InputError(
            f"{hidden} of {len(truth)} test images have no label (-1), which is neither right nor "
            "wrong; leave them out"
        )
    place = {name: number for number, name in enumerate(classes)}
    confusion = np.zeros((len(place), len(place)), dtype=int)
    pairs = ([place[label] for label in labels.tolist()] for labels in (truth, said))
    np.add.at(confusion, tuple(pairs), 1)
    wrong, n = int((truth != said).sum()), len(truth)
    return {
        "n": n,
        "accuracy": 1 - wrong / n,
        "error": 100 * wrong / n,
        "interval": list(wilson(wrong, n)),
        "confusion": confusion.tolist(),
        "classes": list(classes),
    }


def mean_interval(values: ArrayLike, level: float = 0.95) -> dict[str, Any]:
    """Return mean, deviation (n - 1), number and Student's interval of the mean.

    The last two are None for a single value.
    """
    x = np.asarray(values, dtype=float)
    told: dict[str, Any] = {"mean": float(x.mean()), "sd": None, "n": len(x), "interval": None}
    if len(x) > 1:
        sd = float(x.std(ddof=1))
        half = float(stats.t.ppf((1 + level) / 2, len(x) - 1)) * sd / len(x) ** 0.5
        told |= {"sd": sd, "interval": [told["mean"] - half, told["mean"] + half]}
    return told


def paired_difference(a: Mapping[Any, float], b: Mapping[Any, float]) -> dict[str, Any]:
    """Return `mean_interval` of a minus b, over the draws that both have."""
    draws = sorted(a.keys() & b.keys())
    return mean_interval([a[draw] - b[draw] for draw in draws])
