"""The negative log-likelihood of the known labels."""

import torch.nn.functional as F
from torch import Tensor

from whatwhere.core import UNLABELED, Batch, Classifies, Terms


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return L_nll = -Σ log p(y | x), in nats, as a mean over the labeled rows.

    A batch without a label gives 0, with gradient 0 (torch's own mean gives nan).

    Parameters
    ----------
    logits : Tensor (B, n_classes)
        Scores before the softmax p_j = exp(x_j) / Σ_k exp(x_k).
    y : Tensor (B,)
        Classes, or `UNLABELED`.
    """
    labeled = (y != UNLABELED).sum().clamp(min=1)
    return F.cross_entropy(logits, y, ignore_index=UNLABELED, reduction="sum") / labeled


def classification(module: Classifies, batch: Batch) -> Terms:
    """Return `cross_entropy` alone, as the term ``nll``."""
    return {"nll": cross_entropy(module.logits(batch.x), batch.y)}
