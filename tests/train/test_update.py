from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from whatwhere.core import Batch, Terms
from whatwhere.train.update import GradientUpdate, LinearDecay


class Pair(nn.Module):
    """Two players: one pulls the product down, the other up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 1)
        self.second = nn.Linear(2, 1)

    def product(self, x: Tensor) -> Tensor:
        return (self.first(x) * self.second(x)).mean()


class Vector(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def batch(n: int = 4, seed: int = 0) -> Batch:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return Batch(x, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def down(pair: Pair, batch: Batch) -> Terms:
    return {"product": pair.product(batch.x)}


def up(pair: Pair, batch: Batch) -> Terms:
    return {"product": -pair.product(batch.x)}


def linear(vector: Vector, batch: Batch) -> Terms:
    return {"sum": vector.w.sum()}


def bits(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(0)
    return Pair()


sgd: Callable[..., partial[Optimizer]] = partial(partial, SGD)


# One player.


def test_a_step_is_the_optimizers_step_on_the_sum_of_the_terms(fabric, pair: Pair):
    def two_terms(pair: Pair, batch: Batch) -> Terms:
        return {"product": pair.product(batch.x), "size": 0.5 * pair.first.weight.square().sum()}

    torch.manual_seed(0)
    twin = Pair()
    update = GradientUpdate(pair, two_terms, partial(Adam, lr=0.1))
    update.start(fabric)
    adam = Adam(twin.parameters(), lr=0.1)
    for seed in range(5):
        said = update.step(batch(seed=seed), 0.0)
        adam.zero_grad()
        expected = two_terms(twin, batch(seed=seed))
        (expected["product"] + expected["size"]).backward()
        adam.step()
        assert list(said) == list(expected)
        assert all(torch.equal(said[name], expected[name]) for name in said)
    assert same(bits(pair), bits(twin))


def test_lbfgs_finds_the_minimum_of_a_quadratic(fabric):
    a = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([1.0, -1.0], dtype=torch.float64)
    vector = Vector(5, 5)

    def quadratic(vector: Vector, batch: Batch) -> Terms:
        return {"f": 0.5 * vector.w @ a @ vector.w - b @ vector.w}

    # Without a line search only gradients count, and these are in float64.
    lbfgs = partial(LBFGS, max_iter=50, tolerance_grad=1e-12, tolerance_change=0)
    update = GradientUpdate(vector, quadratic, lbfgs)
    update.start(fabric)
    update.step(batch(), 0.0)
    torch.testing.assert_close(vector.w.detach(), torch.linalg.solve(a, b), rtol=1e-9, atol=1e-9)


def test_the_constraint_holds_after_each_step(fabric):
    vector = Vector(3, 4)

    def project() -> None:
        vector.w.div_(vector.w.norm())

    update = GradientUpdate(vector, linear, sgd(lr=0.5), constraint=project)
    update.start(fabric)
    for _ in range(4):
        update.step(batch(), 0.0)
        assert vector.w.norm().item() == pytest.approx(1, abs=1e-12)


def test_a_schedule_multiplies_the_learning_rate(fabric):
    vector = Vector(0)
    update = GradientUpdate(vector, linear, sgd(lr=0.5), schedule=lambda progress: 1 - progress)
    update.start(fabric)
    for progress, place in [(0.0, -0.5), (0.5, -0.75), (0.75, -0.875)]:
        update.step(batch(), progress)
        assert vector.w.item() == place
    assert update.end_epoch() == {"learning_rate": 0.125}


@pytest.mark.parametrize(
    ("start", "progress", "factor"),
    [(0.0, 0.0, 1), (0.0, 0.25, 0.75), (0.5, 0.4, 1), (0.5, 0.5, 1), (0.5, 0.75, 0.5)],
)
def test_linear_decay_is_constant_and_then_falls_to_0(start: float, progress: float, factor: float):
    assert LinearDecay(start)(progress) == pytest.approx(factor)


def test_linear_decay_ends_at_0():
    assert LinearDecay(0.3)(1 - 1e-9) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_clipping_bounds_the_gradient_of_all_that_moves_together(fabric, factor: float):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Vector(0, 0), Vector(0, 0)

    def steep(two: Two, batch: Batch) -> Terms:
        return {"sum": factor * (two.a.w.sum() + two.b.w.sum())}

    two = Two()
    update = GradientUpdate(two, steep, sgd(lr=1.0), clip=0.3)
    update.start(fabric)
    update.step(batch(), 0.0)
    moved = torch.cat([two.a.w, two.b.w]).norm().item()
    assert moved == pytest.approx(min(0.3, 2 * factor), rel=1e-4)


def test_an_objective_with_state_is_moved_along_and_kept(fabric, pair: Pair):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, pair: Pair, batch: Batch) -> Terms:
            self.calls += 1
            return down(pair, batch)

    update = GradientUpdate(pair, Counting(), sgd(lr=0.1))
    update.start(fabric)
    update.step(batch(), 0.0)
    update.step(batch(), 0.0)
    again = GradientUpdate(pair, objective := Counting(), sgd(lr=0.1))
    again.start(fabric)
    again.load_state_dict(update.state_dict())
    assert objective.calls == 2


# Several players.


def test_a_player_moves_its_own_part_and_no_other(fabric, pair: Pair):
    game = [
        GradientUpdate(pair, down, partial(Adam, lr=0.1), parts=[pair.first], name="first"),
        GradientUpdate(pair, up, partial(Adam, lr=0.1), parts=[pair.second], name="second"),
    ]
    for update in game:
        update.start(fabric)
    for seed in range(3):
        for update, own, other in zip(
            game, (pair.first, pair.second), (pair.second, pair.first), strict=True
        ):
            own_before, other_before = bits(own), bits(other)
            update.step(batch(seed=seed), 0.0)
            assert not same(bits(own), own_before)
            assert same(bits(other), other_before)


def test_the_others_are_frozen_while_a_player_moves_and_free_again_after_it(fabric, pair: Pair):
    seen = []

    def watched(pair: Pair, batch: Batch) -> Terms:
        seen.append([p.requires_grad for p in pair.parameters()])
        return down(pair, batch)

    update = GradientUpdate(pair, watched, sgd(lr=0.1), parts=[pair.first])
    update.start(fabric)
    assert all(p.requires_grad for p in pair.parameters())
    update.step(batch(), 0.0)
    assert seen == [[True, True, False, False]]
    assert all(p.requires_grad for p in pair.parameters())
    assert all(p.grad is None for p in pair.second.parameters())


def test_the_others_are_free_again_after_a_step_that_fails(fabric, pair: Pair):
    def broken(pair: Pair, batch: Batch) -> Terms:
        raise ArithmeticError("of the objective")

    update = GradientUpdate(pair, broken, sgd(lr=0.1), parts=[pair.first])
    update.start(fabric)
    with pytest.raises(ArithmeticError, match="of the objective"):
        update.step(batch(), 0.0)
    assert all(p.requires_grad for p in pair.parameters())


def test_what_was_frozen_by_hand_stays_so(fabric, pair: Pair):
    pair.first.bias.requires_grad_(False)
    pair.second.bias.requires_grad_(False)
    before = [pair.first.bias.clone(), pair.second.bias.clone()]
    update = GradientUpdate(pair, down, sgd(lr=0.1), parts=[pair.first])
    update.start(fabric)
    update.step(batch(), 0.0)
    assert [pair.first.bias, pair.second.bias] == before
    assert not pair.first.bias.requires_grad
    assert not pair.second.bias.requires_grad


def test_a_parameter_that_two_parts_share_moves_once(fabric):
    one, other = Vector(0), Vector(0)
    other.w = one.w
    both = nn.ModuleList([one, other])

    def objective(both: nn.ModuleList, batch: Batch) -> Terms:
        return {"w": next(both.parameters()).sum()}

    update = GradientUpdate(both, objective, sgd(lr=1.0), parts=[one, other])
    update.start(fabric)
    update.step(batch(), 0.0)
    assert one.w.item() == -1


def test_only_the_parts_that_move_are_in_training_mode(fabric, pair: Pair):
    update = GradientUpdate(pair, down, sgd(lr=0.1), parts=[pair.second])
    update.start(fabric)
    pair.eval()
    update.begin_epoch()
    assert (pair.first.training, pair.second.training) == (False, True)


# Averages.


def test_the_average_is_an_exponential_one(fabric):
    torch.manual_seed(0)
    vector, decay, slow = Vector(1, -2), 0.9, torch.zeros(2, dtype=torch.float64)
    update = GradientUpdate(
        vector, lambda v, b: {"f": (v.w * v.w.detach().cos()).sum()}, sgd(lr=0.3), average=decay
    )
    update.start(fabric)
    for step in range(6):
        update.step(batch(), 0.0)
        now = vector.w.detach().clone()
        slow = now if step == 0 else decay * slow + (1 - decay) * now
        with update.evaluating():
            torch.testing.assert_close(vector.w.detach(), slow, rtol=1e-12, atol=1e-12)
        assert torch.equal(vector.w.detach(), now)
    update.finish()
    torch.testing.assert_close(vector.w.detach(), slow, rtol=1e-12, atol=1e-12)


def test_the_average_takes_the_statistics_of_batch_norm_along(fabric):
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    update = GradientUpdate(net, lambda n, b: {"f": n(b.x).mean()}, sgd(lr=0.1), average=0.5)
    update.start(fabric)
    update.begin_epoch()
    slow = torch.zeros(2)
    for seed in range(4):
        update.step(batch(seed=seed), 0.0)
        now = net.state_dict()["0.running_mean"].clone()
        slow = now if seed == 0 else 0.5 * slow + 0.5 * now
    update.finish()
    torch.testing.assert_close(net[0].running_mean, slow)


def test_nothing_is_put_back_where_nothing_was_averaged(fabric):
    vector = Vector(1)
    update = GradientUpdate(vector, linear, sgd(lr=1.0))
    update.start(fabric)
    update.step(batch(), 0.0)
    with update.evaluating():
        assert vector.w.item() == 0
    update.finish()
    assert vector.w.item() == 0


# Going on.


@pytest.mark.parametrize(
    "optimizer", [partial(Adam, lr=0.1), partial(SGD, lr=0.1, momentum=0.9), partial(LBFGS, lr=0.1)]
)
def test_an_update_goes_on_from_its_state_to_the_same_bits(fabric, optimizer, pair: Pair):
    torch.manual_seed(0)
    twin = Pair()
    rules = {"average": 0.9, "schedule": LinearDecay()}
    whole = GradientUpdate(pair, down, optimizer, **rules)
    whole.start(fabric)
    for seed in range(3):
        whole.step(batch(seed=seed), seed / 6)
    state = deepcopy(whole.state_dict())
    twin.load_state_dict(pair.state_dict())
    rest = GradientUpdate(twin, down, optimizer, **rules)
    rest.start(fabric)
    rest.load_state_dict(state)
    for seed in range(3, 6):
        whole.step(batch(seed=seed), seed / 6)
    for seed in range(3, 6):
        rest.step(batch(seed=seed), seed / 6)
    assert same(bits(pair), bits(twin))
    whole.finish()
    rest.finish()
    assert same(bits(pair), bits(twin))


def test_the_stage_table_says_who_moves_and_by_what_rule(pair: Pair):
    optimizer = partial(Adam, lr=0.01, weight_decay=0.0)
    update = GradientUpdate(
        pair, down, optimizer, parts=[pair.first], name="down", clip=1.0, average=0.99,
        schedule=LinearDecay(0.5),
    )  # fmt: skip
    assert str(update) == (
        "down: Adam (lr 0.01) on first; schedule constant, then linearly to 0 from 50% of the "
        "stage; gradient clipped at 1; weights averaged (0.99)"
    )
    assert str(GradientUpdate(pair, down, optimizer)) == "loss: Adam (lr 0.01) on all"


def test_the_norm_of_a_step_is_that_of_the_gradient(fabric):
    vector = Vector(0, 0, 0)
    update = GradientUpdate(vector, linear, sgd(lr=1.0))
    update.start(fabric)
    update.step(batch(), 0.0)
    assert vector.w.norm().item() == pytest.approx(sqrt(3))


def test_a_part_that_is_a_view_is_told_by_the_layers_and_parameters_that_it_moves(pair):
    view = nn.ParameterList([*pair.first.parameters(), pair.second.bias])
    update = GradientUpdate(pair, down, sgd(lr=0.1), parts=[view], schedule=LinearDecay())
    assert str(update) == ("loss: SGD (lr 0.1) on first, second.bias; schedule linearly to 0")
