"""Energy, conditionals, free energy, Gibbs sampling and mean field, on worlds of few states."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from whatwhere.core import InputError
from whatwhere.nn.boltzmann import Binary, Gaussian, Machine, Multinomial, States, Units


def machine(*units: Units, scale: float = 0.7, seed: int = 0) -> Machine:
    """Return a machine with weights and biases of some size, in float64."""
    drawn = torch.Generator().manual_seed(seed)
    sizes = [unit.size for unit in units]

    def normal(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=drawn, dtype=torch.float64)

    return Machine(
        units,
        [normal(n) for n in sizes],
        [normal(high, low) for low, high in pairwise(sizes)],
    )


MACHINES = {
    "rbm": machine(Binary(4), Binary(3)),
    "labels": machine(Binary(3), Binary(2), Multinomial(3, 3)),
    "grays": machine(Multinomial(6, 3), Binary(3)),
    "mixture": machine(Binary(4), Multinomial(5, 5)),
    "dbm": machine(Binary(4), Binary(3), Binary(2)),
    "deeper": machine(Binary(3), Binary(2), Binary(3), Binary(2)),
}


def all_states(one: Machine) -> States:
    """Return every joint state, layer by layer: a slow second formula."""
    per_layer = []
    for units in one.units:
        if isinstance(units, Multinomial):
            eye = torch.eye(units.levels, dtype=torch.float64)
            groups = units.size // units.levels
            per_layer.append([torch.cat(rows) for rows in product(eye, repeat=groups)])
        else:
            values = [torch.tensor(v, dtype=torch.float64) for v in (0.0, 1.0)]
            per_layer.append([torch.stack(v) for v in product(values, repeat=units.size)])
    joint = list(product(*per_layer))
    return [torch.stack([state[level] for state in joint]) for level in range(len(one.units))]


@pytest.fixture(params=MACHINES)
def one(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


def energy_by_hand(one: Machine, states: States) -> Tensor:
    rows = []
    for row in range(len(states[0])):
        s = [layer[row] for layer in states]
        total = -sum(float(b @ x) for b, x in zip(one.biases, s, strict=True))
        for level, weight in enumerate(one.weights):
            for i, j in product(range(weight.shape[0]), range(weight.shape[1])):
                total -= float(s[level + 1][i] * weight[i, j] * s[level][j])
        rows.append(total)
    return torch.tensor(rows, dtype=torch.float64)


def test_the_energy_is_the_sum_over_biases_and_links(one: Machine):
    states = [layer[::7] for layer in all_states(one)]
    torch.testing.assert_close(one.energy(states), energy_by_hand(one, states))


@pytest.mark.parametrize("side", ["even", "odd"])
def test_the_free_energy_is_the_marginal_of_the_energy_over_all_states(one: Machine, side: str):
    states, levels = all_states(one), getattr(one, side)
    energy, free = one.energy(states), one.free_energy(states, levels)
    kept = torch.cat([states[level] for level in levels], dim=1)
    for row in range(0, len(kept), 5):
        same = (kept == kept[row]).all(dim=1)
        torch.testing.assert_close(-torch.logsumexp(-energy[same], 0), free[row])


def test_the_means_are_those_of_the_conditional_distribution(one: Machine):
    states = all_states(one)
    p = torch.softmax(-one.energy(states), 0)
    for levels, others in ((one.even, one.odd), (one.odd, one.even)):
        given = torch.cat([states[level] for level in others], dim=1)
        same = (given == given[len(given) // 2]).all(dim=1)
        found = [layer[same][:1].clone() for layer in states]
        one.mean(levels, found)
        for level in levels:
            truth = (p[same, None] * states[level][same]).sum(0) / p[same].sum()
            torch.testing.assert_close(found[level][0], truth)


def test_gibbs_sampling_leaves_the_exact_distribution_as_it_is(one: Machine):
    torch.manual_seed(1)
    states, n = all_states(one), 60_000
    p = torch.softmax(-one.energy(states), 0)
    rows = torch.multinomial(p, n, replacement=True)
    moved = one.gibbs([layer[rows] for layer in states], 2)
    code = torch.cat(moved, dim=1)
    for row in range(0, len(p), max(1, len(p) // 8)):
        target = torch.cat([layer[row] for layer in states])
        share = float((code == target).all(dim=1).double().mean())
        error = float((p[row] * (1 - p[row]) / n).sqrt())
        assert abs(share - float(p[row])) < 5 * error


def test_gibbs_sampling_finds_the_exact_distribution_from_one_state(one: Machine):
    torch.manual_seed(2)
    states, n = all_states(one), 20_000
    p = torch.softmax(-one.energy(states), 0)
    moved = one.gibbs([layer[:1].expand(n, -1).clone() for layer in states], 60)
    for level, layer in enumerate(states):
        truth = (p[:, None] * layer).sum(0)
        torch.testing.assert_close(moved[level].mean(0), truth, atol=5 * 0.5 / n**0.5, rtol=0)


def test_all_states_of_a_side_are_each_there_once(one: Machine):
    for levels in (one.even, one.odd):
        parts = list(one.states(levels, 5))
        rows = torch.cat([torch.cat([part[level] for level in levels], dim=1) for part in parts])
        assert len(rows) == len(rows.unique(dim=0)) == round(2 ** one.bits(levels))


@pytest.mark.parametrize("name", ["dbm", "deeper"])
def test_mean_field_lowers_its_free_energy_at_every_sweep(name: str):
    one = MACHINES[name]
    v = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.float64)[:, : one.units[0].size]
    bounds = torch.stack([one.bound(one.mean_field(v, sweeps)) for sweeps in range(12)])
    assert bool((bounds.diff(dim=0) >= -1e-12).all())
    assert bool((bounds[-1] > bounds[0]).all())


@pytest.mark.parametrize("name", ["dbm", "deeper"])
def test_the_bound_is_below_the_truth_and_at_its_fixed_point(name: str):
    one = MACHINES[name]
    states = all_states(one)
    v = states[0][-1:]
    same = (states[0] == v).all(dim=1)
    truth = float(torch.logsumexp(-one.energy([layer[same] for layer in states]), 0))
    found = one.mean_field(v, 200)
    assert truth - 1.0 < float(one.bound(found)) <= truth
    again = [layer.clone() for layer in found]
    for level in range(1, len(again)):
        one.mean([level], again)
        torch.testing.assert_close(again[level], found[level])


def test_with_one_hidden_layer_the_bound_is_exact():
    one = MACHINES["rbm"]
    states = all_states(one)
    v = states[0].unique(dim=0)
    found = one.bound(one.mean_field(v, 0))
    torch.testing.assert_close(found, -one.free_energy([v, v], one.even))


def test_mean_field_stops_when_nothing_moves():
    one = MACHINES["dbm"]
    v = torch.ones(2, 4, dtype=torch.float64)
    stopped = one.mean_field(v, 10_000, tolerance=1e-9)
    torch.testing.assert_close(stopped[1], one.mean_field(v, 300)[1], atol=1e-7, rtol=0)


def test_a_pair_sees_its_input_as_often_as_it_is_told():
    one = MACHINES["rbm"]
    pair = Machine(one.units, one.biases, one.weights, up=(2.0,), down=(3.0,))
    v, h = torch.rand(2, 4, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    torch.testing.assert_close(pair.input(1, [v, h]), 2 * v @ one.weights[0].T + one.biases[1])
    torch.testing.assert_close(pair.input(0, [v, h]), 3 * h @ one.weights[0] + one.biases[0])


def test_gaussian_units_have_the_density_that_their_partition_function_says():
    units, a = Gaussian(1), torch.tensor([[0.8]], dtype=torch.float64)
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    density = (a * grid).sum(1) - units.base(grid)
    log_z = torch.logsumexp(density, 0) + torch.log(grid[1] - grid[0])
    torch.testing.assert_close(log_z, units.log_partition(a))
    p = torch.softmax(density, 0)
    torch.testing.assert_close((p[:, None] * grid).sum(0), units.mean(a)[0])
    entropy = -(p * p.log()).sum() + torch.log(grid[1, 0] - grid[0, 0])
    lacking = (p * units.base(grid)).sum() - units.base(units.mean(a))[0]
    torch.testing.assert_close(units.entropy(a)[0], entropy - lacking, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    drawn = units.draw(a.expand(50_000, 1))
    assert abs(float(drawn.mean()) - 0.8) < 0.03 and abs(float(drawn.var()) - 1) < 0.03


def test_a_process_may_hold_no_chain_of_multinomial_units():
    units = Multinomial(6, 3)
    for found in (units.mean(torch.empty(0, 6)), units.draw(torch.empty(0, 6))):
        assert found.shape == (0, 6)


def test_states_of_gaussian_units_cannot_be_counted():
    with pytest.raises(InputError, match="cannot be counted"):
        Gaussian(2).states(torch.arange(3))
    assert Gaussian(2).bits == float("inf")


def test_an_inverse_temperature_scales_each_rows_input():
    one = MACHINES["dbm"]
    states = [torch.rand(3, units.size, dtype=torch.float64) for units in one.units]
    betas = torch.tensor([[0.2], [0.5], [1.0]], dtype=torch.float64)
    for level in range(3):
        torch.testing.assert_close(
            one.input(level, states, betas), betas * one.input(level, states)
        )
