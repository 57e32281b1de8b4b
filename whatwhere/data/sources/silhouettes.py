"""The Caltech-101 silhouettes: 28 x 28 binary outlines of 101 kinds of objects.

The original file has the object as 0 and an image column by column; here the object is white and
the image stands upright. The usual split into training, validation and test images is not in the
file, so `--test-fraction` cuts a test part off.

References
----------
Marlin, Swersky, Chen, de Freitas. Inductive principles for restricted Boltzmann machine learning.
AISTATS 2010.
"""

from pathlib import Path

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.sources.named import Download, NamedSet, missing

NAME = "caltech101_silhouettes"
FILE = Download(
    f"{NAME}_28.mat",
    701_202,
    "862d0a4b828256d54ad5de7c5066c18c72f355cac5b7cde4c1c3be7c000d180b",
    tuple(
        f"{place}https://people.cs.umass.edu/~marlin/data/{NAME}_28.mat"
        for place in ("", "https://web.archive.org/web/2020id_/")
    ),
)
SIDE, N = 28, 8671


def read(folder: Path) -> DataSet:
    """Return all 8,671 images as a training part.

    Raises
    ------
    InputError
        If the file is not in the data folder, or is another one.
    """
    # It takes a while, which --help should not.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = folder / NAME / FILE.name
    if not path.exists():
        raise missing(NAME, FILE.name, folder / NAME, folder)
    try:
        held = loadmat(path)
        x = held["X"].reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
        y = held["Y"].ravel().astype(np.int64) - 1
        names = tuple(str(name.item()) for name in held["classnames"].ravel())
    except (MatReadError, ValueError, KeyError, OSError, TypeError):
        raise InputError(
            f"{path} is not the file that it should be; remove it and fetch it again: "
            f"whatwhere data download {NAME}"
        ) from None
    white = np.ascontiguousarray((1 - x) * np.uint8(255))[:, None]
    # Classes by number: two of them bear the same name.
    classes = names if len(set(names)) == len(names) else tuple(range(1, len(names) + 1))
    return DataSet(NAME, Images(white, y, classes), None)


SILHOUETTES = NamedSet(
    name=NAME,
    read=read,
    present=lambda folder: (folder / NAME / FILE.name).exists(),
    n_train=N,
    n_test=0,
    shape=(1, SIDE, SIDE),
    classes=tuple(range(1, 102)),
    licence="none stated; research use",
    origin="Marlin, Swersky, Chen, de Freitas: Inductive principles for RBM learning, 2010",
    files=f"{NAME}/{FILE.name}",
    downloads=(FILE,),
)
