"""What flows through the house, and what a module may be able to do with it."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # importing torch takes a second, and the command line's --help needs none of it
    from collections.abc import Iterable, Iterator

    import torch
    from torch import Tensor
    from torch.nn import Module

UNLABELED = -1
"""The label of an image whose class is not known; scikit-learn's convention."""


def labeled(labels: "Iterable[Any]") -> "list[bool]":
    """Return which labels are known; of names, which are text, "-1" is `UNLABELED` too."""
    return [label not in (UNLABELED, str(UNLABELED)) for label in labels]


class InputError(ValueError):
    """What the user can mend: one line that says what was wrong, where, and the way out."""


def unknown(what: str, name: str, known: "Iterable[str]") -> InputError:
    """Return the error for a name that is not known: with the nearest known one, or with all."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return InputError(f"{what} {name!r}; {hint}")


class Batch(NamedTuple):
    """B rows of a data set.

    Attributes
    ----------
    x : Tensor (B, C, H, W)
        float32; images in [0, 1].
    y : Tensor (B,)
        int64; the class, 0 to n_classes - 1, or `UNLABELED`.
    rows : Tensor (B,)
        int64; which rows of the data set these are.
    """

    x: "Tensor"
    y: "Tensor"
    rows: "Tensor"


Terms = Mapping[str, "Tensor"]
"""Weighted scalars by name; the loss is their sum, and only that."""

Objective = Callable[[Any, Batch], Terms]
"""(module, batch) -> terms: a function, or an `nn.Module` if it has state (persistent chains).

A module names in `sharded` those of its buffers whose rows the processes share out; it belongs to
one stage.
"""


class Share(NamedTuple):
    """What one of several processes holds of a joint batch.

    Attributes
    ----------
    part : float
        Its rows over the rows of the joint batch.
    copies : int
        How many processes hold these same rows: 1, or all where a batch is too small to be shared.
    n : int
        How many processes there are.
    add : callable (Tensor) -> Tensor
        The sum over all processes, without gradient.
    """

    part: float
    copies: int
    n: int
    add: "Callable[[Tensor], Tensor]"

    @property
    def factor(self) -> float:
        """Of the terms: the mean over the processes is then the term of the joint batch."""
        return self.part * self.n / self.copies


_shares: list[Share] = []


@contextmanager
def shared(share: Share) -> "Iterator[None]":
    """Say inside the block that the batch is a share; the engine does, where there are several."""
    _shares.append(share)
    try:
        yield
    finally:
        _shares.pop()


def sharing() -> Share | None:
    """Return this process's share of the joint batch, or None where it has all of it."""
    return _shares[-1] if _shares else None


def joint_sum(x: "Tensor") -> "Tensor":
    """Return the sum over all processes, each row of the joint batch counted once.

    Parameters
    ----------
    x : Tensor
        A sum over the rows that this process holds; without gradient.
    """
    share = sharing()
    return x if share is None else share.add(x / share.copies)


def joint_count(n: "Tensor") -> "Tensor":
    """Return what a sum over n rows is divided by to be a mean over such rows of the joint batch.

    With one process that is n, or 1 for no rows. With several, labeled rows (say) are not evenly
    spread, and the mean of the processes' means is not the mean.

    Parameters
    ----------
    n : Tensor ()
        Rows of that kind which this process holds.
    """
    share = sharing()
    if share is None:
        return n.clamp(min=1)
    return joint_sum(n).clamp(min=1) * share.part


def key(*counters: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on the counters, and on nothing else.

    Streams of random numbers remember who drew from them; counters do not. Seeding from
    (seed, stage, epoch, step, update) makes a resumed run, another number of processes and a
    monitor that also draws numbers agree by construction.
    """
    digest = blake2b(repr(counters).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def device_of(module: "Module") -> "torch.device":
    """Return the device of a module, all of which is on one."""
    return next(chain(module.parameters(), module.buffers())).device


def reseeder(device: "torch.device") -> "Callable[[int], object]":
    """Return what seeds the device's generator, in a hundredth of `torch.manual_seed`'s time."""
    import torch

    if device.type == "cpu":
        return torch.default_generator.manual_seed
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0].manual_seed
    return torch.get_device_module(device).manual_seed


@contextmanager
def streams_kept(device: "torch.device") -> "Iterator[None]":
    """Leave the caller's random streams, of the CPU and of the device, as they were."""
    import torch

    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=others, device_type=device.type if others else "cuda"):
        yield


@contextmanager
def seeded(*counters: int | str, device: "torch.device | None" = None) -> "Iterator[None]":
    """Draw from `key(*counters)` inside the block; leave the caller's random streams as they were.

    Parameters
    ----------
    *counters : int or str
    device : torch.device, optional
        Where there are draws in the block beside those on the CPU.
    """
    import torch

    cpu = torch.device("cpu")
    with streams_kept(device or cpu):
        for one in {cpu, device or cpu}:
            reseeder(one)(key(*counters))
        yield


@runtime_checkable
class Encodes(Protocol):
    """Gives features, (B, K)."""

    def encode(self, x: "Tensor") -> "Tensor":
        """Return the features of images x (B, C, H, W)."""
        ...


@runtime_checkable
class HasLevels(Protocol):
    """Gives features level by level; `Encodes` gives the top ones, flat, or some of several."""

    def levels(self, x: "Tensor") -> "Mapping[str, Tensor]":
        """Return the features of images x (B, C, H, W), by the names of the levels, lowest first.

        Maps (B, C, h, w), or vectors (B, K).
        """
        ...


@runtime_checkable
class HasWhere(HasLevels, Protocol):
    """Gives features that also say where in its window each maximum was."""

    def levels_with_where(self, x: "Tensor") -> "Mapping[str, Tensor]":
        """Return `levels`, each map of a pooled level spread over the places in a window.

        C maps of windows p x p are C p² maps of the same height and width: number c p² + o holds
        *what* of map c where the maximum came from place o, and else 0. An inactive window is 0 in
        all of them.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """Gives class scores before the softmax, (B, n_classes)."""

    def logits(self, x: "Tensor") -> "Tensor":
        """Return the scores."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Gives the images rebuilt from their own code, (B, C, H, W)."""

    def reconstruct(self, x: "Tensor") -> "Tensor":
        """Return the rebuilt images."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Gives the images that codes stand for, (B, C, H, W)."""

    def decode(self, code: "Tensor") -> "Tensor":
        """Return the images of codes (B, K), which are features as `Encodes` gives them."""
        ...


@runtime_checkable
class Scores(Protocol):
    """Says how typical images are of those that were learned from, (B,)."""

    def score(self, x: "Tensor") -> "Tensor":
        """Return a number for each image: the more typical, the larger; nats up to a constant."""
        ...


@runtime_checkable
class HasFilters(Protocol):
    """Has filters that read like small images, (K, C, h, w)."""

    def filters(self) -> "Tensor | None":
        """Return the filters, or None where no layer looks at the image."""
        ...


@runtime_checkable
class HasSpectrum(Protocol):
    """Knows how the variance of images spreads over their principal components."""

    def spectrum(self) -> "tuple[Tensor, Tensor] | None":
        """Return the images' variances (D,), largest first, and those of the code, (K,).

        Both along the same components, of which a code has the first K; None where there are none.
        """
        ...


@runtime_checkable
class EncodesAsImages(Protocol):
    """Gives codes that read like the images themselves, (B, C, H, W); 0 is their middle."""

    def code_images(self, x: "Tensor") -> "Tensor | None":
        """Return the codes of images, a number a pixel, or None where codes are no images."""
        ...


State = Any
"""Of a chain: what a module needs to go on with it, which is its own business."""


@runtime_checkable
class Walks(Protocol):
    """Draws images by Gibbs sampling: chains that are begun, walk, and are looked at."""

    def begin(self, x: "Tensor") -> State:
        """Return the state of chains begun at images x (B, C, H, W); noise does too."""
        ...

    def walk(self, state: State, steps: int, known: "Known | None" = None) -> State:
        """Return the state some steps later.

        Parameters
        ----------
        state : State
        steps : int
        known : Known, optional
            Pixels that stay as they are.
        """
        ...

    def look(self, state: State) -> "Tensor":
        """Return the means of the pixels given the rest of the state, (B, C, H, W)."""
        ...


class Known(NamedTuple):
    """Pixels that are given.

    Attributes
    ----------
    x : Tensor (B, C, H, W)
        Images; what is not known of them is not looked at.
    mask : Tensor (H, W)
        True where they are known.
    """

    x: "Tensor"
    mask: "Tensor"


class LogPartition(NamedTuple):
    """The logarithm of a partition function, and how it was found.

    Attributes
    ----------
    value, low, high : float
        The estimate, and ±3 standard errors about it; all the same where it is exact.
    how : str
    reverse : float or None
        An estimate that errs to the other side: the truth is between the two, in expectation.
    """

    value: float
    low: float
    high: float
    how: str
    reverse: float | None = None


@runtime_checkable
class HasFreeEnergy(Protocol):
    """Knows the probability of images but for a constant."""

    def free_energy(self, x: "Tensor") -> "Tensor":
        """Return -log p(x) - log Z, (B,) in nats, or an upper bound of it."""
        ...


@runtime_checkable
class HasLikelihood(HasFreeEnergy, Protocol):
    """Knows the probability of images.

    Attributes
    ----------
    is_bound : bool
        Whether what is told is a lower bound.
    """

    is_bound: bool

    def log_partition(self, *, careful: bool = True) -> LogPartition:
        """Return log Z: exactly where that can be, else by sampling.

        Parameters
        ----------
        careful : bool
            Whether to take the minutes that a number to be published takes.
        """
        ...

    def likely(self, x: "Tensor") -> "Tensor":
        """Return images as the module models them: of gray ones a binary draw, (B, C, H, W)."""
        ...
