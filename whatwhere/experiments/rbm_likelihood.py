"""How likely are digits to an RBM? Contrastive divergence of 1, 3 and up to 25 steps, and PCD.

Protocol: binary images drawn from MNIST's grays, anew at each batch; the 10,000 test images are
drawn once. log Z by annealed importance sampling with 14,500 temperatures and 100 chains; with 20
hidden units it is also summed exactly, beside the estimate.

References
----------
Salakhutdinov, Murray. On the quantitative analysis of deep belief networks. ICML 2008.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell, Column, Plan, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.train.trainer import Trainer

CELL = "test"
CD1, CD3, CD25, OWN, MIXTURE, CD1_FEW, CD25_FEW, OWN_FEW = (
    "CD-1, 500 hidden",
    "CD-3, 500 hidden",
    "CD with 1 to 25 steps, 500 hidden",
    "PCD, centered, 500 hidden",
    "mixture of 500",
    "CD-1, 20 hidden",
    "CD with 1 to 25 steps, 20 hidden",
    "PCD, centered, 20 hidden",
)
LIKELIHOOD, TRAIN, LOG_Z, ERROR, MINUTES = (
    "test, nats an image",
    "training, nats an image",
    "log Z",
    "estimate less exact log Z",
    "minutes",
)
PUBLISHED = {
    (CD1, LIKELIHOOD): "-125.53",
    (CD3, LIKELIHOOD): "-105.50",
    (CD25, LIKELIHOOD): "-86.34",
    (MIXTURE, LIKELIHOOD): "-137.64",
    (CD1_FEW, LIKELIHOOD): "-164.50",
}

DEMO = {
    "negative": "cd",
    "centered": False,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 2e-4,
}
BEST = {
    "negative": "pcd",
    "centered": True,
    "learning_rate": 0.05,
    "decay_from": 0.0,
    "weight_decay": 1e-4,
}
RAISED = {"steps": 1, "last_steps": 25}
FEW = {"n_hidden": 20}
ROWS: Mapping[str, dict[str, Any]] = {
    CD1: DEMO,
    CD3: DEMO | {"steps": 3},
    CD25: DEMO | RAISED,
    OWN: BEST,
    MIXTURE: BEST | {"hidden": "multinomial"},
    CD1_FEW: DEMO | FEW,
    CD25_FEW: DEMO | RAISED | FEW,
    OWN_FEW: BEST | FEW,
}
EPOCHS: Mapping[str, Mapping[str, int]] = {
    "quick": {OWN: 3},
    "full": {CD1: 10, CD3: 10, CD25: 10, OWN: 250},
}
OTHERS = {"quick": 2, "full": 20}
SHOWN = 10_000  # training images whose likelihood is told


def likelihood(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the machine, and tell how likely test and training images are to it."""
    from whatwhere.evaluate.likelihood import measure
    from whatwhere.models.rbm import RBMModule
    from whatwhere.nn import annealing

    assert read.test is not None
    learner = trained(cell.job, read, trainer)
    told = measure(learner, read.test.x, careful=True)
    metrics = {
        "test": told["log_likelihood"],
        "how": told["log_likelihood_how"],
        "log_partition": told["log_partition"],
        "log_z": told["log_partition"][0],
    }
    quick = measure(learner, read.train.x[:SHOWN])
    # Of the same log Z as the test images.
    quick["log_likelihood"] += quick["log_partition"][0] - metrics["log_z"]
    metrics["training"] = quick["log_likelihood"]
    module = learner.module_
    assert isinstance(module, RBMModule)
    if "exact" in told["log_likelihood_how"]:
        estimate = annealing.estimate(module.machine, module.pixels.base)
        metrics["estimate_less_exact"] = estimate.value - metrics["log_z"]
    return Result(metrics, learner.history_)


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 2 or 3 epochs in place of 10 to 250.
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
                model="rbm",
                labels="none",
                settings=own | {"epochs": EPOCHS[budget].get(row, OTHERS[budget])},
                seed=draw,
                data_dir=data_dir,
            ),
            budget,
            likelihood,
        )
        for row, own in ROWS.items()
        for draw in range(seeds or 1)
    )
    return Plan(
        title="Likelihood of MNIST under restricted Boltzmann machines",
        caption="Mean log-likelihood of the 10,000 test images, each drawn once as a binary image, "
        "and of 10,000 training images; log Z by annealed importance sampling, with 20 hidden "
        "units (and for the mixture) exactly.",
        columns=(
            Column(LIKELIHOOD, metric("test"), "", 2, CELL),
            Column(TRAIN, metric("training"), "", 2, CELL),
            Column(LOG_Z, metric("log_z"), "", 2, CELL),
            Column(ERROR, metric("estimate_less_exact"), "", 3, CELL),
            Column(MINUTES, lambda record: record["minutes"], "", 0, CELL),
        ),
        cells=cells,
        published=PUBLISHED,
        draws="draws of weights",
        notes=(
            "Published: Salakhutdinov and Murray 2008; all but -86.34 from memory of the paper.",
            "CD rows: a rate of 0.05, momentum 0.5 and then 0.9, a weight decay of 0.0002. PCD "
            "rows: 100 chains, one step of Gibbs sampling an update, no momentum, a rate of 0.05 "
            "that goes linearly to 0, a weight decay of 0.0001; of the rates 0.05, 0.1 and 0.2, "
            "tried for 10 or 15 epochs, a low one was chosen for many epochs, by the likelihood of "
            "5,000 validation images; the cells use none. Epochs: "
            + ", ".join(f"{row} {n}" for row, n in EPOCHS[budget].items())
            + f", the others {OTHERS[budget]}.",
        ),
    )
