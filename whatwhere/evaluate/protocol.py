"""One protocol for every learner: the same few labels, the same simple classifiers, many draws.

Any pair of features and labels goes through it, whoever made the features. For each number of
labels and each draw, the rows whose labels are shown are drawn once, balanced over the classes; all
sources are probed on these rows and judged on the same test rows. So what a draw makes easy or hard
is the same for all, and falls out of the difference of two sources, draw by draw.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.core import UNLABELED, InputError, labeled, unknown
from whatwhere.data.images import Images, draw_labels
from whatwhere.evaluate import measures, probes
from whatwhere.evaluate.judge import MOST_LABELS_FOR_SVM

ALL = "all"
LABELS, DRAWS, USUAL = ("100", "1000", ALL), 3, ("linear", "knn", "linear_svm")
FLOOR_PROBES = ("linear", "knn", "svm")
MOST_LABELS = {"svm": MOST_LABELS_FOR_SVM}
Record = dict[str, Any]


class Source(NamedTuple):
    """Features of both parts.

    Attributes
    ----------
    train : ndarray (n, K)
    test : ndarray (m, K)
    probes : tuple of str
        What judges them. Empty: what judges the others.
    """

    train: np.ndarray
    test: np.ndarray
    probes: tuple[str, ...] = ()


class Labels(NamedTuple):
    """What is known of the classes of both parts.

    Attributes
    ----------
    train : ndarray (n,)
        int64, the place of the class in `classes`, or `UNLABELED`.
    test : ndarray (m,)
        So too.
    classes : tuple
    """

    train: np.ndarray
    test: np.ndarray
    classes: tuple[Any, ...]


def labels_of(
    y_train: ArrayLike, y_test: ArrayLike, classes: Sequence[Any] | None = None
) -> Labels:
    """Return labels as the protocol reads them.

    Parameters
    ----------
    y_train, y_test : array-like (n,), (m,)
        Classes, and -1 where there is none.
    classes : sequence, optional
        All of them, in the order that draws go by. Default: those of the training labels, sorted.

    Raises
    ------
    InputError
        If a label is none of them, or the labels are no list of classes.
    """
    for part, y in (("training", y_train), ("test", y_test)):
        if np.ndim(y) != 1:
            raise InputError(
                f"{part} labels of shape {np.shape(y)}; give a class a row (of one-hot rows it is "
                "y.argmax(axis=1)), or -1 for none"
            )
    parts = [np.asarray(y).tolist() for y in (y_train, y_test)]
    if any(y is None or (isinstance(y, float) and isnan(y)) for part in parts for y in part):
        raise InputError("labels hold None or nan; a row without a class has the label -1")
    shown = [[y for y, known in zip(part, labeled(part), strict=True) if known] for part in parts]
    names = tuple(sorted(set(shown[0]))) if classes is None else tuple(classes)
    strangers = sorted({*shown[0], *shown[1]} - {*names})
    if strangers:
        raise InputError(
            f"the label {strangers[0]!r} is not among the classes of the training part "
            f"({', '.join(map(str, names[:5]))}{', ...' if len(names) > 5 else ''}); "
            "leave such rows out, or give them -1"
        )
    place = {name: number for number, name in enumerate(names)}
    codes = [np.array([place.get(y, UNLABELED) for y in part], np.int64) for part in parts]
    return Labels(codes[0], codes[1], names)


def check(numbers: Sequence[str], judges: Sequence[str]) -> None:
    """Check what is asked for, before anything is computed.

    Parameters
    ----------
    numbers, judges
        As for `run`.

    Raises
    ------
    InputError
        If there is none, or one that is no number of labels or no probe.
    """
    if not numbers or not judges:
        raise InputError("nothing to judge by; name numbers of labels and probes")
    for n in numbers:
        if not isinstance(n, str):
            raise InputError(f"{n!r} labels: numbers of labels are strings, '{n}' or 'all'")
        if n != ALL and (not n.isdecimal() or int(n) == 0):
            raise InputError(f"{n!r} labels: it takes all, or a number from 1 on")
    for judge in judges:
        if judge not in probes.PROBES:
            raise unknown("no probe is called", judge, probes.PROBES)


def drawn(labels: Labels, n_labels: str, draw: int) -> np.ndarray:
    """Return the training rows whose labels are shown.

    They are those of ``whatwhere fit --labels N --label-seed DRAW`` on the same labels.

    Parameters
    ----------
    labels : Labels
    n_labels : str
        ``all``, or how many in total.
    draw : int

    Raises
    ------
    InputError
        If there are not so many, or `n_labels` is no number.
    """
    check([n_labels], USUAL)
    if n_labels == ALL:
        return np.flatnonzero(labels.train != UNLABELED)
    blank = np.broadcast_to(np.uint8(0), (len(labels.train), 1, 1, 1))
    images = Images(blank, labels.train, labels.classes)
    return draw_labels(images, int(n_labels), seed=draw)


def draws_of(n_labels: str, draws: int) -> range:
    """Return the draws of so many labels; of all labels there is but one."""
    return range(1 if n_labels == ALL else draws)


def needed(labels: Labels, numbers: Sequence[str] = LABELS, draws: int = DRAWS) -> np.ndarray:
    """Return the training rows that any draw shows, in rising order: features of others are idle.

    Raises
    ------
    InputError
        As `drawn`.
    """
    found = [drawn(labels, n, draw) for n in numbers for draw in draws_of(n, draws)]
    return np.unique(np.concatenate(found))


def run(
    sources: Mapping[str, Source],
    labels: Labels,
    *,
    numbers: Sequence[str] = LABELS,
    draws: int = DRAWS,
    judges: Sequence[str] = USUAL,
    rows: np.ndarray | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Record]:
    """Probe each source on each draw of labels.

    Parameters
    ----------
    sources : mapping of str to Source
        By the names that the table gives them.
    labels : Labels
        Of all of them; see `labels_of`.
    numbers : sequence of str
        Of labels that are shown: ``all``, or how many in total (``"100"``).
    draws : int
        How often so many labels are drawn.
    judges : sequence of str
        The probes, out of `probes.PROBES`. The machine with a kernel is left out above 5,000
        labels.
    rows : ndarray, optional
        Which training rows the sources have features of, in rising order: those that are `needed`,
        or more. Default: all.
    tell : callable (str) -> None
        Is told of each draw, a line each.

    Returns
    -------
    list of Record
        See `record`.

    Raises
    ------
    InputError
        If there is no such probe, the rows of a source and the labels differ in number, no test row
        has a label, there are not so many labels, or `rows` lacks one that a draw shows.
    """
    rows = np.arange(len(labels.train)) if rows is None else np.asarray(rows)
    if not sources or draws < 1:
        raise InputError("nothing to judge; name a source, and draws from 1 on")
    sources = {
        name: Source(np.asarray(source.train), np.asarray(source.test), tuple(source.probes))
        for name, source in sources.items()
    }
    check(numbers, [*judges, *(one for source in sources.values() for one in source.probes)])
    _check_rows(sources, labels, len(rows))
    # What cannot be drawn is refused before minutes of work.
    shows = {(n, draw): drawn(labels, n, draw) for n in numbers for draw in draws_of(n, draws)}
    lacking = np.setdiff1d(np.concatenate([*shows.values()]), rows)
    if len(lacking) or (np.diff(rows) <= 0).any():
        why = f"lack row {lacking[0]}, which a draw shows" if len(lacking) else "do not rise"
        raise InputError(f"the rows of the sources {why}; give those that `needed` returns")
    known = labels.test != UNLABELED
    found = []
    for (n, draw), shown in shows.items():
        tell(f"{column_of(n)}, draw {draw + 1} of {len(draws_of(n, draws))}")
        at = np.searchsorted(rows, shown)
        for name, source in sources.items():
            for judge in source.probes or judges:
                if len(shown) > MOST_LABELS.get(judge, len(shown)):
                    continue
                fitted = probes.PROBES[judge]().fit(source.train[at], labels.train[shown])
                predicted = fitted.predict(source.test[known])
                found.append(record(row_of(name, judge), n, draw, labels, predicted))
    return found


def record(row: str, n_labels: str, draw: int, labels: Labels, predicted: ArrayLike) -> Record:
    """Return what a classifier that was shown a draw's labels is worth.

    Parameters
    ----------
    row : str
        What the table calls it.
    n_labels : str
    draw : int
    labels : Labels
    predicted : array-like
        Places of classes, of the test rows that have a label.

    Returns
    -------
    dict
        ``row``, ``labels``, ``draw``, and what `measures.classification` says but for the matrix.
    """
    truth = labels.test[labels.test != UNLABELED]
    told = measures.classification(truth, predicted, list(range(len(labels.classes))))
    told = {name: told[name] for name in ("n", "accuracy", "error", "interval", "balanced_error")}
    return {"row": row, "labels": n_labels, "draw": draw, **told}


def row_of(source: str, judge: str) -> str:
    """Return what the table calls a source as a probe judges it."""
    return f"{source}, {judge}"


def column_of(n_labels: str) -> str:
    """Return what the table calls a number of labels."""
    return f"{n_labels} labels"


def table(
    records: Sequence[Record], differences: Sequence[tuple[str, str]] = (), *, title: str = ""
) -> dict[str, Any]:
    """Return mean, deviation and interval over draws, and differences paired by draw.

    Parameters
    ----------
    records : sequence of Record
    differences : sequence of (row, row)
        First minus second.
    title : str

    Returns
    -------
    dict
        Of the form that tables of experiments have: `whatwhere.experiments.table.told` prints it.
    """
    errors: dict[tuple[str, str], dict[int, float]] = {}
    for one in records:
        errors.setdefault((one["row"], one["labels"]), {})[one["draw"]] = one["error"]
    rows = list(dict.fromkeys(one["row"] for one in records))
    numbers = list(dict.fromkeys(one["labels"] for one in records))

    def cell(row: str, n: str) -> dict[str, Any] | None:
        found = errors.get((row, n))
        return measures.mean_interval(list(found.values())) if found else None

    def difference(row: str, other: str, n: str) -> dict[str, Any] | None:
        a, b = errors.get((row, n), {}), errors.get((other, n), {})
        return measures.paired_difference(a, b) if a.keys() & b.keys() else None

    unit = "test error, %"
    return {
        "title": title,
        "unit": unit,
        "units": [unit] * len(numbers),
        "digits": [2] * len(numbers),
        "draws": "draws of labels",
        "intervals": False,
        "columns": [column_of(n) for n in numbers],
        "rows": [{"label": row, "cells": [cell(row, n) for n in numbers]} for row in rows],
        "differences": [
            {
                "label": f"{row} minus {other}",
                "cells": [difference(row, other, n) for n in numbers],
            }
            for row, other in differences
        ],
        "notes": [],
    }


def pixels(train: np.ndarray, test: np.ndarray, rows: np.ndarray | None = None) -> Source:
    """Return the floor of raw pixels, judged by machines that need no features.

    Parameters
    ----------
    train, test : ndarray (n, C, H, W)
        uint8, or floats in [0, 1].
    rows : ndarray, optional
        Of the training images whose features are asked for. Default: all.
    """
    few = train if rows is None else train[rows]
    return Source(probes.raw_pixels(few), probes.raw_pixels(test), FLOOR_PROBES)


def components(train: np.ndarray, test: np.ndarray, rows: np.ndarray | None = None) -> Source:
    """Return the floor of principal components: the simplest features learned without labels.

    Parameters
    ----------
    train, test, rows
        As for `pixels`; the components are those of all training images.
    """
    few = train if rows is None else train[rows]
    of_train, of_test = probes.principal_components(train, few, test)
    return Source(of_train, of_test, FLOOR_PROBES)


FLOORS: Mapping[str, Callable[..., Source]] = {
    "raw pixels": pixels,
    "principal components": components,
}
"""What is worth beating, made of the images of both parts."""


def _check_rows(sources: Mapping[str, Source], labels: Labels, n_rows: int) -> None:
    for name, source in sources.items():
        for part, table, n in (
            ("training", source.train, n_rows),
            ("test", source.test, len(labels.test)),
        ):
            if len(table) != n:
                raise InputError(
                    f"{name} has {len(table)} {part} rows, and there are {n} labels; "
                    "give a label a row (-1 for none)"
                )
            try:
                probes.check_table(table)
            except InputError as error:
                raise InputError(f"{part} part of {name}: {error}") from None
        if (one := source.train.shape[1]) != (other := source.test.shape[1]):
            raise InputError(
                f"{name} has {one} features in the training part and {other} in the test part; "
                "make both with the same net"
            )
    if not (labels.test != UNLABELED).any():
        raise InputError("no test row has a label; name data with labels to judge by")
