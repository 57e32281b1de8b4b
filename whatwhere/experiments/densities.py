"""Deep densities of MNIST, and nets that begin with their weights: what their tables share.

Protocol: a machine learns the 60,000 training images, binary ones drawn from the grays, without
labels; the bound on log p is told of the test images, each drawn once. Then a net begins with its
weights and is fine-tuned with 100, 1000, 10,000 and all labels, and judged on the test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell, Column, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.train.trainer import Trainer

CELL = "test"
BOUND, LOG_Z, MINUTES = "test, nats an image", "log Z", "minutes"
LABELS = ("100", "1000", "10000", "all")
ERRORS = {n: f"error, %, {f'{int(n):,}' if n.isdecimal() else n} labels" for n in LABELS}
FINE_TUNING = "fine-tuning"


def density(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the machine without labels; tell its likelihood, and the errors of nets begun as it."""
    from whatwhere.evaluate import judge
    from whatwhere.learner import ImageClassifier

    assert read.test is not None
    learner = trained(cell.job, read, trainer)
    told = judge.evaluate(learner, read.test, careful=True)
    metrics = {name: told[name] for name in ("log_likelihood", "log_likelihood_how")}
    metrics["log_partition"] = told["log_partition"]
    curve = list(learner.history_)
    assert isinstance(learner, ImageClassifier)
    stages = [stage["name"] for stage in learner.stages_]
    for n in cell.options["labels"]:
        job = replace(cell.job, labels=n, label_seed=cell.draw)
        shown = job.read().train
        tuned = job.learner().set_params(stage_epochs=dict.fromkeys(stages, 0))
        tuned.fit(shown.x, shown.y, start=learner)
        metrics[f"error_{n}"] = judge.evaluate(tuned, read.test)["error"]
        curve += [epoch | {"labels": n} for epoch in tuned.history_]
    return Result(metrics, curve)


def cells(
    model: str,
    rows: Mapping[str, Mapping[str, Any]],
    budget: str,
    seeds: int | None,
    data_dir: str | None,
    labels: Sequence[str] = LABELS,
) -> tuple[Cell, ...]:
    """Return a cell for each row and draw.

    Parameters
    ----------
    model : str
    rows : mapping of str to mapping
        The hyper-parameters of each.
    budget, seeds, data_dir
        As for a plan.
    labels : sequence of str
        How many, for the nets that begin with a machine's weights.
    """
    return tuple(
        Cell(
            row,
            CELL,
            draw,
            Job(
                data="mnist",
                model=model,
                labels="none",
                settings=dict(settings),
                seed=draw,
                data_dir=data_dir,
            ),
            budget,
            density,
            {"labels": list(labels)},
        )
        for row, settings in rows.items()
        for draw in range(seeds or 1)
    )


def columns(labels: Sequence[str] = LABELS) -> tuple[Column, ...]:
    """Return the columns: the bound, log Z, the errors, and the minutes."""

    def log_z(record: Mapping[str, Any]) -> float:
        return record["metrics"]["log_partition"][0]

    return (
        Column(BOUND, metric("log_likelihood"), "", 2, CELL),
        Column(LOG_Z, log_z, "", 2, CELL),
        *(Column(ERRORS[n], metric(f"error_{n}"), "", 2, CELL) for n in labels),
        Column(MINUTES, lambda record: record["minutes"], "", 0, CELL),
    )
