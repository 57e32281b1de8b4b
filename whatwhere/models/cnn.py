"""Convolutional net, trained on labels alone.

    u[i, j, r] = Σ_{k,p,q} x[i + p, j + q, k] h[p, q, k, r] + b[r],  z = max(0, u)        (eq. 1)
    pooled[i, j, r] = max over P_ij of z[., ., r]                                         (eq. 2)
    p_c = exp(a_c) / Σ_k exp(a_k),  a = W vec(pooled) + b                                 (eq. 3)
    L = -log p_c for the known class c, as a mean over the labeled rows                   (eq. 4)

It is the encoder of a SWWAE without the decoder, and the fair floor of what unlabeled images add:
rows without a label are left out, and all else stays, the labeled batches and the number of
updates too.

References
----------
LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. 1998.
"""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from whatwhere.core import InputError, Objective, seeded
from whatwhere.data.views import RandomShift
from whatwhere.learner import ImageClassifier, Spec
from whatwhere.nn.architecture import parse
from whatwhere.nn.conv import Encoder, in_channels_last
from whatwhere.objectives.classification import classification
from whatwhere.train.stage import EarlyStopping, Mixed, Sampler, Shuffled, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay

COUNT = Interval(Integral, 1, None, closed="left")


class CNNModule(nn.Module):
    """Encoder, and a class layer on its top where there are classes.

    Parameters
    ----------
    encoder : Encoder
    n_classes : int
        0 leaves the class layer out.
    dropout : float
        Part of the class layer's inputs that is dropped while training.
    """

    def __init__(self, encoder: Encoder, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = None
        if n_classes:
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.n_features, n_classes))

    def encode(self, x: Tensor) -> Tensor:
        """Return the top *what*, flat: (B, K)."""
        return self.encoder(x).top.flatten(1)

    def classify(self, top: Tensor) -> Tensor:
        """Return the scores (B, n_classes) of what the encoder gave at its top."""
        assert self.head is not None, "built without classes"
        return self.head(top.flatten(1))

    def logits(self, x: Tensor) -> Tensor:
        """Return the class scores before the softmax, (B, n_classes)."""
        return self.classify(self.encoder(x).top)

    def filters(self) -> Tensor | None:
        """Return the filters that look at the image, (K, C, h, w)."""
        return self.encoder.filters()


@dataclass(eq=False, repr=False)
class ConvolutionalClassifier(ImageClassifier):
    """What nets of one encoder have in common: how it is built and trained. Abstract.

    Parameters
    ----------
    architecture : str
        See `whatwhere.nn.architecture.parse`.
    epochs : int
        Passes over the unlabeled rows where fewer than half are labeled, else over all.
    batch_size : int
    labeled_share : float
        Part of a batch that is labeled, where fewer than half of all rows are.
    learning_rate : float
        Of Adam; constant for the first part of training, then linearly down to 0.
    decay_from : float
        Where in training, 0 to 1, the rate begins to fall.
    batch_norm : bool
        Normalize each map over the batch.
    dropout : float
        Of the class layer's inputs.
    shift : int
        Shift each training image by up to so many pixels, at random.
    patience : int, optional
        Stop when the error on the validation images has not fallen for so many epochs.
    """

    architecture: str = "(32)5c-2p-(64)3c-2p"
    _: KW_ONLY
    epochs: int = 20
    batch_size: int = 100
    labeled_share: float = 0.5
    learning_rate: float = 6e-3  # Measured: see docs/results.md
    decay_from: float = 0.5
    batch_norm: bool = True
    dropout: float = 0.5
    shift: int = 0
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "epochs": [COUNT],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "labeled_share": [Interval(Real, 0, 1, closed="neither")],
        "learning_rate": [Interval(Real, 1e-30, 1e30, closed="both")],
        "decay_from": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "shift": [Interval(Integral, 0, None, closed="left")],
        "patience": [COUNT, None],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture too."""
        super().check()
        parse(self.architecture)

    @abstractmethod
    def objective(self) -> Objective:
        """Return the loss."""

    @property
    @abstractmethod
    def uses_unlabeled(self) -> bool:
        """Whether rows without a label change anything."""

    def encoder(self, spec: Spec) -> Encoder:
        """Return the encoder, its weights drawn from a key of its own."""
        with seeded(spec.seed, "encoder"):
            layers = parse(self.architecture, spec.n_classes)
            return Encoder(layers, spec.shape, batch_norm=self.batch_norm)

    def stages(self, module: nn.Module, spec: Spec) -> list[Stage]:
        """Return the one stage, in which all parts learn jointly."""
        adam = partial(torch.optim.Adam, lr=self.learning_rate)
        update = GradientUpdate(
            module, self.objective(), adam, schedule=LinearDecay(self.decay_from)
        )
        stage = Stage("joint", [update], self.epochs, self.batch_size, sampler=self.sampler(spec))
        if self.shift:
            stage.view = RandomShift(self.shift)
        if self.patience is not None:
            metric = "validation/error" if spec.n_classes else "validation/reconstruction"
            stage.early_stopping = EarlyStopping(self.patience, metric)
        return [stage]

    def sampler(self, spec: Spec) -> Sampler:
        """Return how batches are made: few labels are cycled, many are met as they come."""
        if 0 < spec.n_labeled < spec.n_samples / 2:
            labeled = round(self.labeled_share * self.batch_size)
            labeled = min(max(labeled, 1), self.batch_size - 1)
            if labeled == 1 and self.batch_norm and not self.uses_unlabeled:
                raise InputError(
                    f"batch_size={self.batch_size} with labeled_share={self.labeled_share:g} "
                    "leaves one labeled row a batch, in which there is no variance to normalize; "
                    "take a larger one, or batch_norm=False"
                )
            return Mixed(labeled, unlabeled=self.uses_unlabeled)
        return Shuffled(unlabeled=self.uses_unlabeled)


@dataclass(eq=False, repr=False)
class CNN(ConvolutionalClassifier):
    """Convolutional net, trained on labels alone.

    Parameters
    ----------
    architecture : str
    epochs, batch_size, labeled_share, learning_rate, decay_from, batch_norm, dropout, shift,
    patience
        As for `SWWAE`.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> model = CNN("(4)3c-2p", epochs=5, random_state=0).fit(images, np.arange(20) % 2)
    >>> model.predict(images[:4])
    array([0, 1, 0, 1])
    """

    @property
    def uses_unlabeled(self) -> bool:
        """Never."""
        return False

    def objective(self) -> Objective:
        """Return equation 4."""
        return classification

    def build(self, spec: Spec) -> CNNModule:
        """Return the net; without labels it keeps its random encoder and learns nothing."""
        encoder = self.encoder(spec)
        with seeded(spec.seed, "head"):
            net = CNNModule(encoder, spec.n_classes, self.dropout)
        return in_channels_last(net)
