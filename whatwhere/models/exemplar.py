"""Exemplar-CNN: a convolutional net that tells patches from one another, however they are turned.

N seed patches are cut out of images without labels, where there is something to see. Each is a
class of its own, a surrogate: its members are random transformations of it. A net that learns

    L = -log p(i | T_α x_i),  p = softmax of the surrogate classes                        (eq. 3)

has to find what stays under shifts, turns and other colors, and what differs between the seeds.
The softmax is dropped then, and what the layers below it give, over the whole image, are features.

Near-identical seeds are told to be different classes. In the clustered variant seeds that the net
finds alike become one class, and a second leg learns these.

References
----------
Dosovitskiy, Springenberg, Riedmiller, Brox. Discriminative unsupervised feature learning with
convolutional neural networks. NIPS 2014.
Dosovitskiy, Fischer, Springenberg, Riedmiller, Brox. Discriminative unsupervised feature learning
with exemplar convolutional neural networks. TPAMI 2016. arXiv:1406.6909
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from math import log
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from whatwhere.core import UNLABELED, Batch, InputError, Terms, joint_sum, key, seeded, sharing
from whatwhere.data.transformations import ALL, Boxes, Palette, Transformations, crop
from whatwhere.learner import FeatureLearner, Spec, defaults
from whatwhere.learner.defaults import AUTO
from whatwhere.learner.start import Start, part_of
from whatwhere.models.autoencoder import COUNT, RATE, WEIGHT
from whatwhere.nn.architecture import Dense, parse
from whatwhere.nn.conv import Encoder, in_channels_last
from whatwhere.nn.pooling import quadrants
from whatwhere.objectives.classification import cross_entropy
from whatwhere.train.stage import InOrder, Stage, no_single_rows
from whatwhere.train.update import GradientUpdate, LinearDecay

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),  # the paper's
}
CANDIDATES = 4  # patches of an image that are looked at before one is taken
LARGEST_ZOOM = 3.0  # of a seed: a patch of 32 pixels may show all of an image of 96
SEEDS = 2000
"""Of "auto". The paper's best number, 8000, took a million updates.

Measured (`reproduce exemplar-cifar10`), 30,000 patches of 10,000 images, test error of a linear
probe with 1000 labels: 500 seeds 51.9 %, 2000 seeds 56.9 %, 10,000 seeds 67.7 %, and 59.4 % before
any update. So few copies of so many seeds teach nothing; "auto" epochs make 300,000 of 2000.
"""
LOOKED_AT = 500  # images at once, where all are looked at


class ExemplarModule(nn.Module):
    """A convolutional net on patches, which runs over whole images, and what its seeds are.

    Parameters
    ----------
    encoder : Encoder
        Of patches (C, h, w).
    shape : (C, H, W)
        Of an image.
    n_seeds : int
    n_clusters : int
        0 leaves the layer of the clustered classes out.
    dropout : float
        Part of the inputs of the layers of classes that is dropped while training.
    enlarge : int
        Images are brought to so many times their size before features are taken of them.
    """

    mean: Tensor
    principal: Tensor
    seed_rows: Tensor
    seed_boxes: Tensor
    clusters: Tensor

    def __init__(
        self,
        encoder: Encoder,
        shape: tuple[int, int, int],
        n_seeds: int,
        n_clusters: int,
        dropout: float,
        enlarge: int,
    ) -> None:
        super().__init__()
        self.encoder, self.shape, self.enlarge = encoder, tuple(shape), enlarge
        self.surrogates = class_layer(encoder.n_features, n_seeds, dropout)
        self.clustered = None
        if n_clusters:
            self.clustered = class_layer(encoder.n_features, n_clusters, dropout)
        channels = shape[0]
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("principal", torch.eye(channels))
        # Before they are chosen: the first images, as a whole.
        self.register_buffer("seed_rows", torch.arange(n_seeds))
        self.register_buffer("seed_boxes", torch.tensor([0.0, 0.0, 1.0]).repeat(n_seeds, 1))
        self.register_buffer("clusters", torch.zeros(n_seeds, dtype=torch.int64))

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch."""
        _, h, w = self.encoder.shapes[0]
        return h, w

    @property
    def palette(self) -> Palette:
        """The colors of the images."""
        return Palette(self.mean, self.principal)

    def seeds(self, rows: Tensor) -> Tensor:
        """Return the numbers of the seeds that lie in these rows, `UNLABELED` where none does."""
        rows = rows.contiguous()  # those of one of several processes are every other one
        places = torch.searchsorted(self.seed_rows, rows).clamp_(max=len(self.seed_rows) - 1)
        return torch.where(self.seed_rows[places] == rows, places, UNLABELED)

    def boxes(self, seeds: Tensor) -> Boxes:
        """Return where these seeds lie in their images; `UNLABELED` is anywhere."""
        return Boxes(*self.seed_boxes[seeds].unbind(1))

    def centered(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) less the mean color of all pixels.

        With batch normalization, which does it anyway, they stay as they are: a net that begins
        with this encoder then sees what it saw.
        """
        return x if self.encoder.batch_norm else x - self.mean[:, None, None]

    def scores(self, patches: Tensor, layer: nn.Module) -> Tensor:
        """Return the scores of patches (B, C, h, w) for the classes of a layer."""
        return layer(self.encoder(self.centered(patches)).top.flatten(1))

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, K, h, w) of each level, run over whole images of any size.

        A dense layer is the convolution that looks at as much as a patch has; where it sees all of
        the image at once it gives a vector (B, K).
        """
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=self.enlarge, mode="bilinear")
        x, encoder = self.centered(x), self.encoder
        found: list[Tensor] = []
        for place, layer in enumerate(encoder.layers):
            if isinstance(layer, Dense):
                x = slide(encoder.steps[place], encoder.shapes[place], x)
            else:
                x, _ = encoder.up(place, x)
            if encoder.is_level(place):
                found.append(x.flatten(1) if x[0, 0].numel() == 1 else x)
        return {f"level{number}": level for number, level in enumerate(found, 1)}

    def encode(self, x: Tensor) -> Tensor:
        """Return the maximum of each quarter of each map, of all levels: (B, K)."""
        levels = self.levels(x).values()
        return torch.cat([(quadrants(v) if v.ndim == 4 else v).flatten(1) for v in levels], dim=1)

    def filters(self) -> Tensor | None:
        """Return the filters that look at the image, (K, C, h, w)."""
        return self.encoder.filters()


def class_layer(n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Return the layer below a softmax."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))


def slide(dense: nn.Module, below: Sequence[int], x: Tensor) -> Tensor:
    """Return what a dense layer gives at each place of larger maps: (B, K, h', w').

    Parameters
    ----------
    dense : Sequential
        A linear layer, and what follows it a unit at a time.
    below : (C, h, w) or (K,)
        What it looks at.
    x : Tensor (B, C, H, W)
        With H >= h and W >= w; there are H - h + 1 times W - w + 1 places.
    """
    assert isinstance(dense, nn.Sequential)
    linear, *rest = dense
    assert isinstance(linear, nn.Linear)
    kernel = linear.weight.view(-1, *(below if len(below) == 3 else (*below, 1, 1)))
    maps = F.conv2d(x, kernel, linear.bias)
    units = maps.permute(0, 2, 3, 1)
    flat = units.reshape(-1, units.shape[3])
    for step in rest:  # a batch norm of units reads rows
        flat = step(flat)
    return flat.view(units.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Surrogates:
    """A view: images become transformed patches, and the class of a patch is its seed.

    Parameters
    ----------
    module : ExemplarModule
        Its seeds are looked up in each batch, for they are found in training.
    transformations : Transformations
    clustered : bool
        Whether the class is the cluster of the seed.
    copies : int, optional
        A seed has so many transformed copies, drawn once. Default: a new one each time.
    seed : int
        Of those copies.
    """

    module: ExemplarModule
    transformations: Transformations
    clustered: bool = False
    copies: int | None = None
    seed: int = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch of patches (B, C, h, w); a row without a seed is `UNLABELED`."""
        net, x = self.module, batch.x
        seeds = net.seeds(batch.rows)
        patches = self.patches(x, seeds, self.numbers(seeds, x.shape[1], x.device))
        y = torch.where(seeds < 0, UNLABELED, net.clusters[seeds]) if self.clustered else seeds
        return Batch(patches, y, batch.rows)

    def patches(self, x: Tensor, seeds: Tensor, numbers: Tensor) -> Tensor:
        """Return the copies of seeds that numbers in [0, 1) make, out of their images x."""
        net = self.module
        return self.transformations(x, net.boxes(seeds), net.patch, net.palette, numbers)

    def numbers(self, seeds: Tensor, channels: int, device: torch.device) -> Tensor:
        """Return uniform numbers for a copy of each seed: new ones, or out of those kept."""
        n = self.transformations.numbers(channels)
        if self.copies is None:
            return torch.rand(len(seeds), n, device=device)
        which = torch.randint(self.copies, (len(seeds),), device=device)
        # Numbers, not images: a thousandth of the memory, and the same images each time.
        kept = kept_numbers(len(self.module.seed_rows), self.copies, n, self.seed, device)
        return kept[seeds, which]

    def __str__(self) -> str:
        """Say the rule."""
        what = "the cluster of its seed" if self.clustered else "its seed"
        kept = f", {self.copies} copies of each" if self.copies else ""
        return f"patches {self.transformations}{kept}; the class of a patch is {what}"


@lru_cache(maxsize=1)
def kept_numbers(n_seeds: int, copies: int, n: int, seed: int, device: torch.device) -> Tensor:
    """Return uniform numbers (n_seeds, copies, n) that depend on the seed alone."""
    with seeded(seed, "copies"):
        return torch.rand(n_seeds, copies, n).to(device)


@dataclass(frozen=True)
class SeedRows:
    """A sampler: the rows of the seeds alone, each once.

    Parameters
    ----------
    module : ExemplarModule
    shuffled : bool
    """

    module: ExemplarModule
    shuffled: bool = True

    def __call__(self, y: Tensor, batch_size: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the rows of each batch."""
        rows = self.module.seed_rows
        if self.shuffled:
            rows = rows[torch.randperm(len(rows), generator=generator, device=y.device)]
        return no_single_rows(rows.split(batch_size))

    def __str__(self) -> str:
        """Say the rule."""
        return f"every seed once, {'shuffled' if self.shuffled else 'in order'}"


class Look:
    """What updates that look at images, without a gradient, have in common. Abstract.

    They fill a table with a row for each image or seed, and come to a conclusion after the epoch.

    Parameters
    ----------
    module : ExemplarModule
    """

    every = 1
    name = "look"

    def __init__(self, module: ExemplarModule) -> None:
        self.module = module
        self.sums: dict[str, Tensor] = {}

    def start(self, fabric: "Fabric") -> None:
        """Begin with nothing seen."""
        self.device = fabric.device
        self.sums = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add what all processes together have seen."""
        value = joint_sum(value)
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def add_rows(self, name: str, n: int, rows: Tensor, values: Tensor) -> None:
        """Put rows of values into a table of n rows that all processes fill together."""
        if name not in self.sums:
            self.sums[name] = values.new_zeros(n, *values.shape[1:])
        if sharing() is None:
            self.sums[name].index_copy_(0, rows, values)
        else:
            self.add(name, values.new_zeros(n, *values.shape[1:]).index_copy_(0, rows, values))

    def begin_epoch(self) -> None:
        """Do nothing: a run that goes on within an epoch comes by here too."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Change nothing: a monitor looks after the epoch."""
        return nullcontext()

    def finish(self) -> None:
        """Do nothing: what was found is in the module."""

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, which all processes hold."""
        return dict(self.sums)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.sums = {name: value.to(self.device) for name, value in state.items()}


class SeedSearch(Look):
    """Looks at all images once: finds their colors, and the seeds.

    Of an image a few patches are drawn, at random places and zooms; one of them is taken, with a
    probability proportional to its mean squared gradient. Then so many images are drawn as there
    are seeds, with probabilities proportional to the mean over their patches.

    Parameters
    ----------
    module : ExemplarModule
    n_images : int
    """

    name = "seeds"

    def __init__(self, module: ExemplarModule, n_images: int) -> None:
        super().__init__(module)
        self.n_images = n_images

    def begin_epoch(self) -> None:
        """Draw the patches of all images: each process then knows all of them."""
        shape = (self.n_images, CANDIDATES)
        self._places = torch.rand(*shape, 3, device=self.device)
        self._pick = torch.rand(self.n_images, device=self.device)

    def step(self, batch: Batch, progress: float) -> Terms:
        """Look at a batch; there are no terms."""
        x, rows = batch.x, batch.rows
        pixels = x.movedim(1, 3).flatten(0, 2).double()
        self.add("colors", torch.cat([pixels.sum(dim=0)[None], pixels.T @ pixels]))
        self.add("pixels", pixels.new_full((), len(pixels)))
        boxes = self._candidates(rows)
        patches = [crop(x, Boxes(*b.unbind(1)), self.module.patch) for b in boxes.unbind(1)]
        energies = torch.stack([energy(patch) for patch in patches], dim=1)
        sums = energies.cumsum(dim=1)
        picked = (sums < self._pick[rows, None] * sums[:, -1:]).sum(dim=1)
        box = boxes[torch.arange(len(x), device=self.device), picked]
        found = torch.cat([energies.mean(dim=1)[:, None], box], dim=1)
        self.add_rows("found", self.n_images, rows, found)
        return {}

    def _candidates(self, rows: Tensor) -> Tensor:
        """Return the patches of these images, as `Boxes` has them: (B, CANDIDATES, 3)."""
        (_, height, width), (h, w) = self.module.shape, self.module.patch
        u = self._places[rows]
        zoom = (u[..., 2] * log(min(LARGEST_ZOOM, height / h, width / w))).exp()
        y = (2 * u[..., 0] - 1) * (1 - zoom * h / height).clamp(min=0)
        x = (2 * u[..., 1] - 1) * (1 - zoom * w / width).clamp(min=0)
        return torch.stack([y, x, zoom], dim=2)

    def end_epoch(self) -> Mapping[str, float]:
        """Choose the seeds; return how much more gradient they have than any image."""
        module, found = self.module, self.sums["found"]
        mean, products = self.sums["colors"][0], self.sums["colors"][1:]
        mean, products = mean / self.sums["pixels"], products / self.sums["pixels"]
        module.mean.copy_(mean)
        _, vectors = torch.linalg.eigh(products - mean.outer(mean))
        module.principal.copy_(vectors.T.flip(0))
        energies = found[:, 0]
        weights = energies.clamp(min=1e-6 * float(energies.max()) + 1e-30)
        rows, _ = torch.multinomial(weights, len(module.seed_rows)).sort()
        module.seed_rows.copy_(rows)
        module.seed_boxes.copy_(found[rows, 1:])
        self.sums = {}
        ratio = energies[rows].mean() / energies.mean().clamp(min=1e-30)
        return {"seed_gradient": float(ratio)}

    def __str__(self) -> str:
        """Say the rule, for the stage table."""
        return f"{len(self.module.seed_rows)} seeds, drawn by their mean squared gradient"


def energy(x: Tensor) -> Tensor:
    """Return the mean squared gradient of patches (B, C, h, w), by differences: (B,)."""
    down = x.diff(dim=2).square().sum(dim=(1, 2, 3))
    right = x.diff(dim=3).square().sum(dim=(1, 2, 3))
    return (down + right) / x[0].numel()


class Clustering(Look):
    """Puts seeds that the net finds alike into one class.

    What the top layer gives for each seed, as it stands, is whitened and brought to length 1;
    k-means finds the clusters of these directions.

    Parameters
    ----------
    module : ExemplarModule
    n_clusters : int
    seed : int
        Of k-means.
    """

    name = "clusters"

    def __init__(self, module: ExemplarModule, n_clusters: int, seed: int) -> None:
        super().__init__(module)
        self.n_clusters, self.seed = n_clusters, seed

    @torch.no_grad()
    def step(self, batch: Batch, progress: float) -> Terms:
        """Look at a batch of patches; there are no terms."""
        net = self.module
        given = net.encoder(net.centered(batch.x)).top.flatten(1)
        self.add_rows("given", len(net.seed_rows), batch.y, given)
        return {}

    def end_epoch(self) -> Mapping[str, float]:
        """Find the clusters; return how many seeds the largest holds."""
        table = self.sums["given"].double().cpu().numpy()
        if not (table != table[0]).any():
            raise InputError(
                "the net gives the same for all seeds, so there are no clusters: the images may "
                "all be of one color; leave clusters out"
            )
        directions = normalize(PCA(whiten=True, n_components=0.99).fit_transform(table))
        means = MiniBatchKMeans(self.n_clusters, random_state=self.seed, n_init="auto")
        labels = means.fit_predict(directions)
        self.module.clusters.copy_(torch.from_numpy(labels))
        self.sums = {}
        return {"largest_cluster": float(np.bincount(labels).max())}

    def __str__(self) -> str:
        """Say the rule, for the stage table."""
        return f"{self.n_clusters} clusters of what the net gives for the seeds; k-means"


def surrogate_loss(net: ExemplarModule, batch: Batch, layer: str = "surrogates") -> Terms:
    """Return equation 3, in nats, as a mean over the patches, with the classes of a layer."""
    scores = net.scores(batch.x, getattr(net, layer))
    return {"surrogate": cross_entropy(scores, batch.y)}


@dataclass(eq=False, repr=False)
class ExemplarCNN(FeatureLearner):
    """Exemplar-CNN: features that tell one patch from another, however it is transformed.

    `transform` gives what the paper gives to a linear support vector machine: the maximum of each
    quarter of each map, of all levels, with the net run over the whole image.

    Parameters
    ----------
    architecture : str
        Of the net on a patch, without the layer of classes. The three of the paper are
        ``(64)5c-2p-(64)5c-2p-128fc``, ``(64)5c-2p-(128)5c-2p-(256)5c-512fc`` and
        ``(92)5c-2p-(256)5c-2p-(512)5c-1024fc``.
    n_seeds : int or "auto"
        Surrogate classes; at most one an image. "auto": 2000. With more of them each has fewer
        copies in as many updates, and near-identical ones are more.
    patch : int
        Side of a patch; of smaller images the whole image is the patch, and neither its place nor
        its zoom is drawn.
    transformations : str
        ``all``, ``none``, or some of translation, scaling, rotation, contrast, brightness and
        color, joined by +; see `whatwhere.data.transformations.Transformations`. Gray images have
        no color, and those whose pixels leave [0, 1] neither brightness nor color.
    copies : int, optional
        Transformed copies of a seed, drawn once and for all; with 100 there is little left to gain,
        says the paper. Default: each time a new one.
    clusters : int, optional
        After training put the seeds into so many classes, by what the net gives for them, and train
        it on with these. Default: no second leg.
    enlarge : int
        Features are taken of images so many times as large, so that the top layer, which looks at a
        whole patch, sees each image at several places. The paper takes 2 for CIFAR-10, with a net
        that learned on patches of larger images; one that learned on the small ones themselves has
        not met their parts as large.
    epochs : int or "auto"
        Passes over the seeds, of either leg. "auto": 20, and more for few seeds.
    batch_size : int or "auto"
        "auto": 100, and less for few seeds.
    optimizer : {"adam", "sgd"}
        "sgd", with a momentum of 0.9, is the paper's; it took a rate of 0.01.
    learning_rate : float
        Constant for the first part of training, then linearly down to 0.
    decay_from : float
        Where in training, 0 to 1, the rate begins to fall.
    weight_decay : float
    batch_norm : bool
        Normalize each map over the batch; the paper does not.
    dropout : float
        Of the inputs of the layer of classes.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((20, 3, 16, 16)).astype(np.float32)
    >>> model = ExemplarCNN("(4)3c-2p-8fc", patch=8, n_seeds=10, epochs=1, random_state=0)
    >>> model.fit(images).transform(images).shape  # 4 quarters of 4 maps and of 8
    (20, 48)
    """

    architecture: str = "(64)5c-2p-(64)5c-2p-128fc"
    _: KW_ONLY
    n_seeds: int | str = AUTO
    patch: int = 32
    transformations: str = ALL
    copies: int | None = None
    clusters: int | None = None
    enlarge: int = 1
    epochs: int | str = AUTO
    batch_size: int | str = AUTO
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    decay_from: float = 0.5
    weight_decay: float = 0.0
    batch_norm: bool = True
    dropout: float = 0.5

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [str],
        "n_seeds": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "patch": [COUNT],
        "transformations": [str],
        "copies": [COUNT, None],
        "clusters": [Interval(Integral, 2, None, closed="left"), None],
        "enlarge": [COUNT],
        "epochs": [COUNT, StrOptions({AUTO})],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO})],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [RATE],
        "decay_from": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [WEIGHT],
        "batch_norm": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def check(self) -> None:
        """Check every hyper-parameter, the architecture and the transformations too."""
        super().check()
        parse(self.architecture)
        Transformations.read(self.transformations)

    def begins_with(self, start: Start) -> Start:
        """Return the encoder alone: other images have other seeds and classes."""
        own = {name: x for name, x in start.state.items() if part_of(name) == "encoder"}
        return start._replace(state=own)

    def choose(self, spec: Spec) -> dict[str, Any]:
        """Return what is chosen for those hyper-parameters that are "auto"."""
        n_seeds = self._seeds(spec)
        epochs, size = defaults.of_features(self.epochs, self.batch_size, n_seeds)
        settled = {"n_seeds": n_seeds, "epochs": epochs, "batch_size": size}
        return {name: value for name, value in settled.items() if getattr(self, name) == AUTO}

    def _seeds(self, spec: Spec) -> int:
        if isinstance(self.n_seeds, str):
            return min(SEEDS, spec.n_samples)
        if self.n_seeds > spec.n_samples:
            raise InputError(
                f"n_seeds={self.n_seeds} are more than the {spec.n_samples} images, each of which "
                "has one at most; take fewer, or leave n_seeds out"
            )
        return self.n_seeds

    def build(self, spec: Spec) -> ExemplarModule:
        """Return the net, its weights drawn from keys of their own."""
        channels, height, width = spec.shape
        shape = (channels, min(self.patch, height), min(self.patch, width))
        with seeded(spec.seed, "encoder"):
            encoder = Encoder(parse(self.architecture), shape, batch_norm=self.batch_norm)
        n_seeds = self._seeds(spec)
        if self.clusters is not None and self.clusters >= n_seeds:
            raise InputError(
                f"clusters={self.clusters} of {n_seeds} seeds; take fewer, a tenth of them say"
            )
        with seeded(spec.seed, "surrogates"):
            net = ExemplarModule(
                encoder, spec.shape, n_seeds, self.clusters or 0, self.dropout, self.enlarge
            )
        return in_channels_last(net)

    def stages(self, module: ExemplarModule, spec: Spec) -> list[Stage]:
        """Return the search for seeds, training, and for the clustered variant both once more."""
        search = SeedSearch(module, spec.n_samples)
        stages = [Stage("seeds", [search], 1, LOOKED_AT, sampler=InOrder())]
        stages.append(self._leg(module, spec, "surrogates"))
        if self.clusters is not None:
            stages += [
                Stage(
                    "clusters",
                    [Clustering(module, self.clusters, key(spec.seed, "clusters") % 2**32)],
                    1,
                    LOOKED_AT,
                    Surrogates(module, Transformations(())),
                    SeedRows(module, shuffled=False),
                ),
                self._leg(module, spec, "clustered"),
            ]
        return stages

    def copies_of(self, X: Any, n_seeds: int, n_copies: int) -> tuple[np.ndarray, np.ndarray]:
        """Return some seeds, and what a net is shown of each in training.

        Parameters
        ----------
        X : array-like
            The images that the learner was fitted to, in their order.
        n_seeds, n_copies : int
            1 or more; of seeds fewer where there are fewer.

        Returns
        -------
        seeds : ndarray (n_seeds, C, h, w), float32
        copies : ndarray (n_seeds, n_copies, C, h, w), float32
        """
        check_is_fitted(self)
        net, images = self.module_, self._rows(X, reset=False)
        assert isinstance(net, ExemplarModule)
        if min(n_seeds, n_copies) < 1:
            raise InputError(f"{n_copies} copies of {n_seeds} seeds; ask for one or more of each")
        if len(images.y) != self.spec_.n_samples:
            raise InputError(
                f"{len(images.y)} images, but the seeds are rows of the {self.spec_.n_samples} "
                "that it was fitted to; give these, in their order"
            )
        n = len(net.seed_rows)
        seeds = torch.linspace(0, n - 1, min(n_seeds, n)).long().to(images.y.device)
        x, many = images.take(net.seed_rows[seeds]).x, seeds.repeat_interleave(n_copies)
        view = self._view(net, self.spec_)
        with seeded(self.spec_.seed, "shown"):
            numbers = view.numbers(many.cpu(), x.shape[1], torch.device("cpu")).to(x.device)
        copies = view.patches(x.repeat_interleave(n_copies, dim=0), many, numbers).cpu().numpy()
        plain = crop(x, net.boxes(seeds), net.patch).cpu().numpy()
        return plain, copies.reshape(len(seeds), n_copies, *plain.shape[1:])

    def _view(self, module: ExemplarModule, spec: Spec, *, clustered: bool = False) -> Surrogates:
        """Return what the net is shown of images."""
        low, high = spec.bounds
        kinds = Transformations.read(self.transformations, bounded=low >= 0 and high <= 1)
        return Surrogates(module, kinds.of(spec.shape[0]), clustered, self.copies, spec.seed)

    def _leg(self, module: ExemplarModule, spec: Spec, layer: str) -> Stage:
        """Return a stage that learns the classes of a layer."""
        update = GradientUpdate(
            module,
            partial(surrogate_loss, layer=layer),
            partial(
                OPTIMIZERS[self.optimizer], lr=self.learning_rate, weight_decay=self.weight_decay
            ),
            [module.encoder, getattr(module, layer)],
            schedule=LinearDecay(self.decay_from),
            name=layer,
        )
        view = self._view(module, spec, clustered=layer != "surrogates")
        epochs, size = defaults.of_features(self.epochs, self.batch_size, self._seeds(spec))
        return Stage(layer, [update], epochs, size, view, SeedRows(module))
