import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whatwhere import CNN, RBM, SWWAE
from whatwhere.core import InputError
from whatwhere.data.images import Images, draw_labels, hide_labels
from whatwhere.data.sources import load
from whatwhere.evaluate import album, judge, measures, probes


@pytest.fixture(scope="module")
def parts() -> tuple[Images, Images]:
    """Digits: 300 images to learn from, and 90 to be judged on."""
    whole = load("digits")
    assert whole.test is not None
    return whole.train.take(np.arange(300)), whole.test.take(np.arange(90))


@pytest.fixture(scope="module")
def swwae(parts: tuple[Images, Images]) -> SWWAE:
    return SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(parts[0].x, parts[0].y)


@pytest.fixture(scope="module")
def cnn(parts: tuple[Images, Images]) -> CNN:
    return CNN("(4)3c-2p", epochs=1, random_state=0).fit(parts[0].x, parts[0].y)


@pytest.fixture(scope="module")
def blind(parts: tuple[Images, Images]) -> SWWAE:
    return SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(parts[0].x)


def test_the_accuracy_is_that_of_scikit_learn_and_the_error_is_the_rest(swwae, parts):
    test = parts[1]
    told = judge.evaluate(swwae, test)
    assert told["accuracy"] == pytest.approx(swwae.score(test.x, test.y))
    assert told["error"] == pytest.approx(100 * (1 - told["accuracy"]))
    assert told["interval"][0] < told["error"] < told["interval"][1]
    json.dumps(told)


def test_each_class_counts_equally_in_the_balanced_error(cnn, parts):
    told = judge.evaluate(cnn, parts[1])
    predicted = cnn.predict(parts[1].x)
    errors = [np.mean(predicted[parts[1].y == digit] != digit) for digit in range(10)]
    assert told["balanced_error"] == pytest.approx(100 * np.mean(errors))


def test_probabilities_of_a_learner_without_a_temperature_are_judged_as_they_are(cnn, parts):
    test = parts[1]
    told = judge.evaluate(cnn, test)["calibration"]
    probability = cnn.predict_proba(test.x)
    assert told == {
        "temperature": 1.0,
        "n_validation": 0,
        "error": pytest.approx(measures.calibration_error(probability, test.y), rel=1e-4),
        "nll": pytest.approx(-np.log(probability[np.arange(90), test.y]).mean(), rel=1e-4),
    }


def test_calibrated_probabilities_are_judged_beside_what_they_were_before(parts):
    (train, test), names = parts, tuple(f"digit {9 - digit}" for digit in range(10))
    held_out = train.take(np.arange(200, 300))
    model = CNN("(4)3c-2p", epochs=3, random_state=0)
    model.fit(train.x[:200], train.y[:200], validation=(held_out.x, held_out.y))
    raw = judge.evaluate(model, test)
    # The same under names whose order in the alphabet is not that of the class layer.
    model.name_classes(names)
    named = judge.evaluate(model, replace(test, classes=names))
    assert named["calibration"] == raw["calibration"]
    told = raw["calibration"]
    assert told["temperature"] == model.temperature_ != 1
    assert told["n_validation"] == 100
    own = model.predict_proba(test.x)[np.arange(90), test.y]
    assert told["nll"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    model.temperature_, model.n_calibration_ = 1.0, 0
    before = judge.evaluate(model, replace(test, classes=names))["calibration"]
    assert (told["error_before"], told["nll_before"]) == (before["error"], before["nll"])


def test_the_reconstruction_error_is_the_mean_square_over_all_pixels(swwae, parts):
    x = parts[1].x
    slow = np.mean([(swwae.reconstruct(image[None])[0] - image / 255.0) ** 2 for image in x])
    assert judge.reconstruction_mse(swwae, x) == pytest.approx(slow, rel=1e-5)
    assert judge.evaluate(swwae, parts[1])["reconstruction_mse"] == pytest.approx(slow, rel=1e-5)


def test_the_summed_error_of_an_image_is_a_mean_over_images(swwae, parts):
    x = parts[1].x
    slow = [np.sum((swwae.reconstruct(image[None])[0] - image / 255.0) ** 2) for image in x]
    told = judge.evaluate(swwae, parts[1])
    assert told["reconstruction_sse"] == pytest.approx(np.mean(slow), rel=1e-5)


def test_bytes_and_floats_of_the_same_images_have_the_same_reconstruction_error(swwae, rng):
    whole = rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    floats = whole / np.float32(255)
    assert judge.reconstruction_mse(swwae, whole) == judge.reconstruction_mse(swwae, floats)


def test_images_without_a_label_are_reconstructed_but_neither_right_nor_wrong(swwae, parts):
    test = parts[1]
    half = hide_labels(test, np.arange(45))
    told, first = judge.evaluate(swwae, half), judge.evaluate(swwae, test.take(np.arange(45)))
    assert told["accuracy"] == first["accuracy"]
    assert told["n"] == 45
    whole = judge.evaluate(swwae, test)
    assert told["reconstruction_mse"] == whole["reconstruction_mse"]


def test_a_learner_without_a_decoder_is_judged_on_its_classes_alone(cnn, parts):
    told = judge.evaluate(cnn, parts[1])
    assert told["accuracy"] is not None
    assert not [name for name in told if name.startswith("reconstruction")]


def test_a_learner_without_classes_is_judged_on_its_reconstructions_alone(blind, parts):
    told = judge.evaluate(blind, parts[1])
    assert told["n"] == 90
    assert told["accuracy"] is None
    assert told["error"] is None
    assert told["reconstruction_mse"] > 0
    assert "calibration" not in told


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ((*range(9), 42), "class 42, which the run does not know"),
        (tuple(f"digit {number}" for number in range(10)), "class 'digit 0', which"),
    ],
)
def test_a_class_that_the_run_does_not_know_is_refused_by_its_name(cnn, parts, classes, says):
    with pytest.raises(InputError, match=says):
        judge.evaluate(cnn, replace(parts[1], classes=classes))


def test_the_floor_sees_the_shown_labels_and_no_others(parts):
    train, test = parts
    rows = draw_labels(train, 50, seed=0)
    told = judge.floor(hide_labels(train, rows), test)
    assert told == judge.floor(train.take(rows), test)
    predicted = probes.floor_svm(train.x[rows], train.y[rows], test.x)
    assert told["error"] == pytest.approx(100 * np.mean(predicted != test.y))
    assert told["classes"] == list(range(10))


def test_the_floor_of_a_run_tells_its_labels_and_is_the_floor(parts):
    train, test = parts
    few = hide_labels(train, draw_labels(train, 50, seed=0))
    told, components = judge.floors(few, test)
    alone = judge.floor(few, test)
    assert told == {
        "name": "SVM on raw pixels, same 50 labels",
        "error": alone["error"],
        "interval": alone["interval"],
    }
    assert components["name"].startswith("SVM on principal components, same")
    assert components["error"] == judge.floor(few, test, probes.floor_pca)["error"]


def test_a_floor_that_takes_too_long_is_left_out_of_a_run(monkeypatch, parts):
    train, test = parts
    monkeypatch.setattr(judge, "MOST_LABELS_FOR_SVM", 299)
    assert judge.floors(train, test) == []
    assert judge.floors(train.take(np.arange(299)), test) != []


def test_a_floor_that_cannot_be_fitted_or_judged_is_left_out_of_a_run(parts):
    train, test = parts
    one_class = hide_labels(train, np.flatnonzero(train.y == 3))
    nothing: list[int] = []
    assert judge.floors(one_class, test) == []
    assert judge.floors(hide_labels(train, nothing), test) == []
    assert judge.floors(train, hide_labels(test, nothing)) == []


def test_a_floor_that_is_asked_for_says_why_there_is_none(parts):
    train, test = parts
    nothing: list[int] = []
    with pytest.raises(InputError, match="show 1 class, "):
        judge.floor(hide_labels(train, np.flatnonzero(train.y == 3)), test)
    with pytest.raises(InputError, match="show no classes, "):
        judge.floor(hide_labels(train, nothing), test)
    with pytest.raises(InputError, match="none of the 90 test images"):
        judge.floor(train, hide_labels(test, nothing))


@pytest.mark.slow
@pytest.mark.data
def test_the_floor_of_mnist_at_100_labels_is_the_published_one(data_dir):
    mnist = load("mnist", data_dir=data_dir)
    assert mnist.test is not None
    errors = []
    for seed in range(3):
        shown = hide_labels(mnist.train, draw_labels(mnist.train, 100, seed=seed))
        errors.append(judge.floor(shown, mnist.test)["error"])
    # Published: 22.5 %, with a deviation of 2.0 over draws of labels.
    assert np.mean(errors) == pytest.approx(22.5, abs=3)


@pytest.mark.parametrize("name", sorted(probes.PROBES))
def test_a_probe_judges_features_of_a_learner_that_saw_no_label(name, blind, parts):
    train, test = parts
    few = hide_labels(train, draw_labels(train, 100, seed=0))
    told = judge.probe(blind, few, test, name)
    assert (told["probe"], told["n_labeled"], told["n"]) == (name, 100, 90)
    assert told["accuracy"] > 0.5  # one class in ten is chance
    assert sum(map(sum, told["confusion"])) == 90


def test_a_probe_without_labels_is_refused(blind, parts):
    train, test = parts
    nothing: list[int] = []
    for one, other in ((hide_labels(train, nothing), test), (train, hide_labels(test, nothing))):
        with pytest.raises(InputError, match="a probe needs labels"):
            judge.probe(blind, one, other, "linear")


def panels_of(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "panels").iterdir())


def test_a_run_shows_what_its_learner_can_do(tmp_path, swwae, cnn, blind, parts):
    files = {"filters", "map", "mistakes", "reconstructions", "what_where", "worth_labelling"}
    train = hide_labels(parts[0], np.arange(100))
    for name, learner, missing in (
        ("swwae", swwae, set()),
        ("cnn", cnn, {"reconstructions", "what_where"}),
        ("blind", blind, {"mistakes"}),
    ):
        run = tmp_path / name
        run.mkdir()
        album.draw(learner, parts[1], run, tested=True, train=train)
        expected = [f"{file}.{end}" for file in files - missing for end in ("json", "png")]
        assert panels_of(run) == sorted(expected)


def test_a_run_that_draws_images_shows_samples_chains_and_hidden_units(tmp_path, parts):
    rbm = RBM(6, epochs=1, random_state=0).fit(parts[0].x)
    album.draw(rbm, parts[1], tmp_path, tested=True, train=parts[0])
    assert {"samples.png", "chains.png", "activity.png", "filters.png"} <= {*panels_of(tmp_path)}


def test_images_that_were_trained_on_are_no_mistakes_nor_worth_another_label(tmp_path, cnn, parts):
    album.draw(cnn, parts[0], tmp_path, tested=False, train=parts[0])
    expected = [f"{name}.{end}" for name in ("filters", "map") for end in ("json", "png")]
    assert panels_of(tmp_path) == expected


def test_what_is_worth_a_label_is_looked_for_in_the_training_part(tmp_path, cnn, parts):
    train = hide_labels(parts[0], np.arange(280))
    album.draw(cnn, parts[1], tmp_path, tested=True, train=train)
    panel = tmp_path / "panels" / "worth_labelling.json"
    told = json.loads(panel.read_text(encoding="utf-8"))
    assert sorted(row["row"] for row in told["rows"]) == list(range(280, 300))


def test_mistakes_tell_rows_of_the_data_set_where_some_have_no_label(tmp_path, cnn, parts):
    test = hide_labels(parts[1], np.arange(40, 90))
    album.draw(cnn, test, tmp_path, tested=True, train=parts[0])
    told = json.loads((tmp_path / "panels" / "mistakes.json").read_text(encoding="utf-8"))
    assert told["rows"]
    for mistake in told["rows"]:
        row = mistake["row"]
        assert row >= 40
        assert mistake["true"] == test.y[row]
        assert mistake["predicted"] == cnn.predict(test.x[row : row + 1])[0] != test.y[row]


def test_mistakes_tell_the_file_where_images_come_from_files(tmp_path, cnn, parts):
    named = replace(parts[1], names=tuple(f"scans/{row}.png" for row in range(90)))
    test = hide_labels(named, np.arange(40, 90))
    album.draw(cnn, test, tmp_path, tested=True, train=parts[0])
    told = json.loads((tmp_path / "panels" / "mistakes.json").read_text(encoding="utf-8"))
    assert told["rows"]
    for mistake in told["rows"]:
        row = named.names.index(mistake["file"])
        assert row >= 40
        assert mistake["true"] == named.y[row]


@pytest.mark.parametrize(("n", "rows"), [(5, 2), (12, 2), (13, 4), (500, 16)])
def test_a_drawing_has_a_row_of_images_above_a_row_of_reconstructions(
    tmp_path, swwae, parts, n, rows
):
    error = judge.draw_reconstructions(swwae, parts[1], n, tmp_path / "new.png")
    shown = parts[1].x[:n]
    assert error == judge.reconstruction_mse(swwae, shown)
    with Image.open(tmp_path / "new.png") as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    side = width / min(12, len(shown))
    assert rows * (side - 5) < height < (rows + 1) * side
    assert [path.name for path in tmp_path.iterdir()] == ["new.png"]


def test_a_drawing_that_fails_leaves_nothing_behind(tmp_path, swwae, cnn, parts):
    out = tmp_path / "new.png"
    with pytest.raises(InputError, match="cnn does not reconstruct"):
        judge.draw_reconstructions(cnn, parts[1], 5, out)
    large = Images(np.zeros((2, 1, 9, 9), np.uint8), np.array([0, 1]), (0, 1))
    with pytest.raises(InputError, match="bring them to that size"):
        judge.draw_reconstructions(swwae, large, 5, out)
    out.mkdir()  # replacing a folder with a file fails at the very last step
    with pytest.raises(OSError):
        judge.draw_reconstructions(swwae, parts[1], 5, out)
    assert [path.name for path in tmp_path.iterdir()] == ["new.png"]
