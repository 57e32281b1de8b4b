"""The methods, one file each. This is their table of contents: a new method is one line here.

From it the contract tests, the command line, the docs and the report find a method.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from whatwhere.core import unknown

if TYPE_CHECKING:
    from whatwhere.learner import Learner

CONTENTS = {  # name on the command line: file, class, what it is
    "autoencoder": ("autoencoder", "Autoencoder", "auto-encoder, dense or convolutional"),
    "dbm": (
        "dbm",
        "DBM",
        "deep Boltzmann machine: density by mean field, a net with labels",
    ),
    "dbn": (
        "dbn",
        "DBN",
        "deep belief network: density by layers, a net with labels",
    ),
    "deep_autoencoder": (
        "deep_autoencoder",
        "DeepAutoencoder",
        "auto-encoder of many layers, from random weights or pretrained ones",
    ),
    "denoising_autoencoder": (
        "denoising_autoencoder",
        "DenoisingAutoencoder",
        "auto-encoder that rebuilds images from corrupted ones",
    ),
    "exemplar_cnn": (
        "exemplar",
        "ExemplarCNN",
        "features that tell patches apart, however they are transformed",
    ),
    "rbm": (
        "rbm",
        "RBM",
        "restricted Boltzmann machine: density, features, classes",
    ),
    "sparse_autoencoder": (
        "sparse_autoencoder",
        "SparseAutoencoder",
        "auto-encoder whose code has few active units",
    ),
    "stacked_autoencoder": (
        "stacked_autoencoder",
        "StackedAutoencoder",
        "layers trained one upon another, fine-tuned with labels",
    ),
    "cnn": ("cnn", "CNN", "convolutional net, trained on labels alone"),
    "swwae": ("swwae", "SWWAE", "stacked what-where auto-encoder, with labels or without"),
    "whitening": (
        "whitening",
        "Whitening",
        "ZCA or PCA whitening, or standardization",
    ),
}


def learner_class(name: str) -> "type[Learner]":
    """Return the class of a learner by its name in the table of contents.

    Raises
    ------
    InputError
        Naming the nearest name, or all.
    """
    if name not in CONTENTS:
        raise unknown("no model is named", name, CONTENTS)
    file, cls, _ = CONTENTS[name]
    return getattr(import_module(f"whatwhere.models.{file}"), cls)


def load(run: str | Path) -> "Learner":
    """Return the fitted learner of a run folder; it predicts and transforms to the same bits.

    Raises
    ------
    InputError
        If the folder is no finished run, or a file in it cannot be read.
    """
    from whatwhere import runs

    folder = Path(run)
    config = runs.read_config(folder)
    runs.require_weights(folder)
    return learner_class(str(config.get("model"))).restore(config, folder)
