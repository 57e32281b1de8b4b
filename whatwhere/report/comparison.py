"""What the page of a comparison shows."""

import os
import shlex
from pathlib import Path
from typing import Any
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
    columns = [str(column) for column in table.get("columns") or []]
    rows, lines = (
        [_row(row, len(columns)) for row in table.get(part) or [] if isinstance(row, dict)]
        for part in ("rows", "differences")
    )
    runs = [_sub_run(run, found.path, beside) for run in found.runs]
    unit = str(table.get("unit") or "test error, %")
    return {
        "found": found,
        "title": str(table.get("title") or f"{len(runs)} runs in {found.path.name or found.path}"),
        "caption": str(table.get("caption") or ""),
        "unit": unit,
        "columns": columns,
        "rows": rows,
        "differences": lines,
        "overview": "" if table else _overview(runs),
        "sentences": wording.differences(found),
        "notes": [str(note) for note in table.get("notes") or []],
        "runs": runs,
        "any_published": any(c and c["published"] for row in rows for c in row["cells"]),
        "any_interval": any(c and c["interval"] for row in rows for c in row["cells"]),
        "figure": _table_figure(rows, columns, unit) if table else _runs_figure(runs),
        "legend": [
            {"label": row["label"], "key": Markup(figures.key(i))} for i, row in enumerate(rows)
        ]
        if len(columns) > 1
        else [],
        "commands": _next(found),
    }


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


def _row(row: dict[str, Any], width: int) -> dict[str, Any]:
    """Return a row with a cell a column: a dict with a mean, or None."""
    given = row.get("cells") or []
    cells = []
    for cell in [*given, *[None] * width][:width]:
        if not isinstance(cell, dict) or not wording.is_number(cell.get("mean")):
            note = cell.get("note") if isinstance(cell, dict) else ""
            cells.append({"mean": None, "note": note, "published": None, "interval": None}
                         if note else None)  # fmt: skip
            continue
        ends = wording.interval_of(cell.get("interval"))
        cells.append(
            {
                "mean": float(cell["mean"]),
                "sd": cell["sd"] if wording.is_number(cell.get("sd")) else None,
                "n": cell.get("n"),
                "interval": ends,
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


def _table_figure(rows: list[dict[str, Any]], columns: list[str], unit: str) -> Markup | None:
    grid = [
        [
            figures.point(cell["mean"], cell["interval"], _published(cell["published"]))
            if cell and cell["mean"] is not None
            else None
            for cell in row["cells"]
        ]
        for row in rows
    ]
    words = "The numbers stand in the table above."
    if len(columns) == 1:
        points = [(row["label"], line[0]) for row, line in zip(rows, grid, strict=True) if line[0]]
        return (
            Markup(figures.intervals(points, unit, lead=False, description=words))
            if points
            else None
        )
    if not any(point for line in grid for point in line):
        return None
    return Markup(figures.comparison(grid, columns, unit, words))


def _runs_figure(runs: list[dict[str, Any]]) -> Markup | None:
    points = [
        (run["name"], figures.point(run["error"], run["interval"]))
        for run in runs
        if run["error"] is not None
    ]
    if not 2 <= len(points) <= 30:
        return None
    words = "The numbers stand in the table of runs."
    unit = "test error, %, with its 95 % interval"
    return Markup(figures.intervals(points, unit, lead=False, description=words))


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
