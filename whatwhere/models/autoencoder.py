"""Auto-encoder: a net that rebuilds its input from a code.

    h = f(W x + b),  x̃ = g(W' h + b')
    L = ‖x - x̃‖²                                  for unbounded x, with g the identity
    L = -Σ x log x̃ + (1 - x) log (1 - x̃)          for x in [0, 1], with g the logistic function

summed over the pixels of an image, as a mean over images. A linear auto-encoder whose code is
smaller than its input spans the subspace of the principal components, one with a larger code may
copy its input (Baldi & Hornik 1989).

References
----------
Rumelhart, Hinton, Williams. Learning internal representations by error propagation. 1986.
Bourlard, Kamp. Auto-association by multilayer perceptrons and singular value decomposition. 1988.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import Batch, Objective, Terms, seeded
from whatwhere.learner import FeatureLearner, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.nn.architecture import Dense, parse
from whatwhere.nn.conv import in_channels_last
from whatwhere.nn.mirror import Mirror
from whatwhere.nn.units import ACTIVATIONS, INITIALIZATIONS, MODERN
from whatwhere.objectives.reconstruction import LOSSES, OUTPUTS, Fit, fit_for
from whatwhere.train.stage import EarlyStopping, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay

ADAM, SGD = "adam", "sgd"
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    ADAM: torch.optim.Adam,
    SGD: torch.optim.SGD,
}

COUNT = Interval(Integral, 1, None, closed="left")
WEIGHT = Interval(Real, 0, None, closed="left")
RATE = Interval(Real, 1e-30, 1e30, closed="both")


class Settled(NamedTuple):
    """The hyper-parameters that may be left to the data, none of them "auto" any more."""

    epochs: int
    batch_size: int
    output: str
    loss: str


@dataclass(frozen=True)
class ReconstructionLoss:
    """The error of what is rebuilt.

    Parameters
    ----------
    loss : {"squared_error", "cross_entropy"}
    weight_decay : float
        λ of the term λ/2 Σ W², over the weights of all layers, without their biases.
    """

    loss: str
    weight_decay: float = 0.0

    def __call__(self, net: Mirror, batch: Batch) -> Terms:
        """Return reconstruction, a sum over pixels and mean over images, and weight_decay."""
        scores = net.scores(net.code(batch.x))
        terms = {"reconstruction": LOSSES[self.loss](scores, batch.x, net.output)}
        return terms | decay(net, self.weight_decay)


def decay(net: nn.Module, weight: float) -> dict[str, Tensor]:
    """Return the term λ/2 Σ W², over all but biases; nothing where λ is 0."""
    if not weight:
        return {}
    squares = [p.square().sum() for p in net.parameters() if p.ndim > 1]
    return {"weight_decay": 0.5 * weight * torch.stack(squares).sum()} if squares else {}


@dataclass(eq=False, repr=False)
class MirrorLearner(FeatureLearner):
    """What auto-encoders of one net and its mirror have in common. Abstract.

    Parameters
    ----------
    architecture : str
        See `whatwhere.nn.architecture.parse`; the last layer is the code.
    activation : str
        Of all layers below the code: identity, logistic, tanh, relu, leaky_relu, softplus, elu or
        gelu.
    code_activation : str, optional
        Of the code. Default: identity for a dense code on top of other layers, which is mostly a
        small one; else as the others.
    output : {"auto", "identity", "logistic"}
        The unit that gives a pixel. "auto": logistic for data in [0, 1], else identity.
    loss : {"auto", "squared_error", "cross_entropy"}
        "auto": cross-entropy with logistic units, else squared error.
    tied : bool
        Whether the decoder's weights are those of the encoder, transposed.
    initialization : {"modern", "historic"}
        See `whatwhere.nn.units.initialize`.
    weight_decay : float
        λ of λ/2 Σ W², beside a reconstruction that is summed over pixels.
    epochs : int or "auto"
        "auto": 20, and more for small sets.
    batch_size : int or "auto"
        "auto": 100, and less for small sets.
    optimizer : {"adam", "sgd"}
    learning_rate : float
        Constant for the first part of training, then linearly down to 0.
    decay_from : float
        Where in training, 0 to 1, the rate begins to fall.
    patience : int, optional
        Stop when the squared error on the validation images has not fallen for so many epochs.
    """

    architecture: str = "500fc"
    _: KW_ONLY
    activation: str = "relu"
    code_activation: str | None = None
    output: str = AUTO
    loss: str = AUTO
    tied: bool = False
    initialization: str = MODERN
    weight_decay: float = 0.0
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    optimizer: str = ADAM
    learning_rate: float = 1e-3
    decay_from: float = 0.5
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "code_activation": [StrOptions(set(ACTIVATIONS)), None],
        "output": [StrOptions({AUTO, *OUTPUTS})],
        "loss": [StrOptions({AUTO, *LOSSES})],
        "tied": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
        "weight_decay": [WEIGHT],
        "epochs": [COUNT, StrOptions({AUTO})],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [RATE],
        "decay_from": [Interval(Real, 0, 1, closed="left")],
        "patience": [COUNT, None],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture too."""
        super().check()
        parse(self.architecture)

    @abstractmethod
    def objective(self, spec: Spec) -> Objective:
        """Return the loss of one batch."""

    @property
    def code_unit(self) -> str:
        """The activation of the code."""
        if self.code_activation is not None:
            return self.code_activation
        layers = parse(self.architecture)
        # Measured: a rectified code of 256fc-64fc-2fc dies on MNIST, all images get the same.
        return "identity" if len(layers) > 1 and isinstance(layers[-1], Dense) else self.activation

    def code_rule(self, spec: Spec) -> Callable[[Tensor], Tensor] | None:
        """Return what becomes of the code at last; None for nothing."""
        return None

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what is chosen for those hyper-parameters that are "auto"."""
        settled = self.settle(spec)._asdict()
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def settle(self, spec: Spec) -> Settled:
        """Return what is given, and what is chosen in place of "auto"."""
        epochs, size = defaults.of_features(self.epochs, self.batch_size, spec.n_samples)
        return Settled(epochs, size, *self.fit_for(spec))

    def fit_for(self, spec: Spec) -> Fit:
        """Return the output unit and the loss."""
        output, loss = (None if one == AUTO else one for one in (self.output, self.loss))
        return fit_for(spec.bounds, output, loss)

    def build(self, spec: Spec) -> Mirror:
        """Return the net, its weights drawn from a key of their own."""
        with seeded(spec.seed, "mirror"):
            net = Mirror(
                parse(self.architecture),
                spec.shape,
                unit=self.activation,
                code_unit=self.code_unit,
                output=self.fit_for(spec).output,
                tied=self.tied,
                initialization=self.initialization,
                code_rule=self.code_rule(spec),
            )
        return in_channels_last(net)

    def stages(self, module: Mirror, spec: Spec) -> list[Stage]:
        """Return the one stage, in which encoder and decoder learn jointly."""
        return [self.joint_stage(module, spec, "joint", self.objective(spec))]

    def joint_stage(self, module: Mirror, spec: Spec, name: str, objective: Objective) -> Stage:
        """Return a stage in which the whole net descends the objective."""
        settled = self.settle(spec)
        rule = partial(OPTIMIZERS[self.optimizer], lr=self.learning_rate)
        update = GradientUpdate(module, objective, rule, schedule=LinearDecay(self.decay_from))
        stage = Stage(name, [update], settled.epochs, settled.batch_size)
        if self.patience is not None:
            stage.early_stopping = EarlyStopping(self.patience, "validation/reconstruction")
        return stage


@dataclass(eq=False, repr=False)
class Autoencoder(MirrorLearner):
    """Auto-encoder, dense or convolutional, with tied weights or not.

    Parameters
    ----------
    architecture : str
        ``500fc`` a dense layer, ``(32)5c`` a convolution, ``2p`` max-pooling; the last layer is the
        code: ``"2fc"`` gives codes that can be drawn as a map, ``"(32)5c-2p-(64)3c-2p"`` maps of
        features, rebuilt without *where*.
    activation, code_activation : str
        identity, logistic, tanh, relu, leaky_relu, softplus, elu or gelu; of a dense code on top of
        other layers by default identity, of any other as of the other layers.
    output : {"auto", "identity", "logistic"}
        The unit that gives a pixel. "auto": logistic for data in [0, 1], else identity.
    loss : {"auto", "squared_error", "cross_entropy"}
        "auto": cross-entropy with logistic units, else squared error. What does not go together is
        refused.
    tied, initialization, weight_decay
        Decoder weights that are the encoder's; how weights begin; λ of λ/2 Σ W².
    epochs, batch_size : int or "auto"
        "auto": 20 epochs in batches of 100; for small sets more, in smaller ones.
    optimizer, learning_rate, decay_from, patience
        Adam or plain gradient descent; the rate is constant, then goes linearly to 0.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> model = Autoencoder("4fc", learning_rate=0.05, epochs=100, random_state=0).fit(images)
    >>> model.transform(images).shape
    (20, 4)
    >>> bool(abs(model.reconstruct(images)[:, 0] - images / 255).max() < 0.1)
    True
    """

    def objective(self, spec: Spec) -> ReconstructionLoss:
        """Return the error of what is rebuilt."""
        return ReconstructionLoss(self.fit_for(spec).loss, self.weight_decay)
