"""Numbers with their uncertainty: errors, means over draws, paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score

from whatwhere.core import UNLABELED, InputError


def wilson(errors: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of an error rate, in percent.

    Unlike the rate plus or minus two deviations it holds near 0 too, and never leaves [0, 100].

    Parameters
    ----------
    errors, n : int
        So many wrong out of so many; n is at least 1.
    level : float in (0, 1)
        How often such an interval holds the true rate.

    References
    ----------
    Wilson. Probable inference, the law of succession, and statistical inference. 1927.

    Examples
    --------
    >>> low, high = wilson(0, 100)
    >>> low, round(high, 2)
    (0.0, 3.7)
    """
    assert 0 <= errors <= n and n > 0, (errors, n)
    interval = stats.binomtest(errors, n).proportion_ci(level, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def classification(y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any]) -> dict[str, Any]:
    """Return how often the predicted classes are right.

    Parameters
    ----------
    y_true, y_pred : array-like (n,)
        Labels out of `classes`, n at least 1.
    classes : sequence
        Rows (true) and columns (predicted) of the confusion matrix.

    Returns
    -------
    dict
        ``n``, ``accuracy`` in [0, 1], ``error`` in percent, its 95 % ``interval``,
        ``balanced_error``, the mean of the errors of the classes that have images, in percent,
        ``confusion`` as lists of counts, ``classes``; ready for JSON.

    Raises
    ------
    InputError
        If there is nothing to judge, the lengths differ, a label is not among the classes, or it is
        hidden (-1): that is no error and no hit.
    """
    truth, said = (np.asarray(labels).tolist() for labels in (y_true, y_pred))
    if len(truth) != len(said):
        raise InputError(
            f"{len(truth)} labels and {len(said)} predictions; give one of each an image"
        )
    if not truth:
        raise InputError("no image to judge; give a test part with labels")
    place = {name: number for number, name in enumerate(np.asarray(classes).tolist())}
    hidden = truth.count(UNLABELED)
    if hidden:
        raise InputError(
            f"{hidden} of {len(truth)} test images have no label (-1), which is neither right nor "
            "wrong; leave them out"
        )
    for what, labels in (("label", truth), ("prediction", said)):
        strangers = [label for label in labels if label not in place]
        if strangers:
            raise InputError(
                f"the {what} {strangers[0]!r} is not among the classes "
                f"{', '.join(map(str, list(place)[:5]))}{', ...' if len(place) > 5 else ''}; "
                "name every class"
            )
    confusion = np.zeros((len(place), len(place)), dtype=int)
    np.add.at(confusion, ([place[label] for label in truth], [place[label] for label in said]), 1)
    n, right = len(truth), int(confusion.trace())
    met = confusion.sum(axis=1) > 0
    recalls = confusion.diagonal()[met] / confusion.sum(axis=1)[met]
    return {
        "n": n,
        "accuracy": right / n,
        "error": 100 * (n - right) / n,
        "interval": list(wilson(n - right, n)),
        "balanced_error": 100 * float((1 - recalls).mean()),
        "confusion": confusion.tolist(),
        "classes": list(place),
    }


def calibration_error(probability: ArrayLike, y_true: ArrayLike, bins: int = 15) -> float:
    """Return how far the probability of the likeliest class is from how often it is right.

    Images are put into bins by that probability, as many into each as into another but for ties,
    which stay together. The error is the mean over the images of |share that is right - mean
    probability| of their bin, in percentage points. Even a perfect model has some: with n images a
    bin the share is off by chance, by 40 / √n points on average where half of them are right.

    Parameters
    ----------
    probability : array-like (n, n_classes)
        In [0, 1]; n at least 1.
    y_true : array-like (n,)
        The true class, as a column of `probability`.
    bins : int

    References
    ----------
    Guo, Pleiss, Sun, Weinberger. On calibration of modern neural networks. ICML 2017. Equation 3.
    Nguyen, O'Connor. Posterior calibration and exploratory analysis for natural language processing
    models. EMNLP 2015 (bins of equal mass).
    """
    p = np.asarray(probability, dtype=float)
    surest = p.max(axis=1)
    right = p.argmax(axis=1) == np.asarray(y_true)
    inner = np.quantile(surest, np.arange(1, bins) / bins)
    places = np.searchsorted(inner, surest, side="right")
    gaps = np.bincount(places, weights=right - surest)  # a sum a bin
    return 100 * float(np.abs(gaps).sum()) / len(surest)


def auroc(score: ArrayLike, positive: ArrayLike, level: float = 0.95) -> dict[str, Any]:
    """Return how often a positive case has the larger score: the area under the ROC curve.

    Of a pair with the same score, a half is counted: a constant score has 0.5. With m positive and
    n other cases the variance of the area θ is taken to be

        θ (1 - θ) (1 + k (1 - θ)/(2 - θ) + k θ/(1 + θ)) / (m n),  k = (m + n)/2 - 1,

    and the interval holds each θ from which the area found is no further than chance allows. Unlike
    the area plus or minus two deviations it holds near 1 too, and never leaves [0, 1].

    Parameters
    ----------
    score : array-like (n,)
        Finite.
    positive : array-like (n,) of bool
        Some are, and some are not.
    level : float in (0, 1)
        How often such an interval holds the true area.

    Returns
    -------
    dict
        ``auroc`` in [0, 1], its ``interval``, and the counts ``n_positive`` and ``n``.

    Raises
    ------
    InputError
        If all or none are positive, or a score is not finite.

    References
    ----------
    Hanley, McNeil. The meaning and use of the area under a receiver operating characteristic (ROC)
    curve. 1982 (the variance, for exponential scores).
    Newcombe. Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2. 2006 (method 5: k for both counts, and the interval).
    """
    x, truth = np.asarray(score, dtype=float), np.asarray(positive, dtype=bool)
    m = int(truth.sum())
    n = len(truth) - m
    if not m or not n:
        raise InputError(
            f"{m} of {m + n} cases are positive; an area under the ROC curve needs some that are "
            "and some that are not"
        )
    if not np.isfinite(x).all():
        raise InputError(
            f"{np.count_nonzero(~np.isfinite(x))} of {m + n} scores are not finite; "
            "train with a smaller learning rate"
        )
    area = float(roc_auc_score(truth, x))
    z, k = float(stats.norm.ppf((1 + level) / 2)), (m + n) / 2 - 1

    def beyond(theta: float) -> float:
        spread = 1 + k * (1 - theta) / (2 - theta) + k * theta / (1 + theta)
        return (area - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (m * n)

    # Negative within the interval, so also at the area; an area of 0 or 1 is itself a root.
    inner = min(max(area, 1e-9), 1 - 1e-9)
    root: Any = optimize.brentq  # a type checker sees all that it may return
    low = 0.0 if area == 0 else float(root(beyond, 0.0, inner))
    high = 1.0 if area == 1 else float(root(beyond, inner, 1.0))
    return {"auroc": area, "interval": [low, high], "n_positive": m, "n": m + n}


def mean_interval(values: ArrayLike, level: float = 0.95) -> dict[str, Any]:
    """Return the mean of independent draws, and how sure it is.

    Parameters
    ----------
    values : array-like (n,)
        n at least 1.
    level : float in (0, 1)
        How often such an interval holds the true mean, for draws that are about normal.

    Returns
    -------
    dict
        ``mean``; ``sd``, the deviation of the values (dividing by n - 1); ``n``; ``interval``, of
        the mean, by Student's t. A single value has neither deviation nor interval: None.

    Raises
    ------
    InputError
        If there is no value.

    References
    ----------
    Student. The probable error of a mean. 1908.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        raise InputError("no value to take the mean of; run one draw at least")
    told: dict[str, Any] = {"mean": float(x.mean()), "sd": None, "n": len(x), "interval": None}
    if len(x) > 1:
        sd = float(x.std(ddof=1))
        half = float(stats.t.ppf((1 + level) / 2, len(x) - 1)) * sd / len(x) ** 0.5
        told |= {"sd": sd, "interval": [told["mean"] - half, told["mean"] + half]}
    return told


def paired_difference(
    a: Mapping[Any, float] | ArrayLike, b: Mapping[Any, float] | ArrayLike, level: float = 0.95
) -> dict[str, Any]:
    """Return `mean_interval` of a minus b, draw by draw.

    What a draw of labels makes easy or hard is the same for both, and falls out of the difference.

    Parameters
    ----------
    a, b : mapping of draw to value, or array-like (n,)
        Of mappings, the draws that both have are compared; arrays are in the same order of draws.
    level : float in (0, 1)

    Raises
    ------
    InputError
        If there is no common draw, or arrays differ in length.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        shared = [draw for draw in a if draw in b]
        if not shared:
            raise InputError(
                f"no draw in common: {', '.join(map(str, a))} and {', '.join(map(str, b))}; "
                "run both on the same draws"
            )
        return mean_interval([a[draw] - b[draw] for draw in shared], level)
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise InputError(f"{x.size} values and {y.size}; give both on the same draws, in one order")
    return mean_interval(x - y, level)
