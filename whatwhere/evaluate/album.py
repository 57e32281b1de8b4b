"""The pictures of a run: whatever a learner can show, by what its module is able to do."""

from pathlib import Path

import numpy as np

from whatwhere import runs
from whatwhere.core import UNLABELED, HasFilters, Reconstructs
from whatwhere.data.images import Images
from whatwhere.evaluate import (
    activity,
    denoising,
    embedding_map,
    judge,
    latent,
    panels,
    sampling,
    spectrum,
    surrogates,
    what_where,
    worth_labelling,
)
from whatwhere.learner import ImageClassifier, Learner


def draw(learner: Learner, images: Images, run: Path, *, tested: bool, train: Images) -> None:
    """Write the pictures of a run: what any learner that can do it shows.

    Beside them ``label-next.csv`` where the training images come from files and some have no label.

    Parameters
    ----------
    learner : Learner
    images : Images
        Of the test part where there is one (`tested`), else of the training part.
    run : Path
    tested : bool
    train : Images
        The training part, with the labels `UNLABELED` that the learner was not shown.
    """
    folder = run / runs.PANELS
    folder.mkdir(exist_ok=True)
    module = learner.module_
    if isinstance(module, Reconstructs):
        first = images.x[: panels.COLUMNS]
        mse = judge.reconstruction_mse(learner, first)
        panels.reconstructions(folder, first, learner.reconstruct(first), mse)
    if isinstance(module, HasFilters) and (filters := module.filters()) is not None:
        panels.filters(folder, filters.cpu().numpy())
    what_where.write(folder, learner, images)
    surrogates.write(folder, learner, train)
    denoising.panel(folder, learner, images)
    latent.write(folder, learner, images)
    spectrum.write(folder, learner, images)
    sampling.write(folder, learner, images)
    activity.write(folder, learner, images)
    embedding_map.write(folder, learner, images)
    worth_labelling.write(run, learner, train)
    known = np.flatnonzero(images.y != UNLABELED)
    if tested and isinstance(learner, ImageClassifier) and len(learner.classes_) and len(known):
        labeled = images.take(known)
        probability = learner.predict_proba(labeled.x)
        predicted = learner.classes_[probability.argmax(1)]
        truth = np.array(labeled.classes)[labeled.y]
        surest = probability.max(1)
        panels.mistakes(folder, labeled.x, truth, predicted, surest, labeled.names, rows=known)
