import re

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatwhere.report import figures
from whatwhere.report.figures import Point


def ticks(svg):
    return [float(text) for text in re.findall(r">([-+\d.e−]+)</text>", svg.replace("−", "-"))]


def test_colors_come_from_the_page():
    drawn = [
        figures.curve([([1, 2, 3], [3.0, 2.0, 1.0])], 3, [(1, "a"), (3, "b")]),
        figures.intervals([("a", Point(1, 0.5, 1.5, 1.2))], "%"),
        figures.comparison([[Point(1, 0.5, 1.5, 1.2)]] * 9, ["100"], "%"),
    ]
    for svg in drawn:
        assert "var(--" in svg
        assert re.findall(r"#[0-9a-f]{6}", svg) == []


def test_values_over_more_than_a_decade_are_on_a_logarithmic_scale():
    wide = ticks(figures.curve([(range(1, 51), np.geomspace(10, 0.01, 50).tolist())], 50))
    narrow = ticks(figures.curve([(range(1, 51), np.linspace(10, 5, 50).tolist())], 50))
    assert 0.1 in wide
    assert 0.1 not in narrow


def test_a_curve_with_values_that_are_not_finite_has_a_gap():
    whole = figures.curve([(range(1, 41), [1.0] * 40)], 40)
    gap = figures.curve([(range(1, 41), [*[1.0] * 20, float("nan"), *[1.0] * 19])], 40)
    nothing = figures.curve([([1, 2], [float("nan"), float("inf")])], 2)
    moves = [len(re.findall(r"M [\d.]+ [\d.]+ ?\n?L", svg)) for svg in (whole, gap)]
    assert moves[1] == moves[0] + 1
    assert nothing.startswith("<svg")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),
            st.none() | st.tuples(st.floats(-5, 100), st.floats(-5, 100)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_points_can_be_drawn(values):
    points = [figures.point(value, interval) for value, interval in values]
    assert figures.intervals([(str(i), p) for i, p in enumerate(points)], "%").endswith("</svg>")


def test_the_readers_own_style_neither_enters_nor_changes(tmp_path):
    before = figures.intervals([("a", Point(1, 0, 2))], "%")
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        assert figures.intervals([("a", Point(1, 0, 2))], "%") == before
        assert mpl.rcParams["font.size"] == 40


@pytest.mark.parametrize("text", ["$x^2$", "$\\frac$", "<b>", "猫", "a & b", '"'])
def test_any_label_is_text(text):
    svg = figures.intervals([(text, Point(1.0))], "%")
    assert "<b>" not in svg
    assert svg.count("<text") == figures.intervals([("a", Point(1.0))], "%").count("<text")


def test_shares_are_of_the_rows_and_errors_relative_to_the_largest():
    share, error = figures.shares([[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    assert share.tolist() == [[0.8, 0.2, 0], [0.2, 0.8, 0], [0, 0, 0]]
    assert error.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_perfect_confusion_matrix_has_no_errors():
    _, error = figures.shares(np.diag([5, 5]).tolist())
    assert not error.any()
