"""What a report says in words: numbers as people write them, and the sentences of the summary."""

from collections.abc import Mapping, Sequence
from math import isfinite
from shlex import quote
from typing import Any, TypeGuard

from whatwhere import runs
from whatwhere.report.read import Comparison, Run

UNEVEN = 3
"""From so many times the labels of another class on, the labels are called uneven."""


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


def short(data: Any) -> str:
    """Say which set it is: its name, or the last part of its path."""
    return str(data or "unnamed data").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def image_name(row: Mapping[str, Any]) -> str:
    """Say which image a row is about: its file, or its row in the data."""
    return str(row["file"]) if row.get("file") is not None else f"row {row.get('row', '–')}"


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
    n, labeled = data.get("n_train", spec.get("n_samples")), _labels_used(run)
    classes = run.config.get("classes") or []
    said = f"The model {run.config.get('model', 'of unknown name')} was trained on "
    said += f"{'images' if n is None else many(n, 'image')} of {short(data.get('name'))}"
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


def _labels_used(run: Run) -> Any:
    """Return how many labels were shown; 0 to a learner that never looks at them."""
    if _part(run, "spec").get("n_classes") == 0:
        return 0
    return _part(run, "data").get("n_labeled")


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
        mse, seen = evaluation.get("reconstruction_mse"), _likelihood(evaluation)
        if is_number(mse):
            never = f"On {many(evaluation.get('n'), 'image')} that it had never seen"
            return [
                f"{never}, what it rebuilds from its own description differs from the image by a "
                f"mean squared error of {measure(mse)} a pixel (pixels run from 0 to 1).",
                *seen,
            ]
        if seen:
            return seen
        if run.state != "finished":
            return ["It has not been measured on test images."]
        if not _part(run, "data").get("n_test"):
            return [_validated(run)]
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


def _likelihood(evaluation: Mapping[str, Any]) -> list[str]:
    """Say how probable test images are, where that is known."""
    value = evaluation.get("log_likelihood")
    if not is_number(value):
        return []
    return [
        f"It knows how probable an image is: {number(value, 1)} nats is the mean logarithm of that "
        "over the test images, and a better model of them has a higher one."
    ]


def likelihood_note(evaluation: Mapping[str, Any]) -> str:
    """Say in a few words how far the log-likelihood is to be trusted: ``nats an image; exact``.

    Parameters
    ----------
    evaluation : mapping
        `evaluation.json`; its parts `log_partition` and `log_likelihood_how` are what is read.
    """
    said = ["nats an image"]
    found = evaluation.get("log_partition")
    value, low, high, *_ = found if isinstance(found, list) and len(found) > 2 else [None] * 3
    likelihood = evaluation.get("log_likelihood")
    if is_number(value) and is_number(likelihood):
        # The larger log Z, the smaller the likelihood.
        if low == value == high:
            said.append("log Z is exact")
        elif is_number(low) and is_number(high):
            ends = [number(likelihood + value - end, 1) for end in (high, low)]
            said.append(f"log Z is estimated, ±3 standard errors of it: {ends[0]} to {ends[1]}")
        else:
            said.append("log Z is hardly known, and likely larger: the likelihood likely lower")
    if "a lower bound" in str(evaluation.get("log_likelihood_how")):
        said.append("a lower bound")
    return "; ".join(said)


def _validated(run: Run) -> str:
    """Say what is known of a run without a test part."""
    said = "The data have no test part, so nothing was measured on unseen images"
    n = _part(run, "data").get("n_validation")
    error = run.epochs[-1].values.get("validation/error") if run.epochs else None
    if not n or not is_number(error):
        return f"{said}."
    return (
        f"{said}. After the last epoch, {percent(error, 1)} of the {many(n, 'validation image')} "
        "got a wrong class; training looked at them only to be judged and calibrated."
    )


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


def uneven_labels(run: Run) -> str:
    """Say that the labels are uneven over the classes, and what was done about it.

    Parameters
    ----------
    run : Run
        What was read.

    Returns
    -------
    str
        Empty where the class with the most labels has less than `UNEVEN` times those of the class
        with the fewest, or where the labels of each class are not known.
    """
    counts = labels_by_class(run)
    if not counts:
        return ""
    most, fewest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] < UNEVEN * counts[fewest] or counts[most] == counts[fewest]:
        return ""
    said = (
        f"The labels are uneven: {many(counts[most], 'label')} for {most}, "
        f"{thousands(counts[fewest]) if counts[fewest] else 'none'} for {fewest}. "
    )
    params = _part(run, "params")
    if params.get("class_weight") == "balanced":
        return said + "The loss weighs each class equally."
    if "class_weight" in params and params["class_weight"] is None:
        return said + (
            "The loss does not make up for it: a class with few labels counts little. "
            "To weigh each class equally, fit with --set class_weight=balanced."
        )
    return said.rstrip()


def labels_by_class(run: Run) -> dict[str, int]:
    """Return how many labels of each class training saw; empty where that is not recorded."""
    counts = _part(run, "data").get("labels_by_class")
    return {
        str(name): count
        for name, count in (counts if isinstance(counts, dict) else {}).items()
        if isinstance(count, int) and not isinstance(count, bool)
    }


def trust(evaluation: Mapping[str, Any]) -> list[str]:
    """Say how far the probabilities of the classes can be trusted.

    Parameters
    ----------
    evaluation : mapping
        `evaluation.json`; its part `calibration` is what is read.

    Returns
    -------
    list of str
        Sentences; none where it was not measured.
    """
    found = evaluation.get("calibration")
    if not isinstance(found, dict):
        return []
    error, before = found.get("error"), found.get("error_before")
    temperature, n = found.get("temperature"), found.get("n_validation")
    sentences = []
    if is_number(error):
        sentences.append(
            "Test images predicted with about the same probability were put together, and that "
            "probability held against the share of them that is right. "
            f"On average the probabilities are off by {number(error, 1)} points (0 is perfect): "
            f"“90\N{NO-BREAK SPACE}%” can mean {_around(90, error)}."
        )
    if not n:
        return [
            *sentences,
            "They are not calibrated: that takes 50 validation labels or more. "
            "To have it done, fit with --validation 0.2 (or another share or number of labels).",
        ]
    if is_number(temperature):
        way = "too sure of itself" if temperature > 1 else "too careful"
        said = (
            f"They are calibrated on {many(n, 'validation image')} (temperature {temperature:.2f}"
        )
        sentences.append(
            said + (f": the model was {way})." if f"{temperature:.2f}" != "1.00" else ").")
        )
    if is_number(before) and is_number(error):
        then = f"Without that they would be off by {number(before, 1)} points"
        sentences.append(f"{then}; here it did not help." if error > before else f"{then}.")
    return sentences


def _around(share: float, error: float) -> str:
    low, high = max(0.0, share - error), min(100.0, share + error)
    if f"{low:.0f}" == f"{high:.0f}":
        return f"about {high:.0f}\N{NO-BREAK SPACE}% of them right"
    return f"{low:.0f} or {high:.0f}\N{NO-BREAK SPACE}% of them right"


def label_next(run: Run) -> tuple[str, str]:
    """Say what to do with `label-next.csv`: where to put the labels, and the command after that.

    Parameters
    ----------
    run : Run
        A run that has the file.

    Returns
    -------
    (str, str)
        A sentence and a command.
    """
    job = _part(run, "job")
    own, earlier = run.path / runs.LABEL_NEXT, str(job.get("label_file") or "")
    train = "train on"
    if job.get("test_fraction"):  # the part is drawn by class, so more labels draw another one
        train = "train on, on all images (more labels move the test part)"
        job = job | {"test_fraction": None}
    if earlier:
        said = f"Fill in the column “label” of {own}, add its rows to {earlier}, and {train}:"
        return said, _go_on(run, job, earlier)
    if _part(run, "data").get("n_labeled"):
        said = f"Move each of them ({own} lists them) into the folder of its class, and {train}:"
        return said, _go_on(run, job, str(job.get("labels") or ""))
    return f"Fill in the column “label” of {own}, and {train}:", _go_on(run, job, str(own))


def _go_on(run: Run, job: dict[str, Any], labels: str) -> str:
    """Return the command that fits from this run's weights, with `labels` as its labels."""
    model = str(run.config.get("model", "NAME"))
    words = ["whatwhere", "fit", quote(_data(run))]
    words += ["--model", quote(model)] if model != "swwae" else []
    words += ["--from", quote(str(run.path))]
    words += ["--labels", quote(labels)] if labels else []
    words += _data_options(job, ("data_dir", "split", "test_fraction", *_READING))
    return " ".join([*words, "--out", quote(f"{run.path}-next")])


_READING = ("image_size", "fit", "keep_depth")


def _data(run: Run) -> str:
    return str(_part(run, "job").get("data") or _part(run, "data").get("name") or "DATA")


def _data_options(job: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return those of `keys` that the run was given, as options of the command line."""
    words = []
    for key in keys:
        value, option = job.get(key), f"--{key.replace('_', '-')}"
        if value is None or value is False or (key, value) == ("split", "train"):
            continue
        if key == "data_dir" and job.get("data") == "digits":
            continue  # the digits come with the library
        words += [option] if value is True else [option, quote(str(value))]
    return words


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
    path = quote(str(run.path))
    found: list[tuple[str, str]] = []
    if run.state == "unfinished" and run.has_checkpoint:
        found.append(("Go on where it stopped", f"whatwhere fit --resume {path}"))
    if run.has_weights or run.state == "finished":
        found += [*_measuring(run, path), *_using(run, path)]
        job = _part(run, "job")
        labels = str(job.get("label_file") or job.get("labels") or "")
        found.append(
            (
                "Train on from these weights, for instance when there are more labels",
                _go_on(run, job, labels),
            )
        )
    found.append(("Make this page again", f"whatwhere report {path}"))
    return found


def _measuring(run: Run, path: str) -> list[tuple[str, str]]:
    data = _part(run, "data")
    n_labeled = _labels_used(run)
    found = []
    if n_labeled and data.get("n_test"):
        found.append(("Measure it on the test images", f"whatwhere evaluate {path}"))
    elif n_labeled:
        words = "Measure it on other images with labels"
        found.append((words, f"whatwhere evaluate {path} FOLDER --split all"))
    if data.get("n_test") and data.get("classes", True):
        n = n_labeled or "all"  # where none were shown, how many there are is not known
        labels = many(n_labeled, "label") if n_labeled else "all labels"
        found.append(
            (
                f"Measure what its embedding is worth, with {labels}",
                f"whatwhere evaluate {path} --probe linear --labels {n}",
            )
        )
    return found


def _using(run: Run, path: str) -> list[tuple[str, str]]:
    """Return the commands that take images."""
    options = _data_options(_part(run, "job"), ("data_dir", *_READING))
    images = " ".join([quote(_data(run)), *options])
    found = []
    if _labels_used(run):
        found.append(("Name the classes of images", "predict", "predictions.csv"))
    found.append(("Turn images into vectors, for search or clustering", "embed", "embeddings.npz"))
    if _reconstructs(run):
        found += [
            ("See images beside their reconstructions", "reconstruct", "reconstructions.png"),
            ("List the images that fit in least, the oddest first", "outliers", "outliers.csv"),
        ]
    walks = any(panel.name == "samples" for panel in run.panels)
    if walks or _reconstructs(run):
        found.append(("Fill in a hidden half of images", "complete", "completed.png"))
    if run.config.get("undoes"):
        found.append(("Take the noise out of images", "denoise", "denoised"))
    masks = {"complete": " --mask left"}
    commands = [
        (words, f"whatwhere {name} {path} {images}{masks.get(name, '')} --out {out}")
        for words, name, out in found
    ]
    if walks:
        commands.append(("Draw new images", f"whatwhere sample {path} --out samples.png"))
    return commands


def _reconstructs(run: Run) -> bool:
    if isinstance(run.config.get("reconstructs"), bool):
        return run.config["reconstructs"]
    losses = {key for epoch in run.epochs for key in epoch.values if key.startswith("loss/")}
    return (
        is_number(run.evaluation.get("reconstruction_mse"))
        or any(panel.name == "reconstructions" for panel in run.panels)
        or any("reconstruction" in key for key in losses)
    )


MOST_DIFFERENCES = 4
"""Rows of differences that are told one by one; more of them are no sentence that anybody reads."""


def differences(comparison: Comparison) -> list[str]:
    """Say of each paired difference whether its interval leaves zero out.

    Parameters
    ----------
    comparison : Comparison
        What was read.

    Returns
    -------
    list of str
        One sentence a row of differences; of many rows, one sentence in all.
    """
    columns = [str(column) for column in comparison.table.get("columns") or []]
    sentences, n_clear, n = [], 0, 0
    for row in comparison.table.get("differences") or []:
        if not isinstance(row, dict):
            continue
        clear, open_ = [], []
        for column, cell in zip(columns, row.get("cells") or [], strict=False):
            ends = interval_of(cell.get("interval")) if isinstance(cell, dict) else None
            if ends:
                (clear if ends[0] > 0 or ends[1] < 0 else open_).append(column)
        n_clear, n = n_clear + len(clear), n + len(clear) + len(open_)
        if clear or open_:
            parts = [f"is clear of zero at {listed(clear)}"] if clear else []
            parts += [f"includes zero at {listed(open_)}"] if open_ else []
            sentences.append(f"The interval of “{row.get('label')}” {', and '.join(parts)}.")
    if len(sentences) > MOST_DIFFERENCES:
        return [f"Of {n:,} differences, the intervals of {n_clear:,} are clear of zero; see below."]
    return sentences
