"""Figures as SVG text that stands inside an HTML page, and takes its colors from the page.

Matplotlib draws; afterwards each color of `COLORS` is replaced by a variable of the page's style
sheet, so one figure is readable on light and on dark ground. Text stays text: it is set in the
page's own font, can be searched, and is read aloud.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from math import log10
from textwrap import wrap

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

INK, MUTED, LINE, GROUND = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#01030{i}" for i in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
COLORS = {INK: "ink", MUTED: "muted", LINE: "line", GROUND: "ground"} | {
    color: f"series-{i}" for i, color in enumerate(SERIES)
}
"""Stand-ins that nothing else draws with, and the variables of the style sheet they become."""

HIT, MISS = (31, 111, 178), (217, 95, 2)
"""Red, green, blue of right and wrong in `confusion`; seen on light and on dark ground."""

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Point:
    """A mean with its interval.

    Attributes
    ----------
    value : float
        The mean, in the figure's unit.
    low, high : float or None
        The ends of its interval; None where there is none.
    published : float or None
        The value of the paper, in the same unit.
    """

    value: float
    low: float | None = None
    high: float | None = None
    published: float | None = None


def point(
    value: float, interval: tuple[float, float] | None, published: float | None = None
) -> Point:
    """Return the point with the ends of its interval, if it has one."""
    low, high = interval or (None, None)
    return Point(value, low, high, published)


def curve(
    segments: Sequence[tuple[Sequence[float], Sequence[float]]],
    total: int,
    marks: Sequence[tuple[float, str]] = (),
    description: str = "",
) -> str:
    """Draw one quantity against the epochs.

    Parameters
    ----------
    segments : sequence of (epochs, values)
        One a stage. Values that are not finite leave a gap.
    total : int
        The last epoch of the axis, so that figures side by side share theirs.
    marks : sequence of (epoch, text)
        Where each stage begins, and what to write there.
    description : str
        What someone who cannot see the figure is told.

    Returns
    -------
    str
        An ``<svg>`` element, 340 x 190 pixels. The scale is logarithmic where all values are
        positive and the largest is more than ten times the smallest.
    """
    few = sum(len(values) for _, values in segments) <= 15
    with _figure(340, 190, description) as (figure, finish):
        axes = figure.add_axes((0.15, 0.16, 0.82, 0.74 if marks else 0.78))
        for epochs, values in segments:
            y = np.asarray(values, dtype=float)
            y[~np.isfinite(y)] = np.nan
            alone = few or len(y) == 1  # a line through one point cannot be seen
            axes.plot(epochs, y, color=SERIES[0], marker="o" if alone else "", markersize=3.5)
        everything = np.concatenate([np.asarray(v, dtype=float) for _, v in segments] or [[]])
        _value_axis(axes, everything[np.isfinite(everything)])
        axes.set_xlim(0.4, total + max(0.6, 0.03 * total))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
        for epoch, text in marks:
            axes.axvline(epoch - 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
            axes.annotate(
                text, (epoch - 0.5, 1.02), xycoords=("data", "axes fraction"), xytext=(2, 0),
                textcoords="offset points", color=MUTED, fontsize=10,
            )  # fmt: skip
        return finish()


def sizes(values: Sequence[float], names: Sequence[str], description: str = "") -> str:
    """Draw one number for each of several things in their order, the layers of a net for instance.

    Parameters
    ----------
    values : sequence of float
    names : sequence of str
    description : str
        What someone who cannot see the figure is told.

    Returns
    -------
    str
        An ``<svg>`` element, 340 x 190 pixels; its scale is as for `curve`.
    """
    with _figure(340, 190, description) as (figure, finish):
        axes = figure.add_axes((0.15, 0.16, 0.82, 0.78))
        axes.plot(range(len(values)), values, color=SERIES[0], marker="o", markersize=5)
        _value_axis(axes, np.asarray(values, dtype=float))
        axes.set_xticks(range(len(values)), names)
        axes.set_xlim(-0.4, len(values) - 0.6)
        axes.grid(axis="y")
        return finish()


def intervals(
    rows: Sequence[tuple[str, Point]],
    unit: str,
    digits: int = 2,
    lead: bool = True,
    description: str = "",
) -> str:
    """Draw a dot and its interval for each row, the rows below each other on one scale.

    Parameters
    ----------
    rows : sequence of (label, Point)
        From top to bottom.
    unit : str
        Written below the scale.
    digits : int
        Decimals of the numbers that stand beside the labels.
    lead : bool
        Whether the first row is drawn in color, because it is what the page is about.
    description : str
        What someone who cannot see the figure is told.

    Returns
    -------
    str
        An ``<svg>`` element, 380 pixels wide. A published value is an open diamond.
    """
    labels = [wrap(label, 44, max_lines=2, placeholder=" …") or [""] for label, _ in rows]
    heights = [30 + 15 * len(lines) for lines in labels]
    total = sum(heights)
    with _figure(380, total + 46, description) as (figure, finish):
        axes = figure.add_axes((0.02, 40 / (total + 46), 0.94, total / (total + 46)))
        top = 0.0
        for i, ((_, point), lines, height) in enumerate(zip(rows, labels, heights, strict=True)):
            color = SERIES[0] if lead and i == 0 else INK
            y = top + 15 * len(lines) + 13
            if point.low is not None and point.high is not None:
                axes.plot([point.low, point.high], [y, y], color=color, linewidth=2.2)
            axes.plot([point.value], [y], "o", color=color, markersize=7)
            if point.published is not None:
                axes.plot([point.published], [y], "D", color=color, mfc=GROUND, markersize=6)
            for k, line in enumerate(lines):
                axes.annotate(
                    line, (0, top + 12 + 15 * k), xycoords=("axes fraction", "data"),
                    fontsize=12, color=color, va="center",
                )  # fmt: skip
            axes.annotate(
                f"{point.value:.{digits}f}", (1, top + 12), xycoords=("axes fraction", "data"),
                fontsize=12, color=color, va="center", ha="right",
            )  # fmt: skip
            top += height
        axes.set_ylim(total, 0)
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        numbers = [
            number
            for _, p in rows
            for number in (p.value, p.low, p.high, p.published)
            if number is not None
        ]
        low, high = min(numbers), max(numbers)
        span = high - low or abs(high) or 1
        axes.set_xlim(0 if 0 <= low < span else low - 0.06 * span, high + 0.06 * span)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
        axes.set_xlabel(unit)
        return finish()


def comparison(
    rows: Sequence[Sequence[Point | None]],
    columns: Sequence[str],
    unit: str,
    description: str = "",
) -> str:
    """Draw each row of a table as a line across its columns.

    Parameters
    ----------
    rows : sequence of sequences of Point or None
        One a row of the table, each with a cell a column.
    columns : sequence of str
        The columns' names.
    unit : str
        What the values are.
    description : str
        What someone who cannot see the figure is told.

    Returns
    -------
    str
        An ``<svg>`` element, 460 x 310 pixels. Row i has color and marker number i modulo 8; a
        published value is the same marker, open.
    """
    with _figure(460, 310, description) as (figure, finish):
        axes = figure.add_axes((0.1, 0.13, 0.88, 0.84))
        numbers: list[float] = []
        for i, row in enumerate(rows):
            color, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            # Rows stand a little apart, so that their intervals do not cover each other.
            shift = (i - (len(rows) - 1) / 2) * min(0.08, 0.5 / max(len(rows), 1))
            here = [(k + shift, p) for k, p in enumerate(row) if p is not None]
            axes.plot([x for x, _ in here], [p.value for _, p in here], color=color,
                      marker=marker, markersize=6, linewidth=1.4)  # fmt: skip
            for x, p in here:
                numbers.append(p.value)
                if p.low is not None and p.high is not None:
                    axes.plot([x, x], [p.low, p.high], color=color, linewidth=2)
                    numbers += [p.low, p.high]
                if p.published is not None:
                    axes.plot([x + 0.03], [p.published], marker, color=color, mfc=GROUND,
                              markersize=6, zorder=1.5)  # fmt: skip
                    numbers.append(p.published)
        _value_axis(axes, np.asarray(numbers), baseline=True)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_xticks(range(len(columns)), list(columns))
        if len(columns) > 6 or max(map(len, columns)) * len(columns) > 56:
            axes.tick_params(axis="x", labelrotation=25)
            axes.set_position((0.1, 0.26, 0.88, 0.71))
            for text in axes.get_xticklabels():
                text.set_horizontalalignment("right")
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        return finish()


def key(row: int) -> str:
    """Return the ``<svg>`` element, 14 x 14 pixels, that stands for a row of `comparison`."""
    with _figure(14, 14, "", salt=f"key {row}") as (figure, finish):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0], [0], MARKERS[row % len(MARKERS)], color=SERIES[row % len(SERIES)],
                  markersize=8)  # fmt: skip
        return finish()


def confusion(counts: Sequence[Sequence[int]], description: str = "") -> str:
    """Draw a confusion matrix with too many classes for a table of numbers.

    Parameters
    ----------
    counts : sequence of sequences of int
        Rows are the true classes, columns the predicted ones.
    description : str
        What someone who cannot see the figure is told.

    Returns
    -------
    str
        An ``<svg>`` element, 560 x 560 pixels: opacity is the share of the row; off the diagonal,
        the share relative to the largest one.
    """
    share, error = shares(counts)
    n = len(share)
    pixels = np.zeros((n, n, 4))
    diagonal = np.eye(n, dtype=bool)
    pixels[diagonal, :3] = np.divide(HIT, 255)
    pixels[~diagonal, :3] = np.divide(MISS, 255)
    pixels[..., 3] = np.where(diagonal, share, np.sqrt(error))
    with _figure(560, 560, description) as (figure, finish):
        axes = figure.add_axes((0.09, 0.09, 0.89, 0.89))
        axes.imshow(pixels, interpolation="none", extent=(-0.5, n - 0.5, n - 0.5, -0.5))
        axes.set_xlabel("predicted class (number, from 0)")
        axes.set_ylabel("true class (number, from 0)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        for spine in axes.spines.values():
            spine.set_visible(True)
        return finish()


def shares(counts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return how strongly to paint the cells of a confusion matrix.

    Parameters
    ----------
    counts : sequence of sequences of int, (K, K)
        Rows are the true classes, columns the predicted ones.

    Returns
    -------
    share : ndarray (K, K)
        Each count over the sum of its row, in [0, 1]; 0 in a row without images.
    error : ndarray (K, K)
        The shares off the diagonal over the largest of them, in [0, 1]; 0 on the diagonal.
    """
    matrix = np.asarray(counts, dtype=float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    error = np.where(np.eye(len(matrix), dtype=bool), 0, share)
    return share, error / max(error.max(initial=0), 1e-12)


def _value_axis(axes: Axes, values: np.ndarray, baseline: bool = False) -> None:
    """Make the y axis logarithmic where that is of use, with ticks that are plain numbers."""
    axis = axes.yaxis
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        decades = log10(values.max() / values.min())
        subs = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
        axes.set_yscale("log")
        axis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))
        if baseline and len(values) and 0 <= values.min() < np.ptp(values):
            axes.set_ylim(bottom=0)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5g}"))


@contextmanager
def _figure(
    width: int, height: int, description: str, salt: str = ""
) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """Give a figure of so many pixels, and what turns it into an ``<svg>`` element.

    The names inside the element are made from `description` and `salt`, so that two figures of one
    page share none, and the same figure always has the same.
    """
    # The reader's own matplotlib settings must not change a report, nor may ours leak out.
    with style.context(["default", _STYLE | {"svg.hashsalt": f"{salt} {description}"}]):
        figure = Figure(figsize=(width / 72, height / 72))
        figure.patch.set_visible(False)

        def finish() -> str:
            for axes in figure.axes:
                axes.patch.set_visible(False)
            target = StringIO()
            with warnings.catch_warnings():
                # A script that our measuring font lacks is drawn by the browser's fonts.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
            return _inline(target.getvalue(), width, height, description)

        yield figure, finish


def _inline(svg: str, width: int, height: int, description: str) -> str:
    """Return matplotlib's file as an element that can stand beside others in one page."""
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names of groups, the same in every figure
    for color, variable in COLORS.items():
        body = body.replace(color, f"var(--{variable})")
    told = f'role="img" aria-label="{escape(description)}"' if description else 'aria-hidden="true"'
    return f'<svg viewBox="0 0 {width} {height}" {told}>' + body.strip()
