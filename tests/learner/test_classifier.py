import json
from typing import Any

import numpy as np
import pytest

import whatwhere
from whatwhere import CNN, runs
from whatwhere.core import UNLABELED, InputError
from whatwhere.objectives.calibration import ENOUGH, nll
from whatwhere.train.trainer import Interrupted, Trainer

SMALL: dict[str, Any] = {
    "architecture": "(8)3c-2p-20fc", "epochs": 30, "batch_size": 8, "random_state": 0,
}  # fmt: skip
BRIEF: dict[str, Any] = {**SMALL, "epochs": 1}


def noisy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images with a bright half, and names of the half, one in five of them wrong."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 100, (n, 1, 8, 8), dtype=np.uint8)
    y = rng.integers(0, 2, n)
    X[y == 1, :, :, 4:] += 100
    return X, np.array(["left", "right"])[np.where(rng.random(n) < 0.2, 1 - y, y)]


@pytest.fixture(scope="module")
def pair() -> tuple[CNN, CNN]:
    """Learners that have learned wrong labels by heart: without validation images, and with."""
    X, y = noisy(40, 0)
    return CNN(**SMALL).fit(X, y), CNN(**SMALL).fit(X, y, validation=noisy(200, 1))


def test_what_is_too_sure_is_made_less_sure(pair):
    plain, calibrated = pair
    assert (plain.temperature_, plain.n_calibration_) == (1.0, 0)
    assert calibrated.temperature_ > 1.2
    assert calibrated.n_calibration_ == 200
    X, y = noisy(500, 2)
    places = np.searchsorted(plain.classes_, y)
    losses = [-np.log(m.predict_proba(X)[np.arange(500), places]).mean() for m in pair]
    assert losses[1] < losses[0]
    scores = calibrated.logits(X)
    assert losses[1] == pytest.approx(nll(scores, places, calibrated.temperature_), rel=1e-5)


def test_the_temperature_changes_no_prediction_and_no_score(pair):
    plain, calibrated = pair
    X, _ = noisy(500, 2)
    np.testing.assert_array_equal(plain.logits(X), calibrated.logits(X))
    np.testing.assert_array_equal(plain.predict(X), calibrated.predict(X))
    assert (calibrated.predict_proba(X).max(1) < plain.predict_proba(X).max(1)).any()


def test_the_temperature_is_saved(pair, tmp_path):
    calibrated = pair[1]
    loaded = whatwhere.load(calibrated.save(tmp_path / "run"))
    assert isinstance(loaded, CNN)
    X, _ = noisy(50, 2)
    np.testing.assert_array_equal(loaded.predict_proba(X), calibrated.predict_proba(X))
    assert (loaded.temperature_, loaded.n_calibration_) == (calibrated.temperature_, 200)


def test_a_run_that_is_older_than_calibration_has_the_temperature_1(pair, tmp_path):
    folder = pair[1].save(tmp_path / "run")
    config = json.loads((folder / runs.CONFIG).read_text(encoding="utf-8"))
    for key in ("temperature", "n_calibration", "chosen"):
        del config[key]
    del config["params"]["class_weight"], config["spec"]["class_counts"]
    runs.write_json(folder / runs.CONFIG, config)
    loaded = whatwhere.load(folder)
    assert isinstance(loaded, CNN)
    X, _ = noisy(50, 2)
    np.testing.assert_array_equal(loaded.predict_proba(X), pair[0].predict_proba(X))


@pytest.mark.parametrize("kind", ["few", "one class", "no labels"])
def test_validation_images_that_cannot_tell_it_leave_the_temperature_1(kind: str):
    X, y = noisy(ENOUGH, 1)
    held_out: Any = {
        "few": (X[1:], y[1:]),
        "one class": (X, np.full(ENOUGH, "left")),
        "no labels": (X, None),
    }[kind]
    model = CNN(**BRIEF).fit(*noisy(40, 0), validation=held_out)
    assert (model.temperature_, model.n_calibration_) == (1.0, 0)


def test_a_learner_without_labels_is_not_calibrated():
    X, y = noisy(60, 1)
    model = CNN(**BRIEF).fit(X, validation=(X, y))
    assert (model.temperature_, model.n_calibration_) == (1.0, 0)


def test_an_interrupted_learner_has_the_temperature_1(pair):
    model = CNN(**SMALL)
    model.fit(*noisy(40, 0), validation=noisy(60, 1))
    assert model.temperature_ != 1
    model.trainer = Trainer(stop=lambda: True)
    with pytest.raises(Interrupted):
        model.fit(*noisy(40, 0), validation=noisy(60, 1))
    assert (model.temperature_, model.n_calibration_) == (1.0, 0)


def test_a_spec_tells_the_labels_of_each_class():
    X, y = noisy(40, 0)
    y = np.where(np.arange(40) < 30, y, str(UNLABELED))
    model = CNN(**BRIEF).fit(X, y)
    counts = tuple(int((y == name).sum()) for name in ("left", "right"))
    assert model.spec_.class_counts == counts
    assert sum(counts) == model.spec_.n_labeled == 30


@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        (
            "params",
            "new_knob",
            3,
            "params.new_knob, which this version does not know; use the what",
        ),
        ("spec", "depth", 3, "spec.depth, which this version does not know"),
        (None, "params", None, "has no params; copy the run again"),
        (None, "spec", 3, "has no spec; copy the run again"),
        (None, "seed", ..., "has no seed; copy"),
        (None, "classes", ..., "has no classes; copy"),
        ("spec", "n_samples", ..., "has no spec.n_samples; copy"),
        (None, "model", 5, "no model is named '5'"),
        (None, "model", ..., "no model is named"),
    ],
)
def test_what_a_run_says_of_itself_is_checked_before_a_net_is_built(
    pair, tmp_path, part: str | None, key: str, value: Any, says: str
):
    folder = pair[0].save(tmp_path / "run")
    config = json.loads((folder / runs.CONFIG).read_text(encoding="utf-8"))
    changed = config if part is None else config[part]
    if value is ...:
        del changed[key]
    else:
        changed[key] = value
    runs.write_json(folder / runs.CONFIG, config)
    with pytest.raises(InputError, match=says) as refused:
        whatwhere.load(folder)
    assert "\n" not in str(refused.value)


def test_a_run_without_weights_says_how_they_come(pair, tmp_path):
    folder = pair[0].save(tmp_path / "run")
    (folder / runs.WEIGHTS).unlink()
    with pytest.raises(InputError, match="though it has ended; copy the run again"):
        whatwhere.load(folder)
    config = json.loads((folder / runs.CONFIG).read_text(encoding="utf-8"))
    runs.write_json(folder / runs.CONFIG, config | {"job": {}})  # as `fit` begins one
    with pytest.raises(InputError, match=f"finish it with: whatwhere fit --resume {folder}"):
        whatwhere.load(folder)
    runs.write_json(folder / runs.EVALUATION, {})
    with pytest.raises(InputError, match="though it has ended; copy the run again"):
        whatwhere.load(folder)
