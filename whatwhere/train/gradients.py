"""How large the gradient is in each layer, before anything moves: what fades in deep nets."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whatwhere.core import Batch, Objective, Terms, sharing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lightning_fabric import Fabric

PREFIX = "gradient/"


@dataclass
class GradientSizes:
    """An update that moves nothing: it measures the gradient of the stage's first batch.

    Stands before the updates that move, so that it sees the weights with which the stage begins.
    The record of the first epoch tells, as ``gradient/NAME``, the root mean square of the gradient
    over the weights of each part.

    Parameters
    ----------
    module : nn.Module
        What the objective is given.
    objective : callable (module, batch) -> Terms
    parts : mapping of str to nn.Module
        By what they are called; biases are left out.
    """

    module: nn.Module
    objective: Objective
    parts: Mapping[str, nn.Module]
    every: int = 1
    name: str = "gradient"
    found: dict[str, Tensor] = field(default_factory=dict)

    def start(self, fabric: "Fabric") -> None:
        """Do nothing: the module is where the other updates put it."""

    def step(self, batch: Batch, progress: float) -> Terms:
        """Measure once, at the stage's first batch; there are no terms."""
        weights = {
            name: [p for p in part.parameters() if p.ndim > 1] for name, part in self.parts.items()
        }
        several = [p for part in weights.values() for p in part]
        if progress > 0 or not several:
            return {}
        terms = self.objective(self.module, batch)
        loss = torch.stack(list(terms.values())).sum()
        found = torch.autograd.grad(loss, several, allow_unused=True)
        slopes = dict(zip(several, found, strict=True))
        share = sharing()
        for name, part in weights.items():
            squares = []
            for weight in part:
                slope = slopes[weight]
                slope = torch.zeros_like(weight) if slope is None else slope
                if share is not None:
                    slope = share.add(share.factor * slope) / share.n
                squares.append(slope.square().flatten())
            if squares:  # a pool that stands alone has no weights
                self.found[name] = torch.cat(squares).mean().sqrt().detach()
        return {}

    def begin_epoch(self) -> None:
        """Do nothing."""

    def end_epoch(self) -> Mapping[str, float]:
        """Return what was found, once."""
        facts = {PREFIX + name: float(value) for name, value in self.found.items()}
        self.found = {}
        return facts

    def evaluating(self) -> "AbstractContextManager[None]":
        """Change nothing."""
        return nullcontext()

    def finish(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was found and not told yet."""
        return {"found": dict(self.found)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.found = dict(state["found"])

    def __str__(self) -> str:
        """Say what it does, for the stage table."""
        return f"{self.name}: the size of the first gradient in {', '.join(self.parts)}"
