from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from whatwhere import CNN, SWWAE
from whatwhere.core import InputError
from whatwhere.learner.start import Start, begin

SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 8, "random_state": 0}
NET = "(4)3c-2p-(6)3c-2p"
IDLE: Any = SimpleNamespace(fabric=None, run=lambda *args, **kwargs: [])  # a trainer of no steps


def images(side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 1, side, side), dtype=np.uint8)


def labels(*names: str) -> np.ndarray:
    return np.array(names)[np.arange(24) % len(names)]


def begun(kind: type, start: Any, y: Any, architecture: str = NET, X: Any = None) -> Any:
    """Return a learner as it is before its first step."""
    learner = kind(architecture, **(SMALL | {"random_state": 1}), trainer=IDLE)
    return learner.fit(images() if X is None else X, y, start=start)


@pytest.fixture(scope="module")
def swwae() -> SWWAE:
    return SWWAE(NET, **SMALL).fit(images(), labels("cat", "dog", "owl"))


@pytest.fixture(scope="module")
def cnn() -> CNN:
    return CNN(NET, **SMALL).fit(images(), labels("cat", "dog", "owl"))


@pytest.fixture(scope="module")
def blind() -> SWWAE:
    return SWWAE(NET, **SMALL).fit(images())


def test_before_its_first_step_it_says_what_its_start_says(swwae, cnn, blind):
    y = labels("cat", "dog", "owl")
    for start in (swwae, cnn):
        again = begun(type(start), start, y)
        np.testing.assert_array_equal(again.predict_proba(images()), start.predict_proba(images()))
        assert again.module_ is not start.module_
    for start in (swwae, blind):
        again = begun(SWWAE, start, None)
        np.testing.assert_array_equal(again.reconstruct(images()), start.reconstruct(images()))


def test_rows_of_the_class_layer_go_to_the_classes_of_the_same_name(swwae):
    again = begun(SWWAE, swwae, labels("cow", "owl", "cat", "pig"))
    fresh = begun(SWWAE, None, labels("cow", "owl", "cat", "pig"))
    assert again.classes_.tolist() == ["cat", "cow", "owl", "pig"]
    for place, name in enumerate(again.classes_.tolist()):
        known = name in swwae.classes_
        model = swwae if known else fresh
        for weight in ("head.1.weight", "head.1.bias"):
            row = model.classes_.tolist().index(name)
            expected = model.module_.state_dict()[weight][row]
            assert torch.equal(again.module_.state_dict()[weight][place], expected)
    ours, theirs = (model.logits(images())[:, [0, 2]] for model in (again, swwae))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # a wider product adds up in another order


def test_a_start_of_other_classes_gives_its_encoder_alone(swwae):
    again, fresh = (begun(SWWAE, start, labels("pig", "rat")) for start in (swwae, None))
    np.testing.assert_array_equal(again.transform(images()), swwae.transform(images()))
    for weight in ("head.1.weight", "head.1.bias"):
        assert torch.equal(again.module_.state_dict()[weight], fresh.module_.state_dict()[weight])


def test_a_start_without_labels_leaves_the_class_layer_fresh(blind):
    y = labels("cat", "dog", "owl")
    again, fresh = (begun(SWWAE, start, y) for start in (blind, None))
    np.testing.assert_array_equal(again.transform(images()), blind.transform(images()))
    assert torch.equal(again.module_.head[1].weight, fresh.module_.head[1].weight)


def test_a_start_with_classes_serves_a_learner_without_labels(swwae):
    again = begun(SWWAE, swwae, None)
    np.testing.assert_array_equal(again.reconstruct(images()), swwae.reconstruct(images()))
    assert len(again.classes_) == 0


def test_the_two_nets_start_from_each_other(swwae, cnn):
    y = labels("cat", "dog", "owl")
    from_cnn, from_swwae = begun(SWWAE, cnn, y), begun(CNN, swwae, y)
    np.testing.assert_array_equal(from_cnn.logits(images()), cnn.logits(images()))
    np.testing.assert_array_equal(from_swwae.logits(images()), swwae.logits(images()))
    fresh = begun(SWWAE, None, y).module_.decoder.state_dict()
    for name, value in from_cnn.module_.decoder.state_dict().items():
        assert torch.equal(value, fresh[name]), name


def test_a_learner_may_go_on_from_itself():
    model = CNN(NET, **SMALL).fit(images(), labels("cat", "dog"))
    before = model.logits(images())
    model.trainer = IDLE
    model.fit(images(), labels("ant", "dog"), start=model)
    np.testing.assert_allclose(model.logits(images())[:, 1], before[:, 1], atol=1e-5)


def test_training_goes_on_from_there(swwae):
    again = SWWAE(NET, **SMALL).fit(images(), labels("cat", "dog", "owl"), start=swwae)
    fresh = SWWAE(NET, **SMALL).fit(images(), labels("cat", "dog", "owl"))
    assert again.history_[0]["loss/reconstruction"] < fresh.history_[0]["loss/reconstruction"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"architecture": "(5)3c-2p-(6)3c-2p"},
            r"encoder.steps.0.0.weight is \(4, 1, 3, 3\) there",
        ),
        ({"architecture": "(4)3c-2p"}, "encoder.steps.2.0.weight is .* and missing here"),
        ({"architecture": NET + "-5fc"}, "encoder.steps.4.0.weight is missing there"),
        ({"X": images(12)}, "head.1.weight is "),
        ({"X": images().repeat(3, axis=1)}, "encoder.steps.0.0.weight is "),
    ],
)
def test_weights_of_another_net_are_refused_with_the_first_that_does_not_fit(swwae, params, words):
    with pytest.raises(InputError, match=words) as error:
        begun(SWWAE, swwae, labels("cat", "dog", "owl"), **params)
    assert "\n" not in str(error.value)


def test_a_start_that_is_no_fitted_learner_is_refused():
    with pytest.raises(InputError, match=r"whatwhere\.load"):
        begun(CNN, "runs/first", None)
    with pytest.raises(NotFittedError):
        begun(CNN, CNN(), None)


def state(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("_", "."): torch.rand(*shape) for name, shape in shapes.items()}


def test_parts_that_only_one_has_are_left_as_they_are():
    own, other = state(a_w=(2, 3), b_w=(4,)), state(a_w=(2, 3), c_w=(5,))
    b = own["b.w"].clone()
    begin(own, (), Start(other, ()))
    assert torch.equal(own["a.w"], other["a.w"])
    assert torch.equal(own["b.w"], b)


def test_nothing_is_copied_where_something_does_not_fit():
    own, other = state(a_w=(2, 3), b_w=(4,)), state(a_w=(2, 3), b_w=(5,))
    before = own["a.w"].clone()
    with pytest.raises(InputError, match=r"b.w is \(5,\) there and \(4,\) here"):
        begin(own, (), Start(other, ()))
    assert torch.equal(own["a.w"], before)


def test_nets_without_a_common_part_are_told_apart():
    with pytest.raises(InputError, match=r"\(c\) have no part in common with these \(a\)"):
        begin(state(a_w=(1,)), (), Start(state(c_w=(1,)), ()))
