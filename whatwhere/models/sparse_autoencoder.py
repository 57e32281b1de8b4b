"""Sparse auto-encoder: a code of which few units are active at a time.

    L = C(x, x̃) + β Σ_j KL(ρ ‖ ρ̂_j),  KL = ρ log(ρ / ρ̂) + (1 - ρ) log((1 - ρ) / (1 - ρ̂))

with ρ̂_j the mean activation of unit j, held as a running average over batches,
ρ̂ ← λ ρ̂ + (1 - λ) (mean of this batch); the derivative of ρ̂_j is taken as that of the batch mean,
so that β means the same whatever λ is. Three other ways to a sparse code are here: the L1 norm

    L = C(x, x̃) + β Σ_j |h_j|,

the k largest units of each image and no others (k-sparse), and Ranzato's sparsifying logistic,

    z_j = η e^{h_j} / ζ_j,  ζ_j ← η e^{h_j} + (1 - η) ζ_j,

a logistic unit whose threshold rises with its own activity. The code may be larger than the image.

References
----------
Lee, Ekanadham, Ng. Sparse deep belief net model for visual area V2. NIPS 2007.
Ng. Sparse autoencoder. CS294A lecture notes, 2011.
Ranzato, Poultney, Chopra, LeCun. Efficient learning of sparse representations with an energy-based
model. NIPS 2006.
Makhzani, Frey. k-sparse autoencoders. ICLR 2014.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import log
from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from whatwhere.core import Batch, InputError, Objective, Terms, joint_sum
from whatwhere.learner import Spec
from whatwhere.models.autoencoder import WEIGHT, MirrorLearner, decay
from whatwhere.nn.architecture import Conv, Dense, parse
from whatwhere.nn.mirror import Mirror
from whatwhere.objectives.reconstruction import LOSSES

KL, L1, K_SPARSE, SPARSIFYING_LOGISTIC = "kl", "l1", "k-sparse", "sparsifying-logistic"
SMALLEST = (
    1e-4  # of ρ̂, and of its distance to 1: beyond it the penalty's slope is that at the bound
)

LARGEST = 80.0  # of h, in the average of the sparsifying logistic


def by_unit(code: Tensor) -> Tensor:
    """Return the activations (n, K) of a code (B, K), or of maps (B, K, h, w), place by place."""
    return code if code.ndim == 2 else code.movedim(1, -1).flatten(0, -2)


def joint_mean(h: Tensor) -> Tensor:
    """Return the mean over the rows of h (n, K), of all processes together; without gradient."""
    n = joint_sum(torch.full((), float(len(h)), device=h.device))
    return joint_sum(h.detach().sum(0)) / n


def kl_divergence(rho: float, mean: Tensor) -> Tensor:
    """Return Σ_j KL(ρ ‖ ρ̂_j), in nats, for mean activations ρ̂ (K,) in [0, 1]."""
    mean = mean + (mean.clamp(SMALLEST, 1 - SMALLEST) - mean).detach()
    on = rho * (log(rho) - mean.log())
    return (on + (1 - rho) * (log(1 - rho) - (-mean).log1p())).sum()


class SparseLoss(nn.Module):
    """The error of what is rebuilt, and what a code costs that is not sparse.

    Parameters
    ----------
    loss : {"squared_error", "cross_entropy"}
    n_units : int
    sparsity : {"kl", "l1", "k-sparse", "sparsifying-logistic"}
        The last two have no term: they are what becomes of the code.
    rho, beta : float
        ρ and β.
    average : float
        λ of the running average.
    weight_decay : float
        λ of the term λ/2 Σ W².

    Attributes
    ----------
    mean : Tensor (K,)
        ρ̂.
    """

    mean: Tensor
    begun: Tensor

    def __init__(
        self,
        loss: str,
        n_units: int,
        sparsity: str,
        rho: float,
        beta: float,
        average: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.loss, self.sparsity = loss, sparsity
        self.rho, self.beta, self.average = rho, beta, average
        self.weight_decay = weight_decay
        self.register_buffer("mean", torch.zeros(n_units))
        self.register_buffer("begun", torch.zeros(()))  # the first batch is the first average

    def forward(self, net: Mirror, batch: Batch) -> Terms:
        """Return reconstruction, sparsity and weight_decay.

        The first is a sum over pixels and a mean over images; sparsity is a sum over units, with L1
        a mean over images.
        """
        code = net.code(batch.x)
        scores = net.scores(code)
        terms = {"reconstruction": LOSSES[self.loss](scores, batch.x, net.output)}
        if self.sparsity == KL:
            terms["sparsity"] = self.beta * kl_divergence(self.rho, self._running(by_unit(code)))
        elif self.sparsity == L1:
            terms["sparsity"] = self.beta * code.abs().sum() / len(code)
        return terms | decay(net, self.weight_decay)

    def _running(self, h: Tensor) -> Tensor:
        """Return ρ̂ with this batch in it; its derivative is that of the batch mean."""
        own, joint = h.mean(0), joint_mean(h)
        kept = self.average * self.begun
        running = kept * self.mean + (1 - kept) * joint
        if torch.is_grad_enabled():
            self.mean.copy_(running)
            self.begun.fill_(1)
        return own + (running - own).detach()


class KLargest(nn.Module):
    """What becomes of a code: all but the k largest units of an image are set to 0.

    Parameters
    ----------
    k : int
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, code: Tensor) -> Tensor:
        """Return the code (B, ...), k of whose values may differ from 0 in each row."""
        flat = code.flatten(1)
        kept = flat.topk(min(self.k, flat.shape[1]), dim=1)
        return torch.zeros_like(flat).scatter(1, kept.indices, kept.values).view_as(code)


class SparsifyingLogistic(nn.Module):
    """What becomes of a code: z = η e^h / ζ, with ζ a running average of e^h.

    ζ moves once a batch, by the mean over its images: ζ ← η mean(e^h) + (1 - η) ζ; an image is
    then judged as if it alone came next, z = η e^h / (η e^h + (1 - η) ζ). In evaluation ζ stands
    still.

    Parameters
    ----------
    n_units : int
    eta : float
        η in (0, 1): about how often a unit is active.
    """

    log_zeta: Tensor

    def __init__(self, n_units: int, eta: float) -> None:
        super().__init__()
        self.eta = eta
        self.register_buffer("log_zeta", torch.zeros(n_units))

    def forward(self, code: Tensor) -> Tensor:
        """Return z (B, K, ...) in (0, 1) of h of that shape."""
        log_zeta = self.log_zeta.clone()
        if self.training and torch.is_grad_enabled():
            # e^h of a larger h is no float; the bound is one for all processes.
            mean = joint_mean(by_unit(code).detach().clamp(max=LARGEST).exp())
            old = self.log_zeta + log(1 - self.eta)
            self.log_zeta.copy_(torch.logaddexp((mean + 1e-30).log() + log(self.eta), old))
        threshold = log_zeta + log((1 - self.eta) / self.eta)
        return torch.sigmoid(code - threshold.view(-1, *[1] * (code.ndim - 2)))


@dataclass(eq=False, repr=False)
class SparseAutoencoder(MirrorLearner):
    """Sparse auto-encoder, whose code may be larger than the image.

    Parameters
    ----------
    architecture : str
        As for `Autoencoder`.
    sparsity : {"kl", "l1", "k-sparse", "sparsifying-logistic"}
        How the code is kept sparse: by the mean activation of each unit over images (kl), by the
        size of each activation (l1), by the number of active units of an image (k-sparse), by
        thresholds that rise with activity (Ranzato's).
    target : float in (0, 1)
        ρ, the mean activation that is wanted (kl); the part of the units that may be active
        (k-sparse); η (sparsifying-logistic).
    weight : float
        β of the penalty (kl, l1), beside a reconstruction that is summed over pixels.
    average : float in [0, 1)
        λ of the running average of activations (kl); 0 looks at each batch alone.
    activation, code_activation, output, loss, tied, initialization, weight_decay, epochs,
    batch_size, optimizer, learning_rate, decay_from, patience
        As for `Autoencoder`. The code is logistic by default with kl, which needs it; linear with
        k-sparse and sparsifying-logistic, and else as the other layers.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    >>> model = SparseAutoencoder("30fc", sparsity="k-sparse", target=0.1, random_state=0)
    >>> codes = model.fit(images).transform(images)
    >>> int((codes != 0).sum(axis=1).max())
    3
    """

    architecture: str = "196fc"
    _: KW_ONLY
    activation: str = "logistic"
    weight_decay: float = 3e-3
    sparsity: str = KL
    target: float = 0.1
    weight: float = 3.0
    average: float = 0.9

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MirrorLearner._parameter_constraints,
        "sparsity": [StrOptions({KL, L1, K_SPARSE, SPARSIFYING_LOGISTIC})],
        "target": [Interval(Real, 0, 1, closed="neither")],
        "weight": [WEIGHT],
        "average": [Interval(Real, 0, 1, closed="left")],
    }

    def check(self) -> None:
        """Check every hyper-parameter; mean activations of KL are those of logistic units."""
        super().check()
        unit = self.code_activation
        if self.sparsity == KL and unit not in (None, "logistic"):
            raise InputError(
                f"sparsity='kl' compares mean activations in (0, 1), and code_activation={unit!r} "
                "gives others; take code_activation='logistic', or sparsity='l1' or 'k-sparse'"
            )

    @property
    def code_unit(self) -> str:
        """The activation of the code."""
        if self.code_activation is not None:
            return self.code_activation
        rules = {KL: "logistic", K_SPARSE: "identity", SPARSIFYING_LOGISTIC: "identity"}
        return rules.get(self.sparsity, self.activation)

    def code_rule(self, spec: Spec) -> Callable[[Tensor], Tensor] | None:
        """Return what becomes of the code at last."""
        n_units = self._n_units(spec)
        if self.sparsity == K_SPARSE:
            return KLargest(max(1, round(self.target * n_units)))
        if self.sparsity == SPARSIFYING_LOGISTIC:
            return SparsifyingLogistic(n_units, self.target)
        return None

    def objective(self, spec: Spec) -> Objective:
        """Return the error of what is rebuilt, and the penalty."""
        return SparseLoss(
            self.fit_for(spec).loss,
            self._n_units(spec),
            self.sparsity,
            self.target,
            self.weight,
            self.average,
            self.weight_decay,
        )

    def _n_units(self, spec: Spec) -> int:
        """Return the units of the code, or its maps."""
        for layer in reversed(parse(self.architecture)):
            if isinstance(layer, Dense):
                return layer.units
            if isinstance(layer, Conv):
                return layer.maps
        return spec.shape[0]
