"""Floors of a learner's net, and what it is worth once it is tuned with few labels.

The floors are the same net: as it was before it learned, and on labels alone. What is trained sees
the labeled rows alone, in the same batches; only the weights begin elsewhere.
"""

from copy import copy
from typing import Any

import numpy as np

from whatwhere import runs
from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import Images
from whatwhere.learner import ImageClassifier, Learner
from whatwhere.models.cnn import CNN
from whatwhere.nn.architecture import Dense
from whatwhere.nn.conv import Encoder


def encoder_of(learner: Learner) -> Encoder | None:
    """Return the `Encoder` that a class net can begin with; None where there is none.

    One with a dense layer that looks at a patch alone is none: a class net's looks at the image.
    """
    encoder = getattr(learner.module_, "encoder", None)
    if not isinstance(encoder, Encoder) or not encoder.layers:
        return None
    dense = any(isinstance(layer, Dense) for layer in encoder.layers)
    whole = encoder.shapes[0] == tuple(learner.image_shape_)
    return encoder if whole or not dense else None


def same_net(learner: Learner, *, seed: int = 0, **settings: Any) -> CNN:
    """Return a CNN of the learner's architecture, not fitted.

    Parameters
    ----------
    learner : Learner
        Fitted, and it has an encoder.
    seed : int
        Of weights and batches.
    **settings
        Hyper-parameters of `CNN` beside its architecture and `batch_norm`; by default epochs and
        batches are chosen for the images that it is fitted to.

    Raises
    ------
    InputError
        If it has no encoder.
    """
    encoder = encoder_of(learner)
    if encoder is None:
        raise InputError(
            f"{runs.snake_case(type(learner).__name__)} has no convolutional encoder of whole "
            "images, which this takes; give a swwae or a cnn"
        )
    architecture = "-".join(map(str, encoder.layers))
    return CNN(architecture, batch_norm=encoder.batch_norm, random_state=seed, **settings)


def random_filters(learner: Learner) -> Learner:
    """Return the learner as it was before it learned: its features are those of random weights.

    Raises
    ------
    InputError
        If it has no weights to draw: whitening has none.
    """
    fresh = copy(learner)
    fresh.module_ = learner.build(learner.spec_)
    if not any(weights.numel() for weights in fresh.module_.parameters()):
        raise InputError(f"{runs.snake_case(type(learner).__name__)} begins without any weights")
    return fresh


def labels_alone(learner: Learner, train: Images, *, seed: int = 0, **settings: Any) -> CNN:
    """Return the same net, fitted to the labeled rows from random weights.

    Parameters
    ----------
    learner, seed, **settings
        As for `same_net`.
    train : Images
        Rows without a label are left out.

    Raises
    ------
    InputError
        As `same_net`; if fewer than two classes have labels.
    """
    return same_net(learner, seed=seed, **settings).fit(*_labeled(train))


def fine_tuned(
    learner: Learner, train: Images, *, seed: int = 0, **settings: Any
) -> ImageClassifier:
    """Return a net that begins with the learner's weights, fitted to the labeled rows.

    Where the learner has an encoder, that is the net of `labels_alone`, begun with this encoder.
    Another classifier begins a learner of its own kind.

    Parameters
    ----------
    learner : Learner
        Fitted; it stays as it is.
    train : Images
        Rows without a label are left out.
    seed : int
        Of batches, and of weights that the learner has not.
    **settings
        Hyper-parameters, as for `same_net`; of a classifier without an encoder, those that are to
        be other than the learner's own, for instance `stage_epochs` that leave out all stages but
        the last.

    Raises
    ------
    InputError
        If the learner neither has an encoder nor classifies, or its weights do not fit the images.
    """
    net: ImageClassifier
    if encoder_of(learner) is not None:
        net = same_net(learner, seed=seed, **settings)
    elif isinstance(learner, ImageClassifier):
        own = learner.hyper_parameters() | settings
        net = type(learner)(**own, random_state=seed)
    else:
        raise InputError(
            f"{runs.snake_case(type(learner).__name__)} names no classes and has no convolutional "
            "encoder, so there is nothing to fine-tune; judge its features by a probe"
        )
    return net.fit(*_labeled(train), start=learner)


def places(net: ImageClassifier, images: Images) -> np.ndarray:
    """Return the predicted classes of the labeled images, as places in ``images.classes``."""
    place = {name: number for number, name in enumerate(images.classes)}
    predicted = net.predict(images.x[images.y != UNLABELED])
    return np.array([place[name] for name in predicted.tolist()])


def _labeled(train: Images) -> tuple[np.ndarray, np.ndarray]:
    shown = train.y != UNLABELED
    return train.x[shown], np.array(train.classes)[train.y[shown]]
