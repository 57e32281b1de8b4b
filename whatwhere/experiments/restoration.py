"""Restoring the hidden half of an image, in one pass or by Gibbs sampling.

Protocol: each learner sees the training images without labels. Of 200 test images the left half is
hidden. Nets that rebuild fill it in one pass, and in up to 50; machines that sample draw 5
completions an image, 100 steps of clamped Gibbs sampling each. Told are the squared error, summed
over the hidden pixels, of the one answer that each gives (of machines the mean of the draws), that
of a single draw, how far draws lie apart, and the time of an image.

References
----------
Zhao, Mathieu, Goroshin, LeCun. Stacked what-where auto-encoders. 2015.
Salakhutdinov, Hinton. Deep Boltzmann machines. AISTATS 2009 (completing silhouettes).
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from whatwhere.core import Walks
from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell, Column, Plan, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.train.trainer import Trainer

DATA = {"mnist": "MNIST", "caltech101_silhouettes": "silhouettes"}
IMAGES, DRAWS, STEPS, MASK = 200, 5, 100, "left"
TEST_FRACTION = 0.2  # of the silhouettes, which have no test part

MASKED = {"corruption": "masking", "level": 0.5}
ROWS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "SWWAE": ("swwae", {}),
    "auto-encoder, 500": ("autoencoder", {"architecture": "500fc"}),
    "denoising auto-encoder, 250": ("denoising_autoencoder", MASKED | {"architecture": "250fc"}),
    "denoising auto-encoder, 500": ("denoising_autoencoder", MASKED | {"architecture": "500fc"}),
    "denoising auto-encoder, 2000": ("denoising_autoencoder", MASKED | {"architecture": "2000fc"}),
    "RBM, 250": ("rbm", {"n_hidden": 250}),
    "RBM, 500": ("rbm", {"n_hidden": 500}),
    "RBM, 2000": ("rbm", {"n_hidden": 2000}),
    "DBN, 500-500": ("dbn", {"architecture": "500fc-500fc"}),
    "DBM, 500-500": ("dbm", {"architecture": "500fc-500fc", "sweeps": 5}),
}
EPOCHS: Mapping[str, Mapping[str, dict[str, int]]] = {
    "quick": {
        "swwae": {"epochs": 1},
        "autoencoder": {"epochs": 3},
        "denoising_autoencoder": {"epochs": 3},
        "rbm": {"epochs": 4},
        "dbn": {"pretraining_epochs": 2},
        "dbm": {"joint_epochs": 3},
    },
    "full": {
        "swwae": {"epochs": 10},
        "autoencoder": {"epochs": 30},
        "denoising_autoencoder": {"epochs": 50},
        "rbm": {"epochs": 100},
        "dbn": {"pretraining_epochs": 50},
        "dbm": {"joint_epochs": 100},
    },
}
OF_FEW = 4  # times as many epochs of the silhouettes, which are few


def restored(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner, and let it restore what is hidden of the first test images."""
    from whatwhere.evaluate import completion, panels

    assert read.test is not None
    learner = trained(cell.job, read, trainer)
    images = read.test.x[:IMAGES]
    hidden = completion.mask(MASK, read.test.shape)
    truth = panels.unit(images)[..., hidden]

    def error(found: np.ndarray) -> float:
        away = (found[..., hidden] - truth).astype(np.float64)
        return float(np.square(away).sum(axis=(-2, -1)).mean())

    began = time.perf_counter()
    if isinstance(learner.module_, Walks):
        several = completion.draws(learner, images, hidden, DRAWS, STEPS)
        seconds = time.perf_counter() - began
        apart = several[..., hidden].astype(np.float64).var(axis=0, ddof=1)
        metrics = {
            "error": error(several.mean(axis=0)),
            "single": error(several),
            "apart": float(apart.sum(axis=(-2, -1)).mean()),
        }
    else:
        once = completion.complete(learner, images, hidden, steps=1)
        seconds = time.perf_counter() - began
        metrics = {
            "error": error(once),
            "repeated": error(completion.complete(learner, images, hidden)),
        }
    metrics |= {
        "filled": error(completion.fill(images, hidden)),
        "milliseconds": 1e3 * seconds / IMAGES,
    }
    return Result(metrics, learner.history_)


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is a few epochs.
    seeds : int, optional
        Draws of weights; default 1.
    data_dir : str, optional
    """

    def settings(model: str, own: dict[str, Any], data: str) -> dict[str, Any]:
        times = 1 if data == "mnist" else OF_FEW
        return own | {name: times * n for name, n in EPOCHS[budget][model].items()}

    cells = tuple(
        Cell(
            row,
            label,
            draw,
            Job(
                data=data,
                model=model,
                labels="none",
                settings=settings(model, own, data),
                seed=draw,
                data_dir=data_dir,
                test_fraction=None if data == "mnist" else TEST_FRACTION,
            ),
            budget,
            restored,
        )
        for row, (model, own) in ROWS.items()
        for data, label in DATA.items()
        for draw in range(seeds or 1)
    )
    told = {"error": "one answer", "repeated": "up to 50 passes", "single": "a single draw",
            "apart": "variance of draws", "milliseconds": "ms an image"}  # fmt: skip
    return Plan(
        title="Half of an image restored",
        caption=f"The left half of {IMAGES} test images is hidden and restored by learners that "
        "saw no label: squared error summed over the hidden pixels, a mean over images, of the one "
        f"answer (of machines, the mean of {DRAWS} draws), after up to 50 passes through a net, "
        "and of a single draw; the variance of draws, summed over the hidden pixels; time of an "
        f"image (of machines, {DRAWS} draws of {STEPS} steps).",
        columns=tuple(
            Column(f"{label}: {words}", metric(name), "", 2 if name == "milliseconds" else 1, label)
            for label in DATA.values()
            for name, words in told.items()
        ),
        cells=cells,
        draws="draws of weights",
        notes=(
            "Epochs: "
            + "; ".join(
                f"{model} {n}" for model, own in EPOCHS[budget].items() for n in own.values()
            )
            + f" (a layer, of dbn); {OF_FEW} times as many of the silhouettes, of which a fifth is "
            "the test part. Nothing was tuned.",
            "The denoising auto-encoders learned with half of the pixels masked at random, never "
            "with a hidden half.",
        ),
    )
