"""Learn image representations without labels, or with few.

>>> from whatwhere import SWWAE
>>> model = SWWAE("(16)3c-2p-(32)3c-2p", epochs=5, random_state=0)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from whatwhere.models import load
    from whatwhere.models.autoencoder import Autoencoder
    from whatwhere.models.cnn import CNN
    from whatwhere.models.dbm import DBM
    from whatwhere.models.dbn import DBN
    from whatwhere.models.deep_autoencoder import DeepAutoencoder
    from whatwhere.models.denoising_autoencoder import DenoisingAutoencoder
    from whatwhere.models.exemplar import ExemplarCNN
    from whatwhere.models.rbm import RBM
    from whatwhere.models.sparse_autoencoder import SparseAutoencoder
    from whatwhere.models.stacked_autoencoder import StackedAutoencoder
    from whatwhere.models.swwae import SWWAE
    from whatwhere.models.whitening import Whitening

__all__ = [
    "CNN",
    "DBM",
    "DBN",
    "RBM",
    "SWWAE",
    "Autoencoder",
    "DeepAutoencoder",
    "DenoisingAutoencoder",
    "ExemplarCNN",
    "SparseAutoencoder",
    "StackedAutoencoder",
    "Whitening",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import a learner when it is asked for: torch takes a second, and --help needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'whatwhere' has no attribute {name!r}")
    from whatwhere import models

    if name == "load":
        return models.load
    return next(
        models.learner_class(key) for key, (_, cls, _) in models.CONTENTS.items() if cls == name
    )


def __dir__() -> list[str]:
    return [*globals(), *__all__]
