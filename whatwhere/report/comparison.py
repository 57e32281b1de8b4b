"""What the page of a comparison shows."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from whatwhere.report import figures, wording
from whatwhere.report.read import Comparison, Run


def content(found: Comparison, beside: Path) -> dict[str, Any]:
    """Return what the template `comparison.html.j2` shows.

    Parameters
    ----------
    found : Comparison
        What was read.
    beside : Path
        The folder that the page will lie in, to which links are relative.

    Returns
    -------
    dict of str to Any
        The template's variables; text is not escaped yet, figures are.
    """
    table = found.table
    columns = _columns(table)
    rows, lines = (
        [_row(row, columns, sign) for row in table.get(part) or [] if isinstance(row, dict)]
        for part, sign in (("rows", False), ("differences", True))
    )
    runs = [_sub_run(run, found.path, beside) for run in found.runs]
    units = list(dict.fromkeys(column.unit for column in columns))
    return {
        "found": found,
        "title": str(table.get("title") or f"{len(runs)} runs in {found.path.name or found.path}"),
        "caption": str(table.get("caption") or ""),
        "unit": units[0] if len(units) == 1 else "",
        "draws": str(table.get("draws") or "draws of labels and seeds"),
        "columns": columns,
        "rows": rows,
        "differences": lines,
        "overview": "" if table else _overview(runs),
        "sentences": wording.differences(found),
        "notes": [str(note) for note in table.get("notes") or []],
        "runs": runs,
        "any_published": any(c and c["published"] for row in rows for c in row["cells"]),
        "any_interval": any(c and c["interval"] for row in rows for c in row["cells"]),
        "figures": _table_figures(rows, columns) if table else _runs_figures(runs),
        "legend": [
            {"label": row["label"], "key": Markup(figures.key(i))} for i, row in enumerate(rows)
        ],
        "commands": _next(found),
    }


class Column(NamedTuple):
    """A column, in what unit its numbers are, and with how many decimals (None: 3 digits)."""

    label: str
    unit: str
    digits: int | None

    @property
    def head(self) -> str:
        """The label, with the unit where it does not say it itself."""
        return self.label if self.unit in self.label else f"{self.label}, {self.unit}"

    def number(self, value: float, sign: bool = False) -> str:
        """Write a number of this column."""
        if self.digits is None:
            return f"{value:{'+' * sign}.3g}".replace("-", "−")
        return wording.number(value, self.digits, sign)

    def span(self, ends: tuple[float, float] | None) -> str:
        """Write an interval; nothing where there is none."""
        return " to ".join(map(self.number, ends or ()))


def _columns(table: dict[str, Any]) -> list[Column]:
    """Return the columns; a table of the first version has one unit, and two decimals."""
    labels = [str(label) for label in table.get("columns") or []]
    unit, n = str(table.get("unit") or "test error, %"), len(labels)
    units = [*map(str, table.get("units") or []), *[unit] * n]
    digits = [*(table.get("digits") or []), *[2] * n]
    return [Column(*column) for column in zip(labels, units, digits, strict=False)]


def _overview(runs: list[dict[str, Any]]) -> str:
    errors = [run["error"] for run in runs if run["error"] is not None]
    said = f"This folder holds {wording.many(len(runs), 'run')}"
    if not errors:
        return f"{said}; none of them has a test error."
    ends = f"{wording.number(min(errors))} to {wording.percent(max(errors))}"
    return f"{said}. The test errors of the {len(errors)} that have one run from {ends}."


def _next(found: Comparison) -> list[tuple[str, str]]:
    path = shlex.quote(str(found.path))
    lines = []
    if found.table.get("command"):
        lines.append(("Make this table again", str(found.table["command"])))
    for run in found.runs:
        if not (run.path / "report.html").is_file():
            lines.append(("Look at one of its runs", wording.commands(run)[-1][1]))
            break
    return [*lines, ("Make this page again", f"whatwhere report {path}")]


def _row(row: dict[str, Any], columns: Sequence[Column], sign: bool) -> dict[str, Any]:
    """Return a row with a cell a column: a dict with a mean, or None."""
    given = row.get("cells") or []
    cells = []
    for column, cell in zip(columns, [*given, *[None] * len(columns)], strict=False):
        if not isinstance(cell, dict) or not wording.is_number(cell.get("mean")):
            note = cell.get("note") if isinstance(cell, dict) else ""
            cells.append({"mean": None, "note": note, "published": None, "interval": None}
                         if note else None)  # fmt: skip
            continue
        ends = wording.interval_of(cell.get("interval"))
        mean, sd = float(cell["mean"]), cell.get("sd")
        cells.append(
            {
                "mean": mean,
                "text": column.number(mean, sign),
                "sd": column.number(sd) if wording.is_number(sd) else "",
                "n": cell.get("n"),
                "interval": ends,
                "span": column.span(ends),
                "beyond_zero": ends is not None and (ends[0] > 0 or ends[1] < 0),
                "published": cell.get("published"),
                "note": str(cell.get("note") or ""),
            }
        )
    return {"label": str(row.get("label", "")), "cells": cells}


def _published(text: Any) -> float | None:
    """Return the value of ``8.71 ± 0.34``, or None if it does not begin with a number."""
    try:
        return float(str(text).split("±")[0].split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return None


def _table_figures(rows: list[dict[str, Any]], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return a figure for each unit: only columns of one unit stand on one scale."""
    drawn = []
    units: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        units.setdefault(column.unit or column.label, []).append(place)
    for unit, places in units.items():
        grid = [[_point(row["cells"][place]) for place in places] for row in rows]
        points = [(row["label"], line[0]) for row, line in zip(rows, grid, strict=True) if line[0]]
        labels, digits = [columns[place].label for place in places], columns[places[0]].digits
        words = "The numbers stand in the table above."
        if len(units) > 1:  # descriptions tell the figures of a page apart
            words = f"{unit}. {words}"
        if not any(point for line in grid for point in line):
            continue
        if len(places) == 1:
            if digits is None:
                continue  # values that differ by powers of ten show nothing on one scale
            svg = figures.intervals(points, unit, digits, lead=False, description=words)
        else:
            svg = figures.comparison(grid, labels, unit, words)
        named = unit if len(places) > 1 or unit in labels[0] else f"{labels[0]}, {unit}"
        drawn.append({"svg": Markup(svg), "unit": named, "legend": len(places) > 1})
    return drawn


def _point(cell: dict[str, Any] | None) -> figures.Point | None:
    if cell is None or cell["mean"] is None:
        return None
    return figures.point(cell["mean"], cell["interval"], _published(cell["published"]))


def _runs_figures(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    points = [
        (run["name"], figures.point(run["error"], run["interval"]))
        for run in runs
        if run["error"] is not None
    ]
    if not 2 <= len(points) <= 30:
        return []
    words = "The numbers stand in the table of runs."
    unit = "test error, %, with its 95 % interval"
    svg = figures.intervals(points, unit, lead=False, description=words)
    return [{"svg": Markup(svg), "unit": unit, "legend": False}]


def _sub_run(run: Run, root: Path, beside: Path) -> dict[str, Any]:
    data, error = run.config.get("data") or {}, run.evaluation.get("error")
    target = run.path / "report.html"
    # The leading dot keeps a folder called `javascript:...` a folder.
    link = f"./{quote(Path(os.path.relpath(target, beside)).as_posix())}"
    return {
        "name": run.path.relative_to(root).as_posix(),
        "link": link if target.is_file() else None,
        "model": run.config.get("model", "–"),
        "labels": data.get("n_labeled"),
        "seed": run.config.get("seed"),
        "epochs": sum(run.done.values()),
        "error": float(error) if wording.is_number(error) else None,
        "interval": wording.interval_of(run.evaluation.get("interval")),
        "digits": wording.digits_of(run.evaluation),
        "state": run.state,
    }
