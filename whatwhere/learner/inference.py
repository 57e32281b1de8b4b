"""A module at work on many images, one part of them after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.core import (
    UNLABELED,
    Classifies,
    HasFreeEnergy,
    HasLikelihood,
    Reconstructs,
    device_of,
    seeded,
)
from whatwhere.data.rows import Rows
from whatwhere.objectives.classification import cross_entropy

T = TypeVar("T")

INFERENCE_BATCH = 500


def infer(
    module: nn.Module,
    rows: Rows,
    function: Callable[[Any, Tensor], T],
    which: Tensor | None = None,
) -> Iterator[T]:
    """Yield `function(module, x)` for one part of the images after another, in evaluation mode.

    Parameters
    ----------
    module : Module
    rows : Rows
    function : callable (module, x) -> T
    which : Tensor (n,), optional
        Rows to look at, on the device of the images. Default: all.
    """
    module.eval()
    device = device_of(module)
    if which is None:
        which = torch.arange(len(rows), device=rows.y.device)
    with torch.no_grad():
        for part in which.split(INFERENCE_BATCH):
            yield function(module, rows.take(part).x.to(device))


@dataclass(frozen=True)
class Validation:
    """Judges a module on images that it is not trained on: what early stopping looks at.

    Parameters
    ----------
    rows : Rows
        Labels `UNLABELED` throughout leave the classification out.
    train : Rows, optional
        What the module is trained on, to compare with.
    """

    rows: Rows
    train: Rows | None = None

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """Return what the module's abilities tell.

        Returns
        -------
        dict
            Error (percent), nll (nats), reconstruction (mean squared error a pixel), free_energy
            (nats, a mean over images), and free_energy_gap: how much larger that is than the mean
            over as many training images. It is so much less probable that the module holds new
            images, whatever Z; a gap that grows says over-fitting (Hinton 2010, section 6).
        """
        said = {}
        if isinstance(module, Classifies) and bool((self.rows.y != UNLABELED).any()):
            logits = torch.cat(list(infer(module, self.rows, lambda net, x: net.logits(x))))
            wrong = (logits.argmax(1) != self.rows.y).float().mean()
            said["validation/error"] = 100.0 * float(wrong)
            said["validation/nll"] = float(cross_entropy(logits, self.rows.y))
        if isinstance(module, Reconstructs):
            errors = infer(module, self.rows, lambda net, x: (net.reconstruct(x) - x) ** 2)
            total = sum(float(part.sum(dtype=torch.float64)) for part in errors)
            said["validation/reconstruction"] = total / (len(self.rows) * np.prod(self.rows.shape))
        if isinstance(module, HasFreeEnergy):
            said["validation/free_energy"] = energy = _free_energy(module, self.rows)
            if self.train is not None:
                n = len(self.train)
                some = min(n, len(self.rows))
                # Evenly spread, for images may be sorted by class.
                which = torch.arange(some, device=self.train.y.device) * n // some
                seen = _free_energy(module, self.train, which)
                said["validation/free_energy_gap"] = energy - seen
        return said


def _free_energy(module: nn.Module, rows: Rows, which: Tensor | None = None) -> float:
    """Return the mean free energy of images as the module models them."""

    def total(net: HasFreeEnergy, x: Tensor) -> float:
        # Binary units see binary images: the free energy of a gray one is not the mean over draws.
        seen = net.likely(x) if isinstance(net, HasLikelihood) else x
        return float(net.free_energy(seen).sum(dtype=torch.float64))

    with seeded("free energy", device=device_of(module)):
        found = sum(infer(module, rows, total, which))
    return found / (len(rows) if which is None else len(which))
