"""Architectures in the notation of the SWWAE paper: ``(64)5c-2p-(64)3c-2p-100fc``.

``(64)5c`` is a convolution of 64 maps, 5 x 5, same-padded, with ReLU; ``2p`` is max-pooling 2 x 2
with stride 2, clipped at the border; ``100fc`` is a hidden dense layer with ReLU.
"""

import re
from typing import NamedTuple

from whatwhere.core import InputError

CONVOLUTION, POOL, DENSE = (
    re.compile(r"\((\d+)\)(\d+)c"),
    re.compile(r"(\d+)p"),
    re.compile(r"(\d+)fc"),
)
LARGEST_WINDOW = 181  # its places, 0 to 181² - 1, still fit into two bytes


class Conv(NamedTuple):
    """A convolution with ReLU: so many maps, so many pixels on a side."""

    maps: int
    size: int

    def __str__(self) -> str:
        return f"({self.maps}){self.size}c"


class Pool(NamedTuple):
    """Max-pooling over disjoint windows of size x size."""

    size: int

    def __str__(self) -> str:
        return f"{self.size}p"


class Dense(NamedTuple):
    """A hidden dense layer with ReLU."""

    units: int

    def __str__(self) -> str:
        return f"{self.units}fc"


Layer = Conv | Pool | Dense


def parse(architecture: str, n_classes: int = 0) -> tuple[Layer, ...]:
    """Read an architecture, bottom layer first.

    Parameters
    ----------
    architecture : str
        For instance ``"(32)5c-2p-(64)3c-2p"``.
    n_classes : int
        A last ``Nfc`` with N = `n_classes` is the class layer, which is always there; it is left
        out.

    Raises
    ------
    InputError
        Naming the piece that cannot be read, or stands where it cannot.

    Examples
    --------
    >>> parse("(16)5c-2p-10fc", n_classes=10)
    (Conv(maps=16, size=5), Pool(size=2))
    """
    layers: list[Layer] = []
    for piece in str(architecture).replace(" ", "").split("-"):
        layer = _layer(piece, architecture)
        if layers and isinstance(layers[-1], Dense) and not isinstance(layer, Dense):
            raise InputError(
                f"architecture {architecture!r}: {piece!r} stands after a dense layer; "
                "convolutions and pools come first"
            )
        layers.append(layer)
    # Tuples of the same numbers are equal: a last 2p must not pass for the layer of two classes.
    if isinstance(layers[-1], Dense) and layers[-1].units == n_classes:
        layers.pop()
    return tuple(layers)


def parse_dense(architecture: str, n_classes: int = 0) -> list[int]:
    """Read an architecture of dense layers: how many units each has, bottom layer first.

    Parameters
    ----------
    architecture, n_classes
        As for `parse`.

    Raises
    ------
    InputError
        As `parse`; if a layer is not dense, or there is none.

    Examples
    --------
    >>> parse_dense("500fc-2000fc-10fc", n_classes=10)
    [500, 2000]
    """
    layers = parse(architecture, n_classes)
    sizes = [layer.units for layer in layers if isinstance(layer, Dense)]
    if not sizes or len(sizes) < len(layers):
        raise InputError(
            f"architecture {architecture!r}: here hidden layers are all dense, one or more, as in "
            "500fc-1000fc (a last one with a unit for each class is the class layer)"
        )
    return sizes


def _layer(piece: str, architecture: str) -> Layer:
    if match := CONVOLUTION.fullmatch(piece):
        layer: Layer = Conv(int(match[1]), int(match[2]))
    elif match := POOL.fullmatch(piece):
        layer = Pool(int(match[1]))
    elif match := DENSE.fullmatch(piece):
        layer = Dense(int(match[1]))
    else:
        raise InputError(
            f"architecture {architecture!r}: cannot read {piece!r}; pieces are (MAPS)SIZEc, SIZEp "
            "and UNITSfc, joined by -, as in (32)5c-2p-(64)3c-2p-100fc"
        )
    if 0 in layer or (isinstance(layer, Pool) and layer.size > LARGEST_WINDOW):
        raise InputError(
            f"architecture {architecture!r}: {piece!r} has a size out of range; "
            f"sizes start at 1, and a pool is at most {LARGEST_WINDOW}p"
        )
    return layer
