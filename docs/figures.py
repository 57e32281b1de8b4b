"""Draw the figures of the documents: ``python docs/figures.py`` (minutes; needs MNIST)."""

from pathlib import Path

import numpy as np

from whatwhere.evaluate import panels, strips
from whatwhere.experiments.sparse_regimes import EPOCHS, REGIMES, plan
from whatwhere.models.sparse_autoencoder import SparseAutoencoder

IMAGES = Path(__file__).parent / "images"
SHOWN = 24


def sparse_regimes() -> None:
    """Draw the first filters of the three regimes, as ``reproduce sparse-regimes`` trains them."""
    rows = {}
    train = plan("full", 1, None).cells[0].job.read().train
    for name, settings in REGIMES.items():
        learner = SparseAutoencoder(**settings, epochs=EPOCHS["full"], random_state=0)
        filters = learner.fit(train.x).module_.filters().numpy()[:SHOWN]
        largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
        rows[name.partition(": ")[2]] = 0.5 + 0.5 * filters / largest
    IMAGES.mkdir(exist_ok=True)
    panels.write_png(IMAGES / "sparse-regimes.png", strips.strips(rows))


if __name__ == "__main__":
    sparse_regimes()
