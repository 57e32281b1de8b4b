import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from whatwhere.core import InputError
from whatwhere.report import render, write

HOSTILE = "<script>alert('x')</script>"


def unlabeled(folders):
    config = folders.config()
    config["data"] |= {"n_labeled": 0, "labels": "none"}
    measured = {"n": 10000, "accuracy": None, "error": None, "reconstruction_mse": 0.00218}
    return folders.run(config=config, evaluation=measured)


def without_a_test_part(folders):
    config = folders.config()
    config["data"] |= {"n_test": 0}
    return folders.run(config=config, evaluation={})


def stopped(folders):
    lines = folders.metrics([folders.stage("joint", 6)])
    return folders.run(metrics=lines, evaluation={}, weights=False, checkpoint=True, pictures=False)


def diverged(folders):
    lines = folders.metrics([folders.stage("joint", 4)])
    lines[-1]["loss/nll"] = float("nan")
    return folders.run(metrics=lines, evaluation={}, weights=False, checkpoint=True, pictures=False)


def bare(folders):
    return folders.run(config={"format": 1}, metrics=[{}], evaluation={}, pictures=False)


def several(folders):
    folders.run("all/one")
    folders.run("all/two", evaluation={}, checkpoint=True)
    return folders.root / "all"


def many_classes(folders):
    config = folders.config()
    evaluation = folders.evaluation(100, 100)
    config["classes"] = evaluation["classes"] = [f"kind-{i}" for i in range(100)]
    return folders.run(config=config, evaluation=evaluation)


FOLDERS = {
    "run": lambda folders: folders.run(),
    "table": lambda folders: folders.table(),
    "practitioner": lambda folders: folders.practitioner(),
} | {
    f.__name__: f
    for f in (unlabeled, without_a_test_part, stopped, diverged, bare, several, many_classes)
}


@pytest.fixture(params=FOLDERS, scope="module")
def folder(request, module_folders):
    return FOLDERS[request.param](module_folders(request.param))


@pytest.fixture(scope="module")
def html(folder):
    return render(folder)


def test_every_page_is_well_formed(html, page):
    found = page(html)
    assert found.faults == []
    names = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_no_page_asks_for_anything_outside_itself(html, page):
    assert "@import" not in html
    assert all(target.startswith(("data:", "#")) for target in re.findall(r"url\((.{5})", html))
    for tag, attributes in page(html).elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
        assert "url(" not in (attributes.get("style") or "")
        assert (attributes.get("clip-path") or "url(#").startswith("url(#")


def test_every_link_leads_somewhere(folder, html, page):
    write(folder)
    found = page(html)
    names = {attributes.get("id") for _, attributes in found.elements}
    for attributes in found.all("a"):
        target = attributes["href"] or ""
        if target.startswith("#"):
            assert target[1:] in names
        else:
            assert target.startswith("./")
            assert (folder / target).is_file()


def test_every_picture_and_figure_has_words_for_those_who_cannot_see_it(html, page):
    found = page(html)
    assert all(attributes.get("alt") for attributes in found.all("img"))
    for attributes in found.all("svg"):
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    assert len(found.all("table")) == len(found.all("caption"))


def test_headings_descend_one_level_at_a_time(html, page):
    levels = [int(tag[1]) for tag, _ in page(html).elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_same_folder_gives_the_same_page(folder, html):
    assert render(folder) == html


def test_a_report_in_the_folder_does_not_change_the_next(folders):
    path = folders.run()
    first = write(path).read_text(encoding="utf-8")
    assert write(path).read_text(encoding="utf-8") == first


def test_hostile_names_are_shown_and_not_obeyed(folders, page):
    config = folders.config([folders.stage(HOSTILE, 2)])
    evaluation = folders.evaluation()
    config["model"] = config["data"]["name"] = config["command"] = HOSTILE
    config["params"] = {HOSTILE: HOSTILE}
    config["classes"] = [HOSTILE, *range(9)]
    config["start"] = HOSTILE
    config["chosen"] = {HOSTILE: HOSTILE}
    config["job"] = {"data": HOSTILE, "label_file": f"{HOSTILE}.csv"}
    config["data"]["skipped"] = [{"file": HOSTILE, "reason": HOSTILE}]
    config["data"]["labels_by_class"] = {HOSTILE: 9, "</style>": 1}
    evaluation["classes"] = [HOSTILE, '"onload="x', "$x^2$", "猫", *range(4, 10)]
    evaluation["floors"][0]["name"] = f"{HOSTILE} 猫 $\\frac$"
    lines = folders.metrics([folders.stage(HOSTILE, 2)])
    lines = [line | {f"loss/{HOSTILE}": 1.0} for line in lines]
    path = folders.run(
        HOSTILE.replace("/", ""), config=config, metrics=lines, evaluation=evaluation
    )
    words = json.loads((path / "panels" / "mistakes.json").read_text())
    words |= {"title": HOSTILE, "caption": HOSTILE}
    words["rows"][0] |= {"file": HOSTILE, "true": HOSTILE}
    (path / "panels" / "mistakes.json").write_text(json.dumps(words))
    points = folders.map_words()["points"]
    points = [point | {"file": f'{HOSTILE}"onload="', "class": "</style>"} for point in points]
    folders.map(path, points=points, title=HOSTILE, caption=HOSTILE, method=HOSTILE)
    (path / "label-next.csv").write_text("file,label\n")
    found = page(render(path))
    assert found.faults == []
    assert found.all("script") == []
    assert found.text.count(HOSTILE) > 10
    assert not any("onload" in attributes for _, attributes in found.elements)


def test_hostile_names_in_a_table_are_shown_and_not_obeyed(folders, page):
    row = {"label": HOSTILE, "cells": [{"mean": 1.0, "note": HOSTILE, "published": HOSTILE}]}
    path = folders.table(
        title=HOSTILE, caption=HOSTILE, columns=[HOSTILE], rows=[row], notes=[HOSTILE]
    )
    folders.run("comparison/javascript:alert(1)", metrics=[], pictures=False)
    write(folders.root / "comparison" / "javascript:alert(1)")
    found = page(render(path))
    assert found.faults == []
    assert found.all("script") == []
    assert found.text.count(HOSTILE) > 5
    assert not any((a["href"] or "").startswith("javascript") for a in found.all("a"))


def test_the_report_lies_in_the_folder_or_where_it_was_asked_for(folders):
    path = folders.run(metrics=[], pictures=False)
    assert write(path) == path / "report.html"
    other = folders.root / "elsewhere.html"
    assert write(path, other) == other
    assert other.read_text(encoding="utf-8") == render(path)
    assert sorted(p.name for p in folders.root.iterdir()) == ["elsewhere.html", "run"]


def test_links_to_runs_hold_from_where_the_page_lies(folders, page):
    path = folders.table()
    run = folders.run("comparison/runs/a b#1", metrics=[], pictures=False)
    write(run)
    out = folders.root / "pages" / "table.html"
    out.parent.mkdir()
    links = page(write(path, out).read_text(encoding="utf-8")).all("a")
    assert "./../comparison/runs/a%20b%231/report.html" in [link["href"] for link in links]


def test_a_report_that_cannot_be_written_says_where(folders):
    path = folders.run(metrics=[], pictures=False)
    with pytest.raises(InputError, match="is a folder"):
        write(path, folders.root)
    with pytest.raises(InputError, match="cannot write"):
        write(path, folders.root / "nowhere" / "report.html")


def test_a_report_needs_no_torch(folders):
    path = folders.run(metrics=[], pictures=False)
    program = (
        "import sys; from whatwhere.report import render; from pathlib import Path\n"
        "page = render(Path(sys.argv[1]))\n"
        "assert not {'torch', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
