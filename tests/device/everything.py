"""Run as a script, it writes what every method comes to on the host and on another device.

    python everything.py FOLDER [WORD ...]

FOLDER/found.json holds, by the name of each case, what went wrong; what stayed on the host; what
the host waited for within steps; and the largest difference of each output. With words after FOLDER
only the cases whose names begin with one of them are run.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import far
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from whatwhere import models
from whatwhere.core import UNLABELED, Batch, Classifies, Reconstructs, Terms, Walks
from whatwhere.data.rows import Rows
from whatwhere.evaluate import completion, growing, sampling
from whatwhere.experiments import fitting
from whatwhere.experiments.job import Job, Machine
from whatwhere.learner import Learner
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Interrupted, Trainer
from whatwhere.train.update import GradientUpdate

CONVOLUTIONAL = {"architecture": "(4)3c-2p-(6)3c-2p", "epochs": 2, "batch_size": 8}
FOLDED = {"architecture": "8fc-4fc", "epochs": 2, "batch_size": 8}
LOGISTIC = {"activation": "logistic", "pretraining_epochs": 1}
MACHINE = {"n_hidden": 8, "epochs": 2, "batch_size": 8, "n_chains": 8}
NET = {"architecture": "6fc-4fc", "epochs": 1, "batch_size": 8, "n_chains": 8}
DEEP = NET | {"pretraining_epochs": 2}
JOINT = NET | {"joint_epochs": 2}
PATCHES = CONVOLUTIONAL | {"patch": 8, "n_seeds": 12}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("autoencoder", FOLDED),
    ("autoencoder", CONVOLUTIONAL | {"tied": True}),
    ("cnn", CONVOLUTIONAL | {"shift": 1, "class_weight": "balanced"}),
    ("cnn", CONVOLUTIONAL | {"batch_norm": False, "patience": 1}),
    ("dbm", JOINT),
    ("dbm", JOINT | {"pretraining_epochs": 1, "centered": False, "sparsity_cost": 0.1}),
    ("dbn", DEEP),
    ("dbn", DEEP | {"negative": "cd", "up_down_epochs": 1, "visible": "gaussian"}),
    ("deep_autoencoder", FOLDED | {"pretraining": "stacked", "pretraining_epochs": 1}),
    ("deep_autoencoder", FOLDED | {"pretraining": "rbm", "pretraining_epochs": 1}),
    ("denoising_autoencoder", FOLDED),
    ("denoising_autoencoder", FOLDED | {"corruption": "gaussian", "output": "identity"}),
    ("denoising_autoencoder", FOLDED | {"corruption": "salt-and-pepper"}),
    ("exemplar_cnn", PATCHES),
    ("exemplar_cnn", PATCHES | {"copies": 3, "enlarge": 2}),
    ("exemplar_cnn", PATCHES | {"clusters": 4}),
    ("rbm", MACHINE),
    ("rbm", MACHINE | {"negative": "cd", "last_steps": 3, "sparsity_cost": 0.1, "momentum": 0.5}),
    ("rbm", MACHINE | {"negative": "fast"}),
    ("rbm", MACHINE | {"negative": "tempering", "n_temperatures": 3}),
    ("rbm", MACHINE | {"visible": "gaussian", "centered": False}),
    ("rbm", MACHINE | {"visible": "multinomial"}),
    ("sparse_autoencoder", FOLDED),
    ("sparse_autoencoder", FOLDED | {"sparsity": "l1"}),
    ("sparse_autoencoder", FOLDED | {"sparsity": "k-sparse"}),
    ("sparse_autoencoder", FOLDED | {"sparsity": "sparsifying-logistic"}),
    ("stacked_autoencoder", FOLDED | {"pretraining_epochs": 1}),
    ("stacked_autoencoder", FOLDED | LOGISTIC | {"pretraining": "rbm"}),
    ("stacked_autoencoder", FOLDED | {"pretraining": "supervised", "pretraining_epochs": 1}),
    ("swwae", CONVOLUTIONAL | {"noise": 0.1, "shift": 1, "reconstruct_labeled": False}),
    ("swwae", CONVOLUTIONAL | {"middle_target": "joint", "patience": 1}),
    ("swwae", CONVOLUTIONAL | {"batch_norm": False, "labeled_share": 0.2}),
    ("whitening", {}),
    ("whitening", {"kind": "pca", "n_components": 5, "contrast": 10.0}),
]


def name_of(model: str, settings: dict[str, Any]) -> str:
    """Return a name for a case."""
    shared = (*CONVOLUTIONAL, *MACHINE, "patch", "n_seeds", "pretraining_epochs", "joint_epochs")
    own = [f"{key}={value}" for key, value in settings.items() if key not in shared]
    dense = ["dense"] if "fc" in settings.get("architecture", "") and not own else []
    return " ".join([model, *dense, *own])


def images(folder: Path) -> Path:
    """Write color images, a part of them with labels, unevenly spread over three classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (72, 12, 10, 3), dtype=np.uint8)
    y = np.minimum(np.arange(72) % 4, 2)
    y[np.arange(72) % 3 == 2] = UNLABELED
    path = folder / "images.npz"
    np.savez(path, x_train=x[:48], y_train=y[:48], x_test=x[48:], y_test=np.arange(24) % 3)
    return path


def told(learner: Learner, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return all that a learner says of images (n, C, H, W)."""
    module, said = learner.module_, {"transform": learner.transform(x)}
    asked: Any = learner
    if isinstance(module, Classifies):
        said["predict_proba"] = asked.predict_proba(x)
    if isinstance(module, Reconstructs):
        said["reconstruct"] = asked.reconstruct(x)
        said["complete"] = completion.complete(learner, x, completion.mask("left", x.shape[1:]), 4)
    if hasattr(learner, "score_samples"):
        said["score_samples"] = asked.score_samples(x)
    if isinstance(module, Walks):
        said["sample"] = sampling.samples(learner, 3, steps=4, seed=1)
    return said


def half(run: Path, job: Job) -> Learner:
    """Train until somewhere in the middle, and go on from the checkpoint."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 7

    try:
        return fitting.fit(job, run, stop=stop)
    except (Interrupted, KeyboardInterrupt):  # of few steps, while it was judged
        return fitting.resume(run)


def run(folder: Path, data: Path, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Make runs of a method here and there, with all that is drawn of them, and compare."""
    job, x = Job(str(data), model, validation="9", settings=settings), _arrays(data)[2]
    here, host = told(fitting.fit(job, folder / "host"), x), Machine.fabric
    Machine.fabric = lambda self: far.fabric()
    far.waits.found = []
    try:
        with far.Everywhere():
            learner = fitting.fit(job, folder / "far", watch=[far.Within()])
            waited = far.waits.found
            there = told(learner, x)
            again = told(half(folder / "half", job), x)
    finally:
        Machine.fabric = host
    loaded = told(models.load(folder / "far"), x)
    others = {
        "from the host": here,
        "when loaded on the host": loaded,
        "when stopped and gone on with": again,
    }
    return _compared(learner, waited, there, others)


def fit(data: Path, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit a method here and there, and compare."""
    x, y, test = _arrays(data)
    job, known = Job(str(data), model, validation="9", settings=settings), np.flatnonzero(y + 1)[:9]

    def fitted(**machine: Any) -> Learner:
        learner: Any = job.learner().set_params(random_state=0, **machine)
        return learner.fit(x, y, validation=(x[known], y[known]))

    here = told(fitted(), test)
    far.waits.found = []
    with far.Everywhere():
        learner = fitted(trainer=Trainer(far.fabric(), watch=[far.Within()]))
        waited = far.waits.found
        there = told(learner, test)
    return _compared(learner, waited, there, {"from the host": here})


def _arrays(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (n, C, H, W), their labels, and the images to test with."""
    held = np.load(data)
    x, test = (held[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test"))
    return x, held["y_train"], test


def _compared(
    learner: Learner,
    waited: list[str],
    there: dict[str, np.ndarray],
    others: dict[str, dict[str, np.ndarray]],
) -> dict[str, Any]:
    named = [*learner.module_.named_parameters(), *learner.module_.named_buffers()]
    return {
        "left behind": [name for name, value in named if not isinstance(value, far.Far)],
        "waits": waited,
        "differences": {how: _differences(there, other) for how, other in others.items()},
    }


def _differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    assert one.keys() == other.keys(), (one.keys(), other.keys())
    return {name: float(np.abs(one[name] - other[name]).max()) for name in one}


class Mean(nn.Module):
    """A net of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))


WAITS: dict[str, Callable[[Tensor], object]] = {
    "nothing": lambda x: None,
    "a number": lambda x: x.mean().item(),
    "float": lambda x: float(x.mean()),
    "a condition": lambda x: x.sum() > 0 and None,
    "a mask": lambda x: x[x > 0.5],
    "nonzero": lambda x: x.nonzero(),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.sum().tolist(),
    "a tensor made on the host": lambda x: torch.tensor([1.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "moved from the host": lambda x: torch.ones(3).to(x.device),
}


def reads(how: Callable[[Tensor], object], module: Mean, batch: Batch) -> Terms:
    """An objective that looks at what it need not."""
    how(batch.x)
    return {"w": module.w * batch.x.mean()}


def wait(how: Callable[[Tensor], object]) -> dict[str, Any]:
    """Train with an objective that makes the host wait, and return what was counted."""
    x = np.random.default_rng(0).random((40, 1, 4, 4), dtype=np.float32)  # 4 steps
    fabric, net = far.fabric(), Mean()
    update = GradientUpdate(net, partial(reads, how), partial(SGD, lr=0.1))
    stage = Stage("one", [update], 1, 10)
    far.waits.found = []
    with far.Everywhere():
        rows = Rows(x, device=fabric.device)
        Trainer(fabric, watch=[far.Within()]).run(net, [stage], rows, seed=0)
    return {"waits": far.waits.found, "steps": 4}


def all_of_them(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases by name."""
    data, met = images(folder), set()
    for model, settings in CASES:
        # What is written and drawn of a run does not depend on its settings.
        one = fit if model in met else partial(run, folder / model)
        met.add(model)
        yield name_of(model, settings), partial(one, data, model, settings)
    for name, how in WAITS.items():
        yield f"waits for {name}", partial(wait, how)


def main() -> None:
    """Run all cases, or those whose name begins with one of the words given."""
    folder, *words = sys.argv[1:]
    torch.set_num_threads(1)
    far.set_up()
    growing.STEPS, sampling.EFFORT = 5, 0  # chains walk far enough to show where they are
    found: dict[str, Any] = {}
    for name, one in all_of_them(Path(folder)):
        if not words or name.startswith(tuple(words)):
            try:
                found[name] = {"error": None} | one()
            except Exception:
                found[name] = {"error": traceback.format_exc()}
            far.waits.counting = False
    (Path(folder) / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
