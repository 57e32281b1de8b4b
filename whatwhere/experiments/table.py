"""Tables: cells that are run once, kept as JSON, and read into one page.

A cell is one method on one draw, by default a learner on a draw of labels. Its file is named by
what decides its result, so a second call runs only what is missing, and a changed row only its own
cells.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from math import isfinite
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whatwhere import runs
from whatwhere.core import InputError, unknown
from whatwhere.experiments.job import Machine
from whatwhere.experiments.plan import Cell, Plan, test_error

if TYPE_CHECKING:
    from whatwhere.train.trainer import Watcher

CELLS, RUNNING, TABLE = "cells", "running", "table.json"
PROBED = " (linear probe)"  # is added to a row whose errors are a probe's
PROBE_NOTE = (
    "Linear probe: the learner never looks at labels and names no classes; the error is that of "
    "logistic regression on its features, fitted to the same labels as the other rows are shown."
)

Watch = Callable[[str], Sequence["Watcher"]]


def unwatched(name: str) -> Sequence["Watcher"]:
    """Return no watcher; a function of the module, for it goes to other processes."""
    return ()


def run(
    plan: Plan,
    out: Path,
    *,
    machine: Machine,
    jobs: int = 1,
    watch: Watch = unwatched,
    command: str = "",
    only: str = "",
) -> dict[str, Any]:
    """Run the cells that are missing in the folder, and write the table of all that is there.

    Parameters
    ----------
    plan : Plan
    out : Path
        May hold cells of an earlier call.
    machine : Machine
    jobs : int
        Cells at a time, each in a process of its own with one thread.
    watch : callable (name of a cell) -> sequence of Watcher
    command : str
        For the record.
    only : str
        Run only the cells whose name holds this text. The table has their rows, and those of cells
        that were run before.

    Raises
    ------
    InputError
        If no cell is to be run by `only`.
    Interrupted
        After Ctrl-C; finished cells are kept, and a running one goes on next time.
    """
    if not any(only in cell.name for cell in plan.cells):
        raise unknown("--only: no cell of the table holds", only, plan.rows)
    folder = out / CELLS
    plan = plan.part(
        {cell.row for cell in plan.cells if only in cell.name or (folder / cell.file).exists()}
    )
    missing = [
        cell for cell in plan.cells if only in cell.name and not (folder / cell.file).exists()
    ]
    for cell in missing:
        cell.check()
    _check_same(plan, out)
    if jobs == 1:
        for cell in missing:
            run_cell(cell, out, machine, command, watch)
            write_table(plan, out, command)
    elif missing:
        machine = replace(machine, threads=1)
        # Forking a process in which torch has started its threads may hang.
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            running = [
                pool.submit(run_cell, cell, out, machine, command, watch) for cell in missing
            ]
            try:
                for done in as_completed(running):
                    done.result()
                    write_table(plan, out, command)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                # One that is only interrupted takes the next cell from its queue.
                for child in active_children():
                    child.kill()
                raise
    return write_table(plan, out, command)


def _check_same(plan: Plan, out: Path) -> None:
    """Refuse a folder whose table is another, or whose cells saw other images.

    Raises
    ------
    InputError
        Naming what differs.
    """
    way, labels = "choose another --out", [column.label for column in plan.measured]
    if (out / TABLE).exists():
        former = json.loads((out / TABLE).read_text(encoding="utf-8"))
        if (former["title"], former["columns"]) != (plan.title, labels):
            raise InputError(f"{out} holds another table, {former['title']!r}; {way}")
        n = max((cell["n"] for row in former["rows"] for cell in row["cells"] if cell), default=0)
        draws = len({cell.draw for cell in plan.cells})
        if n > draws:
            raise InputError(f"{out} holds {n} draws; say --seeds {n} or more, or {way}")
    images: dict[tuple[Any, ...], dict[str, str | None]] = {}
    for cell in plan.cells:
        path = out / CELLS / cell.file
        if path.exists():
            source = (cell.job.data, cell.job.split, cell.job.test_fraction)
            if source not in images:
                images[source] = cell.job.read().fingerprints()
            recorded = json.loads(path.read_text(encoding="utf-8"))["data"]
            if any(recorded.get(name, now) != now for name, now in images[source].items()):
                raise InputError(
                    f"the images of {cell.job.data} changed since {path} was run; {way}"
                )


def run_cell(cell: Cell, out: Path, machine: Machine, command: str, watch: Watch) -> None:
    """Run one cell and write its record; one that was stopped goes on from its checkpoint."""
    import torch

    from whatwhere.train import checkpoint
    from whatwhere.train.trainer import Trainer

    began = time.perf_counter()
    read = cell.job.read(machine.cache)
    if read.test is None:
        raise InputError(f"{cell.job.data} has no test part; cut one off with --test-fraction F")
    fabric = machine.fabric()
    torch.set_num_threads(machine.threads or torch.get_num_threads())
    folder = _folder(out)
    # What a checkpoint must not go on from is in its name: other images, other threads.
    marks = f"{read.data.train.fingerprint()[:8]}-{torch.get_num_threads()}"
    scratch = out / RUNNING / f"{cell.file.removesuffix('.json')}-{marks}"
    scratch.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(fabric, scratch / runs.CHECKPOINT, watch(cell.name))
    metrics, history = cell.run(read, trainer)
    seconds = sum(record["seconds"] for record in history) or time.perf_counter() - began
    record = {
        "row": cell.row,
        "column": cell.column,
        "draw": cell.draw,
        "budget": cell.budget,
        "job": cell.job.record() | {"data_dir": None},
        **({"options": dict(cell.options)} if cell.options else {}),
        "metrics": {name: value for name, value in metrics.items() if name != "confusion"},
        "minutes": round(seconds / 60, 2),
        "threads": torch.get_num_threads(),
        "precision": machine.precision,
        "hardware": runs.hardware() | {"device": str(fabric.device)},
        "versions": runs.versions(),
        "commit": commit(),
        "command": command,
        "data": read.facts(cell.job),
        "curve": [{name: _short(value) for name, value in epoch.items()} for epoch in history],
    }
    runs.write_json(folder / cell.file, record)
    checkpoint.remove(scratch / runs.CHECKPOINT)
    scratch.rmdir()


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _folder(out: Path) -> Path:
    folder = out / CELLS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    return folder


def commit() -> str | None:
    """Return the commit of the program's source, or None where it is installed without."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def write_table(plan: Plan, out: Path, command: str = "") -> dict[str, Any]:
    """Write what the finished cells of the plan say, and return it."""
    from whatwhere.evaluate import measures

    values: dict[tuple[str, str], dict[int, float | None]] = {}
    minutes: dict[str, list[float]] = {}
    probed: set[str] = set()
    columns = plan.measured
    for cell in plan.cells:
        path = out / CELLS / cell.file
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        minutes.setdefault(cell.row, []).append(record["minutes"])
        for column in columns:
            if column.cells == cell.column:
                found = values.setdefault((cell.row, column.label), {})
                found[cell.draw] = column.read(record)
                if column.read is test_error and "probe" in record["metrics"]:
                    probed.add(cell.row)

    def known(row: str, column: str) -> dict[int, float]:
        found = values.get((row, column), {})
        return {draw: x for draw, x in found.items() if x is not None and isfinite(x)}

    def told(row: str, column: str) -> dict[str, Any] | None:
        published, n = plan.published.get((row, column)), len(values.get((row, column), {}))
        found = known(row, column)
        if not found:
            nothing = {"mean": None, "n": n, "published": published}
            return nothing if n or published is not None else None
        return measures.mean_interval(list(found.values())) | {"published": published}

    def difference(row: str, other: str, column: str) -> dict[str, Any] | None:
        a, b = known(row, column), known(other, column)
        if a.keys() & b.keys():
            return measures.paired_difference(a, b)
        both = values.get((row, column), {}).keys() & values.get((other, column), {}).keys()
        return {"mean": None, "n": len(both)} if both else None

    def marked(row: str) -> str:
        return row + PROBED * (row in probed)

    units = [column.unit for column in columns]
    table = {
        "title": plan.title,
        "caption": plan.caption,
        "command": command,
        "unit": units[0] if len(set(units)) == 1 else "",
        "units": units,
        "digits": [column.digits for column in columns],
        "draws": plan.draws,
        "intervals": plan.intervals,
        **({"drawn": list(plan.drawn)} if plan.drawn else {}),
        "columns": [column.label for column in columns],
        "rows": [
            {
                "label": marked(row),
                "cells": [told(row, column.label) for column in columns],
                "minutes": round(sum(minutes[row]) / len(minutes[row]), 1)
                if row in minutes
                else None,
            }
            for row in plan.rows
        ],
        "differences": [
            {
                "label": f"{marked(row)} minus {marked(other)}",
                "cells": [difference(row, other, column.label) for column in columns],
            }
            for row, other in plan.differences
        ],
        "notes": [*plan.notes, *[PROBE_NOTE] * bool(probed)],
    }
    runs.write_json(out / TABLE, table)
    return table


def lines(table: Mapping[str, Any]) -> list[list[str]]:
    """Return the table as text, cell by cell, its head first."""
    columns = table["columns"]
    digits = table.get("digits", [2] * len(columns))  # tables of the first version have none

    def number(value: float, digits: int | None, sign: str = "") -> str:
        return f"{value:{sign}.3g}" if digits is None else f"{value:{sign}.{digits}f}"

    def text(cell: Mapping[str, Any] | None, digits: int | None, sign: str = "") -> str:
        if cell is None or cell["mean"] is None:
            return "–" if cell and cell["n"] else "not run"
        mean, interval = number(cell["mean"], digits, sign), cell.get("interval")
        if interval and (sign or table.get("intervals")):
            mean += " [" + ", ".join(number(end, digits, sign) for end in interval) + "]"
        elif cell.get("sd") is not None and not sign:
            mean += f" ± {number(cell['sd'], digits)}"
        return mean if sign or cell.get("sd") is None else f"{mean} ({cell['n']})"

    def row(entry: Mapping[str, Any], sign: str = "") -> list[str]:
        texts = (text(cell, n, sign) for cell, n in zip(entry["cells"], digits, strict=True))
        return [entry["label"], *texts]

    body = [row(entry) for entry in table["rows"]]
    published = [
        [
            f"{entry['label']}, published",
            *((cell or {}).get("published") or "" for cell in entry["cells"]),
        ]
        for entry in table["rows"]
    ]
    body += [entry for entry in published if any(entry[1:])]
    body += [row(entry, "+") for entry in table["differences"]]
    heads = columns
    if not table["unit"]:
        named = zip(columns, table["units"], strict=True)
        heads = [f"{column} ({unit})" if unit else column for column, unit in named]
    return [[table["unit"], *heads], *body]


def told(table: Mapping[str, Any]) -> str:
    """Return the table as plain text."""
    rows = lines(table)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown(table: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    head, *body = lines(table)
    rule = ["---", *["---:" for _ in head[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
