"""Drawing images by Gibbs sampling, with any learner whose module walks.

Chains begin at noise or at images, walk, and are looked at: what is shown is the mean of each pixel
given the rest of the state, which is less grainy than the state itself. Chains that begin at
noise and go nowhere tell of a machine that mixes slowly, and chains that begin at images and stay
near them of one that hardly leaves what it has seen.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whatwhere import runs
from whatwhere.core import InputError, Walks, device_of, key, seeded
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import panels, strips, tables
from whatwhere.learner import Learner

STEPS = 1000
CHAINS = 8  # on a filmstrip
BESIDE = "-filmstrip.png"  # the filmstrip's name, after that of the samples
NARROWEST = 48  # pixels of a column, for the number above it

PANEL_SAMPLES, PANEL_CHAINS = 32, 5
# Steps times parameters: a machine of 1,000,000 walks 1,000 steps, a larger one fewer, at least 10.
EFFORT, FEWEST_STEPS = 10**9, 10


class Told(NamedTuple):
    """What was drawn.

    Attributes
    ----------
    n : int
        Samples.
    shown : int
        Of these, how many chains are on the filmstrip.
    filmstrip : Path
    """

    n: int
    shown: int
    filmstrip: Path


def check(learner: Learner) -> None:
    """Refuse a learner that draws no images.

    Raises
    ------
    InputError
        Naming models that do.
    """
    if not isinstance(learner.module_, Walks):
        name = runs.snake_case(type(learner).__name__)
        raise InputError(
            f"a run of {name} does not draw new images; fit one with --model rbm, dbn or dbm"
        )


def tensor(learner: Learner, images: np.ndarray) -> Tensor:
    """Return images as the learner's module takes them, float32 (n, C, H, W) on its device.

    Raises
    ------
    InputError
        If they are not of its size.
    """
    if images.shape[1:] != learner.image_shape_:
        raise InputError(
            f"images of shape {images.shape[1:]}, but this {type(learner).__name__} was fitted to "
            f"{learner.image_shape_} (channels, height, width); bring them to that size first"
        )
    device = device_of(learner.module_)
    rows = Rows(images, device=device)
    return rows.take(torch.arange(len(rows), device=device)).x


def noise(learner: Learner, n: int, seed: int = 0) -> np.ndarray:
    """Return images of noise, float32 (n, C, H, W): each pixel a number of its own in [0, 1).

    Where pixels are binary, a chain that begins there begins with each of them 0 or 1, as likely
    the one as the other.
    """
    with seeded(seed, "noise"):
        return torch.rand(n, *learner.image_shape_).numpy()


def walk(learner: Learner, start: np.ndarray, moments: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return what chains look like on their way.

    Parameters
    ----------
    learner : Learner
    start : ndarray (n, C, H, W)
        Images at which they begin, uint8 or floats in [0, 1].
    moments : sequence of int
        Steps after which they are looked at, rising. 0 is the image itself.
    seed : int
        The same seed gives the same chains, on devices of one kind.

    Returns
    -------
    ndarray (len(moments), n, C, H, W), float32
        Means of pixels given the rest of the state, in [0, 1] but for overshoot.

    Raises
    ------
    InputError
        If the learner does not draw images, or these are not of its size.
    """
    check(learner)
    module = learner.module_.eval()
    assert isinstance(module, Walks)
    x = tensor(learner, start)
    seen, done = [], 0
    with torch.no_grad(), seeded(seed, "chains", device=x.device):
        state = module.begin(x)
        for moment in moments:
            state = module.walk(state, moment - done)
            seen.append(module.look(state) if moment else x)
            done = moment
    return torch.stack(seen).cpu().numpy()


def samples(
    learner: Learner, n: int, steps: int = STEPS, seed: int = 0, start: np.ndarray | None = None
) -> np.ndarray:
    """Draw images, a chain each.

    Parameters
    ----------
    learner : Learner
    n : int
    steps : int
        Of Gibbs sampling.
    seed : int
    start : ndarray (n, C, H, W), optional
        Images at which the chains begin. Default: noise.

    Returns
    -------
    ndarray (n, C, H, W), float32
        As for `walk`.
    """
    begun = noise(learner, n, seed) if start is None else start
    return walk(learner, begun, [steps], seed)[0]


def filmstrip(chains: dict[str, np.ndarray], moments: Sequence[int]) -> np.ndarray:
    """Return a picture of chains, each a row, and below each other how far they have walked.

    Parameters
    ----------
    chains : dict of str to ndarray (len(moments), n, C, H, W)
        As `walk` returns them, by the words beside the first of them.
    moments : sequence of int

    Returns
    -------
    ndarray (height, width, 3), uint8
    """
    columns, rows = len(moments), []
    for word, seen in chains.items():
        for k in range(seen.shape[1]):
            cells = panels.enlarge(
                panels.color(seen[:, k]), columns, panels.WIDTH - strips.MARGIN, panels.LARGEST // 2
            )
            missing = max(0, NARROWEST - cells.shape[2])
            sides = (missing // 2, missing - missing // 2)
            cells = np.pad(cells, ((0, 0), (0, 0), sides, (0, 0)), constant_values=panels.WHITE)
            if not rows:
                words = [f"{moment:,}" if moment else "begin" for moment in moments]
                rows.append(strips.head(words, cells.shape[2]))
                panels.write_text(rows[0], "steps", 0, 0)
            rows.append(strips.row([word] if k == 0 else [], cells))
    return np.concatenate(rows)


def until(steps: int) -> list[int]:
    """Return the moments of a filmstrip of so many steps: 0, 1, 10, 100, ..., and the last."""
    found = [0]
    while found[-1] < steps:
        found.append(min(max(1, 10 * found[-1]), steps))
    return found


def beside(out: Path) -> Path:
    """Return where the filmstrip of the samples in `out` lies."""
    return out.with_name(f"{out.stem}{BESIDE}")


def draw(
    learner: Learner,
    out: Path,
    n: int = 64,
    steps: int = STEPS,
    seed: int = 0,
    images: Images | None = None,
) -> Told:
    """Draw n images as a grid, and beside it a filmstrip of the first of their chains.

    Parameters
    ----------
    learner : Learner
    out : Path
        A PNG, written whole or not at all.
    n : int
        Fewer where there are fewer `images`.
    steps : int
        Of Gibbs sampling.
    seed : int
        Of noise, chains and the choice of images.
    images : Images, optional
        Chains begin at images drawn from these. Default: at noise.

    Returns
    -------
    Told

    Raises
    ------
    InputError
        If the learner does not draw images, those given are not of its size, or a file cannot be
        written.
    """
    film = beside(out)
    for path in (out, film):
        tables.check(path, tables.PICTURES)
    check(learner)
    if images is None:
        word, start = "from noise", noise(learner, n, seed)
    else:
        rng = np.random.default_rng(key("samples", seed))
        word, start = "from data", images.x[np.sort(rng.permutation(len(images))[:n])]
    moments = until(steps)
    seen = walk(learner, start, moments, seed)
    panels.save(out, grid(seen[-1]))
    panels.save(film, filmstrip({word: seen[:, :CHAINS]}, moments))
    return Told(len(start), min(CHAINS, len(start)), film)


def grid(images: np.ndarray) -> np.ndarray:
    """Return images (n, C, H, W) in about as many rows as columns; see `panels.grid`."""
    return panels.grid(images, ceil(sqrt(len(images))))


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``samples`` and ``chains``, each as PNG and JSON, for a learner that draws images.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; chains of the filmstrip begin at some of them.
    """
    module = learner.module_
    if not isinstance(module, Walks):
        return
    size = sum(p.numel() for p in module.parameters())
    steps = min(STEPS, max(FEWEST_STEPS, EFFORT // size))
    moments = until(steps)
    rows = np.random.default_rng(key("chains", 0)).permutation(len(images))[:PANEL_CHAINS]
    from_noise = walk(learner, noise(learner, PANEL_SAMPLES), moments)
    from_data = walk(learner, images.x[rows], moments)
    panels.write(
        folder,
        "samples",
        panels.grid(from_noise[-1], 8),
        "Samples",
        f"Images that the model drew: {PANEL_SAMPLES} chains, begun at noise, after {steps:,} "
        "steps of Gibbs sampling. Shown is the mean of each pixel given the hidden units. Look for "
        "variety as well as for likeness: where many are alike, the chains found one kind of image "
        "and stayed.",
        14,
    )
    panels.write(
        folder,
        "chains",
        filmstrip({"from data": from_data, "from noise": from_noise[:, :PANEL_CHAINS]}, moments),
        "Chains on their way",
        "Each row is a chain; above a column, the steps of Gibbs sampling so far. A model that "
        "mixes well leaves the image that it began at, becomes another one that is as good, and "
        "comes from noise to the like; where a row hardly changes, the chain is stuck.",
        15,
    )
