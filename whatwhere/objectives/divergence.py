"""The gradient of a Boltzmann machine's likelihood: statistics of the data less the machine's own.

    ∂ log p(v) / ∂W_l = ⟨s_{l+1} s_lᵀ⟩_data - ⟨s_{l+1} s_lᵀ⟩_machine

The first average is over the hidden units given the data, exactly with one hidden layer and by mean
field with more (Salakhutdinov & Hinton 2009). The second is over states of the machine, from chains
that begin at the data (contrastive divergence, Hinton 2002), that go on from one update to the next
(persistent, Tieleman 2008), that do so with fast weights of their own (Tieleman & Hinton 2009), or
at several temperatures, exchanging states (parallel tempering, Desjardins et al. 2010).

With offsets μ_l, running means of the layers, the gradient is that of the centered machine
(Montavon & Müller 2012), in which s_l - μ_l stands for s_l: the weights then do not depend on
whether a unit that is mostly 1 is called 0. Rewritten for the plain machine it is

    ΔW_l = ⟨(s_{l+1} - μ_{l+1}) (s_l - μ_l)ᵀ⟩_data - ⟨the same⟩_machine
    Δb_l = ⟨s_l⟩_data - ⟨s_l⟩_machine - ΔW_{l-1} μ_{l-1} - ΔW_lᵀ μ_{l+1}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Batch, Terms, joint_sum, sharing
from whatwhere.nn.boltzmann import Beta, Gaussian, Machine, States

CD, PCD, FAST, TEMPERING = "cd", "pcd", "fast", "tempering"
NEGATIVES = (CD, PCD, FAST, TEMPERING)

FAST_DECAY = 0.95
"""Of the fast weights, an update (Tieleman & Hinton 2009: 19/20)."""

OFFSET_RATE = 0.01
"""Of the running means that stand for a layer's offset."""

SPARSITY_DAMPING = 0.9
"""Of the running means that are held against the target."""

Slopes = list[tuple[Tensor, Tensor]]
"""Parameters, each with the gradient of what is to be made small."""

LabelScores = Callable[[Tensor], Tensor]
"""log p(v, y) but for a constant, (B, K), of states v (B, n)."""


@dataclass(frozen=True)
class Sparsity:
    """How often the units of a hidden layer are to be on.

    Parameters
    ----------
    target : float
        In (0, 1).
    cost : float
        The gradient of a unit's bias is raised by cost (running mean - target), that of its weights
        by as much times the mean of what they look at.
    """

    target: float
    cost: float


class LikelihoodGradient(nn.Module):
    """Statistics of the data and of the machine: (module, batch) -> terms and slopes.

    The batch holds states of the lowest layer. Terms are ``gap``, the mean energy of the data less
    that of the machine (of gaussian units without their φ), and ``active``, the mean of the first
    hidden layer's units.

    Parameters
    ----------
    machine : Machine
        A view of the parameters that are to move.
    negative : {"cd", "pcd", "fast", "tempering"}
        Where the chains begin; see the module's docstring.
    steps : int
        Of Gibbs sampling in an update; `k` may be set while training.
    n_chains : int
        Persistent chains.
    sweeps : int
        Of mean field.
    centered : bool
    sparsity : sequence of Sparsity or None, optional
        Of each hidden layer.
    fast_rate : float
        The learning rate of fast weights.
    n_temperatures : int
        Of parallel tempering, from 1/n to 1 in equal steps.
    labels : bool
        Whether the topmost layer is a label.
    label_scores : LabelScores, optional
        Where labels are missing: what they are drawn from.

    Attributes
    ----------
    chains : Tensor
        States of the odd layers side by side, (n_chains, n), of all temperatures one after another.
    """

    chains: Tensor
    betas: Tensor
    label_scores: LabelScores | None
    sharded = ("chains",)

    def __init__(
        self,
        machine: Machine,
        negative: str,
        *,
        steps: int = 1,
        n_chains: int = 100,
        sweeps: int = 10,
        centered: bool = False,
        sparsity: Sequence[Sparsity | None] = (),
        fast_rate: float = 0.0,
        n_temperatures: int = 10,
        labels: bool = False,
        label_scores: LabelScores | None = None,
    ) -> None:
        super().__init__()
        self.machine, self.negative, self.k, self.sweeps = machine, negative, steps, sweeps
        self.labels, self.label_scores = labels, label_scores
        self.centered, self.sparsity = centered, list(sparsity)
        self.fast_rate, self.n_chains = fast_rate, n_chains
        sizes = [units.size for units in machine.units]
        n = 0 if negative == CD else n_chains
        temperatures = n_temperatures if negative == TEMPERING else 1
        betas = torch.arange(1, temperatures + 1).float() / temperatures
        # Row by row all temperatures of a chain, so that processes may share out the rows.
        self.register_buffer("betas", betas[:, None], persistent=False)
        odd = [sizes[level] for level in machine.odd]
        self.register_buffer("chains", torch.rand(n, temperatures, sum(odd)).bernoulli())
        self.offsets = [f"offset{level}" for level in range(len(sizes))]
        if centered:
            for name, size in zip(self.offsets, sizes, strict=True):
                self.register_buffer(name, torch.full((size,), float("nan")))
        if any(self.sparsity):
            for level, size in enumerate(sizes[1:], 1):
                self.register_buffer(f"activity{level}", torch.full((size,), float("nan")))
        self.fast: Sequence[str] = ()
        if negative == FAST:
            slow = [*machine.weights, *machine.biases]
            self.fast = [f"fast{place}" for place in range(len(slow))]
            for name, parameter in zip(self.fast, slow, strict=True):
                self.register_buffer(name, torch.zeros_like(parameter))

    def forward(self, module: Any, batch: Batch) -> tuple[Terms, Slopes]:
        """Return the terms, and the gradient of -log p(v), a mean over the batch, by parameter."""
        machine = self.machine
        data = self.of_data(batch)
        own = self.of_machine(data)
        n, m = self._counts(len(data[0]))
        weights = []
        for low, high in pairwise(range(len(data))):
            slope = torch.mm(own[high].T, own[low]).div_(m)
            weights.append(joint_sum(slope.addmm_(data[high].T, data[low], alpha=-1 / n)))
        means = [joint_sum(s.sum(dim=0)) / n for s in data]
        biases = [joint_sum(s.sum(dim=0)) / m - mean for s, mean in zip(own, means, strict=True)]
        pairs = list(zip([*machine.weights, *machine.biases], [*weights, *biases], strict=True))
        gap = torch.stack([torch.dot(p.flatten(), g.flatten()) for p, g in pairs]).sum()
        if self.centered:
            self._center(weights, biases, means)
        self._sparsify(weights, biases, means)
        for name, slope in zip(self.fast, [*weights, *biases], strict=False):
            fast = getattr(self, name)
            fast.mul_(FAST_DECAY).sub_(slope, alpha=self.fast_rate)
        # What was done to the slopes meanwhile was done in place.
        return {"gap": gap, "active": means[1].mean()}, pairs

    def _counts(self, rows: int) -> tuple[float, float]:
        """Return by what sums over the data and over the machine's states are divided.

        They are those of all processes, known without asking the others.
        """
        share = sharing()
        n = rows if share is None else rows / share.part
        if self.negative == CD:
            return n, n
        # Chains are never held twice, even where a batch is.
        return n, self.n_chains if share is None else self.n_chains / share.copies

    def of_data(self, batch: Batch) -> States:
        """Return the states of the data's rows: given below, means above."""
        machine, v = self.machine, batch.x.flatten(1)
        if not self.labels:
            return machine.mean_field(v, self.sweeps)
        units = machine.units[-1]
        y = F.one_hot(batch.y.clamp(min=0), units.size).to(v.dtype)
        if self.label_scores is not None:
            drawn = units.draw(units.mean(self.label_scores(v)))
            y = torch.where((batch.y == UNLABELED)[:, None], drawn, y)
        states = [v, y.new_empty(0), y]
        machine.mean([1], states)
        return states

    def of_machine(self, data: States) -> States:
        """Return states of the machine: drawn on the even side, means on the odd one."""
        machine, odd = self._negative_machine(), self.machine.odd
        if self.negative == CD:
            states = list(data)
            for level in odd:
                states[level] = machine.units[level].draw(data[level])
            # Hinton 2010: what is rebuilt of gaussian units has no noise.
            self._walk(machine, states, 1.0, quiet=True)
            return states
        n, temperatures, size = self.chains.shape
        beta: Beta = 1.0 if temperatures == 1 else self.betas.repeat(n, 1)
        widths = [machine.units[level].size for level in odd]
        parts = self.chains.view(n * temperatures, size).split(widths, dim=1)
        states = [s.new_empty(0) for s in data]
        for level, part in zip(odd, parts, strict=True):
            states[level] = part
        drawn = self._walk(machine, states, beta, quiet=False)
        if temperatures > 1:
            drawn = self._exchange(machine, drawn, n)
        kept = torch.cat([drawn[level] for level in odd], dim=1)
        self.chains.copy_(kept.view(self.chains.shape))
        if temperatures == 1:
            return states
        # The chains at β = 1, after the exchange.
        last = slice(temperatures - 1, None, temperatures)
        found = [s[last].contiguous() for s in drawn]
        machine.mean(odd, found)
        return found

    def _walk(self, machine: Machine, states: States, beta: Beta, *, quiet: bool) -> States:
        """Take k steps, in place; return draws of the odd side, of which `states` has the means."""
        drawn = list(states)
        for step in range(self.k):
            for level in machine.even:
                units = machine.units[level]
                mean = units.mean(machine.input(level, drawn, beta))
                still = quiet and isinstance(units, Gaussian)
                states[level] = drawn[level] = mean if still else units.draw(mean)
            machine.mean(machine.odd, states, beta)
            if not (quiet and step + 1 == self.k):
                for level in machine.odd:
                    drawn[level] = machine.units[level].draw(states[level])
        return drawn

    def _exchange(self, machine: Machine, states: States, n: int) -> States:
        """Let neighbors in temperature exchange their states, by Metropolis' rule."""
        temperatures = len(self.betas)
        # The energy without φ, which no temperature touches.
        energy = machine.energy(states)
        for units, s in zip(machine.units, states, strict=True):
            energy = energy - units.base(s)
        energy = energy.view(n, temperatures)
        place = torch.arange(temperatures, device=energy.device).repeat(n, 1)
        betas = self.betas[:, 0]
        for first in (0, 1):
            for low in range(first, temperatures - 1, 2):
                high = low + 1
                gain = (betas[high] - betas[low]) * (energy[:, high] - energy[:, low])
                swap = torch.rand_like(gain).log_() < gain
                pair = energy[:, low : high + 1].clone(), place[:, low : high + 1].clone()
                for held, now in zip((energy, place), pair, strict=True):
                    held[:, low] = torch.where(swap, now[:, 1], now[:, 0])
                    held[:, high] = torch.where(swap, now[:, 0], now[:, 1])
        rows = (torch.arange(n, device=place.device)[:, None] * temperatures + place).flatten()
        return [s[rows] for s in states]

    def _negative_machine(self) -> Machine:
        """Return the machine that the chains walk in: with fast weights, where there are."""
        machine = self.machine
        if not self.fast:
            return machine
        moved = [
            p + getattr(self, name)
            for p, name in zip([*machine.weights, *machine.biases], self.fast, strict=True)
        ]
        n = len(machine.weights)
        return Machine(machine.units, moved[n:], moved[:n], machine.up, machine.down)

    def _center(self, weights: list[Tensor], biases: list[Tensor], means: list[Tensor]) -> None:
        """Turn the plain gradient into the centered one, in place, and move the offsets."""
        offsets = [getattr(self, name) for name in self.offsets]
        for offset, mean in zip(offsets, means, strict=True):
            follow(offset, mean, OFFSET_RATE)
        for slope, (low, high) in zip(weights, pairwise(range(len(biases))), strict=True):
            # ⟨(t - ν)(s - μ)ᵀ⟩ = ⟨t sᵀ⟩ - ν⟨s⟩ᵀ - ⟨t⟩μᵀ + νμᵀ, and the last one cancels.
            slope.addr_(offsets[high], biases[low], alpha=-1)
            slope.addr_(biases[high], offsets[low], alpha=-1)
        changes = [bias.clone() for bias in biases]
        up, down = (
            self.machine.up or [1.0] * len(weights),
            self.machine.down or [1.0] * len(weights),
        )
        for slope, (low, high) in zip(weights, pairwise(range(len(biases))), strict=True):
            # What moves with the weights is the input, and a pair sees some of it twice.
            changes[low] -= down[low] * (slope.T @ offsets[high])
            changes[high] -= up[low] * (slope @ offsets[low])
        for bias, change in zip(biases, changes, strict=True):
            bias.copy_(change)

    def _sparsify(self, weights: list[Tensor], biases: list[Tensor], means: list[Tensor]) -> None:
        """Add what draws the running means of hidden units to their target."""
        for level, rule in enumerate(self.sparsity, 1):
            if rule is None:
                continue
            activity = getattr(self, f"activity{level}")
            follow(activity, means[level], 1 - SPARSITY_DAMPING)
            pull = rule.cost * (activity - rule.target)
            biases[level] += pull
            weights[level - 1].addr_(pull, means[level - 1])


def follow(running: Tensor, mean: Tensor, rate: float) -> None:
    """Move a running mean by a part of the way, in place; at first, when it is no number, to it."""
    running.copy_(torch.where(running.isnan(), mean, running.lerp(mean, rate)))
