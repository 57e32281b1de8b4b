"""Tables before they are run: which cells there are, how one is run, what a column reads of it."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from whatwhere import models
from whatwhere.experiments.fitting import fit_images
from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.stopping import stoppable

if TYPE_CHECKING:
    from whatwhere.learner import Learner
    from whatwhere.train.trainer import Trainer

SVM = "svm"  # the model of a cell that fits no learner of ours
PROBE = "linear"  # what judges a learner without a classifier


class Result(NamedTuple):
    """What a cell found.

    Attributes
    ----------
    metrics : mapping
        Ready for JSON.
    curve : sequence of mapping
        The learner's history, an epoch each; empty where nothing was trained by epochs.
    """

    metrics: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]] = ()


Method = Callable[["Cell", Read, "Trainer"], Result]
"""How a cell is run: a function of a module, for cells go to other processes.

It is given the images, of which there is a test part, and what a learner trains with.
"""

Reader = Callable[[Mapping[str, Any]], float | None]
"""What a column reads from the record of a cell; None where that has no such value."""


@dataclass(frozen=True)
class Cell:
    """One method on one draw.

    Attributes
    ----------
    row, column : str
        Where its result stands in the table; see `Column` for several columns of one cell.
    draw : int
        Cells of one column and draw share their labels: differences are paired by it.
    job : Job
    budget : str
    method : Method, optional
        Default: `floor` for the model ``svm``, and `learned` for all others.
    options : mapping
        What else decides the result, ready for JSON; `method` reads it.
    """

    row: str
    column: str
    draw: int
    job: Job
    budget: str = "full"
    method: Method | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Say the cell."""
        return f"{self.row}, {self.column}, draw {self.draw}"

    @property
    def file(self) -> str:
        """The name of its record: what decides the result, and so not where the data lies."""
        decides = self.job.record() | {"data_dir": None, "budget": self.budget}
        if self.method is not None:
            decides["method"] = self.method.__name__
        if self.options:
            decides["options"] = dict(self.options)
        digest = blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=6).hexdigest()
        return f"{self.job.model}-{self.job.labels}-{self.draw}-{digest}.json"

    def check(self) -> None:
        """Check what can be checked before hours of training.

        Raises
        ------
        InputError
            Naming what is wrong with the job.
        """
        self.job.n_labels()
        self.job.n_validation()
        if self.job.model in models.CONTENTS or (self.method or self._usual) is learned:
            self.job.learner()

    def run(self, read: Read, trainer: "Trainer") -> Result:
        """Return what the method finds on the images."""
        return (self.method or self._usual)(self, read, trainer)

    @property
    def _usual(self) -> Method:
        return floor if self.job.model == SVM else learned


def learned(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner and judge it on the test part.

    One that names no classes, because it never looks at labels or saw none, is judged by a linear
    probe: logistic regression on its features, fitted to the labels that the cell shows.
    """
    from whatwhere.evaluate import judge

    assert read.test is not None
    learner = trained(cell.job, read, trainer)
    metrics = judge.evaluate(learner, read.test)
    if metrics["error"] is None and read.train.n_labeled and read.test.n_labeled:
        metrics |= judge.probe(learner, read.train, read.test, PROBE)
    return Result(metrics, learner.history_)


def floor(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Judge a support vector machine on raw pixels, fitted to the labels that are shown."""
    from whatwhere.evaluate import judge

    assert read.test is not None
    return Result(judge.floor(read.train, read.test))


def trained(job: Job, read: Read, trainer: "Trainer") -> "Learner":
    """Return the job's learner, fitted; after Ctrl-C, training ends with a checkpoint."""
    learner = job.learner()
    with stoppable() as stop:
        learner.trainer = replace(trainer, stop=stop)
        return fit_images(learner, read)


def metric(name: str) -> Reader:
    """Return what reads a metric from a record."""
    return lambda record: record["metrics"].get(name)


test_error = metric("error")


@dataclass(frozen=True)
class Column:
    """What stands in a column.

    Attributes
    ----------
    label : str
    read : Reader
        By default the test error.
    unit : str
    digits : int, optional
        Decimals; None for three significant digits, where values differ by powers of ten.
    of : str, optional
        The `column` of the cells that it reads, where several columns read the same cells. By
        default its label.
    """

    label: str
    read: Reader = test_error
    unit: str = "test error, %"
    digits: int | None = 2
    of: str | None = None

    @property
    def cells(self) -> str:
        """The `column` of the cells that it reads."""
        return self.label if self.of is None else self.of


@dataclass(frozen=True)
class Plan:
    """A table before it is run.

    Attributes
    ----------
    title, caption : str
    columns : tuple of Column or str
        A mere label stands for the test error of the cells of that column.
    cells : tuple of Cell
    published : dict
        What others reported, by (row, label of the column).
    differences : tuple of (row, row)
        Rows whose difference, first minus second, is told, paired by draw.
    notes : tuple of str
    draws : str
        What a draw is.
    intervals : bool
        Whether, as text, means stand with their 95 % interval rather than with the deviation.
    drawn : tuple of str
        Labels of the columns that figures show: a single one as dots, several of a unit joined by
        lines. Empty for all, which suits where those of a unit are a sequence.
    """

    title: str
    caption: str
    columns: tuple[Column | str, ...]
    cells: tuple[Cell, ...]
    published: Mapping[tuple[str, str], str] = field(default_factory=dict)
    differences: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    draws: str = "draws of labels and seeds"
    intervals: bool = False
    drawn: tuple[str, ...] = ()

    def part(self, rows: Collection[str]) -> "Plan":
        """Return the table with these rows alone, and the differences among them."""
        return replace(
            self,
            cells=tuple(cell for cell in self.cells if cell.row in rows),
            published={at: told for at, told in self.published.items() if at[0] in rows},
            differences=tuple(pair for pair in self.differences if {*pair} <= {*rows}),
        )

    @property
    def rows(self) -> list[str]:
        """The rows, in the order of the cells."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def measured(self) -> list[Column]:
        """The columns, with what each of them reads."""
        return [Column(one) if isinstance(one, str) else one for one in self.columns]
