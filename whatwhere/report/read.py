"""What a folder on disk holds, as far as a report needs it.

Only `config.json` (or `table.json`) must be there and whole. Everything else may be missing or cut
short, because a run may have been killed while it was written: what could not be read is listed in
`problems`, and the page says so.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from PIL import Image

from whatwhere import runs
from whatwhere.core import InputError

TABLE = "table.json"

VALIDATION, GRADIENT = "validation/", "gradient/"
"""Begin the names of what a monitor says, and of what `train.gradients` measures."""

DEPTH = 3
"""How many folders below a comparison its runs may lie."""


@dataclass(frozen=True)
class Epoch:
    """One line of `metrics.jsonl`.

    Attributes
    ----------
    stage : str
        Name of the stage.
    number : int
        From 0, within the stage.
    values : dict of str to float
        Every number of the line by its key; NaN where a null or an unreadable number stood.
    """

    stage: str
    number: int
    values: dict[str, float]

    @property
    def terms(self) -> dict[str, float]:
        """What the updates told of their steps, by name: ``loss/nll``, ``likelihood/gap``."""
        others = (VALIDATION, GRADIENT)
        return {k: v for k, v in self.values.items() if "/" in k and not k.startswith(others)}

    def broken_terms(self) -> list[str]:
        """Return the names of the terms that are not finite, without that of their update."""
        return [key.partition("/")[2] for key, v in self.terms.items() if not isfinite(v)]


@dataclass(frozen=True)
class Panel:
    """A picture of `panels/` with its words.

    Attributes
    ----------
    name, title, caption : str
        File name without its ending, heading, and the sentence that says what to see.
    order : float
        Pictures are shown from the lowest to the highest.
    png : bytes
        The file as it is.
    width, height : int
        Pixels.
    rows : list of dict
        What the picture shows, one by one, where the panel says so (the mistakes).
    kind : str
        What the page makes of it: "map", "worth_labelling", or "" for a plain picture.
    words : dict
        The whole of its JSON.
    """

    name: str
    title: str
    caption: str
    order: float
    png: bytes
    width: int
    height: int
    rows: list[dict[str, Any]]
    kind: str = ""
    words: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What a run folder holds.

    Attributes
    ----------
    path : Path
        The folder, as the caller named it.
    config : dict
        `config.json`.
    epochs : list of Epoch
        In the order of training; of an epoch that was run twice, the later line.
    evaluation : dict
        `evaluation.json`; empty where there is none.
    panels : list of Panel
        In the order of showing.
    has_weights, has_checkpoint : bool
        Whether `model.safetensors` and a checkpoint are there.
    has_label_next : bool
        Whether the run names images to label next, in `label-next.csv`.
    problems : list of str
        What could not be read, a sentence each.
    """

    path: Path
    config: dict[str, Any]
    epochs: list[Epoch] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    panels: list[Panel] = field(default_factory=list)
    has_weights: bool = False
    has_checkpoint: bool = False
    has_label_next: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages of the plan."""
        return dicts(self.config.get("stages"))

    @property
    def planned(self) -> dict[str, int]:
        """Epochs of the plan by stage."""
        return {str(s.get("name", "")): _count(s.get("epochs")) for s in self.stages}

    @property
    def done(self) -> dict[str, int]:
        """Recorded epochs by stage."""
        done = dict.fromkeys(self.planned, 0)
        for epoch in self.epochs:
            done[epoch.stage] = done.get(epoch.stage, 0) + 1
        return done

    @property
    def state(self) -> str:
        """One of "diverged", "unfinished" (a checkpoint waits for more) and "finished"."""
        if self.epochs and self.epochs[-1].broken_terms():
            return "diverged"
        if self.evaluation or (self.has_weights and not self.has_checkpoint):
            return "finished"
        return "unfinished"


@dataclass
class Comparison:
    """What a folder with several runs, or with a table over runs, holds.

    Attributes
    ----------
    path : Path
        The folder, as the caller named it.
    table : dict
        `table.json`; empty where there is none.
    runs : list of Run
        The runs of the sub-folders, without their pictures.
    problems : list of str
        Sub-folders that look like runs and could not be read, a sentence each.
    """

    path: Path
    table: dict[str, Any]
    runs: list[Run]
    problems: list[str]


def read(path: Path) -> Run | Comparison:
    """Read the folder at `path`.

    Parameters
    ----------
    path : Path
        A run folder (`config.json`), a comparison (`table.json`), or a folder above run folders.

    Returns
    -------
    Run or Comparison
        Whichever the folder is; a folder with both files is a comparison.

    Raises
    ------
    InputError
        If there is no such folder, if it is neither of these, or if it was written in a format
        that is not known here.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"no folder at {path}: give the folder that `whatwhere fit` or `whatwhere compare` "
            "wrote (its --out)"
        )
    if not (path / TABLE).is_file() and (path / runs.CONFIG).is_file():
        return read_run(path)
    return read_comparison(path)


def read_run(path: Path, panels: bool = True) -> Run:
    """Read one run folder.

    Parameters
    ----------
    path : Path
        The folder.
    panels : bool
        Whether to read its pictures.

    Returns
    -------
    Run
        What is there.

    Raises
    ------
    InputError
        If `config.json` cannot be read or has an unknown format.
    """
    run = Run(path, runs.read_config(path))
    run.epochs = _epochs(path / runs.METRICS, list(run.planned), run.problems)
    try:
        run.evaluation = _object(path / runs.EVALUATION)
    except FileNotFoundError:
        pass
    except InputError as error:
        run.problems.append(f"Left out: {error}.")
    if panels:
        run.panels = sorted(
            _panels(path / runs.PANELS, run.problems), key=lambda panel: (panel.order, panel.name)
        )
    run.has_weights = (path / runs.WEIGHTS).is_file()
    run.has_checkpoint = (path / runs.CHECKPOINT).exists()
    run.has_label_next = (path / runs.LABEL_NEXT).is_file()
    return run


def read_comparison(path: Path) -> Comparison:
    """Read a comparison: its table where it has one, and the runs below it.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    Comparison
        What is there.

    Raises
    ------
    InputError
        If there is neither a table nor a run, or if the table cannot be read.
    """
    table = _table(path / TABLE) if (path / TABLE).is_file() else {}
    found: list[Run] = []
    problems: list[str] = []
    for folder in _run_folders(path, DEPTH):
        try:
            found.append(read_run(folder, panels=False))
        except InputError as error:
            problems.append(f"Left out: {error}.")
    if not table and not found:
        if problems:
            raise InputError(problems[0].removeprefix("Left out: ").removesuffix("."))
        raise InputError(
            f"{path} is no run folder: it has no config.json (a run), no table.json (a comparison) "
            "and no run folders below; give the --out of `whatwhere fit` or `whatwhere compare`"
        )
    return Comparison(path, table, found, problems)


def _run_folders(path: Path, depth: int) -> Iterator[Path]:
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if (folder / runs.CONFIG).is_file():
            yield folder
        elif depth > 1:
            yield from _run_folders(folder, depth - 1)


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also covers bytes that are no UTF-8
        raise InputError(f"{path} is not whole JSON ({error}): restore or remove it") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not an object: restore it")
    return value


def _table(path: Path) -> dict[str, Any]:
    table = _object(path)
    found = table.get("format", runs.FORMAT)
    if found != runs.FORMAT:
        raise InputError(
            f"{path} has format {found!r}, and this version reads {runs.FORMAT}; "
            "use the whatwhere version that wrote it"
        )
    return table


def _epochs(path: Path, stages: list[str], problems: list[str]) -> list[Epoch]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs: dict[tuple[str, int], Epoch] = {}
    unreadable = 0
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            stage, number = str(record.get("stage", "")), int(record.get("epoch", place))
        except (ValueError, TypeError, AttributeError):
            # A process killed while writing leaves half a last line, which is no damage.
            unreadable += place < len(lines) - 1
            continue
        values = {
            key: _number(value)
            for key, value in record.items()
            if key not in ("stage", "epoch") and not isinstance(value, dict | list)
        }
        epochs[stage, number] = Epoch(stage, number, values)
    if unreadable:
        problems.append(f"Left out: {unreadable} unreadable lines of {path.name}.")
    known = {name: i for i, name in enumerate(stages)}
    for stage, _ in epochs:
        known.setdefault(stage, len(known))
    return sorted(epochs.values(), key=lambda epoch: (known[epoch.stage], epoch.number))


def _panels(folder: Path, problems: list[str]) -> Iterator[Panel]:
    for path in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        words: dict[str, Any] = {}
        try:
            with Image.open(path) as image:
                width, height = image.size
            if path.with_suffix(".json").is_file():
                words = _object(path.with_suffix(".json"))
        except OSError:
            problems.append(f"Left out: the picture {path.name}, which is not a whole PNG.")
            continue
        except InputError as error:
            problems.append(f"Without its words: the picture {path.name} ({error}).")
        order = _number(words.get("order"))
        yield Panel(
            name=path.stem,
            title=str(words.get("title") or path.stem.replace("_", " ").capitalize()),
            caption=str(words.get("caption") or ""),
            order=order if isfinite(order) else float("inf"),
            png=path.read_bytes(),
            width=width,
            height=height,
            rows=dicts(words.get("rows")),
            kind=str(words.get("kind") or ""),
            words=words,
        )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _count(value: Any) -> int:
    number = _number(value)
    return int(number) if isfinite(number) else 0


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list that a file holds; none where it is no list."""
    items: Iterable[Any] = value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]
