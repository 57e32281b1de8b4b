"""log Z: exact sums, annealed importance sampling there and back."""

import itertools
from math import log

import pytest
import torch

from whatwhere.core import InputError
from whatwhere.nn import annealing
from whatwhere.nn.boltzmann import Binary, Gaussian, Machine, Multinomial, Units

SCHEDULE = ((0.0, 0.5, 20), (0.5, 1.0, 180))


def machine(*units: Units, scale: float = 0.3, seed: int = 0) -> Machine:
    drawn = torch.Generator().manual_seed(seed)
    sizes = [unit.size for unit in units]
    return Machine(
        units,
        [scale * torch.randn(n, generator=drawn) for n in sizes],
        [
            scale * torch.randn(high, low, generator=drawn)
            for low, high in itertools.pairwise(sizes)
        ],
    )


MACHINES = {
    "rbm": machine(Binary(30), Binary(12)),
    "labels": machine(Binary(20), Binary(10), Multinomial(4, 4)),
    "dbm": machine(Binary(20), Binary(10), Binary(8)),
    "gaussian": machine(Gaussian(15), Binary(8), scale=0.2),
    "grays": machine(Multinomial(24, 3), Binary(8)),
    "mixture": machine(Binary(20), Multinomial(6, 6)),
}


@pytest.fixture(params=MACHINES)
def one(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


def test_both_sides_have_the_same_sum():
    for name in ("rbm", "labels"):
        one = machine(*(type(u)(*((6, 3) if isinstance(u, Multinomial) else (7,)))
                        for u in MACHINES[name].units))  # fmt: skip
        sums = [
            torch.cat([-one.free_energy(s, side) for s in one.states(side, 64)]).logsumexp(0)
            for side in (one.even, one.odd)
        ]
        torch.testing.assert_close(sums[0], sums[1])
        assert annealing.exact(one).value == pytest.approx(float(sums[0]), abs=1e-4)


def test_without_weights_log_z_is_the_sum_over_units():
    one = machine(Binary(9), Binary(5))
    one = Machine(one.units, one.biases, [torch.zeros(5, 9)])
    truth = sum(float(torch.log1p(b.exp()).sum()) for b in one.biases)
    assert annealing.exact(one).value == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("based", [False, True])
def test_annealing_is_within_a_few_errors_of_the_exact_sum(one: Machine, based: bool):
    torch.manual_seed(0)
    base = 0.5 * torch.randn(one.units[0].size) if based else None
    truth = annealing.exact(one).value
    found = annealing.estimate(one, base, schedule=SCHEDULE, n_chains=200)
    assert abs(found.value - truth) < 0.1
    assert found.low - 0.05 < truth < found.high + 0.05
    assert found.low < found.value < found.high


def test_from_the_machine_itself_as_base_nothing_is_left_to_estimate():
    one = machine(Binary(9), Binary(5))
    one = Machine(one.units, [one.biases[0], torch.zeros(5)], [torch.zeros(5, 9)])
    found = annealing.estimate(one, one.biases[0], schedule=((0.0, 1.0, 3),), n_chains=5)
    assert found.value == pytest.approx(annealing.exact(one).value, abs=1e-4)
    assert found.high - found.low < 1e-4


def test_with_few_temperatures_the_way_there_errs_below_and_the_way_back_above():
    torch.manual_seed(0)
    one = machine(Binary(40), Binary(14), scale=0.8)
    truth, short = annealing.exact(one).value, ((0.0, 1.0, 3),)
    _, log_ps = None, torch.cat([-one.free_energy(s, one.odd) for s in one.states(one.odd, 4096)])
    hidden = next(one.states(one.odd, 2**14))[1]
    h = hidden[torch.multinomial(torch.softmax(log_ps, 0), 400, replacement=True)]
    states = [torch.empty(0), h]
    one.draw(one.even, states)  # draws from the machine
    log_base, there = annealing.forward(one, None, short, 400)
    _, back = annealing.backward(one, None, short, states)
    assert log_base + float(there.mean()) < truth < log_base - float(back.mean())
    close = annealing.estimate(one, None, schedule=((0.0, 1.0, 2000),), n_chains=100, states=states)
    assert close.reverse is not None
    assert abs(close.value - truth) < 0.3 and abs(close.reverse - truth) < 0.3


def test_the_published_temperatures_are_14500_and_denser_towards_the_machine():
    betas = annealing.temperatures(annealing.PUBLISHED)
    assert len(betas) == 14_501 and betas[0] == 0 and betas[-1] == 1
    steps = torch.tensor(betas).double().diff()
    assert bool((steps > 0).all())
    assert steps[:500].mean() == pytest.approx(1e-3, rel=1e-4)
    assert steps[-10_000:].mean() == pytest.approx(1e-5, rel=1e-3)


def test_a_machine_with_too_many_states_is_refused():
    with pytest.raises(InputError, match=r"2\^26"):
        annealing.exact(machine(Binary(30), Binary(26)))
    with pytest.raises(InputError, match="no end"):
        annealing.exact(machine(Gaussian(30), Gaussian(26), scale=0.01))


def test_the_interval_is_three_errors_of_the_mean_of_weights():
    logs = torch.tensor([0.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    mean, error = float(logs.exp().mean()), 3 * float(logs.exp().std()) / 2
    value, low, high = annealing.spread(logs)
    assert value == pytest.approx(log(mean))
    assert (low, high) == (pytest.approx(log(mean - error)), pytest.approx(log(mean + error)))
    shifted = annealing.spread(logs + 1000)
    assert shifted[0] == pytest.approx(value + 1000)
    assert annealing.spread(torch.tensor([0.0, 50.0], dtype=torch.float64))[1] == float("-inf")


def test_an_estimate_ruled_by_few_chains_says_that_it_is_likely_too_small():
    torch.manual_seed(0)
    one = machine(Binary(40), Binary(14), scale=2.0)
    truth = annealing.exact(one).value
    few = annealing.estimate(one, schedule=((0.0, 1.0, 3),), n_chains=50)
    many = annealing.estimate(one, schedule=((0.0, 1.0, 2000),), n_chains=50)
    assert few.low == float("-inf") and few.value < truth - 3
    assert "too few" in few.how and "likely larger" in few.how
    assert many.how == "annealed importance sampling, 50 chains, 2,000 temperatures"
    assert many.low < truth < many.high


@pytest.mark.parametrize(("weights", "n"), [([3.0] * 7, 7.0), ([0.0, 99.0], 1.0), ([0.0] * 3, 3.0)])
def test_equal_weights_count_fully_and_a_single_large_one_alone(weights: list[float], n: float):
    logs = torch.tensor(weights, dtype=torch.float64) + 1000
    assert annealing.effective(logs) == pytest.approx(n)
