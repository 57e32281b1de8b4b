"""Whitening beside scikit-learn's PCA(whiten=True), on the same float32 matrix.

    python benchmarks/whitening.py [--json FILE] [--data-dir DIR] [--turns N]

The 60,000 training images of MNIST, 784 pixels each; `fit`, with all components. Each way is run in
a fresh interpreter with one thread, in turns. The time is the processor's, which other programs
disturb least, and the median of the turns counts; `ratio` is ours over theirs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from whatwhere import runs
from whatwhere.experiments.job import Job
from whatwhere.models.whitening import Whitening

SHAPE = (1, 28, 28)
OURS, THEIRS = "whatwhere", "scikit-learn"
WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    OURS: lambda x: Whitening("pca", eps=0.0, image_shape=SHAPE).fit(x),
    THEIRS: lambda x: PCA(whiten=True).fit(x),
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TURNS, WARM = 7, 200  # rows of a first fit, in which libraries load what they need


def matrix(data_dir: str | None) -> np.ndarray:
    """Return the images as rows, float32 in [0, 1]."""
    x = Job("mnist", "whitening", labels="none", data_dir=data_dir).read().train.x
    return (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32, copy=False)


def fit_once(way: str, file: Path) -> float:
    """Return the seconds of one fit to the matrix in a file."""
    torch.set_num_threads(1)
    x = np.load(file)
    WAYS[way](x[:WARM])
    began = time.process_time()
    WAYS[way](x)
    return time.process_time() - began


def timed(way: str, file: Path) -> float:
    """Return what a fresh interpreter says."""
    words = [sys.executable, __file__, "--way", way, "--matrix", str(file)]
    done = subprocess.run(
        words, env=os.environ | ONE_THREAD, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(data_dir: str | None, turns: int) -> dict[str, Any]:
    """Return all that is measured, with the machine."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        np.save(file, matrix(data_dir))
        for _ in range(turns):
            for way, found in seconds.items():
                found.append(timed(way, file))
    pairs = [ours / theirs for ours, theirs in zip(seconds[OURS], seconds[THEIRS], strict=True)]
    middle = {way: median(each) for way, each in seconds.items()}
    return {
        "machine": runs.hardware() | {"threads": 1},
        "versions": runs.versions(),
        "data": "mnist, 60,000 x 784, float32",
        "turns": turns,
        "seconds": {way: round(value, 3) for way, value in middle.items()},
        "ratio": round(middle[OURS] / middle[THEIRS], 3),
        "ratio_of_turns": [round(min(pairs), 3), round(max(pairs), 3)],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table as text, its head first."""
    ratios = [f"{value:.2f}" for value in found["ratio_of_turns"]]
    table = [["fit", OURS, THEIRS, "ratio", "ratios of turns"]]
    seconds = found["seconds"]
    table.append(
        ["seconds", *(f"{seconds[way]:.2f}" for way in WAYS), f"{found['ratio']:.2f}",
         " to ".join(ratios)]
    )  # fmt: skip
    return ["  ".join(cell.ljust(26) for cell in row).rstrip() for row in table]


def main() -> None:
    """Measure, say it, and write it down; or, with --way, be what is timed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    parser.add_argument("--turns", type=int, default=TURNS, help="fits of each way")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--matrix", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(fit_once(asked.way, asked.matrix)))
        return
    found = measure(asked.data_dir, asked.turns)
    print("\n".join(lines(found)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
