"""An RBM beside scikit-learn's and its matrix products, and annealed importance sampling.

    python benchmarks/rbm.py [--json FILE] [--data-dir DIR] [--turns N]

1. An epoch of persistent contrastive divergence, one step, on the 60,000 training images of MNIST:
   500 hidden units, batches of 100, 100 chains, grays as probabilities, a plain gradient; by the
   Trainer, with momentum and without, and by `BernoulliRBM` in float32 and in its default float64.
   Both end in a pseudo-likelihood of the first 1,000 images, which should be the same. The limit is
   the time of the five matrix products of an update at these shapes.
2. Annealed importance sampling with 100 chains at 500 hidden units, for some of the 14,500
   temperatures, beside its two matrix products a temperature.

One thread, all in turns; the time is the processor's, the medians count.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM

from whatwhere import RBM, runs
from whatwhere.experiments.job import Job
from whatwhere.nn import annealing
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer

HIDDEN, BATCH, RATE, PIXELS = 500, 100, 0.05, 784
STEPS, TURNS, JUDGED = 600, 3, 1000
TEMPERATURES = 300
SETTINGS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": BATCH,
    "learning_rate": RATE,
    "decay_from": 0.99,
    "binarize": False,
    "centered": False,
    "random_state": 0,
}
OURS, MOMENTUM, THEIRS, DOUBLE, LIMIT = (
    "whatwhere",
    "whatwhere, momentum",
    "scikit-learn, float32",
    "scikit-learn, float64",
    "five products",
)
GOALS = (
    (OURS, THEIRS, "at most 1.1"),
    (OURS, DOUBLE, "at most 0.5"),
    (LIMIT, OURS, "at least 0.75"),
    (LIMIT, MOMENTUM, "at least 0.70"),
)


def images(data_dir: str | None) -> np.ndarray:
    """Return the images, float32 in [0, 1]."""
    x = Job("mnist", "rbm", labels="none", data_dir=data_dir).read().train.x
    return (x[:, 0] / np.float32(255)).astype(np.float32, copy=False)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds, and what the function gave."""
    began = time.process_time()
    found = function()
    return time.process_time() - began, found


class Clock:
    """A watcher: the processor's time at the end of each epoch."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Do nothing."""

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Do nothing."""

    def epoch(self, record: Record) -> None:
        """Note the time."""
        self.ends.append(time.process_time())

    def end(self) -> None:
        """Do nothing."""


def ours(x: np.ndarray, **more: Any) -> tuple[float, Any]:
    """Return the seconds of the epoch, without the look at pixels before it, and the machine."""
    clock = Clock()
    model = RBM(HIDDEN, trainer=Trainer(watch=[clock]), **(SETTINGS | more)).fit(x)
    looked, learned = clock.ends
    return learned - looked, model


def theirs(x: np.ndarray) -> tuple[float, Any]:
    """Return the seconds of `fit`, and the machine."""
    model = BernoulliRBM(HIDDEN, batch_size=BATCH, learning_rate=RATE, n_iter=1, random_state=0)
    return timed(lambda: model.fit(x))


def products() -> float:
    """Return the seconds of an epoch's matrix products: up twice, down once, statistics twice."""
    drawn = torch.Generator().manual_seed(0)
    v = torch.rand(BATCH, PIXELS, generator=drawn)
    h = torch.rand(BATCH, HIDDEN, generator=drawn)
    weight = torch.rand(HIDDEN, PIXELS, generator=drawn)

    def update() -> None:
        for _ in range(2):
            torch.mm(v, weight.T)
            torch.mm(h.T, v)
        torch.mm(h, weight)

    update()
    return timed(lambda: [update() for _ in range(STEPS)])[0]


def annealed(machine: Any, base: torch.Tensor) -> tuple[float, float]:
    """Return the seconds of some temperatures, and those of their products alone."""
    schedule = ((0.0, 1.0, TEMPERATURES),)
    seconds, _ = timed(lambda: annealing.forward(machine, base, schedule, BATCH))
    v, h = torch.rand(BATCH, PIXELS), torch.rand(BATCH, HIDDEN)
    (weight,) = machine.weights

    def limit() -> None:
        for _ in range(TEMPERATURES):
            torch.mm(v, weight.T)
            torch.mm(h, weight)

    with torch.no_grad():
        return seconds, timed(limit)[0]


def pseudo_likelihood(model: RBM, x: np.ndarray) -> float:
    """Return the mean of the first images, rounded, in nats."""
    net: Any = model.module_
    with torch.no_grad():
        return float(net.pseudo_likelihood(torch.from_numpy(x[:JUDGED, None])).mean())


def measure(data_dir: str | None, turns: int) -> dict[str, Any]:
    """Return all that is measured, with the machine."""
    torch.set_num_threads(1)
    x = images(data_dir)
    flat = x.reshape(len(x), -1)
    seconds: dict[str, list[float]] = {way: [] for way in (OURS, MOMENTUM, THEIRS, DOUBLE, LIMIT)}
    annealings: list[tuple[float, float]] = []
    likelihoods: dict[str, float] = {}
    products()
    for _ in range(turns):
        taken, model = ours(x)
        seconds[OURS].append(taken)
        seconds[MOMENTUM].append(ours(x, momentum=0.5)[0])
        taken, peer = theirs(flat)
        seconds[THEIRS].append(taken)
        seconds[DOUBLE].append(theirs(flat.astype(np.float64))[0])
        seconds[LIMIT].append(products())
        annealings.append(annealed(model.module_.machine, model.module_.pixels.base))
        likelihoods[OURS] = pseudo_likelihood(model, x)
        with torch.no_grad():  # theirs, in our module
            net = model.module_
            net.hidden.weight.copy_(torch.from_numpy(peer.components_))
            net.hidden.bias.copy_(torch.from_numpy(peer.intercept_hidden_))
            net.visible_bias.copy_(torch.from_numpy(peer.intercept_visible_))
        likelihoods[THEIRS] = pseudo_likelihood(model, x)
    middle = {way: median(each) for way, each in seconds.items()}
    return {
        "machine": runs.hardware() | {"threads": 1},
        "versions": runs.versions(),
        "data": "mnist, 60,000 x 784",
        "turns": turns,
        "seconds": {way: round(value, 3) for way, value in middle.items()},
        "pseudo_likelihood": {way: round(value, 2) for way, value in likelihoods.items()},
        "ratios": [
            {"of": one, "to": other, "ratio": round(middle[one] / middle[other], 3), "goal": goal}
            for one, other, goal in GOALS
        ],
        "annealing": round(median(limit / taken for taken, limit in annealings), 3),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table as text, its head first."""
    table = [["an epoch", "seconds", "pseudo-likelihood"]]
    for way, value in found["seconds"].items():
        told = found["pseudo_likelihood"].get(way)
        table.append([way, f"{value:.2f}", "" if told is None else f"{told:.2f}"])
    table.append([])
    table += [
        [f"{one['of']} / {one['to']}", f"{one['ratio']:.2f}", f"goal: {one['goal']}"]
        for one in found["ratios"]
    ]
    table.append(["annealing: two products / all", f"{found['annealing']:.2f}", ""])
    return ["".join(cell.ljust(46 if k == 0 else 12) for k, cell in enumerate(row)).rstrip()
            for row in table]  # fmt: skip


def main() -> None:
    """Measure, say it, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    parser.add_argument("--turns", type=int, default=TURNS, help="epochs of each way")
    asked = parser.parse_args()
    found = measure(asked.data_dir, asked.turns)
    print("\n".join(lines(found)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
