"""Denoising auto-encoder: rebuilds an image from a corrupted copy of it.

    x ↦ x + Δx,  h = f(W (x + Δx) + b),  x̃ = g(W' h + b'),  L = C(x, x̃)

Copying is of no use to it, so its code may be larger than its input. With Gaussian noise of a small
deviation σ, linear output and squared error, x̃ - x is σ² times the gradient of log p(x): it points
to where images are likely (Alain & Bengio 2014).

References
----------
Vincent, Larochelle, Bengio, Manzagol. Extracting and composing robust features with denoising
autoencoders. ICML 2008.
Vincent et al. Stacked denoising autoencoders. JMLR 2010.
Alain, Bengio. What regularized auto-encoders learn from the data-generating distribution. JMLR
2014.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from whatwhere.core import Batch, Terms
from whatwhere.data.corruption import KINDS, Corruption, corruption
from whatwhere.learner import Spec
from whatwhere.models.autoencoder import MirrorLearner, decay
from whatwhere.nn.mirror import Mirror
from whatwhere.objectives.reconstruction import LOSSES


@dataclass(frozen=True)
class DenoisingLoss:
    """The error with which clean images are rebuilt from corrupted ones.

    Parameters
    ----------
    loss : {"squared_error", "cross_entropy"}
    corrupt : callable (Tensor) -> Tensor
    weight_decay : float
        λ of the term λ/2 Σ W².
    """

    loss: str
    corrupt: Callable[[Tensor], Tensor]
    weight_decay: float = 0.0

    def __call__(self, net: Mirror, batch: Batch) -> Terms:
        """Return reconstruction, a sum over pixels and mean over images, and weight_decay."""
        scores = net.scores(net.code(self.corrupt(batch.x)))
        terms = {"reconstruction": LOSSES[self.loss](scores, batch.x, net.output)}
        return terms | decay(net, self.weight_decay)


@dataclass(eq=False, repr=False)
class DenoisingAutoencoder(MirrorLearner):
    """Denoising auto-encoder.

    Parameters
    ----------
    architecture : str
        As for `Autoencoder`; the code may be larger than the image.
    corruption : {"masking", "gaussian", "salt-and-pepper"}
        What is done to the images that the net sees in training.
    level : float
        Part of the pixels that are set to 0 (masking) or to 0 or 1 (salt-and-pepper); deviation of
        the noise that is added (gaussian), in units of pixels in [0, 1].
    activation, code_activation, output, loss, tied, initialization, weight_decay, epochs,
    batch_size, optimizer, learning_rate, decay_from, patience
        As for `Autoencoder`.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> model = DenoisingAutoencoder("4fc", learning_rate=0.05, epochs=100, random_state=0)
    >>> noisy = np.where(np.arange(8) == 6, 0, images).astype(np.uint8)  # one column is lost
    >>> rebuilt = model.fit(images).reconstruct(noisy)[:, 0]
    >>> bool(abs(rebuilt - images / 255).max() < 0.1)
    True
    """

    architecture: str = "1000fc"
    _: KW_ONLY
    corruption: str = "masking"
    level: float = 0.3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MirrorLearner._parameter_constraints,
        "corruption": [StrOptions(set(KINDS))],
        "level": [Interval(Real, 0, None, closed="left")],
    }

    @property
    def undoes(self) -> Corruption:
        """What is done to the images that the net sees in training."""
        return corruption(self.corruption, self.level)

    def check(self) -> None:
        """Check every hyper-parameter, the level of this kind of noise too."""
        super().check()
        corruption(self.corruption, self.level)  # says what is wrong with it

    def objective(self, spec: Spec) -> DenoisingLoss:
        """Return the error with which clean images are rebuilt."""
        return DenoisingLoss(self.fit_for(spec).loss, self.undoes, self.weight_decay)
