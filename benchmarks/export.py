"""An exported run in onnxruntime beside the same run in torch: how alike, how fast, how large.

    python benchmarks/export.py [--json FILE] [--data-dir DIR]

(16)5c-2p-(32)3c-2p learns 4,000 images for an epoch and is written as ONNX, checked on 1,000 test
images. Then files of one output each and torch take turns on one thread; a rate is that of the
median turn. Leave the machine alone meanwhile.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from whatwhere import SWWAE, runs
from whatwhere.data import sources
from whatwhere.export import onnx

SETS, N, BATCHES, TURNS = ("fashion_mnist", "cifar10"), 4000, (100, 1), 40
OUTPUTS = ("probabilities", "embedding", "reconstruction")


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_torch(model: SWWAE, output: str, x: torch.Tensor) -> Callable[[], object]:
    """Return a call that gives one output."""
    net: Any = model.module_
    calls = {
        "probabilities": net.logits,
        "embedding": net.encode,
        "reconstruction": net.reconstruct,
    }

    @torch.no_grad()
    def call() -> object:
        return calls[output](x)

    return call


def measure(name: str, data_dir: str | None, place: Path) -> dict[str, Any]:
    """Return differences, rates and bytes for one set."""
    data = sources.load(name, data_dir=data_dir)
    assert data.test is not None
    test = data.test.take(np.arange(0, len(data.test), len(data.test) // 1000))
    model = SWWAE("(16)5c-2p-(32)3c-2p", epochs=1, batch_size=100, random_state=0)
    run = model.fit(data.train.x[:N], data.train.y[:N]).save(place / name)
    told = onnx.write(run, place / f"{name}.onnx", test)
    rates: dict[str, Any] = {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for output in OUTPUTS:
        file = place / f"{name}-{output}.onnx"
        onnx.write(run, file, test, [output])
        session = onnxruntime.InferenceSession(file.read_bytes(), options)
        for n in BATCHES:
            x = torch.from_numpy(test.x[:n] / np.float32(255))
            given = {"images": x.numpy()}
            there, here = partial(session.run, [output], given), in_torch(model, output, x)
            pairs = [(seconds(there), seconds(here)) for _ in range(TURNS)]
            rates[f"{output}, {n} at once"] = [
                n / median(turn) for turn in zip(*pairs, strict=True)
            ]
    return {"set": name, "check": told, "rates": rates}


def lines(found: dict[str, Any]) -> list[str]:
    """Return what was measured, as text."""
    said = [f"{found['hardware']['processor']}, 1 thread, onnxruntime {found['onnxruntime']}", ""]
    for one in found["sets"]:
        told = one["check"]
        differences = ", ".join(
            f"{name} {value:.1e}" for name, value in told["differences"].items()
        )
        said += [f"{one['set']}: {told['bytes']:,} bytes", f"  largest differences: {differences}"]
        said += [f"  images a second {'':22} onnxruntime    torch   ratio"]
        said += [
            f"  {name:38} {there:11,.0f} {here:8,.0f} {there / here:7.2f}"
            for name, (there, here) in one["rates"].items()
        ]
    return said


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        found = {
            "hardware": runs.hardware(),
            "versions": runs.versions(),
            "onnxruntime": onnxruntime.__version__,
            "sets": [measure(name, asked.data_dir, Path(place)) for name in SETS],
        }
    print("\n".join(lines(found)))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
