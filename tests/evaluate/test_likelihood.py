import numpy as np
import pytest
import torch

from whatwhere import CNN, RBM
from whatwhere.core import LogPartition, seeded
from whatwhere.data.sources import load
from whatwhere.evaluate import judge, likelihood


@pytest.fixture(scope="module")
def parts():
    whole = load("digits")
    assert whole.test is not None
    return whole.train.take(np.arange(100)), whole.test.take(np.arange(30))


@pytest.fixture(scope="module")
def rbm(parts):
    return RBM(6, epochs=3, random_state=0).fit(parts[0].x)


def every_image():
    bits = np.stack(np.unravel_index(np.arange(16), (2,) * 4), 1)
    return (255 * bits).astype(np.uint8).reshape(16, 1, 2, 2)


def test_probabilities_of_all_images_add_up_to_one():
    x = every_image()
    model = RBM(3, epochs=5, random_state=0).fit(x[[0, 3, 12, 15]])
    each = [likelihood.measure(model, image[None])["log_likelihood"] for image in x]
    assert np.exp(each).sum() == pytest.approx(1, abs=1e-4)
    assert likelihood.measure(model, x)["log_likelihood"] == pytest.approx(np.mean(each), abs=1e-5)


def test_of_binary_images_it_is_what_the_learner_scores(rbm, parts):
    x = np.where(parts[1].x > 127, 255, 0).astype(np.uint8)
    told = likelihood.measure(rbm, x, careful=True)
    assert told["log_likelihood"] == pytest.approx(rbm.score_samples(x).mean(), abs=1e-3)
    assert "exact, 64 states" in told["log_likelihood_how"]
    assert "drawn" not in told["log_likelihood_how"]
    value, low, high, back = told["log_partition"]
    assert low == value == high
    assert back is None


def test_gray_images_are_drawn_once_and_the_same_each_time(rbm, parts):
    x = parts[1].x
    torch.manual_seed(1)
    told = likelihood.measure(rbm, x)
    torch.manual_seed(2)
    assert likelihood.measure(rbm, x) == told
    assert "gray pixels drawn once as 0 or 1" in told["log_likelihood_how"]
    with torch.no_grad(), seeded(0, "likelihood"):
        drawn = torch.rand(30, 1, 8, 8) < torch.from_numpy(x / np.float32(255))
        energy = rbm.module_.free_energy(drawn.float()).mean()
    assert told["log_likelihood"] == pytest.approx(-float(energy) - told["log_partition"][0])


def test_the_sentence_says_how_log_z_was_found_and_how_far_it_is_to_be_trusted():
    exact = likelihood.how(LogPartition(3.0, 3.0, 3.0, "exact"), is_bound=False, drawn=False)
    assert exact == "log Z = 3.00 (exact)"
    found = LogPartition(3.0, float("-inf"), 3.5, "sampling", 3.2)
    assert likelihood.how(found, is_bound=True, drawn=True) == (
        "log Z = 3.00 (sampling); ±3 standard errors no lower end to 3.50; the way back, which "
        "errs to the other side, 3.20; a lower bound; gray pixels drawn once as 0 or 1"
    )


def test_what_has_no_end_is_null(rbm, parts, monkeypatch):
    told = LogPartition(3.0, float("-inf"), 3.5, "sampling")
    asked = []
    monkeypatch.setattr(
        rbm.module_, "log_partition", lambda *, careful: asked.append(careful) or told
    )
    assert likelihood.measure(rbm, parts[1].x)["log_partition"] == [3.0, None, 3.5, None]
    judge.evaluate(rbm, parts[1], careful=True)
    judge.evaluate(rbm, parts[1])
    assert asked == [False, True, False]


def test_the_judge_tells_it_of_learners_that_know(rbm, parts):
    train, test = parts
    assert likelihood.measure(rbm, test.x).items() <= judge.evaluate(rbm, test).items()
    cnn = CNN("(2)3c-2p", epochs=1, random_state=0).fit(train.x, train.y)
    assert likelihood.measure(cnn, test.x) == {}
    assert "log_likelihood" not in judge.evaluate(cnn, test)
