"""A picture of how active hidden units are, for any learner whose codes lie in [0, 1].

Units that are never on, or always, say nothing of an image; units that are on together say the same
(Hinton 2010, section 16; Yosinski & Lipson, Visually debugging restricted Boltzmann machine
training with a 3D example, 2012).
"""

from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import panels
from whatwhere.evaluate.embedding_map import draw
from whatwhere.learner import Learner

MOST, SHOWN = 1000, 100  # images that are averaged over, and that have a row of their own
MOST_NUMBERS = 20_000_000  # in their codes: long ones of many images would fill the memory
FEW = 8
IDLE = 0.01  # a mean activity below it is never on, to a reader; above 1 - IDLE always
SIZE, DPI = (7.5, 4.8), 120  # inches, and pixels of one: 900 x 576
SHADE = "#2563a8"


def write(folder: Path, learner: Learner, images: Images) -> None:
    """Write ``activity.png`` and ``.json`` for a learner whose codes lie in [0, 1].

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    images : Images
        At least one; of more than 1,000, as many are drawn.
    """
    few = learner.transform(images.x[:FEW])  # which spare most learners the rest
    length = few.shape[1]
    if length < 2 or not _active(few):
        return
    most = min(MOST, max(SHOWN, MOST_NUMBERS // length))
    rows = draw(len(images), most, images.shape, "activity")
    codes = learner.transform(images.x[rows])
    if not _active(codes):
        return
    labels = images.y[rows]
    shown = np.arange(len(rows))[:SHOWN]
    ordered = shown[np.argsort(labels[shown], kind="stable")]
    picture = plot(codes.mean(axis=0), codes[ordered])
    classes = len(np.unique(labels[shown])) > 1 and bool((labels[shown] != UNLABELED).all())
    caption = _caption(codes, len(ordered), by_class=classes)
    panels.write(folder, "activity", picture, "Activity of hidden units", caption, 21)


def _active(codes: np.ndarray) -> bool:
    """Whether all codes are in [0, 1]; what is no number is not."""
    return bool(codes.min() >= 0 and codes.max() <= 1)


def plot(means: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return a graph of the units' mean activity, and below it the units at work on images.

    Parameters
    ----------
    means : ndarray (K,), in [0, 1]
    codes : ndarray (n, K), in [0, 1]

    Returns
    -------
    ndarray (576, 900, 3), uint8
        Units from the least active on in both.
    """
    order = np.argsort(means, kind="stable")
    # The reader's own settings of matplotlib must not change a panel.
    with style.context(["default", {"font.size": 9}]):
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, height_ratios=(2, 3), sharex=True)
        above.plot(np.arange(1, len(means) + 1), means[order], color=SHADE)
        above.set_ylim(-0.02, 1.02)
        above.set_ylabel("mean activity")
        above.grid(color="#dddddd", linewidth=0.6)
        above.spines[["top", "right"]].set_visible(False)
        below.imshow(
            codes[:, order],
            cmap="gray",
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="none",
            extent=(0.5, len(means) + 0.5, len(codes) + 0.5, 0.5),
        )
        below.set_xlabel("hidden unit, the least active first")
        below.set_ylabel("image")
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _caption(codes: np.ndarray, shown: int, *, by_class: bool) -> str:
    means = codes.mean(axis=0)
    never, always = int((means < IDLE).sum()), int((means > 1 - IDLE).sum())
    sure = float(((codes < 0.1) | (codes > 0.9)).mean())
    return (
        f"Above, how active each of {len(means):,} hidden units is on average over "
        f"{len(codes):,} images; the mean of all is {means.mean():.2f}. "
        f"{never:,} are as good as never on, {always:,} as good as always: these say nothing of "
        f"an image. Below, the same units at work on {shown:,} images, a row each"
        f"{', sorted by class' if by_class else ''}: white is on, black is off. "
        f"{sure:.0%} of all activities are below 0.1 or above 0.9. Rows that are all alike, or "
        "columns of one color, are units that tell images apart no more."
    )
