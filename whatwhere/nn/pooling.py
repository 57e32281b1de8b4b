"""Pooling of whole maps into few cells."""

import torch.nn.functional as F
from torch import Tensor


def quadrants(maps: Tensor) -> Tensor:
    """Return the maximum of each quarter of maps (B, C, h, w): (B, C, 2, 2).

    Quarters of an odd side overlap by one row. A side of one cell stays one.
    """
    h, w = maps.shape[2:]
    return F.adaptive_max_pool2d(maps, (min(h, 2), min(w, 2)))
