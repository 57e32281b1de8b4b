import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere import CNN
from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.evaluate import tables

FLOATS = st.floats(0, 1, width=32)


@pytest.fixture(scope="module")
def images() -> Images:
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    x = (rng.random((30, 1, 8, 8)) / 2 + (y / 4)[:, None, None, None]).astype(np.float32)
    return Images(x, y, ("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def learner(images: Images) -> CNN:
    fitted = CNN("(4)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    fitted.name_classes(images.classes)
    return fitted


@given(st.lists(FLOATS, min_size=1, max_size=5))
def test_a_csv_is_read_back_to_the_very_numbers(tmp_path_factory, values):
    out = tmp_path_factory.mktemp("csv") / "table.csv"
    floats = np.array(values, np.float32)
    names = np.array([f'a "b", {row}' for row in range(len(values))])
    tables.write(out, {"file": names, "p:1": floats})
    with out.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "p:1"]
    assert [row[0] for row in rows] == names.tolist()
    assert np.array_equal(np.array([row[1] for row in rows], float).astype(np.float32), floats)


def test_a_parquet_file_is_read_back_to_what_was_written(tmp_path, rng):
    table = {
        "file": np.array(["a.png", "ü/b.png"]),
        "label": np.array([3, 7]),
        "embedding": rng.random((2, 5)).astype(np.float32),
    }
    tables.write(tmp_path / "t.parquet", table)
    read = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert read.column_names == list(table)
    assert read["file"].to_pylist() == ["a.png", "ü/b.png"]
    assert read["label"].to_pylist() == [3, 7]
    back = np.array(read["embedding"].to_pylist(), np.float32)
    assert np.array_equal(back, table["embedding"])
    assert str(read.schema.field("embedding").type.value_type) == "float"


def test_an_npz_is_read_back_to_what_was_written_without_pickle(tmp_path, rng):
    table = {"row": np.arange(3), "embedding": rng.random((3, 4)).astype(np.float32)}
    tables.write(tmp_path / "t.npz", table)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as read:
        assert set(read) == {"row", "embedding"}
        for name, values in table.items():
            assert read[name].dtype == values.dtype
            assert np.array_equal(read[name], values)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_nothing_is_left_behind_when_writing_fails(tmp_path, ending):
    uneven = {"row": np.arange(3), "label": np.arange(2)}
    with pytest.raises(ValueError):
        tables.write(tmp_path / f"t{ending}", uneven)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_stands_alone_in_its_folder(tmp_path):
    tables.write(tmp_path / "t.csv", {"row": np.arange(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_predictions_name_the_likeliest_class_and_their_probabilities_sum_to_one(learner, images):
    table = tables.predictions(learner, images)
    assert list(table) == ["row", "label", "p:ant", "p:bee", "p:cat"]
    probability = np.stack([table[f"p:{name}"] for name in images.classes], axis=1)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(table["label"], np.array(images.classes)[probability.argmax(axis=1)])
    assert np.array_equal(table["label"], learner.predict(images.x))
    assert np.array_equal(table["row"], np.arange(30))


def test_images_that_come_from_files_are_told_by_their_names(learner, images):
    names = tuple(f"bees/{row}.png" for row in range(30))
    named = Images(images.x, images.y, images.classes, names)
    for table in (tables.predictions(learner, named), tables.embeddings(learner, named)):
        assert tuple(table["file"]) == names
        assert "row" not in table


def test_an_embedding_file_holds_float32_features_a_row_each(tmp_path, learner, images):
    tables.write(tmp_path / "e.npz", tables.embeddings(learner, images))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as read:
        assert read["embedding"].dtype == np.float32
        assert read["embedding"].shape == (30, 4 * 4 * 4)
        assert np.array_equal(read["embedding"], learner.transform(images.x))


def test_a_run_without_labels_has_no_predictions_but_embeddings(images):
    from whatwhere import SWWAE

    blind = SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(images.x)
    with pytest.raises(InputError, match=r"no classes.*--labels"):
        tables.predictions(blind, images)
    assert tables.embeddings(blind, images)["embedding"].shape == (30, 64)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("t.txt", r"ends in \.csv or \.parquet"),
        ("t", r"ends in \.csv or \.parquet"),
        ("there.csv", "exists"),
        ("nowhere/t.csv", "no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(
    tmp_path: Path, name, says
):
    (tmp_path / "there.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=says) as refused:
        tables.check(tmp_path / name, tables.TABLES)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "there.csv").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.parquet"])
def test_a_new_file_with_a_known_ending_is_taken(tmp_path, name):
    tables.check(tmp_path / name, tables.TABLES)
