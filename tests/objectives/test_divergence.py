"""The gradient of the likelihood: statistics, on worlds of few states."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Batch
from whatwhere.nn.boltzmann import Binary, Gaussian, Machine, Multinomial, Units
from whatwhere.objectives.divergence import (
    CD,
    FAST,
    FAST_DECAY,
    NEGATIVES,
    PCD,
    TEMPERING,
    LikelihoodGradient,
    Sparsity,
)


def machine(*units: Units, scale: float = 0.5, seed: int = 0) -> Machine:
    """Return a machine of parameters, of some size, in float64."""
    drawn = torch.Generator().manual_seed(seed)
    sizes = [unit.size for unit in units]

    def parameter(*shape: int) -> nn.Parameter:
        values = scale * torch.randn(*shape, generator=drawn, dtype=torch.float64)
        return nn.Parameter(values)

    biases = [parameter(n) for n in sizes]
    return Machine(units, biases, [parameter(high, low) for low, high in pairwise(sizes)])


def rbm() -> Machine:
    return machine(Binary(4), Binary(3))


def batch(n: int, size: int, labels: int = 0, seed: int = 1) -> Batch:
    drawn = torch.Generator().manual_seed(seed)
    x = torch.rand(n, size, generator=drawn, dtype=torch.float64).lt(0.4).double()
    y = torch.arange(n) % labels if labels else torch.full((n,), UNLABELED)
    return Batch(x, y, torch.arange(n))


def rule(one: Machine, negative: str = PCD, **settings: Any) -> LikelihoodGradient:
    torch.manual_seed(0)
    return LikelihoodGradient(one, negative, **settings).double()


def slopes_of(one: Machine, gradient: LikelihoodGradient, data: Batch) -> dict[int, Tensor]:
    with torch.no_grad():
        _, slopes = gradient(None, data)
    return {id(parameter): slope for parameter, slope in slopes}


def exact_gradient(one: Machine, v: Tensor) -> list[Tensor]:
    """Return the gradient of -log p(v), with log Z a sum over all states: a second formula."""
    empty = [torch.empty(0)] * (len(one.units) - 1)
    log_z = torch.cat(
        [-one.free_energy([s.double() for s in states], one.even)
         for states in one.states(one.even, 1000)]
    ).logsumexp(0)  # fmt: skip
    loss = one.free_energy([v, *empty], one.even).mean() + log_z
    return list(torch.autograd.grad(loss, [*one.weights, *one.biases]))


@pytest.mark.parametrize("negative", NEGATIVES)
def test_with_chains_that_have_forgotten_where_they_began_the_slope_is_the_gradient(negative: str):
    one, n = rbm(), 40_000
    data = batch(n, 4)
    gradient = rule(one, negative, steps=30, n_chains=n, n_temperatures=3)
    found = slopes_of(one, gradient, data)
    truth = exact_gradient(one, data.x)
    for parameter, slope in zip([*one.weights, *one.biases], truth, strict=True):
        torch.testing.assert_close(found[id(parameter)], slope, atol=5 * 0.5 / n**0.5, rtol=0)


def test_one_step_from_the_data_gives_the_textbook_statistics():
    one = rbm()
    data = batch(6, 4)
    gradient = rule(one, CD)
    torch.manual_seed(3)
    found = slopes_of(one, gradient, data)
    (weight,), (b, c), v = one.weights, one.biases, data.x
    torch.manual_seed(3)
    with torch.no_grad():
        h = torch.sigmoid(v @ weight.T + c)
        drawn = (torch.rand_like(h) < h).double()
        again = torch.sigmoid(drawn @ weight + b)
        again = (torch.rand_like(again) < again).double()
        mean = torch.sigmoid(again @ weight.T + c)
        torch.testing.assert_close(found[id(weight)], (mean.T @ again - h.T @ v) / 6)
        torch.testing.assert_close(found[id(b)], (again - v).mean(0))
        torch.testing.assert_close(found[id(c)], (mean - h).mean(0))


def test_the_slope_is_that_of_the_free_energy_of_data_less_that_of_draws():
    one = rbm()
    data = batch(6, 4)
    gradient = rule(one, CD, steps=2)
    torch.manual_seed(3)
    own = gradient.of_machine(gradient.of_data(data))
    torch.manual_seed(3)
    found = slopes_of(one, gradient, data)
    empty = torch.empty(0)
    gap = one.free_energy([data.x, empty], one.even).mean()
    gap = gap - one.free_energy([own[0].detach(), empty], one.even).mean()
    for parameter, slope in zip(
        [*one.weights, *one.biases],
        torch.autograd.grad(gap, [*one.weights, *one.biases]),
        strict=True,
    ):
        torch.testing.assert_close(found[id(parameter)], slope)


def test_gaussian_pixels_rebuilt_by_contrastive_divergence_have_no_noise():
    one = machine(Gaussian(4), Binary(3))
    gradient = rule(one, CD)
    data = gradient.of_data(batch(6, 4))
    torch.manual_seed(0)
    h = Binary(3).draw(data[1])
    torch.manual_seed(0)
    own = gradient.of_machine(data)
    torch.testing.assert_close(own[0], (h @ one.weights[0] + one.biases[0]).detach())


def test_chains_that_persist_go_on_where_they_were():
    one = rbm()
    gradient = rule(one, PCD, n_chains=5)
    before = gradient.chains.clone()
    slopes_of(one, gradient, batch(6, 4))
    assert not torch.equal(gradient.chains, before)
    assert bool(((gradient.chains == 0) | (gradient.chains == 1)).all())
    torch.manual_seed(4)
    states = [torch.empty(0), gradient.chains[:, 0].clone()]
    one.draw(one.even, states)
    torch.manual_seed(4)
    own = gradient.of_machine(gradient.of_data(batch(6, 4)))
    torch.testing.assert_close(own[0], states[0].detach())


@pytest.mark.parametrize("units", [(Binary(3), Binary(2)), (Binary(3), Binary(2), Binary(2))])
def test_the_centered_slope_is_that_of_the_centered_machine(units: tuple[Units, ...]):
    """E = -Σ (s - μ)ᵀ b - Σ (t - ν)ᵀ W (s - μ), its gradient carried over to the plain one."""
    one, data = machine(*units), batch(8, 3)
    gradient = rule(one, PCD, n_chains=7, centered=True)
    plain = rule(one, PCD, n_chains=7)
    plain.chains.copy_(gradient.chains)
    torch.manual_seed(5)
    of_data = plain.of_data(data)
    own = plain.of_machine(of_data)
    torch.manual_seed(5)
    found = slopes_of(one, gradient, data)
    offsets = [s.mean(0) for s in of_data]  # what they begin as
    weights = []
    for low in range(len(units) - 1):
        high = low + 1
        parts = [
            (s[high] - offsets[high]).T @ (s[low] - offsets[low]) / len(s[low])
            for s in (own, of_data)
        ]
        weights.append(parts[0] - parts[1])
        torch.testing.assert_close(found[id(one.weights[low])], weights[low].detach())
    for level, bias in enumerate(one.biases):
        slope = own[level].mean(0) - of_data[level].mean(0)
        # Of the plain machine b = b' - W μ: a change of W moves it too.
        if level:
            slope = slope - weights[level - 1] @ offsets[level - 1]
        if level < len(weights):
            slope = slope - weights[level].T @ offsets[level + 1]
        torch.testing.assert_close(found[id(bias)], slope.detach())


@pytest.mark.parametrize(("up", "down"), [(1.0, 1.0), (2.0, 1.0), (2.0, 2.0)])
def test_the_centered_slope_does_not_care_whether_a_unit_is_called_1_or_0(
    monkeypatch: Any, up: float, down: float
):
    """Nor does that of a pair, which sees its input twice: a step has the same effect."""
    one, data, fantasy = rbm(), batch(8, 4), batch(5, 4, seed=2)
    (weight,), (b, c) = one.weights, one.biases
    one = Machine(one.units, one.biases, one.weights, (up,), (down,))
    turned = [nn.Parameter(p.detach().clone()) for p in (-weight, -b, c + up * weight.sum(1))]
    other = Machine(one.units, turned[1:], turned[:1], (up,), (down,))
    found = []
    for world, flip in ((one, lambda x: x), (other, lambda x: 1 - x)):
        gradient = rule(world, PCD, n_chains=5, centered=True)
        own = gradient.of_data(fantasy._replace(x=flip(fantasy.x)))
        monkeypatch.setattr(gradient, "of_machine", lambda _, own=own: own)
        slopes = slopes_of(world, gradient, data._replace(x=flip(data.x)))
        found.append([slopes[id(p)] for p in (*world.weights, *world.biases)])
    (weight, b, c), (turned_weight, turned_b, turned_c) = found
    torch.testing.assert_close(weight, -turned_weight)
    torch.testing.assert_close(b, -turned_b)
    torch.testing.assert_close(c + up * weight.sum(1), turned_c)


def test_fast_weights_follow_the_slope_and_fade():
    one = rbm()
    gradient = rule(one, FAST, n_chains=5, fast_rate=0.1)
    first = slopes_of(one, gradient, batch(6, 4))[id(one.weights[0])]
    torch.testing.assert_close(gradient.get_buffer("fast0"), -0.1 * first)
    second = slopes_of(one, gradient, batch(6, 4))[id(one.weights[0])]
    expected = -0.1 * FAST_DECAY * first - 0.1 * second
    torch.testing.assert_close(gradient.get_buffer("fast0"), expected)


def test_exchanges_between_temperatures_keep_each_temperatures_distribution():
    one, n = machine(Binary(3), Binary(2), scale=2.0), 30_000
    gradient = rule(one, TEMPERING, steps=25, n_chains=n, n_temperatures=4)
    own = gradient.of_machine(gradient.of_data(batch(6, 3)))
    states = next(one.states(one.even, 8))
    log_p = -one.free_energy([s.double() for s in states], one.even)
    p = torch.softmax(log_p, 0).detach()
    for row, target in enumerate(states[0].double()):
        share = float((own[0] == target).all(dim=1).double().mean())
        assert abs(share - float(p[row])) < 5 * float((p[row] * (1 - p[row]) / n).sqrt())


def test_a_sparse_layer_is_drawn_to_its_target():
    one, data = rbm(), batch(6, 4)
    gradient = rule(one, CD, sparsity=[Sparsity(0.1, 2.0)])
    plain = rule(one, CD)
    torch.manual_seed(1)
    found = slopes_of(one, gradient, data)
    torch.manual_seed(1)
    without = slopes_of(one, plain, data)
    h = gradient.of_data(data)[1].mean(0).detach()
    pull = 2.0 * (h - 0.1)  # a running mean begins with the first one
    bias, weight = one.biases[1], one.weights[0]
    torch.testing.assert_close(found[id(bias)] - without[id(bias)], pull)
    torch.testing.assert_close(
        found[id(weight)] - without[id(weight)], torch.outer(pull, data.x.mean(0))
    )


def test_labels_are_a_layer_that_is_given_and_missing_ones_are_drawn():
    one = machine(Binary(4), Binary(3), Multinomial(2, 2))
    gradient = rule(one, CD, labels=True)
    data = batch(6, 4, labels=2)
    states = gradient.of_data(data)
    torch.testing.assert_close(states[2], torch.eye(2, dtype=torch.float64)[data.y])
    total = data.x @ one.weights[0].T + one.biases[1] + one.weights[1][data.y]
    torch.testing.assert_close(states[1], torch.sigmoid(total).detach())

    def surely_one(v: Tensor) -> Tensor:
        return torch.tensor([[0.0, 100.0]], dtype=v.dtype).expand(len(v), 2).clone()

    gradient = rule(one, CD, labels=True, label_scores=surely_one)
    y = torch.tensor([0, 0, UNLABELED, UNLABELED, 1, 1])
    states = gradient.of_data(data._replace(y=y))
    assert states[2].argmax(1).tolist() == [0, 0, 1, 1, 1, 1]


def test_training_by_the_exact_gradient_and_by_persistent_chains_ends_at_the_same_likelihood():
    data = batch(40, 4)
    ends = []
    for exact in (True, False):
        one = machine(Binary(4), Binary(3), scale=0.1)
        gradient = rule(one, PCD, n_chains=2000)
        parameters = [*one.weights, *one.biases]
        for step in range(600):
            rate = 0.3 * (1 - step / 600)
            if exact:
                slopes = exact_gradient(one, data.x)
            else:
                slopes = list(slopes_of(one, gradient, data).values())
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter.sub_(rate * slope)
        empty = torch.empty(0)
        states = next(one.states(one.even, 16))
        log_z = -one.free_energy([s.double() for s in states], one.even)
        ll = -one.free_energy([data.x, empty], one.even).mean() - log_z.logsumexp(0)
        ends.append(float(ll.detach()))
    start = -4 * 0.6931
    assert ends[0] > start + 0.1  # it learned
    assert abs(ends[0] - ends[1]) < 0.01
