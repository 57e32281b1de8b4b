from dataclasses import replace

import pytest

from whatwhere.data.transformations import KINDS
from whatwhere.experiments import exemplar_cifar10 as table
from whatwhere.experiments import experiment_1 as e1
from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import trained
from whatwhere.train.trainer import Trainer

SMALL = {"architecture": "(2)3c-4fc", "n_seeds": 10, "clusters": 3, "epochs": 1, "patch": 4}


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_row_sees_as_many_patches(budget):
    plan = table.plan(budget, None, None)
    assert len({cell.file for cell in plan.cells}) == len(plan.cells)
    patches = set()
    for cell in plan.cells:
        cell.check()
        if cell.job.model == "exemplar_cnn":
            settings = cell.job.settings
            assert settings is not None
            legs = 2 if "clusters" in settings else 1
            patches.add(settings["n_seeds"] * settings["epochs"] * legs)
    assert patches == {e1.EPOCHS[budget] * (e1.IMAGES[budget] or 50_000)}


def test_a_row_changes_one_thing():
    (usual, settings), *others = table.rows("quick").items()
    for row, other in others[len(table.SEEDS["quick"]) - 1 : -1]:
        changed = {name for name in other if other[name] != settings.get(name)} - {"epochs"}
        assert len(changed) == 1, row
    kept = [set(table.rows("quick")[row]["transformations"].split("+")) for row in table.LEFT_OUT]
    assert kept[0] == set(KINDS) - {"translation"}
    assert kept[-1] == {"none"}
    assert usual == "500 seeds"


def test_features_are_judged_as_in_experiment_1(monkeypatch):
    monkeypatch.setattr(table, "MORE", "200")
    job = Job("digits", "cnn", labels="none", settings={"architecture": "(4)3c-2p"})
    options = {"images": None, "draws": {"1000": [0], "200": [0]}}
    one = e1.Cell("row", table.CELL, 0, job, "quick", table.judged, options)
    read = one.job.read()
    found = one.run(read, Trainer())
    monkeypatch.setattr(e1, "JUDGES", {"linear": ("1000",), "linear_svm": ("200",)})
    monkeypatch.setattr(e1, "SOME", "200")
    same = replace(one, method=e1.unsupervised).run(read, Trainer()).metrics
    assert found.metrics == {name: same[name] for name in ("linear_1000", "linear_svm_200")}
    assert found.metrics["linear_1000"] < found.metrics["linear_svm_200"] < 50


def test_the_loss_told_is_that_of_the_last_leg():
    read = Job("digits", "exemplar_cnn", labels="none", settings=SMALL).read()
    learner = trained(Job("digits", "exemplar_cnn", settings=SMALL), read, Trainer())
    told = table.surrogate({"curve": learner.history_})
    assert told == learner.history_[-1]["clustered/surrogate"]
    assert table.surrogate({"curve": []}) is None
