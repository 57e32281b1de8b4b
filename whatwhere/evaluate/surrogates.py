"""A picture of surrogate classes: seeds, and what a learner is shown of each."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from whatwhere.data.images import Images
from whatwhere.evaluate import panels, strips
from whatwhere.learner import Learner

SEEDS, COPIES = 8, 9


@runtime_checkable
class HasCopies(Protocol):
    """Learns from transformed copies of seeds."""

    def copies_of(self, X: Any, n_seeds: int, n_copies: int) -> tuple[np.ndarray, np.ndarray]:
        """Return seeds (n, C, h, w) of the training images, and copies (n, m, C, h, w)."""
        ...


def write(folder: Path, learner: Learner, train: Images) -> None:
    """Write ``surrogates.png`` and ``.json`` for a learner that learns from copies.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it must be there.
    learner : Learner
    train : Images
        What it was fitted to.
    """
    if not isinstance(learner, HasCopies):
        return
    seeds, copies = learner.copies_of(train.x, SEEDS, COPIES)
    cells = np.concatenate([seeds[:, None], copies], axis=1)
    room = panels.WIDTH - strips.MARGIN
    rows = [
        strips.row(
            [f"class {number}"],
            panels.enlarge(panels.color(panels.unit(row)), 1 + COPIES, room, panels.LARGEST // 2),
        )
        for number, row in enumerate(cells, 1)
    ]
    panels.write(
        folder,
        "surrogates",
        np.concatenate(rows),
        "Surrogate classes",
        f"{len(seeds)} of the seeds, one a row: on the left as it is in its image, then {COPIES} "
        "copies as training makes them. The net learns to say of each copy which seed it comes "
        "from, so what differs within a row is what its features are to forget, and what differs "
        "between rows is what they have to keep. Rows that look alike ask for the impossible: take "
        "fewer seeds, or clusters.",
        11,
    )
