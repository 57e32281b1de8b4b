"""Which images to label next: those that a learner is least sure of, no two of them much alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from whatwhere import runs
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images
from whatwhere.evaluate import panels
from whatwhere.evaluate.embedding_map import draw, embed
from whatwhere.learner import ImageClassifier, Learner

SHOWN = 24
MOST = 20_000  # images looked at
POOL = 10  # so many times the choice are grouped, those that the classifier is least sure of


class Choice(NamedTuple):
    """An image that is worth a label.

    Attributes
    ----------
    row : int
        In the images that it was chosen from.
    guess, second : str or None
        The two likeliest classes; None where the learner has no classes.
    probability : float or None
        Of the guess, in [0, 1].
    """

    row: int
    guess: str | None = None
    probability: float | None = None
    second: str | None = None


def choose(learner: Learner, images: Images, n: int = SHOWN) -> list[Choice]:
    """Choose unlabeled images whose labels a person should give next; the same at every call.

    With classes, of the 10 n images whose two likeliest classes are nearest to each other in
    probability, n groups are made by their features, and of each group the least sure is taken: the
    least sure first. Without classes, all images are grouped, and the one nearest the middle of
    each group is taken: that of the largest group first.

    Parameters
    ----------
    learner : Learner
    images : Images
        Of the training part. At most 20,000 unlabeled ones are looked at, a draw.
    n : int
        Images wanted. Fewer are chosen where fewer are unlabeled, or where some are the same.
    """
    unlabeled = np.flatnonzero(images.y == UNLABELED)
    if len(unlabeled) == 0:
        return []
    rows = unlabeled[draw(len(unlabeled), MOST, images.shape, "worth labeling")]
    if not isinstance(learner, ImageClassifier) or not len(learner.classes_):
        return [Choice(int(rows[k])) for k in _typical(embed(learner, images.x[rows]), n)]
    probability = learner.predict_proba(images.x[rows])
    best = np.argsort(-probability, axis=1, kind="stable")[:, :2]
    two = np.take_along_axis(probability, best, axis=1)
    doubtful = np.argsort(two[:, 0] - two[:, 1], kind="stable")[: POOL * n]
    groups, _ = _groups(embed(learner, images.x[rows[doubtful]]), n)
    # Sorted by doubt as they are, the first of a group is the least sure of it.
    first = np.sort(np.unique(groups, return_index=True)[1])
    names = learner.classes_
    return [
        Choice(int(rows[k]), str(names[best[k, 0]]), float(two[k, 0]), str(names[best[k, 1]]))
        for k in doubtful[first]
    ]


def write(run: Path, learner: Learner, images: Images, n: int = SHOWN) -> list[Choice]:
    """Write the panel ``worth_labelling``, and ``label-next.csv`` where images come from files.

    The file has ``file,label`` with labels to be filled in. Without an unlabeled image nothing is
    written.

    Parameters
    ----------
    run : Path
        The run folder; its ``panels`` must be there.
    learner : Learner
    images : Images
        Of the training part, their labels `UNLABELED` where they are not shown.
    n : int
        As for `choose`.

    Returns
    -------
    list of Choice
        What was chosen.
    """
    chosen = choose(learner, images, n)
    if not chosen:
        return chosen
    told: list[dict[str, Any]] = [
        panels.place(images.names, choice.row)
        | {"guess": choice.guess, "probability": choice.probability, "second": choice.second}
        for choice in chosen
    ]
    picture = panels.labeled(
        images.x[[choice.row for choice in chosen]],
        [_words(images, choice) for choice in chosen],
        between=" or ",
    )
    caption = _caption(chosen, images)
    panels.write(
        run / runs.PANELS,
        "worth_labelling",
        picture,
        "Images worth labeling",
        caption,
        35,
        kind="worth_labelling",
        rows=told,
    )
    if images.names is not None:
        rows = [(images.names[choice.row], "") for choice in chosen]
        runs.write_rows(run / runs.LABEL_NEXT, [("file", "label"), *rows])
    return chosen


def _groups(embedded: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each row, and its squared distance to the middle of its group.

    There are n groups, or fewer where fewer rows differ.
    """
    scale = np.abs(embedded).max(initial=0.0) or 1.0
    # Rows that differ by rounding only are one: k-means would warn of groups that are empty.
    distinct, which, count = np.unique(
        np.round(embedded / scale, 6), axis=0, return_inverse=True, return_counts=True
    )
    which = which.ravel()
    if len(distinct) <= n:
        return which, np.zeros(len(embedded))
    starts: Any = 3  # the default is a text, which is all that a type checker sees
    means = KMeans(n, n_init=starts, random_state=0).fit(distinct, sample_weight=count)
    assert means.labels_ is not None
    distance = np.square(distinct - means.cluster_centers_[means.labels_]).sum(axis=1)
    return means.labels_[which], distance[which]


def _typical(embedded: np.ndarray, n: int) -> list[int]:
    """Return the row nearest the middle of each of n groups, the largest group first."""
    groups, distance = _groups(embedded, n)
    order = np.lexsort((distance, groups))
    names, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    assert len(names) <= n or n < 1, (len(names), n)
    return [int(order[first[k]]) for k in np.argsort(-sizes, kind="stable")]


def _words(images: Images, choice: Choice) -> tuple[list[str], str]:
    if choice.guess is not None and choice.second is not None and choice.probability is not None:
        return [choice.guess, choice.second], panels.percent(choice.probability)
    if images.names is None:
        return [f"row {choice.row}"], ""
    return [images.names[choice.row].rsplit("/", 1)[-1]], ""


def _caption(chosen: Sequence[Choice], images: Images) -> str:
    unlabeled = len(images) - images.n_labeled
    count = f"{len(chosen):,} of {unlabeled:,} images without a label"
    if len(chosen) == unlabeled:
        count = f"All {unlabeled:,} images without a label" if unlabeled > 1 else "The only image"
    if chosen[0].guess is None:
        text = (
            f"{count}: each is the most typical of a group of images that are alike for the model, "
            "the largest group first. A label for each says something about every group."
        )
    else:
        text = (
            f"{count}, chosen among those that the classifier is least sure of so that no two are "
            "much alike, the least sure first. Below each: its two likeliest classes, and how "
            "probable the classifier holds the first."
        )
    if images.names is not None:
        text += f" Fill in their labels in {runs.LABEL_NEXT}."
    return text
