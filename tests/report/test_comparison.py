import re
from typing import Any

from whatwhere.report import render, write


def test_the_numbers_of_the_table_stand_on_the_page(folders, page):
    text = page(render(folders.table())).text
    told = [
        "8.14 ± 0.61", "n = 3, 6.62 to 9.66", "published 8.71 ± 0.34", "22.50 ± 2.00",
        "+9.76", "6.90 to 12.60", "−0.10 to 1.20", "Semi-supervised MNIST",
        "whatwhere reproduce swwae-mnist --seeds 3 --out results/swwae-mnist",
        "Loss weights were chosen on 1,000 validation images",
    ]  # fmt: skip
    assert [number for number in told if number not in text] == []


def test_a_missing_cell_is_a_dash(folders):
    html = render(folders.table())
    svm = re.search(r"SVM on raw pixels</th>.*?</tr>", html, re.DOTALL)
    assert svm
    assert re.findall(r'<td class="num">–</td>', svm[0]) == ['<td class="num">–</td>']


def test_only_differences_whose_interval_leaves_zero_out_are_bold(folders, page):
    html = render(folders.table())
    section = html[html.index('<section id="differences"') : html.index('<section id="notes"')]
    bold = re.findall(r"<strong>(.*?)</strong>", section)
    assert bold == ["+9.76", "+2.39", "+1.72"]
    assert "and includes zero at 3000 labels" in page(html).text


def test_rows_shorter_than_the_columns_are_filled(folders, page):
    path = folders.table(rows=[{"label": "SWWAE", "cells": [{"mean": 8.14}]}], differences=[])
    found = page(render(path))
    assert found.faults == []
    assert "8.14" in found.text


def test_a_table_of_one_column_is_drawn_as_dots(folders):
    whole = folders.table("whole")
    one = folders.table(
        "one",
        columns=["50 labels"],
        rows=[{"label": "SWWAE", "cells": [{"mean": 8.14, "n": 1, "sd": None}]}],
        differences=[],
    )
    assert '<ul class="legend">' in render(whole)
    html = render(one)
    assert '<ul class="legend">' not in html
    assert "<figure" in html


def test_each_column_has_its_own_unit_decimals_and_scale(folders, page):
    def cell(mean: float) -> dict[str, float | int | None]:
        return {"mean": mean, "n": 1, "sd": None}

    rows = [{"label": "RBM", "cells": [cell(8.14), cell(0.87649), cell(1.2345e-9)]}]
    path = folders.table(
        columns=["labels", "a class held out", "first gradient"],
        unit="",
        units=["test error, %", "AUROC", ""],
        digits=[2, 3, None],
        draws="classes held out",
        rows=rows,
        differences=rows,
    )
    found = page(render(path))
    told = ["8.14", "0.876", "1.23e−09", "+0.876", "a class held out, AUROC"]
    assert [text for text in [*told, "the same classes held out"] if text not in found.text] == []
    assert found.faults == []
    # What differs by powers of ten shows nothing on one scale.
    assert len(re.findall("<figure", render(path))) == 2


def test_a_table_without_any_number_has_no_figure(folders, page):
    path = folders.table(rows=[{"label": "SWWAE", "cells": [None, None]}], differences=[])
    found = page(render(path))
    assert found.faults == []
    assert found.all("svg") == []


def test_runs_are_listed_with_links_to_the_reports_that_are_there(folders, page):
    for seed in range(3):
        config = folders.config() | {"seed": seed}
        folders.run(f"all/run-{seed}", config=config, metrics=[], pictures=False)
    write(folders.root / "all" / "run-1")
    found = page(render(folders.root / "all"))
    links = [a["href"] for a in found.all("a") if not (a["href"] or "").startswith("#")]
    assert links == ["./run-1/report.html"]
    assert all(f"run-{seed}" in found.text for seed in range(3))
    assert "This folder holds 3 runs." in found.text


def test_rows_of_several_sets_have_a_figure_each_of_the_columns_that_are_a_sequence(folders, page):
    def cell(mean: float) -> dict[str, float | int | None]:
        return {"mean": mean, "n": 1, "sd": None}

    rows = [
        {"label": f"{name}: row {k}", "cells": [cell(k + 1.5), cell(k + 1.0), cell(k + 9.0)]}
        for name in ("MNIST", "CIFAR-10")
        for k in range(5)
    ]
    given: dict[str, Any] = {"unit": "", "units": ["%", "%", ""], "digits": [1, 1, 1], "rows": rows}
    path = folders.table(
        columns=["10 labels", "100 labels", "minutes"],
        drawn=["10 labels", "100 labels"],
        differences=[],
        **given,
    )
    found = page(html := render(path))
    assert found.faults == []
    assert re.findall(r"<figcaption>(.*?)\. Dots", html) == ["MNIST: %", "CIFAR-10: %"]
    keys = re.findall(r"<li>.*?</svg>(.*?)</li>", html, re.DOTALL)
    assert keys == [f"row {k}" for k in range(5)] * 2
