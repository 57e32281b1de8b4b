"""Pooling of whole maps into few cells."""

import torch
from torch import Tensor


def quadrants(maps: Tensor) -> Tensor:
    """Return the maximum of each quarter of maps (B, C, h, w): (B, C, 2, 2).

    Quarters of an odd side overlap by one row. A side of one cell stays one. It is adaptive
    max-pooling, in operations that exchange formats have for every size.
    """
    for axis in (2, 3):
        side = maps.shape[axis]
        if side > 1:
            half = (side + 1) // 2
            halves = maps.narrow(axis, 0, half), maps.narrow(axis, side - half, half)
            maps = torch.stack([half.amax(axis) for half in halves], axis)
    return maps
