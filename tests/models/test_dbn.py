import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from whatwhere import DBN
from whatwhere.core import Batch, HasLikelihood, InputError, Known, Walks
from whatwhere.learner import Spec
from whatwhere.models.dbn import (
    Ascended,
    DBNModule,
    Layer,
    UpDown,
    generative_slopes,
    recognition_slopes,
)
from whatwhere.nn.boltzmann import Binary, Machine
from whatwhere.nn.pixels import BINARY, GAUSSIAN, Drawn, Pixels
from whatwhere.objectives.divergence import Slopes
from whatwhere.train.trainer import Interrupted, Trainer

SPEC = Spec((1, 6, 6), 40, n_classes=3, n_labeled=30, class_counts=(10, 10, 10))
WELL: dict[str, Any] = {"pretraining_epochs": 100, "pretraining_rate": 0.3, "batch_size": 20}
SIGMAS = 5.0  # of statistical tests: one in a million


def tiny(*sizes: int, up_down: bool = False, kind: str = BINARY) -> DBNModule:
    """Return a module of 2 x 2 pixels whose parameters are far from 0, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = DBNModule(Pixels(kind, (1, 2, 2)), sizes, up_down=up_down).double()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
    if module.generative is not None:
        module.generative.untied.fill_(True)
    return module


def states(n: int) -> Tensor:
    return Binary(n).states(torch.arange(2**n)).double()


class World(NamedTuple):
    """What is exact of two layers: of each of the 16 images."""

    log_p: Tensor
    bound: Tensor


def unnormalized(machine: Machine, s: Tensor) -> Tensor:
    """Return log Σ_h exp(-E(s, h)) of states of a restricted machine's lower side, summed out."""
    upper = states(machine.units[1].size)
    total = s @ machine.weights[0].T @ upper.T + upper @ machine.biases[1]
    return total.logsumexp(dim=1) + s @ machine.biases[0]


def log_z(machine: Machine) -> Tensor:
    return unnormalized(machine, states(machine.units[0].size)).logsumexp(dim=0)


def log_p(machine: Machine, s: Tensor) -> Tensor:
    """Return the exact log-probability of states of a restricted machine's lower side."""
    return unnormalized(machine, s) - log_z(machine)


def bernoulli(s: Tensor, total: Tensor) -> Tensor:
    """Return log of the probability of each state at each total input, (inputs, states)."""
    return total @ s.T - F.softplus(total).sum(dim=1, keepdim=True)


def world(module: DBNModule) -> World:
    """Return the exact log p(v), and the exact bound of it, summed state by state."""
    v, h = states(4), states(module.stack[0].out_features)
    prior = log_p(module.top, h)
    joint = bernoulli(v, module.downward(0, h)).T + prior  # (v, h)
    log_q = bernoulli(h, module.stack[0](v))
    return World(joint.logsumexp(dim=1), (log_q.exp() * (joint - log_q)).sum(dim=1))


def as_images(v: Tensor) -> Tensor:
    return v.view(-1, 1, 2, 2)


def images(n: int = 40) -> np.ndarray:
    """Return bright bars at three places, and noise."""
    draws = np.random.default_rng(0)
    x = 0.2 * draws.random((n, 6, 6), dtype=np.float32)
    x[np.arange(n), :, 2 * (np.arange(n) % 3)] += 0.7
    return x


def labels(n: int = 40) -> np.ndarray:
    return np.arange(n) % 3


def small(architecture: str = "8fc-5fc", **params: Any) -> DBN:
    defaults: dict[str, Any] = {"pretraining_epochs": 2, "epochs": 1, "random_state": 0}
    return DBN(architecture, **(defaults | params))


def net_of(model: DBN) -> DBNModule:
    assert isinstance(model.module_, DBNModule)
    return model.module_


def ways_down(module: DBNModule) -> list[Tensor]:
    assert module.generative is not None
    return list(module.generative.weights)


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.zeros(len(x), dtype=torch.long), torch.arange(len(x)))


# The bound.


def test_a_layer_turned_over_leaves_the_likelihood_as_it_was_and_the_bound_tight():
    module = tiny(3, 4)
    module.turn_over(1)
    found = world(module)
    expected = log_p(module.stack[0].machine, states(4))
    torch.testing.assert_close(found.log_p, expected)
    torch.testing.assert_close(found.bound, expected)


def test_exact_training_of_a_layer_turned_over_never_lowers_the_bound():
    module = tiny(3, 4)
    module.turn_over(1)
    share = torch.rand(16, generator=torch.Generator().manual_seed(1)).double().softmax(dim=0)
    share = (8 * share).softmax(dim=0)  # of each image in the data
    parameters = list(module.stack[1].parameters())
    bounds = []
    for _ in range(100):
        found = world(module)
        bounds.append(float(share @ found.bound.detach()))
        assert bool((found.bound <= found.log_p + 1e-12).all())
        slopes = torch.autograd.grad(share @ found.bound, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.add_(slope, alpha=0.1)
    assert all(later >= earlier for earlier, later in pairwise(bounds))
    assert bounds[-1] > bounds[0] + 0.1
    # Where it began, the bound was the likelihood: so that rose too.
    assert float((share @ world(module).log_p).detach()) > bounds[-1]


@pytest.mark.parametrize("up_down", [False, True])
def test_what_draws_from_q_estimate_is_the_exact_bound(up_down: bool):
    module = tiny(3, 4, up_down=up_down)
    n = 2000
    with torch.no_grad():
        expected = world(module)
        assert bool((expected.bound < expected.log_p).all())
        torch.manual_seed(0)
        x = as_images(states(4).repeat_interleave(n, dim=0))
        found = -module.free_energy(x).view(16, n) - log_z(module.top)
    error = found.std(dim=1) / math.sqrt(n)
    assert bool(((found.mean(dim=1) - expected.bound).abs() < SIGMAS * error).all())


def test_the_bound_of_gaussian_pixels_is_that_of_their_density():
    module = tiny(3, 4, kind=GAUSSIAN)
    module.pixels.deviation.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    module.pixels.mean.fill_(0.3)
    n, x = 2000, torch.tensor([[0.1, 0.5, -1.0, 2.0]]).double()
    h = states(3)
    with torch.no_grad():
        # Pixels have the mean (and deviation) that the layer above gives, in units of their own.
        means = module.downward(0, h) * module.pixels.deviation + module.pixels.mean
        density = torch.distributions.Normal(means, module.pixels.deviation.double())
        joint = density.log_prob(x).sum(dim=1) + log_p(module.top, h)
        log_q = bernoulli(h, module.stack[0](module.pixels.states(as_images(x))))[0]
        expected = (log_q.exp() * (joint - log_q)).sum()
        torch.manual_seed(0)
        found = -module.free_energy(as_images(x.repeat(n, 1))) - log_z(module.top)
    assert abs(float(found.mean() - expected)) < SIGMAS * float(found.std()) / math.sqrt(n)


def test_a_single_layer_is_a_restricted_machine_whose_likelihood_is_exact():
    module = tiny(3)
    assert not module.is_bound and tiny(3, 4).is_bound
    assert isinstance(module, HasLikelihood) and isinstance(module, Walks)
    with torch.no_grad():
        expected = log_p(module.top, states(4)).float()
        module.float()
        found = -module.free_energy(as_images(states(4).float())) - module.log_partition().value
    torch.testing.assert_close(found, expected)


# Drawing.


@pytest.mark.parametrize("up_down", [False, True])
def test_a_walk_draws_the_images_that_the_net_gives_by_its_probabilities(up_down: bool):
    module, n = tiny(3, 4, up_down=up_down), 40_000
    with torch.no_grad():
        expected = world(module).log_p.exp()
        torch.manual_seed(0)
        state = module.walk(module.begin(torch.rand(n, 1, 2, 2).double()), 50)
        drawn = module.pixels.draw(module.look(state)).flatten(1)
    number = (drawn * 2 ** torch.arange(4)).sum(dim=1).long()
    found = torch.bincount(number, minlength=16) / n
    error = (expected * (1 - expected) / n).sqrt()
    assert bool(((found - expected).abs() < SIGMAS * error).all())


def test_one_layer_completes_what_is_known_by_the_exact_conditional():
    module, n = tiny(3), 40_000
    known = Known(torch.tensor([[[[1.0, 0.7], [0.0, 0.2]]]]), torch.tensor([[True, False]]))
    known = Known(known.x.double().repeat(n, 1, 1, 1), known.mask.expand(2, 2))
    with torch.no_grad():
        v = states(4)
        fits = (v[:, 0] == 1) & (v[:, 2] == 0)  # the left column is known
        expected = log_p(module.top, v)[fits].softmax(dim=0) @ v[fits]
        torch.manual_seed(0)
        state = module.walk(module.begin(torch.rand(n, 1, 2, 2).double()), 50, known)
        found = module.look(state).flatten(1)
    error = found.std(dim=0) / math.sqrt(n)
    unknown = [1, 3]
    assert bool(((found.mean(dim=0) - expected).abs() < SIGMAS * error)[unknown].all())


def test_known_pixels_say_what_the_others_are():
    x = images(120)
    net = net_of(small("12fc-8fc", **WELL).fit(x))
    seen = torch.from_numpy(x)[:, None]
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:3] = True
    torch.manual_seed(0)
    with torch.no_grad():
        state = net.walk(net.begin(torch.rand(120, 1, 6, 6)), 20, Known(seen, mask))
        hidden = net.look(state)[:, 0, 3:].mean(dim=1)  # (n, 6), of each column
    bar = hidden[torch.arange(120), torch.from_numpy(2 * labels(120))]
    others = (hidden[:, [0, 2, 4]].sum(dim=1) - bar) / 2
    assert float((bar > others + 0.2).float().mean()) > 0.8


def test_images_are_rebuilt_by_means_up_and_down():
    module = tiny(3, 4, up_down=True)
    with torch.no_grad():
        v = states(4)
        first, second = module.stack
        assert module.generative is not None
        h = torch.sigmoid(second(torch.sigmoid(first(v))))
        s = torch.sigmoid(h @ second.weight + second.visible_bias)
        expected = torch.sigmoid(s @ module.generative.weights[0] + first.visible_bias)
        torch.testing.assert_close(module.encode(as_images(v)), h)
        torch.testing.assert_close(module.reconstruct(as_images(v)).flatten(1), expected)


# Up-down.


def assert_slopes(loss: Tensor, slopes: Slopes) -> None:
    """Assert that slopes are what autograd finds."""
    found = torch.autograd.grad(loss, [parameter for parameter, _ in slopes])
    for expected, (_, slope) in zip(found, slopes, strict=True):
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("kind", [BINARY, GAUSSIAN])
def test_the_delta_rule_of_each_way_is_the_gradient_of_its_log_probability(kind: str):
    module = tiny(3, 5, 2, up_down=True, kind=kind)
    v, h1, h2 = chain = module.ascend(states(4), 2)
    assert module.generative is not None
    loss = torch.zeros(()).double()
    for level, (s, above) in enumerate([(v, h1), (h1, h2)]):
        mean = above @ module.generative.weights[level] + module.stack[level].visible_bias
        if kind == GAUSSIAN and level == 0:
            loss = loss - torch.distributions.Normal(mean, 1.0).log_prob(s).sum() / 16
        else:
            loss = loss + F.binary_cross_entropy_with_logits(mean, s, reduction="sum") / 16
    told, slopes = generative_slopes(module, chain, 16)
    assert [p for p, _ in slopes] == [
        module.generative.weights[0],
        module.stack[0].visible_bias,
        module.generative.weights[1],
        module.stack[1].visible_bias,
    ]
    assert_slopes(loss, slopes)
    torch.testing.assert_close(told, loss)

    loss = torch.zeros(()).double()
    for layer, s, above in zip(module.stack, [v, h1], [h1, h2], strict=False):
        total = s @ layer.weight.T + layer.bias
        loss = loss + F.binary_cross_entropy_with_logits(total, above, reduction="sum") / 16
    told, slopes = recognition_slopes(module, chain, 16)
    ways = module.stack[:-1]
    assert [p for p, _ in slopes] == [p for way in ways for p in (way.weight, way.bias)]
    assert_slopes(loss, slopes)
    torch.testing.assert_close(told, loss)


def test_up_down_moves_every_parameter_of_both_ways_once():
    for sizes in [(3,), (3, 5), (3, 5, 2)]:
        module = tiny(*sizes, up_down=True)
        rule = UpDown(module, steps=3, centered=True).double()
        with torch.no_grad():
            terms, slopes = rule(module, batch_of(states(4)))
        moved = [id(parameter) for parameter, _ in slopes]
        assert sorted(moved) == sorted(map(id, module.parameters()))
        assert all(parameter.shape == slope.shape for parameter, slope in slopes)
        assert terms.keys() == {"gap", "active", "wake", "sleep"}


def test_up_down_raises_the_likelihood():
    module = tiny(3, 4, up_down=True)
    data = states(4)[[3, 12]].repeat(50, 1)
    rule = UpDown(module, steps=5, centered=False).double()
    torch.manual_seed(0)
    with torch.no_grad():
        before = world(module)
        for _ in range(1000):
            _, slopes = rule(module, batch_of(data))
            for parameter, slope in slopes:
                parameter.sub_(slope, alpha=0.1)
        after = world(module)
    seen = [3, 12]
    assert float(after.log_p[seen].mean()) > max(float(before.log_p[seen].mean()), math.log(0.25))
    assert float(after.bound[seen].mean()) > float(before.bound[seen].mean())


def test_the_way_down_is_the_way_up_until_up_down_parts_them():
    learner = small("8fc-5fc-4fc", up_down_epochs=2, stage_epochs={"up-down": 0})
    greedy = net_of(learner.fit(images()))
    plain = net_of(small("8fc-5fc-4fc").fit(images()))
    assert plain.generative is None and greedy.generative is not None
    assert not bool(greedy.generative.untied)
    h = torch.rand(3, 8)
    tied = greedy.downward(0, h)
    torch.testing.assert_close(tied, greedy.stack[0].visible_bias + h @ greedy.stack[0].weight)
    greedy.untie()
    assert bool(greedy.generative.untied)
    for level in (0, 1):
        layer = greedy.stack[level]
        assert torch.equal(ways_down(greedy)[level], layer.weight)
        assert torch.equal(layer.weight, plain.stack[level].weight)
        h = torch.rand(3, layer.out_features)
        expected = layer.visible_bias + h @ layer.weight
        for module in (greedy, plain):
            torch.testing.assert_close(module.downward(level, h), expected)
    parted = net_of(small("8fc-5fc-4fc", up_down_epochs=2).fit(images()))
    for level in (0, 1):
        down, up = ways_down(parted)[level], parted.stack[level].weight
        before = greedy.stack[level].weight
        assert not torch.equal(down, before)
        assert not torch.equal(up, before)
        assert not torch.equal(down, up)


def test_greedy_training_ties_both_ways_again():
    first = small(up_down_epochs=2).fit(images())
    none = {"layer1": 0, "layer2": 0, "up-down": 0}
    kept = net_of(small(up_down_epochs=2, stage_epochs=none).fit(images(), start=first))
    for name, value in first.module_.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value), name
    learner = small(up_down_epochs=2, stage_epochs={"up-down": 0})
    again = net_of(learner.fit(images(), start=first))
    assert again.generative is not None and not bool(again.generative.untied)


def test_up_down_stopped_after_any_step_goes_on_to_the_same_bits(tmp_path: Path):
    whole = net_of(small(up_down_epochs=2, batch_size=20).fit(images())).state_dict()
    for last in range(9, 15):  # of 14: those of the last layer and of up-down
        asked = iter(range(1, last + 1))
        trainer = Trainer(
            checkpoint=tmp_path / str(last), stop=lambda a=asked, n=last: next(a) == n
        )
        learner = small(up_down_epochs=2, batch_size=20, trainer=trainer)
        with pytest.raises(Interrupted):
            learner.fit(images())
        trainer.stop = lambda: False
        rest = net_of(learner.fit(images())).state_dict()
        assert all(torch.equal(value, whole[name]) for name, value in rest.items()), last


# The stages.


def test_each_layer_is_a_stage_and_labels_come_last():
    _, stages = small("8fc-5fc-4fc", up_down_epochs=1).plan(SPEC)
    names = ["pixels", "layer1", "layer2", "layer3", "up-down", "fine-tuning"]
    assert [stage.name for stage in stages] == names
    _, stages = small().plan(SPEC._replace(n_classes=0))
    assert [stage.name for stage in stages] == ["pixels", "layer1", "layer2"]


def test_a_layer_sees_states_that_the_layers_below_draw():
    module = small("8fc-5fc-4fc").build(SPEC)
    view = Ascended(module, 2, Drawn(module.pixels, binarize=True))
    x = torch.from_numpy(images())[:, None]
    torch.manual_seed(0)
    with torch.no_grad():
        seen = torch.stack([view(batch_of(x)).x for _ in range(2)])
        torch.manual_seed(0)
        below = [module.ascend(module.pixels.draw(x).flatten(1), 2) for _ in range(2)]
    assert seen.shape == (2, 40, 5)
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(*seen)
    assert torch.equal(seen, torch.stack([chain[2] for chain in below]))


def test_while_a_layer_learns_all_others_stand_still():
    learner = small("8fc-5fc-4fc", stage_epochs={"layer1": 0, "layer3": 0})
    learner.fit(images())
    before = learner.build(learner.spec_).state_dict()
    for name, value in learner.module_.state_dict().items():
        if name.startswith("layers") and not name.endswith("begun"):
            looked = name == "layers.0.visible_bias"  # at the pixels
            moved = name.startswith("layers.1") or looked
            assert torch.equal(value, before[name]) != moved, name


def test_a_layer_begins_turned_over_only_where_its_sizes_and_units_allow_it():
    def begun(learner: DBN) -> list[Layer]:
        module, stages = learner.plan(SPEC)
        assert isinstance(module, DBNModule)
        for stage in stages:
            stage.prepare()
        return module.stack

    first, second, third = begun(small("8fc-5fc-8fc"))
    assert not torch.equal(second.weight, first.weight.T[:5])
    assert torch.equal(third.weight, second.weight.T)
    assert torch.equal(third.visible_bias, second.bias)
    assert torch.equal(third.bias, second.visible_bias)
    for visible in (BINARY, GAUSSIAN):
        first, second = begun(small("8fc-36fc", visible=visible))
        assert torch.equal(second.weight, first.weight.T) == (visible == BINARY)


def test_labels_train_a_net_that_begins_as_the_layers_and_leave_the_layers_alone():
    begun = net_of(small(stage_epochs={"fine-tuning": 0}).fit(images(), labels()))
    begun.transfer()
    assert begun.net is not None
    for own, layer in zip(begun.net.linear, begun.stack, strict=True):
        assert torch.equal(own.weight, layer.weight) and torch.equal(own.bias, layer.bias)
    x = torch.from_numpy(images())[:, None]
    without = net_of(small().fit(images()))
    with torch.no_grad():
        torch.testing.assert_close(begun.encode(x), without.encode(x))
    tuned = net_of(small().fit(images(), labels()))
    assert tuned.net is not None
    for name, value in tuned.layers.state_dict().items():
        assert torch.equal(value, begun.layers.state_dict()[name]), name
    for own, layer in zip(tuned.net.linear, tuned.stack, strict=True):
        assert not torch.equal(own.weight, layer.weight)


def test_a_net_that_is_fine_tuned_names_classes():
    model = small(pretraining_epochs=20, epochs=10, learning_rate=0.01).fit(images(), labels())
    assert model.score(images(), labels()) > 0.95
    assert any("gradient/layer1" in record for record in model.history_)


def test_a_run_goes_on_with_the_net_that_another_one_tuned():
    first = small().fit(images(), labels())
    none = {"layer1": 0, "layer2": 0, "fine-tuning": 0}
    second = small(stage_epochs=none).fit(images(), labels(), start=first)
    for name, value in first.module_.state_dict().items():
        assert torch.equal(second.module_.state_dict()[name], value), name


def test_greedy_training_raises_the_bound():
    bounds = []
    for epochs in (1, 100):
        net = net_of(small("12fc-8fc", **(WELL | {"pretraining_epochs": epochs})).fit(images(120)))
        torch.manual_seed(0)
        with torch.no_grad():
            x = net.likely(torch.from_numpy(images(120))[:, None])
            bounds.append(-float(net.free_energy(x).mean()) - net.log_partition().value)
    # Independent pixels have -17.3 at best, three kinds of images -13.9.
    assert bounds[0] < -17.3 < bounds[1] - 1


def test_gaussian_pixels_are_learned_at_a_smaller_rate():
    def rates(visible: str) -> list[float]:
        learner = small(visible=visible, up_down_epochs=1, batch_size=20).fit(images())
        names = ("layer1", "layer2", "up-down")
        rates = {r["stage"]: r["learning_rate"] for r in learner.history_ if r["stage"] in names}
        return [rates[name] for name in names]

    for binary, gaussian, share in zip(
        rates(BINARY), rates(GAUSSIAN), (0.02, 1, 0.02), strict=True
    ):
        assert gaussian == pytest.approx(share * binary)


# What a user can get wrong.


@pytest.mark.parametrize("architecture", ["(4)3c-2p-5fc", "2p", "3fc"])
def test_a_net_that_has_no_hidden_layers_or_others_than_dense_ones_is_refused(architecture: str):
    with pytest.raises(InputError, match="dense") as error:
        small(architecture).fit(images(), labels())
    assert repr(architecture) in str(error.value) and "\n" not in str(error.value)


def test_a_last_layer_with_a_unit_for_each_class_is_the_class_layer():
    net: Any = small("8fc-3fc").fit(images(), labels()).module_
    assert net.head.in_features == 8
    alone: Any = small("8fc-3fc").fit(images()).module_
    assert alone.head is None and alone.encode(torch.zeros(1, *alone.pixels.shape)).shape == (1, 3)


def test_binary_pixels_beyond_0_and_1_are_refused():
    learner = small(visible="binary", value_range=(-1.0, 1.0))
    learner.fit(images())  # a range is scaled to [0, 1]
    with pytest.raises(InputError, match="gaussian"):
        learner.build(SPEC._replace(bounds=(-1.0, 1.0)))
