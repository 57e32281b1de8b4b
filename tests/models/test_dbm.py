"""Deep Boltzmann machine: bounds below exact sums, and pairs that see double."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from whatwhere import DBM, RBM
from whatwhere.core import HasLikelihood, InputError, Known, Walks
from whatwhere.learner import Spec
from whatwhere.models.dbm import DBMModule
from whatwhere.train.update import GradientUpdate


def digits(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x[:n] > 7).reshape(-1, 8, 8).astype(np.float32), y[:n]


def module(architecture: str = "4fc-3fc", n_classes: int = 0, scale: float = 0.7) -> DBMModule:
    """Return a machine of 2 x 3 pixels with weights of some size."""
    spec = Spec((1, 2, 3), n_samples=10, n_classes=n_classes, n_labeled=5, seed=1)
    net = DBM(architecture, pretraining_epochs=1).build(spec)
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=drawn))
    return net.eval()


def all_images() -> Tensor:
    return torch.tensor(list(product([0.0, 1.0], repeat=6))).view(-1, 1, 2, 3)


def exact(net: DBMModule) -> Tensor:
    """Return log p of all images, by a sum over all states of all layers."""
    machine, found = net.machine, []
    sizes = [units.size for units in machine.units[1:]]
    hidden = torch.tensor(list(product([0.0, 1.0], repeat=sum(sizes))))
    for v in all_images().flatten(1):
        states = [v.expand(len(hidden), 6), *hidden.split(sizes, dim=1)]
        found.append(torch.logsumexp(-machine.energy(states).double(), 0))
    unnormalized = torch.stack(found)
    return unnormalized - unnormalized.logsumexp(0)


@pytest.mark.parametrize("architecture", ["4fc-3fc", "3fc-2fc-3fc"])
def test_the_bound_is_below_the_exact_likelihood_and_near_it(architecture: str):
    net = module(architecture)
    with torch.no_grad():
        log_z, truth = net.log_partition(), exact(net)
        bound = -net.free_energy(all_images()).double() - log_z.value
    assert log_z.how.startswith("exact") and net.is_bound
    assert bool((bound <= truth + 1e-4).all())
    assert float((truth - bound).mean()) < 0.3


def test_with_one_hidden_layer_it_is_a_restricted_machine_and_nothing_is_a_bound():
    net = module("4fc")
    with torch.no_grad():
        told = -net.free_energy(all_images()).double() - net.log_partition().value
    torch.testing.assert_close(told, exact(net), atol=1e-4, rtol=0)
    assert not net.is_bound
    x, _ = digits(200)
    settings: dict[str, Any] = {"random_state": 0, "batch_size": 20}
    deep: Any = DBM("5fc", joint_epochs=3, joint_rate=0.05, **settings).fit(x).module_
    flat: Any = RBM(5, epochs=3, learning_rate=0.05, decay_from=0.0, **settings).fit(x).module_
    images = torch.from_numpy(x[:, None])
    with torch.no_grad():
        told = [float(-net.free_energy(images).mean()) for net in (deep, flat)]
    log_z = [net.log_partition().value for net in (deep, flat)]
    assert abs(told[0] - log_z[0] - (told[1] - log_z[1])) < 0.5


@pytest.mark.parametrize("pretraining_epochs", [0, 30])
def test_annealing_finds_the_exact_sum_of_a_trained_machine(pretraining_epochs: int):
    from whatwhere.nn import annealing

    x, _ = digits()
    settings: dict[str, Any] = {"pretraining_epochs": pretraining_epochs, "random_state": 0}
    net: Any = DBM("20fc-8fc", joint_epochs=30, **settings).fit(x).module_
    truth = annealing.exact(net.machine).value
    torch.manual_seed(0)
    found = annealing.estimate(net.machine, net.pixels.base, schedule=annealing.SHORT)
    assert abs(found.value - truth) < 0.3


def test_the_machines_input_to_a_layer_is_the_mean_of_what_both_of_its_pairs_give_it():
    net = module("4fc-3fc-2fc")
    net.join()
    whole, pairs = net.machine, [net.pair(level) for level in range(3)]
    v, h1, h2, h3 = (torch.rand(5, units.size) for units in whole.units)
    torch.testing.assert_close(
        whole.input(1, [v, h1, h2, h3]),
        (pairs[0].input(1, [v, h1]) + pairs[1].input(0, [h1, h2])) / 2,
    )
    torch.testing.assert_close(
        whole.input(2, [v, h1, h2, h3]),
        (pairs[1].input(1, [h1, h2]) + pairs[2].input(0, [h2, h3])) / 2,
    )
    # What has a neighbor on one side alone sees nothing twice.
    torch.testing.assert_close(whole.input(0, [v, h1, h2, h3]), pairs[0].input(0, [v, h1]))
    torch.testing.assert_close(whole.input(3, [v, h1, h2, h3]), pairs[2].input(1, [h2, h3]))


def test_pairs_begin_with_the_machines_biases_and_joining_gives_them_back():
    net = module("4fc-3fc")
    before = [bias.detach().clone() for bias in net.machine.biases]
    net.part()
    assert torch.equal(net.pair(0).biases[1], before[1])
    assert torch.equal(net.pair(1).biases[0], before[1])
    net.join()
    assert all(map(torch.equal, net.machine.biases, before))


def test_pairs_are_views_of_the_machines_own_weights():
    net = module("4fc-3fc")
    assert net.pair(0).weights[0] is net.machine.weights[0]
    assert net.pair(0).biases[0] is net.machine.biases[0]
    assert net.pair(1).biases[1] is net.machine.biases[2]


def test_after_each_step_of_a_pair_the_machine_is_that_of_all_pairs():
    x, _ = digits(100)
    settings: dict[str, Any] = {"pretraining_epochs": 2, "random_state": 0}
    model = DBM("9fc-5fc", stage_epochs={"joint": 0}, **settings).fit(x)
    net: Any = model.module_
    (between,), bias = net.between, net.hidden[0].bias
    assert not torch.equal(between.lower, between.upper)
    torch.testing.assert_close(bias, (between.lower + between.upper) / 2)


def test_a_pair_is_shown_the_means_of_the_pair_below_it():
    net = module("4fc-3fc")
    v = all_images()[:5].flatten(1)
    total = 2 * v @ net.machine.weights[0].T + net.pair(0).biases[1]
    torch.testing.assert_close(net.below(1, v), torch.sigmoid(total))


def test_stages_are_pixels_pairs_all_layers_and_the_net():
    spec = Spec((1, 2, 3), n_samples=20, n_classes=2, n_labeled=10)
    _, stages = DBM("4fc-3fc", pretraining_epochs=2).plan(spec)
    assert [s.name for s in stages] == ["pixels", "pair1", "pair2", "joint", "fine-tuning"]
    _, stages = DBM("4fc-3fc").plan(spec._replace(n_classes=0, n_labeled=0))
    assert [stage.name for stage in stages] == ["pixels", "joint"]


def test_the_net_begins_as_a_sweep_of_mean_field():
    net = module("4fc-3fc", n_classes=2)
    net.unroll()
    x = all_images()
    with torch.no_grad():
        means = net.mean_field(x)
    # At its fixed point, so that another sweep gives the same.
    torch.testing.assert_close(net.encode(x), means[-1], atol=1e-4, rtol=0)


def test_fine_tuning_leaves_the_machine_as_it_was():
    x, y = digits(200)
    settings: dict[str, Any] = {"joint_epochs": 2, "random_state": 0}
    short: Any = DBM("6fc-4fc", stage_epochs={"fine-tuning": 0}, **settings).fit(x, y)
    long: Any = DBM("6fc-4fc", epochs=3, **settings).fit(x, y)
    for one, other in zip(
        short.module_.hidden.parameters(), long.module_.hidden.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_labels_teach_it_classes():
    x, y = digits(1200)
    few = np.where(np.arange(900) < 300, y[:900], -1)
    model = DBM("60fc-40fc", joint_epochs=40, epochs=20, random_state=0).fit(x[:900], few)
    assert model.score(x[900:], y[900:]) > 0.7


def test_training_raises_the_bound_with_pairs_and_with_the_centered_gradient_alone():
    x, _ = digits(900)
    settings: dict[str, Any] = {"random_state": 0, "joint_epochs": 100, "joint_rate": 0.1}
    p = (x.reshape(900, -1).sum(0) + 0.5) / 901
    flat = x.reshape(900, -1)
    independent = (flat * np.log(p) + (1 - flat) * np.log(1 - p)).sum(1).mean()
    for pretraining in (5, 0):
        settings["pretraining_epochs"] = pretraining
        net: Any = DBM("16fc-8fc", **settings).fit(x).module_
        with torch.no_grad():
            bound = -net.free_energy(torch.from_numpy(x[:, None])).double().mean()
        assert float(bound) - net.log_partition().value > independent + 2


@pytest.mark.parametrize("architecture", ["4fc-3fc", "3fc-2fc-3fc"])
def test_a_walk_leaves_the_exact_distribution_as_it_is(architecture: str):
    torch.manual_seed(0)
    net, n = module(architecture), 40_000
    x = all_images()
    with torch.no_grad():
        p = exact(net).exp()
        drawn = net.begin(x[torch.multinomial(p, n, replacement=True)])
        walked = net.walk(drawn, 30)[0]
    for row in range(0, 64, 5):
        share = float((walked == x[row].flatten()).all(1).double().mean())
        assert abs(share - float(p[row])) < 5 * float((p[row] * (1 - p[row]) / n).sqrt())


def test_pixels_that_are_known_stay():
    net = module()
    known = Known(torch.ones(9, 1, 2, 3), torch.tensor([[True, False, True], [True, True, False]]))
    found = net.walk(net.begin(torch.rand(9, 1, 2, 3)), 5, known)[0].view(9, 2, 3)
    assert bool((found[:, known.mask] == 1).all())


def test_it_can_all_that_a_density_can():
    net = module()
    assert isinstance(net, Walks) and isinstance(net, HasLikelihood)
    assert net.look(net.begin(all_images()[:3])).shape == (3, 1, 2, 3)
    assert net.reconstruct(all_images()[:3]).shape == (3, 1, 2, 3)


def test_an_architecture_that_is_not_dense_is_refused():
    with pytest.raises(InputError, match="all dense"):
        DBM("(4)3c-2p").fit(digits(50)[0])


def test_the_updates_of_the_machine_name_its_parameters_and_no_others():
    spec = Spec((1, 2, 3), n_samples=20, n_classes=2, n_labeled=10)
    net, stages = DBM("4fc-3fc", pretraining_epochs=1).plan(spec)
    (pair,) = stages[1].updates
    assert isinstance(pair, GradientUpdate)
    named = {id(p) for part in pair.parts for p in part.parameters()}
    assert isinstance(net, DBMModule)
    lowest = net.pair(0)
    assert named == {id(parameter) for parameter in (*lowest.weights, *lowest.biases)}
    assert id(net.visible_bias) in named and id(net.hidden[0].bias) not in named


def test_momentum_is_raised_after_five_epochs_of_each_stage():
    spec = Spec((1, 2, 3), n_samples=20, n_classes=0, n_labeled=0)
    settings: dict[str, Any] = {"pretraining_epochs": 10, "joint_epochs": 20}
    _, stages = DBM("4fc-3fc", momentum=0.9, **settings).plan(spec)
    for stage, until in zip(stages[1:], (0.5, 0.5, 0.25), strict=True):
        (update,) = stage.updates
        assert isinstance(update, GradientUpdate) and update.momentum is not None
        assert update.momentum(until - 0.01) == 0.5
        assert update.momentum(until) == 0.9
    _, stages = DBM("4fc-3fc", momentum=0.4, **settings).plan(spec)
    (update,) = stages[-1].updates
    assert isinstance(update, GradientUpdate) and update.momentum is None
