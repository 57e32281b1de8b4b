"""Boltzmann machines of layers: energy, conditionals, free energy, Gibbs sampling, mean field.

    E(s) = Σ_l [φ_l(s_l) - b_lᵀ s_l] - Σ_l s_{l+1}ᵀ W_l s_l,    p(s) = exp(-E(s)) / Z

Layers are linked to their neighbors alone, so the even ones are independent of one another given
the odd ones, and the other way round: one of the two sides is drawn at once, or summed out. With
two layers, pixels and hidden units, that is a restricted Boltzmann machine; with a third one of one
softmax unit, its labels; with more hidden layers, a deep Boltzmann machine.

Given its total input a, a unit of any kind has the density exp(a s - φ(s) - A(a)):

    kind          states             φ(s)   A(a) = log Σ_s exp(a s - φ(s))   mean
    binary        0, 1               0      log(1 + exp a)                   1 / (1 + exp -a)
    gaussian      any number         s²/2   a²/2 + log(2π)/2                 a
    multinomial   one of K is 1      0      log Σ_k exp a_k                  softmax

References
----------
Smolensky. Information processing in dynamical systems: foundations of harmony theory. 1986.
Welling, Rosen-Zvi, Hinton. Exponential family harmoniums. NIPS 2004.
Salakhutdinov, Hinton. Deep Boltzmann machines. AISTATS 2009.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, log2, pi
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere.core import InputError

States = list[Tensor]
"""Of each layer, bottom first: (B, n)."""

Beta = float | Tensor
"""Inverse temperature: one number, or one of each row, (B, 1)."""


class Units(Protocol):
    """A kind of unit, and how many of them a layer has. Tensors are (B, size)."""

    @property
    def size(self) -> int:
        """How many units."""
        ...

    def mean(self, a: Tensor) -> Tensor:
        """Return the mean at total input a; may overwrite it."""
        ...

    def draw(self, mean: Tensor) -> Tensor:
        """Return states of units of these means."""
        ...

    def log_partition(self, a: Tensor) -> Tensor:
        """Return Σ A(a) over the units, (B,)."""
        ...

    def base(self, s: Tensor) -> Tensor:
        """Return Σ φ(s) over the units, (B,)."""
        ...

    def entropy(self, mean: Tensor) -> Tensor:
        """Return the entropy of independent units of these means, less E φ(s) - φ(E s): (B,)."""
        ...

    @property
    def bits(self) -> float:
        """The logarithm to base 2 of how many states the layer has."""
        ...

    def states(self, numbers: Tensor) -> Tensor:
        """Return the states of these numbers, from 0 on, in any fixed order: (len, size)."""
        ...


@dataclass(frozen=True)
class Binary:
    """Units that are 0 or 1."""

    size: int

    def mean(self, a: Tensor) -> Tensor:
        """Return the mean at total input a, which is overwritten."""
        return a.sigmoid_()

    def draw(self, mean: Tensor) -> Tensor:
        """Return 1 with the probability `mean`, else 0."""
        # Measured: a third of the time that torch.bernoulli takes on a CPU.
        return torch.rand_like(mean).lt_(mean)

    def log_partition(self, a: Tensor) -> Tensor:
        """Return Σ log(1 + exp a)."""
        return F.softplus(a).sum(dim=1)

    def base(self, s: Tensor) -> Tensor:
        """Return 0."""
        return s.new_zeros(len(s))

    def entropy(self, mean: Tensor) -> Tensor:
        """Return -Σ p log p + (1 - p) log (1 - p)."""
        return -(torch.xlogy(mean, mean) + torch.xlogy(1 - mean, 1 - mean)).sum(dim=1)

    @property
    def bits(self) -> float:
        """A bit each."""
        return float(self.size)

    def states(self, numbers: Tensor) -> Tensor:
        """Return the binary digits of the numbers."""
        return (numbers[:, None] >> torch.arange(self.size) & 1).float()


@dataclass(frozen=True)
class Gaussian:
    """Units that are any number, of variance 1."""

    size: int

    def mean(self, a: Tensor) -> Tensor:
        """Return a."""
        return a

    def draw(self, mean: Tensor) -> Tensor:
        """Return the mean with noise of variance 1."""
        return mean + torch.randn_like(mean)

    def log_partition(self, a: Tensor) -> Tensor:
        """Return Σ a²/2 + log(2π)/2."""
        return 0.5 * (a.square().sum(dim=1) + self.size * log(2 * pi))

    def base(self, s: Tensor) -> Tensor:
        """Return Σ s²/2."""
        return 0.5 * s.square().sum(dim=1)

    def entropy(self, mean: Tensor) -> Tensor:
        """Return the entropy of variance 1, (1 + log 2π)/2 a unit, less the 1/2 that φ gains."""
        return mean.new_full((len(mean),), 0.5 * self.size * log(2 * pi))

    @property
    def bits(self) -> float:
        """Without end."""
        return float("inf")

    def states(self, numbers: Tensor) -> Tensor:
        """Do not return: there is no end of states."""
        raise InputError("the states of gaussian units cannot be counted")


@dataclass(frozen=True)
class Multinomial:
    """Groups of which one unit is 1 and the others are 0, K units each: softmax units.

    Parameters
    ----------
    size : int
        Of all groups together.
    levels : int
        K.
    """

    size: int
    levels: int

    def _grouped(self, a: Tensor) -> Tensor:
        return a.view(len(a), self.size // self.levels, self.levels)

    def mean(self, a: Tensor) -> Tensor:
        """Return the softmax of each group."""
        return self._grouped(a).softmax(dim=2).view(a.shape)

    def draw(self, mean: Tensor) -> Tensor:
        """Return one of each group, with the probability `mean`: the first of a race."""
        times = torch.empty_like(mean).exponential_().div_(mean)
        drawn = self._grouped(times).argmin(dim=2)
        return F.one_hot(drawn, self.levels).view(mean.shape).to(mean.dtype)

    def log_partition(self, a: Tensor) -> Tensor:
        """Return Σ log Σ_k exp a_k."""
        return self._grouped(a).logsumexp(dim=2).sum(dim=1)

    def base(self, s: Tensor) -> Tensor:
        """Return 0."""
        return s.new_zeros(len(s))

    def entropy(self, mean: Tensor) -> Tensor:
        """Return -Σ p log p."""
        return -torch.xlogy(mean, mean).sum(dim=1)

    @property
    def bits(self) -> float:
        """Log K of each group."""
        return self.size // self.levels * log2(self.levels)

    def states(self, numbers: Tensor) -> Tensor:
        """Return the digits of the numbers to base K, each as one of K."""
        digits = numbers[:, None] // self.levels ** torch.arange(self.size // self.levels)
        return F.one_hot(digits % self.levels, self.levels).flatten(1).float()


@dataclass(frozen=True)
class Machine:
    """Layers and what links them: a view of parameters that belong to a module.

    Parameters
    ----------
    units : sequence of Units
        Of each layer, bottom first.
    biases : sequence of Tensor (n_l,)
    weights : sequence of Tensor (n_{l+1}, n_l)
    up, down : sequence of float, optional
        By what the input through each of the weights is multiplied, on its way up and down: a pair
        of layers that stands for a deeper machine sees some of it twice. Conditionals and mean
        field then are those of the deeper one, and there is no energy. Default: 1.
    """

    units: Sequence[Units]
    biases: Sequence[Tensor]
    weights: Sequence[Tensor]
    up: Sequence[float] = ()
    down: Sequence[float] = ()

    def input(self, level: int, states: States, beta: Beta = 1.0) -> Tensor:
        """Return the total input of a layer, β (b + W s + ...), (B, n).

        Parameters
        ----------
        level : int
        states : list of Tensor
            Those of its neighbors are looked at.
        beta : float or Tensor (B, 1)
        """
        total = self.biases[level]
        if level > 0:
            below = states[level - 1]
            if self.up and self.up[level - 1] != 1:
                below = self.up[level - 1] * below
            total = F.linear(below, self.weights[level - 1], total)
        if level < len(self.weights):
            above = states[level + 1]
            if self.down and self.down[level] != 1:
                above = self.down[level] * above
            if total.ndim == 1:
                total = torch.addmm(total, above, self.weights[level])
            else:
                total = total.addmm(above, self.weights[level])
        return total if isinstance(beta, float) and beta == 1 else beta * total

    def draw(self, levels: Sequence[int], states: States, beta: Beta = 1.0) -> None:
        """Put new draws into layers of one side, given the other side."""
        for level in levels:
            units = self.units[level]
            states[level] = units.draw(units.mean(self.input(level, states, beta)))

    def mean(self, levels: Sequence[int], states: States, beta: Beta = 1.0) -> None:
        """Put the means into layers of one side, given the other side."""
        for level in levels:
            states[level] = self.units[level].mean(self.input(level, states, beta))

    @property
    def even(self) -> range:
        """The layers of one side, the lowest among them."""
        return range(0, len(self.units), 2)

    @property
    def odd(self) -> range:
        """The layers of the other side."""
        return range(1, len(self.units), 2)

    def energy(self, states: States) -> Tensor:
        """Return E(s), (B,)."""
        found = states[0].new_zeros(len(states[0]))
        for level, (units, bias, s) in enumerate(zip(self.units, self.biases, states, strict=True)):
            found = found + units.base(s) - s @ bias
            if level:
                found = found - (F.linear(states[level - 1], self.weights[level - 1]) * s).sum(1)
        return found

    def free_energy(self, states: States, levels: Sequence[int]) -> Tensor:
        """Return -log Σ exp(-E(s)), (B,): the sum is over all layers but `levels`, one whole side.

        Parameters
        ----------
        states : list of Tensor
            Those of `levels` are looked at.
        levels : sequence of int
            `even` or `odd`.
        """
        found = states[levels[0]].new_zeros(len(states[levels[0]]))
        for level, units in enumerate(self.units):
            if level in levels:
                s = states[level]
                found = found + units.base(s) - s @ self.biases[level]
            else:
                found = found - units.log_partition(self.input(level, states))
        return found

    def gibbs(self, states: States, steps: int) -> States:
        """Return states after steps of Gibbs sampling, each of the odd side, then of the even one.

        The states of the odd side that are given do not matter.
        """
        states = list(states)
        for _ in range(steps):
            self.draw(self.odd, states)
            self.draw(self.even, states)
        return states

    def mean_field(self, v: Tensor, sweeps: int, tolerance: float = 0.0) -> States:
        """Return the means of all hidden layers given the lowest one, updated in turn.

        Each update minimizes the variational free energy in one layer, so no sweep raises it. It
        begins with a pass upwards in which what comes from below stands also for what is not known
        yet from above. With one hidden layer that is exact, and there is nothing to sweep.

        Parameters
        ----------
        v : Tensor (B, n_0)
        sweeps : int
        tolerance : float
            Stop when no mean moves by more. A compiler and an exporter are given all sweeps.
        """
        if torch.compiler.is_compiling():
            tolerance = 0.0
        top = len(self.units) - 1
        states = [v, *(v.new_zeros(len(v), units.size) for units in self.units[1:])]
        for level in range(1, top + 1):
            if level == top:
                total = self.input(level, states)
            else:
                weight, bias = self.weights[level - 1], self.biases[level]
                total = F.linear(2 * states[level - 1], weight, bias)
            states[level] = self.units[level].mean(total)
        if top == 1:
            return states
        seen = F.linear(v, self.weights[0], self.biases[1])  # is the same in all sweeps
        for _ in range(sweeps):
            before = list(states)
            for level in range(1, top + 1):
                if level == 1:
                    states[1] = self.units[1].mean(seen.addmm(states[2], self.weights[1]))
                else:
                    self.mean([level], states)
            if tolerance:
                pairs = zip(before[1:], states[1:], strict=True)
                moved = [(now - former).detach().abs().max() for former, now in pairs]
                if float(torch.stack(moved).max()) <= tolerance:  # asked for once a sweep
                    break
        return states

    def bound(self, states: States) -> Tensor:
        """Return Σ_h q(h) [-E(v, h)] + H(q), (B,), a lower bound of log Σ_h exp(-E(v, h)).

        Parameters
        ----------
        states : list of Tensor
            v, and the means of the hidden layers.
        """
        entropy = [
            units.entropy(mean) for units, mean in zip(self.units[1:], states[1:], strict=True)
        ]
        return torch.stack(entropy).sum(dim=0) - self.energy(states)

    def bits(self, levels: Sequence[int]) -> float:
        """Return the logarithm to base 2 of how many states a side has."""
        return sum(self.units[level].bits for level in levels)

    def states(self, levels: Sequence[int], chunk: int) -> Iterator[States]:
        """Yield all states of a side, `chunk` at a time; those of the other side are empty."""
        n = round(2 ** self.bits(levels))
        device = self.biases[0].device
        for first in range(0, n, chunk):
            numbers = torch.arange(first, min(first + chunk, n))
            found = [torch.empty(0, device=device) for _ in self.units]
            for level in levels:
                own = round(2 ** self.units[level].bits)
                found[level] = self.units[level].states(numbers % own).to(device)
                numbers = numbers // own
            yield found
