"""Draw the figures of the documents: ``python docs/figures.py [NAME ...]``.

``regimes`` and ``machines`` take minutes, and MNIST; ``learners`` reads what was recorded.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from whatwhere.evaluate import panels, sampling, strips
from whatwhere.experiments import dbm_mnist, experiment_1, sparse_regimes
from whatwhere.experiments.fitting import fit_images
from whatwhere.models.sparse_autoencoder import SparseAutoencoder

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
LABELS = experiment_1.LABELS
SHOWN = 24
GIBBS = 2000


def regimes() -> None:
    """Draw the first filters of the three regimes, as ``reproduce sparse-regimes`` trains them."""
    rows = {}
    epochs = sparse_regimes.EPOCHS["full"]
    train = sparse_regimes.plan("full", 1, None).cells[0].job.read().train
    for name, settings in sparse_regimes.REGIMES.items():
        learner = SparseAutoencoder(**settings, epochs=epochs, random_state=0)
        filters = learner.fit(train.x).module_.filters().numpy()[:SHOWN]
        largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
        rows[name.partition(": ")[2]] = 0.5 + 0.5 * filters / largest
    panels.write_png(IMAGES / "sparse-regimes.png", strips.strips(rows))


def machines() -> None:
    """Draw samples of the two small machines, as ``reproduce dbm-mnist`` trains them at first."""
    rows = {}
    for cell in dbm_mnist.plan("quick", 1, None).cells:
        if cell.row in (dbm_mnist.FLAT, dbm_mnist.SAME):
            learner = fit_images(cell.job.learner(), cell.job.read())
            rows[cell.row.partition(",")[0]] = sampling.samples(learner, SHOWN, GIBBS)
    panels.write_png(IMAGES / "dbm-samples.png", strips.strips(rows))


def learners() -> None:
    """Draw the errors of experiment 1 by numbers of labels, out of the recorded table."""
    table = json.loads((ROOT / "results" / "experiment-1" / "table.json").read_text("utf-8"))
    order = list(experiment_1.rows("quick", "mnist"))
    n = [int(one) if one.isdecimal() else experiment_1.IMAGES["quick"] for one in LABELS]
    figure, axes = plt.subplots(1, len(experiment_1.SETS), figsize=(11, 4), layout="constrained")
    for ax, name in zip(axes, experiment_1.SETS.values(), strict=True):
        own = [row for row in table["rows"] if row["label"].startswith(f"{name}: ")]
        rows = {
            row["label"].removeprefix(f"{name}: "): [one["mean"] for one in row["cells"][: len(n)]]
            for row in own
            if row["cells"][0] and row["cells"][0]["mean"] is not None
        }
        for row, errors in rows.items():
            style = "o--" if row in (experiment_1.SEMI, experiment_1.ALONE) else "o-"
            ax.plot(n, errors, style, color=f"C{order.index(row)}", label=row, ms=3, lw=1.2)
        ax.set(title=name, xscale="log", yscale="log", xlabel="labels")
        ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(alpha=0.2)
    axes[0].set_ylabel("test error, %")
    figure.legend(
        *axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    figure.savefig(IMAGES / "experiment-1.png", dpi=110)


FIGURES = {"regimes": regimes, "machines": machines, "learners": learners}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
