"""Updates: who moves, and by what rule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from whatwhere.core import Batch, Objective, Terms, sharing
from whatwhere.train.processes import Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Update(Protocol):
    """One player's move on one batch. `GradientUpdate` is the usual one.

    Attributes
    ----------
    name : str
        Stands before the names of the terms: ``name/term``.
    every : int
        Move at every `every`-th batch.
    """

    name: str
    every: int

    def start(self, fabric: "Fabric") -> None:
        """Get ready on the device, before the stage's first epoch or when going on with it."""

    def step(self, batch: Batch, progress: float) -> Terms:
        """Move once; `progress` is the part of the stage that is done, in [0, 1).

        Several processes each have a share of the batch; `core.joint_sum` adds up over all. What
        is recorded of a term is its mean over the processes.
        """
        ...

    def begin_epoch(self) -> None:
        """Put what moves into training mode; all else is in evaluation mode."""

    def end_epoch(self) -> Mapping[str, float]:
        """Do what is done once an epoch, a closed form for instance; return facts to record."""
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Show the weights to be judged (an average, say) while a monitor looks."""
        ...

    def finish(self) -> None:
        """Leave in the module what was learned; nothing moves after it."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later `load_state_dict` needs to go on to the same bits.

        All processes call it at once; the first one's answer is kept.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, after `start`."""


class Joined(nn.Module):
    """Module and objective in one: `forward(batch)` returns the terms.

    This is what the engine sets up, so that autocast, compilation and gradient synchronization
    cover each objective as it stands.
    """

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module = module
        self.objective = objective

    def forward(self, batch: Batch) -> Terms:
        """Return the terms of the loss on one batch."""
        return self.objective(self.module, batch)


@dataclass
class GradientUpdate:
    """Descend `objective` in the parameters of `parts`, and in no others.

    Parameters
    ----------
    module : nn.Module
        What the objective is given.
    objective : callable (module, batch) -> Terms
        A function, or an `nn.Module` if it has state (persistent chains, a running mean). Each of
        several processes holds some rows of the buffers that it names in `sharded`.
    optimizer : callable (parameters) -> Optimizer
        For instance ``partial(torch.optim.SGD, lr=0.1)``. Its `step` is given a closure, so L-BFGS
        works as any other.
    parts : sequence of nn.Module, optional
        Whose parameters move; the other players are frozen meanwhile. Default: all of `module`.
    constraint : callable () -> None, optional
        A projection after each step, for instance to unit-norm atoms.
    schedule : callable (progress) -> float, optional
        Factor of the learning rate for a progress in [0, 1); see `LinearDecay`.
    clip : float, optional
        Largest norm of the gradient, taken over all parameters that move.
    average : float, optional
        Decay of an exponential moving average of the weights, in (0, 1); the average is what
        monitors see and what stays in the module.
    momentum : callable (progress) -> float, optional
        The momentum of SGD for a progress in [0, 1); see `Raised`.
    every : int
        Move at every `every`-th batch.
    name : str
        Stands before the names of the terms.
    """

    module: nn.Module
    objective: Objective
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    parts: Sequence[nn.Module] = ()
    constraint: Callable[[], None] | None = None
    schedule: Callable[[float], float] | None = None
    clip: float | None = None
    average: float | None = None
    momentum: Callable[[float], float] | None = None
    every: int = 1
    name: str = "loss"

    def start(self, fabric: "Fabric") -> None:
        """Set module, objective and optimizer up on the device."""
        self._fabric = fabric
        parts = list(self.parts) or [self.module]
        # Two parts may share a parameter; an optimizer must see it once.
        own = {id(p): p for part in parts for p in part.parameters() if p.requires_grad}
        self._parameters = list(own.values())
        self._others = [p for p in self.module.parameters() if p.requires_grad and id(p) not in own]
        self._parts = parts
        with self._alone():
            self._set_up(fabric)
        self._processes = Processes.of(fabric)
        # After the set-up, for DDP wants all processes to hold the same.
        for name in self._sharded:
            setattr(self.objective, name, self._processes.shard(getattr(self.objective, name)))
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._averages = []
        if self.average is not None:
            rule = get_ema_multi_avg_fn(self.average)
            self._averages = [AveragedModel(p, multi_avg_fn=rule, use_buffers=True) for p in parts]

    def _set_up(self, fabric: "Fabric") -> None:
        joined = Joined(self.module, self.objective)
        self._joined, self._optimizer = fabric.setup(joined, self.optimizer(self._parameters))

    @property
    def _sharded(self) -> Sequence[str]:
        return getattr(self.objective, "sharded", ())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Freeze the other players."""
        for parameter in self._others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._others:
                parameter.requires_grad_(True)

    def step(self, batch: Batch, progress: float) -> Terms:
        """Take one step of the optimizer on one batch."""
        if self.schedule is not None:
            factor = self.schedule(progress)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        if self.momentum is not None:
            for group in self._optimizer.param_groups:
                group["momentum"] = self.momentum(progress)
        with self._alone() if self._others else nullcontext():
            terms = self._move(batch)
        for average, part in zip(self._averages, self._parts, strict=False):
            average.update_parameters(part)
        return terms

    def _move(self, batch: Batch) -> Terms:
        terms: Terms = {}

        def closure() -> Tensor:  # L-BFGS calls it many times, the others once
            nonlocal terms
            self._optimizer.zero_grad()
            terms = self._joined(batch)
            share = sharing()
            if share is not None and share.factor != 1:
                terms = {name: share.factor * value for name, value in terms.items()}
            values = list(terms.values())
            loss = torch.stack(values).sum() if len(values) > 1 else values[0]
            self._fabric.backward(loss)
            if self.clip is not None:
                self._fabric.clip_gradients(
                    self._joined, self._optimizer, max_norm=self.clip, error_if_nonfinite=False
                )
            # L-BFGS decides by the loss: all processes have to see the same.
            return loss if share is None else share.add(loss) / share.n

        self._optimizer.step(closure)
        if self.constraint is not None:
            with torch.no_grad():
                self.constraint()
        return terms

    def begin_epoch(self) -> None:
        """Put the parts into training mode."""
        for part in self._parts:
            part.train()

    def end_epoch(self) -> Mapping[str, float]:
        """Return the learning rate of the last step; a gradient has no business between epochs."""
        return {"learning_rate": float(self._optimizer.param_groups[0]["lr"])}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the averaged weights into the parts while the block runs."""
        if not self._averages:
            yield
            return
        kept = [{k: v.clone() for k, v in part.state_dict().items()} for part in self._parts]
        self.finish()
        try:
            yield
        finally:
            for part, state in zip(self._parts, kept, strict=True):
                part.load_state_dict(state)

    def finish(self) -> None:
        """Leave the averaged weights in the parts, where there is an average."""
        for part, average in zip(self._parts, self._averages, strict=False):
            if average.n_averaged > 0:
                part.load_state_dict(average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimizer, objective and averages."""
        own = {}
        if isinstance(self.objective, nn.Module):
            own = self.objective.state_dict()
            own |= {name: self._processes.gather(own[name]) for name in self._sharded}
        return {
            "optimizer": self._optimizer.state_dict(),
            "objective": own,
            "averages": [average.state_dict() for average in self._averages],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, after `start`."""
        self._optimizer.load_state_dict(state["optimizer"])
        if isinstance(self.objective, nn.Module):
            shards = {
                name: self._processes.shard(state["objective"][name]) for name in self._sharded
            }
            self.objective.load_state_dict(state["objective"] | shards)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(saved)

    def __str__(self) -> str:
        """Say who moves and by what rule, for the stage table."""
        rule = getattr(self.optimizer, "func", self.optimizer)
        who = ", ".join(name for part in self.parts for name in self._names(part)) or "all"
        settings = getattr(self.optimizer, "keywords", {})
        told = ", ".join(f"{name} {value:g}" for name, value in settings.items() if value)
        extras = [f"schedule {self.schedule}"] if self.schedule else []
        extras += [f"momentum {self.momentum}"] if self.momentum else []
        extras += [f"gradient clipped at {self.clip:g}"] if self.clip else []
        extras += [f"weights averaged ({self.average:g})"] if self.average else []
        move = f"{self.name}: {getattr(rule, '__name__', rule)} ({told}) on {who}"
        return "; ".join([move, *extras])

    def _names(self, part: nn.Module) -> Iterator[str]:
        """Say which part of the module that is, or which of its layers and parameters it views."""
        own = {id(parameter) for parameter in part.parameters()}
        for name, module in self.module.named_modules():
            if module is part:
                yield name
                return
        for name, module in self.module.named_modules():
            here = dict(module.named_parameters(recurse=False))
            moved = [key for key, parameter in here.items() if id(parameter) in own]
            if name and moved and len(moved) == len(here):
                yield name
            else:
                yield from (f"{name}.{key}".lstrip(".") for key in moved)


@dataclass
class StatisticsUpdate(GradientUpdate):
    """Descend where the gradient is known as statistics: nothing is differentiated.

    Parameters
    ----------
    objective : callable (module, batch) -> (Terms, slopes)
        A slope is a parameter with the gradient of what is to be made small, joint over all
        processes (`core.joint_sum`). The other parameters are as for `GradientUpdate`; parameters
        without a slope stay as they are.
    """

    objective: Any  # it gives slopes beside the terms

    def _set_up(self, fabric: "Fabric") -> None:
        if isinstance(self.objective, nn.Module):
            self.objective.to(fabric.device)
        self._optimizer = self.optimizer(self._parameters)

    @torch.no_grad()
    def _move(self, batch: Batch) -> Terms:
        terms, slopes = self.objective(self.module, batch)
        self._optimizer.zero_grad()
        for parameter, slope in slopes:
            parameter.grad = slope
        if self.clip is not None:
            nn.utils.clip_grad_norm_([parameter for parameter, _ in slopes], self.clip)
        self._optimizer.step()
        if self.constraint is not None:
            self.constraint()
        return terms


@dataclass(frozen=True)
class LinearDecay:
    """The factor 1 until `start` of the stage is done, then linearly down to 0 at its end."""

    start: float = 0.0

    def __call__(self, progress: float) -> float:
        """Return the factor at a progress in [0, 1)."""
        return min(1.0, (1.0 - progress) / (1.0 - self.start))

    def __str__(self) -> str:
        """Say the rule."""
        if not self.start:
            return "linearly to 0"
        return f"constant, then linearly to 0 from {self.start:.0%} of the stage"


@dataclass(frozen=True)
class Raised:
    """A number until `until` of the stage is done, and another one from then on.

    Hinton 2010 has a momentum of 0.5 at first, when gradients are large, and 0.9 later.
    """

    first: float
    then: float
    until: float

    def __call__(self, progress: float) -> float:
        """Return the number at a progress in [0, 1)."""
        return self.first if progress < self.until else self.then

    def __str__(self) -> str:
        """Say the rule."""
        return f"{self.first:g}, then {self.then:g} from {self.until:.0%} of the stage"
