"""What someone with a folder of images meets: tables of labels, odd files, other sizes."""

import json
import re

import numpy as np
import pytest
from PIL import Image

NET = ["--set", "architecture=(4)3c-2p-(6)3c-2p", "--epochs", "2"]


@pytest.fixture
def fitted(say, folder):
    """A run on the folder, and what the command said on stderr."""
    run = folder.parent / "run"
    code, _, err = say("fit", folder, "--labels", folder.parent / "labels.csv", *NET, "--out", run)
    assert code == 0, err
    return run, err


def test_a_folder_and_a_table_of_labels_become_a_table_of_predictions(photos, say, folder, fitted):
    run, err = fitted
    assert "120 images of 8 x 8 pixels, gray; 60 labels in 3 classes" in err
    config = json.loads((run / "config.json").read_text())
    assert config["classes"] == ["digit 0", "digit 1", "digit 2"]
    assert config["data"]["n_labeled"] == 60 == sum(config["data"]["labels_by_class"].values())
    out = folder.parent / "said.csv"
    assert say("predict", run, folder, "--out", out)[0] == 0
    said = photos.rows_of(out)
    assert [row["file"] for row in said] == [f"{row:03}.png" for row in range(120)]
    assert {row["label"] for row in said} <= set(config["classes"])
    assert list(said[0])[2:] == ["p:digit 0", "p:digit 1", "p:digit 2"]


def test_class_folders_name_the_classes_and_test_folders_the_test_part(photos, say, tmp_path):
    images, labels = photos.digits()
    names = [
        f"{'test' if row % 4 == 0 else 'train'}/{label}/{row:03}.png"
        for row, label in enumerate(labels)
    ]
    photos.write_images(tmp_path / "photos", images, names)
    run = tmp_path / "run"
    code, out, err = say("fit", tmp_path / "photos", *NET, "--out", run)
    assert code == 0, err
    assert "30 test images" in out
    told = json.loads((run / "evaluation.json").read_text())
    assert told["n"] == 30
    code, out, _ = say("evaluate", run, "--json")
    assert json.loads(out)["error"] == told["error"]


def test_what_cannot_be_read_is_counted_and_named(photos, say, folder):
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("not an image")
    run = folder.parent / "run"
    labels = folder.parent / "labels.csv"
    code, _, err = say("fit", folder, "--labels", labels, *NET, "--out", run)
    assert code == 0
    assert "skipped 2 files" in err
    assert [row["file"] for row in photos.rows_of(run / "skipped.csv")] == ["cut.png", "notes.txt"]
    assert "cut.png" in (run / "report.html").read_text()
    out = folder.parent / "said.csv"
    code, _, err = say("predict", run, folder, "--out", out)
    assert "skipped 2 files" in err
    assert len(photos.rows_of(out)) == 120
    assert len(photos.rows_of(folder.parent / "said-skipped.csv")) == 2


def test_sizes_that_differ_are_refused_with_the_cure_which_then_works(photos, say, refused, folder):
    Image.new("L", (20, 12)).save(folder / "wide.png")
    run, labels = folder.parent / "run", folder.parent / "labels.csv"
    line = refused("fit", folder, "--labels", labels, *NET, "--out", run)
    assert "--image-size" in line
    assert "wide.png" in line
    assert "20 x 12" in line
    assert not run.exists()
    words = ("--image-size", "8", "--fit", "pad")
    assert say("fit", folder, "--labels", labels, *words, *NET, "--out", run)[0] == 0
    out = folder.parent / "said.csv"
    assert say("predict", run, folder, "--out", out)[0] == 0, "read as the run's own images were"
    assert len(photos.rows_of(out)) == 121


def test_a_run_goes_on_from_another_when_more_labels_arrive(photos, say, folder, fitted):
    run, _ = fitted
    _, labels = photos.digits()
    names = [f"{row:03}.png" for row in range(120)]
    more = photos.write_labels(
        folder.parent / "more.csv", list(zip(names, labels, strict=True))[:90]
    )
    second = folder.parent / "second"
    code, _, err = say("fit", folder, "--labels", more, "--from", run, "--out", second)
    assert code == 0, err
    config = json.loads((second / "config.json").read_text())
    assert config["params"]["architecture"] == "(4)3c-2p-(6)3c-2p"
    assert config["params"]["epochs"] == 2
    assert config["data"]["n_labeled"] == 90
    assert config["start"] == str(run)
    assert str(run) in (second / "report.html").read_text()


def test_a_run_does_not_go_on_from_a_net_of_another_form(refused, folder, fitted):
    run, _ = fitted
    words = ("fit", folder, "--from", run, "--out", folder.parent / "second")
    line = refused(*words, "--set", "architecture=(5)3c-2p")
    assert "architecture" in line
    assert "(4)3c-2p" in line or "encoder" in line
    assert "not a run folder" in refused("fit", folder, "--from", folder)


def test_a_run_is_not_judged_on_images_that_its_first_weights_were_trained_on(
    photos, say, refused, tmp_path
):
    images, labels = photos.digits()
    names = [f"{label}/{row:03}.png" for row, label in enumerate(labels)]
    photos.write_images(tmp_path / "photos", images, names)
    whole, part = tmp_path / "whole", tmp_path / "part"
    fit = ("fit", tmp_path / "photos", "--epochs", "1", *NET[:2])
    assert say(*fit, "--out", whole)[0] == 0
    words = (*fit, "--from", whole, "--out", tmp_path / "next")
    assert "36 of the test images were trained on" in refused(*words, "--test-fraction", "0.3")
    assert "20 of the validation images" in refused(*words, "--validation", "20")
    assert not (tmp_path / "next").exists()
    assert say(*fit, "--test-fraction", "0.3", "--out", part)[0] == 0
    words = (*fit, "--from", part, "--test-fraction", "0.3", "--out", tmp_path / "next")
    assert say(*words)[0] == 0, "the same part was cut off there"


def test_nothing_is_written_among_the_images(refused, folder, fitted):
    run, _ = fitted
    assert "read as images" in refused("fit", folder, *NET, "--out", folder / "run")
    assert "read as images" in refused("outliers", run, folder, "--out", folder / "odd.csv")
    assert not (folder / "run").exists()


def test_a_way_to_a_size_without_a_size_is_refused(refused, folder):
    line = refused("fit", folder, "--fit", "pad", *NET, "--out", folder.parent / "run")
    assert "--image-size N" in line


def test_what_was_trained_on_is_not_judged_in_silence(say, refused, folder, fitted):
    run, _ = fitted
    code, out, err = say("evaluate", run, "--split", "all")
    assert code == 0
    assert "60 images of" in out or "120 images of" in out
    assert "was trained on images among these" in err
    folder.rename(folder.parent / "moved")
    assert "is not there any more" in refused("evaluate", run, "--split", "all")
    code, _, err = say("evaluate", run, folder.parent / "moved", "--split", "all")
    assert code == 0, err


def test_outliers_are_ranked_with_a_gallery(photos, say, refused, folder, fitted):
    run, _ = fitted
    Image.new("L", (8, 8), 255).save(folder / "white.png")
    out = folder.parent / "odd.csv"
    assert say("outliers", run, folder, "--out", out)[0] == 0
    ranked = photos.rows_of(out)
    assert "white.png" in [row["file"] for row in ranked[:3]]
    errors = [float(row["reconstruction_mse"]) for row in ranked]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 121
    assert (folder.parent / "odd.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in refused("outliers", run, folder, "--out", out)


def test_embeddings_name_their_files(say, folder, fitted):
    run, _ = fitted
    out = folder.parent / "features.npz"
    assert say("embed", run, folder, "--out", out)[0] == 0
    with np.load(out) as file:
        assert file["file"].tolist() == [f"{row:03}.png" for row in range(120)]
        assert file["embedding"].shape == (120, 6 * 2 * 2)


def test_hidden_halves_are_completed(say, refused, folder, fitted):
    run, _ = fitted
    out = folder.parent / "whole.png"
    code, said, _ = say("complete", run, folder, "--mask", "left", "--out", out)
    assert code == 0
    assert re.search(r"12 images, 50% hidden", said)
    assert out.read_bytes().startswith(b"\x89PNG")
    other = folder.parent / "other.png"
    assert "left, right" in refused("complete", run, folder, "--mask", "lft", "--out", other)


def test_label_next_names_files_to_be_labelled(photos, folder, fitted):
    run, _ = fitted
    asked = photos.rows_of(run / "label-next.csv")
    assert asked
    assert {row["file"] for row in asked} <= {f"{row:03}.png" for row in range(60, 120)}
    assert all(row["label"] == "" for row in asked)


def test_probabilities_are_calibrated_where_there_are_validation_labels(photos, say, tmp_path):
    images, labels = photos.digits(600)
    names = [f"{'test' if row < 200 else 'train'}/{row:03}.png" for row in range(600)]
    photos.write_images(tmp_path / "photos", images, names)
    table = photos.write_labels(tmp_path / "labels.csv", zip(names, labels, strict=True))
    run = tmp_path / "run"
    words = ("--labels", table, "--validation", "100")
    code, out, err = say("fit", tmp_path / "photos", *words, *NET, "--out", run)
    assert code == 0, err
    found = json.loads((run / "evaluation.json").read_text())["calibration"]
    assert found["n_validation"] == 100
    assert found["temperature"] > 0
    assert "before they were calibrated on 100 validation images" in out
    assert "calibrated on 100 validation images" in (run / "report.html").read_text()


def test_uneven_labels_are_told(photos, say, tmp_path):
    images, labels = photos.digits(300)
    few = [row for row, label in enumerate(labels) if label != "digit 2"]
    few += [row for row, label in enumerate(labels) if label == "digit 2"][:5]
    names = [f"{labels[row]}/{row:03}.png" for row in few]
    photos.write_images(tmp_path / "photos", images[few], names)
    run = tmp_path / "run"
    code, _, err = say("fit", tmp_path / "photos", *NET, "--out", run)
    assert code == 0
    assert "from 5 (digit 2)" in err
    assert "The labels are uneven" in (run / "report.html").read_text()


def test_the_net_is_chosen_for_the_images_and_the_choice_is_told(say, folder):
    run = folder.parent / "run"
    words = ("--labels", folder.parent / "labels.csv", "--epochs", "1", "--out", run)
    code, _, err = say("fit", folder, *words)
    assert code == 0
    chosen = json.loads((run / "config.json").read_text())["chosen"]
    assert set(chosen) == {"architecture", "batch_size"}
    assert f"architecture={chosen['architecture']}" in err


@pytest.mark.parametrize(
    ("rows", "cure"),
    [
        ([("nowhere.png", "a"), ("nor.png", "b")], "nowhere.png"),
        ([("000.png", "a"), ("001.png", "a")], "one class only"),
        ([("000.png", ""), ("001.png", "")], "label"),
        ([("000.png", "a"), ("000.png", "b")], "000.png"),
    ],
)
def test_a_table_of_labels_that_cannot_be_is_refused(photos, refused, folder, rows, cure):
    table = photos.write_labels(folder.parent / "odd.csv", rows)
    run = folder.parent / "run"
    words = ("fit", folder, "--labels", table, "--validation", "1", *NET, "--out", run)
    assert cure in refused(*words)
    assert not run.exists()


def test_folders_that_cannot_be_learned_from_are_refused(refused, tmp_path):
    run = ("--out", tmp_path / "run")
    assert "nowhere" in refused("fit", tmp_path / "nowhere", *run)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in refused("fit", empty, *run)
    (empty / "letter.doc").write_text("no image")
    assert "letter.doc" in refused("fit", empty, *run)
    assert not (tmp_path / "run").exists()


def test_more_labels_than_there_are_is_refused(photos, refused, tmp_path):
    images, labels = photos.digits(30)
    names = [f"{label}/{row}.png" for row, label in enumerate(labels)]
    photos.write_images(tmp_path / "photos", images, names)
    line = refused("fit", tmp_path / "photos", "--labels", "60", "--out", tmp_path / "run")
    assert "at most" in line


def test_images_of_another_size_at_test_time_are_refused_with_the_cure(
    photos, say, refused, folder, fitted
):
    run, _ = fitted
    other = folder.parent / "larger"
    photos.write_images(other, np.zeros((3, 16, 16), np.uint8), ["a.png", "b.png", "c.png"])
    out = folder.parent / "said.csv"
    assert "--image-size 8" in refused("predict", run, other, "--out", out)
    assert not out.exists()
    assert say("predict", run, other, "--image-size", "8", "--out", out)[0] == 0


def test_gray_images_are_read_in_color_by_a_run_that_learned_color(photos, say, refused, tmp_path):
    images, labels = photos.digits()
    color = np.repeat(images[..., None], 3, axis=3)
    color[..., 0] = 0
    names = [f"{label}/{row:03}.png" for row, label in enumerate(labels)]
    photos.write_images(tmp_path / "color", color, names)
    photos.write_images(tmp_path / "gray", images, names)
    for kind in ("color", "gray"):
        assert say("fit", tmp_path / kind, *NET, "--out", tmp_path / f"{kind} run")[0] == 0
    out = ("--out", tmp_path / "said.csv")
    assert say("predict", tmp_path / "color run", tmp_path / "gray", *out)[0] == 0
    other = ("--out", tmp_path / "other.csv")
    assert "3 channels" in refused("predict", tmp_path / "gray run", tmp_path / "color", *other)


def test_a_folder_that_changed_is_not_resumed(say, refused, folder, fitted):
    run, _ = fitted
    (run / "checkpoint").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "000.png")
    assert "changed" in refused("fit", "--resume", run)
