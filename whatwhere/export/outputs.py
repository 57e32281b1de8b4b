"""What a learner says of images, by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.core import Classifies, Encodes, InputError, Reconstructs, unknown
from whatwhere.learner import Learner

INPUT = "images"
PROBABILITIES, EMBEDDING, RECONSTRUCTION = "probabilities", "embedding", "reconstruction"
NAMES = (PROBABILITIES, EMBEDDING, RECONSTRUCTION)


def choose(learner: Learner, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return which outputs are wanted; by default, all that the learner has.

    Raises
    ------
    InputError
        If there is no output of that name, or the learner does not have it.
    """
    has = {
        PROBABILITIES: isinstance(learner.module_, Classifies)
        and len(getattr(learner, "classes_", ())) > 0,
        EMBEDDING: isinstance(learner.module_, Encodes),
        RECONSTRUCTION: isinstance(learner.module_, Reconstructs),
    }
    there = tuple(name for name in NAMES if has[name])
    if wanted is None:
        return there
    if not wanted:
        raise InputError(f"--outputs names none; this run has {', '.join(there)}")
    for name in wanted:
        if name not in NAMES:
            raise unknown("no output is named", name, NAMES)
        if name not in there:
            raise InputError(f"this run has no {name}; it has {', '.join(there)}")
    return tuple(name for name in there if name in wanted)


class Outputs(nn.Module):
    """What a learner says of images, as one net with its outputs in a row.

    Parameters
    ----------
    learner : Learner
        Fitted.
    names : tuple of str
        Of the outputs, in the order of `NAMES`.
    module : Module, optional
        A form of the learner's module. Default: as it is.
    wheres : list of Tensor, optional
        What the pools of that form add their *where* to.
    """

    def __init__(
        self,
        learner: Learner,
        names: tuple[str, ...],
        module: nn.Module | None = None,
        wheres: list[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.module = learner.module_ if module is None else module
        self.names, self.wheres = names, [] if wheres is None else wheres
        self.temperature = float(getattr(learner, "temperature_", 1.0))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for images (N, C, H, W); last, each *where* of a reconstruction."""
        module: Any = self.module
        said = []
        if PROBABILITIES in self.names:
            said.append((module.logits(images) / self.temperature).softmax(1))
        if EMBEDDING in self.names:
            said.append(module.encode(images))
        self.wheres.clear()
        if RECONSTRUCTION in self.names:
            said.append(module.reconstruct(images))
        said.extend(where.to(torch.int16) for where in self.wheres)
        self.wheres.clear()
        return tuple(said)
