"""A module at work on many images, one part of them after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Classifies, Reconstructs
from whatwhere.data.rows import Rows
from whatwhere.objectives.classification import cross_entropy

T = TypeVar("T")

INFERENCE_BATCH = 500


def infer(module: nn.Module, rows: Rows, function: Callable[[Any, Tensor], T]) -> Iterator[T]:
    """Yield `function(module, x)` for one part of the images after another, in evaluation mode."""
    module.eval()
    device = next(chain(module.parameters(), module.buffers())).device
    with torch.no_grad():
        for part in torch.arange(len(rows), device=rows.y.device).split(INFERENCE_BATCH):
            yield function(module, rows.take(part).x.to(device))


@dataclass(frozen=True)
class Validation:
    """Judges a module on images that it is not trained on: what early stopping looks at.

    Parameters
    ----------
    rows : Rows
        Labels `UNLABELED` throughout leave the classification out.
    """

    rows: Rows

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """Return error (percent), nll (nats) and reconstruction (mean squared error a pixel)."""
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
        return said
