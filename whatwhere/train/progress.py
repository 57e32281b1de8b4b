"""Watchers: the progress line on stderr, and the metrics file."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Place, Record

REFRESH = 0.25  # seconds between two refreshes of the line


def told(record: Record) -> str:
    """Return what an epoch recorded, as one line of plain text."""
    place = f"{record['stage']} epoch {record['epoch'] + 1}"
    known = ("stage", "epoch", "seconds", "images_per_second", "waiting", "learning_rate")
    values = [
        f"{name.removeprefix('loss/')} {value:.4g}"
        for name, value in record.items()
        if name not in known
    ]
    speed = f"{record['images_per_second']:.0f} images/s, {record['waiting']:.0%} waiting for data"
    return f"{place}: {', '.join([*values, speed])}"


@dataclass
class ProgressLine:
    """Says on stderr how far training is: a live line on a terminal, else a line an epoch."""

    name: str = ""

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Open the line, with what was done before."""
        self.stages = list(stages)
        self.total = sum(stage.epochs for stage in stages)
        self.said = told(history[-1]) if history else ""
        self.seen, self.since, self.next = 0, time.perf_counter(), 0.0
        self.console = Console(stderr=True)
        self.live = None
        if self.console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[speed]}"),
                console=self.console,
                transient=False,
            )
            self.task = self.live.add_task(self.name or "training", total=self.total, speed="")
            self.live.start()

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Move the line, a few times a second."""
        if self.live is None:
            return
        self.seen += n_images
        now = time.perf_counter()
        if now < self.next:
            return
        self.next = now + REFRESH
        before = sum(stage.epochs for stage in self.stages[: place.stage])
        stage = self.stages[place.stage]
        epoch = f"{stage.name}, epoch {place.epoch + 1} of {stage.epochs}"
        self.live.update(
            self.task,
            completed=before + place.epoch + place.step / n_steps,
            description=f"{self.name} {epoch}".strip(),
            speed=f"{self.seen / (now - self.since):.0f} images/s",
        )

    def epoch(self, record: Record) -> None:
        """Leave a line for the epoch."""
        if self.live is None:
            print(f"{self.name} {told(record)}".strip(), file=sys.stderr, flush=True)
        else:
            self.live.console.print(told(record), style="dim", highlight=False)

    def end(self) -> None:
        """Close the line."""
        if self.live is not None:
            self.live.stop()


@dataclass
class MetricsFile:
    """Keeps a file of records, a line an epoch, in step with the run.

    Parameters
    ----------
    rewrite : callable (records) -> None
        Makes the file anew: a resumed run drops what was written after its checkpoint.
    append : callable (record) -> None
    """

    rewrite: Callable[[Sequence[Record]], Any]
    append: Callable[[Record], Any]

    def begin(self, stages: Sequence[Stage], history: Sequence[Record]) -> None:
        """Bring the file to where the run goes on."""
        self.rewrite(history)

    def step(self, place: Place, n_steps: int, n_images: int) -> None:
        """Do nothing: a line is an epoch."""

    def epoch(self, record: Record) -> None:
        """Write one line."""
        self.append(record)

    def end(self) -> None:
        """Do nothing: every line is on disk."""
