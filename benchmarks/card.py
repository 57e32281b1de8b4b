"""What a GPU makes of the engine: all that has to be known of one, in a single run of minutes.

    python benchmarks/card.py [--device cuda|cpu] [--json FILE] [--data-dir DIR]

1. What the card can do at most: bytes copied a second, and float operations of a large product of
   matrices in float32, in float32 by TF32, and in bfloat16.
2. Whether what is promised holds on it: the kernels of what-where pooling agree with torch; no step
   makes the host wait, by torch's own watch over such calls; twice the same seed gives the same
   bits; the terms of the loss are those of the CPU.
3. Images a second of SWWAE, CNN and 784-500-10 by the Trainer, in float32, half precision and
   compiled, beside the same steps written by hand in plain torch, those steps captured as a graph,
   and, for SWWAE, the net as one would write it in torch (goal: twice as fast); and what part of
   the card's rate the matrix products of these steps are.
4. Several draws at once: as many processes, each with a SWWAE of its own on the same card, beside
   one alone.
5. Pool and unpool beside torch's, forward and backward, on large maps.

On a CPU it does the same with less of each, so that it can be tried before a card is there; then
the numbers say nothing. What a machine without a network needs is packed by ``pack.py``.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import prod
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from engine import (
    BATCH,
    CLASSES,
    SEED,
    SHAPE,
    ByHand,
    IdiomaticSWWAE,
    built,
    idiomatic_loss,
    mnist,
    products,
)
from kernels import PARTS, Pooling
from torch import Tensor

from whatwhere import runs
from whatwhere.core import Batch
from whatwhere.data.rows import Rows
from whatwhere.learner import Learner, Spec
from whatwhere.models.cnn import CNN, CNNModule
from whatwhere.models.swwae import SWWAE, SWWAEModule
from whatwhere.nn import triton_where
from whatwhere.nn.where import WhatWhere
from whatwhere.train.runtime import begin
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer

SMALL, LARGE = "(16)5c-2p-(32)3c-2p", "(64)5c-2p-(64)3c-2p"
NETS: dict[str, Any] = {
    "784-500-10": partial(CNN, "500fc", batch_norm=False, dropout=0.0, batch_size=BATCH),
    f"CNN {LARGE}": partial(CNN, LARGE, dropout=0.0, batch_size=BATCH),
    f"SWWAE {SMALL}": partial(SWWAE, SMALL, dropout=0.0, batch_size=BATCH),
    f"SWWAE {LARGE}": partial(SWWAE, LARGE, dropout=0.0, batch_size=BATCH),
}
EPOCHS = 3
GOAL = 2.0
"""Times as fast as idiomatic torch, of a step of SWWAE on an H200."""


class Sizes:
    """How much of each: enough to fill a card, or to see that it works."""

    def __init__(self, device: str) -> None:
        on_gpu = device == "cuda"
        self.side = 8192 if on_gpu else 512
        self.n_images = 60_000 if on_gpu else 600
        self.processes = (2, 4, 8) if on_gpu else (2,)
        self.maps = (1000, 64, 28, 28) if on_gpu else (20, 64, 28, 28)
        self.rounds = 30 if on_gpu else 5


class Clock:
    """Times calls on a device, by its own events where it has them."""

    def __init__(self, device: str, rounds: int) -> None:
        self.on_gpu, self.rounds = device == "cuda", rounds

    def wait(self) -> None:
        """Wait for what was asked of the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """Return the median time of a call, after three to get warm."""
        for _ in range(3):
            call()
        self.wait()
        return 1e3 * median(self._seconds(call) for _ in range(self.rounds))

    def _seconds(self, call: Callable[[], Any]) -> float:
        if not self.on_gpu:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3


def ceilings(device: str, sizes: Sizes, clock: Clock) -> dict[str, float]:
    """Return gigabytes copied a second, and 10¹² operations a second of products of matrices."""
    n = sizes.side
    x, y = (torch.randn(4 * n, n, device=device) for _ in range(2))
    copied = clock.milliseconds(lambda: y.copy_(x))
    found = {"copy_gb_per_s": 2 * x.numel() * x.element_size() / copied / 1e6}
    for name, kind, tf32 in (
        ("float32", torch.float32, False),
        ("float32 by TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
        taken = clock.milliseconds(lambda a=a, b=b: a @ b)
        found[f"{name}_tflop_per_s"] = 2 * n**3 / taken / 1e9
    torch.set_float32_matmul_precision("highest")
    return found


class Watched:
    """A watcher that lets torch refuse calls that make the host wait, within epochs."""

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Do nothing."""

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Look from the first step of an epoch to its last."""
        torch.cuda.set_sync_debug_mode("error" if place.step < n_steps else "default")

    def epoch(self, record: Record) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Look no more."""
        torch.cuda.set_sync_debug_mode("default")


def trained(learner: Learner, rows: Rows, device: str, **settings: Any) -> list[Record]:
    """Return what the Trainer records of `EPOCHS` epochs."""
    module, stage, _ = built(learner, rows)
    stage.epochs = EPOCHS
    watch = settings.pop("watch", ())
    trainer = Trainer(begin(device, **settings), watch=watch)
    history = trainer.run(module, [stage], rows, seed=SEED)
    weights = torch.cat([p.detach().flatten().cpu() for p in module.parameters()])
    return [record | {"weights": weights} for record in history]


def noted(measured: Callable[[], Any]) -> Any:
    """Return what is measured, or why it could not be: one that fails must not lose the others."""
    try:
        return measured()
    except Exception as error:
        return f"{type(error).__name__}: {[*str(error).splitlines(), ''][0]}"


def laws(device: str, rows: Rows, near: Rows) -> dict[str, Any]:
    """Return whether what is promised holds on the device; None for what a CPU cannot tell."""
    few, few_near = (Rows(r.x[:600], r.y[:600], r.x.device) for r in (rows, near))
    make = NETS[f"SWWAE {SMALL}"]

    def watched() -> bool:
        trained(make(), few, device, watch=[Watched()])
        return True

    def same() -> bool:
        one, other = (trained(make(), few, device)[-1]["weights"] for _ in range(2))
        return torch.equal(one, other)

    def differ() -> float:
        there, here = trained(make(), few, device)[0], trained(make(), few_near, "cpu")[0]
        return max(abs(there[name] / here[name] - 1) for name in here if "/" in name)

    on_gpu = device == "cuda"
    agree = partial(triton_where.agree, torch.device(device))
    return {
        "kernels_agree": noted(agree) if on_gpu else None,
        "no_step_waits": noted(watched) if on_gpu else None,
        "same_bits_twice": noted(same),
        "terms_differ_by": noted(differ),
    }


class OnDevice(ByHand):
    """The steps by hand; the order of the rows is drawn on the device, as the Trainer draws it."""

    def begin(self, epoch: int) -> None:
        """Order the rows."""
        generator = torch.Generator(self.rows.y.device).manual_seed(epoch)
        self.batches = self.stage.sampler(self.rows.y, self.stage.batch_size, generator)


class Captured(OnDevice):
    """The same steps, captured once as a graph of the card's kernels and run again."""

    def capture(self) -> None:
        """Capture a step on rows that each step replaces."""
        update: Any = self.stage.updates[0]
        self.optimizer = update.optimizer(list(self.module.parameters()), capturable=True)
        self.begin(0)
        self.chosen = self.batches[0].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._move()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._move()

    def _move(self) -> None:
        x = self.rows.x.index_select(0, self.chosen).float().div_(255)
        batch = Batch(x, self.rows.y.index_select(0, self.chosen), self.chosen)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(self.objective(self.module, batch).values())).sum().backward()
        self.optimizer.step()

    def step(self, epoch: int, number: int) -> None:
        """Take a step."""
        self.chosen.copy_(self.batches[number])
        self.graph.replay()


def by_hand(loop: OnDevice, clock: Clock) -> float:
    """Return images a second of the second of two epochs."""
    for epoch in range(2):
        loop.begin(epoch)
        clock.wait()
        began = time.perf_counter()
        full = [number for number, rows in enumerate(loop.batches) if len(rows) == BATCH]
        for number in full:
            loop.step(epoch, number)
        clock.wait()
    return BATCH * len(full) / (time.perf_counter() - began)


def speed(name: str, rows: Rows, device: str, clock: Clock, peak: float) -> dict[str, Any]:
    """Return images a second of a net by each way, and its products beside the card's rate."""
    make = NETS[name]
    found: dict[str, Any] = {}

    def rate(**settings: Any) -> float:
        return trained(make(), rows, device, **settings)[-1]["images_per_second"]

    found["Trainer"] = noted(rate)
    found["Trainer, bf16-mixed"] = noted(partial(rate, precision="bf16-mixed"))
    found["Trainer, compiled"] = noted(partial(rate, compiled=True))

    def loop(kind: type[OnDevice]) -> OnDevice:
        module, stage, update = built(make(), rows)
        return kind(module.to(device), update.objective, stage, rows)

    def captured() -> float:
        steps = loop(Captured)
        assert isinstance(steps, Captured)
        steps.capture()
        return by_hand(steps, clock)

    def idiomatic() -> float:
        module, stage, _ = built(make(), rows)
        assert isinstance(module, SWWAEModule)
        net = IdiomaticSWWAE(module).to(device).train()
        return by_hand(OnDevice(net, partial(idiomatic_loss, make()), stage, rows), clock)

    found["by hand"] = noted(lambda: by_hand(loop(OnDevice), clock))
    if device == "cuda":
        found["by hand, captured"] = noted(captured)
    if name.startswith("SWWAE"):
        found["idiomatic torch"] = noted(idiomatic)
    spec = Spec(SHAPE, len(rows), CLASSES, len(rows), SEED)
    module = make().build(spec)
    assert isinstance(module, CNNModule | SWWAEModule)
    flop = sum(2 * prod(shape) for shape in products(module.encoder)) / BATCH
    if isinstance(module, SWWAEModule) and isinstance(found["Trainer"], float):
        found["share_of_float32"] = found["Trainer"] * flop / 1e12 / peak
    return found


def _one_of_many(number: int, device: str, data_dir: str | None, n_images: int) -> float:
    torch.set_num_threads(1)
    near, _ = mnist(data_dir, n_images)
    rows = Rows(near.x, near.y, device)
    learner = NETS[f"SWWAE {SMALL}"]()
    return trained(learner, rows, device)[-1]["images_per_second"]


def at_once(device: str, data_dir: str | None, sizes: Sizes) -> dict[str, float]:
    """Return images a second of all processes together, by their number."""
    found = {}
    for n in (1, *sizes.processes):
        with ProcessPoolExecutor(n, mp_context=get_context("spawn")) as pool:
            one = partial(_one_of_many, device=device, data_dir=data_dir, n_images=sizes.n_images)
            found[str(n)] = sum(pool.map(one, range(n)))
    return found


def pools(device: str, sizes: Sizes, clock: Clock) -> dict[str, Any]:
    """Return milliseconds of pool and unpool, ours and torch's, and the bytes that they keep."""
    z = torch.randn(sizes.maps, device=device).relu().contiguous(memory_format=torch.channels_last)
    region, size = sizes.maps[2:], 2
    ours = WhatWhere(size)

    def unpool(what: Tensor, index: Tensor) -> Tensor:
        return F.max_unpool2d(what, index, [size, size], output_size=list(region))

    kinds = {
        "ours": Pooling(ours.pool, lambda what, where: ours.unpool(what, where, region), z.clone()),
        "torch": Pooling(
            partial(F.max_pool2d, kernel_size=size, return_indices=True), unpool, z.clone()
        ),
    }
    return {
        name: {part: clock.milliseconds(call) for part, call in kind.parts().items()}
        | {"bytes_kept": sum(kind.kept)}
        for name, kind in kinds.items()
    }


def measure(device: str, data_dir: str | None) -> dict[str, Any]:
    """Run all parts."""
    sizes = Sizes(device)
    clock = Clock(device, sizes.rounds)
    near, data = mnist(data_dir, sizes.n_images)
    rows = Rows(near.x, near.y, device)
    told: dict[str, Any] = {
        "machine": runs.hardware() | {"device": device},
        "versions": runs.versions(),
        "data": data,
        "batch_size": BATCH,
        "ceilings": ceilings(device, sizes, clock),
    }
    if device == "cuda":
        told["machine"]["card"] = torch.cuda.get_device_name()
    told["laws"] = laws(device, rows, near)
    peak = told["ceilings"]["float32_tflop_per_s"]
    told["images_per_second"] = {name: speed(name, rows, device, clock, peak) for name in NETS}
    told["pools"] = pools(device, sizes, clock)
    told["at_once"] = at_once(device, data_dir, sizes)
    return told


def lines(told: Mapping[str, Any]) -> list[str]:
    """Return what was measured as text."""
    machine = told["machine"]
    where = machine.get("card", machine["processor"])
    text = [f"{where}, torch {told['versions']['torch']}, {told['data']}, batches of {BATCH}", ""]
    text += [f"{name:<32}{value:>12.1f}" for name, value in told["ceilings"].items()]
    text += [f"{name:<32}{value!s:>12}" for name, value in told["laws"].items()]
    for net, found in told["images_per_second"].items():
        text += ["", f"{net}, images a second"]
        for way, value in found.items():
            shown = value  # why a way failed
            if isinstance(value, float):
                shown = f"{value:>12.0%}" if way.startswith("share") else f"{value:>12,.0f}"
            text.append(f"  {way:<30}{shown}")
        ours, theirs = found["Trainer"], found.get("idiomatic torch")
        if isinstance(ours, float) and isinstance(theirs, float):
            text.append(f"  {'times idiomatic torch':<30}{ours / theirs:>12.2f}   goal {GOAL}")
    text += ["", f"{'pools, ms':<12}" + "".join(f"{part:>18}" for part in (*PARTS, "bytes kept"))]
    for name, found in told["pools"].items():
        text.append(f"{name:<12}" + "".join(f"{value:>18,.3f}" for value in found.values()))
    text += ["", "SWWAE by several processes at once, images a second together"]
    text += [f"  {n:>3}{rate:>12,.0f}" for n, rate in told["at_once"].items()]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--data-dir", help="folder of the data sets; else WHATWHERE_DATA")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu tries the script without one")
    told = measure(asked.device, asked.data_dir)
    print("\n".join(lines(told)))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
