"""Drawing new images, and what is told of likelihoods, as a user meets it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from whatwhere import CNN, RBM


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that draws images, trained on the digits."""
    from sklearn.datasets import load_digits

    counts, _ = load_digits(return_X_y=True)
    x = np.round(counts[:200].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return RBM(8, epochs=2, random_state=0).fit(x).save(folder)


def test_sample_draws_a_grid_and_a_filmstrip(say, run, tmp_path):
    out = tmp_path / "new.png"
    code, said, told = say("sample", run, "-n", 9, "--gibbs", 20, "--out", out)
    assert code == 0, told
    assert f"9 samples in {out}, each after 20 steps of Gibbs sampling from noise; 8 of" in said
    with Image.open(out) as picture:
        assert picture.width == picture.height
    assert (tmp_path / "new-filmstrip.png").exists()


def test_the_seed_decides_what_is_drawn(say, run, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--gibbs", 2, "--seed", seed, "--out", tmp_path / f"{name}.png")
        assert say("sample", run, *words)[0] == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_chains_begin_at_the_images_that_are_named(say, photos, run, folder, tmp_path):
    out = tmp_path / "new.png"
    words = ("sample", run, folder, "--from", "data", "-n", 5, "--gibbs", 1, "--out", out)
    code, said, told = say(*words)
    assert code == 0, told
    assert "5 samples" in said
    assert "from data; 5 of the chains" in said


def test_by_default_chains_begin_at_what_the_run_was_trained_on(say, refused, run, tmp_path):
    words = ["--labels", "none", "--model", "rbm", "--epochs", "1", "--set", "n_hidden=4"]
    assert say("fit", "digits", *words, "--out", tmp_path / "fitted")[0] == 0
    out = tmp_path / "new.png"
    words = ("--from", "data", "-n", 3, "--gibbs", 1, "--out", out)
    code, _, told = say("sample", tmp_path / "fitted", *words)
    assert code == 0, told
    assert out.exists()
    # One that was saved from Python does not know its data.
    lost = ("--from", "data", "--out", tmp_path / "other.png")
    assert "name DATA" in refused("sample", run, *lost)


def test_what_a_sample_cannot_be_is_refused(say, refused, run, folder, photos, tmp_path):
    out = tmp_path / "new.png"
    assert "add --from data" in refused("sample", run, folder, "--out", out)
    assert "--gibbs" in refused("sample", run, "--gibbs", 0, "--out", out)
    inside = ("sample", run, folder, "--from", "data", "--out", folder / "new.png")
    assert "read as images" in refused(*inside)
    x, labels = photos.digits(20)
    cnn = CNN("(2)3c-2p", epochs=1, random_state=0).fit(x, np.array(labels))
    cnn.save(tmp_path / "cnn")
    said = refused("sample", tmp_path / "cnn", "--out", out)
    assert "a run of cnn does not draw new images; fit one with --model rbm, dbn or dbm" in said
    (tmp_path / "new-filmstrip.png").write_text("mine")
    assert "exists" in refused("sample", run, "--out", out)
    assert not out.exists()


def test_completions_of_a_run_that_walks_are_told_beside_single_draws(say, run, tmp_path):
    words = ("complete", run, "digits", "--mask", "left", "--out", tmp_path / "new.png")
    code, said, _ = say(*words)
    assert code == 0
    numbers = re.search(r"pixel (0\.\d+) .*: (0\.\d+), single draws: (0\.\d+)\)", said)
    assert numbers
    mean, _, single = map(float, numbers.groups())
    assert mean < single


def test_evaluate_tells_the_likelihood_and_how_it_was_found(say, run):
    code, out, err = say("evaluate", run, "digits", "--json")
    told = json.loads(out)
    assert code == 0
    assert err.startswith("finding log Z")
    assert told["log_likelihood"] < 0
    assert told["log_likelihood_how"].startswith("log Z = ")
    value, low, high, back = told["log_partition"]
    assert low == value == high
    assert back is None
    _, out, _ = say("evaluate", run, "digits")
    assert f"log-likelihood {told['log_likelihood']:.2f} nats an image" in out
    assert told["log_likelihood_how"] in out


def test_a_wrong_beginning_is_told_with_those_that_there_are(refused, run, tmp_path):
    words = ("sample", run, "--from", "elsewhere", "--out", tmp_path / "x.png")
    said = refused(*words)
    assert "Invalid value for '--from': 'elsewhere' is not one of 'data', 'noise'" in said
