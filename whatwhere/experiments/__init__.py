"""Jobs, and published tables made of them. This is the table of contents of the tables."""

from importlib import import_module
from typing import Any

from whatwhere.core import unknown

CONTENTS = {  # name on the command line: file, what it is
    "swwae-mnist": ("swwae_mnist", "SWWAE on MNIST with 100, 600, 1000 and 3000 labels"),
    "deep-autoencoder-mnist": (
        "deep_autoencoder_mnist",
        "Deep auto-encoder on MNIST, from four kinds of start",
    ),
    "sparse-regimes": ("sparse_regimes", "Sparse auto-encoder: noise, strokes, whole digits"),
    "pretraining": ("pretraining", "Does pretraining help? Nets of 1 to 5 layers, 7 starts"),
    "rbm-likelihood": ("rbm_likelihood", "How likely are digits to an RBM? CD, PCD, published"),
    "dbn-mnist": ("dbn_mnist", "Deep belief networks on MNIST: bound, and error by labels"),
    "dbm-mnist": ("dbm_mnist", "Deep Boltzmann machines on MNIST: bound, and error by labels"),
    "restoration": ("restoration", "Half of an image restored: in one pass, or by Gibbs sampling"),
    "experiment-1": ("experiment_1", "Features without labels: SWWAE, Exemplar-CNN and others"),
    "exemplar-cifar10": (
        "exemplar_cifar10",
        "Exemplar-CNN on CIFAR-10: seeds, copies, transformations",
    ),
    "outliers": ("outlier_classes", "Classes held out of MNIST and Fashion-MNIST, found again"),
}


def find(name: str) -> Any:
    """Return the experiment of a name: a module with ``plan(budget, seeds, data_dir)``.

    Raises
    ------
    InputError
        Naming the nearest name, or all.
    """
    if name not in CONTENTS:
        raise unknown("no experiment is named", name, CONTENTS)
    return import_module(f"whatwhere.experiments.{CONTENTS[name][0]}")
