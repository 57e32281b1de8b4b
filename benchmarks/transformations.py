"""Random transformations of patches: images a second, and beside bilinear sampling alone.

    python benchmarks/transformations.py [--json FILE] [--turns N]

All six transformations of the Exemplar-CNN on batches of 128 color images, one thread. The time is
the processor's, and the median of the turns counts; `ratio` is the time over that of torch's
`grid_sample` alone on the same batch, which moves pixels and does nothing to their colors.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from whatwhere import runs
from whatwhere.data.transformations import Boxes, Palette, Transformations

BATCH, TURNS, LOOPS = 128, 9, 5
SIZES = ((96, 96), (96, 32), (32, 32))  # sides of image and patch


def seconds(work: Callable[[], object]) -> float:
    """Return the processor's seconds of one call."""
    began = time.process_time()
    for _ in range(LOOPS):
        work()
    return (time.process_time() - began) / LOOPS


def measure(turns: int) -> dict[str, Any]:
    """Return all that is measured, with the machine."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rule, found = Transformations(), []
    for image, patch in SIZES:
        x = torch.rand(BATCH, 3, image, image)
        still = torch.zeros(BATCH)
        boxes = Boxes(still, still, still + 1)
        palette = Palette(torch.full((3,), 0.5), torch.linalg.qr(torch.rand(3, 3))[0])
        grid = F.affine_grid(
            torch.eye(2, 3).repeat(BATCH, 1, 1), [BATCH, 3, patch, patch], align_corners=False
        )

        def ours(x: Any = x, boxes: Any = boxes, patch: int = patch, p: Any = palette) -> object:
            uniform = torch.rand(BATCH, rule.numbers(3))
            return rule(x, boxes, (patch, patch), p, uniform)

        def sampling(x: Any = x, grid: Any = grid) -> object:
            return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

        ours()
        sampling()
        times: dict[str, list[float]] = {"ours": [], "sampling": []}
        for _ in range(turns):
            times["ours"].append(seconds(ours))
            times["sampling"].append(seconds(sampling))
        own, bare = (median(times[way]) for way in ("ours", "sampling"))
        found.append(
            {"image": image, "patch": patch, "per_second": BATCH / own, "ratio": own / bare}
        )
    return {"sizes": found, "hardware": runs.hardware(), "versions": runs.versions()}


def lines(found: dict[str, Any]) -> list[str]:
    """Say what was measured."""
    told = ["all six transformations, 128 color images, one thread"]
    for one in found["sizes"]:
        told.append(
            f"{one['patch']:3} x {one['patch']} out of {one['image']} x {one['image']}: "
            f"{one['per_second']:6.0f} images/s, {one['ratio']:.2f} times bilinear sampling alone"
        )
    return told


def main() -> None:
    """Measure, and say or write it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=TURNS)
    asked = parser.parse_args()
    found = measure(asked.turns)
    print("\n".join(lines(found)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
