"""Deep belief networks on MNIST: how likely, and what nets make of few labels.

References
----------
Hinton, Osindero, Teh. A fast learning algorithm for deep belief nets. Neural Computation 2006.
Salakhutdinov, Murray. On the quantitative analysis of deep belief networks. ICML 2008.
"""

from collections.abc import Mapping
from typing import Any

from whatwhere.experiments.densities import BOUND, ERRORS, cells, columns
from whatwhere.experiments.plan import Plan

DEEP, TUNED, THREE = "500-2000", "500-2000, up-down", "500-500-2000"
PUBLISHED = {(DEEP, BOUND): "-86.22", (THREE, ERRORS["all"]): "1.2"}
ROWS: Mapping[str, dict[str, Any]] = {
    DEEP: {"architecture": "500fc-2000fc"},
    TUNED: {"architecture": "500fc-2000fc", "up_down_epochs": 1},
    THREE: {"architecture": "500fc-500fc-2000fc"},
}
LAYER_EPOCHS, UP_DOWN, TUNING = (
    {"quick": 3, "full": 100},
    {"quick": 2, "full": 30},
    {"quick": 5, "full": 20},
)


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 3 epochs a layer in place of 100.
    seeds : int, optional
        Draws of weights and labels; default 1.
    data_dir : str, optional
    """
    epochs = {"pretraining_epochs": LAYER_EPOCHS[budget], "epochs": TUNING[budget]}
    rows = {
        row: own | epochs | ({"up_down_epochs": UP_DOWN[budget]} if row == TUNED else {})
        for row, own in ROWS.items()
    }
    return Plan(
        title="Deep belief networks on MNIST",
        caption="The bound on the mean log-likelihood of the 10,000 test images, each drawn once "
        "as a binary image, with log Z of the topmost RBM by annealed importance sampling; test "
        "error of feed-forward nets that begin with the recognition weights.",
        columns=columns(),
        cells=cells("dbn", rows, budget, seeds, data_dir),
        published=PUBLISHED,
        draws="draws of weights and labels",
        notes=(
            "Published: Salakhutdinov and Murray 2008 (-86.22, on a lower RBM of 25 steps); "
            "1.2 % of a net pretrained for 50 epochs a layer and fine-tuned with all labels.",
            f"{LAYER_EPOCHS[budget]} epochs a layer, {UP_DOWN[budget]} of up-down, "
            f"{TUNING[budget]} of fine-tuning; all else as the learner has it by default.",
        ),
    )
