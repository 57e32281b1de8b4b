"""Restricted Boltzmann machine: pixels and hidden units, and no links within either.

    E(v, h) = φ(v) - bᵀv - cᵀh - hᵀWv
    F(v) = -log Σ_h exp(-E(v, h)) = φ(v) - bᵀv - Σ_j log(1 + exp(c_j + W_j v))
    log p(v) = -F(v) - log Z

Where there are labels, a softmax unit y joins the pixels: c + W v becomes c + W v + U_y, and
p(y | v) ∝ exp(d_y + Σ_j log(1 + exp(c_j + W_j v + U_yj))) is exact, so that the machine classifies
(Larochelle & Bengio 2008). Of an image without a label p(v) = Σ_y p(v, y) is learned, by labels
drawn from p(y | v).

With one softmax unit as its hidden layer the machine is a mixture of as many parts as it has
states.

References
----------
Smolensky. Information processing in dynamical systems. 1986.
Hinton. Training products of experts by minimizing contrastive divergence. 2002.
Tieleman. Training RBMs using approximations to the likelihood gradient. ICML 2008.
Salakhutdinov, Murray. On the quantitative analysis of deep belief networks. ICML 2008.
Larochelle, Bengio. Classification using discriminative restricted Boltzmann machines. ICML 2008.
Hinton. A practical guide to training restricted Boltzmann machines. 2010.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from whatwhere.core import (
    Batch,
    InputError,
    Known,
    LogPartition,
    Terms,
    device_of,
    joint_sum,
    seeded,
)
from whatwhere.learner import ImageClassifier, Spec, defaults, infer
from whatwhere.learner.defaults import AUTO
from whatwhere.models.autoencoder import COUNT, RATE, WEIGHT
from whatwhere.nn import annealing
from whatwhere.nn.boltzmann import Binary, Gaussian, Machine, Multinomial, States, Units
from whatwhere.nn.pixels import BINARY, GAUSSIAN, KINDS, MULTINOMIAL, Drawn, Pixels, kind_for
from whatwhere.objectives.classification import (
    BALANCED,
    check_class_weight,
    cross_entropy,
    row_weights,
)
from whatwhere.objectives.divergence import (
    NEGATIVES,
    PCD,
    LikelihoodGradient,
    Sparsity,
)
from whatwhere.train.stage import InOrder, Stage
from whatwhere.train.update import GradientUpdate, LinearDecay, Raised, StatisticsUpdate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DEVIATION = 0.01
"""Of the first weights (Hinton 2010)."""

QUICK_BITS = 16
"""Of the smaller side: so many states are summed over where a number is wanted at once."""

MIXING = 1000
"""Steps of Gibbs sampling after which a chain counts as a draw, for the way back of annealing."""

FIRST_MOMENTUM, FIRST_EPOCHS = 0.5, 5


class RBMModule(nn.Module):
    """The machine, and what it says of images.

    Parameters
    ----------
    pixels : Pixels
    hidden : Units
    n_classes : int
        0 leaves the label out.

    Attributes
    ----------
    hidden : Linear
        W (H, n) and c (H,).
    visible_bias : Parameter (n,)
        b.
    head : Linear or None
        U (K, H) and d (K,).
    """

    is_bound = False

    def __init__(self, pixels: Pixels, hidden: Units, n_classes: int = 0) -> None:
        super().__init__()
        self.pixels, self.units = pixels, hidden
        self.hidden = nn.Linear(pixels.units.size, hidden.size)
        self.visible_bias = nn.Parameter(torch.zeros(pixels.units.size))
        self.head = nn.Linear(hidden.size, n_classes) if n_classes else None
        for layer in (self.hidden, self.head):
            if layer is not None:
                nn.init.normal_(layer.weight, std=DEVIATION)
                nn.init.zeros_(layer.bias)

    @property
    def machine(self) -> Machine:
        """The layers: pixels, hidden units, and the label where there is one."""
        units = [self.pixels.units, self.units]
        biases, weights = [self.visible_bias, self.hidden.bias], [self.hidden.weight]
        if self.head is not None:
            n = self.head.out_features
            units.append(Multinomial(n, n))
            biases.append(self.head.bias)
            weights.append(self.head.weight)
        return Machine(units, biases, weights)

    def label_scores(self, v: Tensor) -> Tensor:
        """Return log p(v, y) but for what does not depend on y, (B, K), of states v (B, n)."""
        assert self.head is not None, "built without classes"
        total = self.hidden(v)
        scores = [self.units.log_partition(total + row) for row in self.head.weight]
        return self.head.bias + torch.stack(scores, dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """Return log p(y | x) but for a constant, (B, K)."""
        return self.label_scores(self.pixels.states(x))

    def free_energy(self, x: Tensor) -> Tensor:
        """Return -log p(x) - log Z, (B,) in nats."""
        v = self.pixels.states(x)
        if self.head is None:
            hidden = self.units.log_partition(self.hidden(v))
        else:
            hidden = self.label_scores(v).logsumexp(dim=1)
        return self.pixels.units.base(v) - v @ self.visible_bias - hidden + self.pixels.volume()

    def score(self, x: Tensor) -> Tensor:
        """Return log p(x) but for a constant, (B,) in nats."""
        return -self.free_energy(x)

    def likely(self, x: Tensor) -> Tensor:
        """Return images as they are modeled: of gray pixels a binary draw, (B, C, H, W)."""
        return self.pixels.draw(x)

    def log_partition(self, *, careful: bool = True) -> LogPartition:
        """Return log Z; see `whatwhere.nn.annealing`."""
        return log_partition(self.machine, self.pixels.base, self._draws, careful=careful)

    def _draws(self, n: int) -> States:
        """Return n draws from the machine, after long chains."""
        v = self.pixels.units.mean(self.pixels.base.expand(n, -1).clone())
        begun = self.begin(self.pixels.images(self.pixels.units.draw(v)))
        return self.machine.gibbs(begun, MIXING)

    def pseudo_likelihood(self, x: Tensor) -> Tensor:
        """Return Σ_i log p(v_i | the others), (B,) in nats, over every binary pixel i.

        Images that are not binary are read as probabilities, and rounded.
        """
        assert self.pixels.kind == BINARY and self.head is None
        v, found = self.pixels.states(x).round(), x.new_zeros(len(x))
        total = self.hidden(v)
        here = self.units.log_partition(total)
        for i, weight in enumerate(self.hidden.weight.T):
            step = 1 - 2 * v[:, i]  # what is added to the pixel to flip it
            there = self.units.log_partition(total + step[:, None] * weight)
            found += F.logsigmoid(here - there - step * self.visible_bias[i])
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Return the means of the hidden units, (B, H), whatever the label."""
        total = self.hidden(self.pixels.states(x))
        if self.head is None:
            return self.units.mean(total)
        odds = self.logits(x).softmax(dim=1)
        parts = [
            share[:, None] * self.units.mean(total + row)
            for share, row in zip(odds.T, self.head.weight, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)

    def decode(self, code: Tensor) -> Tensor:
        """Return the means of the pixels given hidden units, (B, C, H, W)."""
        total = torch.addmm(self.visible_bias, code, self.hidden.weight)
        return self.pixels.images(self.pixels.units.mean(total))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the means of the pixels given the means of the hidden units."""
        return self.decode(self.encode(x))

    def filters(self) -> Tensor | None:
        """Return the rows of W as images (H, C, H, W); None for multinomial pixels."""
        if self.pixels.kind == MULTINOMIAL:
            return None
        return self.hidden.weight.detach().view(-1, *self.pixels.shape)

    def begin(self, x: Tensor) -> States:
        """Return the state of chains begun at images x."""
        v = self.pixels.states(self.pixels.draw(x))
        machine = self.machine
        states = [v, *(v.new_zeros(len(v), units.size) for units in machine.units[1:])]
        machine.draw(machine.odd, states)
        machine.draw([level for level in machine.even if level], states)
        return states

    def walk(self, state: States, steps: int, known: Known | None = None) -> States:
        """Return the state after steps of Gibbs sampling; what is known of the pixels stays."""
        return walk(self.machine, self.pixels, state, steps, known)

    def look(self, state: States) -> Tensor:
        """Return the means of the pixels given the rest of the state."""
        return look(self.machine, self.pixels, state)


def walk(
    machine: Machine, pixels: Pixels, state: States, steps: int, known: Known | None
) -> States:
    """Return the state after steps of Gibbs sampling, of the odd side and then of the even one."""
    state = list(state)
    given = seen = None
    if known is not None:
        given, seen = pixels.states(pixels.draw(known.x)), pixels.mask(known.mask)
        state[0] = torch.where(seen, given, state[0])
    for _ in range(steps):
        machine.draw(machine.odd, state)
        machine.draw(machine.even, state)
        if given is not None and seen is not None:
            state[0] = torch.where(seen, given, state[0])
    return state


def look(machine: Machine, pixels: Pixels, state: States) -> Tensor:
    """Return the means of the pixels given the layer above them, (B, C, H, W)."""
    found = list(state)
    machine.mean([0], found)
    return pixels.images(found[0])


def log_partition(
    machine: Machine, base: Tensor, draws: Callable[[int], States], *, careful: bool
) -> LogPartition:
    """Return log Z: exactly where few states are to be summed over, else by annealing.

    Parameters
    ----------
    machine : Machine
    base : Tensor
        Biases of the base machine's lowest layer.
    draws : callable (n) -> States
        Gives draws from the machine, for the way back of annealing.
    careful : bool
        With the published temperatures and the way back; otherwise a tenth of them, and no such
        check.
    """
    bits = min(machine.bits(machine.even), machine.bits(machine.odd))
    if bits <= (annealing.MOST_BITS if careful else QUICK_BITS):
        return annealing.exact(machine)
    if not careful:
        return annealing.estimate(machine, base, schedule=annealing.SHORT)
    n = 100
    with torch.no_grad():
        states = draws(n)
    return annealing.estimate(machine, base, n_chains=n, states=states)


@dataclass
class PixelStatistics:
    """An update that looks at all images once: means of pixels, from which biases begin.

    Biases that a run begins with, because it goes on from another, are left as they are.

    Parameters
    ----------
    pixels : Pixels
    bias : Parameter (n,)
        Of the lowest layer.
    """

    pixels: Pixels
    bias: nn.Parameter
    every: int = 1
    name: str = "pixels"

    def start(self, fabric: "Fabric") -> None:
        """Begin with nothing seen."""
        sizes = [1, len(self.pixels.mean), len(self.pixels.mean), len(self.pixels.base)]
        self._sizes = sizes
        kind = torch.float32 if fabric.device.type == "mps" else torch.float64
        self._sums = torch.zeros(sum(sizes), dtype=kind, device=fabric.device)

    @torch.no_grad()
    def step(self, batch: Batch, progress: float) -> Terms:
        """Add a batch to the sums; there are no terms."""
        x = batch.x.flatten(1)
        states = x if self.pixels.kind == GAUSSIAN else self.pixels.states(batch.x)
        parts = [x.new_full((1,), len(x)), x.sum(dim=0), x.square().sum(dim=0), states.sum(dim=0)]
        self._sums += joint_sum(torch.cat(parts)).to(self._sums.dtype)
        return {}

    def begin_epoch(self) -> None:
        """Do nothing."""

    def end_epoch(self) -> Mapping[str, float]:
        """Set the pixels, and of a fresh machine the biases."""
        n, sums, squares, states = self._sums.split(self._sizes)
        fresh = not bool(self.pixels.known)
        if fresh:
            self.pixels.learn(int(n), sums, squares, states)
            with torch.no_grad():
                self.bias.copy_(self.pixels.base)
        self._sums.zero_()
        return {}

    def evaluating(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    def finish(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, which all processes hold."""
        return {"sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._sums.copy_(state["sums"])

    def __str__(self) -> str:
        """Say the rule, for the stage table."""
        return f"{self.name}: the mean of each pixel, from which biases begin; closed form"


class Parameters(nn.Module):
    """The parameters of a machine, as a part that an update may name."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.weights = nn.ParameterList(machine.weights)
        self.biases = nn.ParameterList(machine.biases)


def raised(momentum: float, epochs: int) -> Raised | None:
    """Return 1/2 for the first five of so many epochs, and then the momentum; None up to 1/2."""
    if momentum <= FIRST_MOMENTUM:
        return None
    return Raised(FIRST_MOMENTUM, momentum, FIRST_EPOCHS / epochs)


def descent(
    parameters: list[nn.Parameter], *, learning_rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return gradient descent that draws weights to 0, and leaves biases alone."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1]},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


class Settled(NamedTuple):
    """The hyper-parameters that may be left to the data, none of them "auto" any more."""

    visible: str
    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(eq=False, repr=False)
class RBM(ImageClassifier):
    """Restricted Boltzmann machine: a density of images that also gives features, and classes.

    Without labels it learns p(x), with some p(x, y), of the images without one p(x).

    Parameters
    ----------
    n_hidden : int
        Hidden units.
    visible : {"auto", "binary", "gaussian", "multinomial"}
        Units of pixels. "auto": binary for data in [0, 1], else gaussian.
    hidden : {"binary", "gaussian", "multinomial"}
        Hidden units; multinomial is one softmax unit of `n_hidden` states, and the machine a
        mixture.
    levels : int
        Grays of multinomial pixels.
    binarize : bool
        Whether binary pixels are drawn anew at each batch, with a gray as its probability; else the
        gray stands in for the draw.
    negative : {"cd", "pcd", "fast", "tempering"}
        Chains that begin at the data (contrastive divergence), that persist, that persist and have
        fast weights, or persist at `n_temperatures` temperatures.
    steps, last_steps : int, int or None
        Of Gibbs sampling in each update; with `last_steps` their number goes from the one to the
        other, in equal parts of training.
    n_chains, n_temperatures : int
        Of persistent chains.
    fast_rate : float
        Learning rate of fast weights.
    centered : bool
        Whether the gradient is that of the centered machine.
    sparsity_target, sparsity_cost : float
        How often a hidden unit is to be on, and how strongly it is drawn there; a cost of 0 leaves
        it.
    nll_rate : float
        Learning rate, of Adam, with which -log p(y | x), a mean over labeled images, is descended
        in turn with -log p(x, y). 0 leaves it out.
    class_weight : "balanced", dict or None
        As for `SWWAE`; of that term.
    epochs, batch_size : int or "auto"
        "auto": 20 epochs in batches of 100; for small sets more, in smaller ones.
    learning_rate : float or "auto"
        "auto": 0.05 for binary and multinomial pixels, 0.002 for gaussian ones.
    decay_from : float
        Where in training, 0 to 1, the rate begins to fall linearly to 0.
    momentum : float
        Where it is above 0.5, it is 0.5 for the first five epochs.
    weight_decay : float
        λ of λ/2 Σ W².

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> model = RBM(8, learning_rate=0.2, epochs=100, random_state=0).fit(images)
    >>> model.transform(images).shape
    (20, 8)
    >>> bool(model.score_samples(images).mean() > -5.0)  # two images: log(1/2) = -0.7 at best
    True
    """

    n_hidden: int = 500
    _: KW_ONLY
    visible: str = AUTO
    hidden: str = BINARY
    levels: int = 8
    binarize: bool = True
    negative: str = PCD
    steps: int = 1
    last_steps: int | None = None
    n_chains: int = 100
    n_temperatures: int = 10
    fast_rate: float = 0.01
    centered: bool = True
    sparsity_target: float = 0.1
    sparsity_cost: float = 0.0
    nll_rate: float = 1e-2
    class_weight: dict[Any, float] | str | None = BALANCED
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    learning_rate: float | str = AUTO
    decay_from: float = 0.5
    momentum: float = 0.0
    weight_decay: float = 0.0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_hidden": [COUNT],
        "visible": [StrOptions({AUTO, *KINDS})],
        "hidden": [StrOptions(set(KINDS))],
        "levels": [Interval(Integral, 2, 256, closed="both")],
        "binarize": ["boolean"],
        "negative": [StrOptions(set(NEGATIVES))],
        "steps": [COUNT],
        "last_steps": [COUNT, None],
        "n_chains": [COUNT],
        "n_temperatures": [Interval(Integral, 2, None, closed="left")],
        "fast_rate": [WEIGHT],
        "centered": ["boolean"],
        "sparsity_target": [Interval(Real, 0, 1, closed="neither")],
        "sparsity_cost": [WEIGHT],
        "nll_rate": [WEIGHT],
        "class_weight": [StrOptions({BALANCED}), dict, None],
        "epochs": [COUNT, StrOptions({AUTO})],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "learning_rate": [RATE, StrOptions({AUTO})],
        "decay_from": [Interval(Real, 0, 1, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [WEIGHT],
    }

    def check(self) -> None:
        """Check every hyper-parameter, and those that do not go together."""
        super().check()
        check_class_weight(self.class_weight)
        if self.visible == GAUSSIAN and self.hidden == GAUSSIAN:
            raise InputError(
                "visible='gaussian' and hidden='gaussian' have no distribution once weights are "
                "large; take hidden='binary'"
            )

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what is chosen for those hyper-parameters that are "auto"."""
        settled = self.settle(spec)._asdict()
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def settle(self, spec: Spec) -> Settled:
        """Return what is given, and what is chosen in place of "auto"."""
        kind = kind_for(None if self.visible == AUTO else self.visible, spec.bounds)
        epochs, size = defaults.of_features(self.epochs, self.batch_size, spec.n_samples)
        rate = self.learning_rate
        if isinstance(rate, str):
            rate = 0.002 if kind == GAUSSIAN else 0.05
        return Settled(kind, epochs, size, rate)

    def build(self, spec: Spec) -> RBMModule:
        """Return the machine, its weights drawn from a key of their own."""
        pixels = Pixels(self.settle(spec).visible, spec.shape, self.levels)
        n = self.n_hidden
        kinds = {BINARY: Binary(n), GAUSSIAN: Gaussian(n), MULTINOMIAL: Multinomial(n, n)}
        with seeded(spec.seed, "rbm"):
            return RBMModule(pixels, kinds[self.hidden], spec.n_classes)

    def stages(self, module: RBMModule, spec: Spec) -> list[Stage]:
        """Return a look at the pixels, and the ascent of the likelihood."""
        settled = self.settle(spec)
        sparsity = (
            Sparsity(self.sparsity_target, self.sparsity_cost) if self.sparsity_cost else None
        )
        with seeded(spec.seed, "chains"):
            gradient = LikelihoodGradient(
                module.machine,
                self.negative,
                steps=self.steps,
                n_chains=self.n_chains,
                centered=self.centered,
                sparsity=[sparsity],
                fast_rate=self.fast_rate,
                n_temperatures=self.n_temperatures,
                labels=module.head is not None,
                label_scores=module.label_scores if spec.n_labeled < spec.n_samples else None,
            )
        rule = {"learning_rate": settled.learning_rate, "momentum": self.momentum}
        rule["weight_decay"] = self.weight_decay
        schedule = LinearDecay(self.decay_from)
        likelihood = StatisticsUpdate(
            module, gradient, partial(descent, **rule), schedule=schedule, name="likelihood"
        )
        likelihood.momentum = raised(self.momentum, settled.epochs)
        stage = Stage("likelihood", [likelihood], settled.epochs, settled.batch_size)
        stage.view = Drawn(module.pixels, binarize=self.binarize)
        if self.last_steps is not None:
            stage.before_epoch = partial(self._raise_steps, gradient, settled.epochs)
        if module.head is not None and self.nll_rate:
            weights = row_weights(self.class_weight, self._known_classes(), spec.class_counts)
            objective = partial(conditional, class_weight=weights)
            adam, parts = partial(torch.optim.Adam, lr=self.nll_rate), [module.hidden, module.head]
            told = GradientUpdate(module, objective, adam, parts, schedule=schedule)
            stage.updates = [likelihood, told]
        return [pixel_stage(module.pixels, module.visible_bias, settled.batch_size), stage]

    def _raise_steps(self, gradient: LikelihoodGradient, epochs: int, epoch: int) -> None:
        assert self.last_steps is not None
        levels = self.last_steps - self.steps + 1
        gradient.k = self.steps + int(levels * epoch / epochs)

    def score_samples(self, X: Any) -> Any:
        """Return log p(x), (n_samples,) in nats; log Z is computed when first asked for.

        Gray pixels of a binary machine are read as probabilities that stand in for a draw: of
        binary images it is the log-likelihood.
        """
        check_is_fitted(self)
        module: Any = self.module_
        if getattr(self, "_module_of_log_z", None) is not module:
            with seeded(self.spec_.seed, "log Z", device=device_of(module)):
                self._log_z: float = module.log_partition().value
            self._module_of_log_z = module
        # In float64: rounding then depends less on which images stand beside one another.
        exact: Any = deepcopy(module).double()
        parts = infer(exact, self._rows(X, reset=False), lambda net, x: net.score(x.double()))
        return torch.cat([part.cpu() for part in parts]).numpy() - self._log_z


def pixel_stage(pixels: Pixels, bias: nn.Parameter, batch_size: int) -> Stage:
    """Return the stage that looks at all images once."""
    return Stage("pixels", [PixelStatistics(pixels, bias)], 1, batch_size, sampler=InOrder())


def conditional(module: RBMModule, batch: Batch, *, class_weight: tuple[float, ...]) -> Terms:
    """Return nll, -log p(y | v) as a mean over labeled rows, of states v (B, n)."""
    scores = module.label_scores(batch.x)
    return {"nll": cross_entropy(scores, batch.y, class_weight)}
