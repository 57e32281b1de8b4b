"""The partition function of a Boltzmann machine: exactly, or by annealed importance sampling.

Between a base machine without weights, whose Z is known, and the machine itself stand machines of
inverse temperatures 0 = β_0 < ... < β_K = 1. With the odd layers summed out their unnormalized
probabilities of the even side are

    log p*_β(s) = Σ_even [((1 - β) a + β b)ᵀ s - φ(s)] + Σ_odd A(β (b + W s + ...))

where a are the biases of the base machine. A chain that is drawn from the base machine and moved by
one step of Gibbs sampling at each β has the weight Π p*_{β_k}(s_k) / p*_{β_{k-1}}(s_k), whose mean
is Z / Z_base (Neal 2001; Salakhutdinov & Murray 2008, section 4). Chains are few and the mean of
weights is ruled by the largest: the mean of their logarithms is a lower bound in expectation. The
same way back, from states of the machine to the base, gives an upper one (Burda, Grosse,
Salakhutdinov 2015): where both meet, the estimate is to be trusted.

References
----------
Neal. Annealed importance sampling. Statistics and Computing 2001.
Salakhutdinov, Murray. On the quantitative analysis of deep belief networks. ICML 2008.
Burda, Grosse, Salakhutdinov. Accurate and conservative estimates of MRF log-likelihood using
reverse annealing. AISTATS 2015.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt

import torch
from torch import Tensor

from whatwhere.core import InputError, LogPartition
from whatwhere.nn.boltzmann import Machine, States

MOST_BITS = 25
"""Of the states that are summed over one by one."""

CHUNK = 4096
SIGMAS = 3.0

PUBLISHED = ((0.0, 0.5, 500), (0.5, 0.9, 4000), (0.9, 1.0, 10_000))
"""From, to, and how many temperatures: 14,500 in all (Salakhutdinov & Murray 2008)."""

SHORT = ((0.0, 0.5, 50), (0.5, 0.9, 400), (0.9, 1.0, 1000))
"""A tenth of them."""

Schedule = Sequence[tuple[float, float, int]]


def exact(machine: Machine) -> LogPartition:
    """Return log Z, summed over all states of the smaller side.

    Raises
    ------
    InputError
        If that has more than 2^25 states.
    """
    sides = (machine.even, machine.odd)
    side = min(sides, key=machine.bits)
    if machine.bits(side) > MOST_BITS:
        bits = machine.bits(side)
        raise InputError(
            f"log Z is summed over at most 2^{MOST_BITS} states, and the smaller side of this "
            f"machine has {'no end of them' if bits == float('inf') else f'2^{bits:.0f}'}; "
            "estimate it by annealed importance sampling"
        )
    with torch.no_grad():
        parts = [
            torch.logsumexp(-machine.free_energy(states, side).double(), dim=0)
            for states in machine.states(side, CHUNK)
        ]
    value = float(torch.logsumexp(torch.stack(parts), dim=0))
    return LogPartition(value, value, value, f"exact, {2 ** machine.bits(side):,.0f} states")


def temperatures(schedule: Schedule) -> list[float]:
    """Return β_0 = 0 to β_K = 1."""
    betas = [0.0]
    for low, high, n in schedule:
        betas += [low + (high - low) * (k + 1) / n for k in range(n)]
    return betas


class _Path:
    """The machines between the base and the machine."""

    def __init__(self, machine: Machine, base: Tensor | None) -> None:
        self.machine = machine
        biases = [torch.zeros_like(machine.biases[level]) for level in machine.even]
        if base is not None:
            biases[0] = base
        self.base = dict(zip(machine.even, biases, strict=True))

    def log_z(self) -> float:
        """Return log Z of the base machine."""
        total = 0.0
        for level, units in enumerate(self.machine.units):
            a = self.base.get(level)
            if a is None:
                a = torch.zeros_like(self.machine.biases[level])
            total += float(units.log_partition(a.double()[None]))
        return total

    def start(self, n: int) -> States:
        """Return draws from the base machine."""
        states = [bias.new_zeros(n, len(bias)) for bias in self.machine.biases]
        for level, a in self.base.items():
            units = self.machine.units[level]
            states[level] = units.draw(units.mean(a.expand(n, -1).clone()))
        return states

    def inputs(self, states: States) -> States:
        """Return the total inputs of the odd side."""
        return [self.machine.input(level, states) for level in self.machine.odd]

    def difference(self, states: States, inputs: States, low: float, high: float) -> Tensor:
        """Return log p*_high(s) - log p*_low(s), (n,) in float64."""
        found = torch.zeros(len(inputs[0]), dtype=torch.float64, device=inputs[0].device)
        for level, a in self.base.items():
            along = states[level] @ (self.machine.biases[level] - a)
            found += (high - low) * along.double()
        for level, total in zip(self.machine.odd, inputs, strict=True):
            units = self.machine.units[level]
            found += (units.log_partition(high * total) - units.log_partition(low * total)).double()
        return found

    def move(self, states: States, inputs: States, beta: float) -> None:
        """Take a step of Gibbs sampling at β."""
        machine = self.machine
        for level, total in zip(machine.odd, inputs, strict=True):
            units = machine.units[level]
            states[level] = units.draw(units.mean(beta * total))
        for level, a in self.base.items():
            units, total = machine.units[level], machine.input(level, states, beta)
            states[level] = units.draw(units.mean(total.add_(a, alpha=1 - beta)))


@torch.no_grad()
def forward(
    machine: Machine, base: Tensor | None, schedule: Schedule, n_chains: int
) -> tuple[float, Tensor]:
    """Return log Z of the base machine, and the logarithms of the weights, (n_chains,) float64.

    Parameters
    ----------
    machine : Machine
    base : Tensor (n_0,), optional
        Biases of the lowest layer of the base machine, those of the data's means for instance. All
        else in it is 0.
    schedule : sequence of (from, to, n)
    n_chains : int
    """
    path, betas = _Path(machine, base), temperatures(schedule)
    states = path.start(n_chains)
    weights = torch.zeros(n_chains, dtype=torch.float64, device=states[0].device)
    for low, high in pairwise(betas):
        inputs = path.inputs(states)
        weights += path.difference(states, inputs, low, high)
        if high < 1:
            path.move(states, inputs, high)
    return path.log_z(), weights


@torch.no_grad()
def backward(
    machine: Machine, base: Tensor | None, schedule: Schedule, states: States
) -> tuple[float, Tensor]:
    """Return log Z of the base machine, and the logarithms of the weights on the way back.

    Parameters
    ----------
    machine, base, schedule
        As for `forward`.
    states : list of Tensor
        Draws from the machine, of which the even side is looked at.
    """
    path, betas = _Path(machine, base), temperatures(schedule)[::-1]
    states = list(states)
    n = len(states[0])
    weights = torch.zeros(n, dtype=torch.float64, device=states[0].device)
    for high, low in pairwise(betas):
        inputs = path.inputs(states)
        path.move(states, inputs, high)
        weights += path.difference(states, path.inputs(states), high, low)
    return path.log_z(), weights


def estimate(
    machine: Machine,
    base: Tensor | None = None,
    *,
    schedule: Schedule = PUBLISHED,
    n_chains: int = 100,
    states: States | None = None,
) -> LogPartition:
    """Return log Z by annealed importance sampling, with an interval of ±3 standard errors.

    Where no lower end is known, a few chains outweigh all others: then `how` says that the estimate
    is likely too small, for what it misses are chains with still larger weights.

    Parameters
    ----------
    machine : Machine
    base : Tensor (n_0,), optional
        As for `forward`.
    schedule : sequence of (from, to, n)
    n_chains : int
    states : list of Tensor, optional
        Draws from the machine, for the way back.
    """
    log_base, weights = forward(machine, base, schedule, n_chains)
    value, low, high = spread(weights)
    reverse = None
    if states is not None:
        _, back = backward(machine, base, schedule, states)
        reverse = log_base - spread(back)[0]
    n = sum(count for _, _, count in schedule)
    how = f"annealed importance sampling, {n_chains:,} chains, {n:,} temperatures"
    if low == float("-inf"):
        how += f", too few: {effective(weights):.1f} chains decide, and log Z is likely larger"
    return LogPartition(log_base + value, log_base + low, log_base + high, how, reverse)


def spread(weights: Tensor) -> tuple[float, float, float]:
    """Return the logarithm of the mean of exp(weights), and of that mean ± 3 standard errors.

    A mean less its error that is not above 0 has no logarithm; it is told as minus infinity.
    """
    n, top = len(weights), float(weights.max())
    scaled = (weights - top).exp()
    mean = float(scaled.mean())
    error = SIGMAS * float(scaled.std()) / sqrt(n) if n > 1 else float("inf")
    low = log(mean - error) + top if mean > error else float("-inf")
    return log(mean) + top, low, log(mean + error) + top


def effective(weights: Tensor) -> float:
    """Return how many equal weights would tell as much: (Σ w)² / Σ w², of their logarithms."""
    return float((2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp())
