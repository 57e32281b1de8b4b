import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from whatwhere import SWWAE, StackedAutoencoder, Whitening
from whatwhere.core import UNLABELED, InputError
from whatwhere.data import sources
from whatwhere.evaluate import measures, nets, probes, protocol
from whatwhere.evaluate.features import features
from whatwhere.evaluate.protocol import Labels, Source, drawn, labels_of, run, table
from whatwhere.experiments.job import Job
from whatwhere.experiments.table import markdown, told


def digits():
    """Return digits as features in [0, 1] and labels, 600 to learn from and 300 to judge by."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return Source(x[:600], x[600:900]), labels_of(y[:600], y[600:900])


ASKED: dict[str, Any] = {"numbers": ("20", "60"), "draws": 2, "judges": ("linear", "knn")}


@pytest.mark.parametrize("n", ["10", "37", "all"])
@pytest.mark.parametrize("draw", [0, 3])
def test_a_draw_shows_the_labels_that_a_job_shows(n, draw):
    job = Job("digits", "cnn", labels=n, label_seed=draw)
    read = job.read()
    assert read.test is not None
    whole = sources.load("digits").train
    rows = drawn(Labels(whole.y, read.test.y, whole.classes), n, draw)
    np.testing.assert_array_equal(rows, np.flatnonzero(read.train.y != UNLABELED))
    by_name = labels_of(np.array(whole.classes)[whole.y], read.test.y)
    np.testing.assert_array_equal(drawn(by_name, n, draw), rows)


def test_all_sources_are_probed_on_the_same_rows_and_judged_on_the_same_images():
    source, labels = digits()
    records = run({"a": source, "b": source}, labels, **ASKED)
    assert len(records) == 2 * 2 * 2 * 2
    for one in records:
        (twin,) = [
            other
            for other in records
            if other["row"] == one["row"].replace("a,", "b,")
            and (other["labels"], other["draw"]) == (one["labels"], one["draw"])
        ]
        assert one | {"row": ""} == twin | {"row": ""}


def test_a_record_is_what_scikit_learn_finds_on_the_rows_of_the_draw():
    source, labels = digits()
    (one,) = run({"a": source}, labels, numbers=["50"], draws=1, judges=["knn"])
    rows = drawn(labels, "50", 0)
    assert np.bincount(labels.train[rows]).tolist() == [5] * 10
    own = KNeighborsClassifier(1).fit(source.train[rows], labels.train[rows])
    assert one["accuracy"] == own.score(source.test, labels.test)
    assert (one["row"], one["labels"], one["draw"], one["n"]) == ("a, knn", "50", 0, 300)
    json.dumps(one)


def test_unlabeled_rows_are_neither_drawn_nor_judged():
    source, labels = digits()
    hidden = Labels(labels.train.copy(), labels.test.copy(), labels.classes)
    hidden.train[::2] = hidden.test[::2] = UNLABELED
    asked: dict[str, Any] = {"numbers": ("20", "all"), "draws": 2, "judges": ("knn",)}
    found = run({"a": source}, hidden, **asked)
    seen = Labels(hidden.train, hidden.test[1::2], labels.classes)
    assert found == run({"a": source._replace(test=source.test[1::2])}, seen, **asked)
    assert found[0]["n"] == 150
    assert len(drawn(hidden, "all", 0)) == 300


def test_of_all_labels_there_is_one_draw_and_of_others_as_many_as_asked():
    source, labels = digits()
    found = run({"a": source}, labels, numbers=("20", "all"), draws=3, judges=("knn",))
    assert [(one["labels"], one["draw"]) for one in found] == [
        ("20", 0),
        ("20", 1),
        ("20", 2),
        ("all", 0),
    ]


def test_features_of_the_rows_that_are_needed_are_enough():
    source, labels = digits()
    rows = protocol.needed(labels, ASKED["numbers"], ASKED["draws"])
    assert len(rows) < 200
    few = source._replace(train=source.train[rows])
    assert run({"a": few}, labels, rows=rows, **ASKED) == run({"a": source}, labels, **ASKED)


def test_turned_features_are_worth_the_same():
    source, labels = digits()
    turn = ortho_group.rvs(64, random_state=0)
    turned = Source(source.train @ turn, source.test @ turn)
    found = run({"a": source, "b": turned}, labels, **ASKED)
    errors = {(one["row"], one["labels"], one["draw"]): one["error"] for one in found}
    for (row, n, draw), error in errors.items():
        if row.startswith("a"):
            # One image of 300 may be as near to one class as to another.
            assert errors[f"b{row[1:]}", n, draw] == pytest.approx(error, abs=100 / 300 + 1e-9)


def test_embeddings_from_outside_are_worth_what_the_learners_own_are(tmp_path):
    data = sources.load("digits")
    assert data.test is not None
    learner = Whitening().fit(data.train.x)
    own = Source(features(learner, data.train.x), features(learner, data.test.x))
    np.savez(
        tmp_path / "e.npz", a=learner.transform(data.train.x), b=learner.transform(data.test.x)
    )
    with np.load(tmp_path / "e.npz") as file:
        outside = Source(file["a"].astype(np.float64), file["b"].astype(np.float64))
    labels = Labels(data.train.y, data.test.y, data.train.classes)
    found = run({"own": own, "outside": outside}, labels, **{**ASKED, "judges": ("knn",)})
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one | {"row": ""} == other | {"row": ""}


def test_the_machine_with_a_kernel_is_left_out_where_it_takes_hours(monkeypatch):
    source, labels = digits()
    monkeypatch.setitem(protocol.MOST_LABELS, "svm", 30)
    found = run({"a": source._replace(probes=("svm",))}, labels, **ASKED)
    assert {one["labels"] for one in found} == {"20"}
    (row,) = table([*found, *run({"b": source}, labels, **ASKED)])["rows"][:1]
    assert [cell is None for cell in row["cells"]] == [False, True]


def test_the_table_holds_means_and_differences_of_each_draw():
    source, labels = digits()
    noisy = Source(source.train[:, :20], source.test[:, :20])
    asked: dict[str, Any] = ASKED | {"draws": 3}
    found = run({"a": source, "b": noisy}, labels, **asked)
    made = table(found, [("a, knn", "b, knn")], title="digits")
    assert made["columns"] == ["20 labels", "60 labels"]
    assert [row["label"] for row in made["rows"]] == ["a, linear", "a, knn", "b, linear", "b, knn"]

    def errors(row, n):
        return [one["error"] for one in found if (one["row"], one["labels"]) == (row, n)]

    for row in made["rows"]:
        for n, cell in zip(("20", "60"), row["cells"], strict=True):
            assert cell == measures.mean_interval(errors(row["label"], n))
    (difference,) = made["differences"]
    by_draw = np.subtract(errors("a, knn", "60"), errors("b, knn", "60"))
    assert difference["cells"][1] == measures.mean_interval(by_draw)
    assert "a, knn minus b, knn" in told(made)
    assert markdown(made).count("\n") == 1 + 4 + 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"judges": ("linaer",)}, "no probe is called 'linaer'; did you mean linear"),
        ({"numbers": ("many",)}, "'many' labels: it takes all, or a number"),
        ({"numbers": ("5",)}, "5 labels are too few for 10 classes"),
        ({"numbers": ("9999",)}, "more than there are"),
        ({"numbers": ()}, "nothing to judge by"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(asked, words):
    source, labels = digits()
    with pytest.raises(InputError, match=words) as caught:
        run({"a": source}, labels, **ASKED | asked)
    assert "\n" not in str(caught.value)


def test_rows_without_a_label_of_their_own_are_refused():
    source, labels = digits()
    with pytest.raises(InputError, match="a has 599 training rows, and there are 600 labels"):
        run({"a": source._replace(train=source.train[1:])}, labels, **ASKED)
    with pytest.raises(InputError, match="no test row has a label"):
        run({"a": source}, labels._replace(test=np.full(300, UNLABELED)), **ASKED)
    with pytest.raises(InputError, match=r"'yak' is not among the classes .*cat, dog"):
        labels_of(["cat", "dog"], ["yak"])


def test_floors_are_pixels_and_the_components_of_all_images():
    x = sources.load("digits").train.x
    rows = np.arange(0, 900, 9)
    pixels, components = (make(x[:1000], x[1000:], rows) for make in protocol.FLOORS.values())
    np.testing.assert_array_equal(pixels.train, probes.raw_pixels(x[rows]))
    np.testing.assert_array_equal(pixels.test, probes.raw_pixels(x[1000:]))
    own = PCA(64).fit(probes.raw_pixels(x[:1000])).transform(probes.raw_pixels(x[rows]))
    np.testing.assert_allclose(np.abs(components.train[:, :10]), np.abs(own[:, :10]), atol=1e-3)
    assert "svm" in pixels.probes


SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 20}


@pytest.fixture(scope="module")
def learned():
    data = sources.load("digits")
    few = data.train.take(np.arange(200))
    return SWWAE("(4)3c-2p-(6)3c-2p", **SHORT, random_state=0).fit(few.x), few


def encoder_weights(module: Any) -> dict[str, Any]:
    return module.encoder.state_dict()


def test_random_filters_are_the_untrained_net_cut_as_the_learned_one(learned):
    learner, few = learned
    net = nets.random_filters(learner)
    fresh = encoder_weights(learner.build(learner.spec_))
    for name, value in encoder_weights(net.module_).items():
        assert (value == fresh[name]).all(), name
    assert net.transform(few.x).shape == learner.transform(few.x).shape
    assert (net.transform(few.x) != learner.transform(few.x)).any()
    cnn = nets.same_net(learner, seed=learner.spec_.seed).fit(few.x)
    np.testing.assert_array_equal(net.transform(few.x), cnn.transform(few.x))


def test_what_begins_without_weights_has_no_random_filters(learned):
    whitening = Whitening(random_state=0).fit(learned[1].x)
    with pytest.raises(InputError, match="begins without any weights"):
        nets.random_filters(whitening)


def test_fine_tuning_begins_with_the_weights_and_labels_alone_without(learned):
    learner, few = learned
    still = {**SHORT, "learning_rate": 1e-30}
    tuned = encoder_weights(nets.fine_tuned(learner, few, **still).module_)
    alone = encoder_weights(nets.labels_alone(learner, few, **still).module_)
    own = encoder_weights(learner.module_)
    weights = [name for name in own if name.endswith("weight")]
    assert all((tuned[name] == own[name]).all() for name in weights)
    assert any((alone[name] != own[name]).any() for name in weights)


def test_nets_see_the_labeled_rows_alone_and_give_the_classes_their_names(learned):
    learner, few = learned
    shown = replace(few, y=np.where(np.arange(200) < 60, few.y, UNLABELED))
    renamed = replace(shown, classes=tuple(f"digit {c}" for c in few.classes))
    for fit in (nets.fine_tuned, nets.labels_alone):
        net = fit(learner, renamed, **SHORT)
        assert (net.spec_.n_samples, net.spec_.n_labeled) == (60, 60)
        assert set(net.classes_) == set(renamed.classes)
        places = nets.places(net, renamed)
        assert (np.array(renamed.classes)[places] == net.predict(renamed.x[:60])).all()


def test_what_has_no_net_to_tune_is_refused():
    x = sources.load("digits").train
    learner = Whitening().fit(x.x)
    with pytest.raises(InputError, match="nothing to fine-tune"):
        nets.fine_tuned(learner, x)
    with pytest.raises(InputError, match="whitening has no convolutional encoder"):
        nets.same_net(learner)


def test_another_classifier_begins_one_of_its_own_kind():
    few = sources.load("digits").train.take(np.arange(200))
    learner = StackedAutoencoder("12fc", random_state=0).fit(few.x)
    names = [stage["name"] for stage in learner.stages_]
    tuned = nets.fine_tuned(learner, few, stage_epochs=dict.fromkeys(names, 0), learning_rate=1e-30)
    assert isinstance(tuned, StackedAutoencoder)
    np.testing.assert_allclose(tuned.transform(few.x), learner.transform(few.x), atol=1e-6)


def test_the_example_of_the_page_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, page.name, "exec"), {})
    assert "squared, knn minus pixels, knn" in capsys.readouterr().out


def test_labels_that_are_no_classes_are_refused_and_numbers_are_strings():
    y = [0, 1, 0, 1]
    for bad, words in ((np.eye(2)[y], "argmax"), ([0, None, 1, 0], "None or nan")):
        with pytest.raises(InputError, match=words):
            labels_of(bad, y)
    with pytest.raises(InputError, match="None or nan"):
        labels_of(y, [0.0, float("nan")])
    rows: Any = [[0.0], [1.0], [0.1], [1.1]]
    number: Any = 2
    lists = Source(rows, rows[:2])
    known = labels_of(y, [0, 1])
    (found,) = run({"lists": lists}, known, numbers=("all",), judges=("knn",))
    assert found["error"] == 0
    with pytest.raises(InputError, match="are strings"):
        run({"lists": lists}, known, numbers=(number,), judges=("knn",))
    uneven = lists._replace(test=np.eye(2))
    with pytest.raises(InputError, match="1 features in the training part and 2 in the test part"):
        run({"lists": uneven}, known, numbers=("all",), judges=("knn",))


def test_rows_that_a_draw_shows_and_no_source_has_are_refused():
    source, labels = digits()
    few = np.arange(0, 600, 2)
    with pytest.raises(InputError, match="which a draw shows"):
        run({"a": Source(source.train[few], source.test)}, labels, rows=few, **ASKED)
    with pytest.raises(InputError, match="do not rise"):
        run({"a": source}, labels, rows=np.arange(600)[::-1], **ASKED)
    with pytest.raises(InputError, match="nothing to judge"):
        run({"a": source}, labels, numbers=("20",), draws=0)
    with pytest.raises(InputError, match="nothing to judge"):
        run({}, labels, **ASKED)
