"""Two processes on two cores beside one process with two threads.

    python benchmarks/processes.py [--json FILE] [--steps N]

SWWAE (64)5c-2p-(64)3c-2p and 784-500-10, batches of 100 images of MNIST's size. Both see the same
joint batches. `efficiency` is the speed of two over twice the speed of one process with one thread;
`ratio` the time of a step by two processes over that by two threads: below 1, processes are faster.
Each way is timed in a fresh interpreter, in turns, and its median step counts. Leave the machine
alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from whatwhere import runs
from whatwhere.data.rows import Rows
from whatwhere.experiments.job import Machine
from whatwhere.experiments.starting import start
from whatwhere.learner import Spec
from whatwhere.models.cnn import CNN, ConvolutionalClassifier
from whatwhere.models.swwae import SWWAE
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer

SHAPE, CLASSES, BATCH, WARM = (1, 28, 28), 10, 100, 3
NETS: dict[str, ConvolutionalClassifier] = {
    "SWWAE (64)5c-2p-(64)3c-2p": SWWAE("(64)5c-2p-(64)3c-2p", batch_size=BATCH, epochs=1),
    "784-500-10": CNN("500fc", batch_size=BATCH, epochs=1),
}
WAYS = {"one thread": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # processes, threads
TURNS = 3


class Steps:
    """A watcher that keeps when each step ended."""

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Start the clock."""
        self.ends = [time.perf_counter()]

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Take the time."""
        self.ends.append(time.perf_counter())

    def epoch(self, record: Record) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def milliseconds(self) -> float:
        """Return the median of the steps, without the first few."""
        return 1000 * float(np.median(np.diff(self.ends)[WARM:]))


def train(name: str, threads: int, processes: int, n_steps: int, stop: Any = None) -> None:
    """Train on noise of MNIST's size; the first process says what a step took."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    n = BATCH * n_steps
    x = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    rows, spec = Rows(x, rng.integers(0, CLASSES, n)), Spec(SHAPE, n, CLASSES, n, 0)
    learner, clock = NETS[name], Steps()
    module = learner.build(spec)
    fabric = Machine("cpu", threads=threads, devices=processes).fabric()
    Trainer(fabric, watch=[clock]).run(module, learner.stages(module, spec), rows, seed=0)
    if fabric.is_global_zero:
        print(json.dumps({"milliseconds": clock.milliseconds(), "bytes": gradient(module)}))


def gradient(module: torch.nn.Module) -> int:
    """Return the bytes that a step has to add up over the processes."""
    return sum(4 * parameter.numel() for parameter in module.parameters())


def timed(name: str, way: str, n_steps: int) -> dict[str, Any]:
    """Return what a fresh interpreter says."""
    _, threads = WAYS[way]
    words = [sys.executable, __file__, "--net", name, "--way", way, "--steps", str(n_steps)]
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(
        words, env=os.environ | counts, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(n_steps: int) -> dict[str, Any]:
    """Return all that is measured, with the machine."""
    rows = []
    for name in NETS:
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way, said in found.items():
                said.append(timed(name, way, n_steps))
        times = {way: median(one["milliseconds"] for one in said) for way, said in found.items()}
        rows.append(
            {
                "net": name,
                "milliseconds_a_step": {way: round(value, 2) for way, value in times.items()},
                "ratio": round(times["two processes"] / times["two threads"], 3),
                "efficiency": {
                    way: round(times["one thread"] / (2 * times[way]), 3) for way in list(WAYS)[1:]
                },
                "gradient_bytes": found["two processes"][0]["bytes"],
            }
        )
    return {
        "machine": runs.hardware(),
        "versions": runs.versions(),
        "batch": BATCH,
        "steps": n_steps,
        "nets": rows,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table as text, its head first."""
    table = [["milliseconds a step", *WAYS, "processes : threads", "gradient, MB"]]
    for row in found["nets"]:
        each = row["milliseconds_a_step"]
        cells = [f"{each['one thread']:.1f}"]
        cells += [f"{each[way]:.1f} ({row['efficiency'][way]:.0%})" for way in list(WAYS)[1:]]
        megabytes = f"{row['gradient_bytes'] / 1e6:.2f}"
        table.append([row["net"], *cells, f"{row['ratio']:.2f}", megabytes])
    return ["  ".join(cell.ljust(26) for cell in row).rstrip() for row in table]


def main() -> None:
    """Measure, say it, and write it down; or, with --net, be what is timed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--steps", type=int, default=40, help="of each way, in each turn")
    parser.add_argument("--net", choices=NETS, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.net:
        processes, threads = WAYS[asked.way]
        if processes == 1:
            return train(asked.net, threads, processes, asked.steps)
        return start(
            Machine("cpu", devices=processes),
            train, asked.net, threads, processes, asked.steps,
        )  # fmt: skip
    found = measure(asked.steps)
    print("\n".join(lines(found)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
