"""Noise that a learner is trained to undo, or that shows what it can undo.

The three kinds of Vincent et al., each on every value (a channel of a pixel) by itself, drawn from
torch's own generator of the device of the images, which the trainer seeds before each step. On the
command line the level is ``--level``.

References
----------
Vincent, Larochelle, Lajoie, Bengio, Manzagol. Stacked denoising autoencoders. JMLR 11, 2010.
Section 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import ClassVar

import torch
from torch import Tensor

from whatwhere.core import InputError, unknown


@dataclass(frozen=True)
class Masking:
    """Set each value to 0 with probability `level`.

    Parameters
    ----------
    level : float in [0, 1]
        0 leaves the images as they are.
    """

    level: float
    most: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _check(self)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the images (B, ...), corrupted; x stays as it is."""
        return x.masked_fill(torch.rand_like(x) < self.level, 0.0)

    def __str__(self) -> str:
        """Say the rule."""
        return f"masking: {self.level:.4g} of the pixels set to 0"


@dataclass(frozen=True)
class Gaussian:
    """Add normal noise of deviation `level`; what leaves [0, 1] is not cut off.

    Parameters
    ----------
    level : float, 0 or more
        σ, in units of pixels in [0, 1]. 0 leaves the images as they are.
    """

    level: float
    most: ClassVar[float] = inf

    def __post_init__(self) -> None:
        """Refuse what is no deviation."""
        _check(self)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the images (B, ...), corrupted; x stays as it is."""
        return x + self.level * torch.randn_like(x)

    def __str__(self) -> str:
        """Say the rule."""
        return f"Gaussian noise of deviation {self.level:.4g}"


@dataclass(frozen=True)
class SaltAndPepper:
    """Set each value, with probability `level`, to 0 or 1, which are equally likely.

    Parameters
    ----------
    level : float in [0, 1]
        0 leaves the images as they are.
    """

    level: float
    most: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _check(self)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the images (B, ...), corrupted; x stays as it is."""
        # One draw says both whether and to what: below level/2 pepper, below level salt.
        drawn = torch.rand_like(x)
        salted = x.masked_fill(drawn < self.level, 1.0)
        return salted.masked_fill(drawn < self.level / 2, 0.0)

    def __str__(self) -> str:
        """Say the rule."""
        return f"salt and pepper: {self.level:.4g} of the pixels set to 0 or 1"


Corruption = Callable[[Tensor], Tensor]
"""(images) -> corrupted images: a new tensor, of the same shape, type and device."""

KINDS = {"masking": Masking, "gaussian": Gaussian, "salt-and-pepper": SaltAndPepper}


def corruption(kind: str, level: float) -> Corruption:
    """Return a corruption by its name.

    Parameters
    ----------
    kind : {"masking", "gaussian", "salt-and-pepper"}
    level : float
        The part of the values that change, in [0, 1]; of "gaussian", the deviation.

    Raises
    ------
    InputError
        If the kind is not known, or the level is out of its range.

    Examples
    --------
    >>> print(corruption("masking", 0.25))
    masking: 0.25 of the pixels set to 0
    """
    if kind not in KINDS:
        raise unknown("there is no noise called", kind, KINDS)
    return KINDS[kind](level)


def _check(noise: Masking | Gaussian | SaltAndPepper) -> None:
    level, most = noise.level, noise.most
    if not isfinite(level) or not 0 <= level <= most:
        (name,) = (name for name, kind in KINDS.items() if kind is type(noise))
        span = "0 or more" if most == inf else f"from 0 to {most:g}"
        raise InputError(f"a level of {level:g} is not possible for {name} noise; give {span}")
