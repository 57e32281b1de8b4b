"""The digits that come with scikit-learn: 8 x 8 pixels, no files needed.

Their pixels count 0 to 16 dark dots in a 4 x 4 block. They are stored as uint8 by the rule
round(255 v / 16), which gives each count a value of its own, so nothing is lost:
v = round(16 x / 255).

References
----------
Alpaydin, Kaynak. Optical recognition of handwritten digits. UCI Machine Learning Repository, 1998.
"""

from pathlib import Path

import numpy as np

from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources.named import NamedSet


def read(folder: Path) -> DataSet:
    """Return all 1,797 images as a training part; the data folder is not looked at."""
    # It takes a second, which --help should not.
    from sklearn.datasets import load_digits

    del folder
    counts, y = load_digits(return_X_y=True)
    x = np.rint(counts * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return DataSet("digits", Images(x, y.astype(np.int64), tuple(range(10))), None)


DIGITS = NamedSet(
    name="digits",
    read=read,
    present=lambda folder: True,
    n_train=1797,
    n_test=0,
    shape=(1, 8, 8),
    classes=tuple(range(10)),
    licence="CC BY 4.0",
    origin="Alpaydin, Kaynak: Optical recognition of handwritten digits, UCI, 1998",
    files="none: comes with scikit-learn",
)
