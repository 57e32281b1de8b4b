"""Stacked auto-encoder: layers that are trained one upon another, then all of them with labels.

Greedy, without labels: for k = 1, 2, ... the auto-encoder of layer k rebuilds what the layers below
it, which stand still, make of an image,

    h_0 = x,  h_k = f(W_k h_{k-1} + b_k),  h̃_{k-1} = g(W'_k h_k + b'_k),  L_k = C(h_{k-1}, h̃_{k-1})

with h_{k-1} corrupted on its way in where layers are denoising (Vincent et al. 2010). Greedy, with
labels: a class layer is put upon layer k, and all layers up to it learn for a short while; then a
fresh layer k + 1 is put under a fresh class layer (Bengio et al. 2007; Seide et al. 2011). At last
a fresh class layer is put upon all, and the whole net is fine-tuned.

References
----------
Hinton, Salakhutdinov. Reducing the dimensionality of data with neural networks. 2006.
Bengio, Lamblin, Popovici, Larochelle. Greedy layer-wise training of deep networks. NIPS 2006.
Vincent et al. Stacked denoising autoencoders. JMLR 2010.
Seide, Li, Chen, Yu. Feature engineering in context-dependent deep neural networks. ASRU 2011.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from math import prod
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import Batch, InputError, Terms, seeded
from whatwhere.data.corruption import KINDS, corruption
from whatwhere.learner import ImageClassifier, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.models.autoencoder import COUNT, OPTIMIZERS, RATE, WEIGHT
from whatwhere.models.rbm import Parameters, descent, raised
from whatwhere.nn.architecture import parse
from whatwhere.nn.boltzmann import Binary, Gaussian, Machine
from whatwhere.nn.conv import in_channels_last
from whatwhere.nn.mirror import Down, Mirror, Up
from whatwhere.nn.pixels import BINARY, GAUSSIAN
from whatwhere.nn.units import ACTIVATIONS, INITIALIZATIONS, MODERN, initialize
from whatwhere.objectives.classification import (
    BALANCED,
    check_class_weight,
    classification,
    cross_entropy,
    row_weights,
)
from whatwhere.objectives.divergence import CD, LikelihoodGradient
from whatwhere.objectives.reconstruction import LOSSES, fit_for
from whatwhere.train.gradients import GradientSizes
from whatwhere.train.stage import EarlyStopping, Labeled, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay, StatisticsUpdate

AUTOENCODER, DENOISING, SUPERVISED, NONE = "autoencoder", "denoising", "supervised", "none"
RBM = "rbm"
RBM_RATE, GAUSSIAN_RATE = 0.1, 0.001
RBM_MOMENTUM, RBM_DECAY = 0.9, 2e-4
"""Hinton & Salakhutdinov 2006; the lower rate is that of layers with gaussian units."""

STEPS = 100
"""Of an epoch of fine-tuning at least: few labels are met several times in it."""

UNITS_OF = {"logistic": BINARY, "identity": GAUSSIAN}
UNIT_INTERVAL = (0.0, 1.0)
ANY_NUMBER = (-float("inf"), float("inf"))


@dataclass(frozen=True)
class Below:
    """A view: what the layers below number `level` make of a batch."""

    net: Mirror
    level: int

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with h_level in place of its images."""
        x = batch.x
        for up in self.net.encoder[: self.level]:
            x = up(x)
        return batch._replace(x=x)

    def __str__(self) -> str:
        """Say it."""
        return f"through the {self.level} layer{'s' * (self.level > 1)} below"


@dataclass(frozen=True)
class LayerLoss:
    """The error with which one layer rebuilds what it is given.

    Parameters
    ----------
    level : int
        From 0.
    loss : {"squared_error", "cross_entropy"}
    corrupt : callable (Tensor) -> Tensor, optional
    """

    level: int
    loss: str
    corrupt: Callable[[Tensor], Tensor] | None = None

    def __call__(self, net: Mirror, batch: Batch) -> Terms:
        """Return reconstruction, a sum over what is rebuilt and a mean over images."""
        up, down = net.encoder[self.level], net.decoder[self.level]
        seen = batch.x if self.corrupt is None else self.corrupt(batch.x)
        scores = down(up(seen), up)
        unit = net.unit_below(self.level)
        if unit not in ("identity", "logistic"):
            unit = "identity"  # a linear unit learns where a rectified one would be silent
        return {"reconstruction": LOSSES[self.loss](scores, batch.x, unit)}


def layer_stages(
    net: Mirror,
    spec: Spec,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    loss: str,
    corrupt: Callable[[Tensor], Tensor] | None = None,
) -> list[Stage]:
    """Return a stage for each layer, the lowest first: layer1, layer2, ...

    Parameters
    ----------
    net : Mirror
    spec : Spec
    epochs, batch_size : int
    optimizer : callable (parameters) -> Optimizer
    loss : {"squared_error", "cross_entropy"}
        Of the lowest layer. Others rebuild what a layer gives: of logistic units by cross-entropy,
        of all others by the squared error of linear units.
    corrupt : callable (Tensor) -> Tensor, optional
        What is done to the input of each layer.
    """
    stages = []
    for level in range(len(net.encoder)):
        if level:
            bounds = UNIT_INTERVAL if net.unit_below(level) == "logistic" else ANY_NUMBER
            loss = fit_for(bounds, None, None).loss
        objective = LayerLoss(level, loss, corrupt)
        parts = [net.encoder[level], net.decoder[level]]
        if not any(True for part in parts for _ in part.parameters()):
            continue
        update = GradientUpdate(net, objective, optimizer, parts, schedule=LinearDecay(0.5))
        stage = Stage(f"layer{level + 1}", [update], epochs, batch_size)
        if level:
            stage.view = Below(net, level)
        stages.append(stage)
    return stages


def rbm_stages(net: Mirror, spec: Spec, *, epochs: int, batch_size: int) -> list[Stage]:
    """Return a stage for each layer, which learns as a restricted Boltzmann machine of one step.

    Its weights are the layer's own, its biases those of the layer and of its mirror. What a layer
    is given are the means of the layer below. Logistic units are binary ones, linear units gaussian
    ones of variance 1.

    Parameters
    ----------
    net : Mirror
    spec : Spec
    epochs, batch_size : int

    Raises
    ------
    InputError
        If a layer is not dense, or has other units.
    """
    stages = []
    kind = BINARY if fit_for(spec.bounds, None, None).output == "logistic" else GAUSSIAN
    for level, (up, down) in enumerate(zip(net.encoder, net.decoder, strict=True)):
        assert isinstance(up, Up) and isinstance(down, Down)
        if not isinstance(up.affine, nn.Linear) or up.unit not in UNITS_OF:
            raise InputError(
                f"pretraining={RBM!r} is for dense layers of logistic units, and a linear code; "
                f"layer {level + 1} is {'dense' if up.dense else 'no dense one'}, of {up.unit} "
                "units; take activation='logistic', or another pretraining"
            )
        own = UNITS_OF[up.unit]
        below = down.bias if down.affine is None else down.affine.bias
        assert isinstance(below, nn.Parameter)
        weight, bias = up.affine.weight, up.affine.bias
        sizes = (weight.shape[1], weight.shape[0])
        kinds = {BINARY: Binary, GAUSSIAN: Gaussian}
        units = [kinds[k](size) for k, size in zip((kind, own), sizes, strict=True)]
        machine = Machine(units, [below, bias], [weight])
        rule = LikelihoodGradient(machine, CD)
        rate = RBM_RATE if kind == own == BINARY else GAUSSIAN_RATE
        optimizer = partial(
            descent, learning_rate=rate, momentum=RBM_MOMENTUM, weight_decay=RBM_DECAY
        )
        update = StatisticsUpdate(net, rule, optimizer, [Parameters(machine)], name="likelihood")
        update.momentum = raised(RBM_MOMENTUM, epochs)
        stage = Stage(f"layer{level + 1}", [update], epochs, batch_size)
        if level:
            stage.view = Below(net, level)
        stages.append(stage)
        kind = own
    return stages


def fold(net: Mirror) -> None:
    """Let each layer of the decoder begin as that of the encoder, transposed."""
    with torch.no_grad():
        for up, down in zip(net.encoder, net.decoder, strict=True):
            assert isinstance(up, Up) and isinstance(down, Down)
            if down.affine is not None and up.weight is not None:
                assert isinstance(down.affine, nn.Linear)
                down.affine.weight.copy_(up.weight.T)


class StackedModule(nn.Module):
    """Layers, a class layer on their top where there are classes, and what they are trained with.

    Parameters
    ----------
    mirror : Mirror
        Its decoder is what greedy training without labels needs, and no more: fine-tuning leaves it
        behind.
    n_classes : int
        0 leaves the class layer out.
    greedy_heads : bool
        Whether each layer has a class layer of its own, for greedy training with labels.
    """

    def __init__(self, mirror: Mirror, n_classes: int, *, greedy_heads: bool) -> None:
        super().__init__()
        self.mirror = mirror
        self.head, self.greedy_heads = None, None
        shapes = [up.shape for up in mirror.encoder if isinstance(up, Up)]
        if n_classes:
            self.head = nn.Linear(prod(mirror.code_shape), n_classes)
            initialize(self.head, "identity")
            if greedy_heads:
                self.greedy_heads = nn.ModuleList(nn.Linear(prod(s), n_classes) for s in shapes)
                initialize(self.greedy_heads, "identity")

    def encode(self, x: Tensor) -> Tensor:
        """Return what the topmost layer gives, flat: (B, K)."""
        return self.mirror.encode(x)

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Return what each layer gives, lowest first: level1, level2, ..."""
        return self.mirror.levels(x)

    def logits(self, x: Tensor) -> Tensor:
        """Return the class scores before the softmax, (B, n_classes)."""
        assert self.head is not None, "built without classes"
        return self.head(self.encode(x))

    def filters(self) -> Tensor | None:
        """Return the filters that look at the image, (K, C, h, w), or None where no layer does."""
        return self.mirror.filters()


@dataclass(frozen=True)
class GreedyClassification:
    """Cross-entropy of the class layer upon one of the layers.

    Parameters
    ----------
    level : int
        From 0.
    class_weight : tuple of float
        See `whatwhere.objectives.classification.cross_entropy`.
    """

    level: int
    class_weight: tuple[float, ...] = ()

    def __call__(self, net: StackedModule, batch: Batch) -> Terms:
        """Return nll, a mean over labeled rows."""
        assert net.greedy_heads is not None
        x = Below(net.mirror, self.level + 1)(batch).x
        scores = net.greedy_heads[self.level](x.flatten(1))
        return {"nll": cross_entropy(scores, batch.y, self.class_weight)}


@dataclass(eq=False, repr=False)
class StackedAutoencoder(ImageClassifier):
    """Stacked auto-encoder: layers trained one upon another, then fine-tuned with labels.

    All images train the layers, those with a label the class layer and, with it, the whole net.
    Without any label the layers are all that is learned.

    Parameters
    ----------
    architecture : str
        Hidden layers, bottom first: ``1000fc`` dense, ``(32)5c-2p`` a convolution and its pool. The
        class layer is always added.
    pretraining : {"denoising", "autoencoder", "rbm", "supervised", "none"}
        How layers are trained greedily: to undo noise, to rebuild, as restricted Boltzmann machines
        (dense layers of logistic units), or with labels, layer by layer; or not at all: the same
        net from random weights.
    corruption, level : str, float
        With denoising, what is done to the input of each layer: "masking" (a part `level` set to
        0), "gaussian" (deviation `level`) or "salt-and-pepper".
    activation : str
        identity, logistic, tanh, relu, leaky_relu, softplus, elu or gelu.
    initialization : {"modern", "historic"}
        See `whatwhere.nn.units.initialize`.
    pretraining_epochs : int
        Of each layer.
    epochs : int
        Of fine-tuning; an epoch is one pass over the labeled images, or as many as 100 batches
        need.
    batch_size : int or "auto"
        "auto": 100, and less for small sets.
    class_weight : "balanced", dict or None
        As for `SWWAE`.
    pretraining_rate : float
        Of Adam, for each layer trained without labels; RBMs take 0.1, or 0.001 on gaussian units.
    optimizer, learning_rate : {"adam", "sgd"}, float
        Of all training with labels. Both rates are constant for the first half of a stage, then go
        linearly down to 0.
    weight_decay : float
        λ of λ/2 Σ W² in fine-tuning.
    patience : int, optional
        Stop fine-tuning when the error on the validation images has not fallen for so many epochs.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> y = np.where(np.arange(20) < 10, np.arange(20) % 2, -1)  # ten labels, ten without
    >>> model = StackedAutoencoder("8fc-4fc", pretraining_epochs=5, epochs=2, random_state=0)
    >>> model.fit(images, y).predict(images[10:14])
    array([0, 1, 0, 1])
    """

    architecture: str = "500fc-500fc"
    _: KW_ONLY
    pretraining: str = DENOISING
    corruption: str = "masking"
    level: float = 0.25
    activation: str = "relu"
    initialization: str = MODERN
    pretraining_epochs: int = 10
    epochs: int = 20
    batch_size: int | str = AUTO
    class_weight: dict[Any, float] | str | None = BALANCED
    optimizer: str = "adam"
    pretraining_rate: float = 1e-3
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "pretraining": [StrOptions({AUTOENCODER, DENOISING, RBM, SUPERVISED, NONE})],
        "corruption": [StrOptions(set(KINDS))],
        "level": [Interval(Real, 0, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
        "pretraining_epochs": [COUNT],
        "epochs": [COUNT],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "class_weight": [StrOptions({BALANCED}), dict, None],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "pretraining_rate": [RATE],
        "learning_rate": [RATE],
        "weight_decay": [WEIGHT],
        "patience": [COUNT, None],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture too."""
        super().check()
        parse(self.architecture)
        corruption(self.corruption, self.level)
        check_class_weight(self.class_weight)

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return the batch size, where it is "auto"."""
        return {"batch_size": self._size(spec)} if self.batch_size == AUTO else {}

    def _size(self, spec: Spec) -> int:
        size = self.batch_size
        return defaults.batch_size(spec.n_samples) if isinstance(size, str) else size

    def build(self, spec: Spec) -> StackedModule:
        """Return the net, layers and class layers each drawn from a key of their own."""
        with seeded(spec.seed, "mirror"):
            mirror = Mirror(
                parse(self.architecture, spec.n_classes),
                spec.shape,
                unit=self.activation,
                code_unit=self.activation,
                output=fit_for(spec.bounds, None, None).output,
                initialization=self.initialization,
            )
        if self.pretraining in (SUPERVISED, NONE):
            mirror.decoder = nn.ModuleList()
        with seeded(spec.seed, "head"):
            greedy = self.pretraining == SUPERVISED
            net = StackedModule(mirror, spec.n_classes, greedy_heads=greedy)
        return in_channels_last(net)

    def stages(self, module: StackedModule, spec: Spec) -> list[Stage]:
        """Return a stage for each layer, and fine-tuning where there are labels."""
        stages = self._greedy(module, spec)
        if module.head is not None:
            weights = row_weights(self.class_weight, self._known_classes(), spec.class_counts)
            objective = partial(classification, class_weight=weights)
            layers = {f"layer{k + 1}": up for k, up in enumerate(module.mirror.encoder)}
            sizes = GradientSizes(module, objective, layers | {"classes": module.head})
            parts = [module.mirror.encoder, module.head]
            stage = self._with_labels("fine-tuning", module, objective, parts, self.epochs, spec)
            stage.updates = [sizes, *stage.updates]
            if self.patience is not None:
                stage.early_stopping = EarlyStopping(self.patience)
            stages.append(stage)
        return stages

    def _greedy(self, module: StackedModule, spec: Spec) -> list[Stage]:
        if self.pretraining == SUPERVISED and module.greedy_heads is None:
            raise InputError(
                f"pretraining={SUPERVISED!r} learns from labels, and there are none; give some, or "
                f"take pretraining={DENOISING!r}"
            )
        if self.pretraining == SUPERVISED and module.greedy_heads is not None:
            weights = row_weights(self.class_weight, self._known_classes(), spec.class_counts)
            return [
                self._with_labels(
                    f"layer{level + 1}",
                    module,
                    GreedyClassification(level, weights),
                    [*module.mirror.encoder[: level + 1], head],
                    self.pretraining_epochs,
                    spec,
                )
                for level, head in enumerate(module.greedy_heads)
            ]
        if self.pretraining in (SUPERVISED, NONE):
            return []
        if self.pretraining == RBM:
            size = self._size(spec)
            return rbm_stages(module.mirror, spec, epochs=self.pretraining_epochs, batch_size=size)
        noise = corruption(self.corruption, self.level) if self.pretraining == DENOISING else None
        return layer_stages(
            module.mirror,
            spec,
            epochs=self.pretraining_epochs,
            batch_size=self._size(spec),
            optimizer=partial(torch.optim.Adam, lr=self.pretraining_rate),
            loss=fit_for(spec.bounds, None, None).loss,
            corrupt=noise,
        )

    def _with_labels(
        self,
        name: str,
        module: StackedModule,
        objective: Callable[[Any, Batch], Terms],
        parts: Sequence[nn.Module],
        epochs: int,
        spec: Spec,
    ) -> Stage:
        """Return a stage in which parts learn from labels."""
        rate = partial(OPTIMIZERS[self.optimizer], lr=self.learning_rate)
        if self.weight_decay:
            rate = partial(rate, weight_decay=self.weight_decay)
        update = GradientUpdate(module, objective, rate, parts, schedule=LinearDecay(0.5))
        return Stage(name, [update], epochs, self._size(spec), sampler=Labeled(STEPS))
