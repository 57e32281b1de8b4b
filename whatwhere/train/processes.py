"""Processes that learn together: who holds which rows, and how they agree."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn

from whatwhere.core import Share, shared

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

LEAST = 2  # rows that a process needs: of one alone there is no variance to normalize
ASKED_EVERY = 10  # steps; to ask all processes takes a message from each


def added(x: Tensor) -> Tensor:
    """Return the sum over all processes."""
    # Not Fabric's all_reduce: that lets all processes meet first, and a GPU wait for it.
    total = x.detach().clone()
    torch.distributed.all_reduce(total)
    return total


@dataclass(frozen=True)
class Processes:
    """One process among those that learn together; alone, it asks nobody.

    Attributes
    ----------
    rank : int
        0 is the first, which judges and writes.
    n : int
    """

    rank: int = 0
    n: int = 1

    @classmethod
    def of(cls, fabric: "Fabric") -> Self:
        """Return this process among those of a Fabric."""
        return cls(fabric.global_rank, fabric.world_size)

    @property
    def first(self) -> bool:
        """Whether this one judges and writes."""
        return self.rank == 0

    def own(self, rows: Tensor) -> tuple[Tensor, AbstractContextManager[None]]:
        """Return this process's rows of a joint batch, and the context in which they are used."""
        if self.n == 1:
            return rows, nullcontext()
        if len(rows) < LEAST * self.n:
            return rows, shared(Share(1.0, self.n, self.n, added))
        part = rows[self.rank :: self.n]
        return part, shared(Share(len(part) / len(rows), 1, self.n, added))

    def shard(self, rows: Tensor) -> Tensor:
        """Return this process's rows of what all hold together, a copy where it is a part."""
        return rows if self.n == 1 else rows[self.rank :: self.n].clone()

    def gather(self, shard: Tensor) -> Tensor:
        """Return what `shard` was cut from; all processes call it at once."""
        if self.n == 1:
            return shard
        n_rows = int(added(torch.tensor(len(shard))))
        whole = shard.new_zeros(n_rows, *shard.shape[1:])
        whole[self.rank :: self.n] = shard
        return added(whole)

    def returned(self, gathered: Tensor) -> Tensor:
        """Return this process's number of what was gathered; among others, the mean of all."""
        return gathered[self.rank] if len(gathered) == self.n else gathered.mean(dim=0)

    def mean(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the means of scalars over all processes."""
        if self.n == 1 or not values:
            return values
        means = added(torch.stack(list(values.values()))) / self.n
        return dict(zip(values, means.unbind(), strict=True))

    def agree(self, find: Callable[[], T]) -> T:
        """Return what the first process finds; the others wait for its word."""
        if self.n == 1:
            return find()
        said: list[Any] = [find() if self.first else None]
        torch.distributed.broadcast_object_list(said, src=0)
        return said[0]

    def asked(self, step: int, n_steps: int, *asks: Callable[[], bool]) -> list[bool]:
        """Return which of the questions any process answers with yes, every few steps alike."""
        if self.n == 1:
            return [ask() for ask in asks]
        if step % ASKED_EVERY and step < n_steps:
            return [False for _ in asks]
        # On the CPU, where no GPU is waited for.
        return (added(torch.tensor([int(ask()) for ask in asks])) > 0).tolist()

    def copy_statistics(self, module: nn.Module) -> None:
        """Take over the first process's statistics of batch norm: each gathered its own."""
        if self.n > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, src=0)
