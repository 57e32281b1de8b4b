"""The command line as a user meets it: what it prints, what it writes, how it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

# No file may grow beyond 8 kB: to the program that is a disk that is full.
FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.argv = ["whatwhere", *sys.argv[1:]]
from whatwhere.cli import main
main()
"""
NET = ["--set", "architecture=(4)3c-2p-(6)3c-2p"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run on the digits with 50 labels."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", "digits", "--labels", "50", "--epochs", "2", *NET, "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "whatwhere", *words],
        check=True,
        env=environment,
        capture_output=True,
    )
    return folder


def test_help_is_quick_and_needs_no_torch():
    code = "import sys, whatwhere.cli; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
    said = subprocess.run(
        [sys.executable, "-m", "whatwhere", "fit", "--help"], check=True, capture_output=True
    )
    assert b"--labels" in said.stdout


def test_every_command_says_what_it_does(say):
    code, out, _ = say("--help")
    assert code == 0
    commands = "demo fit evaluate predict embed reconstruct denoise complete sample outliers export"
    commands += " compare reproduce report models experiments data"
    for command in commands.split():
        assert command in out
        assert say(command, "--help")[0] == 0


def test_fit_writes_the_run_folder_of_the_contract(run_folder):
    there = {path.name for path in run_folder.iterdir()}
    wanted = {"config.json", "model.safetensors", "metrics.jsonl", "evaluation.json", "panels"}
    assert there == wanted | {"report.html"}
    config = json.loads((run_folder / "config.json").read_text())
    assert config["model"] == "swwae"
    assert config["data"]["n_labeled"] == 50
    assert config["threads"] == 1
    assert config["stages"][0]["epochs"] == 2
    assert len((run_folder / "metrics.jsonl").read_text().splitlines()) == 2
    panels = {path.name for path in (run_folder / "panels").glob("*.png")}
    assert {"reconstructions.png", "filters.png", "mistakes.png"} <= panels


def test_evaluate_prints_one_json_object(say, run_folder):
    code, out, _ = say("evaluate", run_folder, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["n"] == 599
    assert told["error"] == pytest.approx(100 * (1 - told["accuracy"]))
    written = json.loads((run_folder / "evaluation.json").read_text())
    assert {name: value for name, value in written.items() if name != "floors"} == told
    assert 0 < told["reconstruction_mse"] < 1


def test_a_probe_judges_the_features_with_the_labels_that_it_is_shown(say, run_folder):
    code, out, _ = say("evaluate", run_folder, "--probe", "linear", "--labels", "100", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["n_labeled"] == 100
    assert 0 < told["error"] < 60


def test_predict_writes_a_row_for_each_image(say, run_folder, tmp_path):
    images = np.zeros((5, 8, 8), np.uint8)
    np.savez(tmp_path / "new.npz", x=images)
    out = tmp_path / "said.csv"
    assert say("predict", run_folder, tmp_path / "new.npz", "--out", out)[0] == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == list("01234")
    columns = [name for name in rows[0] if name.startswith("p:")]
    assert columns == [f"p:{digit}" for digit in range(10)]
    assert sum(float(rows[0][name]) for name in columns) == pytest.approx(1, abs=1e-5)
    assert max(columns, key=lambda name: float(rows[0][name])) == f"p:{rows[0]['label']}"


def test_embed_writes_the_features(say, run_folder, tmp_path):
    out = tmp_path / "features.npz"
    assert say("embed", run_folder, "digits", "--split", "test", "--out", out)[0] == 0
    with np.load(out) as file:
        assert file["embedding"].shape == (599, 6 * 2 * 2)
        assert file["embedding"].dtype == np.float32


def test_reconstruct_draws_a_picture(say, run_folder, tmp_path):
    out = tmp_path / "pairs.png"
    assert say("reconstruct", run_folder, "digits", "--out", out)[0] == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_export_writes_a_file_that_was_checked(say, refused, run_folder, tmp_path):
    out = tmp_path / "model.onnx"
    code, said, _ = say("export", run_folder, "--out", out, "--outputs", "probabilities")
    assert code == 0
    assert "probabilities in" in said
    assert "on 599 images" in said
    assert out.stat().st_size > 1000
    assert "exists" in refused("export", run_folder, "--out", out)
    assert ".onnx" in refused("export", run_folder, "--out", tmp_path / "model.pt")
    words = ("export", run_folder, "--out", tmp_path / "other.onnx", "--outputs", "logits")
    assert "probabilities" in refused(*words)


def test_an_unsupervised_run_embeds_but_does_not_predict(say, refused, tmp_path):
    run = tmp_path / "run"
    words = ("fit", "digits", "--labels", "none", "--epochs", "1", *NET, "--out", run)
    assert say(*words)[0] == 0
    assert json.loads((run / "evaluation.json").read_text())["error"] is None
    assert say("embed", run, "digits", "--out", tmp_path / "e.npz")[0] == 0
    assert "without labels" in refused("predict", run, "digits", "--out", tmp_path / "p.csv")


def test_compare_fills_in_what_is_missing_and_no_more(say, tmp_path):
    words = ("compare", "digits", "--models", "swwae,cnn,svm", "--labels", "50", "--epochs", "1")
    words += (*NET, "--out", tmp_path / "both")
    code, out, _ = say(*words, "--seeds", "1")
    assert code == 0
    assert "swwae" in out
    cells = {p: p.stat().st_mtime_ns for p in (tmp_path / "both" / "cells").iterdir()}
    assert len(cells) == 3
    assert say(*words, "--seeds", "2")[0] == 0
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "both" / "cells").iterdir()}
    assert len(after) == 6
    assert {p: after[p] for p in cells} == cells
    table = json.loads((tmp_path / "both" / "table.json").read_text())
    assert [row["label"] for row in table["rows"]] == ["swwae", "cnn", "svm"]
    assert table["rows"][0]["cells"][0]["n"] == 2
    assert (tmp_path / "both" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["fit"], "--resume"),
        (["fit", "mnst"], "mnist"),
        (["fit", "digits", "--model", "swae"], "did you mean swwae"),
        (["fit", "digits", "--set", "epoch=3"], "did you mean epochs"),
        (["fit", "digits", "--set", "epochs"], "KEY=VALUE"),
        (["fit", "digits", "--set", "epochs=many"], "'auto'"),
        (["fit", "digits", "--epochs", "0"], "epochs"),
        (["fit", "digits", "--set", "dropout=1.5"], "dropout"),
        (["fit", "digits", "--set", "architecture=(8)3x"], "3x"),
        (["fit", "digits", "--labels", "ten"], "all, none, or a number"),
        (["fit", "digits", "--labels", "5"], "10 or more"),
        (["fit", "digits", "--labels", "5000"], "at most"),
        (["fit", "digits", "--validation", "2.5"], "between 0 and 1"),
        (["fit", "digits", "--device", "cuda"], "--device"),
        (["fit", "digits", "--device", "gpu"], "cuda"),
        (["fit", "digits", "--test-fraction", "2"], "between 0 and 1"),
        (["fit", "missing.npz"], "missing.npz"),
        (["fit", "digits", "--resume", "run"], "--resume"),
        (["fit", "--resume", "nowhere"], "nowhere"),
        (["fit", "--resume", "nowhere", "--epochs", "3"], "leave --epochs out"),
        (["evaluate", "nowhere"], "nowhere"),
        (["predict", "nowhere", "digits", "--out", "said.txt"], ".csv"),
        (["denoise", "nowhere", "digits", "--out", "new"], "nowhere"),
        (["denoise", "nowhere", "digits", "--out", "new", "--level", "0.2"], "name a noise"),
        (["denoise", "nowhere", "digits", "--out", "new", "--noise", "mask"], "mean masking"),
        (["denoise", "nowhere", "digits", "--out", "gone/new"], "make it first"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "digits", "--models", "swwae,ccn", "--out", "x"], "did you mean cnn"),
        (["reproduce", "swwae-mist"], "did you mean swwae-mnist"),
        (["fitt"], "fit"),
    ],
)
def test_what_a_user_gets_wrong_is_answered_in_one_line_with_the_cure(
    refused, monkeypatch, tmp_path, words, cure
):
    monkeypatch.chdir(tmp_path)
    assert cure in refused(*words)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_folder_that_holds_something_is_refused(refused, run_folder):
    before = (run_folder / "config.json").read_bytes()
    assert "not empty" in refused("fit", "digits", *NET, "--out", run_folder)
    assert (run_folder / "config.json").read_bytes() == before


def test_a_file_that_exists_is_refused(refused, run_folder, tmp_path):
    out = tmp_path / "said.csv"
    out.write_text("precious")
    assert "exists" in refused("predict", run_folder, "digits", "--out", out)
    assert out.read_text() == "precious"


def test_images_of_another_shape_are_refused(refused, run_folder, tmp_path):
    np.savez(tmp_path / "new.npz", x=np.zeros((5, 9, 9), np.uint8))
    line = refused("predict", run_folder, tmp_path / "new.npz", "--out", tmp_path / "p.csv")
    assert "9 x 9 pixels" in line
    assert "--image-size 8" in line


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_run_is_refused(refused, run_folder, tmp_path, name):
    for path in ("config.json", "model.safetensors"):
        whole = (run_folder / path).read_bytes()
        (tmp_path / path).write_bytes(whole[: len(whole) // 2] if path == name else whole)
    assert name in refused("evaluate", tmp_path)


def test_a_run_of_another_version_is_refused(refused, tmp_path):
    (tmp_path / "config.json").write_text('{"format": 99}')
    assert "99" in refused("evaluate", tmp_path)


def test_a_run_that_diverges_ends_with_the_term_named(say, tmp_path):
    run = tmp_path / "run"
    words = ("--set", "learning_rate=1e30", "--set", "batch_norm=false", "--epochs", "2")
    code, _, err = say("fit", "digits", *words, *NET, "--out", run)
    assert code == 2
    assert "loss/" in err
    assert "learning rate" in err


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "whatwhere", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )


def finish(*words):
    process = start(*words)
    _, err = process.communicate()
    assert process.returncode == 0, err


def wait_for(path: Path, n_lines: int):
    end = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < n_lines:
        assert time.monotonic() < end, "training did not begin"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, number, code):
    words = ("fit", "digits", "--labels", "50", "--epochs", "12", *NET)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(*words, "--out", whole)
    process = start(*words, "--out", cut)
    wait_for(cut / "metrics.jsonl", 2)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    if number == signal.SIGINT:
        assert f"--resume {cut}" in err.splitlines()[-1]
        assert (cut / "model.safetensors").exists(), "what was learned is kept"
    finish("fit", "--resume", cut)
    for name in ("model.safetensors", "evaluation.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not (cut / "checkpoint").exists()
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 12


def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_when_there_is_room(tmp_path):
    run = tmp_path / "run"
    words = ["fit", "digits", "--labels", "50", "--epochs", "2", *NET, "--out", str(run)]
    said = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    assert f"mend that, and then go on with: whatwhere fit --resume {run}" in said.stderr
    finish("fit", "--resume", run)
    assert (run / "evaluation.json").exists()


def test_the_list_of_sets_tells_how_each_that_is_not_here_comes(say, tmp_path):
    from whatwhere.data.sources import NAMES

    code, out, _ = say("data", "--data-dir", tmp_path)
    assert code == 0
    *lines, place = out.splitlines()
    assert place.startswith(f"looked for in {tmp_path} ")
    told = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert told == list(NAMES)
    assert max(len(line) for line in lines if not line.startswith(" ")) <= 100
    for name, source in NAMES.items():
        after = lines[lines.index(next(line for line in lines if line.split()[0] == name)) + 1 :]
        hint = after[0] if after and after[0].startswith(" ") else ""
        if source.page:
            assert hint == f"  not here; fetch it by hand from {source.page}"
        elif source.downloads:
            assert f"whatwhere data download {name} --data-dir {tmp_path}" in hint
        else:
            assert hint == ""


def test_ctrl_c_outside_of_training_is_said_too(say, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("whatwhere.data.sources.data_folder", interrupted)
    code, _, err = say("data")
    assert code == 130
    assert err.strip().endswith("stopped")


def test_ctrl_c_while_a_run_is_judged_says_how_to_go_on(say, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as changed:
        changed.setattr("whatwhere.experiments.fitting.judge_run", interrupted)
        code, _, err = say("fit", "digits", "--labels", "50", "--epochs", "1", *NET, "--out", run)
    assert code == 130
    assert err.splitlines()[-1] == (
        f"whatwhere: stopped; {run} keeps what was written; "
        f"go on with: whatwhere fit --resume {run}"
    )
    code, _, _ = say("fit", "--resume", run)
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_table_whose_cells_run_side_by_side(tmp_path, number):
    out = tmp_path / "table"
    words = ("compare", "digits", "--models", "cnn", "--labels", "50", "--seeds", "3", "--out", out)
    process = start(*words, "--epochs", "2000", *NET, "--jobs", "2")
    end = time.monotonic() + 100
    while not list(out.glob("running/*/checkpoint")):
        assert time.monotonic() < end, "training did not begin"
        time.sleep(0.1)
    process.send_signal(number)  # to the first process alone
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "the same command goes on" in err.splitlines()[-1]
    assert list(out.glob("running/*/checkpoint"))


def test_a_place_that_cannot_be_written_to_is_refused(refused):
    assert "cannot write" in refused("fit", "digits", *NET, "--out", "/dev/null/run")


def test_a_run_is_not_resumed_on_other_data_or_threads(tmp_path):
    data, run = tmp_path / "set.npz", tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8), np.uint8)
    np.savez(
        data, x_train=images, y_train=np.arange(400) % 2, x_test=images, y_test=np.arange(400) % 2
    )
    process = start("fit", data, "--epochs", "200", *NET, "--out", run)
    wait_for(run / "metrics.jsonl", 1)
    process.send_signal(signal.SIGINT)
    process.communicate()
    np.savez(
        data, x_train=images, y_train=np.arange(400) % 3, x_test=images, y_test=np.arange(400) % 2
    )
    process = start("fit", "--resume", run)
    assert "changed" in process.communicate()[1]
    assert process.returncode == 2
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    said = subprocess.run(
        [sys.executable, "-m", "whatwhere", "fit", "--resume", run],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "OMP_NUM_THREADS=1" in said.stderr


@pytest.fixture
def archive(tmp_path):
    """A function that writes an .npz of digits with a test part, and returns its path."""
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)

    def write(name="set.npz", **changes):
        parts = {
            "x_train": images[:300],
            "y_train": y[:300],
            "x_test": images[300:400],
            "y_test": y[300:400],
        }
        np.savez(tmp_path / name, **(parts | changes))
        return tmp_path / name

    return write


def test_a_run_that_saw_the_test_images_is_not_tested_on_them(say, refused, archive, tmp_path):
    run = tmp_path / "run"
    words = ("fit", archive(), "--split", "all", "--epochs", "1", *NET, "--out", run)
    assert say(*words)[0] == 0
    assert "no test part" in refused("evaluate", run)


def test_a_probe_is_not_judged_on_the_images_that_it_is_fitted_to(refused, run_folder):
    words = ("evaluate", run_folder, "--split", "test", "--probe", "knn")
    assert "--split" in refused(*words)


def test_a_part_that_is_asked_for_is_the_part_that_is_judged(say, run_folder):
    code, out, _ = say("evaluate", run_folder, "--split", "train", "--json")
    assert code == 0
    assert json.loads(out)["n"] == 1198


def test_a_comparison_does_not_reuse_cells_of_other_images(say, refused, archive, tmp_path):
    words = ("compare", tmp_path / "set.npz", "--models", "svm", "--labels", "20", "--seeds", "1")
    archive()
    assert say(*words, "--out", tmp_path / "table")[0] == 0
    archive(x_test=np.zeros((100, 8, 8), np.uint8))
    assert "changed" in refused(*words, "--out", tmp_path / "table")


def test_a_table_is_not_overwritten_by_a_smaller_or_another_one(say, refused, archive, tmp_path):
    words = ("compare", archive(), "--models", "svm", "--out", tmp_path / "table")
    assert say(*words, "--labels", "20", "--seeds", "2")[0] == 0
    assert "--seeds 2" in refused(*words, "--labels", "20", "--seeds", "1")
    assert "another table" in refused(*words, "--labels", "30", "--seeds", "2")


def test_text_of_minus_one_beside_names_is_unlabeled(say, archive, tmp_path):
    names = np.array([["even", "odd"][digit % 2] for digit in range(300)])
    names[20:] = "-1"
    test = np.array(["even", "odd"] * 50)
    data, run = archive(y_train=names, y_test=test), tmp_path / "run"
    assert say("fit", data, "--epochs", "1", *NET, "--out", run)[0] == 0
    config = json.loads((run / "config.json").read_text())
    assert config["classes"] == ["even", "odd"]
    assert config["data"]["n_labeled"] == 20


def test_a_run_saved_from_python_reads_data_as_they_come(say, archive, tmp_path):
    from whatwhere import CNN

    with np.load(archive()) as parts:
        X, y = parts["x_train"] / np.float32(255), parts["y_train"]
    model = CNN("(4)3c-2p", epochs=1, value_range=(0, 1), channels="last", random_state=0)
    model.fit(X[..., None], y).save(tmp_path / "run")
    out = tmp_path / "said.csv"
    assert say("predict", tmp_path / "run", archive(), "--split", "train", "--out", out)[0] == 0
    with out.open() as file:
        said = [int(row["label"]) for row in csv.DictReader(file)]
    assert said == model.predict(X[..., None]).tolist()


def test_what_cannot_be_trained_leaves_no_folder(refused, archive, tmp_path):
    run = tmp_path / "run"
    data = archive(y_train=np.zeros(300, int), y_test=np.zeros(100, int))
    assert "one class only" in refused("fit", data, *NET, "--out", run)
    data = archive(y_train=np.arange(300) % 5)
    assert "no training label has it" in refused("fit", data, *NET, "--out", run)
    assert "--validation" in refused("fit", archive(), "--set", "patience=2", "--out", run)
    assert "--validation" in refused("fit", archive(), "--validation", "300", "--out", run)
    one = archive(x_train=np.zeros((1, 8, 8), np.uint8), y_train=np.zeros(1, int))
    assert "two or more" in refused("fit", one, "--labels", "none", "--out", run)
    assert not run.exists()


def test_a_run_that_never_learned_says_how_to_go_on(refused, run_folder, tmp_path):
    config = json.loads((run_folder / "config.json").read_text())
    config.pop("n_features_in")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"fit --resume {tmp_path}" in refused("evaluate", tmp_path)
    (tmp_path / "checkpoint").mkdir()
    assert f"--resume {tmp_path}" in refused("evaluate", tmp_path)


def test_a_setting_of_a_comparison_goes_to_the_models_that_have_it(say, refused, archive, tmp_path):
    words = ("compare", archive(), "--labels", "20", "--seeds", "1", "--epochs", "1", *NET)
    both = (*words, "--models", "swwae,cnn", "--out", tmp_path / "table")
    assert say(*both, "--set", "noise=0.1")[0] == 0
    cells = [json.loads(p.read_text()) for p in (tmp_path / "table" / "cells").iterdir()]
    assert sorted("noise" in cell["job"]["settings"] for cell in cells) == [False, True]
    assert "nois" in refused(*both, "--set", "nois=0.1")
    assert "did you mean joint" in refused(*both, "--set", "jont.epochs=2")


def test_a_comparison_takes_learners_with_and_without_classes(say, archive, tmp_path):
    words = ("compare", archive(), "--models", "autoencoder,swwae,cnn", "--seeds", "1", *NET)
    words += ("--labels", "20,30", "--set", "epochs=1", "--out", tmp_path / "table")
    code, out, _ = say(*words)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "test error, %"
    assert [row.split("  ")[0] for row in rows[:3]] == [
        "autoencoder (linear probe)",
        "swwae",
        "cnn",
    ]
    assert "swwae minus autoencoder (linear probe)" in out
    page = (tmp_path / "table" / "report.html").read_text(encoding="utf-8")
    assert "autoencoder (linear probe)" in page


def test_evaluate_tells_the_error_of_a_pixel_and_of_an_image(say, run_folder):
    told = json.loads(say("evaluate", run_folder, "--json")[1])
    assert told["reconstruction_sse"] == pytest.approx(64 * told["reconstruction_mse"])
    code, out, _ = say("evaluate", run_folder)
    assert code == 0
    assert f"{told['reconstruction_mse']:.5f}, {told['reconstruction_sse']:.2f} summed" in out


def test_the_epochs_of_any_stage_can_be_set(say, refused, tmp_path):
    stages = ["--set", "layer1.epochs=2", "--set", "fine-tuning.epochs=1"]
    words = ["fit", "digits", "--model", "stacked_autoencoder", "--labels", "50"]
    out = tmp_path / "run"
    say(*words, "--set", "architecture=8fc", *stages, "--out", out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records] == ["layer1", "layer1", "fine-tuning"]
    line = refused(*words, "--set", "first.epochs=2", "--out", tmp_path / "other")
    assert "no stage 'first'" in line and "layer1" in line
    assert not (tmp_path / "other").exists()
