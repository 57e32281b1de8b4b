"""Three regimes of sparsity: filters like noise, strokes, whole digits.

References
----------
Ng. Sparse autoencoder. CS294A lecture notes, 2011.
Makhzani, Frey. k-sparse autoencoders. ICLR 2014.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import PROBE, Cell, Column, Plan, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.train.trainer import Trainer

CELL = "test"
NOISE, STROKES, DIGITS = "no sparsity: noise", "some: strokes", "too much: whole digits"
SHARED = {"architecture": "400fc", "tied": True, "initialization": "historic"}
REGIMES: Mapping[str, dict[str, Any]] = {
    NOISE: SHARED | {"weight": 0.0, "weight_decay": 0.0},
    STROKES: SHARED | {"target": 0.15, "weight": 3.0, "weight_decay": 0.03},
    DIGITS: SHARED | {"target": 0.02, "weight": 5.0, "weight_decay": 0.02},
}
EPOCHS = {"quick": 2, "full": 15}


def regime(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner; beside what any is judged by, tell how active its code is."""
    from whatwhere.evaluate import judge

    assert read.test is not None
    learner = trained(cell.job, read, trainer)
    activity = learner.transform(read.test.x)
    metrics = dict(judge.evaluate(learner, read.test))
    metrics |= judge.probe(learner, read.train, read.test, PROBE)
    metrics["mean_activation"] = float(activity.mean())
    metrics["active"] = 100 * float((activity > 0.5).mean())
    return Result(metrics, learner.history_)


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 2 epochs in place of 15.
    seeds : int, optional
        Draws of weights; default 1.
    data_dir : str, optional
    """
    cells = tuple(
        Cell(
            row,
            CELL,
            draw,
            Job(
                data="mnist",
                model="sparse_autoencoder",
                labels="1000",
                label_seed=draw,
                settings=own | {"epochs": EPOCHS[budget]},
                seed=draw,
                data_dir=data_dir,
            ),
            budget,
            regime,
        )
        for row, own in REGIMES.items()
        for draw in range(seeds or 1)
    )
    return Plan(
        title="Three regimes of sparsity on MNIST",
        caption="A sparse auto-encoder of 400 logistic units with tied weights, on the 60,000 "
        "training images without labels; squared error summed over the pixels of a test image, "
        "mean activation of a unit, units above one half, and test error of logistic regression "
        "on the code with 1000 labels.",
        columns=(
            Column("squared error an image", metric("reconstruction_sse"), "", 2, CELL),
            Column("mean activation", metric("mean_activation"), "", 3, CELL),
            Column("units above 1/2, %", metric("active"), "", 1, CELL),
            Column("probe error, %, 1000 labels", metric("error"), "", 2, CELL),
        ),
        cells=cells,
        notes=(
            "Targets of 0.15 and 0.02 with weights of 3 and 5, and weight decays of 0, 0.03 and "
            "0.02, from top to bottom; chosen by looking at filters, not at errors.",
        ),
    )
