"""Comparisons: which cells there are, and how learners without classes are judged in them."""

import json

import pytest

from whatwhere.core import InputError
from whatwhere.data.images import hide_labels
from whatwhere.evaluate import judge
from whatwhere.experiments import comparison, table
from whatwhere.experiments.job import Job, Machine
from whatwhere.experiments.plan import SVM

FAST = {"epochs": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison of a learner of features, a classifier and the machine, and its folder."""
    out = tmp_path_factory.mktemp("comparison")
    base = Job("digits", "", settings=FAST)
    plan = comparison.plan(base, ["autoencoder", "cnn", SVM], ["50"], 1)
    return plan, out, table.run(plan, out, machine=Machine("cpu"))


def record(made, row):
    plan, out, _ = made
    (cell,) = (cell for cell in plan.cells if cell.row == row)
    return cell, json.loads((out / table.CELLS / cell.file).read_text("utf-8"))


def test_every_model_sees_the_same_labels_at_a_draw():
    plan = comparison.plan(Job("digits", ""), ["autoencoder", "cnn", SVM], ["50", "100"], 2)
    draws = {(cell.column, cell.draw) for cell in plan.cells}
    assert len(plan.cells) == 3 * len(draws) == 12
    for column, draw in draws:
        jobs = [cell.job for cell in plan.cells if (cell.column, cell.draw) == (column, draw)]
        assert len({(job.labels, job.label_seed, job.seed) for job in jobs}) == 1


def test_a_learner_without_classes_is_judged_by_a_probe_and_marked(made):
    *_, told = made
    assert [row["label"] for row in told["rows"]] == ["autoencoder (linear probe)", "cnn", "svm"]
    assert told["notes"] == [table.PROBE_NOTE]
    assert "probe" not in record(made, "cnn")[1]["metrics"]
    assert "reconstruction_sse" in record(made, "autoencoder")[1]["metrics"]


def test_the_probe_is_fitted_to_the_labels_that_the_cell_shows(made):
    cell, found = record(made, "autoencoder")
    assert (found["metrics"]["probe"], found["metrics"]["n_labeled"]) == ("linear", 50)
    read = cell.job.read()
    assert read.test is not None
    learner = cell.job.learner()
    learner.fit(read.train.x)
    again = judge.probe(learner, read.train, read.test, "linear")
    assert found["metrics"]["error"] == again["error"]
    fewer = hide_labels(read.train, [*range(len(read.train))][:0])
    with pytest.raises(InputError, match="needs labels"):
        judge.probe(learner, fewer, read.test, "linear")


def test_the_epochs_of_a_stage_go_to_the_models_that_have_it():
    base = Job("digits", "", settings=FAST | {"fine-tuning.epochs": "3"})
    plan = comparison.plan(base, ["stacked_autoencoder", "cnn", SVM], ["50"], 1)
    settings = {cell.row: cell.job.settings for cell in plan.cells}
    assert settings["stacked_autoencoder"] == base.settings
    assert (settings["cnn"], settings[SVM]) == (FAST, None)


@pytest.mark.parametrize(
    ("key", "models", "says"),
    [
        ("jont.epochs", ["swwae", "cnn"], "has a stage 'jont'; did you mean joint"),
        ("joint.rate", ["swwae", "cnn"], "no hyper-parameter 'joint.rate'"),
        ("nois", ["cnn", "swwae"], "no hyper-parameter 'nois'"),
        ("joint.epochs", [SVM], "none of svm has a hyper-parameter 'joint.epochs'"),
    ],
)
def test_a_setting_that_no_model_has_is_refused_in_one_line(key, models, says):
    with pytest.raises(InputError) as caught:
        comparison.plan(Job("digits", "", settings={key: "3"}), models, ["50"], 1)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_comparison_without_labels_is_refused():
    with pytest.raises(InputError, match="nothing to compare: errors need labels"):
        comparison.plan(Job("digits", ""), ["autoencoder", "cnn"], ["none"], 1)
