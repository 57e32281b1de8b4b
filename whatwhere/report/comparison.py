"""What the page of a comparison shows."""

import os
import shlex
from collections.abc import Collection, Sequence
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
        "figures": _table_figures(rows, columns, table.get("drawn") or ())
        if table
        else _runs_figures(runs),
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


def _table_figures(
    rows: list[dict[str, Any]], columns: Sequence[Column], shown: Collection[str]
) -> list[dict[str, Any]]:
    """Return the figures: one for each set of rows and each unit, which have a scale together."""
    drawn = []
    units: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        if not shown or column.label in shown:
            units.setdefault(column.unit or column.label, []).append(place)
    sets = _sets(rows)
    for name, members in sets.items():
        for unit, places in units.items():
            # Descriptions tell the figures of a page apart.
            words = "The numbers stand in the table above."
            marks = [name] * (len(sets) > 1) + [unit] * (len(units) > 1)
            svg = _table_figure(members, [columns[k] for k in places], places, unit,
                                ". ".join([*marks, words]))  # fmt: skip
            if not svg:
                continue
            label = columns[places[0]].label
            named = unit if len(places) > 1 or unit in label else f"{label}, {unit}"
            legend = [{"label": own, "key": Markup(figures.key(i))}
                      for i, (own, _) in enumerate(members)]  # fmt: skip
            drawn.append(
                {
                    "svg": Markup(svg),
                    "unit": ": ".join([name] * bool(name) + [named]),
                    "legend": legend if len(places) > 1 else [],
                }
            )
    return drawn


def _sets(rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the rows of each set, with what follows its name.

    Rows that are named "SET: ROW" stand in figures of their own where a single one would have more
    lines than there are colors; all others are one set without a name.
    """
    parts = [row["label"].partition(": ") for row in rows]
    if len(rows) <= len(figures.SERIES) or not all(after for _, _, after in parts):
        return {"": [(row["label"], row) for row in rows]}
    sets: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for (name, _, own), row in zip(parts, rows, strict=True):
        sets.setdefault(name, []).append((own, row))
    return sets


def _table_figure(
    rows: list[tuple[str, dict[str, Any]]],
    columns: Sequence[Column],
    places: Sequence[int],
    unit: str,
    words: str,
) -> str:
    """Return a figure of some columns; nothing where there is none to draw."""
    grid = [[_point(row["cells"][place]) for place in places] for _, row in rows]
    digits = columns[0].digits
    if not any(point for line in grid for point in line):
        return ""
    if len(columns) > 1:
        return figures.comparison(grid, [column.label for column in columns], unit, words)
    if digits is None:
        return ""  # values that differ by powers of ten show nothing on one scale
    points = [(label, line[0]) for (label, _), line in zip(rows, grid, strict=True) if line[0]]
    return figures.intervals(points, unit, digits, lead=False, description=words)


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
    return [{"svg": Markup(svg), "unit": unit, "legend": []}]


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
