"""Judging features on few labels, as a user meets it."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from whatwhere import CNN, RBM, SWWAE, ExemplarCNN, load
from whatwhere.cli import probing
from whatwhere.data import sources
from whatwhere.evaluate import protocol
from whatwhere.evaluate.features import features
from whatwhere.experiments.job import Job


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


@pytest.fixture
def run(digits, tmp_path):
    """A run that saw no labels, and does not say what it was fitted to."""
    model = SWWAE("(4)3c-2p-(5)3c-2p", epochs=2, batch_size=50, random_state=0)
    return model.fit(digits.train.x[:300]).save(tmp_path / "run")


@pytest.fixture
def embeddings(digits, run, tmp_path):
    """What the run's features are, in a file from outside."""
    learner = load(run).set_params(channels="first")
    path = tmp_path / "outside.npz"
    np.savez(
        path,
        x_train=learner.transform(digits.train.x),
        y_train=digits.train.y,
        x_test=learner.transform(digits.test.x),
        y_test=digits.test.y,
    )
    return path


FAST = ("--labels", "20,50", "--seeds", "2", "--probes", "linear,knn")


def errors(said):
    """Return the errors that --json tells, by row, number of labels and draw."""
    return {
        (one["row"], one["labels"], one["draw"]): one["error"]
        for one in json.loads(said)["records"]
    }


def test_a_run_and_its_embeddings_from_outside_are_worth_the_same(say, run, embeddings):
    words = ("probe", run, embeddings, "--data", "digits", *FAST, "--no-floors")
    code, said, told = say(*words, "--json")
    assert code == 0, told
    assert "20 labels, draw 1 of 2" in told
    found = errors(said)
    assert len(found) == 2 * 2 * 2 * 2
    for (row, n, draw), error in found.items():
        assert found[row.replace(str(run), str(embeddings)), n, draw] == error
    code, said, _ = say(*words)
    lines = said.splitlines()
    assert lines[0].split("  ")[0] == "test error, %"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        *(f"{source}, {by}" for source in (run, embeddings) for by in ("linear", "knn")),
        *(f"{run}, {by} minus {embeddings}, {by}" for by in ("linear", "knn")),
    ]


def test_embeddings_alone_need_no_images_and_have_no_floors_of_ours(
    say, embeddings, monkeypatch, tmp_path
):
    monkeypatch.setenv(
        "WHATWHERE_DATA", str(tmp_path)
    )  # where images lie is no question about these
    code, said, _ = say("probe", embeddings, *FAST, "--json")
    assert code == 0
    assert {row for row, _, _ in errors(said)} == {f"{embeddings}, linear", f"{embeddings}, knn"}
    assert json.loads(said)["n"] == 599


def test_the_numbers_are_those_of_the_python_functions(say, run, digits):
    words = ("--level", "level1", "--pool", "quadrants", "--where", "--no-floors", "--json")
    code, said, _ = say("probe", run, "--data", "digits", *FAST, *words)
    assert code == 0
    asked: dict[str, Any] = {"level": "level1", "pool": "quadrants", "where": True}
    learner, parts = load(run), (digits.train, digits.test)
    train, test = (features(learner, part.x, **asked) for part in parts)
    labels = protocol.Labels(digits.train.y, digits.test.y, digits.train.classes)
    judges = ("linear", "knn")
    own = protocol.run(
        {str(run): protocol.Source(train, test)},
        labels,
        numbers=("20", "50"),
        draws=2,
        judges=judges,
    )
    assert errors(said) == {(one["row"], one["labels"], one["draw"]): one["error"] for one in own}


def test_floors_stand_beside_the_runs(say, run):
    code, said, _ = say("probe", run, "--data", "digits", *FAST)
    assert code == 0
    for floor in ("raw pixels, svm", "principal components, knn", "random filters (4)3c-2p-"):
        assert f"\n{floor}" in said
    assert f"{run}, knn minus raw pixels, knn" in said


def test_runs_are_judged_on_what_they_were_fitted_to_where_no_data_are_named(say, tmp_path):
    out = tmp_path / "fitted"
    words = ("--labels", "50", "--epochs", 1, "--set", "architecture=(4)3c-2p", "--out", out)
    assert say("fit", "digits", "--model", "swwae", *words)[0] == 0
    code, said, told = say("probe", out, *FAST, "--no-floors")
    assert code == 0
    assert f"{out}, linear" in said
    assert "was itself fitted with 50 labels" in told


def test_images_of_another_kind_are_brought_to_what_the_run_saw(say, run, tmp_path):
    x, y = load_digits(return_X_y=True)
    color = np.round(x.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    color = color.repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)
    data = tmp_path / "color.npz"
    np.savez(data, x_train=color[:500], y_train=y[:500], x_test=color[500:700], y_test=y[500:700])
    code, said, told = say("probe", run, "--data", data, *FAST)
    assert code == 0, told
    assert "images of 3 x 16 x 16 are brought to the 1 x 8 x 8" in told
    assert "raw pixels, svm" in said


@pytest.mark.parametrize(
    "model", [ExemplarCNN("(4)3c-8fc", patch=4, n_seeds=20, epochs=1), RBM(5, epochs=1)]
)
def test_each_learner_has_its_own_random_weights_for_a_floor(say, model, digits, tmp_path):
    model.set_params(random_state=0).fit(digits.train.x[:60]).save(tmp_path / "run")
    words = ("--labels", "20", "--seeds", "1", "--probes", "knn")
    code, said, told = say("probe", tmp_path / "run", "--data", "digits", *words)
    assert code == 0, told
    net = "(4)3c-8fc" if isinstance(model, ExemplarCNN) else "rbm"
    assert f"\nrandom filters {net}, knn" in said


def test_nets_that_differ_have_floors_of_their_own(say, digits, tmp_path):
    runs = []
    for name, norm in (("with", True), ("without", False)):
        model = CNN("(4)3c-2p", batch_norm=norm, epochs=1, batch_size=50, random_state=0)
        runs.append(model.fit(digits.train.x[:100]).save(tmp_path / name))
    words = ("--labels", "20", "--seeds", "2", "--probes", "knn", "--fine-tune")
    code, said, told = say("probe", *runs, "--data", "digits", *words)
    assert code == 0, told
    for floor in ("random filters (4)3c-2p", "(4)3c-2p, labels alone"):
        assert f"\n{floor}" in said and f"{floor} (2)" in said
    assert f"{runs[1]}, fine-tuned minus (4)3c-2p, labels alone (2)" in said


def test_fine_tuned_nets_stand_beside_the_same_net_on_labels_alone(say, run):
    words = ("--labels", "20", "--seeds", "2", "--probes", "knn", "--no-floors", "--fine-tune")
    code, said, _ = say("probe", run, "--data", "digits", *words, "--json")
    assert code == 0
    rows = {row for row, _, _ in errors(said)}
    tuned, alone = f"{run}, fine-tuned", "(4)3c-2p-(5)3c-2p, labels alone"
    assert rows == {f"{run}, knn", tuned, alone}
    (difference,) = json.loads(said)["differences"]
    assert difference["label"] == f"{tuned} minus {alone}"
    assert difference["cells"][0]["n"] == 2


def test_what_cannot_be_judged_is_refused_in_one_line(refused, run, embeddings, digits, tmp_path):
    data = ("--data", "digits")
    assert "did you mean linear" in refused("probe", run, *data, "--probes", "linaer")
    assert "did you mean level" in refused("probe", run, *data, "--level", "level9", *FAST)
    assert "did you mean quadrants" in refused("probe", run, *data, "--pool", "quadrant")
    assert "5 labels are too few" in refused("probe", run, *data, "--labels", "5")
    assert "name DATA" in refused("probe", run, *FAST)
    assert "leave it out" in refused("probe", embeddings, *data)
    assert "not there" in refused("probe", tmp_path / "none.npz")
    np.savez(tmp_path / "images.npz", x_train=digits.train.x)
    assert "embeddings to probe are x_train, y_train" in refused("probe", tmp_path / "images.npz")
    y = {"y_train": digits.train.y, "y_test": digits.test.y}
    np.savez(tmp_path / "images.npz", x_train=digits.train.x, x_test=digits.test.x, **y)
    assert "embeddings are (n, K)" in refused("probe", tmp_path / "images.npz")
    np.save(tmp_path / "text.npy", np.zeros((9, 2)))
    few = {"x_train": np.zeros((9, 2)), "x_test": np.zeros((599, 2))}
    np.savez(tmp_path / "few.npz", **few, **y)
    assert "9 rows of x_train and 1198 of y_train" in refused("probe", tmp_path / "few.npz")
    np.savez(
        tmp_path / "other.npz",
        x_train=np.zeros((1198, 2)),
        x_test=np.zeros((599, 2)),
        y_train=digits.train.y[::-1],
        y_test=digits.test.y,
    )
    line = refused("probe", run, tmp_path / "other.npz", *data, *FAST)
    assert "other labels" in line and "training row 0: " in line
    assert "is no run folder" in refused("probe", tmp_path / "text.npy", *FAST)
    for words in (("--image-size", 20), ("--test-fraction", 0.2)):
        assert "about images" in refused("probe", embeddings, *FAST, *words)
    for words in (("--level", "level1"), ("--pool", "max"), ("--where",), ("--fine-tune",)):
        assert "ask for a run" in refused("probe", embeddings, *FAST, *words)
    hot = {"y_train": np.eye(10)[y["y_train"]], "y_test": y["y_test"]}
    np.savez(tmp_path / "hot.npz", x_train=np.zeros((1198, 2)), x_test=np.zeros((599, 2)), **hot)
    assert "y.argmax(axis=1)" in refused("probe", tmp_path / "hot.npz", *FAST)
    bad = {"x_train": np.full((1198, 2), np.nan), "x_test": np.zeros((599, 2))}
    np.savez(tmp_path / "bad.npz", **bad, **y)
    line = refused("probe", tmp_path / "bad.npz", *FAST)
    assert "training part of" in line and "bad.npz" in line and "not finite" in line
    rbm = RBM(5, random_state=0).fit(digits.train.x[:50]).save(tmp_path / "rbm")
    assert "rbm does not keep where" in refused("probe", rbm, *data, *FAST, "--where")


def test_runs_on_different_images_need_data_to_be_judged_on(say, refused, tmp_path, digits):
    np.savez(tmp_path / "mine.npz", x=digits.train.x[:60, 0], y=digits.train.y[:60])
    run, other = tmp_path / "run", tmp_path / "other"
    words = ("--epochs", 1, "--set", "architecture=(2)3c-2p", "--labels", "none", "--out", run)
    assert say("fit", tmp_path / "mine.npz", "--model", "swwae", *words)[0] == 0
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    config["job"]["data"] = "digits"
    (other / "config.json").write_text(json.dumps(config))
    assert "fitted to different images" in refused("probe", run, other)
    assert "has no test part" in refused("probe", run)


def test_a_run_is_not_judged_on_images_that_it_was_trained_on(say, refused, tmp_path, digits):
    x, y = digits.train.x[:, 0], digits.train.y
    np.savez(tmp_path / "all.npz", x=x, y=y)
    # 30 of the 100 test images are new; 20 of the others are in this training part too.
    known = np.arange(200)
    parts = {
        "x_train": x[known],
        "y_train": y[known],
        "x_test": np.concatenate([x[180:250], digits.test.x[:30, 0]]),
        "y_test": np.concatenate([y[180:250], digits.test.y[:30]]),
    }
    np.savez(tmp_path / "cut.npz", **parts)
    run = tmp_path / "run"
    words = ("--epochs", 1, "--set", "architecture=(2)3c-2p", "--labels", "none", "--out", run)
    assert say("fit", tmp_path / "all.npz", "--model", "swwae", *words)[0] == 0
    line = refused("probe", run, "--data", tmp_path / "cut.npz", *FAST)
    assert "50 of the test images of " in line and "were trained on" in line
    # In another size, as floats of the same pixels, and by a run that this one began with.
    bigger = ("--image-size", 9)
    assert "50 of the" in refused("probe", run, "--data", tmp_path / "cut.npz", *bigger, *FAST)
    np.savez(tmp_path / "floats.npz", x=(x / 255).astype(np.float32), y=y)
    np.savez(tmp_path / "flipped.npz", x=x[:, ::-1], y=y)
    for data, name, more in (("floats", "f", ()), ("flipped", "g", ("--from", run))):
        words = ("--epochs", 1, *more, "--labels", "none", "--out", tmp_path / name)
        net = () if more else ("--set", "architecture=(2)3c-2p")
        assert say("fit", tmp_path / f"{data}.npz", "--model", "swwae", *net, *words)[0] == 0
        line = refused("probe", tmp_path / name, "--data", tmp_path / "cut.npz", *FAST)
        assert "50 of the test images of " in line
    assert say("probe", run, "--data", "digits", *FAST, "--no-floors")[0] == 0


def test_other_images_are_read_alike_whichever_run_is_named_first(tmp_path):
    runs = []
    for name, size in (("a", 16), ("b", None), ("c", 16)):
        (tmp_path / name).mkdir()
        config = {"format": 1, "job": {"data": "digits", "image_size": size, "fit": None}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        runs.append(tmp_path / name)
    a, b, c = runs
    job = Job("mnist", "swwae", image_size=16)
    for both in ((a, b), (b, a), (a, c)):
        assert probing._as_they_come(job, both, None, None).image_size is None
    # Images of a folder may differ in size, and are brought together as the runs' own were.
    folder = replace(job, data=str(tmp_path))
    assert probing._as_they_come(folder, (a, c), None, None).image_size == 16
    assert probing._as_they_come(folder, (a, b), None, None).image_size is None
    assert probing._as_they_come(folder, (a, b), 20, None).image_size == 20


def test_runs_that_differ_in_anything_have_random_filters_of_their_own(say, digits, tmp_path):
    few = [RBM(n, epochs=1, random_state=0).fit(digits.train.x[:60]) for n in (5, 9)]
    runs = [model.save(tmp_path / str(n)) for n, model in enumerate([*few, few[0]])]
    words = ("--labels", "20", "--seeds", "1", "--probes", "knn", "--json")
    found = errors(say("probe", *runs, "--data", "digits", *words)[1])
    swapped = errors(say("probe", *runs[::-1], "--data", "digits", *words)[1])
    floors = {row for row, _, _ in found if row.startswith("random filters")}
    assert floors == {"random filters rbm, knn", "random filters rbm (2), knn"}
    one, two = ([value for (row, _, _), value in each.items() if row in floors]
                for each in (found, swapped))  # fmt: skip
    assert sorted(one) == sorted(two)


def test_evaluate_takes_the_linear_machines_too(say, run):
    words = ("evaluate", run, "digits", "--probe", "linear_svm", "--labels", "100")
    code, said, _ = say(*words)
    assert code == 0
    assert "by a linear_svm probe with 100 labels" in said
