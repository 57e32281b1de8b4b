"""Taking noise out of images with a learner that reconstructs: what it rebuilds, as files.

A learner that was trained to undo noise rebuilds the clean image of a noisy one; any other rebuilds
what it is shown, noise and all, as far as its code can hold it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from whatwhere import runs
from whatwhere.core import InputError, seeded
from whatwhere.data.corruption import Corruption
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import judge, panels, strips
from whatwhere.learner import INFERENCE_BATCH, Learner, infer

OVERVIEW = "before-after.png"
PART_PIXELS = 2_000_000  # denoised at once: the maps of more would fill the memory
PURPOSE = "denoising"


class Told(NamedTuple):
    """What was done.

    Attributes
    ----------
    n : int
        Images written.
    shown : int
        Of these, how many are in the overview.
    noisy, denoised : float, optional
        Mean squared error a pixel to the images as they came, in [0, 1]², where noise was added:
        of the noisy images and of what was written, both cut off at 0 and 1, as pictures are.
    """

    n: int
    shown: int
    noisy: float | None = None
    denoised: float | None = None


def check(out: Path) -> None:
    """Refuse a folder that cannot be filled, before anything is computed.

    Raises
    ------
    InputError
        If there is something in it, it is a file, or what it is to lie in is not there.
    """
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty; choose another folder, or move it away first")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; choose another name for the folder")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it first")


def files(images: Images) -> list[str]:
    """Return the file that each image becomes, relative and with forward slashes.

    It is the image's own name with the ending ``.png``, or else ``row-00012.png``. Where two names
    differ in their ending alone, the one that is no PNG keeps its own before the new one; where
    that is taken too, a number follows. Upper and lower case are not told apart, as some file
    systems do not.
    """
    if images.names is None:
        digits = max(5, len(str(len(images) - 1)))
        return [f"row-{row:0{digits}}.png" for row in range(len(images))]
    taken = {OVERVIEW} | {
        str(folder).casefold() for name in images.names for folder in PurePosixPath(name).parents
    }
    found = [""] * len(images)
    own = [PurePosixPath(name) for name in images.names]
    for row in sorted(range(len(own)), key=lambda row: own[row].suffix.lower() != ".png"):
        for name in _candidates(own[row]):
            if name.casefold() not in taken:
                taken.add(name.casefold())
                found[row] = name
                break
    return found


def write(
    learner: Learner,
    images: Images,
    out: Path,
    noise: Corruption | None = None,
    *,
    n: int = panels.COLUMNS,
    progress: Callable[[int], object] = lambda done: None,
) -> Told:
    """Write each image as the learner rebuilds it, and an overview of the first of them.

    A file is written whole or not at all; what was written before an interruption stays. Only a
    part of the images is in memory twice at any time.

    Parameters
    ----------
    learner : Learner
    images : Images
        At least one.
    out : Path
        A folder that is empty or not there; `files` says what is written into it, 8 bits a value,
        images of 1 or 3 channels as they are, of any other number their mean. Beside them
        ``before-after.png``: each image, where there is `noise` the noisy one, and what was
        written.
    noise : Corruption, optional
        Added first, the same at every call.
    n : int
        Images in the overview; fewer where there are fewer.
    progress : callable (int)
        Told how many images are done, again and again.

    Returns
    -------
    Told

    Raises
    ------
    InputError
        If the learner does not reconstruct, the images are not of its size, or the folder cannot be
        filled; nothing is written then.
    """
    check(out)
    judge.rebuild(learner, images.x[:1], PURPOSE)  # says what does not fit
    runs.create(out)
    names = files(images)
    kept: list[tuple[np.ndarray, ...]] = []
    errors = np.zeros(2)
    done = shown = 0
    for part in _parts(learner, images.x, noise):
        clean, noisy, rebuilt = part
        for k, picture in enumerate(panels.color(rebuilt)):
            path = out / names[done + k]
            path.parent.mkdir(parents=True, exist_ok=True)
            panels.save(path, picture)
        if shown < n:
            kept.append(tuple(images[: n - shown] for images in part))
            shown += len(kept[-1][0])
        errors += [_square(noisy - clean), _square(rebuilt - clean)]
        done += len(clean)
        progress(done)
    rows = ("as it is", "with noise", "denoised")
    kinds = {word: np.concatenate(x) for word, x in zip(rows, zip(*kept, strict=True), strict=True)}
    if noise is None:
        del kinds["with noise"]
    panels.save(out / OVERVIEW, strips.strips(kinds))
    noisy_mse, denoised_mse = (errors / images.x.size).tolist()
    return Told(done, shown) if noise is None else Told(done, shown, noisy_mse, denoised_mse)


def panel(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``denoising.png`` and ``.json``: images clean, with noise, and with it taken out.

    Nothing is written for a learner that is trained to undo none.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        The first of them are shown.
    """
    if learner.undoes is None:
        return
    first = images.x[: panels.COLUMNS]
    clean, noisy, rebuilt = next(_parts(learner, first, learner.undoes))
    kinds = {"as it is": clean, "with noise": noisy, "denoised": rebuilt}
    before, after = _square(noisy - clean) / clean.size, _square(rebuilt - clean) / clean.size
    caption = (
        f"The noise of its training ({learner.undoes}), put on images that it has to rebuild clean."
        f" The mean squared error a pixel, on a scale from 0 to 1, goes from {before:.2g} to "
        f"{after:.2g}. What is added or lost in the lowest row is a guess: the noise had hidden it."
    )
    panels.write(folder, "denoising", strips.strips(kinds), "Noise taken out", caption, 12)


def _parts(
    learner: Learner, x: np.ndarray, noise: Corruption | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield images as they are, as the learner sees them, and rebuilt: float32, in [0, 1]."""
    at_once = max(1, min(INFERENCE_BATCH, PART_PIXELS // (x.shape[2] * x.shape[3])))
    for number, first in enumerate(range(0, len(x), at_once)):
        clean = panels.unit(x[first : first + at_once]).astype(np.float32)
        seen = torch.from_numpy(clean)
        if noise is not None:
            with seeded("denoise", number):
                seen = noise(seen)
        found = infer(learner.module_, Rows(seen), lambda net, part: net.reconstruct(part))
        rebuilt = torch.cat([part.cpu() for part in found]).numpy()
        yield clean, seen.numpy().clip(0, 1), np.nan_to_num(rebuilt).clip(0, 1)


def _candidates(name: PurePosixPath) -> Iterator[str]:
    yield str(name.with_suffix(".png"))
    yield f"{name}.png"
    number = 2
    while True:
        yield f"{name}-{number}.png"
        number += 1


def _square(difference: np.ndarray) -> float:
    return float(np.square(difference, dtype=np.float64).sum())
