"""Features of a learner at any of its levels, pooled the same way for every learner.

What several methods are to be compared by has to be cut alike: maps of a level are left whole, or
brought to 2 x 2 cells or to one by their maximum, or to one by their mean. Vectors stay as they
are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere import runs
from whatwhere.core import HasLevels, HasWhere, InputError, unknown
from whatwhere.data.rows import Rows
from whatwhere.learner import INFERENCE_BATCH, Learner, infer
from whatwhere.learner.learner import check_unit_range
from whatwhere.nn.pooling import quadrants

ALL = "all"
LUMA = (0.299, 0.587, 0.114)  # red, green, blue: ITU-R BT.601


POOLS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda maps: maps,
    "quadrants": quadrants,
    "mean": lambda maps: maps.mean(dim=(2, 3)),
    "max": lambda maps: maps.amax(dim=(2, 3)),
}


def features(
    learner: Learner,
    images: np.ndarray,
    *,
    level: str | None = None,
    pool: str = "none",
    where: bool = False,
) -> np.ndarray:
    """Return the features of images at a level.

    Parameters
    ----------
    learner : Learner
        Fitted. One whose module has no levels has one, ``level1``: its code.
    images : ndarray (n, C, H, W)
        uint8, or floats in [0, 1]; of the size that the learner was fitted to, see `as_seen`.
    level : str, optional
        A level's name, or ``all`` for all of them, each pooled, side by side. Default: what
        `transform` gives, and where maps are to be pooled or spread, the top.
    pool : {"none", "quadrants", "mean", "max"}
        What is done to the maps of a level: nothing, the maximum of each quarter, the mean, or the
        maximum of all. Vectors are not pooled.
    where : bool
        Whether *what* is spread over the places in its window; see `whatwhere.core.HasWhere`.

    Returns
    -------
    ndarray (n, K), float32

    Raises
    ------
    InputError
        If there is no such level or way to pool, if the learner knows of no *where*, or if the
        images are of another size or floats out of [0, 1].
    """
    if pool not in POOLS:
        raise unknown("no way to pool is called", pool, POOLS)
    if where and not isinstance(learner.module_, HasWhere):
        name = runs.snake_case(type(learner).__name__)
        raise InputError(
            f"{name} does not keep where a maximum was; leave where out, or take a swwae or a cnn"
        )
    if images.shape[1:] != tuple(learner.image_shape_):
        raise InputError(
            f"images of shape {images.shape[1:]}, but the learner was fitted to "
            f"{tuple(learner.image_shape_)} (channels, height, width); "
            "whatwhere.evaluate.features.as_seen brings them to it"
        )

    if images.dtype != np.uint8 and learner.value_range is None:
        check_unit_range(images)

    def seen(module: Any, x: Tensor) -> Tensor:
        if level is None and pool == "none" and not where:
            return module.encode(x).float().cpu()
        found = _levels(module, x, where=where)
        names = list(found) if level == ALL else [list(found)[-1] if level is None else level]
        if names[0] not in found:
            raise unknown("no level is called", names[0], [*found, ALL])
        return torch.cat([_flat(found[name], pool) for name in names], dim=1).float().cpu()

    rows = Rows(images, value_range=learner.value_range)
    return torch.cat(list(infer(learner.module_, rows, seen))).numpy()


def level_names(learner: Learner) -> list[str]:
    """Return what the levels of a fitted learner are called, lowest first."""
    blank = Rows(np.zeros((1, *learner.image_shape_), np.float32))
    (found,) = infer(learner.module_, blank, lambda module, x: list(_levels(module, x)))
    return found


def as_seen(learner: Learner, images: np.ndarray) -> np.ndarray:
    """Return images as the learner's own were: of its size and its number of channels.

    Gray images become color by repeating them, color images gray by their luma (ITU-R BT.601);
    other sizes are brought to the learner's by bilinear interpolation, smoothed where they shrink.

    Parameters
    ----------
    learner : Learner
        Fitted.
    images : ndarray (n, C, H, W)
        uint8, or floats.

    Returns
    -------
    ndarray (n, *learner.image_shape_)
        Of the type of `images`; these themselves where nothing is to be done.

    Raises
    ------
    InputError
        If the channels are neither gray nor color, and others than the learner's.
    """
    c, h, w = learner.image_shape_
    channels = images.shape[1]
    if images.shape[1:] == (c, h, w):
        return images
    if channels not in (1, c) and (channels, c) != (3, 1):
        raise InputError(
            f"images of {channels} channels, but the learner was fitted to {c}; only gray images "
            "and color (3 channels) are brought to each other"
        )
    as_bytes = images.dtype == np.uint8
    seen = np.empty((len(images), c, h, w), images.dtype)
    for start in range(0, len(images), INFERENCE_BATCH):
        given = images[start : start + INFERENCE_BATCH]
        x = torch.from_numpy(given.astype(np.float32))
        if channels == 3 and c == 1:
            x = (x * torch.tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
        if x.shape[2:] != (h, w):
            x = F.interpolate(x, (h, w), mode="bilinear", antialias=True)
        # Weights sum to 1 but for rounding, and a pixel must not leave its range for that.
        x = x.clamp(float(given.min()), float(given.max())).expand(-1, c, -1, -1)
        seen[start : start + INFERENCE_BATCH] = (x.round() if as_bytes else x).numpy()
    return seen


def _levels(module: Any, x: Tensor, *, where: bool = False) -> Mapping[str, Tensor]:
    if where:
        return module.levels_with_where(x)
    return module.levels(x) if isinstance(module, HasLevels) else {"level1": module.encode(x)}


def _flat(level: Tensor, pool: str) -> Tensor:
    return (POOLS[pool](level) if level.ndim == 4 else level).flatten(1)
