import numpy as np
import pytest
import torch
from torch import nn

from whatwhere import CNN, RBM
from whatwhere.data.rows import Rows
from whatwhere.data.sources import load
from whatwhere.learner import Validation, infer


class Energy(nn.Module):
    """The free energy of an image is the value of its only pixel."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def free_energy(self, x):
        return self.scale * x.flatten(1).sum(dim=1)


def rows(values):
    return Rows(np.array(values, np.float32).reshape(-1, 1, 1, 1))


def test_only_the_rows_that_are_named_are_looked_at():
    found = infer(Energy(), rows([0.1, 0.2, 0.3]), lambda net, x: x, torch.tensor([2, 0]))
    assert torch.cat(list(found)).flatten().tolist() == pytest.approx([0.3, 0.1])


def test_the_gap_is_validation_less_training_over_as_many_images_spread_evenly():
    told = Validation(rows([0.5, 1.0]), rows([0.0, 0.9, 0.2, 0.9]))(Energy())
    assert told == {
        "validation/free_energy": pytest.approx(0.75),
        "validation/free_energy_gap": pytest.approx(0.75 - 0.1),
    }
    few = Validation(rows([0.5, 1.0, 0.0]), rows([0.3]))(Energy())
    assert few["validation/free_energy_gap"] == pytest.approx(0.5 - 0.3)


def test_without_training_images_there_is_no_gap():
    assert list(Validation(rows([0.5]))(Energy())) == ["validation/free_energy"]


def test_images_that_were_trained_on_too_long_are_more_probable_than_new_ones():
    x = load("digits").train.x
    new = (x[500:600], None)
    model = RBM(64, negative="cd", epochs=120, batch_size=10, learning_rate=0.2, random_state=0)
    model.fit(x[:20], validation=new)
    gaps = [record["validation/free_energy_gap"] for record in model.history_]
    assert gaps[-1] > gaps[1] + 2


def test_the_monitor_says_the_same_of_the_same_weights(rng):
    x = rng.uniform(size=(40, 1, 8, 8)).astype(np.float32)
    model = RBM(4, epochs=1, random_state=0).fit(x)
    judge = Validation(Rows(x[:10]), Rows(x))
    assert judge(model.module_) == judge(model.module_)


def test_a_learner_without_a_free_energy_is_not_asked_for_one():
    x = load("digits").train.take(np.arange(60))
    held_out = (x.x[:20], x.y[:20])
    model = CNN("(2)3c-2p", epochs=1, random_state=0).fit(x.x, x.y, validation=held_out)
    assert not [name for name in model.history_[0] if "free_energy" in name]
