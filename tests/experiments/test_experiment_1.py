from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from whatwhere.core import UNLABELED
from whatwhere.data.images import Images, draw_labels, hide_labels
from whatwhere.data.sources import NAMES
from whatwhere.data.sources.stl10 import FILES
from whatwhere.evaluate import nets
from whatwhere.evaluate.nets import fine_tuned
from whatwhere.evaluate.probes import PROBES, raw_pixels
from whatwhere.experiments import experiment_1 as e1
from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import Cell, trained
from whatwhere.train.trainer import Trainer

LABELS = {"100": [0, 1], "all": [0]}  # digits have no 4000


def cell(model: str, method: e1.Method, **settings: object) -> Cell:
    job = Job("digits", model, labels="none", settings=settings, test_fraction=0.2)
    return Cell("row", e1.CELL, 0, job, "quick", method, {"images": None, "draws": LABELS})


@pytest.fixture
def few_labels(monkeypatch):
    monkeypatch.setattr(e1, "LABELS", tuple(LABELS))
    judges = {"linear": ("100", "all"), "knn": ("100",)}
    monkeypatch.setattr(e1, "JUDGES", judges)
    monkeypatch.setattr(e1, "SOME", "100")


@pytest.mark.usefixtures("few_labels")
def test_pixels_are_judged_as_by_hand():
    one = cell("pixels", e1.pixels)
    read = one.job.read()
    found = one.run(read, Trainer()).metrics
    whole, test = read.data.train, read.test
    assert test is not None
    errors = []
    for draw in (0, 1):
        rows = draw_labels(whole, 100, seed=draw)
        probe = PROBES["linear"]().fit(raw_pixels(whole.x[rows]), whole.y[rows])
        errors.append(100 * np.mean(probe.predict(raw_pixels(test.x)) != test.y))
    assert found["linear_100"] == pytest.approx(np.mean(errors))
    assert set(found) == {"linear_100", "linear_all", "knn_100"}


@pytest.mark.usefixtures("few_labels")
def test_features_are_learned_without_labels_and_judged_with_where_and_tuned(monkeypatch):
    tuned: list[int] = []

    def noted(learner, train, **settings):
        net = fine_tuned(learner, train, **settings)
        tuned.append(net.spec_.n_labeled)
        return net

    monkeypatch.setattr(nets, "fine_tuned", noted)
    one = cell("swwae", e1.unsupervised, architecture="(4)3c-2p-(8)3c-2p", epochs=1)
    result = one.run(one.job.read(), Trainer())
    assert set(result.metrics) == {
        "linear_100",
        "linear_all",
        "knn_100",
        "where_100",
        "tuned_100",
    }
    assert all("nll" not in name for epoch in result.curve for name in epoch)
    assert tuned == [100, 100]  # two draws of labels
    assert 0 < result.metrics["linear_all"] < result.metrics["linear_100"] < 90


@pytest.mark.usefixtures("few_labels")
def test_own_classes_are_those_of_nets_with_so_many_labels(monkeypatch):
    shown: list[int] = []

    def noted(job, read, trainer):
        learner = trained(job, read, trainer)
        shown.append(learner.spec_.n_labeled)
        return learner

    monkeypatch.setattr(e1, "trained", noted)
    one = cell("cnn", e1.own_classes, architecture="(4)3c-2p-(8)3c-2p", epochs=2)
    read = one.job.read()
    result = one.run(read, Trainer())
    assert shown == [100, 100, len(read.data.train)]
    assert set(result.metrics) == {"linear_100", "linear_all"}
    told = Counter((epoch["labels"], epoch["draw"]) for epoch in result.curve)
    assert told == {("100", 0): 2, ("100", 1): 2, ("all", 0): 2}


def test_of_few_labeled_images_all_take_part_and_of_the_others_as_many_as_are_wanted():
    blank = np.zeros((60, 1, 1, 1), np.uint8)
    blank[:, 0, 0, 0] = range(60)
    y = np.where(np.arange(60) % 3 == 0, np.arange(60) % 2, UNLABELED)
    images = Images(blank, y, (0, 1))
    part = e1.some(images, 45)
    assert len(part) == 45 and part.n_labeled == 20
    rows = part.x[:, 0, 0, 0]
    assert np.all(np.diff(rows.astype(int)) > 0) and np.array_equal(part.y, y[rows])
    assert e1.labeled(part).tolist() == np.flatnonzero(part.y >= 0).tolist()
    assert len(e1.some(images, 100)) == 60


@pytest.mark.usefixtures("few_labels")
@pytest.mark.parametrize("model", ["pixels", "pca", "cnn"])
def test_images_without_a_label_change_no_features_of_the_others(model):
    method = {"pixels": e1.pixels, "pca": e1.components, "cnn": e1.unsupervised}[model]
    settings = {"architecture": "(4)3c-2p"} if model == "cnn" else {}
    one = cell(model, method, **settings)
    read = one.job.read()
    whole = read.data.train
    rows = np.arange(0, len(whole), 3)

    def judged(train: Images) -> Mapping[str, float]:
        return one.run(replace(read, data=replace(read.data, train=train)), Trainer()).metrics

    found, alone = judged(hide_labels(whole, rows)), judged(whole.take(rows))
    if model != "pca":  # whose components are those of all images
        assert found["linear_all"] == pytest.approx(alone["linear_all"])
    assert found["linear_all"] < 30


def test_stl_10_takes_part_where_its_files_are(tmp_path):
    assert not any("STL" in row for row in e1.plan("quick", None, str(tmp_path)).rows)
    (tmp_path / "stl10").mkdir()
    for name in FILES:
        (tmp_path / "stl10" / name).touch()
    plan = e1.plan("quick", None, str(tmp_path))
    assert [row for row in plan.rows if "STL" in row] == [
        f"STL-10: {row}" for row in e1.rows("quick", "stl10")
    ]
    assert ("STL-10: Exemplar-CNN", "STL-10: random filters") in plan.differences
    assert plan.published[(f"STL-10: {e1.SEMI}", "1,000 labels")] == "25.67"
    assert any(note.startswith("STL-10") for note in plan.notes)


def test_the_images_are_as_many_of_each_class():
    one = cell("pixels", e1.pixels)
    some = replace(one, options={**one.options, "images": 200})
    read = e1.shown_part(some, some.job.read())
    assert np.bincount(read.train.y).tolist() == [20] * 10


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_set_has_every_row_and_every_cell_its_own_file(budget):
    plan = e1.plan(budget, None, None)
    assert len(plan.rows) == 3 * len(e1.rows(budget, "mnist"))
    assert len({one.file for one in plan.cells}) == len(plan.cells)
    first = [one for one in plan.cells if one.draw == 0]
    assert [one.row for one in first] == [one.row for one in plan.cells[: len(first)]] == plan.rows
    for one in plan.cells:
        one.check()
    assert set(plan.published) <= {
        (row, column.label) for row in plan.rows for column in plan.measured
    }
    assert {row for pair in plan.differences for row in pair} <= set(plan.rows)


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_of_three_draws_of_the_weights_on_there_are_ten_of_100_labels(budget):
    plan = e1.plan(budget, 3, None)
    for row in plan.rows:
        cells = [one for one in plan.cells if one.row == row]
        within = budget == "full" and cells[0].method is not e1.own_classes
        assert [one.draw for one in cells] == list(range(3 if within else 10))
        for n in e1.LABELS[:-1]:
            met = [draw for one in cells for draw in one.options["draws"].get(n, [])]
            assert sorted(met) == list(range(10 if n == "100" else 3))
    assert len({one.file for one in plan.cells}) == len(plan.cells)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("n_seeds", [1, 2, 3, 10, 12])
def test_each_draw_of_the_weights_is_judged_with_100_labels_and_no_draw_twice(n_seeds, within):
    numbers = e1.draws(n_seeds, within=within)
    met = [draw for one in numbers for draw in one["100"]]
    assert all(one["100"] for one in numbers)
    assert sorted(met) == list(range(len(met))) and len(met) >= n_seeds


def test_a_cell_of_the_full_budget_is_trained_four_times_at_most():
    for one in e1.plan("full", None, None).cells:
        times = sum(map(len, one.options["draws"].values()))
        assert one.method is not e1.own_classes or times <= 4


@pytest.mark.usefixtures("few_labels")
@pytest.mark.parametrize("model", ["swwae", "cnn"])
def test_a_further_draw_is_judged_with_100_labels_alone(model, monkeypatch):
    monkeypatch.setattr(e1, "SOME", "all")
    method = {"swwae": e1.unsupervised, "cnn": e1.own_classes}[model]
    one = cell(model, method, architecture="(4)3c-2p", epochs=1)
    one = replace(one, options={**one.options, "draws": {"100": [4]}})
    found = one.run(one.job.read(), Trainer())
    assert set(found.metrics) == ({"linear_100", "knn_100"} if model == "swwae" else {"linear_100"})
    record = {"curve": found.curve, "options": one.options}
    assert found.curve and e1.minutes(record) is None


@pytest.mark.parametrize("data", list(e1.SETS))
def test_surrogates_see_as_many_patches_as_the_others_see_images(data):
    for budget in ("quick", "full"):
        settings = {row: own for row, (_, _, own) in e1.rows(budget, data).items()}
        images = e1.IMAGES[budget] or NAMES[data].n_train
        patches = settings[e1.EXEMPLAR]["n_seeds"] * settings[e1.EXEMPLAR]["epochs"]
        assert patches == pytest.approx(settings[e1.SWWAE]["epochs"] * images, rel=0.02)
