"""Stages: one leg of a training procedure, and the samplers that order its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from whatwhere.core import UNLABELED, Batch, InputError
from whatwhere.train.update import Update


class Sampler(Protocol):
    """Orders the rows of one epoch into batches."""

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch, for labels y (n,) and all processes together."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """Every row once, in a random order.

    A batch of a single row joins another one, see `no_single_rows`.

    Parameters
    ----------
    unlabeled : bool
        Whether unlabeled rows are in the batches; without them, the same labeled rows meet in them.
    """

    unlabeled: bool = True

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch."""
        order = torch.randperm(len(y), generator=generator, device=y.device)
        batches = list(order.split(batch_size))
        if not self.unlabeled:
            batches = [rows[y[rows] != UNLABELED] for rows in batches]
            batches = [rows for rows in batches if len(rows)]
        return no_single_rows(batches)

    def __str__(self) -> str:
        """Say the rule."""
        return f"every {'' if self.unlabeled else 'labeled '}row once, shuffled"


def no_single_rows(batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the batches, one of a single row joined to the next, the last to the one before.

    There is no variance to normalize in it.
    """
    joined: list[Tensor] = []
    for rows in batches:
        if joined and len(joined[-1]) == 1:
            joined[-1] = torch.cat([joined[-1], rows])
        else:
            joined.append(rows)
    if len(joined) > 1 and len(joined[-1]) == 1:
        joined[-2:] = [torch.cat(joined[-2:])]
    return joined


@dataclass(frozen=True)
class InOrder:
    """Every row once, as they stand: for sums, which do not depend on the order."""

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch."""
        return torch.arange(len(y), device=y.device).split(batch_size)

    def __str__(self) -> str:
        """Say the rule."""
        return "every row once, in order"


@dataclass(frozen=True)
class Mixed:
    """Some labeled rows in each batch, and the rest unlabeled.

    An epoch is one pass over the unlabeled rows. The few labeled rows are cycled; where they are
    `balanced`, class by class in turn, so that each batch holds nearly as many of one class as of
    another. With `unlabeled=False` the unlabeled rows are left out and all else stays: the same
    labeled batches, as many of them. That is the fair floor for what unlabeled images add.

    Parameters
    ----------
    labeled : int
        Labeled rows in a batch.
    unlabeled : bool
        Whether the rest of the batch is filled with unlabeled rows.
    balanced : bool
        Whether the labeled rows of a batch are as many of one class as of another, or as many as
        the class has.
    """

    labeled: int
    unlabeled: bool = True
    balanced: bool = True

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch, labeled ones first."""
        if not 0 < self.labeled < batch_size:
            raise InputError(
                f"{self.labeled} labeled rows in a batch of {batch_size}: "
                "a mixed batch needs at least one of each kind"
            )
        known, unknown = (y != UNLABELED).nonzero()[:, 0], (y == UNLABELED).nonzero()[:, 0]
        rest = batch_size - self.labeled
        n_steps = -(-len(unknown) // rest)
        # The labeled rows are drawn first, so that they do not depend on `unlabeled`.
        kinds = y[known] if self.balanced else torch.zeros_like(known)
        cycled = self._cycle(known, kinds, n_steps * self.labeled, generator)
        batches = list(cycled.view(n_steps, self.labeled))
        if not self.unlabeled:
            return batches
        order = unknown[torch.randperm(len(unknown), generator=generator, device=y.device)]
        return [torch.cat(pair) for pair in zip(batches, order.split(rest), strict=True)]

    @staticmethod
    def _cycle(rows: Tensor, y: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Return n rows: one of each class y in turn, each class in random passes over its rows."""
        classes = y.unique()
        turns = -(-n // len(classes))
        columns = []
        for label in classes:
            own = rows[y == label]
            passes = -(-turns // len(own))
            draws = [
                own[torch.randperm(len(own), generator=generator, device=y.device)]
                for _ in range(passes)
            ]
            columns.append(torch.cat(draws)[:turns])
        return torch.stack(columns, dim=1).flatten()[:n]

    def __str__(self) -> str:
        """Say the rule."""
        way = "cycled and class-balanced" if self.balanced else "cycled, whatever their class"
        rest = "the rest" if self.unlabeled else "no"
        return f"{self.labeled} labeled rows a batch, {way}; {rest} unlabeled"


@dataclass(frozen=True)
class Labeled:
    """The labeled rows alone, shuffled, each once; few are met again until there are steps enough.

    Parameters
    ----------
    steps : int
        The least number of batches of an epoch.
    """

    steps: int = 1

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch."""
        known = (y != UNLABELED).nonzero()[:, 0]
        if len(known) == 0:
            return []
        size = min(batch_size, len(known))
        n = max(len(known), self.steps * size)
        passes = [
            known[torch.randperm(len(known), generator=generator, device=y.device)]
            for _ in range(-(-n // len(known)))
        ]
        return torch.cat(passes)[:n].split(size)

    def __str__(self) -> str:
        """Say the rule."""
        return f"labeled rows alone, shuffled, in {self.steps} batches at least"


def _identity(batch: Batch) -> Batch:
    return batch


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a monitored number has not fallen for so many epochs, and go back to its best.

    Parameters
    ----------
    patience : int
        Epochs without a new best before the stage ends.
    metric : str
        What the monitor calls it.
    """

    patience: int
    metric: str = "validation/error"


@dataclass
class Stage:
    """One leg of a training procedure: these updates, on this view of the data, for so long.

    Parameters
    ----------
    name : str
    updates : sequence of Update
        Each batch is given to them in this order.
    epochs : int
    batch_size : int
        Rows of a batch, over all processes together.
    view : callable (Batch) -> Batch
        Applied to each batch without gradient: a random transformation, a frozen stack of layers,
        surrogate classes.
    sampler : Sampler
    prepare : callable () -> None
        Runs once, before the first epoch, and not again when a run goes on: what it makes lives in
        the module or in an update's state.
    before_epoch : callable (epoch) -> None
        Runs before each epoch: weights of terms that change with time are functions of it.
    early_stopping : EarlyStopping, optional
        Needs a monitor of validation images.
    """

    name: str
    updates: Sequence[Update]
    epochs: int
    batch_size: int = 100
    view: Callable[[Batch], Batch] = _identity
    sampler: Sampler = Shuffled()
    prepare: Callable[[], None] = _nothing
    before_epoch: Callable[[int], None] | None = None
    early_stopping: EarlyStopping | None = None

    def describe(self) -> dict[str, object]:
        """Return the stage as a row of the table "how this was trained"."""
        return {
            "name": self.name,
            "updates": [str(update) for update in self.updates],
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "sampler": str(self.sampler),
            "view": "as they are" if self.view is _identity else str(self.view),
        }
