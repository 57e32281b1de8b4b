"""Whitening: images in coordinates that are not correlated, each of variance 1.

With μ the mean of the images, Σ = U diag(λ) U' their covariance and ε a regularizer,

    z = P (x - μ),  P = diag(1/√(λ + ε)) U'            PCA whitening                      (eq. 1)
                    P = U diag(1/√(λ + ε)) U'          ZCA whitening, the symmetric one   (eq. 2)
    z_i = (x_i - μ_i) / √(σ_i² + ε)                    standardization, pixel by pixel    (eq. 3)
    x ← c (x - x̄) / ‖x - x̄‖, x̄ the mean of x's pixels   global contrast, before all else   (eq. 4)

The covariance of PCA-whitened images is diag(λ/(λ + ε)). Any rotation of z is as white; of all of
them, ZCA's is the closest to the image itself, so that its code looks like one.

Nothing descends a gradient: one pass over the images adds up count, mean and scatter, and their
eigenvectors are the solution. Sums are taken about an origin o, the mean of the first batch,

    S = Σ (x - o)(x - o)' - n (μ - o)(μ - o)',                                            (eq. 5)

so that no large numbers cancel, wherever the mean lies.

References
----------
Bell, Sejnowski. The "independent components" of natural scenes are edge filters. 1997 (ZCA).
Kessy, Lewin, Strimmer. Optimal whitening and decorrelation. 2018 (closest to the input).
Chan, Golub, LeVeque. Algorithms for computing the sample variance: analysis and recommendations.
1983 (shifted data, equation 5).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from math import prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from whatwhere.core import Batch, InputError, Terms, joint_sum
from whatwhere.data.rows import Rows
from whatwhere.learner import FeatureLearner, Spec, infer
from whatwhere.learner.defaults import AUTO
from whatwhere.train.stage import InOrder, Stage

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PCA, ZCA, STANDARDIZE = "pca", "zca", "standardize"

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""Of the largest eigenvalue: what is below may be rounding. Measured: up to 0.8 float32 eps."""

BLANK = 1e-6  # of an image's norm: contrasts below are rounding, the image is of one gray
BATCH = 3 * 2**20  # values of a batch: 4,000 images of 28 x 28
MOST_PIXELS = 2**14  # their covariance takes 2 GiB, its eigenvectors an hour


class WhiteningModule(nn.Module):
    """Mean, principal components and variances, and the maps that they make.

    Parameters
    ----------
    shape : (C, H, W)
    kind : {"zca", "pca", "standardize"}
    eps : float
        ε, in units of the variances.
    n_components : int, optional
        K; default: D, the number of values of an image.
    contrast : float, optional
        c of equation 4; default: images as they are.

    Attributes
    ----------
    mean : Tensor (D,)
    variance : Tensor (D,)
        λ, all of them, largest first; of "standardize" σ², in the order of the pixels.
    components : Tensor (K, D) or None
        The first K rows of U'; the largest number of each is positive.
    usual : Tensor (2,)
        Mean pixel, and norm around it, of the average image; for `decode` after equation 4.
    """

    mean: Tensor
    variance: Tensor
    components: Tensor | None
    usual: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        kind: str = ZCA,
        eps: float = 0.0,
        n_components: int | None = None,
        contrast: float | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.kind, self.eps, self.contrast = tuple(shape), kind, eps, contrast
        size = prod(shape)
        rotation = None if kind == STANDARDIZE else torch.eye(n_components or size, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("components", rotation)
        self.register_buffer("usual", torch.tensor([0.0, 1.0]))

    def normalize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return images after equation 4, and what it took from them.

        Parameters
        ----------
        x : Tensor (B, C, H, W)

        Returns
        -------
        flat : Tensor (B, D)
            Images of one gray are 0; without `contrast` all are as they were.
        own : Tensor (B, 2)
            Each image's mean pixel, and its norm around it.
        """
        flat = x.flatten(1)
        if self.contrast is None:
            return flat, self.usual.expand(len(x), 2)
        mean = flat.mean(dim=1, keepdim=True)
        away = flat - mean
        norm = away.norm(dim=1, keepdim=True)
        blank = norm <= BLANK * flat.norm(dim=1, keepdim=True)
        factor = torch.where(blank, 0.0, self.contrast / norm)
        return away * factor, torch.cat([mean, norm], dim=1)

    def restore(self, flat: Tensor, own: Tensor) -> Tensor:
        """Return images (B, C, H, W) of such means and norms, (B, 2): equation 4 undone."""
        if self.contrast is not None:
            flat = flat * (own[:, 1:] / self.contrast) + own[:, :1]
        return flat.view(-1, *self.shape)

    def scales(self) -> tuple[Tensor, Tensor]:
        """Return 1/√(λ + ε) and √(λ + ε), (K,) each; 1 and 1 where there is no variance."""
        kept = len(self.variance) if self.components is None else len(self.components)
        variance = self.variance[:kept] + self.eps
        # A pixel's variance is as exact as the pixel, and one that is dead has exactly none. An
        # eigenvalue is as exact as the largest of them.
        least = 0.0 if self.components is None else ROUNDING * self.variance.max()
        seen = variance > least
        return torch.where(seen, variance.rsqrt(), 1.0), torch.where(seen, variance.sqrt(), 1.0)

    def whiten(self, x: Tensor) -> Tensor:
        """Return equation 1, or 3, of images x: (B, K)."""
        away = self.normalize(x)[0] - self.mean
        along = away if self.components is None else away @ self.components.T
        return along * self.scales()[0]

    def encode(self, x: Tensor) -> Tensor:
        """Return z: (B, K), and (B, D) for ZCA.

        ZCA turns the coordinates back instead of applying P at once: rounding in the narrow
        directions then stays in them.
        """
        z = self.whiten(x)
        return z @ self.components if self.kind == ZCA and self.components is not None else z

    def invert(self, code: Tensor) -> Tensor:
        """Return what codes stand for, (B, D), after equation 4; by least squares where K < D."""
        if self.components is None:
            return code * self.scales()[1] + self.mean
        z = code @ self.components.T if self.kind == ZCA else code
        return (z * self.scales()[1]) @ self.components + self.mean

    def decode(self, code: Tensor) -> Tensor:
        """Return the images of codes, (B, C, H, W); after eq. 4 of usual mean and norm."""
        return self.restore(self.invert(code), self.usual.expand(len(code), 2))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return x̃ (B, C, H, W), each image with its own brightness and contrast."""
        return self.restore(self.invert(self.encode(x)), self.normalize(x)[1])

    def score(self, x: Tensor) -> Tensor:
        """Return -½ (x - μ)' (Σ + ε)⁻¹ (x - μ), (B,), within the components that are kept.

        That is the log-likelihood of a Gaussian but for its constant.
        """
        return -0.5 * self.whiten(x).square().sum(dim=1)

    def matrix(self) -> Tensor:
        """Return P: (K, D), and (D, D) for ZCA and standardization."""
        scale = self.scales()[0]
        if self.components is None:
            return scale.diag()
        rows = scale[:, None] * self.components
        return self.components.T @ rows if self.kind == ZCA else rows

    def filters(self) -> Tensor | None:
        """Return the rows of P as images (K, C, H, W), None for standardization.

        Those of ZCA, one a pixel, begin with the pixel that varies most.
        """
        if self.components is None:
            return None
        rows = self.matrix()
        if self.kind == ZCA:
            pixels = self.variance[: len(self.components)] @ self.components.square()
            rows = rows[pixels.argsort(descending=True, stable=True)]
        return rows.view(-1, *self.shape)

    def spectrum(self) -> tuple[Tensor, Tensor] | None:
        """Return λ (D,), and what is left of the first K: λ/(λ + ε). None for standardization."""
        if self.components is None:
            return None
        kept = self.variance[: len(self.components)]
        return self.variance, kept * self.scales()[0].square()

    def code_images(self, x: Tensor) -> Tensor | None:
        """Return z as images (B, C, H, W); None for PCA, whose numbers are no pixels."""
        return None if self.kind == PCA else self.encode(x).view(-1, *self.shape)


@dataclass
class Moments:
    """Adds up count, mean and scatter of the images, and solves for their components: no gradient.

    Products within a batch are float32, about an origin near the mean; all sums are float64.
    """

    module: WhiteningModule
    every: int = 1
    name: str = "moments"

    def start(self, fabric: "Fabric") -> None:
        """Begin with nothing seen."""
        # Apple's GPUs have no float64.
        self._device = torch.device("cpu") if fabric.device.type == "mps" else fabric.device
        self._forget()

    def _forget(self) -> None:
        size = len(self.module.mean)
        square = (size,) if self.module.components is None else (size, size)
        kind: Any = {"dtype": torch.float64, "device": self._device}
        self._origin: Tensor | None = None
        self._sums = torch.zeros(3 + size, **kind)  # n, mean pixels and norms, x - o
        self._products = torch.zeros(square, **kind)

    def step(self, batch: Batch, progress: float) -> Terms:
        """Add a batch to the sums of equation 5; there are no terms."""
        x, own = self.module.normalize(batch.x.to(self._device))
        count = self._sums.new_full((1,), len(x))
        if self._origin is None:
            first = joint_sum(torch.cat([count, x.sum(dim=0, dtype=torch.float64)]))
            self._origin = (first[1:] / first[0]).to(x.dtype)
        away = x - self._origin
        products = away.square().sum(dim=0) if self._products.ndim == 1 else gram(away)
        sums = [count, own.double().sum(dim=0), away.sum(dim=0).double()]
        self._sums += joint_sum(torch.cat(sums))
        self._products += joint_sum(products)
        return {}

    def begin_epoch(self) -> None:
        """Do nothing: a run that goes on within an epoch comes by here too."""

    def end_epoch(self) -> Mapping[str, float]:
        """Solve; return the total variance, and the part of it that the components hold."""
        self._solve()
        self._forget()
        variance, components = self.module.variance.double(), self.module.components
        total = float(variance.sum())
        kept = total if components is None else float(variance[: len(components)].sum())
        return {"total_variance": total, "variance_kept": kept / total if total else 1.0}

    def _solve(self) -> None:
        module, n, origin = self.module, self._sums[0], self._origin
        assert origin is not None
        moved = self._sums[3:] / n
        module.mean.copy_(origin.double() + moved)
        module.usual.copy_(self._sums[1:3] / n)
        if module.components is None:
            # As scikit-learn's StandardScaler: over n; its PCA: over n - 1.
            module.variance.copy_((self._products / n - moved.square()).clamp(min=0))
            return
        scatter = self._products - n * moved.outer(moved)
        values, vectors = eigenvectors(scatter / (n - 1).clamp(min=1))
        rows = vectors.T.flip(0)[: len(module.components)]
        largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
        module.variance.copy_(values.flip(0).clamp(min=0))
        module.components.copy_(rows * largest.sign())

    def evaluating(self) -> AbstractContextManager[None]:
        """Change nothing: a monitor looks after the epoch, when all is solved."""
        return nullcontext()

    def finish(self) -> None:
        """Solve for what a run saw that was stopped within an epoch."""
        if self._origin is not None:
            self._solve()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, which all processes hold."""
        return {"origin": self._origin, "sums": self._sums, "products": self._products}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        origin = state["origin"]
        self._origin = None if origin is None else origin.to(self._device)
        self._sums, self._products = (state[k].to(self._device) for k in ("sums", "products"))

    def __str__(self) -> str:
        """Say the rule, for the stage table."""
        what = "mean and variance of each pixel"
        if self.module.components is not None:
            what = "mean and covariance, eigenvectors at the end"
        return f"{self.name}: {what}; closed form"


def gram(x: Tensor) -> Tensor:
    """Return x'x (D, D) of x (B, D)."""
    if x.device.type != "cpu":
        return x.T @ x
    # NumPy sees that it is symmetric, and computes half of it. Measured: in half the time.
    rows = x.numpy()
    return torch.from_numpy(rows.T @ rows)


def eigenvectors(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (D,), smallest first, and the eigenvectors, (D, D), as columns."""
    if covariance.device.type != "cpu":
        return torch.linalg.eigh(covariance)
    # Measured: NumPy's takes three quarters of the time.
    values, vectors = np.linalg.eigh(covariance.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


@dataclass(eq=False, repr=False)
class Whitening(FeatureLearner):
    """ZCA or PCA whitening, or standardization; in closed form, in one pass over the images.

    Parameters
    ----------
    kind : {"zca", "pca", "standardize"}
        "zca": codes that look like images, as close to them as white codes can be; "pca":
        coordinates along the principal components, of the largest variance first; "standardize":
        each pixel by its own mean and deviation, correlations left as they are.
    eps : float
        Added to each variance before its root is taken. Directions of a variance well above it get
        variance 1, those well below stay small. 0: directions in which images do not vary are not
        scaled.
    n_components : int, optional
        Keep so many components, of "zca" and "pca". Default: all.
    contrast : float, optional
        First subtract each image's mean pixel, and scale it to this norm; images of one gray become
        0. 55 is usual before ZCA.
    batch_size : int or "auto"
        Images that are added up at once; the result does not depend on it but for rounding. "auto":
        4,000 of 28 x 28 pixels, fewer larger ones.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((200, 4, 4)).cumsum(axis=2) / 4
    >>> model = Whitening("pca", eps=0.0, n_components=5).fit(images)
    >>> np.allclose(np.cov(model.transform(images).T), np.eye(5), atol=1e-4)
    True
    """

    kind: str = ZCA
    _: KW_ONLY
    eps: float = 0.01
    n_components: int | None = None
    contrast: float | None = None
    batch_size: int | str = AUTO

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "kind": [StrOptions({PCA, ZCA, STANDARDIZE})],
        "eps": [Interval(Real, 0, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "contrast": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
    }

    def check(self) -> None:
        """Check every hyper-parameter, and that they go together."""
        super().check()
        if self.kind == STANDARDIZE and self.n_components is not None:
            raise InputError(
                f"n_components={self.n_components} with kind='standardize', which has no "
                "components; leave it out, or take kind='pca' or 'zca'"
            )

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return the batch size, where it is "auto"."""
        return {"batch_size": self._batch_size(spec)} if self.batch_size == AUTO else {}

    def _batch_size(self, spec: Spec) -> int:
        if isinstance(self.batch_size, str):
            return max(2, min(BATCH // prod(spec.shape), spec.n_samples))
        return self.batch_size

    def build(self, spec: Spec) -> WhiteningModule:
        """Return the module; before it has seen images it changes none.

        Raises
        ------
        InputError
            If images have fewer values than `n_components`, or more than a covariance can be
            computed of.
        """
        size = prod(spec.shape)
        if self.n_components is not None and self.n_components > size:
            raise InputError(
                f"n_components={self.n_components}, and an image has {size} values; "
                f"take {size} at most"
            )
        if self.kind != STANDARDIZE and size > MOST_PIXELS:
            raise InputError(
                f"images of {size:,} values have a covariance of {8 * size**2 / 2**30:,.0f} GiB; "
                f"bring them to {MOST_PIXELS:,} values at most (--image-size N, or patches), or "
                "take kind='standardize'"
            )
        return WhiteningModule(spec.shape, self.kind, self.eps, self.n_components, self.contrast)

    def stages(self, module: WhiteningModule, spec: Spec) -> list[Stage]:
        """Return the one stage: one pass over the images, as they stand."""
        return [Stage("moments", [Moments(module)], 1, self._batch_size(spec), sampler=InOrder())]

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Return the images that codes stand for, float32 (n, C, H, W).

        Exact where no component is left out; else by least squares.

        Parameters
        ----------
        Z : array-like (n, n_features_out)
            As `transform` returns them.

        Returns
        -------
        ndarray (n, C, H, W)
            In the units of `value_range`. With `contrast` the code does not know an image's mean
            and norm: it is the image after that normalization, in its units (`reconstruct`, which
            has the image, brings back its own).
        """
        check_is_fitted(self)
        kind: Any = np.float32
        codes = check_array(Z, dtype=kind)
        if codes.shape[1] != self._n_features_out:
            raise InputError(
                f"codes of {codes.shape[1]} numbers, and this {type(self).__name__} gives "
                f"{self._n_features_out}; pass what its transform returns"
            )
        parts = infer(self.module_, Rows(codes), lambda net, z: net.invert(z))
        flat = torch.cat([part.cpu() for part in parts]).numpy()
        found = flat.reshape(-1, *self.spec_.shape)
        if self.contrast is not None:
            return found
        low, high = self.value_range or (0.0, 1.0)
        return found * np.float32(high - low) + np.float32(low)
