"""Pictures of what whitening does: the spectrum of the images, and images before and after it.

For any module that knows a spectrum, or whose codes are images.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from whatwhere.core import EncodesAsImages, HasSpectrum
from whatwhere.data.images import Images
from whatwhere.data.rows import Rows
from whatwhere.evaluate import panels
from whatwhere.learner import Learner, infer

SHOWN = 24  # images, as many as fill two pairs of rows
SIZE, DPI = (7.5, 3.6), 120  # inches, and pixels of one: 900 x 432
LEAST = 1e-12  # of the largest variance: what is below is not drawn, for a logarithm has no 0
STRAY = 0.5  # percent of the numbers of a code, at either end, that may be darker than black
SHADES = ("#2563a8", "#c2571a")


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``spectrum`` and ``code_images``, each as PNG and JSON, where the module has them.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; the first 24 are shown.
    """
    module = learner.module_
    if isinstance(module, HasSpectrum) and (found := module.spectrum()) is not None:
        before, after = (part.detach().cpu().double().numpy() for part in found)
        if before.any():
            words = _spectrum_caption(before, after)
            title = "Variance along the principal components"
            panels.write(folder, "spectrum", plot(before, after), title, words, 13)
    if isinstance(module, EncodesAsImages):
        x = images.x[:SHOWN]
        codes = list(infer(module, Rows(x), lambda net, x: net.code_images(x)))
        if any(part is None for part in codes):
            return
        shown = shades(torch.cat(codes).cpu().numpy())
        caption = (
            "Above, images as they are; below, their codes, which are images too: gray is 0, "
            "white above it, black below, all on one scale. Look for what is left: where a code "
            "keeps only what a pixel does not share with its neighbors, areas turn gray and edges "
            "stand out. Single bright dots, and codes that look like noise, come from pixels or "
            "directions in which images hardly vary: a larger eps keeps them small."
        )
        picture = panels.pairs(x, shown)
        panels.write(folder, "code_images", picture, "Before and after", caption, 11)


def shades(codes: np.ndarray) -> np.ndarray:
    """Return codes (n, C, H, W) in [0, 1], 0 as 0.5; all alike, but for the few largest."""
    largest = float(np.percentile(np.abs(codes), 100 - STRAY))
    return (0.5 + 0.5 * codes / (largest or 1.0)).clip(0, 1)


def plot(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return a graph of both variances by the number of the component, uint8 (432, 900, 3).

    Parameters
    ----------
    before : ndarray (D,)
        The images' variances, largest first; not all 0.
    after : ndarray (K,)
        Those of the code.
    """
    # The reader's own settings of matplotlib must not change a panel.
    with style.context(["default", {"font.size": 9}]):
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots()
        for name, values, shade in (("images", before, 0), ("code", after, 1)):
            seen = np.flatnonzero(values > LEAST * before.max())
            dots = "o" if len(values) <= 100 else None
            color = SHADES[shade]
            axes.plot(seen + 1, values[seen], marker=dots, ms=3, color=color, label=name)
        axes.set_yscale("log")
        axes.set_xlim(0.5, len(before) + 0.5)
        axes.set_xlabel("principal component")
        axes.set_ylabel("variance")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _spectrum_caption(before: np.ndarray, after: np.ndarray) -> str:
    share = before.cumsum() / before.sum()
    half, most = (int(np.searchsorted(share, part)) + 1 for part in (0.5, 0.95))
    dead = int((before <= LEAST * before.max()).sum())
    words = (
        f"How much the training images vary along each of their {len(before):,} principal "
        "components, the widest first; the scale is logarithmic. "
        f"{_first(half)} half of all variance, {_first(most, lower=True)} 95 % of it"
    )
    words += f"; along {dead:,} there is none. " if dead else ". "
    kept = len(after)
    if kept < len(before):
        words += f"The code keeps {kept:,} of them, with {100 * share[kept - 1]:.1f} % of it. "
    ones = int((after > 0.5).sum())
    return words + (
        "The other line is the variance of the code there: whitening makes it 1, and leaves it "
        "small where eps is larger than what the images have, which may be little but noise. "
        f"Along {ones:,} it is more than a half."
    )


def _first(n: int, lower: bool = False) -> str:
    words = "the first holds" if n == 1 else f"the first {n:,} hold"
    return words if lower else words[0].upper() + words[1:]
