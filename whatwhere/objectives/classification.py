"""The negative log-likelihood of the known labels."""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.core import UNLABELED, Batch, Classifies, InputError, Terms, joint_count

BALANCED = "balanced"


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Return the weight of each class's rows with which all classes count equally: n / (K n_c).

    n_c rows have the label c of K classes, n in all. The mean weight of a row is 1. Nothing is
    returned where the classes count equally as they are.

    Parameters
    ----------
    counts : sequence of int
        n_c, at least 1 each.
    """
    if len(set(counts)) < 2:
        return ()
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def check_class_weight(class_weight: dict[Any, float] | str | None) -> None:
    """Check the weights of classes that a user gave.

    Raises
    ------
    InputError
        Naming the one that is no number from 0 on.
    """
    for label, weight in class_weight.items() if isinstance(class_weight, dict) else ():
        if not isinstance(weight, Real) or not 0 <= weight < inf:
            raise InputError(f"class_weight of {label!r} is {weight!r}; it takes a number >= 0")


def row_weights(
    class_weight: dict[Any, float] | str | None, classes: Sequence[Any], counts: Sequence[int]
) -> tuple[float, ...]:
    """Return the weight of the rows of each class; none where all are 1.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        As a learner's hyper-parameter.
    classes : sequence
        As the user calls them; empty where that is not known yet.
    counts : sequence of int
        Labels of each class.

    Raises
    ------
    InputError
        If the dict names a class that is not there.
    """
    if isinstance(class_weight, dict):
        strangers = [label for label in class_weight if label not in classes]
        if strangers and classes:
            raise InputError(
                f"class_weight names the class {strangers[0]!r}, which no label has; "
                f"there are {', '.join(map(str, classes[:5]))}"
            )
        return tuple(float(class_weight.get(label, 1.0)) for label in classes)
    return class_weights(counts) if class_weight == BALANCED else ()


def cross_entropy(logits: Tensor, y: Tensor, class_weight: tuple[float, ...] = ()) -> Tensor:
    """Return L_nll = -Σ w_y log p(y | x), in nats, as a mean over the labeled rows.

    The sum is divided by the number of labeled rows, with weights too. Where their mean over the
    data is 1, each batch's loss is then an unbiased estimate of the weighted loss of the data.
    torch's own divides by the weights in the batch: how much a rare class counts depends on its
    company, and a batch of one class alone would have no weights at all.

    Where several processes learn together, all of their labeled rows are counted.

    A batch without a label gives 0, with gradient 0 (torch's own mean gives nan).

    Parameters
    ----------
    logits : Tensor (B, n_classes)
        Scores before the softmax p_j = exp(x_j) / Σ_k exp(x_k).
    y : Tensor (B,)
        Classes, or `UNLABELED`.
    class_weight : tuple of float, optional
        w_c of each class; see `class_weights`. Default: 1.
    """
    labeled = joint_count((y != UNLABELED).sum())
    if not class_weight:
        return F.cross_entropy(logits, y, ignore_index=UNLABELED, reduction="sum") / labeled
    each = F.cross_entropy(logits, y, ignore_index=UNLABELED, reduction="none")
    weights = _tensor(class_weight, each.dtype, each.device)
    return (weights[y.clamp(min=0)] * each).sum() / labeled


@lru_cache(maxsize=16)
def _tensor(weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept, for a copy to the device in every step would wait for it.
    return torch.tensor(weights, dtype=dtype, device=device)


def classification(module: Classifies, batch: Batch, class_weight: tuple[float, ...] = ()) -> Terms:
    """Return `cross_entropy` alone, as the term ``nll``."""
    return {"nll": cross_entropy(module.logits(batch.x), batch.y, class_weight)}
