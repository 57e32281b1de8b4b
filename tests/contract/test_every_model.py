"""What every method keeps to. A new one is in it from its line in the table of contents."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import _get_check_estimator_ids, estimator_checks_generator

import whatwhere
from whatwhere import models
from whatwhere.core import UNLABELED, Batch, Classifies, InputError, Reconstructs
from whatwhere.data.rows import Rows
from whatwhere.learner import ImageClassifier, Learner, Spec
from whatwhere.models import CONTENTS, learner_class
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Interrupted, Trainer, one_process
from whatwhere.train.update import GradientUpdate, StatisticsUpdate

# Small values for hyper-parameters that many methods share.
SMALL: dict[str, Any] = {
    "architecture": "(4)3c-2p-(6)3c-2p",
    "epochs": 2,
    "pretraining_epochs": 1,
    "n_hidden": 12,
    "n_seeds": 6,
    "joint_epochs": 1,
    "batch_size": 8,
}

# Those of methods whose layers are all dense.
DENSE = {name: {"architecture": "6fc-4fc"} for name in ("dbm", "dbn")}

# The one declared exception: -1 is unlabeled, so classes cannot be coded -1 and +1.
LABEL_CODING = {"check_classifiers_classes": "-1 is unlabeled"}

# Checks of inputs from libraries that the project does not use: pandas, and other array libraries.
NEED_MORE = ("check_array_api_input", "check_classifier_data_not_an_array")


CLASSIFIERS = [
    name for name in sorted(CONTENTS) if issubclass(learner_class(name), ImageClassifier)
]


def known(name: str, **params: Any) -> dict[str, Any]:
    """Return those of the hyper-parameters that a method has."""
    has = {f.name for f in fields(learner_class(name))}
    return {param: value for param, value in params.items() if param in has}


def make(name: str, **params: Any) -> Any:
    """Return a small learner."""
    own = known(name, **SMALL) | DENSE.get(name, {})
    return learner_class(name)(**{"random_state": 0, **own, **params})


def images(n: int = 24, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def some_labels(n: int = 24) -> np.ndarray:
    """Three classes, and every fourth row without."""
    return np.where(np.arange(n) % 4 == 3, UNLABELED, np.arange(n) % 3)


def outputs(model: Any, X: np.ndarray) -> dict[str, np.ndarray]:
    """Return all that a fitted learner says of images."""
    said = {"transform": model.transform(X)}
    if isinstance(model.module_, Classifies) and len(model.classes_):
        said["predict_proba"] = model.predict_proba(X)
    if isinstance(model.module_, Reconstructs):
        said["reconstruct"] = model.reconstruct(X)
    return said


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Say whether the bits are the same."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name])
        for name in one
    )


@pytest.fixture(params=sorted(CONTENTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fitted(name: str) -> Any:
    return make(name).fit(images(), some_labels())


# The table of contents.


def test_every_file_of_a_method_is_in_the_table_of_contents():
    assert models.__file__ is not None
    files = {path.stem for path in Path(models.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {file for file, _, _ in CONTENTS.values()}


def test_a_method_is_found_under_its_name(name: str):
    file, cls, what_it_is = CONTENTS[name]
    found = getattr(import_module(f"whatwhere.models.{file}"), cls)
    assert learner_class(name) is found is getattr(whatwhere, cls)
    assert issubclass(found, Learner)
    assert cls in whatwhere.__all__ and cls in dir(whatwhere)
    assert what_it_is and "\n" not in what_it_is


def test_a_name_that_is_not_there_is_answered_with_the_nearest(name: str):
    with pytest.raises(InputError, match=f"did you mean {name}"):
        learner_class(name[:-1] + "_" + name[-1])
    with pytest.raises(InputError, match=name):
        learner_class("###")


def test_a_method_says_what_it_is_and_shows_an_example(name: str):
    doc = learner_class(name).__doc__ or ""
    assert ">>> " in doc
    own = get_annotations(learner_class(name))
    assert all(field in doc for field in own if not field.startswith("_"))


def test_every_hyper_parameter_is_checked(name: str):
    learner = make(name)
    assert set(learner.hyper_parameters()) - {f.name for f in fields(Learner)} <= set(
        learner._parameter_constraints
    )


# scikit-learn.


def checks() -> Iterator[Any]:
    """Yield (estimator, check) of all that scikit-learn checks with what is installed."""
    for name in sorted(CONTENTS):
        # Some checks ask for a fair accuracy, on a few hundred rows of two features.
        fast = {"architecture": "(8)3c-2p", "epochs": 6, "batch_size": 16, "learning_rate": 0.02}
        fast |= {"n_hidden": 64, "nll_rate": 0.01}
        fast |= {"architecture": "16fc"} if name in DENSE else {}
        learner = make(name, **known(name, **fast))
        for pair in estimator_checks_generator(
            learner, expected_failed_checks=LABEL_CODING, mark="xfail", xfail_strict=True
        ):
            _, check = cast(Any, getattr(pair, "values", pair))
            if check.func.__name__ not in NEED_MORE:
                yield pair


@pytest.mark.parametrize(("estimator", "check"), list(checks()), ids=_get_check_estimator_ids)
def test_scikit_learns_checks_hold(estimator: Any, check: Callable[[Any], None]):
    check(estimator)


def test_a_method_is_a_step_of_a_pipeline(name: str):
    model = make(name)
    steps = make_pipeline(FunctionTransformer(), model)  # the first does nothing
    features = steps.fit(images(), some_labels()).transform(images())
    assert features is not None
    assert features.shape == (24, len(model.get_feature_names_out()))
    assert features.dtype == np.float32


def test_a_clone_learns_the_same_bits(name: str, fitted: Any):
    again = cast(Any, clone(fitted)).fit(images(), some_labels())
    assert same(outputs(again, images()), outputs(fitted, images()))


# Randomness.


def test_the_same_seed_gives_the_same_bits(name: str, fitted: Any):
    torch.rand(5)
    again = make(name).fit(images(), some_labels())
    assert same(outputs(again, images()), outputs(fitted, images()))
    assert again.module_.state_dict().keys() == fitted.module_.state_dict().keys()
    for key_, value in again.module_.state_dict().items():
        assert torch.equal(value, fitted.module_.state_dict()[key_])


def test_another_seed_gives_other_bits_where_weights_are_drawn_and_else_the_same(
    name: str, fitted: Any
):
    other = make(name, random_state=1).fit(images(), some_labels())
    are_drawn = any(True for _ in fitted.module_.parameters())
    assert same(outputs(other, images()), outputs(fitted, images())) != are_drawn


def test_a_seed_of_numpys_type_is_the_same_seed(name: str, fitted: Any):
    again = make(name, random_state=np.int64(0)).fit(images(), some_labels())
    assert same(outputs(again, images()), outputs(fitted, images()))


def test_the_callers_random_streams_are_left_as_they_were(name: str, tmp_path: Path):
    def states() -> list[str]:
        numpy = check_random_state(None).get_state()  # the stream that all share
        return [str(torch.get_rng_state().tolist()), str(numpy), str(random.getstate())]

    before = states()
    model = make(name).fit(images(), some_labels())
    outputs(model, images())
    outputs(whatwhere.load(model.save(tmp_path / "run")), images())
    assert states() == before


# Saving, loading, going on.


def test_a_saved_learner_is_loaded_with_the_same_bits(name: str, fitted: Any, tmp_path: Path):
    loaded = whatwhere.load(fitted.save(tmp_path / "run"))
    assert type(loaded) is type(fitted)
    assert same(outputs(loaded, images(seed=1)), outputs(fitted, images(seed=1)))
    assert loaded.hyper_parameters() == fitted.hyper_parameters() | fitted.chosen_


def test_a_loaded_learner_saves_what_it_was_loaded_from(name: str, fitted: Any, tmp_path: Path):
    first = fitted.save(tmp_path / "first")
    second = whatwhere.load(first).save(tmp_path / "second")
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_another_process_gets_the_same_bits(tmp_path: Path):
    X, expected = images(seed=1), {}
    np.save(tmp_path / "X.npy", X)
    for name in CONTENTS:
        model = make(name).fit(images(), some_labels())
        model.save(tmp_path / name)
        expected |= {f"{name}.{what}": v for what, v in outputs(model, X).items()}
    code = """
import sys, numpy, torch, whatwhere
torch.set_num_threads(1)
folder, *outputs = sys.argv[1:]
X, said, runs = numpy.load(f"{folder}/X.npy"), {}, {}
for output in outputs:
    name, what = output.split(".")
    runs.setdefault(name, whatwhere.load(f"{folder}/{name}"))
    said[output] = getattr(runs[name], what)(X)
numpy.savez(f"{folder}/said.npz", **said)
"""
    command = [sys.executable, "-W", "error", "-c", code, tmp_path, *expected]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "said.npz") as said:
        assert same(dict(said), expected)


def test_what_was_chosen_for_the_data_is_saved(name: str, tmp_path: Path):
    idle: Any = SimpleNamespace(fabric=None, run=lambda *args, **kwargs: [])  # takes no step
    learner: Any = learner_class(name)(random_state=0, trainer=idle)
    before = learner.get_params()
    model = learner.fit(images(), some_labels())
    assert model.chosen_ == model.choose(model.spec_)
    assert model.get_params() == before
    loaded = whatwhere.load(model.save(tmp_path / "run"))
    assert same(outputs(loaded, images()), outputs(model, images()))
    assert loaded.chosen_ == model.chosen_
    assert loaded.choose(loaded.spec_) == {}
    assert loaded.hyper_parameters() == model.hyper_parameters() | model.chosen_


def test_hyper_parameters_of_numpys_types_are_saved(name: str, tmp_path: Path):
    byte_range = (np.float32(0), np.float32(255))
    model = make(name, **known(name, epochs=np.int64(1)), value_range=byte_range)
    model.fit(images(), some_labels())
    loaded = whatwhere.load(model.save(tmp_path / "run"))
    assert same(outputs(loaded, images()), outputs(model, images()))


def test_a_folder_that_holds_something_is_not_written_to(name: str, fitted: Any, tmp_path: Path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        fitted.save(tmp_path)


def test_a_learner_stopped_after_any_step_goes_on_to_the_same_bits(
    name: str, fitted: Any, tmp_path: Path
):
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    make(name, trainer=Trainer(stop=count)).fit(images(), some_labels())
    for last in range(1, steps + 1, 2):
        asked = iter(range(1, last + 1))
        trainer = Trainer(
            checkpoint=tmp_path / str(last), stop=lambda asked=asked, last=last: next(asked) == last
        )
        stopped = make(name, trainer=trainer)
        with pytest.raises(Interrupted):
            stopped.fit(images(), some_labels())
        stopped.transform(images())  # an interrupted learner is a fitted one
        trainer.stop = lambda: False
        rest = make(name, trainer=trainer).fit(images(), some_labels())
        assert same(outputs(rest, images()), outputs(fitted, images())), last


# Labels, and none.


def batch_of(X: np.ndarray, y: np.ndarray) -> Batch:
    return Rows(X, y).take(torch.arange(len(X)))


def plan(name: str, **params: Any) -> list[tuple[GradientUpdate, Stage]]:
    """Return a method's updates by gradient, each with its stage."""
    learner = make(name, **params)
    spec = Spec((1, 8, 8), n_samples=24, n_classes=3, n_labeled=18)
    _, stages = learner.plan(spec)
    pairs = [(update, stage) for stage in stages for update in stage.updates]
    return [(update, stage) for update, stage in pairs if isinstance(update, GradientUpdate)]


def differentiated(name: str) -> list[tuple[GradientUpdate, Stage]]:
    """Return those updates whose objective gives a loss, not statistics, on images as they are."""
    pairs = plan(name, **known(name, binarize=False))
    return [pair for pair in pairs if not isinstance(pair[0], StatisticsUpdate)]


def test_unlabeled_rows_change_no_term_called_nll(name: str):
    y, X, other = some_labels(), images(), images()
    other[y == UNLABELED] = images(6, seed=5)
    for update, stage in differentiated(name):
        update.module.eval()  # a batch norm in training mode lets rows see one another

        def terms(x: np.ndarray, y: np.ndarray, update: Any = update, stage: Stage = stage) -> Any:
            return update.objective(update.module, stage.view(batch_of(x, y)))

        one, two = terms(X, y), terms(other, y)
        part = terms(X[y != UNLABELED], y[y != UNLABELED])
        for term in {"nll"} & one.keys():
            torch.testing.assert_close(one[term], two[term], rtol=1e-6, atol=0)
            torch.testing.assert_close(one[term], part[term], rtol=1e-5, atol=0)


def test_a_batch_without_labels_gives_a_finite_loss_and_finite_gradients(name: str):
    for update, stage in differentiated(name):
        batch = stage.view(batch_of(images(), np.full(24, UNLABELED)))
        terms = update.objective(update.module, batch)
        assert all(bool(value.isfinite()) for value in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        parameters = list(update.module.parameters())
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in parameters)


def test_every_parameter_that_an_update_names_gets_a_gradient_and_no_other_does(name: str):
    fabric = one_process()
    for update, stage in plan(name):
        update.module.zero_grad(set_to_none=True)
        update.start(fabric)
        update.module.eval()
        update.begin_epoch()
        with torch.no_grad():
            batch = stage.view(batch_of(images(), some_labels()))
        update.step(batch, 0.0)
        parts = list(update.parts) or [update.module]
        named = {id(p) for part in parts for p in part.parameters()}
        for label, parameter in update.module.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in named), label


def test_an_epoch_moves_every_parameter_by_what_can_be_learned_from(name: str, fitted: Any):
    start = fitted.build(fitted.spec_).state_dict()
    for label, value in fitted.module_.named_parameters():
        assert not torch.equal(value, start[label]), label


def test_the_module_is_built_from_its_seed_alone(name: str):
    spec = Spec((1, 8, 8), n_samples=24, n_classes=3, n_labeled=18, seed=4)
    one = make(name).build(spec).state_dict()
    torch.rand(3)
    other = make(name, random_state=9).build(spec._replace(n_samples=7, n_labeled=2)).state_dict()
    assert all(torch.equal(one[label], other[label]) for label in one)


def test_it_learns_without_any_label(name: str):
    none, all_minus_1 = (make(name).fit(images(), y) for y in (None, np.full(24, UNLABELED)))
    assert np.isfinite(none.transform(images())).all()
    assert same(outputs(none, images()), outputs(all_minus_1, images()))


@pytest.fixture(params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest) -> str:
    return request.param


def test_without_labels_there_are_no_classes_to_predict(classifier: str):
    model = make(classifier).fit(images())
    assert len(model.classes_) == 0
    with pytest.raises(InputError, match="without labels"):
        model.predict(images())


def test_unlabeled_is_no_class(classifier: str):
    model = make(classifier).fit(images(), some_labels())
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(images()).shape == (24, 3)
    np.testing.assert_allclose(model.predict_proba(images()).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("coded", [
    np.array(["cat", "dog", "owl"]), np.array([10, 20, 30]), np.array([0.0, 1.0, 2.0]),
])  # fmt: skip
def test_what_classes_are_called_changes_no_bit(classifier: str, coded: np.ndarray, tmp_path: Path):
    y = np.arange(24) % 3
    named, plain = (make(classifier).fit(images(), labels) for labels in (coded[y], y))
    assert same(outputs(named, images()), outputs(plain, images()))
    loaded: Any = whatwhere.load(named.save(tmp_path / "run"))
    for model in (named, loaded):
        assert model.classes_.tolist() == coded.tolist()
        assert model.predict(images()).tolist() == coded[plain.predict(images())].tolist()


def test_weights_of_classes_are_saved_under_the_names_that_classes_have(
    classifier: str, tmp_path: Path
):
    for names in ([10, 20, 30], ["cat", "dog", "owl"]):
        y = np.array(names)[np.arange(24) % 3]
        weight = {y[0]: 2.0, y[1]: np.float32(0.5)}
        if params := known(classifier, class_weight=weight):
            model = make(classifier, **params).fit(images(), y)
            loaded = whatwhere.load(model.save(tmp_path / f"run {names[0]}"))
            assert loaded.hyper_parameters()["class_weight"] == weight


def test_classes_can_be_named_afterwards(classifier: str, tmp_path: Path):
    model = make(classifier).fit(images(), some_labels())
    codes = model.predict(images())
    model.name_classes(["cat", "dog", "owl"])
    loaded = cast(Any, whatwhere.load(model.save(tmp_path / "run")))
    for named in (model, loaded):
        assert named.predict(images()).tolist() == np.array(["cat", "dog", "owl"])[codes].tolist()


def test_names_of_classes_may_be_mixed_with_minus_1(classifier: str):
    names = np.array(["cat", "dog", "owl", UNLABELED], dtype=object)
    named = make(classifier).fit(images(), names[some_labels()])
    plain = make(classifier).fit(images(), some_labels())
    assert named.classes_.tolist() == ["cat", "dog", "owl"]
    assert same(outputs(named, images()), outputs(plain, images()))


def test_validation_images_change_nothing_but_what_is_recorded(classifier: str):
    held_out = (images(9, seed=3), np.arange(9) % 3)
    model = make(classifier).fit(images(), some_labels(), validation=held_out)
    plain = make(classifier).fit(images(), some_labels())
    assert same(outputs(model, images()), outputs(plain, images()))
    wrong = (model.predict(held_out[0]) != held_out[1]).mean() * 100
    assert model.history_[-1]["validation/error"] == pytest.approx(wrong, rel=1e-5)
    assert "validation/error" not in plain.history_[-1]


def test_enough_validation_labels_change_the_probabilities_and_no_prediction(classifier: str):
    held_out = (images(60, seed=3), np.arange(60) % 3)
    model = make(classifier).fit(images(), some_labels(), validation=held_out)
    plain = make(classifier).fit(images(), some_labels())
    said, expected = outputs(model, images()), outputs(plain, images())
    assert model.n_calibration_ == 60
    assert not np.array_equal(said.pop("predict_proba"), expected.pop("predict_proba"))
    assert same(said, expected)
    np.testing.assert_array_equal(model.predict(images()), plain.predict(images()))


def test_a_learner_starts_from_another_of_its_kind(classifier: str):
    idle: Any = SimpleNamespace(fabric=None, run=lambda *args, **kwargs: [])
    first = make(classifier).fit(images(), some_labels())
    second = make(classifier, random_state=1, trainer=idle)
    second.fit(images(), some_labels(), start=first)
    assert same(outputs(second, images()), outputs(first, images()))


# Images in, whatever their form.


def test_bytes_and_the_same_floats_give_the_same_bits(name: str, fitted: Any):
    for dtype in (np.float32, np.float64):
        floats = make(name).fit(images().astype(dtype) / dtype(255), some_labels())
        assert same(outputs(floats, images()), outputs(fitted, images())), dtype


def test_a_value_range_says_what_black_and_white_are(name: str, fitted: Any):
    X = images().astype(np.float32)
    ranged = make(name, value_range=(0, 255)).fit(X, some_labels())
    said, expected = outputs(ranged, X), outputs(fitted, images())
    if "reconstruct" in said:  # in the units of the range
        of_bytes = expected.pop("reconstruct") * np.float32(255)
        np.testing.assert_allclose(said.pop("reconstruct"), of_bytes, rtol=1e-6, atol=1e-4)
    assert same(said, expected)


def test_three_forms_of_the_same_images_agree(name: str, fitted: Any):
    plain = make(name).fit(images()[:, 0], some_labels())
    rows = make(name, image_shape=(1, 8, 8)).fit(images().reshape(24, -1), some_labels())
    expected = outputs(fitted, images())
    assert same(outputs(plain, images()[:, 0]), expected)
    assert same(outputs(rows, images().reshape(24, -1)), expected)
    assert same(outputs(plain, images()), expected)


def test_channels_may_stand_last(name: str):
    X = images(shape=(3, 8, 6))
    first = make(name).fit(X, some_labels())
    last = make(name, channels="last").fit(X.transpose(0, 2, 3, 1), some_labels())
    assert same(outputs(first, X), outputs(last, X.transpose(0, 2, 3, 1)))


def test_odd_sizes_and_single_pixels_are_images_too(name: str):
    for shape in [(1, 5, 7), (2, 1, 9), (1, 1, 1)]:
        model = make(name).fit(images(shape=shape), some_labels())
        assert model.transform(images(shape=shape)).shape[0] == 24
        if isinstance(model.module_, Reconstructs):
            assert model.reconstruct(images(shape=shape)).shape == (24, *shape)


@pytest.mark.parametrize(
    "architecture", ["10fc", "3fc", "2p", "(2)3c", "(2)2c-3p-5fc-4fc", "16p", "(2)3c-2p-2p"]
)
def test_every_architecture_that_can_be_read_can_be_learned_or_is_refused_in_words(
    name: str, architecture: str
):
    if name in DENSE and architecture != "10fc":  # 3fc is the class layer
        with pytest.raises(InputError, match="dense"):
            make(name, architecture=architecture).fit(images(), some_labels())
    elif known(name, architecture=architecture):
        model = make(name, architecture=architecture).fit(images(), some_labels())
        assert all(np.isfinite(value).all() for value in outputs(model, images()).values())


@pytest.mark.parametrize("n_labeled", [2, 3, 11, 12, 13, 23, 24])
def test_any_number_of_labels_can_be_learned_from(classifier: str, n_labeled: int):
    y = np.where(np.arange(24) < n_labeled, np.arange(24) % 2, UNLABELED)
    for batch_size in (3, 4, 24, 100):
        params = {"architecture": "(2)3c-2p-4fc", "epochs": 1, "batch_size": batch_size}
        model = make(classifier, **known(classifier, **params) | DENSE.get(classifier, {}))
        assert np.isfinite(model.fit(images(), y).predict_proba(images())).all()


def test_two_rows_a_batch_are_learned_from_or_refused_in_words(name: str):
    for n_labeled in (2, 6, 12, 13, 23, 24):
        y = np.where(np.arange(24) < n_labeled, np.arange(24) % 2, UNLABELED)
        small = known(name, architecture="(2)3c-4fc", epochs=1, batch_size=2)
        with suppress(InputError):
            make(name, **small).fit(images(), y)


# What a user can get wrong.


def refused(words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_images_of_another_shape_are_refused(name: str, fitted: Any):
    refused("9, 8.*fitted to.*8, 8", lambda: fitted.transform(images(shape=(1, 9, 8))))
    refused("3, 8, 8.*fitted to", lambda: fitted.transform(images(shape=(3, 8, 8))))


def test_channels_that_stand_last_must_be_said(name: str):
    for n_channels in (1, 3, 4):
        X = images(shape=(8, 8, n_channels))
        refused("channels='last'", lambda X=X: make(name).fit(X, some_labels()))


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_floats_that_are_not_in_0_to_1_are_refused(name: str, scale: float):
    X = images().astype(np.float32) / 255 * scale
    refused(r"value_range=\(low, high\)", lambda: make(name).fit(X, some_labels()))


def test_one_class_is_too_few(classifier: str):
    for y in (np.zeros(24, int), np.where(np.arange(24) < 5, 7, UNLABELED)):
        refused("one class", lambda y=y: make(classifier).fit(images(), y))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"epochs": 0}, "epochs.*0"),
        ({"epochs": 1.5}, "epochs.*1.5"),
        ({"batch_size": 1}, "batch_size.*1"),
        ({"learning_rate": 0.0}, "learning_rate.*0"),
        ({"learning_rate": "fast"}, "learning_rate.*fast"),
        ({"architecture": "(4)3c-2q"}, "2q"),
        ({"architecture": 7}, "architecture.*7"),
        ({"dropout": 1.0}, "dropout.*1"),
        ({"labeled_share": 0.0}, "labeled_share.*0"),
        ({"patience": 0}, "patience.*0"),
        ({"epochs": "many"}, "epochs.*many"),
        ({"batch_size": "many"}, "batch_size.*auto.*many"),
        ({"class_weight": "even"}, "class_weight.*balanced.*even"),
        ({"class_weight": {0: -1.0}}, "class_weight of 0 is -1"),
        ({"class_weight": {9: 1.0}}, "class_weight names the class 9"),
        ({"middle_target": "both"}, "middle_target.*both"),
        ({"reconstruction": -1.0}, "reconstruction.*-1"),
        ({"channels": "middle"}, "channels='middle'"),
        ({"value_range": (1.0, 0.0)}, "value_range.*low < high"),
    ],
)
def test_a_hyper_parameter_out_of_its_range_is_named_with_its_value(
    name: str, params: dict[str, Any], words: str
):
    if known(name, **params):
        refused(words, lambda: make(name, **params).fit(images(), some_labels()))


def test_rows_that_do_not_fill_the_image_shape_are_refused(name: str):
    learner = make(name, image_shape=(1, 8, 9))
    refused("64 features.*72", lambda: learner.fit(images().reshape(24, -1), some_labels()))


def test_five_dimensions_are_too_many(name: str):
    refused("5 dimensions", lambda: make(name).fit(images(shape=(2, 2, 3, 4)), some_labels()))


def test_a_label_that_only_validation_has_is_refused(classifier: str):
    held_out = (images(3), np.array([0, 1, 9]))
    refused("label 9", lambda: make(classifier).fit(images(), some_labels(), validation=held_out))


def test_patience_without_validation_images_is_refused(classifier: str):
    if patience := known(classifier, patience=2):
        learner = make(classifier, **patience)
        refused("validation", lambda: learner.fit(images(), some_labels()))


def test_an_unfitted_learner_says_so(name: str, tmp_path: Path):
    for call in (make(name).transform, lambda X: make(name).save(tmp_path / "run")):
        with pytest.raises(NotFittedError):
            call(images())
