import warnings

import numpy as np
import pytest
import torch

from whatwhere.core import InputError
from whatwhere.experiments.job import Machine
from whatwhere.models.swwae import SWWAE
from whatwhere.train.runtime import begin
from whatwhere.train.trainer import Trainer

TERMS = ("loss/nll", "loss/reconstruction", "loss/middle")


def fitted(trainer: Trainer, epochs: int = 2) -> SWWAE:
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = np.clip(rng.normal(0.2, 0.1, (48, 8, 8)), 0, 1).astype(np.float32)
    x[np.arange(48), y * 2] = 1.0  # a bright row tells the class
    y[24:] = -1
    net = SWWAE("(4)3c-2p-(4)3c", epochs=epochs, batch_size=16, dropout=0.0, random_state=0)
    return net.set_params(trainer=trainer).fit(x, y)


def terms(learner: SWWAE) -> list[float]:
    return [record[name] for record in learner.history_ for name in TERMS]


def test_half_precision_learns_nearly_the_same():
    whole, half = (fitted(Trainer(begin("cpu", precision=p))) for p in ("32-true", "bf16-mixed"))
    assert terms(half) != terms(whole)
    assert terms(half) == pytest.approx(terms(whole), rel=0.05)
    weights = half.module_.state_dict().values()
    assert not any(weight.dtype == torch.bfloat16 for weight in weights)


@pytest.mark.slow
def test_compiling_changes_no_term_or_says_what_is_missing():
    try:
        fabric = Machine("cpu", compile=True).fabric()
    except InputError as refused:
        assert "C++ compiler" in str(refused)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler
        compiled = fitted(Trainer(fabric))
    assert terms(compiled) == pytest.approx(terms(fitted(Trainer())), rel=1e-5)
