"""How fast what-where pooling and the step that it stands in are, and how much memory it keeps.

    python benchmarks/kernels.py [--json FILE]

1. Pool and unpool, forward and backward, beside `max_pool2d(return_indices=True)` and
   `max_unpool2d`, which count in eight bytes where ours counts in one: torch's operations on maps
   in torch's own layout, and on maps that are kept channels last, as ours are.
2. A step of SWWAE beside the same net as one would write it in torch (goal: at least 1.3 times as
   fast), beside that net moved to channels last, as ours is, and beside the matrix products that
   its layers are made of (goal: at least 60 % of the step at (64)5c-2p-(64)3c-2p).

One thread. What is compared takes turns, and a ratio is the median over the rounds: whatever
disturbs the machine for a while disturbs all. Times are the processor's, which leave out what
other programs took; they are those of the clock where the machine is left alone.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from engine import (
    BATCH,
    SEED,
    ByHand,
    IdiomaticSWWAE,
    built,
    idiomatic_loss,
    mnist,
    now,
    products,
)
from torch import Tensor

from whatwhere import runs
from whatwhere.data.rows import Rows
from whatwhere.models.swwae import SWWAE, SWWAEModule
from whatwhere.nn.conv import in_channels_last
from whatwhere.nn.where import WhatWhere

MAPS = [(BATCH, 16, 28, 28), (BATCH, 64, 28, 28), (BATCH, 64, 14, 14)]
WINDOWS = [2, 3, 4, 7]
LARGE = "(64)5c-2p-(64)3c-2p"
NETS = ["(16)5c-2p-(32)3c-2p", LARGE]
ROUNDS_OF_POOLS, ROUNDS_OF_STEPS = 25, 40
WARM = 3
GOAL_SPEED, GOAL_SHARE = 1.3, 0.6

PARTS = ("pool", "pool backward", "unpool", "unpool backward")
KINDS = ("ours", "torch", "torch, channels last")
PROCESSOR = 1  # of the two times that `now` gives


def in_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds (rounds, 2), on the clock and of the processor, that each one took."""
    times: dict[str, list[np.ndarray]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(WARM + rounds):
        # Who goes after whom matters: memory that one gives back, the next finds or has to ask for.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            run = contestants[name]
            began = now()
            run()
            times[name].append(now() - began)
    return {name: np.array(taken[WARM:]) for name, taken in times.items()}


def speed(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return how many times as fast ours is."""
    return float(np.median(theirs[:, PROCESSOR] / ours[:, PROCESSOR]))


def milliseconds(taken: np.ndarray) -> float:
    """Return the median of the processor's times."""
    return 1e3 * float(np.median(taken[:, PROCESSOR]))


class Pooling:
    """One kind of pool and unpool on the same maps, one after the other, and their gradients.

    Parameters
    ----------
    pool : callable (z) -> (what, where)
    unpool : callable (what, where) -> maps of the shape of z
    z : Tensor (B, C, H, W)

    Attributes
    ----------
    kept : list of int
        Bytes that pool and unpool keep for their gradients.
    """

    def __init__(
        self,
        pool: Callable[[Tensor], tuple[Tensor, Tensor]],
        unpool: Callable[[Tensor, Tensor], Tensor],
        z: Tensor,
    ) -> None:
        self.pool, self.unpool, self.z = pool, unpool, z.requires_grad_()
        self.kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(self._count, lambda kept: kept):
            self.kept.append(0)
            self.what, self.where = pool(self.z)
            self.kept.append(0)
            self.below = self.what.detach().requires_grad_()
            self.maps = unpool(self.below, self.where)
        # Gradients come in the layout of the maps, as they do from the layers around.
        self.of_what, self.of_maps = torch.randn_like(self.what), torch.randn_like(self.maps)

    def _count(self, tensor: Tensor) -> Tensor:
        self.kept[-1] += tensor.numel() * tensor.element_size()
        return tensor

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return what `PARTS` names."""
        gradient = partial(torch.autograd.grad, retain_graph=True)
        does = (
            lambda: self.pool(self.z),
            lambda: gradient(self.what, self.z, self.of_what),
            lambda: self.unpool(self.below, self.where),
            lambda: gradient(self.maps, self.below, self.of_maps),
        )
        return dict(zip(PARTS, does, strict=True))


def pools(shape: tuple[int, int, int, int], size: int) -> dict[str, Any]:
    """Compare ours with torch's on maps of one shape and windows of one size."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).relu()
    last = z.contiguous(memory_format=torch.channels_last)
    region = shape[2:]
    ours = WhatWhere(size)
    largest = partial(F.max_pool2d, kernel_size=size, ceil_mode=True, return_indices=True)

    def unpool(what: Tensor, index: Tensor) -> Tensor:
        return F.max_unpool2d(what, index, [size, size], output_size=list(region))

    kinds = (
        Pooling(ours.pool, lambda what, where: ours.unpool(what, where, region), last.clone()),
        Pooling(largest, unpool, z),
        Pooling(largest, unpool, last.clone()),
    )
    told: dict[str, Any] = {
        "maps": shape,
        "window": size,
        "bytes_kept": {name: kind.kept for name, kind in zip(KINDS, kinds, strict=True)},
        "bytes_of_where": [kind.where.element_size() for kind in kinds],
        "milliseconds": {},
        "times_as_fast": {},
    }
    for part in PARTS:
        contest = {name: kind.parts()[part] for name, kind in zip(KINDS, kinds, strict=True)}
        taken = in_turns(contest, ROUNDS_OF_POOLS)
        told["milliseconds"][part] = [milliseconds(taken[name]) for name in KINDS]
        told["times_as_fast"][part] = [speed(taken["ours"], taken[name]) for name in KINDS[1:]]
    return told


def step(architecture: str, rows: Rows) -> dict[str, Any]:
    """Compare a step of SWWAE with that of the idiomatic net and with its matrix products."""
    learner = SWWAE(architecture, dropout=0.0)
    module, stage, update = built(learner, rows)
    assert isinstance(module, SWWAEModule)
    idiom = IdiomaticSWWAE(module).train()
    last = in_channels_last(IdiomaticSWWAE(module).train())
    loss = partial(idiomatic_loss, learner)
    nets = zip(KINDS, (module, idiom, last), (update.objective, loss, loss), strict=True)
    loops = {name: ByHand(net, objective, stage, rows) for name, net, objective in nets}
    for loop in loops.values():
        loop.begin(0)
    shapes = products(module.encoder)
    factors = [(torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)) for m, k, n in shapes]

    def multiply() -> None:
        for a, b, out in factors:
            torch.mm(a, b, out=out)

    numbers = {name: iter(range(WARM + ROUNDS_OF_STEPS)) for name in loops}
    contest: dict[str, Callable[[], Any]] = {
        name: partial(lambda name: loops[name].step(0, next(numbers[name])), name) for name in loops
    }
    taken = in_turns(contest | {"products": multiply}, ROUNDS_OF_STEPS)
    ours = taken["ours"]
    return {
        "milliseconds": {name: milliseconds(times) for name, times in taken.items()},
        "images_per_second": BATCH / float(np.median(ours[:, PROCESSOR])),
        "times_as_fast": {name: speed(ours, taken[name]) for name in KINDS[1:]},
        "times_as_fast_on_the_clock": {
            name: float(np.median(taken[name][:, 0] / ours[:, 0])) for name in KINDS[1:]
        },
        "share_of_products": speed(ours, taken["products"]),
        "gflop_a_step": sum(2 * prod(shape) for shape in shapes) / 1e9,
    }


def measure(data_dir: str | None) -> dict[str, Any]:
    """Run both parts."""
    torch.set_num_threads(1)
    rows, data = mnist(data_dir, (WARM + ROUNDS_OF_STEPS) * BATCH)
    return {
        "machine": runs.hardware() | {"threads": 1},
        "versions": runs.versions(),
        "data": data,
        "batch_size": BATCH,
        "steps": {architecture: step(architecture, rows) for architecture in NETS},
        "pools": [pools(shape, size) for shape in MAPS for size in WINDOWS],
    }


def lines(told: Mapping[str, Any]) -> list[str]:
    """Return what was measured as text."""
    machine = told["machine"]
    text = [
        f"{machine['processor']}, {machine['cores']} cores, 1 thread, torch "
        f"{told['versions']['torch']}, {told['data']}, batches of {told['batch_size']}",
        "",
        "SWWAE, ms a step: ours, torch's in its own layout, torch's channels last, products; times",
        f"as fast as the two (goal, the first: >= {GOAL_SPEED}); products' share of our step",
    ]
    for name, found in told["steps"].items():
        taken = "".join(f"{found['milliseconds'][kind]:>8.1f}" for kind in KINDS)
        fast = ", ".join(f"{found['times_as_fast'][kind]:.2f}" for kind in KINDS[1:])
        goal = f" (goal >= {GOAL_SHARE:.0%})" if name == LARGE else ""
        text.append(
            f"  {name:<20}{taken}{found['milliseconds']['products']:>10.1f}   {fast}; "
            f"{found['share_of_products']:.0%}{goal}"
        )
    text += [
        "",
        "Pools, ms: ours, torch's on its own layout, torch's channels last",
        f"{'maps':<16}{'p':>2}" + "".join(f"{part:^21}" for part in PARTS) + "bytes a cell",
    ]
    for found in told["pools"]:
        cells = prod(found["maps"][:2]) * prod(-(-n // found["window"]) for n in found["maps"][2:])
        times = "".join(
            " |" + "".join(f"{value:>6.2f}" for value in found["milliseconds"][part]) + " "
            for part in PARTS
        )
        kept = [sum(found["bytes_kept"][name]) / cells for name in KINDS[:2]]
        size = "x".join(map(str, found["maps"]))
        text.append(f"{size:<16}{found['window']:>2}{times}|{kept[0]:>5.0f}{kept[1]:>6.0f}")
    return [
        *text,
        "",
        "Bytes a cell are all that pool and unpool keep for their gradients: ours *where*, torch's",
        "two indices of eight bytes and the maps that were pooled.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    arguments = parser.parse_args()
    told = measure(arguments.data_dir)
    print("\n".join(lines(told)))
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
