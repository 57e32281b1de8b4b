"""What "auto" stands for: the net, the batch and the epochs that suit a set of images.

One rule for images from 8 x 8 to 256 x 256 pixels of any proportions, and for rows of a table. It
looks at numbers that are known before training, and at nothing else.
"""

from math import prod

from whatwhere.nn.architecture import Conv, Layer, Pool
from whatwhere.nn.where import cells

AUTO = "auto"

FINE = 7
"""Maps are halved until their shorter side is at most so many pixels: a class is then told from a
few coarse places, and small images keep one level at least."""

MOST_FEATURES = 10_000
"""Long images and rows are halved further, until the top holds no more numbers than this: the class
layer has a weight for each of them and each class."""

MAPS, LARGE, MAPS_OF_LARGE = (32, 64, 128), 64, (16, 32, 64, 128)
"""Maps of each level, bottom up; the last number holds for all further ones. Images whose shorter
side is above LARGE pixels begin with fewer, for the lowest level costs the most."""

HUGE, STRIDE_OF_HUGE = 128, 4
"""From this shorter side on the first pool is larger: the time goes into its level."""

FIRST, LATER = 5, 3
"""Sides of the filters: an image has broader edges than a pooled map."""

BATCH, SMALLEST_BATCH, STEPS = 100, 16, 10
"""Rows of a batch; of a small set fewer, so that an epoch has about so many steps, but enough to
normalize over."""

UPDATES, FEWEST_EPOCHS, MOST_EPOCHS = 1000, 20, 200
"""Small sets are passed over more often, so that there are about so many updates."""


def architecture(shape: tuple[int, int, int]) -> str:
    """Return the layers for images of a shape (C, H, W).

    Examples
    --------
    >>> architecture((1, 28, 28))
    '(32)5c-2p-(64)3c-2p'
    """
    sides = list(shape[1:])
    large = min(sides) > LARGE
    pool = Pool(STRIDE_OF_HUGE if min(sides) >= HUGE else 2)
    kinds = MAPS_OF_LARGE if large else MAPS
    layers: list[Layer] = []
    while not layers or min(sides) > FINE or _too_many(layers, sides):
        level = len(layers) // 2
        maps = kinds[min(level, len(kinds) - 1)]
        layers += [Conv(maps, LATER if layers else FIRST), pool]
        sides = [cells(length, pool.size, pool.size) for length in sides]
        pool = Pool(2)
    return "-".join(map(str, layers))


def _too_many(layers: list[Layer], sides: list[int]) -> bool:
    conv = layers[-2]
    return isinstance(conv, Conv) and conv.maps * prod(sides) > MOST_FEATURES


def batch_size(n_samples: int) -> int:
    """Return the rows of a batch for so many images."""
    return max(SMALLEST_BATCH, min(BATCH, n_samples // STEPS))


def epochs(steps: int) -> int:
    """Return how many epochs of so many steps to take."""
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-UPDATES // max(steps, 1))))
