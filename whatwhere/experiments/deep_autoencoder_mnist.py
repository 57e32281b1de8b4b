"""The deep auto-encoder of Hinton and Salakhutdinov on MNIST, started in four ways.

Protocol: 784-1000-500-250-30 and its mirror learns the 60,000 training images; of the 10,000 test
images the squared error is told, summed over the pixels of an image, as a mean over images.

References
----------
Hinton, Salakhutdinov. Reducing the dimensionality of data with neural networks. Science 2006.
"""

from collections.abc import Mapping
from typing import Any

from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import Cell, Column, Plan, metric

PCA_ROW, HISTORIC_ROW, MODERN_ROW, STACKED_ROW, RBM_ROW, OWN_ROW, OWN_STACKED_ROW = (
    "PCA, 30 components",
    "logistic units, historic start, plain descent",
    "logistic units, modern start, Adam",
    "logistic units, layer by layer first, Adam",
    "logistic units, RBMs first, Adam",
    "GELU units, modern start, Adam",
    "GELU units, layer by layer first, Adam",
)
CELL = "test"
ERROR, FIRST, LAST, MINUTES = (
    "squared error an image",
    "first gradient, lowest layer",
    "first gradient, code layer",
    "minutes",
)
PUBLISHED = {(PCA_ROW, ERROR): "13.87", (RBM_ROW, ERROR): "3.00"}

EPOCHS, LAYER_EPOCHS = {"quick": 2, "full": 30}, {"quick": 1, "full": 5}
HISTORIC = {"initialization": "historic", "optimizer": "sgd", "learning_rate": 0.001}
STACKED = {"pretraining": "stacked"}
RBM = {"pretraining": "rbm", "initialization": "historic"}
OWN = {
    "activation": "gelu",
    "output": "logistic",
    "loss": "squared_error",
    "weight_decay": 1e-4,
}
ROWS: Mapping[str, dict[str, Any]] = {
    HISTORIC_ROW: HISTORIC,
    MODERN_ROW: {},
    STACKED_ROW: STACKED,
    RBM_ROW: RBM,
    OWN_ROW: OWN,
    OWN_STACKED_ROW: OWN | STACKED,
}


def gradient(layer: int) -> Any:
    """Return what reads the first gradient of fine-tuning in a layer of the encoder."""

    def read(record: Mapping[str, Any]) -> float | None:
        found = [epoch.get(f"gradient/layer{layer}") for epoch in record["curve"]]
        return next((value for value in found if value is not None), None)

    return read


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 2 epochs in place of 30, and 1 in place of 5 a layer.
    seeds : int, optional
        Draws of weights; default 1.
    data_dir : str, optional
    """

    def job(model: str, settings: dict[str, Any], draw: int) -> Job:
        # A learner of features never looks at labels; they are there for the probe.
        given = {"labels": "1000", "label_seed": draw, "seed": draw, "data_dir": data_dir}
        return Job(data="mnist", model=model, settings=settings, **given)

    pca = {"kind": "pca", "n_components": 30}
    epochs = {"epochs": EPOCHS[budget]}
    layers = {"pretraining_epochs": LAYER_EPOCHS[budget]}
    cells = [Cell(PCA_ROW, CELL, 0, job("whitening", pca, 0), budget)]
    for row, own in ROWS.items():
        settings = own | epochs | (layers if "pretraining" in own else {})
        cells += [
            Cell(row, CELL, draw, job("deep_autoencoder", settings, draw), budget)
            for draw in range(seeds or 1)
        ]
    error = metric("reconstruction_sse")
    return Plan(
        title="Deep auto-encoder on MNIST",
        caption="784-1000-500-250-30 and its mirror, the code of 30 numbers linear. Squared error "
        "summed over the pixels of a test image in [0, 1], a mean over the 10,000; test error of "
        "logistic regression on the 30 numbers, fitted to 1000 labels; root mean square of the "
        "gradient over the weights of a layer as training of the whole net begins.",
        columns=(
            Column(ERROR, error, "", 2, CELL),
            Column("probe error, %, 1000 labels", metric("error"), "", 2, CELL),
            Column(FIRST, gradient(1), "", None, CELL),
            Column(LAST, gradient(4), "", None, CELL),
            Column(MINUTES, lambda record: record["minutes"], "", 0, CELL),
        ),
        cells=tuple(cells),
        published=PUBLISHED,
        notes=(
            "Published: Hinton and Salakhutdinov 2006, whose layers were trained as RBMs and "
            "fine-tuned for 200 epochs by conjugate gradients (3.00, from memory of the paper); "
            "PCA was computed anew.",
            "Historic start: weights drawn with deviation 0.01, plain gradient descent. Modern "
            "start: Glorot and Bengio's, with the gain of the unit. Layer by layer: each layer is "
            f"first trained for {LAYER_EPOCHS[budget]} epochs as an auto-encoder of what is below, "
            "or as an RBM (contrastive divergence of one step) from weights of deviation 0.01.",
            "Logistic rows minimize the cross-entropy, GELU rows the squared error of logistic "
            "pixels with a weight decay of 0.0001. Units and decay were chosen by the error on "
            "5,000 validation images after 15 epochs (ReLU 3.70, ReLU with a decay of 0.0003 3.49, "
            "GELU with 0.0001 3.12); the cells use no validation images.",
        ),
    )
