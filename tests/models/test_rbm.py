"""Restricted Boltzmann machine: probabilities that are exact where all states can be counted."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

import whatwhere
from whatwhere import RBM
from whatwhere.core import HasLikelihood, InputError, Known, Walks
from whatwhere.learner import Spec
from whatwhere.models.rbm import RBMModule
from whatwhere.nn import annealing
from whatwhere.train.update import Raised, StatisticsUpdate


def digits(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x[:n] > 7).reshape(-1, 8, 8).astype(np.float32), y[:n]


def module(n_classes: int = 0, scale: float = 1.0, **settings: Any) -> RBMModule:
    """Return a machine of 2 x 3 pixels with weights of some size."""
    spec = Spec((1, 2, 3), n_samples=10, n_classes=n_classes, n_labeled=5, seed=1)
    net = RBM(**{"n_hidden": 4, "levels": 3, **settings}).build(spec)
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=drawn))
    return net.eval()


def all_images() -> Tensor:
    rows = list(product([0.0, 1.0], repeat=6))
    return torch.tensor(rows).view(-1, 1, 2, 3)


@pytest.mark.parametrize("n_classes", [0, 3])
@pytest.mark.parametrize("hidden", ["binary", "gaussian", "multinomial"])
def test_probabilities_of_all_images_sum_to_one(n_classes: int, hidden: str):
    scale = 0.2 if hidden == "gaussian" else 1.0  # larger ones favor one image too strongly
    net = module(n_classes, scale, hidden=hidden)
    with torch.no_grad():
        log_p = -net.free_energy(all_images()).double() - net.log_partition().value
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_grays_of_multinomial_pixels_have_probabilities_that_sum_to_one():
    net = module(visible="multinomial")
    rows = torch.tensor(list(product([0.0, 0.5, 1.0], repeat=6))).view(-1, 1, 2, 3)
    with torch.no_grad():
        log_p = -net.free_energy(rows).double() - net.log_partition().value
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_the_density_of_gaussian_pixels_integrates_to_one():
    spec = Spec((1, 1, 2), n_samples=10, bounds=(-3.0, 3.0))
    net = RBM(3).build(spec)
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=drawn))
        net.pixels.mean.copy_(torch.tensor([0.3, -0.2]))
        net.pixels.deviation.copy_(torch.tensor([0.5, 2.0]))
        axis = torch.linspace(-25, 25, 1001)
        x = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
        log_p = -net.free_energy(x).double() - net.log_partition().value
    cell = float(axis[1] - axis[0]) ** 2
    assert float(log_p.exp().sum()) * cell == pytest.approx(1, abs=1e-3)


def test_class_scores_are_the_exact_probability_of_a_label_given_the_image():
    net = module(n_classes=3)
    x = all_images()
    machine, energies = net.machine, []
    hidden = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    for y in range(3):
        label = torch.eye(3)[y].expand(len(hidden), 3)
        rows = [machine.energy([v.expand(len(hidden), 6), hidden, label]) for v in x.flatten(1)]
        energies.append(torch.stack([-torch.logsumexp(-row, 0) for row in rows]))
    truth = torch.softmax(-torch.stack(energies, dim=1), dim=1)
    torch.testing.assert_close(net.logits(x).softmax(1), truth)


def test_features_are_the_means_of_hidden_units_whatever_the_label():
    net = module(n_classes=3)
    x = all_images()[:5]
    with torch.no_grad():
        odds = net.logits(x).softmax(1)
        total = net.hidden(x.flatten(1))
        parts = [odds[:, [y]] * torch.sigmoid(total + net.machine.weights[1][y]) for y in range(3)]
        torch.testing.assert_close(net.encode(x), sum(parts, torch.zeros(5, 4)))


def test_one_softmax_hidden_unit_makes_a_mixture():
    net = module(hidden="multinomial")
    x = all_images()
    with torch.no_grad():
        parts = torch.sigmoid(net.hidden.weight + net.visible_bias)  # of each, the pixels' means
        log_z = torch.nn.functional.softplus(net.hidden.weight + net.visible_bias).sum(1)
        share = torch.softmax(net.hidden.bias + log_z, 0)
        v = x.flatten(1)[:, None]
        each = torch.where(v == 1, parts, 1 - parts).log().sum(2)
        truth = (share.log() + each).logsumexp(1)
        log_p = -net.free_energy(x) - net.log_partition().value
    torch.testing.assert_close(log_p, truth, atol=1e-4, rtol=0)


def test_the_pseudo_likelihood_is_the_sum_over_pixels_given_the_others():
    net = module()
    x = all_images()[::9]
    with torch.no_grad():
        found, truth = net.pseudo_likelihood(x), torch.zeros(len(x))
        for i in range(6):
            flipped = x.clone().flatten(1)
            flipped[:, i] = 1 - flipped[:, i]
            both = torch.stack([-net.free_energy(x), -net.free_energy(flipped.view(x.shape))])
            truth += both.log_softmax(0)[0]
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("n_classes", [0, 3])
def test_a_walk_leaves_the_exact_distribution_as_it_is(n_classes: int):
    torch.manual_seed(0)
    net, n = module(n_classes, 0.7), 40_000
    x = all_images()
    with torch.no_grad():
        p = torch.softmax(-net.free_energy(x), 0)
        state = net.begin(x[torch.multinomial(p, n, replacement=True)])
        walked = net.walk(state, 3)[0]
    for row in range(0, 64, 5):
        share = float((walked == x[row].flatten()).all(1).double().mean())
        assert abs(share - float(p[row])) < 5 * float((p[row] * (1 - p[row]) / n).sqrt())


def test_pixels_that_are_known_stay_and_the_others_have_their_conditional_distribution():
    torch.manual_seed(0)
    net, n = module(scale=0.7), 20_000
    known = Known(torch.ones(n, 1, 2, 3), torch.tensor([[True, False, True], [True, True, False]]))
    with torch.no_grad():
        noise = torch.rand(n, 1, 2, 3)
        found = net.walk(net.begin(noise), 40, known)[0].view(n, 2, 3)
        assert bool((found[:, known.mask] == 1).all())
        x = all_images()
        p = torch.softmax(-net.free_energy(x), 0)
        fits = (x[:, 0, known.mask] == 1).all(1)
        truth = (p[fits, None] * x[fits][:, 0, ~known.mask]).sum(0) / p[fits].sum()
    torch.testing.assert_close(found[:, ~known.mask].mean(0), truth, atol=0.02, rtol=0)


def test_annealing_is_within_a_third_of_a_nat_of_the_exact_sum_for_a_trained_machine():
    x, _ = digits()
    model = RBM(20, epochs=60, learning_rate=0.1, random_state=0).fit(x)
    net: Any = model.module_
    truth = annealing.exact(net.machine).value
    torch.manual_seed(0)
    found = annealing.estimate(net.machine, net.pixels.base, schedule=annealing.SHORT)
    assert abs(found.value - truth) < 0.3
    assert found.how == "annealed importance sampling, 100 chains, 1,450 temperatures"


def test_training_raises_the_likelihood_of_images_that_were_not_seen():
    x, _ = digits(1200)
    model = RBM(16, epochs=60, learning_rate=0.1, random_state=0).fit(x[:900])
    base = RBM(16, epochs=1, learning_rate=1e-9, random_state=0).fit(x[:900])
    # Independent pixels: what the machine is before it learns.
    p = (x[:900].reshape(900, -1).sum(0) + 0.5) / 901
    flat = x[900:].reshape(300, -1)
    independent = (flat * np.log(p) + (1 - flat) * np.log(1 - p)).sum(1).mean()
    assert base.score_samples(x[900:]).mean() == pytest.approx(independent, abs=0.05)
    assert model.score_samples(x[900:]).mean() > independent + 3


def test_the_pseudo_likelihood_comes_to_that_of_scikit_learns_machine():
    x, _ = digits(900)
    epochs, rate = 30, 0.1
    settings: dict[str, Any] = {"centered": False, "decay_from": 0.99, "binarize": False}
    settings |= {"batch_size": 50, "n_chains": 50, "random_state": 0}
    ours: Any = RBM(32, epochs=epochs, learning_rate=rate, **settings).fit(x).module_
    theirs = BernoulliRBM(32, learning_rate=rate, batch_size=50, n_iter=epochs, random_state=0).fit(
        x.reshape(900, -1)
    )
    net = module(n_hidden=32)
    net = RBMModule(ours.pixels, net.units).eval()
    with torch.no_grad():
        net.hidden.weight.copy_(torch.from_numpy(theirs.components_))
        net.hidden.bias.copy_(torch.from_numpy(theirs.intercept_hidden_))
        net.visible_bias.copy_(torch.from_numpy(theirs.intercept_visible_))
        images: Any = torch.from_numpy(x[:, None])
        ours_, theirs_ = (float(one.pseudo_likelihood(images).mean()) for one in (ours, net))
    assert abs(ours_ - theirs_) < 1.0


def test_few_labels_and_the_images_without_one_give_a_classifier():
    x, y = digits(1400)
    few = np.where(np.arange(1000) < 300, y[:1000], -1)
    model = RBM(64, epochs=30, random_state=0).fit(x[:1000], few)
    assert model.score(x[1000:], y[1000:]) > 0.85


def test_it_can_all_that_a_density_can():
    net = module()
    assert isinstance(net, Walks) and isinstance(net, HasLikelihood) and not net.is_bound
    assert net.look(net.begin(all_images()[:3])).shape == (3, 1, 2, 3)
    assert net.reconstruct(all_images()[:3]).shape == (3, 1, 2, 3)
    filters = net.filters()
    assert filters is not None and filters.shape == (4, 1, 2, 3)
    assert module(visible="multinomial").filters() is None


def stage_of(model: RBM, n_classes: int = 0) -> Any:
    spec = Spec((1, 2, 3), n_samples=10, n_classes=n_classes, n_labeled=5)
    return model.plan(spec)[1][1]


def test_the_number_of_steps_goes_from_the_first_to_the_last_in_equal_parts():
    stage = stage_of(RBM(4, negative="cd", steps=1, last_steps=5, epochs=10))
    seen = []
    for epoch in range(10):
        stage.before_epoch(epoch)
        seen.append(stage.updates[0].objective.k)
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_momentum_is_one_half_for_the_first_five_epochs():
    update = stage_of(RBM(4, momentum=0.9, epochs=10)).updates[0]
    assert isinstance(update, StatisticsUpdate) and update.momentum == Raised(0.5, 0.9, 0.5)
    assert update.momentum is not None
    assert update.momentum(0.49) == 0.5 and update.momentum(0.5) == 0.9
    assert stage_of(RBM(4, momentum=0.3, epochs=10)).updates[0].momentum is None


def test_without_a_rate_of_its_own_the_conditional_likelihood_is_left_out():
    assert len(stage_of(RBM(4), 3).updates) == 2
    assert len(stage_of(RBM(4, nll_rate=0.0), 3).updates) == 1


def test_it_begins_with_the_means_of_the_pixels_and_goes_on_with_what_it_was_given():
    x, _ = digits()
    rest = {"n_hidden": 4, "epochs": 1, "learning_rate": 1e-9, "random_state": 0}
    first: Any = RBM(**rest).fit(x).module_
    p = torch.from_numpy((x.reshape(len(x), -1).sum(0) + 0.5) / (len(x) + 1))
    torch.testing.assert_close(torch.sigmoid(first.visible_bias), p, atol=1e-5, rtol=0)
    trained = RBM(4, epochs=20, random_state=0).fit(x)
    again: Any = RBM(**rest).fit(1 - x, start=trained).module_
    net: Any = trained.module_
    torch.testing.assert_close(again.visible_bias, net.visible_bias, atol=1e-5, rtol=0)


def test_log_z_is_found_anew_for_a_machine_that_was_fitted_again(tmp_path: Any):
    x, _ = digits(200)
    model = RBM(4, epochs=2, random_state=0).fit(x)
    before = model.score_samples(x)
    model.set_params(epochs=20, learning_rate=0.2).fit(x)
    after = model.score_samples(x)
    assert not np.allclose(before, after)
    loaded: Any = whatwhere.load(model.save(tmp_path / "run"))
    assert np.array_equal(loaded.score_samples(x), after)


def test_two_gaussian_layers_are_refused():
    with pytest.raises(InputError, match="take hidden='binary'"):
        RBM(4, visible="gaussian", hidden="gaussian").fit(digits()[0])
