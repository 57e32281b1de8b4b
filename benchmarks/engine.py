"""How fast the engine is, and how much memory it takes, as ratios measured side by side in one run.

    python benchmarks/engine.py [--json FILE]

1. The Trainer beside the same step written by hand in plain torch: same module, objective,
   optimizer, batches and closure, so that both end in the same bits. The auto-encoder 784-500-784
   stands beside a net and a loss of plain torch. Goal: a ratio of at most 1.05.
2. SWWAE beside the same net as one would write it with `max_pool2d(return_indices=True)` and
   `max_unpool2d`, and beside the matrix products that its layers are made of, the limit.
3. Memory above the bare import while 784-500-10 learns MNIST for an epoch. Goal: under 300 MB.

One thread. What is compared takes turns step by step, in one process, and a ratio is the median
over the pairs of steps: whatever disturbs the machine for a while disturbs both. Beside the time on
the clock stands the processor's. Leave the machine alone meanwhile all the same.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere import runs
from whatwhere.core import Batch, InputError, Objective, Terms, key
from whatwhere.data import sources
from whatwhere.data.rows import Rows
from whatwhere.learner import Learner, Spec
from whatwhere.models.autoencoder import Autoencoder
from whatwhere.models.cnn import CNN
from whatwhere.models.swwae import SWWAE, SWWAEModule
from whatwhere.nn.architecture import Conv, Dense
from whatwhere.nn.conv import Encoder
from whatwhere.objectives.classification import cross_entropy
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record, Trainer
from whatwhere.train.update import GradientUpdate

SEED = 0
CLASSES = 10
SHAPE = (1, 28, 28)
BATCH = 100
STEPS_OF_MNIST, STEPS_OF_SWWAE = 600, 100
GOAL_RATIO, GOAL_MEGABYTES = 1.05, 300

# Without dropout both loops draw the same numbers: they must end in the same weights.
DENSE = CNN("500fc", batch_norm=False, dropout=0.0)
STACKED = SWWAE("(16)5c-2p-(32)3c-2p", dropout=0.0)
FOLDED = Autoencoder("500fc")


def mnist(data_dir: str | None, n: int) -> tuple[Rows, str]:
    """Return n images of MNIST or, where it is not there, noise of its size."""
    try:
        images = sources.load("mnist", data_dir=data_dir).train
    except InputError:
        rng = np.random.default_rng(SEED)
        x = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
        return Rows(x, rng.integers(0, CLASSES, n)), "noise of MNIST's size"
    return Rows(images.x[:n], images.y[:n]), "MNIST"


def built(learner: Learner, rows: Rows) -> tuple[nn.Module, Stage, GradientUpdate]:
    """Return a fresh module, its stage of two epochs, the first to get warm, and the one update."""
    spec = Spec(SHAPE, len(rows), CLASSES, len(rows), SEED)
    module = learner.build(spec)
    (stage,) = learner.stages(module, spec)
    stage.epochs = 2
    (update,) = stage.updates
    assert isinstance(update, GradientUpdate)
    return module, stage, update


class ByHand:
    """A training loop in plain torch, one step at a time."""

    def __init__(self, module: nn.Module, objective: Objective, stage: Stage, rows: Rows) -> None:
        (update,) = stage.updates
        assert isinstance(update, GradientUpdate)
        assert update.schedule is not None
        self.module, self.objective, self.stage = module.train(), objective, stage
        # A copy: of the same images, whoever goes second would find them in the processor's cache.
        self.rows = Rows(rows.x.clone(), rows.y.clone(), rows.x.device)
        self.schedule = update.schedule
        self.optimizer = update.optimizer(list(module.parameters()))
        self.rate = self.optimizer.param_groups[0]["lr"]

    def begin(self, epoch: int) -> None:
        """Order the rows as the Trainer does."""
        generator = torch.Generator().manual_seed(key(SEED, 0, epoch, "rows"))
        self.batches = self.stage.sampler(self.rows.y, self.stage.batch_size, generator)

    def step(self, epoch: int, number: int) -> None:
        """Take a step."""
        rows = self.batches[number]
        x = self.rows.x.index_select(0, rows).float().div_(255)
        batch = Batch(x, self.rows.y.index_select(0, rows), rows)
        progress = (epoch + number / len(self.batches)) / self.stage.epochs
        self.optimizer.param_groups[0]["lr"] = self.rate * self.schedule(progress)

        def closure() -> Any:  # torch's annotation asks for a float, its examples give a tensor
            self.optimizer.zero_grad()
            loss = torch.stack(list(self.objective(self.module, batch).values())).sum()
            loss.backward()
            return loss

        self.optimizer.step(closure)


def now() -> np.ndarray:
    """Return seconds on the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


class Turns:
    """A watcher that takes a step by hand after each step of the Trainer, and the time of both.

    Attributes
    ----------
    trainer, hand : list of ndarray (2,)
        Seconds of each step of the second epoch.
    between : ndarray (2,)
        Seconds that the Trainer needs once an epoch, at its beginning and end, beyond the order of
        rows, which the loop by hand needs too.
    """

    def __init__(self, hand: ByHand) -> None:
        self.by_hand = hand
        self.trainer: list[np.ndarray] = []
        self.hand: list[np.ndarray] = []
        self.between = np.zeros(2)

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Get ready for the first epoch."""
        self.by_hand.begin(0)
        self.since = now()

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Note what the Trainer's step took, and take one by hand."""
        here = now()
        self.by_hand.step(place.epoch, place.step - 1)
        there = now()
        if place.epoch == 1:
            self.trainer.append(here - self.since)
            self.hand.append(there - here)
        self.since = there

    def epoch(self, record: Record) -> None:
        """Note what the end of an epoch took; it is past when the record is written."""
        here = now()
        if record["epoch"] == 1:
            # The first step of an epoch holds its beginning, the order of the rows for instance.
            begin = self.trainer[0] - np.median(self.trainer, axis=0)
            self.between += begin + here - self.since
        else:
            self.by_hand.begin(1)
            self.between = here - now()
        self.since = now()

    def end(self) -> None:
        """Do nothing."""


def turns(
    learner: Learner, rows: Rows, hand: Callable[[], ByHand]
) -> tuple[dict[str, Any], nn.Module]:
    """Train by the Trainer and by hand in turns.

    Returns
    -------
    dict
        Milliseconds a step of the two, and the ratio of the first to the second, to which the
        Trainer's work between the epochs of MNIST (600 steps) is added.
    nn.Module
        The Trainer's.
    """
    module, stage, _ = built(learner, rows)
    watch = Turns(hand())
    Trainer(watch=[watch]).run(module, [stage], rows, seed=SEED)
    ours, theirs = np.array(watch.trainer), np.array(watch.hand)
    step, by_hand = np.median(ours, axis=0), np.median(theirs, axis=0)
    share = watch.between / STEPS_OF_MNIST / by_hand
    wall, processor = np.median(ours / theirs, axis=0) + share
    told = {
        "milliseconds_a_step": [1e3 * float(step[0]), 1e3 * float(by_hand[0])],
        "ratio": float(wall),
        "ratio_of_processor_time": float(processor),
        "quartiles_of_ratio": np.quantile(ours[:, 0] / theirs[:, 0], [0.25, 0.75]).tolist(),
        "milliseconds_between_epochs": 1e3 * float(watch.between[0]),
        "steps": len(ours),
    }
    return told, module


def beside_hand(learner: Learner, rows: Rows) -> dict[str, Any]:
    """Compare the Trainer with the same steps written by hand."""
    module, stage, update = built(learner, rows)
    told, ours = turns(learner, rows, lambda: ByHand(module, update.objective, stage, rows))
    pairs = zip(ours.parameters(), module.parameters(), strict=True)
    return told | {"same_bits": all(torch.equal(a, b) for a, b in pairs)}


def beside_plain_autoencoder(rows: Rows) -> dict[str, Any]:
    """Compare the auto-encoder 784-500-784 with the same net and loss of plain torch."""
    module, stage, _ = built(FOLDED, rows)
    up, down = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(up.in_features, up.out_features),
        nn.ReLU(),
        nn.Linear(down.in_features, down.out_features),
    )
    for own, value in zip(net.parameters(), module.parameters(), strict=True):
        own.data.copy_(value.data)

    def loss(net: nn.Module, batch: Batch) -> Terms:
        scores, x = net(batch.x), batch.x.flatten(1)
        error = F.binary_cross_entropy_with_logits(scores, x, reduction="sum")
        return {"reconstruction": error / len(x)}

    told, ours = turns(FOLDED, rows, lambda: ByHand(net, loss, stage, rows))
    pairs = zip(ours.parameters(), net.parameters(), strict=True)
    return told | {"same_bits": all(torch.equal(a, b) for a, b in pairs)}


class IdiomaticSWWAE(nn.Module):
    """A SWWAE of conv - pool - conv - pool, as one would write it in torch."""

    def __init__(self, ours: SWWAEModule) -> None:
        super().__init__()
        first, _, second, _ = ours.encoder.layers
        assert isinstance(first, Conv) and isinstance(second, Conv)
        n, m = first.maps, second.maps
        self.conv1 = nn.Conv2d(1, n, first.size, padding="same", bias=False)
        self.norm1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, m, second.size, padding="same", bias=False)
        self.norm2 = nn.BatchNorm2d(m)
        self.head = nn.Linear(m * 7 * 7, CLASSES)
        self.deconv2 = nn.ConvTranspose2d(m, n, second.size, padding=second.size // 2, bias=False)
        self.norm3 = nn.BatchNorm2d(n)
        self.deconv1 = nn.ConvTranspose2d(n, 1, first.size, padding=first.size // 2)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        theirs, start = list(self.parameters()), list(ours.parameters())
        for own, value in zip(theirs, start, strict=True):
            own.data.copy_(value.data.view_as(own))

    def forward(self, x: Tensor, *, silence: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the class scores, the image rebuilt, the first pooled map and that rebuilt.

        With `silence` a window that held nothing on the way up gets nothing on the way down, as in
        ours; torch's unpooling writes into its first pixel.
        """
        what1, where1 = self.pool(F.relu(self.norm1(self.conv1(x))))
        what2, where2 = self.pool(F.relu(self.norm2(self.conv2(what1))))
        scores = self.head(what2.flatten(1))
        below = F.relu(self.norm3(self.deconv2(self.unpool(what2, where2))))
        sent = below * (what1 > 0) if silence else below
        return scores, self.deconv1(self.unpool(sent, where1)), what1, below


def idiomatic_loss(
    learner: SWWAE, net: IdiomaticSWWAE, batch: Batch, *, silence: bool = False
) -> Terms:
    """Return the terms of the SWWAE's loss."""
    scores, image, what, below = net(batch.x, silence=silence)
    return {
        "nll": learner.nll * cross_entropy(scores, batch.y),
        "reconstruction": learner.reconstruction * F.mse_loss(image, batch.x),
        "middle": learner.middle * F.mse_loss(below, what.detach()),
    }


def beside_idiom(learner: SWWAE, rows: Rows) -> dict[str, Any]:
    """Compare the Trainer on our SWWAE with plain steps on the idiomatic one."""
    module, stage, update = built(learner, rows)
    assert isinstance(module, SWWAEModule)
    net = IdiomaticSWWAE(module).train()
    loss = partial(idiomatic_loss, learner)
    batch = rows.take(torch.arange(BATCH))
    with torch.no_grad():
        here, there = update.objective(module.train(), batch), loss(net, batch, silence=True)
    told, _ = turns(learner, rows, lambda: ByHand(net, loss, stage, rows))
    differ = {name: abs(float(here[name] / there[name]) - 1) for name in here}
    return told | {"terms_differ_by": max(differ.values())}


def products(encoder: Encoder) -> list[tuple[int, int, int]]:
    """Return the matrix products of one step as (m, k, n): (m, k) times (k, n).

    A convolution of C maps to R, p x p, is a product of the patches (B * H * W, C * p²) with the
    filters (C * p², R). Backward there are two more, for the filters and for the maps below; its
    mirror in the decoder takes the same three. Nothing below the image asks for a gradient.
    """
    found = []
    for place, layer in enumerate(encoder.layers):
        below = encoder.shapes[place]
        if isinstance(layer, Conv):
            m, k, n = BATCH * prod(below[1:]), below[0] * layer.size**2, layer.maps
        elif isinstance(layer, Dense):
            m, k, n = BATCH, prod(below), layer.units
        else:
            continue
        forward, filters, maps = (m, k, n), (n, m, k), (m, n, k)
        found += [forward, filters] + ([maps] if place else [])
        found += [maps, filters, forward]  # of the mirror: forward, filters, maps above
    m, k, n = BATCH, encoder.n_features, CLASSES
    return [*found, (m, k, n), (n, m, k), (m, n, k)]


def product_seconds(shapes: Sequence[tuple[int, int, int]]) -> float:
    """Return how long these matrix products take, each once."""
    total = 0.0
    for m, k, n in shapes:
        a, b, out = torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)
        times = []
        for _ in range(30):
            began = time.perf_counter()
            torch.mm(a, b, out=out)
            times.append(time.perf_counter() - began)
        total += median(times)
    return total


MEMORY = """
import json, sys
from pathlib import Path

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

import torch
torch.set_num_threads(1)
with_torch = status("VmHWM")
from whatwhere import CNN
import lightning_fabric
imported = status("VmHWM")
from whatwhere.core import InputError
from whatwhere.data import sources
import numpy as np
try:
    train = sources.load("mnist", data_dir=sys.argv[1] or None).train
    x, y = train.x, train.y
except InputError:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60000, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, 60000)
CNN("500fc", batch_norm=False, dropout=0.0, epochs=1, random_state=0).fit(x, y)
peak = status("VmHWM")
print(json.dumps({"torch": with_torch, "imported": imported, "peak": peak}))
"""


def memory(data_dir: str | None) -> dict[str, float] | None:
    """Return megabytes: at the import, at the peak of training. None where /proc is not there."""
    if not Path("/proc/self/status").exists():
        return None
    # The peak of a process is its own: in this one, other measurements would stand in it.
    command = [sys.executable, "-c", MEMORY, data_dir or ""]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return told | {"above_import": told["peak"] - told["imported"]}


def measure(data_dir: str | None) -> dict[str, Any]:
    """Run all three parts."""
    torch.set_num_threads(1)
    told: dict[str, Any] = {
        "machine": runs.hardware() | {"threads": 1},
        "versions": runs.versions(),
        "batch_size": BATCH,
        "memory_mb": memory(data_dir),
    }
    rows, told["data"] = mnist(data_dir, STEPS_OF_MNIST * BATCH)
    few = Rows(rows.x[: STEPS_OF_SWWAE * BATCH], rows.y[: STEPS_OF_SWWAE * BATCH])
    told["trainer_beside_hand_written"] = {
        "784-500-10": beside_hand(DENSE, rows),
        "swwae": beside_hand(STACKED, few),
        "784-500-784": beside_plain_autoencoder(rows),
    }
    idiom = beside_idiom(STACKED, few)
    module, _, _ = built(STACKED, few)
    assert isinstance(module, SWWAEModule)
    shapes = products(module.encoder)
    limit = product_seconds(shapes)
    ours, theirs = idiom["milliseconds_a_step"]
    told["swwae_beside_idiomatic_torch"] = idiom | {
        "architecture": STACKED.architecture,
        "images_per_second": [1e3 * BATCH / ours, 1e3 * BATCH / theirs],
        "matrix_products": {
            "milliseconds_a_step": 1e3 * limit,
            "images_per_second": BATCH / limit,
            "gflop_a_step": sum(2 * prod(shape) for shape in shapes) / 1e9,
            "share_of_step": 1e3 * limit / ours,
        },
    }
    return told


def lines(told: dict[str, Any]) -> list[str]:
    """Return what was measured as text."""
    idiom, space = told["swwae_beside_idiomatic_torch"], told["memory_mb"]
    products, speed = idiom["matrix_products"], idiom["images_per_second"]
    machine = told["machine"]
    text = [
        f"{machine['processor']}, {machine['cores']} cores, 1 thread, torch "
        f"{told['versions']['torch']}, {told['data']}, batches of {BATCH}",
        "",
        f"{'Trainer beside hand-written torch':<40}{'ms a step':>20}{'ratio':>8}{'cpu':>8}   goal",
    ]
    for name, pair in told["trainer_beside_hand_written"].items():
        text.append(row(name, pair) + f"   <= {GOAL_RATIO}, same bits: {pair['same_bits']}")
    text += [
        "",
        f"SWWAE {idiom['architecture']}",
        row("beside idiomatic torch", idiom),
        f"{'  images a second':<40}{speed[0]:>10.0f}{speed[1]:>10.0f}",
        f"{'  largest difference of a term':<40}{idiom['terms_differ_by']:>20.1e}",
        f"{'  its matrix products alone':<40}{products['milliseconds_a_step']:>20.2f}"
        f"{products['share_of_step']:>8.0%} of our step; {products['gflop_a_step']:.2f} Gflop a "
        f"step, {products['images_per_second']:.0f} images a second",
    ]
    if space is not None:
        text += [
            "",
            f"{'Memory, 784-500-10 on MNIST, one epoch':<40}{space['above_import']:>17.0f} MB "
            f"above the import ({space['imported']:.0f} MB)   goal < {GOAL_MEGABYTES}",
        ]
    return text


def row(name: str, pair: dict[str, Any]) -> str:
    here, there = pair["milliseconds_a_step"]
    ratio, cpu = pair["ratio"], pair["ratio_of_processor_time"]
    return f"{'  ' + name:<40}{here:>10.2f}{there:>10.2f}{ratio:>8.3f}{cpu:>8.3f}"


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
