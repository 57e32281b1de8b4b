import numpy as np
import pytest

from whatwhere.evaluate import panels, strips


def cells(k=3, h=20, w=30):
    return np.random.default_rng(0).integers(0, 256, (k, h, w, 3)).astype(np.uint8)


@pytest.mark.parametrize("height", [4, 60])
@pytest.mark.parametrize("words", [[], ["one"], ["one", "two"]])
def test_a_row_shows_the_cells_beside_its_words(height, words):
    given = cells(h=height)
    drawn = strips.row(words, given, margin=80)
    images = panels.tile(given, 3)
    top = (len(drawn) - panels.GAP - height) // 2
    assert (drawn[top : top + height, 80:] == images).all()
    assert (drawn[:, :80] != 255).any() == bool(words)
    assert len(drawn) >= 18 * len(words)


def test_each_word_of_a_head_stands_above_its_own_column():
    drawn = strips.head(["", "x", ""], 40, margin=50)
    ink = np.flatnonzero((drawn < 255).any(axis=(0, 2)))
    assert 50 + 44 <= ink.min() <= ink.max() < 50 + 44 + 40
    assert drawn.shape[1] == strips.row([], cells(w=40), margin=50).shape[1]


@pytest.mark.parametrize(("n", "rows"), [(1, 2), (12, 2), (13, 4), (30, 6)])
def test_strips_go_on_until_all_images_are_shown(n, rows):
    one = np.full((n, 1, 28, 28), 1, np.uint8)
    drawn = strips.strips({"dark": one, "bright": one + 100})
    values = (1, 101)
    images = drawn[:, strips.MARGIN :]
    side = 112 if n == 1 else 56
    for value in values:
        assert (images == value).all(axis=2).sum() == n * side * side
    breaks = np.diff((images == 255).all(axis=(1, 2)).astype(int))
    assert (breaks == 1).sum() == rows
