"""Deep Boltzmann machine: hidden layers above one another, all links undirected.

    E(v, h¹, ..., h^L) = φ(v) - bᵀv - Σ_l c_lᵀ h^l - h¹ᵀ W_1 v - Σ_l h^{l+1}ᵀ W_{l+1} h^l

Given an image the hidden units depend on one another, so their posterior is approached by mean
field, h^l = σ(c_l + W_l h^{l-1} + W_{l+1}ᵀ h^{l+1}), updated in turn, which gives the bound

    log p(v) ≥ -E(v, μ) + H(μ) - log Z

Training: first each pair of neighbors as a machine of its own that sees twice what in the whole
comes from both sides, then all layers, by mean field of the data and persistent chains of the
machine (Salakhutdinov & Hinton 2009). With the centered gradient the pairs can be left out
(Montavon & Müller 2012). For classes, a feed-forward net begins with the machine's weights and has
the mean field of the layers above as a further input of each layer. With one hidden layer it is a
restricted Boltzmann machine.

References
----------
Salakhutdinov, Hinton. Deep Boltzmann machines. AISTATS 2009.
Montavon, Müller. Deep Boltzmann machines and the centering trick. 2012.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import Batch, Known, LogPartition, seeded
from whatwhere.learner import ImageClassifier, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.models.autoencoder import COUNT, RATE, WEIGHT
from whatwhere.models.rbm import (
    DEVIATION,
    MIXING,
    Parameters,
    descent,
    log_partition,
    look,
    pixel_stage,
    raised,
    walk,
)
from whatwhere.nn.architecture import parse_dense
from whatwhere.nn.boltzmann import Binary, Machine, States
from whatwhere.nn.pixels import GAUSSIAN, KINDS, MULTINOMIAL, Drawn, Pixels, kind_for
from whatwhere.nn.units import initialize
from whatwhere.objectives.classification import (
    BALANCED,
    check_class_weight,
    classification,
    row_weights,
)
from whatwhere.objectives.divergence import CD, PCD, LikelihoodGradient, Sparsity
from whatwhere.train.stage import EarlyStopping, Labeled, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay, StatisticsUpdate

SWEEPS, STILL = 50, 1e-5
"""Of mean field where a bound is told, and the change below which it ends earlier."""

FEW_SWEEPS = 10
"""Of mean field where it is an input of the net, in training and use (Salakhutdinov & Hinton)."""

STEPS = 100
"""Of an epoch of fine-tuning at least: few labels are met several times in it."""


class FedForward(nn.Module):
    """A layer of the net for classes: from below, and from the mean field above.

    Parameters
    ----------
    below, size, above : int
        0 above: nothing comes from there.
    """

    def __init__(self, below: int, size: int, above: int) -> None:
        super().__init__()
        self.up = nn.Linear(below, size)
        self.down = nn.Linear(above, size, bias=False) if above else None

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        """Return the layer's units, (B, size)."""
        total = self.up(below)
        if self.down is not None:
            assert above is not None
            total = total + self.down(above)
        return torch.sigmoid(total)


class Between(nn.Module):
    """The biases of a hidden layer in the two pairs that share it, while these are trained.

    Parameters
    ----------
    size : int

    Attributes
    ----------
    lower, upper : Parameter (size,)
        In the pair with the layer below, and in that with the layer above.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(size))
        self.upper = nn.Parameter(torch.zeros(size))


class DBMModule(nn.Module):
    """The machine, and a net for classes where there are some.

    Parameters
    ----------
    pixels : Pixels
    sizes : sequence of int
        Of the hidden layers, bottom first.
    n_classes : int
        0 leaves the net out.
    pairs : bool
        Whether it can be trained by pairs.

    Attributes
    ----------
    hidden : ModuleList of Linear
        W_l (n_l, n_{l-1}) and c_l (n_l,).
    visible_bias : Parameter (n_0,)
    between : ModuleList of Between, or None
        Of all hidden layers but the topmost, where there are pairs.
    net : ModuleList of FedForward, or None
    head : Linear or None
    """

    def __init__(
        self, pixels: Pixels, sizes: list[int], n_classes: int = 0, *, pairs: bool = False
    ) -> None:
        super().__init__()
        self.pixels = pixels
        widths = [pixels.units.size, *sizes]
        self.hidden = nn.ModuleList(
            nn.Linear(below, size) for below, size in zip(widths, sizes, strict=False)
        )
        self.visible_bias = nn.Parameter(torch.zeros(pixels.units.size))
        for layer in self._layers:
            nn.init.normal_(layer.weight, std=DEVIATION)
            nn.init.zeros_(layer.bias)
        self.between = nn.ModuleList(map(Between, sizes[:-1])) if pairs else None
        self.net, self.head = None, None
        if n_classes:
            above = [*sizes[1:], 0]
            self.net = nn.ModuleList(map(FedForward, widths, sizes, above))
            self.head = nn.Linear(sizes[-1], n_classes)
            initialize(self.head, "identity")

    @property
    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    @property
    def _between(self) -> list[Between]:
        assert self.between is not None, "built without pairs"
        return [own for own in self.between if isinstance(own, Between)]

    @property
    def is_bound(self) -> bool:
        """Whether its likelihood is a bound: with one hidden layer mean field is exact."""
        return len(self.hidden) > 1

    @property
    def machine(self) -> Machine:
        """All layers."""
        units = [self.pixels.units, *(Binary(layer.out_features) for layer in self._layers)]
        biases = [self.visible_bias, *(layer.bias for layer in self._layers)]
        return Machine(units, biases, [layer.weight for layer in self._layers])

    def pair(self, level: int) -> Machine:
        """Return hidden layer `level`, from 0, with what is below it, as a machine of its own.

        What a layer gets from the other side in the whole machine is not there, and what comes from
        within the pair stands for it: it counts twice. So does half of the layer's bias, and each
        of the two pairs that share a layer finds the half that suits it; see `join`.
        """
        whole, top, own = self.machine, level + 1 == len(self.hidden), self._between
        low = own[level - 1].upper if level else self.visible_bias
        high = self._layers[level].bias if top else own[level].lower
        up, down = 1.0 if top else 2.0, 2.0 if level else 1.0
        units = whole.units[level : level + 2]
        return Machine(units, (low, high), [whole.weights[level]], (up,), (down,))

    def part(self) -> None:
        """Let the pairs begin with the machine's biases."""
        with torch.no_grad():
            for own, layer in zip(self._between, self._layers, strict=False):
                own.lower.copy_(layer.bias)
                own.upper.copy_(layer.bias)

    def join(self) -> None:
        """Give the machine the biases of the pairs, where two share a layer their mean.

        The input of such a layer is then the mean of what it gets in the two pairs (Salakhutdinov
        and Hinton 2009, who add up the halves).
        """
        with torch.no_grad():
            for own, layer in zip(self._between, self._layers, strict=False):
                layer.bias.copy_((own.lower + own.upper) / 2)

    def below(self, level: int, v: Tensor) -> Tensor:
        """Return what pair `level` looks at: states v (B, n_0), up through the pairs below it."""
        for lower in range(level):
            pair = self.pair(lower)
            v = pair.mean_field(v, 0)[1]
        return v

    def mean_field(self, x: Tensor) -> States:
        """Return the states of images x (B, C, H, W), and the means of all hidden layers."""
        return self.machine.mean_field(self.pixels.states(x), SWEEPS, STILL)

    def unroll(self) -> None:
        """Let the net begin with the machine's weights."""
        if self.net is None:
            return
        with torch.no_grad():
            for level, (layer, own) in enumerate(zip(self.net, self._layers, strict=True)):
                assert isinstance(layer, FedForward)
                layer.up.weight.copy_(own.weight)
                layer.up.bias.copy_(own.bias)
                if layer.down is not None:
                    layer.down.weight.copy_(self._layers[level + 1].weight.T)

    def encode(self, x: Tensor) -> Tensor:
        """Return the topmost hidden layer, (B, K): of the net where there are classes."""
        with torch.no_grad():
            if self.net is None:
                return self.mean_field(x)[-1]
            # All of them: to ask whether they still move would wait for the device in each step.
            states = self.machine.mean_field(self.pixels.states(x), FEW_SWEEPS)
        h = states[0]
        for layer, above in zip(self.net, [*states[2:], None], strict=True):
            h = layer(h, above)
        return h

    def logits(self, x: Tensor) -> Tensor:
        """Return the class scores before the softmax, (B, n_classes)."""
        assert self.head is not None, "built without classes"
        return self.head(self.encode(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the means of the pixels given the means of the lowest hidden layer."""
        return look(self.machine, self.pixels, self.mean_field(x))

    def free_energy(self, x: Tensor) -> Tensor:
        """Return -log p(x) - log Z, (B,) in nats, or what is above it by the bound."""
        return self.pixels.volume() - self.machine.bound(self.mean_field(x))

    def score(self, x: Tensor) -> Tensor:
        """Return the bound of log p(x) but for a constant, (B,) in nats."""
        return -self.free_energy(x)

    def likely(self, x: Tensor) -> Tensor:
        """Return images as they are modeled: of gray pixels a binary draw, (B, C, H, W)."""
        return self.pixels.draw(x)

    def log_partition(self, *, careful: bool = True) -> LogPartition:
        """Return log Z; see `whatwhere.nn.annealing`."""
        return log_partition(self.machine, self.pixels.base, self._draws, careful=careful)

    def _draws(self, n: int) -> States:
        v = self.pixels.units.mean(self.pixels.base.expand(n, -1).clone())
        begun = self.begin(self.pixels.images(self.pixels.units.draw(v)))
        return self.machine.gibbs(begun, MIXING)

    def filters(self) -> Tensor | None:
        """Return the rows of W_1 as images (K, C, H, W); None for multinomial pixels."""
        if self.pixels.kind == MULTINOMIAL:
            return None
        return self._layers[0].weight.detach().view(-1, *self.pixels.shape)

    def begin(self, x: Tensor) -> States:
        """Return the state of chains begun at images x: hidden units drawn from their means."""
        machine = self.machine
        v = self.pixels.states(self.pixels.draw(x))
        means = machine.mean_field(v, SWEEPS, STILL)
        drawn = [u.draw(m) for u, m in zip(machine.units[1:], means[1:], strict=True)]
        return [v, *drawn]

    def walk(self, state: States, steps: int, known: Known | None = None) -> States:
        """Return the state after steps of Gibbs sampling; what is known of the pixels stays."""
        return walk(self.machine, self.pixels, state, steps, known)

    def look(self, state: States) -> Tensor:
        """Return the means of the pixels given the rest of the state."""
        return look(self.machine, self.pixels, state)


class BelowPair:
    """A view: pixels drawn as states, sent up through the pairs below."""

    def __init__(self, module: DBMModule, level: int, drawn: Drawn) -> None:
        self.module, self.level, self.drawn = module, level, drawn

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with what pair `level` looks at in place of its images."""
        batch = self.drawn(batch)
        return batch._replace(x=self.module.below(self.level, batch.x))

    def __str__(self) -> str:
        """Say it."""
        up = f", through the {self.level} below" if self.level else ""
        return f"{self.drawn}{up}"


class Settled(NamedTuple):
    """The hyper-parameters that may be left to the data, none of them "auto" any more."""

    visible: str
    joint_epochs: int
    batch_size: int


@dataclass(eq=False, repr=False)
class DBM(ImageClassifier):
    """Deep Boltzmann machine: a density of images; with labels, a net that begins as it.

    All images train the machine, those with a label the net, of which the machine is left as it is.

    Parameters
    ----------
    architecture : str
        Hidden layers, bottom first, all dense: ``500fc-1000fc``.
    visible : {"auto", "binary", "gaussian", "multinomial"}
        Units of pixels; as for `RBM`.
    levels : int
        Grays of multinomial pixels.
    binarize : bool
        Whether binary pixels are drawn anew at each batch; else the gray stands in for the draw.
    pretraining_epochs : int
        Of each pair of layers; 0 leaves the pairs out, which the centered gradient allows.
    pretraining_rate : float
        Of the pairs, by contrastive divergence.
    joint_epochs : int or "auto"
        Of all layers together. "auto": 20, and more for small sets.
    joint_rate : float
        Goes linearly to 0.
    sweeps : int
        Of mean field, in each update.
    steps, n_chains : int
        Of Gibbs sampling in each update, and the persistent chains.
    centered : bool
        Whether the gradient is that of the centered machine.
    sparsity_target, sparsity_cost : float
        As for `RBM`, of all hidden layers.
    momentum, weight_decay : float
        Of pairs and machine: as for `RBM`; λ of λ/2 Σ W².
    epochs : int
        Of fine-tuning; an epoch is one pass over the labeled images, or as many as 100 batches
        need.
    learning_rate : float
        Of Adam in fine-tuning; constant for the first half, then linearly to 0.
    batch_size : int or "auto"
        "auto": 100, and less for small sets.
    class_weight : "balanced", dict or None
        As for `SWWAE`.
    patience : int, optional
        Stop fine-tuning when the error on the validation images has not fallen for so many epochs.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> y = np.where(np.arange(20) < 10, np.arange(20) % 2, -1)  # ten labels, ten without
    >>> model = DBM("8fc-4fc", joint_epochs=20, epochs=2, random_state=0)
    >>> model.fit(images, y).predict(images[10:14])
    array([0, 1, 0, 1])
    """

    architecture: str = "500fc-1000fc"
    _: KW_ONLY
    visible: str = AUTO
    levels: int = 8
    binarize: bool = True
    pretraining_epochs: int = 0
    pretraining_rate: float = 0.05
    joint_epochs: int | str = AUTO
    joint_rate: float = 0.1
    sweeps: int = 10
    steps: int = 1
    n_chains: int = 100
    centered: bool = True
    sparsity_target: float = 0.1
    sparsity_cost: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int | str = AUTO
    class_weight: dict[Any, float] | str | None = BALANCED
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "visible": [StrOptions({AUTO, *KINDS})],
        "levels": [Interval(Integral, 2, 256, closed="both")],
        "binarize": ["boolean"],
        "pretraining_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretraining_rate": [RATE],
        "joint_epochs": [COUNT, StrOptions({AUTO})],
        "joint_rate": [RATE],
        "sweeps": [COUNT],
        "steps": [COUNT],
        "n_chains": [COUNT],
        "centered": ["boolean"],
        "sparsity_target": [Interval(Real, 0, 1, closed="neither")],
        "sparsity_cost": [WEIGHT],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [WEIGHT],
        "epochs": [COUNT],
        "learning_rate": [RATE],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "class_weight": [StrOptions({BALANCED}), dict, None],
        "patience": [COUNT, None],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture too."""
        super().check()
        check_class_weight(self.class_weight)
        parse_dense(self.architecture)

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what is chosen for those hyper-parameters that are "auto"."""
        settled = self.settle(spec)._asdict()
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def settle(self, spec: Spec) -> Settled:
        """Return what is given, and what is chosen in place of "auto"."""
        kind = kind_for(None if self.visible == AUTO else self.visible, spec.bounds)
        epochs, size = defaults.of_features(self.joint_epochs, self.batch_size, spec.n_samples)
        return Settled(kind, epochs, size)

    def build(self, spec: Spec) -> DBMModule:
        """Return the machine and the net, their weights drawn from a key of their own."""
        pixels = Pixels(self.settle(spec).visible, spec.shape, self.levels)
        with seeded(spec.seed, "dbm"):
            sizes, pairs = (
                parse_dense(self.architecture, spec.n_classes),
                self.pretraining_epochs > 0,
            )
            return DBMModule(pixels, sizes, spec.n_classes, pairs=pairs)

    def stages(self, module: DBMModule, spec: Spec) -> list[Stage]:
        """Return a look at the pixels, the pairs, the whole machine, and the net for classes."""
        settled = self.settle(spec)
        drawn = Drawn(module.pixels, binarize=self.binarize)
        # A gaussian pixel has a far larger gradient than a binary one.
        slow = 0.1 if settled.visible == GAUSSIAN else 1.0
        stages = [pixel_stage(module.pixels, module.visible_bias, settled.batch_size)]
        for level in range(len(module.hidden) if self.pretraining_epochs else 0):
            rate = self.pretraining_rate * slow
            epochs = self.pretraining_epochs
            update = self._likelihood(module, module.pair(level), CD, rate, epochs, spec)
            update.constraint = module.join
            stage = Stage(f"pair{level + 1}", [update], epochs, settled.batch_size)
            stage.view = BelowPair(module, level, drawn)
            if level == 0:
                stage.prepare = module.part
            stages.append(stage)
        rate = self.joint_rate * slow
        epochs = settled.joint_epochs
        update = self._likelihood(module, module.machine, PCD, rate, epochs, spec)
        stages.append(Stage("joint", [update], epochs, settled.batch_size, drawn))
        if module.net is not None and module.head is not None:
            stages.append(self._fine_tuning(module, [module.net, module.head], spec))
        return stages

    def _likelihood(
        self,
        module: DBMModule,
        machine: Machine,
        negative: str,
        rate: float,
        epochs: int,
        spec: Spec,
    ) -> StatisticsUpdate:
        cost = self.sparsity_cost
        rule = Sparsity(self.sparsity_target, cost) if cost else None
        with seeded(spec.seed, "chains"):
            gradient = LikelihoodGradient(
                machine,
                negative,
                steps=self.steps,
                n_chains=self.n_chains,
                sweeps=self.sweeps,
                centered=self.centered,
                sparsity=[rule] * (len(machine.units) - 1),
            )
        settings = {"learning_rate": rate, "momentum": self.momentum}
        optimizer: Callable[..., Any] = partial(descent, **settings, weight_decay=self.weight_decay)
        parts = [Parameters(machine)]
        update = StatisticsUpdate(
            module, gradient, optimizer, parts, schedule=LinearDecay(), name="likelihood"
        )
        update.momentum = raised(self.momentum, epochs)
        return update

    def _fine_tuning(self, module: DBMModule, parts: list[nn.Module], spec: Spec) -> Stage:
        weights = row_weights(self.class_weight, self._known_classes(), spec.class_counts)
        objective = partial(classification, class_weight=weights)
        adam = partial(torch.optim.Adam, lr=self.learning_rate)
        update = GradientUpdate(module, objective, adam, parts, schedule=LinearDecay(0.5))
        stage = Stage("fine-tuning", [update], self.epochs, self.settle(spec).batch_size)
        stage.sampler, stage.prepare = Labeled(STEPS), module.unroll
        if self.patience is not None:
            stage.early_stopping = EarlyStopping(self.patience)
        return stage
