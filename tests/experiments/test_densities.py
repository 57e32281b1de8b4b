"""What the tables of Boltzmann machines read from their cells, on the small digits."""

from typing import Any

import pytest

from whatwhere import experiments
from whatwhere.experiments.densities import density
from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import Cell, Method
from whatwhere.experiments.rbm_likelihood import likelihood
from whatwhere.experiments.restoration import restored
from whatwhere.train.trainer import Trainer


def run(method: Method, model: str, settings: dict[str, Any], **options: Any) -> Any:
    job = Job("digits", model, labels="none", settings=settings)
    return Cell("row", "test", 0, job, method=method, options=options).run(job.read(), Trainer())


@pytest.mark.parametrize(
    ("model", "settings"),
    [("dbm", {"joint_epochs": 2}), ("dbn", {"pretraining_epochs": 2})],
)
def test_a_density_is_judged_and_nets_begin_with_its_weights(model: str, settings: dict[str, Any]):
    more = {"architecture": "9fc-5fc", "epochs": 2}
    found = run(density, model, settings | more, labels=["50", "all"])
    told = found.metrics
    assert -64 * 0.6932 < told["log_likelihood"] < 0
    assert told["log_partition"][0] == told["log_partition"][1]  # few states: exact
    assert "a lower bound" in told["log_likelihood_how"]
    assert all(0 <= told[f"error_{n}"] <= 100 for n in ("50", "all"))
    stages = {(epoch["stage"], epoch.get("labels")) for epoch in found.curve}
    assert ("fine-tuning", "50") in stages and ("pixels", None) in stages
    assert ("pixels", "50") not in stages  # the machine is not learned again


def test_an_rbms_likelihood_is_told_beside_the_error_of_its_estimate():
    told = run(likelihood, "rbm", {"n_hidden": 8, "epochs": 2}).metrics
    assert -64 * 0.6932 < told["test"] < 0
    assert abs(told["test"] - told["training"]) < 3
    assert abs(told["estimate_less_exact"]) < 0.3


def test_a_machine_restores_by_draws_and_a_net_in_one_pass():
    drawn = run(restored, "rbm", {"n_hidden": 8, "epochs": 2}).metrics
    assert drawn["apart"] > 0
    # The mean of draws is as near as a draw, and nearer by what the draws lie apart.
    assert drawn["error"] < drawn["single"]
    assert drawn["single"] - drawn["error"] == pytest.approx(0.8 * drawn["apart"], rel=1e-3)
    once = run(restored, "autoencoder", {"architecture": "9fc", "epochs": 2}).metrics
    assert {"error", "repeated"} <= once.keys() and "single" not in once
    assert once["filled"] == pytest.approx(drawn["filled"])
    assert once["milliseconds"] > 0


@pytest.mark.parametrize("budget", ["quick", "full"])
@pytest.mark.parametrize("name", ["rbm-likelihood", "dbn-mnist", "dbm-mnist", "restoration"])
def test_every_cell_can_be_run_and_every_published_number_has_its_place(name: str, budget: str):
    plan = experiments.find(name).plan(budget, 2, None)
    for cell in plan.cells:
        cell.check()
    assert len({cell.file for cell in plan.cells}) == len(plan.cells)
    labels = {column.label for column in plan.measured}
    assert all(row in plan.rows and column in labels for row, column in plan.published)
    columns = {cell.column for cell in plan.cells}
    assert {column.cells for column in plan.measured} == columns
