import numpy as np
import pytest

from whatwhere.data.images import Images

CLASSES = ("ant", "büffel", "cat")


def draw(shape: tuple[int, int, int], n: int = 130) -> Images:
    """Return images with flat parts, where the maxima of windows are not unique."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    x[:, :, : shape[1] // 2] = 0
    return Images(x, np.arange(n) % 3, CLASSES)


@pytest.fixture(scope="session")
def images() -> Images:
    """Gray, 11 x 9."""
    return draw((1, 11, 9))


@pytest.fixture(scope="session")
def odd() -> Images:
    """Gray, 13 x 10: of odd maps the quarters overlap."""
    return draw((1, 13, 10), 40)


@pytest.fixture(scope="session")
def color() -> Images:
    return draw((3, 8, 8))
