"""What half precision and compiling change on the CPU: the error on MNIST, and the time.

    python benchmarks/precision.py [--json FILE] [--data-dir DIR]

1. SWWAE (16)5c-2p-(32)3c-2p, 1000 labels of 10,000 images, 2 epochs, in 32-true and bf16-mixed:
   the test error of each draw of labels and weights, the difference, and the ratio of the times.
2. The same net, and 784-500-10, compiled and not, after a first epoch in which it is compiled: the
   ratio of the times, and how long the first epoch took beyond a later one.

One thread. A ratio is one of the processor's times, which other programs disturb least.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from whatwhere import runs
from whatwhere.data.images import Images
from whatwhere.evaluate.judge import evaluate
from whatwhere.experiments.fitting import fit_images
from whatwhere.experiments.job import Job, Machine, Read
from whatwhere.models.cnn import CNN
from whatwhere.models.swwae import SWWAE
from whatwhere.train.runtime import begin
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer

STACKED = "(16)5c-2p-(32)3c-2p"
N_IMAGES, N_LABELS, N_SEEDS, EPOCHS = 10_000, 1000, 3, 2
PRECISIONS = ("32-true", "bf16-mixed")
N_COMPILED = 2000  # images of the second part


@dataclass
class Clock:
    """A watcher that reads the processor's time after each epoch."""

    epochs: list[float] = field(default_factory=list)

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Start the clock."""
        self.last = time.process_time()

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Do nothing."""

    def epoch(self, record: Record) -> None:
        """Take the time."""
        now = time.process_time()
        self.epochs.append(now - self.last)
        self.last = now

    def end(self) -> None:
        """Do nothing."""


def few(images: Images, n: int) -> Images:
    """Return n images, those with a label first."""
    order = np.argsort(images.y < 0, kind="stable")
    return images.take(np.sort(order[:n]))


def halves(data_dir: str | None) -> list[dict[str, Any]]:
    """Return the error of each seed in both precisions, and the ratio of the times."""
    rows = []
    for seed in range(N_SEEDS):
        job = Job("mnist", "swwae", labels=str(N_LABELS), label_seed=seed, data_dir=data_dir)
        read = job.read()
        assert read.test is not None
        train = Read(read.data, few(read.train, N_IMAGES), None)
        row: dict[str, Any] = {"seed": seed}
        for precision in PRECISIONS:
            clock = Clock()
            learner = SWWAE(STACKED, epochs=EPOCHS, random_state=seed)
            learner.trainer = Trainer(begin("cpu", precision=precision), watch=[clock])
            fit_images(learner, train)
            row[precision] = {
                "error": evaluate(learner, read.test)["error"],
                "seconds": round(sum(clock.epochs), 2),
            }
        full, half = (row[precision] for precision in PRECISIONS)
        row["difference"] = round(half["error"] - full["error"], 2)
        row["time_ratio"] = round(half["seconds"] / full["seconds"], 2)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def compiled(data_dir: str | None) -> list[dict[str, Any]]:
    """Return the ratio of an epoch's time compiled to that of one not compiled."""
    job = Job("mnist", "cnn", data_dir=data_dir)
    read = job.read()
    train = Read(read.data, few(read.train, N_COMPILED), None)
    rows = []
    for name, kind, net in (
        (f"SWWAE {STACKED}", SWWAE, STACKED),
        ("784-500-10", CNN, "500fc"),
    ):
        times = {}
        for machine in (Machine("cpu"), Machine("cpu", compile=True)):
            clock = Clock()
            learner = kind(net, epochs=3, random_state=0)
            learner.trainer = Trainer(machine.fabric(), watch=[clock])
            began = time.perf_counter()
            fit_images(learner, train)
            times[machine.compile] = clock.epochs, time.perf_counter() - began
        (plain, _), (fast, whole) = times[False], times[True]
        later = min(fast[1:])
        rows.append(
            {
                "net": name,
                "time_ratio": round(later / min(plain[1:]), 2),
                "first_epoch_extra_seconds": round(fast[0] - later, 1),
                "seconds_on_the_clock": round(whole, 1),
            }
        )
    return rows


def measure(data_dir: str | None) -> dict[str, Any]:
    """Return all that is measured, with the machine."""
    return {
        "machine": runs.hardware() | {"threads": torch.get_num_threads()},
        "versions": runs.versions(),
        "net": STACKED,
        "n_images": N_IMAGES,
        "n_labels": N_LABELS,
        "epochs": EPOCHS,
        "precision": halves(data_dir),
        "compile": compiled(data_dir),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the two tables as text, a head first in each."""
    table = [["seed", *PRECISIONS, "difference", "time, half : full"]]
    for row in found["precision"]:
        errors = [f"{row[precision]['error']:.2f} %" for precision in PRECISIONS]
        difference, ratio = f"{row['difference']:+.2f}", f"{row['time_ratio']:.2f}"
        table.append([str(row["seed"]), *errors, difference, ratio])
    means = [mean(row[name]["error"] for row in found["precision"]) for name in PRECISIONS]
    ratio = mean(row["time_ratio"] for row in found["precision"])
    table.append(
        ["mean", *(f"{m:.2f} %" for m in means), f"{means[1] - means[0]:+.2f}", f"{ratio:.2f}"]
    )
    table.append(["net", "compiled : not", "first epoch, extra seconds", "", ""])
    table += [
        [row["net"], f"{row['time_ratio']:.2f}", f"{row['first_epoch_extra_seconds']:.1f}", "", ""]
        for row in found["compile"]
    ]
    return ["  ".join(cell.ljust(28) for cell in row).rstrip() for row in table]


def main() -> None:
    """Measure, say it, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.data_dir)
    print("\n".join(lines(found)))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
