from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from whatwhere import StackedAutoencoder
from whatwhere.core import UNLABELED, Batch, InputError
from whatwhere.learner import Spec
from whatwhere.models.stacked_autoencoder import Below, GreedyClassification, LayerLoss
from whatwhere.nn.mirror import Mirror
from whatwhere.train.gradients import GradientSizes

SPEC = Spec((1, 6, 6), 40, n_classes=3, n_labeled=30, class_counts=(10, 10, 10))


def images(n: int = 40) -> np.ndarray:
    """Return bright bars at three places, and noise."""
    draws = np.random.default_rng(0)
    x = 0.2 * draws.random((n, 6, 6), dtype=np.float32)
    x[np.arange(n), :, 2 * (np.arange(n) % 3)] += 0.7
    return x


def labels(n: int = 40) -> np.ndarray:
    return np.arange(n) % 3


def small(**params: Any) -> StackedAutoencoder:
    defaults: dict[str, Any] = {"pretraining_epochs": 2, "epochs": 1, "random_state": 0}
    return StackedAutoencoder("8fc-5fc", **(defaults | params))


def batch() -> Batch:
    return Batch(torch.from_numpy(images())[:, None], torch.from_numpy(labels()), torch.arange(40))


def test_each_layer_is_a_stage_and_fine_tuning_the_last():
    for pretraining in ("denoising", "autoencoder", "rbm", "supervised"):
        learner = small(pretraining=pretraining, activation="logistic")
        _, stages = learner.plan(SPEC)
        assert [stage.name for stage in stages] == ["layer1", "layer2", "fine-tuning"]
    _, stages = small(pretraining="none").plan(SPEC)
    assert [stage.name for stage in stages] == ["fine-tuning"]


def test_a_layer_learns_as_an_rbm_of_its_own_weights_upon_the_means_below():
    learner = small(pretraining="rbm", activation="logistic", stage_epochs={"fine-tuning": 0})
    planned: Any = learner.plan(SPEC)
    module, (first, second) = planned
    machines = [stage.updates[0].objective.machine for stage in (first, second)]
    for machine, up, down in zip(
        machines, module.mirror.encoder, module.mirror.decoder, strict=True
    ):
        assert machine.weights[0] is up.affine.weight
        assert machine.biases[0] is down.affine.bias and machine.biases[1] is up.affine.bias
    torch.testing.assert_close(second.view(batch()).x, module.mirror.encoder[0](batch().x))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fitted: Any = learner.fit(images(), labels()).module_
    moved = {name for name, value in fitted.state_dict().items()
             if not torch.equal(value, before[name])}  # fmt: skip
    assert {f"mirror.encoder.{k}.affine.weight" for k in (0, 1)} <= moved
    assert not any(name.startswith("head") for name in moved)


def test_a_layer_sees_what_the_layers_below_make_of_an_image():
    learner = small(pretraining="autoencoder")
    module, (_, second, _) = learner.plan(SPEC)
    assert isinstance(module.mirror, Mirror)
    seen = second.view(batch())
    torch.testing.assert_close(seen.x, module.mirror.encoder[0](batch().x))
    assert torch.equal(seen.y, batch().y)


def test_while_a_layer_learns_all_others_stand_still():
    learner = small(pretraining="denoising")
    before = learner.build(SPEC).state_dict()
    learner.stage_epochs = {"layer1": 0, "fine-tuning": 0}
    learner.fit(images(), labels())
    before = learner.build(learner.spec_).state_dict()
    for name, value in learner.module_.state_dict().items():
        moved = name.startswith(("mirror.encoder.1", "mirror.decoder.1"))
        assert torch.equal(value, before[name]) != moved, name


def test_greedy_training_lowers_the_error_of_each_layer():
    learner = small(pretraining="autoencoder", pretraining_epochs=30, pretraining_rate=0.01)
    learner.fit(images())
    for name in ("layer1", "layer2"):
        errors = [r["loss/reconstruction"] for r in learner.history_ if r["stage"] == name]
        assert errors[-1] < 0.8 * errors[0], name


def test_without_labels_the_layers_are_all_that_is_learned():
    learner = small().fit(images())
    assert {record["stage"] for record in learner.history_} == {"layer1", "layer2"}
    assert learner.transform(images()).shape == (40, 5)


def test_noise_is_put_on_what_a_layer_is_given_and_the_clean_one_is_rebuilt():
    net = small(pretraining="denoising").build(SPEC).mirror
    x = Below(net, 1)(batch())
    blind = LayerLoss(1, "squared_error", torch.zeros_like)(net, x)
    up, down = net.encoder[1], net.decoder[1]
    expected = (down(up(torch.zeros_like(x.x)), up) - x.x).square().sum() / 40
    torch.testing.assert_close(blind["reconstruction"], expected)


def test_logistic_layers_are_rebuilt_by_cross_entropy_and_others_by_linear_units():
    for activation, loss in (("logistic", "cross_entropy"), ("relu", "squared_error")):
        _, (_, second, _) = small(pretraining="autoencoder", activation=activation).plan(SPEC)
        objective = getattr(second.updates[0], "objective", None)
        assert isinstance(objective, LayerLoss) and objective.loss == loss


def test_layer_by_layer_with_labels_each_layer_gets_a_class_layer_of_its_own():
    learner = small(pretraining="supervised")
    module = learner.build(SPEC)
    x, _ = batch().x, batch().y
    h = module.mirror.encoder[0](x)
    head = module.greedy_heads[0] if module.greedy_heads is not None else None
    assert isinstance(head, nn.Linear)
    expected = nn.functional.cross_entropy(head(h), batch().y)
    torch.testing.assert_close(GreedyClassification(0)(module, batch())["nll"], expected)


def test_supervised_pretraining_moves_all_layers_up_to_its_own():
    learner = small(pretraining="supervised", stage_epochs={"layer2": 0, "fine-tuning": 0})
    learner.fit(images(), labels())
    before = learner.build(learner.spec_).state_dict()
    for name, value in learner.module_.state_dict().items():
        moved = name.startswith(("mirror.encoder.0", "greedy_heads.0"))
        assert torch.equal(value, before[name]) != moved, name


def test_supervised_pretraining_without_labels_is_refused():
    with pytest.raises(InputError, match=r"supervised.*labels.*denoising"):
        small(pretraining="supervised").fit(images())


@pytest.mark.parametrize("pretraining", ["denoising", "autoencoder", "supervised", "none"])
def test_bars_at_three_places_are_told_apart(pretraining: str):
    y = np.where(np.arange(40) < 15, labels(), UNLABELED)
    learner = small(pretraining=pretraining, epochs=8, pretraining_epochs=3)
    assert (learner.fit(images(), y).predict(images()) == labels()).mean() > 0.9


def test_all_four_begin_with_the_same_weights():
    states = [
        small(pretraining=p).build(SPEC).state_dict()
        for p in ("denoising", "autoencoder", "supervised", "none")
    ]
    for name in states[-1]:
        assert all(torch.equal(state[name], states[-1][name]) for state in states), name


def test_gradients_of_each_layer_are_told_as_fine_tuning_begins():
    learner = small(pretraining="none", epochs=2).fit(images(), labels())
    first, second = learner.history_
    told = {name for name in first if name.startswith("gradient/")}
    assert told == {"gradient/layer1", "gradient/layer2", "gradient/classes"}
    assert not any(name.startswith("gradient/") for name in second)
    sizes = next(
        update
        for stage in learner.plan(learner.spec_)[1]
        for update in stage.updates
        if isinstance(update, GradientSizes)
    )
    assert str(sizes) == "gradient: the size of the first gradient in layer1, layer2, classes"


def test_historic_weights_let_the_gradient_fade_in_deep_logistic_nets():
    sizes = {}
    for how in ("historic", "modern"):
        learner = StackedAutoencoder(
            "20fc-20fc-20fc-20fc", pretraining="none", activation="logistic", initialization=how,
            epochs=1, random_state=0,
        ).fit(images(), labels())  # fmt: skip
        first = learner.history_[0]
        sizes[how] = first["gradient/layer1"] / first["gradient/classes"]
    assert sizes["historic"] < 1e-4 < sizes["modern"]
