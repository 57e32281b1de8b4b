"""Does pretraining help? Dense nets of one to five hidden layers, begun in seven ways.

In 2006 to 2012 deep nets of logistic units were held to be out of reach of gradient descent from
random weights, and to need layers that were trained one upon another first. The table asks when
that is so: by depth, by unit, by the number of labels, and by how the random weights are drawn.

References
----------
Bengio, Lamblin, Popovici, Larochelle. Greedy layer-wise training of deep networks. NIPS 2006.
Vincent et al. Stacked denoising autoencoders. JMLR 2010.
Erhan et al. Why does unsupervised pre-training help deep learning? JMLR 2010.
Glorot, Bengio. Understanding the difficulty of training deep feedforward neural networks. 2010.
"""

from collections.abc import Mapping
from typing import Any

from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import Cell, Column, Plan

RBMS = "RBMs"
STARTS: Mapping[str, dict[str, Any]] = {
    "random, historic": {"pretraining": "none", "initialization": "historic"},
    "random, modern": {"pretraining": "none"},
    "random, modern, Adam": {"pretraining": "none", "optimizer": "adam", "learning_rate": 1e-3},
    "auto-encoders": {"pretraining": "autoencoder"},
    "denoising auto-encoders": {"pretraining": "denoising"},
    "layer by layer with labels": {"pretraining": "supervised"},
    RBMS: {"pretraining": "rbm", "initialization": "historic"},
}
UNITS = ("logistic", "relu")
WIDTH = {"quick": 200, "full": 500}
DEPTHS = {"quick": (1, 3), "full": (1, 2, 3, 4, 5)}
LABELS = {"quick": (100, 1000), "full": (100, 1000, 10_000, 60_000)}
LAYER_EPOCHS, EPOCHS = {"quick": 1, "full": 5}, {"quick": 5, "full": 20}
DESCENT = {"optimizer": "sgd", "learning_rate": 0.1}
SHOWN = 1000  # labels of the cells whose gradients are told


def faded(record: Mapping[str, Any]) -> float | None:
    """Return the first gradient in the lowest layer over that in the class layer."""
    for epoch in record["curve"]:
        if epoch.get("gradient/classes"):
            return epoch["gradient/layer1"] / epoch["gradient/classes"]
    return None


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is nets of 200 units a layer, one layer and three, 100 and 1000 labels.
    seeds : int, optional
        Draws of labels and weights; default 1.
    data_dir : str, optional
    """
    epochs = {"epochs": EPOCHS[budget], "pretraining_epochs": LAYER_EPOCHS[budget]}
    cells = []
    for unit in UNITS:
        for depth in DEPTHS[budget]:
            architecture = "-".join([f"{WIDTH[budget]}fc"] * depth)
            for start, own in STARTS.items():
                if start == RBMS and unit != "logistic":
                    continue  # their units are logistic
                settings = {"architecture": architecture, "activation": unit} | DESCENT | own
                cells += [
                    Cell(
                        f"{depth} {unit} layer{'s' * (depth > 1)}, {start}",
                        f"{n:,} labels",
                        draw,
                        Job(
                            data="mnist",
                            model="stacked_autoencoder",
                            labels="all" if n == 60_000 else str(n),
                            label_seed=draw,
                            settings=settings | epochs,
                            seed=draw,
                            data_dir=data_dir,
                        ),
                        budget,
                    )
                    for n in LABELS[budget]
                    for draw in range(seeds or 1)
                ]
    columns = [Column(f"{n:,} labels") for n in LABELS[budget]]
    shown = f"{SHOWN:,} labels"
    gradient = Column("first gradient, lowest layer : class layer", faded, "", None, shown)
    return Plan(
        title="Does pretraining help? Dense nets on MNIST",
        caption=f"Test error in percent of nets with {WIDTH[budget]} units a layer, and the root "
        "mean square of the gradient in the lowest layer over that in the class layer, as "
        f"fine-tuning with {shown} begins. All images train the layers without labels, "
        f"{LAYER_EPOCHS[budget]} epoch{'s' * (LAYER_EPOCHS[budget] > 1)} each; fine-tuning takes "
        f"{EPOCHS[budget]} epochs of 100 batches or more.",
        columns=(*columns, gradient),
        cells=tuple(cells),
        notes=(
            "Plain gradient descent at a rate of 0.1 fine-tunes every row but those that say Adam; "
            "layers without labels are trained by Adam, RBMs by contrastive divergence (one step).",
            "Historic: weights drawn with deviation 0.01. Modern: Glorot and Bengio's, with the "
            "gain of the unit; all pretrained rows but RBMs begin so too.",
            "Denoising: a quarter of the inputs of each layer set to 0. Layer by layer with "
            "labels: all layers below learn with each new one.",
            "Nothing was chosen by looking at an error: rates, widths and epochs are round "
            "numbers, the same for all rows.",
        ),
    )
