import json

import pytest

from whatwhere.core import InputError
from whatwhere.report.read import Comparison, Run, read, read_run


def test_a_folder_with_a_config_is_a_run_and_one_with_a_table_a_comparison(folders):
    assert isinstance(read(folders.run()), Run)
    assert isinstance(read(folders.table()), Comparison)


def test_a_folder_above_runs_is_a_comparison_of_them_in_the_order_of_their_names(folders):
    for name in ("all/b", "all/deep/a", "all/a"):
        folders.run(name, pictures=False)
    found = read(folders.root / "all")
    assert isinstance(found, Comparison)
    names = [run.path.relative_to(folders.root / "all").as_posix() for run in found.runs]
    assert names == ["a", "b", "deep/a"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_that_was_cut_short_is_no_epoch_and_no_problem(folders, cut):
    path = folders.run(pictures=False)
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[: -cut - 1])
    run = read_run(path)
    assert len(run.epochs) == 19
    assert run.problems == []


def test_a_damaged_line_in_the_middle_is_left_out_and_told(folders):
    path = folders.run(pictures=False)
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    lines[3] = '{"stage": "joint", "epo'
    metrics.write_text("\n".join(lines))
    run = read_run(path)
    assert [epoch.number for epoch in run.epochs] == [0, 1, 2, *range(4, 20)]
    assert "1 unreadable line" in run.problems[0]


def test_of_an_epoch_that_was_run_twice_the_later_line_counts(folders):
    lines = folders.metrics([folders.stage("joint", 3)])
    again = lines[2] | {"loss/nll": 0.125}
    run = read_run(folders.run(metrics=[*lines, again], pictures=False))
    assert len(run.epochs) == 3
    assert run.epochs[2].values["loss/nll"] == 0.125


def test_epochs_stand_in_the_order_of_the_plan(folders):
    plan = [folders.stage("second", 2), folders.stage("first", 2)]
    lines = folders.metrics(plan)
    run = read_run(folders.run(config=folders.config(plan), metrics=lines[::-1], pictures=False))
    places = [(epoch.stage, epoch.number) for epoch in run.epochs]
    assert places == [("second", 0), ("second", 1), ("first", 0), ("first", 1)]


def test_a_picture_that_is_cut_short_is_left_out_and_told(folders):
    path = folders.run()
    (path / "panels" / "filters.png").write_bytes(b"\x89PNG")
    run = read_run(path)
    assert [panel.name for panel in run.panels] == ["mistakes", "reconstructions"]
    assert "filters.png" in run.problems[0]


def test_a_picture_without_words_is_called_by_its_file(folders):
    path = folders.run()
    (path / "panels" / "filters.json").unlink()
    (path / "panels" / "filters.png").rename(path / "panels" / "first_layer.png")
    run = read_run(path)
    assert run.panels[-1].title == "First layer"


def test_the_state_follows_from_what_lies_in_the_folder(folders):
    def state(name, **parts):
        return read_run(folders.run(name, pictures=False, **parts)).state

    broken = folders.metrics([folders.stage("joint", 2)])
    broken[-1]["loss/nll"] = float("nan")
    machine = [{"stage": "joint", "epoch": 0, "likelihood/gap": float("inf")}]
    judged = [{"stage": "joint", "epoch": 0, "loss/nll": 1.0, "validation/nll": float("inf")}]
    assert state("whole") == "finished"
    assert state("unmeasured", evaluation={}) == "finished"
    assert state("stopped", evaluation={}, checkpoint=True) == "unfinished"
    assert state("killed", evaluation={}, weights=False) == "unfinished"
    assert state("diverged", evaluation={}, metrics=broken, checkpoint=True) == "diverged"
    assert state("machine", evaluation={}, metrics=machine, checkpoint=True) == "diverged"
    assert state("judged", evaluation={}, metrics=judged, checkpoint=True) == "unfinished"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("config.json", '{"format": 7}', ["format 7", "reads 1"]),
        ("config.json", '{"format": 1, "mod', ["config.json"]),
        ("config.json", "[]", ["config.json"]),
        ("table.json", '{"format": 7}', ["format 7", "reads 1"]),
        ("table.json", '{"title"', ["table.json", "not whole JSON"]),
        ("table.json", "[]", ["table.json", "list"]),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(folders, file, text, words):
    path = folders.root / "broken"
    path.mkdir()
    (path / file).write_text(text)
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in [*words, str(path)])


def test_a_folder_that_is_neither_says_what_was_looked_for(folders):
    path = folders.root / "empty"
    path.mkdir()
    with pytest.raises(InputError, match=r"no config\.json .* no table\.json"):
        read(path)
    with pytest.raises(InputError, match="no folder at"):
        read(folders.root / "nowhere")
    (path / "file").write_text("")
    with pytest.raises(InputError, match="no folder at"):
        read(path / "file")


def test_one_unreadable_run_does_not_hide_the_others(folders):
    folders.run("all/good", pictures=False)
    folders.run("all/late", config={"format": 7}, metrics=[{"stage": "a"}], pictures=False)
    found = read(folders.root / "all")
    assert isinstance(found, Comparison)
    assert [run.path.name for run in found.runs] == ["good"]
    assert "late" in found.problems[0]
    assert "format 7" in found.problems[0]


def test_an_evaluation_that_is_not_whole_is_left_out_and_told(folders):
    path = folders.run(pictures=False)
    (path / "evaluation.json").write_text(json.dumps({"n": 10})[:-1])
    run = read_run(path)
    assert run.evaluation == {}
    assert "evaluation.json" in run.problems[0]
