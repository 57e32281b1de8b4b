import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.report import embedding_map, render
from whatwhere.report.read import Panel


def content(points, classes=(), **changes):
    words = {"method": "PCA", "tile": 32, "columns": 4, "points": points} | changes
    sheet = Panel("map", "Map", "", 15, b"png", 128, 64, [], "map", words)
    return embedding_map.content(sheet, classes)


def dots(points, classes=()):
    found = content(points, classes)
    return found["dots"] if found else []


def point(**changes):
    return {"x": 0.5, "y": 0.5, "tile": 0, "row": 7, "class": "a", "predicted": "a"} | changes


def test_every_point_is_a_radio_button_of_one_group_that_says_what_it_shows(folders, page):
    path = folders.run(metrics=[], pictures=False)
    points = folders.map(path)["points"]
    buttons = page(render(path)).all("input")
    assert {(button["type"], button["name"]) for button in buttons} == {("radio", "map")}
    assert sum("checked" in button for button in buttons) == 1
    told = {button["aria-label"] for button in buttons}
    assert len(told) == len(points)
    assert "test/kind 1/1.png, class 1, predicted 1 with 88\N{NO-BREAK SPACE}%" in told
    assert "test/kind 7/7.png, class 7, predicted 8 (wrong) with 88\N{NO-BREAK SPACE}%" in told
    assert "test/kind 5/5.png, class not known, predicted 5 with 88\N{NO-BREAK SPACE}%" in told


def test_the_thumbnails_are_embedded_once_and_nothing_lets_a_script_run(folders, page):
    path = folders.run(metrics=[], pictures=False)
    folders.map(path)
    html = render(path)
    png = b64encode((path / "panels" / "map.png").read_bytes()).decode()
    assert html.count(png) == 1
    policy = page(html).all("meta")[3]["content"] or ""
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "img-src data:" in policy


def test_six_hundred_points_stay_light(folders):
    path = folders.run(metrics=[], pictures=False)
    without = len(render(path))
    folders.map(path, **folders.map_words(600))
    sheet = (path / "panels" / "map.png").stat().st_size
    assert len(render(path)) - without - 4 / 3 * sheet < 600 * 400


def test_an_unknown_class_is_drawn_hollow_in_the_look_of_the_predicted_one():
    known, unknown, neither = (
        dots([point(**changes)], ["b", "a"])[0]
        for changes in ({}, {"class": None}, {"class": None, "predicted": None})
    )
    assert known.look == unknown.look == embedding_map.look(1)
    assert (known.hollow, unknown.hollow, neither.hollow) == (False, True, False)
    assert neither.look.color is None


@given(st.sets(st.integers(0, 63), min_size=2, max_size=2))
def test_no_two_of_sixty_four_classes_look_alike(pair):
    first, second = pair
    assert embedding_map.look(first) != embedding_map.look(second)


@given(st.permutations([point(x=i / 9, tile=i % 8, row=i) for i in range(9)]))
def test_the_order_of_the_file_does_not_change_the_map(points):
    assert content(points, ["a"]) == content(sorted(points, key=lambda p: p["row"]), ["a"])


@pytest.mark.parametrize("tile", range(8))
def test_a_dot_shows_the_thumbnail_that_its_point_names(tile):
    dot = dots([point(tile=tile)])[0]
    assert dot.row * 4 + dot.column == tile


@pytest.mark.parametrize(
    "changes",
    [{"x": None}, {"x": "0.5"}, {"y": 1.5}, {"y": float("nan")}, {"tile": 8}, {"tile": -1},
     {"tile": None}, {"tile": True}],
)  # fmt: skip
def test_a_point_that_cannot_be_shown_is_left_out(changes):
    assert content([point(**changes)]) is None
    assert len(dots([point(), point(**changes)])) == 1


@pytest.mark.parametrize(
    "changes",
    [{"points": []}, {"points": None}, {"points": 7}, {"tile": 0}, {"columns": "4"},
     {"columns": 1000}],
)  # fmt: skip
def test_a_map_that_cannot_be_shown_is_left_out_and_told(folders, page, changes):
    path = folders.run(metrics=[], pictures=False)
    words = folders.map(path)
    folders.save(path / "panels" / "map.json", words | changes)
    found = page(render(path))
    assert "Left out: the map map.png" in found.text
    assert found.all("input") == []


def test_the_legend_names_each_class_once_and_none_where_no_class_is_known(folders, page):
    path = folders.run(metrics=[], pictures=False)
    folders.map(path)
    html = render(path)
    legend = re.search(r'<ul class="legend".*?</ul>', html, re.DOTALL)
    assert legend
    words = page(legend[0]).text
    assert words == "0 1 2 3 4 5 6 7 8 9 hollow: predicted, the class is not known"
    alone = [point(**{"class": None}, predicted=None)]
    found = content(alone)
    assert found
    assert found["legend"] == []
