"""Tables: cells that are run once, kept as JSON, and read into one page.

A cell is one learner on one draw of labels. Its file is named by what decides its result, so a
second call runs only what is missing, and a changed row only its own cells.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whatwhere import runs
from whatwhere.core import InputError
from whatwhere.experiments.fitting import fit_images
from whatwhere.experiments.job import Job, Machine
from whatwhere.experiments.stopping import stoppable

if TYPE_CHECKING:
    from whatwhere.train.trainer import Watcher

CELLS, RUNNING, TABLE = "cells", "running", "table.json"
SVM = "svm"  # the model of a cell that fits no learner of ours

Watch = Callable[[str], Sequence["Watcher"]]


@dataclass(frozen=True)
class Cell:
    """One learner on one draw.

    Attributes
    ----------
    row, column : str
        Where its result stands in the table.
    draw : int
        Cells of one column and draw share their labels: differences are paired by it.
    job : Job
    budget : str
    """

    row: str
    column: str
    draw: int
    job: Job
    budget: str = "full"

    @property
    def name(self) -> str:
        """Say the cell."""
        return f"{self.row}, {self.column}, draw {self.draw}"

    @property
    def file(self) -> str:
        """The name of its record: what decides the result, and so not where the data lies."""
        decides = self.job.record() | {"data_dir": None, "budget": self.budget}
        digest = blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=6).hexdigest()
        return f"{self.job.model}-{self.job.labels}-{self.draw}-{digest}.json"

    def check(self) -> None:
        """Check what can be checked before hours of training.

        Raises
        ------
        InputError
            Naming what is wrong with the job.
        """
        self.job.n_labels()
        self.job.n_validation()
        if self.job.model != SVM:
            self.job.learner()


@dataclass(frozen=True)
class Plan:
    """A table before it is run.

    Attributes
    ----------
    title, caption : str
    columns : tuple of str
    cells : tuple of Cell
    published : dict
        What others reported, by (row, column).
    differences : tuple of (row, row)
        Rows whose difference, first minus second, is told, paired by draw.
    notes : tuple of str
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    published: Mapping[tuple[str, str], str] = field(default_factory=dict)
    differences: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[str]:
        """The rows, in the order of the cells."""
        return list(dict.fromkeys(cell.row for cell in self.cells))


def run(
    plan: Plan,
    out: Path,
    *,
    machine: Machine,
    jobs: int = 1,
    watch: Watch = lambda name: (),
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
        Run only the cells whose name holds this text.

    Raises
    ------
    Interrupted
        After Ctrl-C; finished cells are kept, and a running one goes on next time.
    """
    folder = _folder(out)
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
                raise
    return write_table(plan, out, command)


def _check_same(plan: Plan, out: Path) -> None:
    """Refuse a folder whose table is another, or whose cells saw other images.

    Raises
    ------
    InputError
        Naming what differs.
    """
    way = "choose another --out"
    if (out / TABLE).exists():
        former = json.loads((out / TABLE).read_text(encoding="utf-8"))
        if (former["title"], former["columns"]) != (plan.title, list(plan.columns)):
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

    from whatwhere.evaluate import judge
    from whatwhere.train import checkpoint
    from whatwhere.train.trainer import Trainer

    began = time.perf_counter()
    read = cell.job.read(machine.cache)
    if read.test is None:
        raise InputError(f"{cell.job.data} has no test part; cut one off with --test-fraction F")
    fabric = machine.fabric()
    torch.set_num_threads(machine.threads or torch.get_num_threads())
    # What a checkpoint must not go on from is in its name: other images, other threads.
    marks = f"{read.data.train.fingerprint()[:8]}-{torch.get_num_threads()}"
    scratch = out / RUNNING / f"{cell.file.removesuffix('.json')}-{marks}"
    history: Sequence[Mapping[str, Any]] = ()
    if cell.job.model == SVM:
        metrics: Mapping[str, Any] = judge.floor(read.train, read.test)
    else:
        learner = cell.job.learner()
        scratch.mkdir(parents=True, exist_ok=True)
        with stoppable() as stop:
            learner.trainer = Trainer(fabric, scratch / runs.CHECKPOINT, watch(cell.name), stop)
            fit_images(learner, read)
        metrics, history = judge.evaluate(learner, read.test), learner.history_
    seconds = sum(record["seconds"] for record in history) or time.perf_counter() - began
    record = {
        "row": cell.row,
        "column": cell.column,
        "draw": cell.draw,
        "budget": cell.budget,
        "job": cell.job.record() | {"data_dir": None},
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
    runs.write_json(_folder(out) / cell.file, record)
    if scratch.exists():
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

    errors: dict[tuple[str, str], dict[int, float]] = {}
    minutes: dict[str, list[float]] = {}
    for cell in plan.cells:
        path = out / CELLS / cell.file
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            errors.setdefault((cell.row, cell.column), {})[cell.draw] = record["metrics"]["error"]
            minutes.setdefault(cell.row, []).append(record["minutes"])

    def told(row: str, column: str) -> dict[str, Any] | None:
        published = plan.published.get((row, column))
        found = errors.get((row, column))
        if not found:
            return None if published is None else {"mean": None, "n": 0, "published": published}
        return measures.mean_interval(list(found.values())) | {"published": published}

    def difference(row: str, other: str, column: str) -> dict[str, Any] | None:
        a, b = errors.get((row, column), {}), errors.get((other, column), {})
        return measures.paired_difference(a, b) if a.keys() & b.keys() else None

    table = {
        "title": plan.title,
        "caption": plan.caption,
        "command": command,
        "unit": "test error, %",
        "columns": list(plan.columns),
        "rows": [
            {
                "label": row,
                "cells": [told(row, column) for column in plan.columns],
                "minutes": round(sum(minutes[row]) / len(minutes[row]), 1)
                if row in minutes
                else None,
            }
            for row in plan.rows
        ],
        "differences": [
            {
                "label": f"{row} minus {other}",
                "cells": [difference(row, other, column) for column in plan.columns],
            }
            for row, other in plan.differences
        ],
        "notes": list(plan.notes),
    }
    runs.write_json(out / TABLE, table)
    return table


def lines(table: Mapping[str, Any]) -> list[list[str]]:
    """Return the table as text, cell by cell, its head first."""

    def number(cell: Mapping[str, Any] | None, sign: str = "") -> str:
        if cell is None or cell["mean"] is None:
            return "not run"
        spread = (
            f" ± {cell['sd']:.2f} ({cell['n']})" if cell.get("sd") is not None and not sign else ""
        )
        if sign and cell["interval"]:
            spread = f" [{cell['interval'][0]:{sign}.2f}, {cell['interval'][1]:{sign}.2f}]"
        return f"{cell['mean']:{sign}.2f}{spread}"

    def row(entry: Mapping[str, Any], sign: str = "") -> list[str]:
        return [entry["label"], *(number(cell, sign) for cell in entry["cells"])]

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
    return [[table["unit"], *table["columns"]], *body]


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
