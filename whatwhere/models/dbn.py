"""Deep belief network: a Boltzmann machine on the top of layers that generate downwards.

    p(v, h_1, ..., h_L) = p(v | h_1) p(h_1 | h_2) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L)       (1)
    p(h_{k-1} | h_k) has the means σ(b_k + G_kᵀ h_k),     p(h_{L-1}, h_L) ∝ exp(-E(h_{L-1}, h_L))
    q(h_k | h_{k-1}) has the means σ(c_k + R_k h_{k-1})                                          (2)
    log p(v) ≥ E_q [-F(h_{L-1}) + Σ_k log p(h_{k-1} | h_k) - log q(h_k | h_{k-1})] - log Z       (3)

with h_0 = v, k from 1 to L - 1, and F and Z those of the restricted machine of the top. Greedily,
layer by layer, the restricted machine k learns from states of h_{k-1} as (2) draws them from the
data, and its weights are R_k = G_k. One that begins as the machine below it turned over has that
machine's p(h_{k-1}), so that (3) begins at what it was before, and whatever raises it raises the
bound. Up-down, a contrastive wake-sleep, then parts the two ways: states that R draws upwards teach
G to give each layer from the one above, k steps of Gibbs sampling from there teach the top, and
what these steps end with, brought down by G, teaches R to find it again. With labels R is also
where a feed-forward net begins, which is fine-tuned on its own.

References
----------
Hinton, Dayan, Frey, Neal. The wake-sleep algorithm for unsupervised neural networks. 1995.
Hinton, Osindero, Teh. A fast learning algorithm for deep belief nets. 2006.
Bengio, Lamblin, Popovici, Larochelle. Greedy layer-wise training of deep networks. NIPS 2006.
Salakhutdinov, Murray. On the quantitative analysis of deep belief networks. ICML 2008.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import Batch, Known, LogPartition, Terms, joint_sum, seeded
from whatwhere.learner import ImageClassifier, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.models.autoencoder import COUNT, RATE, WEIGHT
from whatwhere.models.rbm import (
    DEVIATION,
    MIXING,
    descent,
    log_partition,
    pixel_stage,
    raised,
)
from whatwhere.models.stacked_autoencoder import STEPS
from whatwhere.nn.architecture import parse_dense
from whatwhere.nn.boltzmann import Binary, Machine, States, Units
from whatwhere.nn.pixels import BINARY, GAUSSIAN, Drawn, Pixels, kind_for
from whatwhere.objectives.classification import (
    BALANCED,
    check_class_weight,
    classification,
    row_weights,
)
from whatwhere.objectives.divergence import CD, PCD, LikelihoodGradient, Slopes
from whatwhere.train.gradients import GradientSizes
from whatwhere.train.stage import EarlyStopping, Labeled, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay, StatisticsUpdate

SAMPLES = 10
"""Of q, for the bound of an image."""

CHAINS, WARMING = 100, 100
"""Chains and their steps, from which the base of annealing has its means."""

GAUSSIAN_SHARE = 0.02
"""Of the learning rates, where gaussian pixels are learned: 0.002 of 0.1."""


class Layer(nn.Linear):
    """A restricted Boltzmann machine upon the layer below: R, c, and b as `visible_bias`.

    Parameters
    ----------
    below : Units
    n : int
        Its own units, which are binary.

    Attributes
    ----------
    begun : Tensor ()
        Whether its weights are more than first draws, 0 or 1.
    """

    begun: Tensor

    def __init__(self, below: Units, n: int) -> None:
        super().__init__(below.size, n)
        self.below, self.units = below, Binary(n)
        self.visible_bias = nn.Parameter(torch.zeros(below.size))
        self.register_buffer("begun", torch.zeros(()))
        nn.init.normal_(self.weight, std=DEVIATION)
        nn.init.zeros_(self.bias)

    @property
    def machine(self) -> Machine:
        """The machine, which shares the parameters."""
        return Machine([self.below, self.units], [self.visible_bias, self.bias], [self.weight])

    def means(self, below: Tensor) -> Tensor:
        """Return the means of (2), (B, n)."""
        return self.units.mean(self(below))


class Generative(nn.Module):
    """The weights of the way down, from when they are no longer those of the way up.

    Attributes
    ----------
    weights : ParameterList
        G_k of each layer but the topmost.
    untied : Tensor ()
        bool.
    """

    untied: Tensor

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros_like(layer.weight) for layer in layers[:-1])
        self.register_buffer("untied", torch.zeros((), dtype=torch.bool))


class FeedForward(nn.Sequential):
    """Dense logistic layers, which begin as the way up of a deep belief network.

    Attributes
    ----------
    begun : Tensor ()
        Whether they have, 0 or 1.
    """

    begun: Tensor

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        for layer in layers:
            self.append(nn.Linear(layer.in_features, layer.out_features))
            self.append(nn.Sigmoid())
        self.register_buffer("begun", torch.zeros(()))

    @property
    def linear(self) -> list[nn.Linear]:
        """The layers, without what is done to their input."""
        return [part for part in self if isinstance(part, nn.Linear)]


class DBNModule(nn.Module):
    """The layers, both ways, and what they say of images.

    Parameters
    ----------
    pixels : Pixels
    sizes : sequence of int
        Hidden units of each layer, bottom first.
    n_classes : int
        0 leaves out the feed-forward net and its class layer.
    up_down : bool
        Whether the way down may part from the way up.
    """

    def __init__(
        self, pixels: Pixels, sizes: Sequence[int], n_classes: int = 0, *, up_down: bool = False
    ) -> None:
        super().__init__()
        self.pixels, self.n_classes = pixels, n_classes
        units = [pixels.units, *map(Binary, sizes)]
        own = [Layer(below, n) for below, n in zip(units[:-1], sizes, strict=True)]
        self.layers = nn.ModuleList(own)
        self.is_bound = len(own) > 1  # a single layer is a restricted machine
        self.generative = Generative(own) if up_down and len(own) > 1 else None
        self.net, self.head = None, None
        if n_classes:
            self.net = FeedForward(own)
            self.head = nn.Linear(sizes[-1], n_classes)

    @property
    def stack(self) -> list[Layer]:
        """The layers, by their type."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    @property
    def top(self) -> Machine:
        """The restricted machine of the two topmost layers."""
        return self.stack[-1].machine

    def turn_over(self, level: int) -> None:
        """Let a layer begin as the machine below it turned over, where it has the sizes for it.

        One that begun with the weights of another run is left as it is.
        """
        layer, lower = self.stack[level], self.stack[level - 1]
        fits = isinstance(lower.below, Binary) and lower.in_features == layer.out_features
        with torch.no_grad():
            if fits and not bool(layer.begun):
                layer.weight.copy_(lower.weight.T)
                layer.visible_bias.copy_(lower.bias)
                layer.bias.copy_(lower.visible_bias)
            layer.begun.fill_(1)

    def untie(self) -> None:
        """Part the way down from the way up, if they are not yet: the same weights, twice."""
        if self.generative is not None and not bool(self.generative.untied):
            with torch.no_grad():
                for weight, layer in zip(self.generative.weights, self.stack, strict=False):
                    weight.copy_(layer.weight)
            self.generative.untied.fill_(True)

    def tie(self) -> None:
        """Let the way down have the weights of the way up."""
        if self.generative is not None:
            self.generative.untied.fill_(False)

    def transfer(self) -> None:
        """Let the feed-forward net begin as the way up, unless it comes from another run."""
        assert self.net is not None
        if not bool(self.net.begun):
            with torch.no_grad():
                for own, layer in zip(self.net.linear, self.stack, strict=True):
                    own.weight.copy_(layer.weight)
                    own.bias.copy_(layer.bias)
        self.net.begun.fill_(1)

    def downward(self, level: int, above: Tensor) -> Tensor:
        """Return the total input of a layer's lower side from its upper one: b + Gᵀ h, (B, n)."""
        layer = self.stack[level]
        weight = layer.weight
        if self.generative is not None and level < len(self.layers) - 1:
            # Chosen on the device, for asking would wait for it.
            weight = torch.where(self.generative.untied, self.generative.weights[level], weight)
        return torch.addmm(layer.visible_bias, above, weight)

    def ascend(self, v: Tensor, n: int) -> States:
        """Return v (B, n_0) and draws from q of the n layers upon it."""
        states = [v]
        for layer in self.stack[:n]:
            states.append(layer.units.draw(layer.means(states[-1])))
        return states

    def descend(self, state: Tensor, *, drawn: bool) -> States:
        """Return draws, or means given means, of all below h_{L-1}, with it: v first."""
        states = [state]
        for level in reversed(range(len(self.layers) - 1)):
            units = self.stack[level].below
            mean = units.mean(self.downward(level, states[0]))
            states.insert(0, units.draw(mean) if drawn else mean)
        return states

    def free_energy(self, x: Tensor) -> Tensor:
        """Return -(log Z + the bound (3)), (B,) in nats, of a few draws from q.

        The entropy of each layer is that of its means, and not estimated.
        """
        v = self.pixels.states(x)
        draws = [self._bound(v) for _ in range(SAMPLES if self.is_bound else 1)]
        return self.pixels.volume() - torch.stack(draws).mean(dim=0)

    def _bound(self, v: Tensor) -> Tensor:
        s, found = v, v.new_zeros(len(v))
        for level, layer in enumerate(self.stack[:-1]):
            means = layer.means(s)
            above = layer.units.draw(means)
            total = self.downward(level, above)
            likely = (total * s).sum(dim=1) - layer.below.base(s) - layer.below.log_partition(total)
            found = found + likely + layer.units.entropy(means)
            s = above
        return found - self.top.free_energy([s, s.new_empty(0)], self.top.even)

    def likely(self, x: Tensor) -> Tensor:
        """Return images as they are modeled: of gray pixels a binary draw, (B, C, H, W)."""
        return self.pixels.draw(x)

    def log_partition(self, *, careful: bool = True) -> LogPartition:
        """Return log Z of the top; the base of annealing has the means that its chains have."""
        with torch.no_grad():
            means = self._walked(CHAINS, WARMING)[0].mean(dim=0)
        base = self.pixels.base
        if self.is_bound:
            base = ((CHAINS * means + 0.5) / (CHAINS + 1)).logit()
        return log_partition(self.top, base, partial(self._walked, steps=MIXING), careful=careful)

    def _walked(self, n: int, steps: int) -> States:
        """Return the top's state of n chains, begun at independent pixels."""
        units = self.pixels.units
        v = units.draw(units.mean(self.pixels.base.expand(n, -1).clone()))
        return self.top.gibbs(self._begun(v), steps)

    def _begun(self, v: Tensor) -> States:
        return self.ascend(v, len(self.layers))[-2:]

    def encode(self, x: Tensor) -> Tensor:
        """Return the means of the topmost layer, or of the net that names classes: (B, K)."""
        v = self.pixels.states(x)
        return self._means(v) if self.net is None else self.net(v)

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Return the means of each layer, or of the net that names classes: level1, level2, ..."""
        v, found = self.pixels.states(x), {}
        steps: list[Callable[[Tensor], Tensor]] = [layer.means for layer in self.stack]
        if self.net is not None:
            steps = [nn.Sequential(own, nn.Sigmoid()) for own in self.net.linear]
        for number, step in enumerate(steps, 1):
            found[f"level{number}"] = v = step(v)
        return found

    def _means(self, v: Tensor) -> Tensor:
        for layer in self.stack:
            v = layer.means(v)
        return v

    def logits(self, x: Tensor) -> Tensor:
        """Return the class scores before the softmax, (B, n_classes)."""
        assert self.head is not None, "built without classes"
        return self.head(self.encode(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the images rebuilt by means up through all layers, and down again."""
        h = self._means(self.pixels.states(x))
        state = self.stack[-1].below.mean(self.downward(len(self.layers) - 1, h))
        return self.pixels.images(self.descend(state, drawn=False)[0])

    def filters(self) -> Tensor | None:
        """Return the rows of the first layer's weights as images, (K, C, H, W)."""
        return self.stack[0].weight.detach().view(-1, *self.pixels.shape)

    def begin(self, x: Tensor) -> States:
        """Return the top's state of chains begun at images x: draws from q."""
        return self._begun(self.pixels.states(self.pixels.draw(x)))

    def walk(self, state: States, steps: int, known: Known | None = None) -> States:
        """Return the state after steps of Gibbs sampling in the top.

        With known pixels, a step is draws down to the pixels, the known ones put back, draws up
        again, and a step in the top. Of several layers that is approximate, for q, which draws
        upwards, is not the posterior.
        """
        if known is None:
            return self.top.gibbs(state, steps)
        given, seen = self.pixels.states(self.pixels.draw(known.x)), self.pixels.mask(known.mask)
        for _ in range(steps):
            v = self.descend(state[0], drawn=True)[0]
            state = self.top.gibbs(self._begun(torch.where(seen, given, v)), 1)
        return state

    def look(self, state: States) -> Tensor:
        """Return the means of the pixels, given those of the layers between them and the state."""
        s, h = state
        if not self.is_bound:  # the state has the pixels themselves
            s = self.pixels.units.mean(self.downward(0, h))
        return self.pixels.images(self.descend(s, drawn=False)[0])


@dataclass(frozen=True)
class Ascended:
    """A view: states that q draws of a layer, from pixels that are drawn.

    Drawn, and not their means: the bound (3) is an average over states, and states are what the
    layer upon them is to give. Means have less noise than what is to be modeled.

    Parameters
    ----------
    module : DBNModule
    level : int
        Layers to go up through.
    drawn : Drawn
    """

    module: DBNModule
    level: int
    drawn: Drawn

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with states of that layer in place of its images."""
        batch = self.drawn(batch)
        return batch._replace(x=self.module.ascend(batch.x, self.level)[-1])

    def __str__(self) -> str:
        """Say it."""
        below = f"the {self.level} layer{'s' * (self.level > 1)} below"
        return f"{self.drawn}; states drawn through {below}"


class UpDown(LikelihoodGradient):
    """The contrastive wake-sleep of 2006: (module, batch) -> terms and slopes.

    The batch holds states of pixels. Terms are those of the top's contrastive divergence;
    ``wake``, -log p of each layer below given the one upon it, and ``sleep``, -log q of each layer
    given the one below it: in nats, summed over layers, means over the batch.

    Parameters
    ----------
    module : DBNModule
        Its two ways apart.
    steps : int
        Of Gibbs sampling in the top.
    centered : bool
        Of the top's gradient.
    """

    def __init__(self, module: DBNModule, *, steps: int, centered: bool) -> None:
        super().__init__(module.top, CD, steps=steps, centered=centered)

    def of_machine(self, data: States) -> States:
        """Return states of the top, and keep them: the sleep begins there."""
        self._dream = super().of_machine(data)
        return self._dream

    def forward(self, module: DBNModule, batch: Batch) -> tuple[Terms, Slopes]:
        """Return the terms, and the slopes of all layers."""
        awake = module.ascend(batch.x, len(module.layers) - 1)
        terms, slopes = super().forward(module, batch._replace(x=awake[-1]))
        n, _ = self._counts(len(batch.x))
        wake, down = generative_slopes(module, awake, n)
        sleep, up = recognition_slopes(module, module.descend(self._dream[0], drawn=True), n)
        return {**terms, "wake": wake, "sleep": sleep}, [*slopes, *down, *up]


def generative_slopes(module: DBNModule, states: States, n: float) -> tuple[Tensor, Slopes]:
    """Return -Σ_k log p(h_{k-1} | h_k), and its gradient by G and b, over n: the delta rule.

    Parameters
    ----------
    module : DBNModule
        Its two ways apart.
    states : list of Tensor (B, n_k)
        h_0 to h_{L-1}.
    n : float
        Rows of all processes.
    """
    loss, slopes = states[0].new_zeros(()), []
    weights = [] if module.generative is None else module.generative.weights
    for level, weight in enumerate(weights):
        layer, s, above = module.stack[level], states[level], states[level + 1]
        total = module.downward(level, above)
        loss = loss + _surprise(layer.below, total, s)
        error = layer.below.mean(total) - s
        slopes.append((weight, joint_sum(above.T @ error) / n))
        slopes.append((layer.visible_bias, joint_sum(error.sum(dim=0)) / n))
    return loss, slopes


def recognition_slopes(module: DBNModule, states: States, n: float) -> tuple[Tensor, Slopes]:
    """Return -Σ_k log q(h_k | h_{k-1}), and its gradient by R and c; see `generative_slopes`."""
    loss, slopes = states[0].new_zeros(()), []
    for layer, s, above in zip(module.stack[:-1], states, states[1:], strict=False):
        total = layer(s)
        loss = loss + _surprise(layer.units, total, above)
        error = layer.units.mean(total) - above
        slopes.append((layer.weight, joint_sum(error.T @ s) / n))
        slopes.append((layer.bias, joint_sum(error.sum(dim=0)) / n))
    return loss, slopes


def _surprise(units: Units, total: Tensor, s: Tensor) -> Tensor:
    """Return -log of the density of states at a total input, a mean over rows."""
    return (units.log_partition(total) + units.base(s) - (total * s).sum(dim=1)).mean()


class Settled(NamedTuple):
    """The hyper-parameters that may be left to the data, none of them "auto" any more."""

    visible: str
    pretraining_epochs: int
    batch_size: int


@dataclass(eq=False, repr=False)
class DBN(ImageClassifier):
    """Deep belief network: a density of images, learned layer by layer; with labels also a net.

    All images train the layers, with no look at labels. Those with a label then train a
    feed-forward net that begins with the weights of the layers, which themselves stay.

    Parameters
    ----------
    architecture : str
        Hidden layers, bottom first, all of them dense: ``500fc-2000fc``. The class layer is always
        added.
    visible : {"auto", "binary", "gaussian"}
        Units of pixels. "auto": binary for data in [0, 1], else gaussian.
    binarize : bool
        As for `RBM`; of fine-tuning never.
    negative : {"cd", "pcd"}
        Chains of the greedy training, which begin at the data (contrastive divergence) or persist.
    steps : int
        Of Gibbs sampling in each update.
    n_chains : int
        Of persistent chains.
    centered : bool
        Whether the gradient is that of the centered machine.
    pretraining_epochs, pretraining_rate : int or "auto", float
        Of each layer. "auto": 20 epochs, and more for small sets. Where gaussian pixels are
        learned, this rate and the next are multiplied by 0.02.
    up_down_epochs, up_down_rate, up_down_steps : int, float, int
        Of up-down upon all layers, and its steps of Gibbs sampling in the top; 0 epochs leave it
        out.
    epochs : int
        Of fine-tuning; an epoch is one pass over the labeled images, or as many as 100 batches
        need.
    learning_rate : float
        Of fine-tuning, with Adam. All rates are constant for the first half of a stage, then go
        linearly down to 0.
    batch_size : int or "auto"
        "auto": 100, and less for small sets.
    momentum : float
        Of all training without labels; where it is above 0.5, it is 0.5 for five epochs.
    weight_decay : float
        λ of λ/2 Σ W², with labels and without.
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
    >>> model = DBN("8fc-4fc", pretraining_epochs=5, epochs=2, learning_rate=0.01, random_state=0)
    >>> model.fit(images, y).predict(images[10:14])
    array([0, 1, 0, 1])
    """

    architecture: str = "500fc-2000fc"
    _: KW_ONLY
    visible: str = AUTO
    binarize: bool = True
    negative: str = PCD
    steps: int = 1
    n_chains: int = 100
    centered: bool = True
    pretraining_epochs: int | str = AUTO
    pretraining_rate: float = 0.1
    up_down_epochs: int = 0
    up_down_rate: float = 0.005
    up_down_steps: int = 3
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int | str = AUTO
    momentum: float = 0.0
    weight_decay: float = 0.0
    class_weight: dict[Any, float] | str | None = BALANCED
    patience: int | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "visible": [StrOptions({AUTO, BINARY, GAUSSIAN})],
        "binarize": ["boolean"],
        "negative": [StrOptions({CD, PCD})],
        "steps": [COUNT],
        "n_chains": [COUNT],
        "centered": ["boolean"],
        "pretraining_epochs": [COUNT, StrOptions({AUTO})],
        "pretraining_rate": [RATE],
        "up_down_epochs": [Interval(Integral, 0, None, closed="left")],
        "up_down_rate": [RATE],
        "up_down_steps": [COUNT],
        "epochs": [COUNT],
        "learning_rate": [RATE],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [WEIGHT],
        "class_weight": [StrOptions({BALANCED}), dict, None],
        "patience": [COUNT, None],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture too."""
        super().check()
        parse_dense(self.architecture)
        check_class_weight(self.class_weight)

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what is chosen for those hyper-parameters that are "auto"."""
        settled = self.settle(spec)._asdict()
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def settle(self, spec: Spec) -> Settled:
        """Return what is given, and what is chosen in place of "auto"."""
        kind = kind_for(None if self.visible == AUTO else self.visible, spec.bounds)
        epochs, size = defaults.of_features(
            self.pretraining_epochs, self.batch_size, spec.n_samples
        )
        return Settled(kind, epochs, size)

    def build(self, spec: Spec) -> DBNModule:
        """Return the layers, their weights drawn from a key of their own."""
        pixels = Pixels(self.settle(spec).visible, spec.shape)
        with seeded(spec.seed, "dbn"):
            sizes, up_down = parse_dense(self.architecture, spec.n_classes), self.up_down_epochs > 0
            return DBNModule(pixels, sizes, spec.n_classes, up_down=up_down)

    def stages(self, module: DBNModule, spec: Spec) -> list[Stage]:
        """Return a look at the pixels, a stage for each layer, up-down, and fine-tuning."""
        _, epochs, size = self.settle(spec)
        stages = [pixel_stage(module.pixels, module.stack[0].visible_bias, size)]
        drawn = Drawn(module.pixels, binarize=self.binarize)
        share = GAUSSIAN_SHARE if module.pixels.kind == GAUSSIAN else 1.0
        for level, layer in enumerate(module.stack):
            with seeded(spec.seed, "chains", level):
                gradient = LikelihoodGradient(
                    layer.machine,
                    self.negative,
                    steps=self.steps,
                    n_chains=self.n_chains,
                    centered=self.centered,
                )
            rate = self.pretraining_rate * (1.0 if level else share)
            update = self._update(module, gradient, [layer], rate, epochs)
            stage = Stage(f"layer{level + 1}", [update], epochs, size)
            stage.view = Ascended(module, level, drawn) if level else drawn
            if level:
                stage.prepare = partial(module.turn_over, level)
            # A layer that learns greedily is a restricted machine, also after an earlier up-down.
            stage.before_epoch = partial(_tied, module)
            stages.append(stage)
        if self.up_down_epochs:
            gradient = UpDown(module, steps=self.up_down_steps, centered=self.centered)
            parts = [part for part in (module.layers, module.generative) if part is not None]
            rate = self.up_down_rate * share
            update = self._update(module, gradient, parts, rate, self.up_down_epochs)
            stage = Stage("up-down", [update], self.up_down_epochs, size, view=drawn)
            stage.prepare = module.untie
            stages.append(stage)
        if module.net is not None and module.head is not None:
            stages.append(self._fine_tuning(module, module.net, module.head, spec))
        return stages

    def _update(
        self,
        module: DBNModule,
        gradient: LikelihoodGradient,
        parts: Sequence[nn.Module],
        rate: float,
        epochs: int,
    ) -> StatisticsUpdate:
        rule = {"learning_rate": rate, "momentum": self.momentum}
        optimizer = partial(descent, **rule, weight_decay=self.weight_decay)
        update = StatisticsUpdate(
            module, gradient, optimizer, parts, schedule=LinearDecay(0.5), name="likelihood"
        )
        update.momentum = raised(self.momentum, epochs)
        return update

    def _fine_tuning(
        self, module: DBNModule, net: FeedForward, head: nn.Linear, spec: Spec
    ) -> Stage:
        """Return the stage in which the feed-forward net and its class layer learn from labels."""
        weights = row_weights(self.class_weight, self._known_classes(), spec.class_counts)
        objective = partial(classification, class_weight=weights)
        layers = {f"layer{k}": layer for k, layer in enumerate(net.linear, 1)}
        sizes = GradientSizes(module, objective, layers | {"classes": head})
        adam = partial(torch.optim.Adam, lr=self.learning_rate)
        if self.weight_decay:
            adam = partial(adam, weight_decay=self.weight_decay)
        update = GradientUpdate(module, objective, adam, [net, head], schedule=LinearDecay(0.5))
        size = self.settle(spec).batch_size
        stage = Stage("fine-tuning", [sizes, update], self.epochs, size, sampler=Labeled(STEPS))
        stage.prepare = module.transfer
        if self.patience is not None:
            stage.early_stopping = EarlyStopping(self.patience)
        return stage


def _tied(module: DBNModule, epoch: int) -> None:
    module.tie()
