"""What a model that draws images draws while it learns: a picture that grows with the epochs.

A few chains of Gibbs sampling go on from one epoch to the next, in the machine as it is by then,
like the chains that persist while it is trained (Tieleman 2008) but never looked at by training.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.core import Walks, device_of, seeded
from whatwhere.evaluate import panels, strips
from whatwhere.train import checkpoint

NAME = "growing"
CHAINS = 10
MOST_ROWS = 12

REFRESH = 10.0
"""Seconds between two pictures while training goes on: of a small set an epoch takes far less."""

# Steps times parameters after an epoch: 100 steps of a machine of 1,000,000, at least 5.
STEPS, EFFORT, FEWEST_STEPS = 100, 10**8, 5


@dataclass
class Growing:
    """A monitor that draws ``growing.png``: a row an epoch, a column a chain.

    It draws from generators of its own, so that training does not depend on it, and keeps chains
    and rows in the folder, so that a resumed run goes on with them to the same bits. An epoch is
    known by the module's weights: one that is seen twice in a row, because a run was killed after
    it and resumed before it, counts once. The picture is refreshed from time to time; `draw` brings
    it up to the last epoch when training stops, and `finish` when it has ended.

    Parameters
    ----------
    folder : Path
        The run's ``panels``; it is made where it is missing.
    shape : (int, int, int)
        Channels, height and width of an image.
    seed : int
    """

    folder: Path
    shape: tuple[int, int, int]
    seed: int = 0
    drawn: float = field(default=float("-inf"), init=False, repr=False)

    @property
    def kept(self) -> Path:
        """Where chains and rows are kept until `finish`."""
        return self.folder / NAME

    def __call__(self, module: nn.Module) -> Mapping[str, float]:
        """Let the chains walk in the module, and keep a row; there is nothing to record.

        Parameters
        ----------
        module : nn.Module
            In evaluation mode. One that does not walk is left alone.
        """
        if not isinstance(module, Walks):
            return {}
        seen, saved = _fingerprint(module), checkpoint.read(self.kept)
        state, place = saved or ({"chains": None, "rows": {}}, {"epoch": 0, "seen": ""})
        if place["seen"] == seen:
            return {}
        epoch = place["epoch"] + 1
        chains, images = self._walk(module, state["chains"], epoch)
        rows: dict[int, Tensor] = state["rows"] | {epoch: images}
        kept = {"chains": chains, "rows": {number: rows[number] for number in shown(epoch)}}
        checkpoint.write(self.kept, kept, {"epoch": epoch, "seen": seen})
        if time.monotonic() - self.drawn > REFRESH:
            self.draw()
        return {}

    @torch.no_grad()
    def _walk(self, module: nn.Module, chains: Any, epoch: int) -> tuple[Any, Tensor]:
        """Return the chains after this epoch's steps, and what they look like, as uint8."""
        assert isinstance(module, Walks)
        device, size = device_of(module), sum(p.numel() for p in module.parameters())
        with seeded("growing", self.seed, epoch, device=device):
            if chains is None:
                chains = module.begin(torch.rand(CHAINS, *self.shape).to(device))
            chains = [part.to(device) for part in chains]
            chains = module.walk(chains, max(FEWEST_STEPS, min(STEPS, EFFORT // size)))
        looked = module.look(chains).clamp(0, 1).nan_to_num()
        return chains, (255 * looked).round().to(torch.uint8).cpu()

    def draw(self) -> None:
        """Write the picture of all rows so far; nothing where there is none."""
        self.drawn = time.monotonic()
        saved = checkpoint.read(self.kept)
        if saved is None:
            return
        rows: dict[int, Tensor] = saved[0]["rows"]
        room = panels.WIDTH - strips.MARGIN
        drawn = [
            strips.row(
                [f"epoch {number:,}"],
                panels.enlarge(panels.color(row.numpy()), CHAINS, room, panels.LARGEST // 2),
            )
            for number, row in rows.items()
        ]
        panels.write(
            self.folder,
            NAME,
            np.concatenate(drawn),
            "What it dreams as it learns",
            f"{CHAINS} chains of Gibbs sampling, a column each, begun at noise and walked on after "
            "every epoch in the model as it was by then; epochs are counted through all stages, as "
            "in the learning curves. Shown is the mean of each pixel given the hidden units. What "
            "the rows have in common with the images comes in the order in which it is learned; "
            "a column that no longer changes is a chain that is stuck.",
            13,
        )

    def finish(self) -> None:
        """Draw the last picture, and remove chains and rows: no epoch follows."""
        self.draw()
        checkpoint.remove(self.kept)


def shown(epoch: int) -> list[int]:
    """Return which of so many epochs have a row: the first, the last, and some evenly between.

    There are `MOST_ROWS` at most, and what an epoch shows of earlier ones, all epochs between have
    shown too, so that nothing has to be kept besides.
    """
    stride = 1
    while epoch // stride > MOST_ROWS - 2:
        stride *= 2
    return sorted({1, *range(stride, epoch + 1, stride), epoch})


def _fingerprint(module: nn.Module) -> str:
    found = blake2b(digest_size=16)
    for value in module.state_dict().values():
        found.update(value.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
