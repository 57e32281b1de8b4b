"""What "auto" stands for: the net, the batch and the epochs that suit a set of images.

One rule for images from 8 x 8 to 256 x 256 pixels of any proportions, and for rows of a table. It
looks at numbers that are known before training, and at nothing else.
"""

from math import ceil, prod

from whatwhere.nn.architecture import Conv, Layer, Pool
from whatwhere.nn.where import cells

AUTO = "auto"

FINE, FEWEST_LEVELS = 6, 2
"""Maps are halved until their shorter side is at most so many pixels (a class is then told from a
few coarse places), and so many times at least where the image has that many pixels.

Measured (benchmarks/defaults.py), 5,000 images of CIFAR-10, 200 labels: three levels 64.5 % in 64
s, two 67.2 % in 99 s; Fashion-MNIST: 22.5 % in 48 s and 22.5 % in 98 s."""

MOST_FEATURES = 10_000
"""Long images and rows are halved further, until the top holds no more numbers than this: the class
layer has a weight for each of them and each class."""

MAPS = (16, 32, 64, 128)
"""Maps of each level, bottom up; the last number holds for all further ones.

Measured, CIFAR-10 with shifts: twice as many 63.2 % in 151 s, these 63.3 % in 60 s."""

LARGE, STRIDE_OF_LARGE = 64, 4
"""Above this shorter side the first pool is larger, for the lowest level costs the most.

Measured, 400 faces of 112 x 92: with a first pool 4p 2.0 % in 51 s, with 2p 3.0 % in 141 s."""

FIRST, LATER = 5, 3
"""Sides of the filters: an image has broader edges than a pooled map."""

BATCH, SMALLEST_BATCH, STEPS = 100, 32, 10
"""Rows of a batch; of a small set fewer, so that an epoch has about so many steps.

Measured, the faces, 10 epochs: batches of 16 4.5 %, of 32 2.0 %."""

UPDATES, OF_LABELS, FEWEST_EPOCHS, MOST_EPOCHS = 200, 200, 5, 100
"""So many updates at least for so many labels, and with more labels more, as their square root.

Measured, 5,000 images with 200 labels: 2, 5 and 10 epochs (192, 480 and 960 updates) give 23.4,
22.5 and 23.3 % on Fashion-MNIST; 5 and 10 with shifts 63.3 and 62.2 % on CIFAR-10. The faces: 10
and 20 epochs (130 and 260 updates) both 2.0 %. How it grows with the labels was not measured."""

FEATURE_UPDATES, FEWEST_FEATURE_EPOCHS, MOST_FEATURE_EPOCHS = 3000, 20, 200
"""The same for auto-encoders, which have no labels to fit too well."""


def architecture(shape: tuple[int, int, int]) -> str:
    """Return the layers for images of a shape (C, H, W).

    Examples
    --------
    >>> architecture((1, 28, 28))
    '(16)5c-2p-(32)3c-2p-(64)3c-2p'
    """
    sides = list(shape[1:])
    pool = Pool(STRIDE_OF_LARGE if min(sides) > LARGE else 2)
    layers: list[Layer] = []
    while not layers or min(sides) > FINE or _too_many(layers, sides) or _too_few(layers, sides):
        level = len(layers) // 2
        maps = MAPS[min(level, len(MAPS) - 1)]
        layers += [Conv(maps, LATER if layers else FIRST), pool]
        sides = [cells(length, pool.size, pool.size) for length in sides]
        pool = Pool(2)
    return "-".join(map(str, layers))


def _too_many(layers: list[Layer], sides: list[int]) -> bool:
    conv = layers[-2]
    return isinstance(conv, Conv) and conv.maps * prod(sides) > MOST_FEATURES


def _too_few(layers: list[Layer], sides: list[int]) -> bool:
    return len(layers) < 2 * FEWEST_LEVELS and min(sides) > 1


def batch_size(n_samples: int) -> int:
    """Return the rows of a batch for so many images."""
    return max(SMALLEST_BATCH, min(BATCH, n_samples // STEPS))


def epochs(steps: int, n_labeled: int) -> int:
    """Return how many epochs of so many steps to take, with so many labels."""
    updates = UPDATES * max(1.0, n_labeled / OF_LABELS) ** 0.5
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, ceil(updates / max(steps, 1))))


def feature_epochs(steps: int) -> int:
    """Return how many epochs of so many steps an auto-encoder takes."""
    return min(MOST_FEATURE_EPOCHS, max(FEWEST_FEATURE_EPOCHS, ceil(FEATURE_UPDATES / steps)))


def of_features(epochs: int | str, rows: int | str, n_samples: int) -> tuple[int, int]:
    """Return epochs and rows of a batch, as given, or chosen where they are "auto"."""
    size = batch_size(n_samples) if isinstance(rows, str) else rows
    if isinstance(epochs, str):
        epochs = feature_epochs(-(-n_samples // size))
    return epochs, size
