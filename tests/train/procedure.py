"""A small training procedure with all that a checkpoint must keep, for the tests of going on.

Run as a script, it is killed at random moments and goes on until it is through.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from whatwhere.core import Batch, Terms
from whatwhere.train.stage import EarlyStopping, Mixed, Stage
from whatwhere.train.trainer import Interrupted, Record, Trainer
from whatwhere.train.update import GradientUpdate, LinearDecay

N = 22  # rows; 5 a batch give 5 steps an epoch, the last of 2 rows


class Points:
    """What a trainer reads: rows (n, D) and labels (n,)."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x = x
        self.y = torch.zeros(len(x), dtype=torch.int64) if y is None else y

    def take(self, rows: Tensor) -> Batch:
        return Batch(self.x[rows], self.y[rows], rows)


class Net(nn.Module):
    """Dropout draws numbers, batch norm gathers statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class RunningNoise(nn.Module):
    """An objective with a state, which draws random numbers too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.zeros(()))

    def forward(self, net: Net, batch: Batch) -> Terms:
        self.noise = 0.9 * self.noise + 0.1 * torch.randn(())
        return {"square": square(net, batch)["square"] + self.noise * net(batch.x).mean()}


def square(net: Net, batch: Batch) -> Terms:
    """Regress on the sum of a row."""
    return {"square": (net(batch.x) - batch.x.sum(dim=1, keepdim=True)).square().mean()}


def jitter(batch: Batch) -> Batch:
    return batch._replace(x=batch.x + 0.1 * torch.randn_like(batch.x))


def error(net: nn.Module) -> dict[str, float]:
    """Judge on rows of its own."""
    x = torch.linspace(-1, 1, 12).view(4, 3)
    return {"validation/error": float((net(x) - x.sum(1, keepdim=True)).square().mean())}


def make_data() -> Points:
    draws = torch.Generator().manual_seed(11)
    return Points(torch.randn(N, 3, generator=draws), torch.arange(N) % 3 - 1)


def make_net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net()


def make_stages(net: Net) -> list[Stage]:
    """Two stages: an average and early stopping in the first, two players in the second."""
    adam, momentum = partial(Adam, lr=0.3), partial(SGD, lr=0.02, momentum=0.9)
    first = GradientUpdate(net, RunningNoise(), adam, average=0.8)
    body = GradientUpdate(net, square, momentum, parts=[net.body], name="body")
    head = GradientUpdate(
        net, square, adam, parts=[net.head], name="head",
        every=2, clip=0.5, schedule=LinearDecay(0.25),
    )  # fmt: skip
    return [
        Stage("first", [first], 4, 5, view=jitter, early_stopping=EarlyStopping(2)),
        Stage("second", [body, head], 2, 6, sampler=Mixed(2)),
    ]


def train(
    folder: Path | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 300.0,
    seed: int = 0,
    monitor: Callable[[nn.Module], dict[str, float]] = error,
) -> tuple[dict[str, Tensor], list[Record]]:
    """Return what was learned, and the history without its times."""
    net = make_net()
    trainer = Trainer(checkpoint=folder, stop=stop, save_seconds=save_seconds)
    history = trainer.run(net, make_stages(net), make_data(), seed=seed, monitor=monitor)
    times = ("seconds", "images_per_second", "waiting")
    timeless = [{k: v for k, v in record.items() if k not in times} for record in history]
    return net.state_dict(), timeless


def train_and_tell(folder: Path, out: Path) -> None:
    """Checkpoint after every step; leave the result in `out`."""

    def dawdle() -> bool:
        time.sleep(0.02)  # on any machine slow enough to be killed on its way
        return False

    state, history = train(folder, save_seconds=0.0, stop=dawdle)
    told: dict[str, Any] = {"state": {k: v.tolist() for k, v in state.items()}, "history": history}
    out.write_text(json.dumps(told))


def kill_again_and_again(folder: Path, out: Path, seed: int) -> int:
    """Return how often a process that trains was killed before one came through."""
    draws, kills = random.Random(seed), 0
    while not out.exists():
        child = os.fork()
        if child == 0:
            train_and_tell(folder, out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)
            os._exit(0)
        # A kill a little later each time, so that it comes to an end.
        time.sleep(draws.uniform(0, 0.05 + 0.01 * kills))
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return kills


if __name__ == "__main__":
    torch.set_num_threads(1)
    with suppress(Interrupted):
        train(stop=lambda: True)  # so that what is imported late is there before each fork
    print(kill_again_and_again(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
