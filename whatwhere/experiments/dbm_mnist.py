"""Deep Boltzmann machines on MNIST: how likely, and what nets make of few labels.

References
----------
Salakhutdinov, Hinton. Deep Boltzmann machines. AISTATS 2009.
Bondarenko. Boltzmann machines in TensorFlow with examples. 2017 (784-512-1024 with few labels).
"""

from collections.abc import Mapping
from typing import Any

from whatwhere.experiments.densities import BOUND, ERRORS, cells, columns
from whatwhere.experiments.plan import Plan

DEEP, FLAT, SAME = "784-500-1000", "784-200, which is an RBM", "784-180-90"
PUBLISHED = {
    (DEEP, BOUND): "-84.62",
    (DEEP, ERRORS["100"]): "16.21 (784-512-1024)",
    (DEEP, ERRORS["1000"]): "6.46 (784-512-1024)",
    (DEEP, ERRORS["10000"]): "2.89 (784-512-1024)",
    (DEEP, ERRORS["all"]): "0.95",
}
ROWS: Mapping[str, dict[str, Any]] = {
    FLAT: {"architecture": "200fc"},
    SAME: {"architecture": "180fc-90fc"},
    DEEP: {"architecture": "500fc-1000fc"},
}
EPOCHS = {"quick": {FLAT: 8, SAME: 8, DEEP: 4}, "full": {FLAT: 100, SAME: 100, DEEP: 100}}
TUNING = {"quick": 5, "full": 20}
SETTINGS = {"sweeps": 5, "joint_rate": 0.1, "weight_decay": 1e-4}


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 4 or 8 epochs in place of 100.
    seeds : int, optional
        Draws of weights and labels; default 1.
    data_dir : str, optional
    """
    rows = {
        row: own | SETTINGS | {"joint_epochs": EPOCHS[budget][row], "epochs": TUNING[budget]}
        for row, own in ROWS.items()
    }
    return Plan(
        title="Deep Boltzmann machines on MNIST",
        caption="The bound on the mean log-likelihood of the 10,000 test images, each drawn once "
        "as a binary image (of 784-200, which has one hidden layer, the value itself); log Z by "
        "annealed importance sampling; test error of nets that begin with the machine's weights "
        "and its mean field. 784-200 and 784-180-90 have as many weights.",
        columns=columns(),
        cells=cells("dbm", rows, budget, seeds, data_dir),
        published=PUBLISHED,
        draws="draws of weights and labels",
        notes=(
            "Published: Salakhutdinov and Hinton 2009 (-84.62 and 0.95, after pretraining by pairs "
            "and 500 epochs); errors with few labels of an independent repeat with other sizes.",
            "No pretraining: the centered gradient, 100 persistent chains, one step of Gibbs "
            "sampling and 5 sweeps of mean field an update, a rate of 0.1 that goes linearly to "
            f"0, a weight decay of 0.0001; {EPOCHS[budget][DEEP]} epochs of 784-500-1000, "
            f"{EPOCHS[budget][FLAT]} of the others; {TUNING[budget]} of fine-tuning.",
        ),
    )
