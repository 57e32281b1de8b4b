"""The loop that runs stages. It knows no model, and no model knows it."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from whatwhere.core import Batch, InputError, key, reseeder, streams_kept
from whatwhere.train import checkpoint
from whatwhere.train.processes import Processes
from whatwhere.train.stage import Stage

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Record = dict[str, Any]
Monitor = Callable[[nn.Module], Mapping[str, float]]


class Data(Protocol):
    """Images in memory, or anything that can give any of its rows."""

    y: Tensor

    def take(self, rows: Tensor) -> Batch:
        """Return these rows, as float32 images."""
        ...


class Watcher(Protocol):
    """Looks on: a progress line, a metrics file."""

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """See the plan, and what an earlier part of the same run recorded."""

    def step(self, place: "Place", n_steps: int, n_images: int) -> None:
        """See that a step of so many images was taken, of `n_steps` in this epoch."""

    def epoch(self, record: Record) -> None:
        """See what an epoch recorded."""

    def end(self) -> None:
        """See the end, whatever the reason."""


class Diverged(ArithmeticError):
    """A term of the loss, or a weight, is no longer finite."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass
class Place:
    """How far a run has come: the next step to take, and what early stopping remembers.

    `seconds`, `waited` (for data) and `images` are those of the running epoch.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    best: float = inf
    since: int = 0
    stopped: bool = False
    seconds: float = 0.0
    waited: float = 0.0
    images: int = 0
    history: list[Record] = field(default_factory=list)


@dataclass
class Trainer:
    """Run stages in their order.

    Several processes run it at once, each with its share of every joint batch, and end in the same
    weights. The first one judges, writes, and tells its watchers.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric, optional
        Device, precision and processes. Default: one CPU process in float32.
    checkpoint : Path, optional
        Folder written after every epoch, every `save_seconds`, and when stopped; a run that finds
        it goes on from there, to the same bits.
    watch : sequence of Watcher
    stop : callable () -> bool
        Asked after every step; True ends the run with `Interrupted`.
    save_seconds : float
        Time between two checkpoints within an epoch.
    monitors : sequence of callable (module) -> mapping of str to float
        Judge the module after every epoch, in evaluation mode, beside what a learner judges it by.
    """

    fabric: "Fabric | None" = None
    checkpoint: Path | None = None
    watch: Sequence[Watcher] = ()
    stop: Callable[[], bool] = lambda: False
    save_seconds: float = 300.0
    monitors: Sequence[Monitor] = ()

    def run(
        self,
        module: nn.Module,
        stages: Sequence[Stage],
        data: Data,
        *,
        seed: int,
        monitor: Monitor | None = None,
    ) -> list[Record]:
        """Train `module` in place; the caller's random stream is left as it was.

        Parameters
        ----------
        module : nn.Module
            The root: its state is what a checkpoint keeps.
        stages : sequence of Stage
        data : Data
        seed : int
            With the place in the run, it decides every draw.
        monitor : callable (module) -> mapping of str to float, optional
            Judges the module after every epoch, as `monitors` do.

        Returns
        -------
        list of dict
            A record an epoch: stage, epoch, seconds, terms, what the monitor said.

        Raises
        ------
        Diverged
            At the end of an epoch with a term that is not finite; the checkpoint of the epoch
            before is kept.
        Interrupted
            When `stop` said so.
        InputError
            If a stage stops early and no monitor tells it when.
        """
        monitors = [*([] if monitor is None else [monitor]), *self.monitors]
        for stage in stages:
            if stage.early_stopping is not None and monitor is None:
                raise InputError(
                    f"stage {stage.name!r} stops early on {stage.early_stopping.metric}, and there "
                    "are no validation images; give some, or leave patience out"
                )
        fabric = self.fabric or one_process()
        saved = checkpoint.read(self.checkpoint) if self.checkpoint else None
        state, place = (saved[0], Place(**saved[1])) if saved else (None, Place())
        # All of it: a stage may move a part, and what judges it looks at the whole.
        module.to(fabric.device)
        with streams_kept(fabric.device):
            if state is not None:
                module.load_state_dict(state["module"])
            watch = self.watch if fabric.is_global_zero else ()
            for watcher in watch:
                watcher.begin(stages, place.history)
            try:
                while place.stage < len(stages):
                    stage = stages[place.stage]
                    leg = _Leg(self, fabric, watch, module, stage, data, seed, monitors, place)
                    leg.run(state)
                    state = None
                    place = Place(stage=place.stage + 1, history=place.history)
            finally:
                for watcher in watch:
                    watcher.end()
        return place.history


def one_process() -> "Fabric":
    """Return a Fabric of one CPU process in float32."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


@dataclass
class _Leg:
    """One stage on its way."""

    trainer: Trainer
    fabric: "Fabric"
    watch: Sequence[Watcher]
    module: nn.Module
    stage: Stage
    data: Data
    seed: int
    monitors: Sequence[Monitor]
    place: Place
    sums: dict[str, Tensor] = field(default_factory=dict)  # terms of the running epoch
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    best: dict[str, Tensor] | None = None  # weights, where early stopping looks

    def run(self, state: Mapping[str, Any] | None) -> None:
        """Run the stage, or the rest of it from a checkpoint's `state`."""
        self.processes = Processes.of(self.fabric)
        self.reseed = reseeder(self.fabric.device)
        if state is None:
            self.reseed(key(self.seed, self.place.stage, "prepare"))
            self.stage.prepare()
        for update in self.stage.updates:
            update.start(self.fabric)
        if state is not None:
            for update, saved in zip(self.stage.updates, state["updates"], strict=True):
                update.load_state_dict(saved)
            self.sums = {
                name: self.processes.returned(total).to(self.fabric.device)
                for name, total in state["sums"].items()
            }
            self.counts.update(state["counts"])
            self.best = state["best"]
        self.saved_at = time.monotonic()
        try:
            while self.place.epoch < self.stage.epochs and not self.place.stopped:
                self.epoch()
        finally:
            for update in self.stage.updates:
                update.finish()
            self.module.eval()
        if self.best is not None:
            self.module.load_state_dict(self.best)
        self.processes.copy_statistics(self.module)

    def epoch(self) -> None:
        """Take the steps of one epoch, record it, and write the checkpoint."""
        stage, place = self.stage, self.place
        self.module.eval()  # what this stage does not move stands still, batch norm too
        self.reseed(key(self.seed, place.stage, place.epoch, "begin"))
        for update in stage.updates:
            update.begin_epoch()
        if stage.before_epoch is not None:
            stage.before_epoch(place.epoch)
        device = self.data.y.device
        order = torch.Generator(device).manual_seed(
            key(self.seed, place.stage, place.epoch, "rows")
        )
        batches = stage.sampler(self.data.y, stage.batch_size, order)
        while place.step < len(batches):
            began = time.perf_counter()
            rows, share = self.processes.own(batches[place.step])
            batch = self.take(rows)
            place.waited += time.perf_counter() - began
            with share:
                self.step(batch, (place.epoch + place.step / len(batches)) / stage.epochs)
            n_images = len(batches[place.step])
            place.step += 1
            place.images += n_images
            place.seconds += time.perf_counter() - began
            for watcher in self.watch:
                watcher.step(place, len(batches), n_images)
            stopped, due = self.processes.asked(
                place.step, len(batches), self.trainer.stop, self.is_due
            )
            if stopped or due:
                self.save_if_finite()
            if stopped:
                raise Interrupted(f"stage {stage.name!r}, epoch {place.epoch + 1}")
        self.end_epoch()

    def is_due(self) -> bool:
        """Say whether the last checkpoint is old."""
        return time.monotonic() - self.saved_at > self.trainer.save_seconds

    def end_epoch(self) -> None:
        """Record the epoch, and write the checkpoint if all is finite."""
        place, facts = self.place, {}
        self.reseed(key(self.seed, place.stage, place.epoch, "end"))
        for update in self.stage.updates:
            facts.update(update.end_epoch())
        terms = self.means()
        seconds = max(place.seconds, 1e-9)  # an epoch may have no step
        record: Record = {
            "stage": self.stage.name,
            "epoch": place.epoch,
            "seconds": place.seconds,
            "images_per_second": place.images / seconds,
            "waiting": place.waited / seconds,
            **facts,
            **terms,
        }
        broken = self.processes.agree(lambda: self.not_finite(terms))
        if broken is None:
            record |= self.judge()
            place.history.append(record)
            place.epoch, place.step, self.sums = place.epoch + 1, 0, {}
            place.seconds, place.waited, place.images = 0.0, 0.0, 0
            self.counts.clear()
            self.save()
        for watcher in self.watch:
            watcher.epoch(record)
        if broken is not None:
            where = f"stage {self.stage.name!r}, epoch {record['epoch'] + 1}"
            raise Diverged(f"{where}: {broken}; try a smaller learning rate")

    def take(self, rows: Tensor) -> Batch:
        """Return the batch of these rows, as the stage sees it."""
        batch = self.data.take(rows)
        if batch.x.device != self.fabric.device:
            batch = Batch(*(part.to(self.fabric.device) for part in batch))
        self.reseed(self.own_key("view"))
        with torch.no_grad():
            return self.stage.view(batch)

    def own_key(self, who: int | str) -> int:
        """Return the key of what this process draws for its rows in this step."""
        place, rank = self.place, self.processes.rank
        counters = (self.seed, place.stage, place.epoch, place.step, who)
        return key(*counters, rank) if rank else key(*counters)

    def step(self, batch: Batch, progress: float) -> None:
        """Give a batch to each update, and add its terms up on the device."""
        place = self.place
        for number, update in enumerate(self.stage.updates):
            if place.step % update.every == 0:
                self.reseed(self.own_key(number))
                for term, value in update.step(batch, progress).items():
                    name = f"{update.name}/{term}"
                    if name in self.sums:
                        self.sums[name].add_(value.detach())
                    else:
                        self.sums[name] = value.detach().to(torch.float32, copy=True)
                    self.counts[name] += 1

    def means(self) -> dict[str, float]:
        """Return each term as a mean over the steps of this epoch so far, and over processes."""
        sums = self.processes.mean(self.sums)
        return {name: float(total) / self.counts[name] for name, total in sums.items()}

    def not_finite(self, terms: Mapping[str, float]) -> str | None:
        """Say which term, or else which weight, is not finite; None where all are."""
        for name, mean in terms.items():
            if not isfinite(mean):
                return f"{name} is {mean}"
        for name, value in self.module.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                return f"{name} is not finite"
        return None

    def judge(self) -> Mapping[str, float]:
        """Ask the monitors, and let early stopping remember what it said."""
        rule, place = self.stage.early_stopping, self.place
        said: dict[str, float] = {}
        self.module.eval()
        with ExitStack() as stack, torch.no_grad():
            for update in self.stage.updates:
                stack.enter_context(update.evaluating())
            for monitor in self.monitors:
                self.reseed(key(self.seed, place.stage, place.epoch, "judge"))
                said |= self.processes.agree(partial(monitor, self.module))
            if rule is not None:
                if rule.metric not in said:
                    raise InputError(
                        f"stage {self.stage.name!r} stops early on {rule.metric}, which these "
                        f"validation images do not tell (they tell {', '.join(said) or 'nothing'});"
                        " give labeled ones, or leave patience out"
                    )
                place.since += 1
                if said[rule.metric] < place.best:
                    place.best, place.since = said[rule.metric], 0
                    self.best = {k: v.clone() for k, v in self.module.state_dict().items()}
                place.stopped = place.since >= rule.patience
        return said

    def save_if_finite(self) -> None:
        """Write the checkpoint within an epoch; one that is broken must not replace a good one."""
        self.saved_at = time.monotonic()
        if self.trainer.checkpoint is None:
            return
        terms = self.means()
        if self.processes.agree(lambda: self.not_finite(terms)) is None:
            self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        self.saved_at = time.monotonic()
        if self.trainer.checkpoint is None:
            return
        state = {
            "module": self.module.state_dict(),
            "updates": [update.state_dict() for update in self.stage.updates],
            "sums": {name: self.processes.gather(own[None]) for name, own in self.sums.items()},
            "counts": dict(self.counts),
            "best": self.best,
        }
        if self.processes.first:
            checkpoint.write(self.trainer.checkpoint, state, asdict(self.place))
