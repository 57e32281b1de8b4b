"""What a report says in words: numbers as people write them, and the sentences of the summary."""

from collections.abc import Mapping, Sequence
from math import isfinite
from shlex import quote
from typing import Any, TypeGuard

from whatwhere.report.read import Comparison, Run


def thousands(value: Any) -> str:
    """Write a count: ``60000`` as ``60,000``; a dash where there is none."""
    return f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)


def plain(value: Any) -> str:
    """Write a setting as it was given: numbers exactly, lists by commas, None as none."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def measure(value: Any) -> str:
    """Write what was measured: floats to four digits, counts with commas."""
    return f"{value:.4g}" if isinstance(value, float) else thousands(value)


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """Write a number with a true minus sign: ``-0.3`` as ``−0.30``."""
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def percent(value: float, digits: int = 2) -> str:
    """Write a percentage whose sign does not drift to the next line: ``9.04 %``."""
    return f"{number(value, digits)}\N{NO-BREAK SPACE}%"


def span(interval: Any, digits: int = 2) -> str:
    """Write an interval: ``[8.4, 9.6]`` as ``8.40 to 9.60``; nothing where there is none."""
    ends = interval_of(interval)
    return f"{number(ends[0], digits)} to {number(ends[1], digits)}" if ends else ""


def interval_of(value: Any) -> tuple[float, float] | None:
    """Return the two ends if `value` is a pair of finite numbers, else None."""
    if isinstance(value, Sequence) and len(value) == 2:
        low, high = value
        if is_number(low) and is_number(high):
            return float(low), float(high)
    return None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def duration(seconds: float) -> str:
    """Write a time: ``47 s``, ``12 min 30 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def many(n: Any, noun: str, plural: str = "") -> str:
    """Write a count with its noun: ``1 epoch``, ``10 epochs``, ``no labels``."""
    if n == 0:
        return f"no {plural or noun + 's'}"
    return f"{thousands(n)} {noun if n == 1 else plural or noun + 's'}"


def listed(items: Sequence[str]) -> str:
    """Join items as a sentence does: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def image(shape: Any) -> str:
    """Say what a shape (C, H, W) is: ``28 × 28 pixels, gray``."""
    if not isinstance(shape, Sequence) or len(shape) != 3:
        return plain(shape)
    channels, height, width = shape
    colors = {1: "gray", 3: "color"}.get(channels, f"{channels} channels")
    return f"{height} × {width} pixels, {colors}"


def digits_of(evaluation: Mapping[str, Any]) -> int:
    """Return how many decimals of a percentage the number of test images bears."""
    n = evaluation.get("n")
    return 1 if is_number(n) and isinstance(n, int) and n < 2000 else 2


def summary(run: Run) -> list[str]:
    """Say what the run was and what came out, for someone who knows nothing of it.

    Parameters
    ----------
    run : Run
        What was read.

    Returns
    -------
    list of str
        Sentences, that is one paragraph.
    """
    return [*_training(run), *_place(run), *_result(run)]


def _training(run: Run) -> list[str]:
    data, spec = _part(run, "data"), _part(run, "spec")
    n, labeled = data.get("n_train", spec.get("n_samples")), data.get("n_labeled")
    classes = run.config.get("classes") or []
    said = f"The model {run.config.get('model', 'of unknown name')} was trained on "
    said += (
        f"{'images' if n is None else many(n, 'image')} of {data.get('name', 'a set without name')}"
    )
    if spec.get("shape"):
        said += f" ({image(spec['shape'])})"
    if not labeled:
        return [said + " without any labels: it learned to describe images, not to name classes."]
    known = f", each with a label ({many(len(classes), 'class', 'classes')})."
    if isinstance(n, int) and isinstance(labeled, int) and labeled < n:
        known = (
            f". Only {thousands(labeled)} of them came with a label "
            f"({many(len(classes), 'class', 'classes')}); "
            f"of the other {thousands(n - labeled)} it saw the image alone."
        )
    return [said + known]


def _place(run: Run) -> list[str]:
    done, planned = sum(run.done.values()), sum(run.planned.values())
    if run.state == "diverged":
        last = run.epochs[-1]
        return [
            f"Training diverged: in epoch {last.number + 1} of stage {last.stage}, "
            f"{listed(last.broken_terms())} was no longer a finite number."
        ]
    if run.state == "unfinished":
        if not done:
            return ["Training is not finished: no epoch is recorded."]
        return [f"Training is not finished: {done} of {many(planned, 'epoch')} are recorded."]
    return []


def _result(run: Run) -> list[str]:
    evaluation, digits = run.evaluation, digits_of(run.evaluation)
    error = evaluation.get("error")
    if not is_number(error):
        mse = evaluation.get("reconstruction_mse")
        if is_number(mse):
            seen = f"On {many(evaluation.get('n'), 'image')} that it had never seen"
            return [
                f"{seen}, what it rebuilds from its own description differs from the image by a "
                f"mean squared error of {measure(mse)} a pixel (pixels run from 0 to 1)."
            ]
        if run.state != "finished":
            return ["It has not been measured on test images."]
        if not _part(run, "data").get("n_test"):
            return ["The data have no test part, so nothing was measured on unseen images."]
        return ["It has not been measured on the test images yet."]
    said = (
        f"Of {many(evaluation.get('n'), 'test image')} that it had never seen, it gives "
        f"{percent(error, digits)} a wrong class"
    )
    if interval_of(evaluation.get("interval")):
        said += f" (95 % interval: {span(evaluation['interval'], digits)}\N{NO-BREAK SPACE}%)"
    sentences = [said + "."]
    floors = usable_floors(evaluation)
    if floors:
        others = listed(
            [
                f"{floor['name']} with {percent(floor['error'], digits)}"
                + (
                    f" ({span(floor['interval'], digits)}\N{NO-BREAK SPACE}%)"
                    if floor["interval"]
                    else ""
                )
                for floor in floors
            ]
        )
        sentences.append(f"Simpler methods to hold that against: {others}.")
        own = interval_of(evaluation.get("interval"))
        sentences += _verdict(own, floors) if own else []
    return sentences


def usable_floors(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the floors that have an error: name, error (percent) and interval or None."""
    floors = evaluation.get("floors")
    return [
        {
            "name": str(floor.get("name", "unnamed")),
            "error": float(floor["error"]),
            "interval": interval_of(floor.get("interval")),
        }
        for floor in (floors if isinstance(floors, list) else [])
        if isinstance(floor, dict) and is_number(floor.get("error"))
    ]


def _verdict(own: tuple[float, float], floors: list[dict[str, Any]]) -> list[str]:
    """Say which floors this run's interval lies clear of, and on which side."""
    known = [floor for floor in floors if floor["interval"]]
    worse = [f["name"] for f in known if f["interval"][0] > own[1]]
    better = [f["name"] for f in known if f["interval"][1] < own[0]]
    open_ = [f["name"] for f in known if f["name"] not in worse + better]
    sentences = []
    if better:
        sentences.append(f"This model does worse than {listed(better)}.")
    if open_:
        sentences.append(
            f"The intervals of this model and of {listed(open_)} overlap: "
            "this run alone does not tell them apart."
        )
    if worse and not better and not open_:
        both = "Its interval lies below theirs" if len(worse) > 1 else "Its interval lies below"
        sentences.append(f"{both}, so the test images do tell them apart.")
    return sentences


def _part(run: Run, name: str) -> dict[str, Any]:
    value = run.config.get(name)
    return value if isinstance(value, dict) else {}


def advice(run: Run) -> str:
    """Say what to try after a run diverged."""
    rate = _part(run, "params").get("learning_rate")
    lower = f"--set learning_rate={rate / 4:.2g}" if is_number(rate) else "a smaller learning rate"
    kept = " The last good checkpoint is kept in this folder." if run.has_checkpoint else ""
    return (
        f"The first thing to try: the command at the end of this page with {lower} "
        f"and another --out.{kept}"
    )


def commands(run: Run) -> list[tuple[str, str]]:
    """Return the next commands for this run, each with what it is for.

    Parameters
    ----------
    run : Run
        What was read.

    Returns
    -------
    list of (purpose, command)
        Only what this run can do: no prediction without classes, no resuming of a finished run.
    """
    path, data = quote(str(run.path)), _part(run, "data")
    name = quote(str(data.get("name", "DATA")))
    model = quote(str(run.config.get("model", "NAME")))
    finished = run.state == "finished"
    found: list[tuple[str, str]] = []
    if run.state == "unfinished" and run.has_checkpoint:
        found.append(("Go on where it stopped", f"whatwhere fit --resume {path}"))
    if run.has_weights or finished:
        if data.get("n_labeled"):
            if data.get("n_test"):
                found.append(("Measure it on the test images", f"whatwhere evaluate {path}"))
            else:
                found.append(
                    ("Measure it on other images with labels", f"whatwhere evaluate {path} FOLDER")
                )
            found.append(
                (
                    "Name the classes of your own images",
                    f"whatwhere predict {path} FOLDER --out predictions.csv",
                )
            )
        else:
            found.append(
                (
                    "Measure what its embedding is worth, with 100 labels",
                    f"whatwhere evaluate {path} --probe linear --labels 100",
                )
            )
        found.append(
            (
                "Turn images into vectors, for search or clustering",
                f"whatwhere embed {path} FOLDER --out embeddings.npz",
            )
        )
        if _reconstructs(run):
            found.append(
                (
                    "See images beside their reconstructions",
                    f"whatwhere reconstruct {path} FOLDER --out reconstructions.png",
                )
            )
        found.append(
            (
                "Train on from these weights, for instance when there are more labels",
                f"whatwhere fit {name} --model {model} --from {path}",
            )
        )
    found.append(("Make this page again", f"whatwhere report {path}"))
    return found


def _reconstructs(run: Run) -> bool:
    losses = {key for epoch in run.epochs for key in epoch.values if key.startswith("loss/")}
    return (
        is_number(run.evaluation.get("reconstruction_mse"))
        or any(panel.name == "reconstructions" for panel in run.panels)
        or any("reconstruction" in key for key in losses)
    )


def differences(comparison: Comparison) -> list[str]:
    """Say of each paired difference whether its interval leaves zero out.

    Parameters
    ----------
    comparison : Comparison
        What was read.

    Returns
    -------
    list of str
        One sentence a row of differences.
    """
    columns = [str(column) for column in comparison.table.get("columns") or []]
    sentences = []
    for row in comparison.table.get("differences") or []:
        if not isinstance(row, dict):
            continue
        clear, open_ = [], []
        for column, cell in zip(columns, row.get("cells") or [], strict=False):
            ends = interval_of(cell.get("interval")) if isinstance(cell, dict) else None
            if ends:
                (clear if ends[0] > 0 or ends[1] < 0 else open_).append(column)
        if clear or open_:
            parts = [f"is clear of zero at {listed(clear)}"] if clear else []
            parts += [f"includes zero at {listed(open_)}"] if open_ else []
            sentences.append(f"The interval of “{row.get('label')}” {', and '.join(parts)}.")
    return sentences
