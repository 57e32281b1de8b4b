"""Stacked what-where auto-encoder.

Pooling splits a feature map in two: *what* was seen (the maximum) goes up to the next layer,
*where* (its place) goes across to the decoder. With x the image, x_m the pooled map of level m,
and x̃, x̃_m what the decoder makes of them on its way down, images with labels and without are
learned from together:

    L = λ_nll L_nll + λ_rec ‖x - x̃‖² + λ_mid Σ_m ‖x_m - x̃_m‖²                          (eq. 7)

References
----------
Zhao, Mathieu, Goroshin, LeCun. Stacked What-Where Auto-encoders. 2016. arXiv:1506.02351
Zhang, Lee, Lee. Augmenting supervised neural networks with unsupervised objectives for large-scale
image classification. ICML 2016 (which maps are paired).
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Batch, Objective, Terms, joint_count, seeded
from whatwhere.data.corruption import Corruption, corruption
from whatwhere.learner import Spec, infer
from whatwhere.models.cnn import CNNModule, ConvolutionalClassifier
from whatwhere.nn.conv import Code, Decoder, Encoder, in_channels_last
from whatwhere.objectives.classification import cross_entropy

WEIGHT = Interval(Real, 0, None, closed="left")


class SWWAEModule(CNNModule):
    """A convolutional net and its mirror.

    Parameters
    ----------
    encoder : Encoder
    n_classes : int
        0 leaves the class layer out.
    dropout : float
        Of the class layer's inputs; what the decoder is given is left whole.
    decoder : Decoder
    """

    def __init__(self, encoder: Encoder, n_classes: int, dropout: float, decoder: Decoder) -> None:
        super().__init__(encoder, n_classes, dropout)
        self.decoder = decoder

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return x̃ (B, C, H, W), deterministically, in one pass."""
        return self.decoder(self.encoder(x)).image


@dataclass(frozen=True)
class WhatWhereLoss:
    """Equation 7. Each norm is a mean over its elements: the λ are then free of sizes.

    Parameters
    ----------
    nll, reconstruction, middle : float
        λ_nll, λ_rec and λ_mid. With the last two at 0 the decoder is not run.
    reconstruct_labeled : bool
        Whether labeled rows count in the two reconstruction terms.
    stop_gradient : bool
        Whether x_m is held fixed in its term; if not, small maps are one way to make it small.
    noise : float
        Deviation of the noise that the encoder's image gets, in units of the pixels. The targets x
        and x_m are those of the clean image, so both terms learn to undo it.
    class_weight : tuple of float
        Of the labeled rows of each class in the nll; empty: all count equally.
    """

    nll: float
    reconstruction: float
    middle: float
    reconstruct_labeled: bool = True
    stop_gradient: bool = True
    noise: float = 0.0
    class_weight: tuple[float, ...] = ()

    def __call__(self, net: SWWAEModule, batch: Batch) -> Terms:
        """Return nll, a mean over labeled rows, and reconstruction and middle, over elements.

        `middle` is summed over the levels. Where the topmost pooled map is the code itself, its
        term is that of the noise alone, and is left out where there is none.
        """
        if not (self.reconstruction or self.middle):
            return self._nll(net, net.encoder(batch.x), batch)
        seen = batch.x + self.noise * torch.randn_like(batch.x) if self.noise else batch.x
        code = net.encoder(seen)
        clean = code
        if self.noise:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
                clean = net.encoder(batch.x)
        rows = None if self.reconstruct_labeled else batch.y == UNLABELED
        rebuilt = net.decoder(code)
        levels = [
            mean_square(
                own if below is None else below, x.detach() if self.stop_gradient else x, rows
            )
            for below, own, x in zip(rebuilt.what, code.what, clean.what, strict=True)
            if below is not None or self.noise
        ]
        terms = dict(self._nll(net, code, batch))
        terms["reconstruction"] = self.reconstruction * mean_square(rebuilt.image, batch.x, rows)
        if levels:
            terms["middle"] = self.middle * torch.stack(levels).sum()
        return terms

    def _nll(self, net: SWWAEModule, code: Code, batch: Batch) -> Terms:
        if net.head is None:
            return {}
        scores = net.classify(code.top)
        return {"nll": self.nll * cross_entropy(scores, batch.y, self.class_weight)}


def mean_square(a: Tensor, b: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return the mean of (a - b)² over the elements of these rows; 0 where there are none.

    Parameters
    ----------
    a, b : Tensor (B, ...)
    rows : bool Tensor (B,), optional
        Default: all rows.
    """
    if rows is None:
        return F.mse_loss(a, b)
    each = (a - b).square().flatten(1).mean(dim=1)
    return (each * rows).sum() / joint_count(rows.sum())


@dataclass(eq=False, repr=False)
class SWWAE(ConvolutionalClassifier):
    """Stacked what-where auto-encoder, trained jointly on labeled and unlabeled images.

    Labels decide the mode: none is unsupervised, some semi-supervised, all supervised with
    reconstruction as its regularizer. With `reconstruction` and `middle` at 0 it is the `CNN`.

    Parameters
    ----------
    architecture : str
        ``(64)5c`` a convolution of 64 maps 5 x 5 with ReLU, ``2p`` max-pooling 2 x 2, ``100fc`` a
        hidden dense layer; the class layer is always added. "auto": the levels and maps that suit
        the size of the images; 28 x 28 pixels get ``(16)5c-2p-(32)3c-2p-(64)3c-2p``.
    nll, reconstruction, middle : float
        λ_nll, λ_rec and λ_mid of means over elements.
    reconstruct_labeled : bool
        Whether labeled rows are reconstructed too (the paper), or unlabeled ones only.
    middle_target : {"stop-gradient", "joint"}
        Whether the encoder's maps are fixed targets of the decoder's, or are pulled towards them.
    noise : float
        Deviation of Gaussian noise on the images that the encoder sees in training, in units of
        pixels in [0, 1]; what is rebuilt is the clean image and its clean maps. 0 is the paper.
    epochs : int or "auto"
        Passes over the unlabeled rows where fewer than half are labeled, else over all. "auto": 20,
        and more for small sets, so that there are about 1000 updates.
    batch_size : int or "auto"
        "auto": 100, and less for fewer than 1000 images.
    labeled_share : float
        Part of a batch that is labeled, where fewer than half of all rows are.
    class_weight : "balanced", dict or None
        How much a class counts in L_nll: "balanced" as much as another, None as much as it has
        labels, a dict that many times its labels (1 for what it does not name). To balance, each
        batch shows the classes equally often where fewer than half of all rows are labeled, else
        labeled rows are weighted. Probabilities are then those of equally frequent classes.
    learning_rate : float
        Of Adam; constant for the first part of training, then linearly down to 0.
    decay_from : float
        Where in training, 0 to 1, the rate begins to fall.
    batch_norm : bool
        Normalize each map over the batch, in encoder and decoder.
    dropout : float
        Of the class layer's inputs.
    shift : int
        Shift each training image by up to so many pixels, at random.
    patience : int, optional
        Stop when the error on the validation images has not fallen for so many epochs.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> y = np.where(np.arange(20) < 10, np.arange(20) % 2, -1)  # ten labels, ten without
    >>> model = SWWAE("(4)3c-2p", epochs=10, batch_size=10, random_state=0).fit(images, y)
    >>> model.predict(images[10:14])
    array([0, 1, 0, 1])
    >>> what, where = model.what_where(images)
    >>> what[0].shape, where[0].dtype
    ((20, 4, 4, 4), dtype('int8'))
    """

    _: KW_ONLY
    nll: float = 1.0
    reconstruction: float = 1.0
    middle: float = 0.2
    reconstruct_labeled: bool = True
    middle_target: str = "stop-gradient"
    noise: float = 0.0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ConvolutionalClassifier._parameter_constraints,
        "nll": [WEIGHT],
        "reconstruction": [WEIGHT],
        "middle": [WEIGHT],
        "reconstruct_labeled": ["boolean"],
        "middle_target": [StrOptions({"stop-gradient", "joint"})],
        "noise": [WEIGHT],
    }

    @property
    def uses_unlabeled(self) -> bool:
        """Whether there is a term that needs no label."""
        return bool(self.reconstruction or self.middle)

    @property
    def undoes(self) -> Corruption | None:
        """The noise on what the encoder sees, where the decoder is trained."""
        return corruption("gaussian", self.noise) if self.noise and self.uses_unlabeled else None

    def moving(self, module: nn.Module) -> Sequence[nn.Module]:
        """Return all parts, or all but the decoder where it is not run."""
        if self.uses_unlabeled:
            return ()
        return [part for name, part in module.named_children() if name != "decoder"]

    def objective(self, class_weight: tuple[float, ...] = ()) -> Objective:
        """Return equation 7, the rows of its nll weighted by their classes where there are."""
        return WhatWhereLoss(
            self.nll,
            self.reconstruction,
            self.middle,
            self.reconstruct_labeled,
            self.middle_target == "stop-gradient",
            self.noise,
            class_weight,
        )

    def build(self, spec: Spec) -> SWWAEModule:
        """Return encoder, class layer and decoder, each drawn from a key of its own."""
        encoder = self.encoder(spec)
        with seeded(spec.seed, "decoder"):
            decoder = Decoder(encoder)
        with seeded(spec.seed, "head"):
            net = SWWAEModule(encoder, spec.n_classes, self.dropout, decoder)
        return in_channels_last(net)

    def what_where(self, X: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return *what* and *where* of each pooled level, lowest first.

        Returns
        -------
        what : list of float32 arrays (n, C_m, h_m, w_m)
        where : list of arrays of the same shapes
            The offset of the maximum within its p x p window, 0 to p² - 1; -1 (or, for unsigned
            bytes, 255) where the window is inactive.
        """
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        codes = list(infer(self.module_, rows, lambda net, x: net.encoder(x)))
        whats = zip(*(code.what for code in codes), strict=True)
        wheres = zip(*(code.where for code in codes), strict=True)
        return [torch.cat(w).cpu().numpy() for w in whats], [
            torch.cat(w).cpu().numpy() for w in wheres
        ]
