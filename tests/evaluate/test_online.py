from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import Images
from whatwhere.evaluate.online import OnlineProbe
from whatwhere.evaluate.probes import PROBES
from whatwhere.experiments import fitting
from whatwhere.experiments.job import Job


class Half(nn.Module):
    """The features of an image are half of its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.share * x.flatten(1)


def images(n: int, seed: int) -> Images:
    x = np.random.default_rng(seed).integers(0, 256, (n, 1, 3, 3), dtype=np.uint8)
    y = (x[:, 0, 0].mean(axis=1) > 127).astype(np.int64)
    y[::5] = UNLABELED
    return Images(x, y, ("dark", "bright"))


def test_it_tells_the_errors_of_the_probes_on_the_features():
    train, held = images(60, 0), images(50, 1)
    said = OnlineProbe(train, held)(Half())
    assert list(said) == ["validation/linear_probe", "validation/knn_probe"]
    shown, known = train.y >= 0, held.y >= 0

    def features(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1) / np.float32(510)

    for name in ("linear", "knn"):
        probe = PROBES[name]().fit(features(train.x[shown]), train.y[shown])
        wrong = probe.predict(features(held.x[known])) != held.y[known]
        assert said[f"validation/{name}_probe"] == pytest.approx(100 * wrong.mean())


def test_what_gives_no_features_is_not_judged():
    assert OnlineProbe(images(20, 0), images(20, 1))(nn.Linear(2, 2)) == {}


JOB = Job(
    data="digits",
    model="autoencoder",
    labels="none",
    validation="200",
    test_fraction=0.2,
    settings={"architecture": "32fc", "epochs": 5},
)


@pytest.mark.parametrize("n", ["all", "50"])
def test_a_run_is_the_same_with_the_probe_and_without(tmp_path, n):
    one = fitting.fit(replace(JOB, probe=n), tmp_path / "probed")
    other = fitting.fit(JOB, tmp_path / "bare")
    errors = [epoch["validation/linear_probe"] for epoch in one.history_]
    assert errors[-1] < (20 if n == "all" else 50)
    assert "validation/linear_probe" not in other.history_[-1]
    for key, value in one.module_.state_dict().items():
        assert torch.equal(value, other.module_.state_dict()[key]), key


def test_its_labels_are_not_those_that_it_is_judged_on():
    read = replace(JOB, probe="50").read()
    assert read.train.n_labeled == 0
    assert read.probed is not None and read.probed.n_labeled == 50
    assert read.validation is not None
    rows = {image.tobytes() for image in read.validation.x}
    assert not rows & {image.tobytes() for image in read.probed.x}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe": "some"}, "--online-probe some: it takes all, or a number"),
        ({"probe": "0"}, "--online-probe 0"),
        ({"probe": "50", "validation": "none"}, "give --validation COUNT"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        fitting.fit(replace(JOB, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
