import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere import CNN
from whatwhere.core import UNLABELED
from whatwhere.data.images import Images, hide_labels
from whatwhere.data.sources import load
from whatwhere.evaluate import worth_labelling


@pytest.fixture(scope="module")
def digits():
    """300 digits, 40 of them with a label."""
    train = load("digits").train.take(np.arange(300))
    named = replace(train, names=tuple(f"scans/{row:03}.png" for row in range(300)))
    return hide_labels(named, np.arange(40))


@pytest.fixture(scope="module")
def cnn(digits):
    return CNN("(4)3c-2p", epochs=3, random_state=0).fit(digits.x, digits.y)


@pytest.fixture(scope="module")
def blind(digits):
    return CNN("(4)3c-2p", epochs=1, random_state=0).fit(digits.x)


@pytest.mark.parametrize("n", [1, 5, 24, 259, 260, 1000])
@pytest.mark.parametrize("who", ["cnn", "blind"])
def test_what_is_chosen_has_no_label_and_comes_once(digits, who, n, request):
    chosen = worth_labelling.choose(request.getfixturevalue(who), digits, n)
    rows = [choice.row for choice in chosen]
    assert len(rows) == len(set(rows)) == min(n, 260)
    assert (digits.y[rows] == UNLABELED).all()
    assert chosen == worth_labelling.choose(request.getfixturevalue(who), digits, n)


def margins(learner, x):
    two = np.sort(learner.predict_proba(x), axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def test_the_chosen_are_among_the_least_sure_and_the_least_sure_is_first(cnn, digits):
    chosen = worth_labelling.choose(cnn, digits, 8)
    margin = margins(cnn, digits.x)
    own = margin[[choice.row for choice in chosen]]
    assert own[0] == margin[40:].min()
    assert (np.diff(own) >= 0).all()
    assert own.max() <= np.sort(margin[40:])[79]


def test_each_choice_tells_its_two_likeliest_classes(cnn, digits):
    for choice in worth_labelling.choose(cnn, digits, 8):
        told = cnn.predict_proba(digits.x[choice.row : choice.row + 1])[0]
        first, second = np.argsort(-told)[:2]
        assert (choice.guess, choice.second) == (str(first), str(second))
        assert choice.probability == pytest.approx(told[first])


def test_copies_of_one_image_are_chosen_once(cnn, digits):
    doubtful = worth_labelling.choose(cnn, digits, 1)[0].row
    rows = np.r_[np.full(50, doubtful), np.arange(100, 120)]
    chosen = worth_labelling.choose(cnn, digits.take(rows), 6)
    assert sum(choice.row < 50 for choice in chosen) == 1


@given(seed=st.integers(0, 50), n=st.integers(1, 6))
def test_without_classes_one_of_each_group_is_taken_and_large_groups_come_first(seed, n):
    rng = np.random.default_rng(seed)
    sizes = np.arange(n, 0, -1) * 3
    group = rng.permutation(np.repeat(np.arange(n), sizes))
    embedded = 100.0 * np.eye(n)[group] + rng.normal(size=(len(group), n))
    typical = worth_labelling._typical(embedded, n)
    assert group[typical].tolist() == list(range(n))


def test_the_one_that_is_taken_is_nearest_the_middle_of_its_group():
    embedded = np.array([[0.0], [1.0], [2.2], [50.0], [51.0]])
    assert worth_labelling._typical(embedded, 2)[0] == 1


def test_a_draw_of_many_is_looked_at(cnn, digits, monkeypatch):
    monkeypatch.setattr(worth_labelling, "MOST", 30)
    assert len(worth_labelling.choose(cnn, digits, 1000)) == 30


@pytest.mark.parametrize("who", ["cnn", "blind"])
def test_the_panel_and_the_sheet_tell_the_same_files(tmp_path, digits, who, request):
    (tmp_path / "panels").mkdir()
    chosen = worth_labelling.write(tmp_path, request.getfixturevalue(who), digits)
    files = [digits.names[choice.row] for choice in chosen]
    with (tmp_path / "label-next.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["file", "label"], *([name, ""] for name in files)]
    panel = tmp_path / "panels" / "worth_labelling.json"
    words = json.loads(panel.read_text(encoding="utf-8"))
    assert [row["file"] for row in words["rows"]] == files
    assert (words["kind"], words["order"]) == ("worth_labelling", 35)
    assert f"{len(files)} of 260 images" in words["caption"]
    assert "label-next.csv" in words["caption"]
    for row, choice in zip(words["rows"], chosen, strict=True):
        told = (row["guess"], row["probability"], row["second"])
        assert told == (choice.guess, choice.probability, choice.second)
        assert (row["guess"] is None) == (who == "blind")


def test_where_images_have_no_files_rows_are_told_and_there_is_no_sheet(tmp_path, cnn, digits):
    (tmp_path / "panels").mkdir()
    chosen = worth_labelling.write(tmp_path, cnn, replace(digits, names=None))
    assert not (tmp_path / "label-next.csv").exists()
    panel = tmp_path / "panels" / "worth_labelling.json"
    words = json.loads(panel.read_text(encoding="utf-8"))
    assert [row["row"] for row in words["rows"]] == [choice.row for choice in chosen]


def test_where_every_image_has_a_label_nothing_is_written(tmp_path, cnn, digits):
    (tmp_path / "panels").mkdir()
    assert worth_labelling.write(tmp_path, cnn, digits.take(np.arange(40))) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["panels"]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("labeled", [True, False])
def test_however_few_images_of_whatever_kind_can_be_told(tmp_path, n, shape, dtype, labeled):
    x = np.random.default_rng(0).integers(0, 256, (10, *shape)).astype(np.uint8)
    x = x if dtype == np.uint8 else x / np.float32(255)
    learner = CNN("(2)3c-2p", epochs=1, random_state=0)
    learner.fit(x, np.arange(10) % 2) if labeled else learner.fit(x)
    (tmp_path / "panels").mkdir()
    few = Images(x[:n], np.full(n, UNLABELED), ("a", "b"))
    assert len(worth_labelling.write(tmp_path, learner, few)) == n
