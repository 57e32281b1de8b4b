from types import SimpleNamespace
from typing import Any

import pytest

from whatwhere.report import render, wording
from whatwhere.report.read import read_run


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.14, "3.1 s"),
        (47, "47 s"),
        (59.7, "1 min 00 s"),
        (750, "12 min 30 s"),
        (11100, "3 h 05 min"),
    ],
)
def test_times_are_written_as_people_do(seconds, text):
    assert wording.duration(seconds) == text


def test_numbers_are_written_as_people_do():
    assert wording.thousands(60000) == "60,000"
    assert wording.number(-0.1) == "−0.10"
    assert wording.number(2.3, sign=True) == "+2.30"
    assert wording.span([8.4, 9.6]) == "8.40 to 9.60"
    assert wording.many(1, "epoch") == "1 epoch"
    assert wording.many(0, "label") == "no labels"


@pytest.mark.parametrize(
    "value", [None, [], [1], [1, None], ["a", "b"], [1, float("nan")], "ab", 3]
)
def test_what_is_no_pair_of_numbers_is_no_interval(value):
    assert wording.interval_of(value) is None
    assert wording.span(value) == ""


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")],
)
def test_items_are_joined_as_in_a_sentence(items, text):
    assert wording.listed(items) == text


def test_settings_are_written_plainly():
    assert [wording.plain(v) for v in (None, True, False)] == ["none", "yes", "no"]
    assert wording.plain(0.0012345) == "0.0012345"
    assert wording.plain(60000) == "60000"
    assert wording.plain([1, "a"]) == "1, a"
    assert wording.plain({"cores": 2, "device": "cpu"}) == "cores: 2, device: cpu"


def test_measures_are_rounded():
    assert wording.measure(1 / 3) == "0.3333"
    assert wording.measure(60000) == "60,000"


def test_labels_that_a_learner_never_looks_at_are_not_said_to_have_been_shown(folders, page):
    config = folders.config()
    config["spec"] = config["spec"] | {"n_classes": 0, "n_labeled": 0}
    text = page(render(folders.run(config=config, evaluation={"n": 9, "error": None}))).text
    assert "without any labels" in text
    assert "whatwhere predict" not in text
    assert "--probe linear" in text


def test_many_differences_are_counted_and_not_told_one_by_one():
    cells = [{"interval": [0.5, 1.0]}, {"interval": [-1.0, 1.0]}, {"interval": None}]
    rows = [{"label": f"{n} minus other", "cells": cells} for n in range(5)]
    table = {"columns": ["a", "b", "c"], "differences": rows}
    read: Any = SimpleNamespace
    told = wording.differences(read(table=table))
    assert told == ["Of 10 differences, the intervals of 5 are clear of zero; see below."]
    few = wording.differences(read(table=table | {"differences": rows[:4]}))
    assert len(few) == 4
    assert few[0] == (
        "The interval of “0 minus other” is clear of zero at a, and includes zero at b."
    )


def test_new_labels_move_the_test_part_so_the_next_command_cuts_none_off(folders):
    config = folders.config()
    config["data"] |= {"n_labeled": 0}
    config["job"] = {"data": "photos", "labels": "none", "test_fraction": 0.3}
    run = read_run(folders.run(config=config))
    said, command = wording.label_next(run)
    assert "all images" in said and "--test-fraction" not in command
    (train_on,) = [line for words, line in wording.commands(run) if words.startswith("Train on")]
    assert "--test-fraction 0.3" in train_on


def test_a_set_without_classes_has_no_probe(folders):
    config = folders.config()
    config["data"] |= {"n_labeled": 0, "classes": []}
    run = read_run(folders.run(config=config))
    assert not any("--probe" in command for _, command in wording.commands(run))
