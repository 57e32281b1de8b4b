"""Tables: recorded cells are found again, columns read what they say, old tables read on."""

import json
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from math import nan
from pathlib import Path
from typing import Any

import pytest

from whatwhere import experiments, report
from whatwhere.core import InputError
from whatwhere.experiments import table
from whatwhere.experiments.job import Job, Machine
from whatwhere.experiments.plan import Cell, Column, Plan, Result, metric

RECORDED = Path(__file__).parents[2] / "results"
TABLES = sorted(RECORDED.glob("*/table.json"))
# A table of the first version has one unit, that of all its columns.
FIRST = [path for path in TABLES if "units" not in json.loads(path.read_text("utf-8"))]


def measured(cell: Cell, read: Any, trainer: Any) -> Result:
    """Find what the options of the cell say."""
    return Result(cell.options["found"])


def cells(row: str, found: list[dict[str, Any]], column: str = "test") -> list[Cell]:
    """Return a cell a draw that will find these metrics."""
    job = Job("digits", "given", labels="none")
    return [
        Cell(row, column, draw, replace(job, seed=draw), method=measured, options={"found": one})
        for draw, one in enumerate(found)
    ]


def run(tmp_path: Path, columns: tuple[Column | str, ...], *rows: list[Cell], **given: Any):
    """Run a table of these cells."""
    plan = Plan("A table", "", columns, tuple(cell for row in rows for cell in row), **given)
    return table.run(plan, tmp_path / "out", machine=Machine("cpu"))


# What was recorded stays.


PLANS = {
    "swwae-mnist": ("full", 10),
    "deep-autoencoder-mnist": ("full", None),
    "sparse-regimes": ("full", None),
    "pretraining": ("quick", None),
    "outliers": ("quick", None),
    "rbm-likelihood": ("full", None),
    "dbn-mnist": ("quick", None),
    "dbm-mnist": ("quick", None),
    "restoration": ("quick", None),
    "experiment-1": ("quick", 3),
    "exemplar-cifar10": ("quick", None),
}
IN_PART = {"experiment-1-full": ("experiment-1", "full")}
"""Recorded tables of those rows alone that were run: which experiment, and which budget."""


def recorded_plan(name: str) -> Plan:
    """Return the plan of a recorded table."""
    if name not in IN_PART:
        return experiments.find(name).plan(*PLANS[name], None)
    experiment, budget = IN_PART[name]
    folder = RECORDED / name / "cells"
    return (
        experiments.find(experiment)
        .plan(budget, None, None)
        .part({json.loads(path.read_text("utf-8"))["row"] for path in folder.iterdir()})
    )


@pytest.mark.parametrize("name", [*PLANS, *IN_PART])
def test_every_recorded_cell_is_found_again_by_its_plan(name: str):
    folder = RECORDED / name / "cells"
    recorded = {path.name for path in folder.iterdir()}
    planned = {cell.file: cell for cell in recorded_plan(name).cells}
    assert recorded
    assert recorded <= planned.keys()
    for file in recorded:
        record = json.loads((folder / file).read_text("utf-8"))
        cell = planned[file]
        assert (record["column"], record["draw"]) == (cell.column, cell.draw)
        assert record["job"] == json.loads(json.dumps(cell.job.record() | {"data_dir": None}))


@pytest.mark.parametrize("name", [*PLANS, *IN_PART])
def test_the_recorded_table_is_what_its_cells_say_today(name: str, tmp_path: Path):
    cells = tmp_path / "cells"
    cells.symlink_to(RECORDED / name / "cells")
    former = json.loads((RECORDED / name / "table.json").read_text("utf-8"))
    made = table.write_table(recorded_plan(name), tmp_path)
    assert made["rows"] == former["rows"]
    assert made["differences"] == former["differences"]
    assert table.markdown(made) == table.markdown(former)


def first_version(recorded: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a table as the first version wrote them into documents."""

    def number(cell: Mapping[str, Any] | None, signed: bool) -> str:
        if cell is None or cell["mean"] is None:
            return "not run"
        if signed:
            low, high = cell["interval"] or (None, None)
            return f"{cell['mean']:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")
        spread = f" ± {cell['sd']:.2f} ({cell['n']})" if cell.get("sd") is not None else ""
        return f"{cell['mean']:.2f}{spread}"

    told = [
        [entry["label"], *(number(cell, signed) for cell in entry["cells"])]
        for part, signed in (("rows", False), ("differences", True))
        for entry in recorded[part]
    ]
    return [[recorded["unit"], *recorded["columns"]], *told]


@pytest.mark.parametrize("path", FIRST, ids=lambda path: path.parent.name)
def test_a_table_recorded_earlier_has_the_text_that_it_had(path):
    recorded = json.loads(path.read_text("utf-8"))
    told = [row for row in table.lines(recorded) if not row[0].endswith(", published")]
    assert told == first_version(recorded)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_a_table_recorded_earlier_is_still_a_page(path, tmp_path):
    (tmp_path / "table.json").write_bytes(path.read_bytes())
    page = report.render(tmp_path)
    recorded = json.loads(path.read_text("utf-8"))
    for row in recorded["rows"]:
        assert escape(row["label"]) in page
        for cell in row["cells"] if path in FIRST else ():
            assert cell is None or cell["mean"] is None or f"{cell['mean']:.2f}" in page


def test_what_decides_nothing_new_does_not_rename_a_cell():
    job = Job("digits", "swwae", labels="50")
    cell = Cell("row", "column", 0, job)
    assert cell.file == Cell("other row", "other column", 0, replace(job, data_dir="x")).file
    assert cell.file != replace(cell, options={"held_out": 1}).file
    assert cell.file != replace(cell, method=measured).file
    assert cell.file != replace(cell, budget="quick").file


@pytest.mark.parametrize("name", experiments.CONTENTS)
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_no_two_cells_of_a_published_table_share_a_record(name, budget):
    plan = experiments.find(name).plan(budget, None, None)
    assert len({cell.file for cell in plan.cells}) == len(plan.cells)
    labels = {column.cells for column in plan.measured}
    assert {cell.column for cell in plan.cells} == labels
    rows = set(plan.rows)
    assert {row for pair in plan.differences for row in pair} <= rows
    assert {row for row, _ in plan.published} <= rows
    for cell in plan.cells:
        cell.check()


# Columns.


def test_a_column_reads_its_measure_of_the_cells_that_it_names(tmp_path):
    found = [{"error": 5.0, "nats": -80.0}, {"error": 7.0, "nats": -82.0}]
    columns = (Column("error, %", of="test"), Column("nats", metric("nats"), "nats", 1, "test"))
    made = run(tmp_path, columns, cells("one", found))
    (row,) = made["rows"]
    assert [cell["mean"] for cell in row["cells"]] == [6.0, -81.0]
    assert table.lines(made)[1] == ["one", "6.00 ± 1.41 (2)", "-81.0 ± 1.4 (2)"]


def test_units_that_differ_stand_in_the_heads_of_their_columns(tmp_path):
    columns = (Column("a", of="test"), Column("b", metric("nats"), "nats", 1, "test"))
    made = run(tmp_path, columns, cells("one", [{"error": 5.0, "nats": -80.0}]))
    assert made["unit"] == ""
    assert table.lines(made)[0] == ["", "a (test error, %)", "b (nats)"]
    one = run(tmp_path / "one", ("test",), cells("one", [{"error": 5.0}]))
    assert table.lines(one)[0] == ["test error, %", "test"]


def test_values_that_differ_by_powers_of_ten_have_three_digits(tmp_path):
    column = Column("size", metric("size"), "", None, "test")
    made = run(
        tmp_path, (column,), cells("one", [{"size": 1.2345e-9}]), cells("two", [{"size": 12345}])
    )
    assert [line[1] for line in table.lines(made)[1:]] == ["1.23e-09", "1.23e+04"]


def test_a_value_that_is_missing_or_not_finite_is_left_out_of_the_mean(tmp_path):
    made = run(
        tmp_path,
        (Column("test", metric("size"), "", 1),),
        cells("some", [{"size": 2.0}, {"size": nan}, {}]),
        cells("none", [{}]),
    )
    some, none = (row["cells"][0] for row in made["rows"])
    assert (some["mean"], some["n"]) == (2.0, 1)
    assert none["mean"] is None
    assert [line[1] for line in table.lines(made)[1:]] == ["2.0", "–"]


def test_a_cell_that_was_not_run_says_so_and_keeps_what_was_published(tmp_path):
    plan = Plan(
        "A table",
        "",
        ("test",),
        tuple(cells("one", [{"error": 1.0}])),
        published={("one", "test"): "3.00"},
    )
    made = table.write_table(plan, tmp_path)
    assert table.lines(made)[1:] == [["one", "not run"], ["one, published", "3.00"]]


def test_means_stand_with_their_interval_where_the_plan_asks_for_it(tmp_path):
    found = cells("one", [{"error": 5.0}, {"error": 7.0}, {"error": 9.0}])
    told = table.lines(run(tmp_path, ("test",), found, intervals=True))
    assert told[1][1] == "7.00 [2.03, 11.97] (3)"


def test_what_a_row_does_not_measure_has_no_difference_either(tmp_path):
    columns = tuple(Column(name, metric(name), "", 2, "test") for name in "ab")
    one, two = cells("one", [{"a": 1.0}]), cells("two", [{"a": 2.0, "b": 3.0}])
    made = run(tmp_path, columns, one, two, differences=(("two", "one"),))
    assert table.lines(made)[-1] == ["two minus one", "+1.00", "–"]


def test_a_part_that_no_cell_has_is_refused(tmp_path):
    plan = Plan("A table", "", ("test",), (*cells("CIFAR-10: SWWAE", [{}]), *cells("two", [{}])))
    with pytest.raises(InputError, match="did you mean CIFAR-10: SWWAE"):
        table.run(plan, tmp_path, machine=Machine("cpu"), only="CIFAR10: SWWAE")


def test_differences_are_paired_by_draw(tmp_path):
    easy_and_hard = [{"error": 1.0}, {"error": 50.0}]
    other = [{"error": 3.0}, {"error": 52.0}]
    made = run(
        tmp_path,
        ("test",),
        cells("one", easy_and_hard),
        cells("two", other),
        differences=(("two", "one"),),
    )
    assert made["differences"][0]["cells"][0]["interval"] == pytest.approx([2.0, 2.0])
    assert table.lines(made)[-1] == ["two minus one", "+2.00 [+2.00, +2.00]"]


def test_a_part_of_a_table_has_the_rows_that_were_asked_for_now_or_before(tmp_path):
    parts = [cells(row, [{"error": x}]) for row, x in (("one", 1.0), ("two", 2.0), ("three", 3.0))]
    plan = Plan(
        "A table",
        "",
        ("test",),
        tuple(cell for part in parts for cell in part),
        differences=(("two", "one"), ("three", "one")),
    )
    for only, rows in (("two", ["two"]), ("one", ["one", "two", "two minus one"])):
        made = table.run(plan, tmp_path, machine=Machine("cpu"), only=only)
        assert [row[0] for row in table.lines(made)[1:]] == rows


# Probes.


def test_a_row_whose_errors_are_a_probes_says_so(tmp_path):
    probed = {"error": 9.0, "probe": "linear"}
    made = run(
        tmp_path,
        ("test",),
        cells("features", [probed]),
        cells("classes", [{"error": 5.0}]),
        differences=(("classes", "features"),),
    )
    assert [row["label"] for row in made["rows"]] == ["features (linear probe)", "classes"]
    assert made["differences"][0]["label"] == "classes minus features (linear probe)"
    assert table.PROBE_NOTE in made["notes"]
    page = report.render(tmp_path / "out")
    assert "features (linear probe)" in page
    assert "logistic regression on its features" in page


def test_a_table_without_a_probe_has_no_note_of_one(tmp_path):
    made = run(tmp_path, ("test",), cells("classes", [{"error": 5.0}]))
    assert made["notes"] == []


def test_only_test_errors_are_marked_a_column_of_its_own_says_itself_what_it_reads(tmp_path):
    column = Column("probe error, %", metric("error"), "", of="test")
    made = run(tmp_path, (column,), cells("features", [{"error": 9.0, "probe": "linear"}]))
    assert made["rows"][0]["label"] == "features"


# Running.


def test_a_cell_that_is_there_is_not_run_again(tmp_path):
    found = cells("one", [{"error": 5.0}])
    run(tmp_path, ("test",), found)
    (record,) = (tmp_path / "out" / "cells").iterdir()
    before = record.stat().st_mtime_ns
    run(tmp_path, ("test",), found, notes=("again",))
    assert record.stat().st_mtime_ns == before
    assert not list((tmp_path / "out" / "running").iterdir())


@pytest.mark.slow
def test_cells_in_other_processes_find_what_they_find_here(tmp_path):
    rows = [cells("one", [{"error": 5.0}]), cells("two", [{"error": 6.0}])]
    here = run(tmp_path / "here", ("test",), *rows)
    plan = Plan("A table", "", ("test",), tuple(cell for row in rows for cell in row))
    there = table.run(plan, tmp_path / "there", machine=Machine("cpu"), jobs=2)

    def means(made: Mapping[str, Any]) -> list[float]:
        return [row["cells"][0]["mean"] for row in made["rows"]]

    assert means(there) == means(here) == [5.0, 6.0]


def test_another_table_is_not_written_over(tmp_path):
    run(tmp_path, ("test",), cells("one", [{"error": 5.0}]))
    with pytest.raises(InputError, match="holds another table"):
        run(tmp_path, (Column("other", of="test"),), cells("one", [{"error": 5.0}]))


def test_what_cannot_be_read_leaves_no_folder_behind(tmp_path):
    (cell,) = cells("RBM", [{"error": 8.0}])
    cell = replace(cell, job=replace(cell.job, data="mnist", data_dir=str(tmp_path / "none")))
    with pytest.raises(InputError, match="mnist"):
        run(tmp_path, ("test",), [cell])
    assert not (tmp_path / "out").exists()
