"""Probes that look on while a method learns without labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Encodes
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate.probes import PROBES
from whatwhere.learner import infer

JUDGES = ("linear", "knn")


@dataclass(frozen=True)
class OnlineProbe:
    """A monitor: how good the features are by now.

    After each epoch simple classifiers are fitted anew to the features of labeled images, and
    judged on those of others. No gradient goes from them to the net, and nothing of them is kept:
    so a run is the same with them and without, and one that was stopped goes on to the same bits.
    A layer that learned along with the net would lag behind it.

    Parameters
    ----------
    train : Images
        To fit to; rows without a label are left out.
    validation : Images
        To judge on, likewise.
    judges : sequence of str
        Out of `whatwhere.evaluate.probes.PROBES`.
    """

    train: Images
    validation: Images
    judges: Sequence[str] = JUDGES

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """Return the error of each probe, in percent: ``validation/linear_probe`` and so on."""
        if not isinstance(module, Encodes):
            return {}
        (x, y), (z, truth) = (self._seen(module, part) for part in (self.train, self.validation))
        said = {}
        for name in self.judges:
            predicted = PROBES[name]().fit(x, y).predict(z)
            said[f"validation/{name}_probe"] = 100.0 * float((predicted != truth).mean())
        return said

    @staticmethod
    def _seen(module: nn.Module, images: Images) -> tuple[np.ndarray, np.ndarray]:
        known = images.y != UNLABELED

        def features(net: Encodes, x: Tensor) -> Tensor:
            return net.encode(x).float().cpu()

        found = infer(module, Rows(images.x[known]), features)
        return torch.cat(list(found)).numpy(), images.y[known]
