"""Exemplar-CNN on CIFAR-10: how many seeds, how many copies of each, which transformations.

Each row changes one thing of the Exemplar-CNN of experiment 1, and sees as many patches. Features
are judged as there.

References
----------
Dosovitskiy et al. Discriminative unsupervised feature learning with exemplar convolutional neural
networks. TPAMI 2016. arXiv:1406.6909
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whatwhere.data.images import hide_labels
from whatwhere.data.transformations import KINDS
from whatwhere.experiments import experiment_1 as e1
from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell, Column, Plan, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.train.trainer import Trainer

DATA, CELL = "cifar10", "test"
SEEDS = {"quick": (100, 500, 2000, 10_000), "full": (500, 2000, 8000, 50_000)}
COPIES = {"quick": 20, "full": 100}  # that are kept
IN_ONE = 5  # seeds a cluster, on average
DRAWS = {"quick": 1, "full": 3}
FEW, MORE = "1000", "4000"
LEFT_OUT = {
    "without translation": ("translation",),
    "without scaling": ("scaling",),
    "without rotation": ("rotation",),
    "without contrast and brightness": ("contrast", "brightness"),
    "without color": ("color",),
    "without contrast, brightness and color": ("contrast", "brightness", "color"),
    "not transformed": KINDS,
}


def judged(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner without labels, or not at all, and judge its features."""
    from whatwhere.evaluate.features import ALL, features

    read = e1.shown_part(cell, read)
    assert read.test is not None
    learner = trained(cell.job, replace(read, train=hide_labels(read.train, [])), trainer)
    x, z = (
        features(learner, part.x, level=ALL, pool="quadrants") for part in (read.train, read.test)
    )
    metrics = {
        f"{judge}_{n}": e1.error(cell, read, judge, x.__getitem__, z, n)
        for judge, n in (("linear", FEW), ("linear_svm", MORE))
    }
    return Result(metrics, learner.history_)


def rows(budget: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the learner in each row; none where nothing is learned."""
    usual, patches = e1.N_SEEDS[budget], e1.EPOCHS[budget] * SEEDS[budget][-1]

    def learner(n_seeds: int, **settings: Any) -> Mapping[str, Any]:
        common = {"architecture": e1.NET, "n_seeds": n_seeds, "batch_size": 100}
        return common | {"epochs": patches // n_seeds} | settings

    def but(kinds: tuple[str, ...]) -> str:
        return "+".join(kind for kind in KINDS if kind not in kinds) or "none"

    copies, clusters = COPIES[budget], usual // IN_ONE
    return {
        f"{usual:,} seeds": learner(usual),
        **{f"{n:,} seeds": learner(n) for n in SEEDS[budget]},
        f"{copies} copies of each kept": learner(usual, copies=copies),
        f"put into {clusters} clusters half-way": learner(
            usual, clusters=clusters, epochs=patches // usual // 2
        ),
        **{row: learner(usual, transformations=but(kinds)) for row, kinds in LEFT_OUT.items()},
        "random filters": {},
    }


def surrogate(record: Mapping[str, Any]) -> float | None:
    """Return the surrogate loss of the last epoch of the last leg, in nats."""
    found = [
        value
        for epoch in record["curve"]
        for name, value in epoch.items()
        if name.endswith("/surrogate")
    ]
    return found[-1] if found else None


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 10,000 images and 30,000 patches; full all images and 600,000.
    seeds : int, optional
        Draws of weights, seeds and labels; default 1 (quick) or 3.
    data_dir : str, optional
    """
    n_draws, table = seeds or DRAWS[budget], rows(budget)
    usual = next(iter(table))
    n_images = e1.IMAGES[budget] or SEEDS[budget][-1]
    return Plan(
        title="Exemplar-CNN on CIFAR-10: seeds, copies, transformations",
        caption=f"Test error in percent on features that were learned from {n_images:,} images "
        f"without labels, {e1.EPOCHS[budget] * n_images:,} patches in every row. Below the first "
        f"rows, which differ in the number of seeds, each row changes one thing of {usual}.",
        columns=(
            Column("1,000 labels", metric(f"linear_{FEW}"), "%", 1, CELL),
            Column("4,000 labels, linear SVM", metric(f"linear_svm_{MORE}"), "%", 1, CELL),
            Column("surrogate loss", surrogate, "nats", 2, CELL),
            Column("minutes", e1.minutes, "", 1, CELL),
        ),
        cells=tuple(
            Cell(
                row,
                CELL,
                draw,
                Job(
                    data=DATA,
                    model="exemplar_cnn" if settings else "cnn",
                    labels="none",
                    settings=dict(settings or {"architecture": e1.NET}),
                    seed=draw,
                    data_dir=data_dir,
                ),
                budget,
                judged,
                {"images": e1.IMAGES[budget], "draws": {n: [draw] for n in (FEW, MORE)}},
            )
            for draw in range(n_draws)
            for row, settings in table.items()
        ),
        differences=tuple((row, usual) for row in table if row != usual),
        drawn=("1,000 labels",),
        notes=(
            f"The net is {e1.NET}, with batch normalization; features are the maxima of the "
            "quarters of the maps of all levels. Labels are drawn balanced, the same for all rows.",
            "The surrogate loss is that of the last epoch, a mean over its patches; it depends on "
            "how many classes there are, so it compares among rows of as many seeds.",
            "The paper has 23.4 % with 4,000 labels, of a net of 92, 256 and 512 maps that learned "
            "from STL-10. There 8,000 seeds were best, 100 copies of each nearly enough, and "
            "translation, color and contrast mattered most.",
            "Minutes of training on one thread of a busy machine, without the probes.",
        ),
    )
