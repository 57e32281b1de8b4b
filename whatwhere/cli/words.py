"""What commands say: on stdout what they found, on stderr what they do."""

import errno
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from whatwhere.train.trainer import Watcher

BROKEN, MENDABLE, STOPPED = 1, 2, 130
USERS_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOENT),
)
"""What the system refuses and the user can mend."""


class Ended(Exception):
    """The command ends early, with one line and an exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def tell(line: str) -> None:
    """Say on stderr what is being done."""
    typer.echo(line, err=True)


def watch(name: str) -> list["Watcher"]:
    """Return the progress line of a run or a cell."""
    from whatwhere.train.progress import ProgressLine

    return [ProgressLine(name)]


@contextmanager
def told_to_stop(folder: Path, way: str) -> Iterator[None]:
    """End the command with 130 after Ctrl-C, saying what is kept and how to go on."""
    from whatwhere import runs
    from whatwhere.experiments.starting import Lost
    from whatwhere.train.trainer import Diverged, Interrupted

    try:
        yield
    except KeyboardInterrupt:  # while it reads, judges or draws
        if not folder.is_dir():
            raise
        raise Ended(f"stopped; {folder} keeps what was written; {way}", STOPPED) from None
    except Interrupted as place:
        raise Ended(
            f"stopped in {place}; {folder} keeps what was learned; {way}", STOPPED
        ) from None
    except Diverged as broken:
        kept = f"; {folder} keeps the epoch before" if runs.has_checkpoint(folder) else ""
        raise Ended(f"training diverged: {broken}{kept}", MENDABLE) from None
    except Lost as lost:
        kept = "keeps the last checkpoint" if runs.has_checkpoint(folder) else "has none yet"
        raise Ended(
            f"{lost}, and the others were stopped; {folder} {kept}; {way}", BROKEN
        ) from None
    except OSError as error:
        if error.errno not in USERS_ERRORS or not folder.is_dir():
            raise
        raise Ended(f"{reason(error)}; mend that, and then {way}", MENDABLE) from None


def reason(error: OSError) -> str:
    """Say what the system refused, and where."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def typed() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["whatwhere", *sys.argv[1:]])


def names(text: str) -> list[str]:
    """Split a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def lines_of(told: Mapping[str, Any]) -> Iterator[str]:
    """Say what an evaluation found, a line each."""
    if told["error"] is not None:
        low, high = told["interval"]
        by = (
            f" by a {told['probe']} probe with {told['n_labeled']} labels"
            if "probe" in told
            else ""
        )
        yield f"error {told['error']:.2f} % (95 % interval {low:.2f} to {high:.2f}){by}"
    balanced = told.get("balanced_error")
    if balanced is not None and f"{balanced:.2f}" != f"{told['error']:.2f}":
        yield f"mean of the classes' errors {balanced:.2f} %"
    if (found := told.get("calibration")) is not None:
        before = ""
        if found["n_validation"]:
            before = (
                f" ({found['error_before']:.1f} before they were calibrated on "
                f"{found['n_validation']} validation images)"
            )
        yield f"probabilities: off by {found['error']:.1f} points on average{before}"
    if told.get("reconstruction_mse") is not None:
        image = told.get("reconstruction_sse")  # runs of older versions have none
        summed = "" if image is None else f", {image:.2f} summed over an image"
        yield f"reconstruction: squared error a pixel {told['reconstruction_mse']:.5f}{summed}"
    if told.get("log_likelihood") is not None:
        yield f"log-likelihood {told['log_likelihood']:.2f} nats an image"
        yield f"  {told['log_likelihood_how']}"
    for floor in told.get("floors") or ():
        low, high = floor["interval"]
        yield f"{floor['name']}: error {floor['error']:.2f} % ({low:.2f} to {high:.2f})"
    if all(told.get(name) is None for name in ("error", "reconstruction_mse", "log_likelihood")):
        yield "no classifier and no reconstruction; whatwhere probe RUN judges its features"


def say_run(run: Path) -> None:
    """Say what a finished run reached, and write its report; of several processes, one does."""
    from whatwhere import runs
    from whatwhere.experiments.starting import is_first

    if not is_first():
        return

    told = json.loads((run / runs.EVALUATION).read_text(encoding="utf-8"))
    if told:
        typer.echo(f"{told['n']} test images")
        for line in lines_of(told):
            typer.echo(line)
    else:
        typer.echo(
            "nothing was measured: the data have no test part; --test-fraction F cuts one off"
        )
    typer.echo(f"run in {run}")
    say_report(run)


def say_report(folder: Path) -> None:
    """Write the report of a folder, and say where it is."""
    from whatwhere import report as room

    typer.echo(f"report in {room.write(folder)}")
