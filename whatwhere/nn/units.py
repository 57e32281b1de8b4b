"""What a unit makes of the sum of its inputs, and how its weights begin."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.core import InputError, unknown

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Return x: a linear unit."""
    return x


ACTIVATIONS: Mapping[str, Activation] = {
    "identity": identity,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
    "elu": F.elu,
    "gelu": F.gelu,
}

GAINS: Mapping[str, float] = {
    "logistic": 4.0,  # Glorot & Bengio 2010: the logistic function is four times as flat as tanh
    **dict.fromkeys(("relu", "leaky_relu", "softplus", "elu", "gelu"), 2.0**0.5),  # He et al. 2015
}
"""By what the deviation of a linear layer's weights is multiplied; 1 for all other units."""

HISTORIC_DEVIATION = 0.01
MODERN, HISTORIC = "modern", "historic"
INITIALIZATIONS = (MODERN, HISTORIC)


def activation(name: str) -> Activation:
    """Return the activation of a name.

    Raises
    ------
    InputError
        Naming the nearest name, or all.
    """
    if name not in ACTIVATIONS:
        raise unknown("no activation is named", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def initialize(net: nn.Module, activation: str, initialization: str = MODERN) -> None:
    """Draw the weights of each layer in `net`, and set its biases to 0.

    Parameters
    ----------
    net : nn.Module
        Dense layers and convolutions, transposed or not; all else is left as it is.
    activation : str
        Of the units that the layers feed.
    initialization : {"modern", "historic"}
        Modern: uniform on ±g sqrt(6 / (fan in + fan out)) (Glorot & Bengio 2010, eq. 16), with the
        gain g of the activation; so signals and gradients keep their size through layers. Historic:
        Gaussian of deviation 0.01 (Hinton, A practical guide to training RBMs, 2010), whatever the
        size of the layers; so both fade in deep nets.

    Raises
    ------
    InputError
        If the initialization is another.
    """
    if initialization not in INITIALIZATIONS:
        raise InputError(f"initialization={initialization!r}: it takes modern or historic")
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if initialization == HISTORIC:
                nn.init.normal_(layer.weight, std=HISTORIC_DEVIATION)
            else:
                nn.init.xavier_uniform_(layer.weight, gain=GAINS.get(activation, 1.0))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
