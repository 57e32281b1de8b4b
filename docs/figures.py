"""Draw the figures of the documents: ``python docs/figures.py`` (minutes; needs MNIST)."""

from pathlib import Path

import numpy as np

from whatwhere.evaluate import panels, sampling, strips
from whatwhere.experiments import dbm_mnist, sparse_regimes
from whatwhere.experiments.fitting import fit_images
from whatwhere.models.sparse_autoencoder import SparseAutoencoder

IMAGES = Path(__file__).parent / "images"
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


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    regimes()
    machines()
