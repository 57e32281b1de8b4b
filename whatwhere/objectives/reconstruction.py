"""How far a rebuilt image is from what it should be, by the kind of the data.

Unbounded numbers go with linear units and the squared error, numbers in [0, 1] with logistic units
and the cross-entropy: each is the negative log-likelihood of its unit, and its gradient with
respect to the scores is x̃ - x.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from whatwhere.core import InputError
from whatwhere.nn.units import activation

SQUARED_ERROR, CROSS_ENTROPY = "squared_error", "cross_entropy"
IDENTITY, LOGISTIC = "identity", "logistic"
OUTPUTS = (IDENTITY, LOGISTIC)

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(scores: Tensor, x: Tensor, unit: str) -> Tensor:
    """Return Σ (x - g(s))² over the pixels of an image, a mean over the images.

    Parameters
    ----------
    scores, x : Tensor (B, ...)
    unit : str
        g.
    """
    return (activation(unit)(scores) - x).square().sum() / len(x)


def cross_entropy(scores: Tensor, x: Tensor, unit: str = LOGISTIC) -> Tensor:
    """Return -Σ x log x̃ + (1 - x) log (1 - x̃) over the pixels of an image, a mean over the images.

    x̃ is the logistic function of the scores. In nats; of binary images it is their negative
    log-likelihood, of gray ones it is not 0 where x̃ = x.

    Parameters
    ----------
    scores, x : Tensor (B, ...)
        x in [0, 1].
    unit : {"logistic"}
    """
    assert unit == LOGISTIC, unit
    return F.binary_cross_entropy_with_logits(scores, x, reduction="sum") / len(x)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, str], Tensor]] = {
    SQUARED_ERROR: squared_error,
    CROSS_ENTROPY: cross_entropy,
}


class Fit(NamedTuple):
    """An output unit and a loss that go together."""

    output: str
    loss: str


def fit_for(bounds: tuple[float, float], output: str | None, loss: str | None) -> Fit:
    """Return the output unit and the loss for data of this kind.

    Parameters
    ----------
    bounds : (float, float)
        The least and the largest value of the data.
    output : {"identity", "logistic"}, optional
    loss : {"squared_error", "cross_entropy"}, optional
        What is left out is chosen: of one the other that goes with it, of both those of the data.

    Raises
    ------
    InputError
        If they do not go together, or not with the data; why, and what does.
    """
    unit = bounds[0] >= 0 and bounds[1] <= 1
    if output is None:
        output = LOGISTIC if loss == CROSS_ENTROPY or (unit and loss is None) else IDENTITY
    if loss is None:
        loss = CROSS_ENTROPY if output == LOGISTIC else SQUARED_ERROR
    if loss == CROSS_ENTROPY and output != LOGISTIC:
        raise InputError(
            f"loss={CROSS_ENTROPY!r} is that of probabilities, and output={output!r} gives any "
            f"number; take output={LOGISTIC!r}, or loss={SQUARED_ERROR!r}"
        )
    if output == LOGISTIC and not unit:
        raise InputError(
            f"output={LOGISTIC!r} gives numbers in (0, 1), and the images hold values from "
            f"{bounds[0]:g} to {bounds[1]:g}; take output={IDENTITY!r} with loss={SQUARED_ERROR!r},"
            " or give the value_range that is to be [0, 1]"
        )
    return Fit(output, loss)
