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
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import InputError, Objective, seeded
from whatwhere.data.views import RandomShift
from whatwhere.learner import ImageClassifier, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.nn.architecture import parse
from whatwhere.nn.conv import Encoder, in_channels_last
from whatwhere.objectives.classification import (
    BALANCED,
    check_class_weight,
    classification,
    row_weights,
)
from whatwhere.train.stage import EarlyStopping, Mixed, Sampler, Shuffled, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay

COUNT = Interval(Integral, 1, None, closed="left")


class Settled(NamedTuple):
    """The hyper-parameters that may be left to the data, none of them "auto" any more."""

    architecture: str
    batch_size: int
    epochs: int


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

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Return *what* of each pooled level, and what dense layers give: level1, level2, ..."""
        return self.encoder.levels(x)

    def levels_with_where(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels, *what* of pooled ones spread over the places in its windows."""
        return self.encoder.levels(x, with_where=True)

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
        See `whatwhere.nn.architecture.parse`. "auto": as `whatwhere.learner.defaults` has it for
        images of this size.
    epochs : int or "auto"
        Passes over the unlabeled rows where fewer than half are labeled, else over all. "auto": 5,
        and more for small sets and for many labels.
    batch_size : int or "auto"
        "auto": 100, and less for small sets.
    labeled_share : float
        Part of a batch that is labeled, where fewer than half of all rows are.
    class_weight : "balanced", dict or None
        How much a class counts in the class layer's loss: as much as another, or as much as it has
        labels (None), times what the dict says of it (1 where nothing). Where few rows are labeled,
        balanced batches are drawn; else the rows are weighted.
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

    architecture: str = AUTO
    _: KW_ONLY
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    labeled_share: float = 0.5
    class_weight: dict[Any, float] | str | None = BALANCED
    learning_rate: float = 6e-3  # Measured: see docs/results.md
    decay_from: float = 0.5
    batch_norm: bool = True
    dropout: float = 0.5
    shift: int = 0
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "epochs": [COUNT, StrOptions({AUTO})],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "labeled_share": [Interval(Real, 0, 1, closed="neither")],
        "class_weight": [StrOptions({BALANCED}), dict, None],
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
        if self.architecture != AUTO:
            parse(self.architecture)
        check_class_weight(self.class_weight)

    @abstractmethod
    def objective(self, class_weight: tuple[float, ...] = ()) -> Objective:
        """Return the loss; `class_weight` is that of the labeled rows of each class."""

    @property
    @abstractmethod
    def uses_unlabeled(self) -> bool:
        """Whether rows without a label change anything."""

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what architecture, batch size and epochs are, those of them that are "auto"."""
        settled = self.settle(spec)._asdict()
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def settle(self, spec: Spec) -> Settled:
        """Return what is given, and what is chosen in place of "auto"."""
        architecture, size, epochs = self.architecture, self.batch_size, self.epochs
        if architecture == AUTO:
            architecture = defaults.architecture(spec.shape)
        if isinstance(size, str):
            size = defaults.batch_size(spec.n_samples)
        if isinstance(epochs, str):
            labeled = self._labeled_rows(spec, size)
            passed = spec.n_samples - spec.n_labeled if labeled else spec.n_samples
            epochs = defaults.epochs(-(-passed // (size - labeled)), spec.n_labeled)
        return Settled(architecture, size, epochs)

    def encoder(self, spec: Spec) -> Encoder:
        """Return the encoder, its weights drawn from a key of its own."""
        with seeded(spec.seed, "encoder"):
            layers = parse(self.settle(spec).architecture, spec.n_classes)
            return Encoder(layers, spec.shape, batch_norm=self.batch_norm)

    def stages(self, module: nn.Module, spec: Spec) -> list[Stage]:
        """Return the one stage, in which all parts learn jointly."""
        settled, sampler = self.settle(spec), self.sampler(spec)
        adam = partial(torch.optim.Adam, lr=self.learning_rate)
        objective = self.objective(self._weights(spec, sampler))
        update = GradientUpdate(
            module, objective, adam, self.moving(module), schedule=LinearDecay(self.decay_from)
        )
        stage = Stage("joint", [update], settled.epochs, settled.batch_size, sampler=sampler)
        if self.shift:
            stage.view = RandomShift(self.shift)
        if self.patience is not None:
            metric = "validation/error" if spec.n_classes else "validation/reconstruction"
            stage.early_stopping = EarlyStopping(self.patience, metric)
        return [stage]

    def moving(self, module: nn.Module) -> Sequence[nn.Module]:
        """Return the parts that learn; all of them where none is named."""
        return ()

    def sampler(self, spec: Spec) -> Sampler:
        """Return how batches are made: few labels are cycled, many are met as they come."""
        size = self.settle(spec).batch_size
        labeled = self._labeled_rows(spec, size)
        if not labeled:
            return Shuffled(unlabeled=self.uses_unlabeled)
        if labeled == 1 and self.batch_norm and not self.uses_unlabeled:
            raise InputError(
                f"batch_size={size} with labeled_share={self.labeled_share:g} "
                "leaves one labeled row a batch, in which there is no variance to normalize; "
                "take a larger one, or batch_norm=False"
            )
        return Mixed(labeled, unlabeled=self.uses_unlabeled, balanced=self.class_weight == BALANCED)

    def _weights(self, spec: Spec, sampler: Sampler) -> tuple[float, ...]:
        """Return the weight of the rows of each class; none where all are 1."""
        # Mixed batches are balanced as they are drawn: nothing is made up for twice.
        if isinstance(sampler, Mixed) and not isinstance(self.class_weight, dict):
            return ()
        return row_weights(self.class_weight, self._known_classes(), spec.class_counts)

    def _labeled_rows(self, spec: Spec, batch_size: int) -> int:
        """Return the labeled rows of a mixed batch; 0 where batches are not mixed."""
        if not 0 < spec.n_labeled < spec.n_samples / 2:
            return 0
        return min(max(round(self.labeled_share * batch_size), 1), batch_size - 1)


@dataclass(eq=False, repr=False)
class CNN(ConvolutionalClassifier):
    """Convolutional net, trained on labels alone.

    Parameters
    ----------
    architecture : str
    epochs, batch_size, labeled_share, class_weight, learning_rate, decay_from, batch_norm, dropout,
    shift, patience
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

    def objective(self, class_weight: tuple[float, ...] = ()) -> Objective:
        """Return equation 4, its rows weighted by their classes where there are weights."""
        return partial(classification, class_weight=class_weight)

    def build(self, spec: Spec) -> CNNModule:
        """Return the net; without labels it keeps its random encoder and learns nothing."""
        encoder = self.encoder(spec)
        with seeded(spec.seed, "head"):
            net = CNNModule(encoder, spec.n_classes, self.dropout)
        return in_channels_last(net)
