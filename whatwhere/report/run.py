"""What the page of one run shows."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from markupsafe import Markup

from whatwhere.report import embedding_map, figures, wording
from whatwhere.report.read import GRADIENT, VALIDATION, Panel, Run, dicts

TABLE_CLASSES = 24
"""Up to so many classes, a confusion matrix is a table of numbers; above, a picture."""

EVEN = 1.5
"""Below so many times the test images of another class, the classes count about equally anyway."""

SHOWN = 12
"""Rows of a long list that stand open; the others are folded away."""


NOTES = {
    "validation/free_energy": " nats; log Z moves too, so follow the gap",
    "validation/free_energy_gap": " nats above training images; growing says over-fitting",
    "validation/linear_probe": " % wrong, by logistic regression on the features",
    "validation/knn_probe": " % wrong, by the nearest neighbor",
    "likelihood/gap": " nats from the energy of its own states to that of images; 0 where they fit",
    "likelihood/active": " of the hidden units are on, on average",
}
"""What a curve says, where its name does not."""


@dataclass(frozen=True)
class _Chart:
    """A figure with its heading and the words beside it."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class _ClassError:
    """How one class fares: counts, error in percent, bar in [0, 1], and what it is taken for.

    `labels` is None in a run that did not record them.
    """

    name: str
    n: int
    labels: int | None
    wrong: int
    error: float
    length: float
    taken_for: str


def content(run: Run) -> dict[str, Any]:
    """Return what the template `run.html.j2` shows.

    Parameters
    ----------
    run : Run
        What was read.

    Returns
    -------
    dict of str to Any
        The template's variables; text is not escaped yet, figures are.
    """
    config, evaluation = run.config, run.evaluation
    mistakes = next((panel for panel in run.panels if panel.name == "mistakes"), None)
    next_ones = next((panel for panel in run.panels if panel.kind == "worth_labelling"), None)
    pictures = [
        panel
        for panel in run.panels
        if panel is not mistakes and panel is not next_ones and panel.kind != "map"
    ]
    digits = wording.digits_of(evaluation)
    matrix = _confusion(run)
    commands = wording.commands(run)
    begun = [stage for stage, count in run.done.items() if count]
    facts = {key: config.get(key) or {} for key in ("data", "spec", "params", "parameters")}
    counts = {k: v for k, v in facts["parameters"].items() if wording.is_number(v)}
    total = counts.pop("total", None)
    return facts | {
        "run": run,
        "title": f"{config.get('model', 'run')} on {wording.short(facts['data'].get('name'))}",
        "summary": wording.summary(run),
        "advice": wording.advice(run) if run.state == "diverged" else "",
        "key_figures": _key_figures(run, digits),
        "digits": digits,
        "parameters": counts,
        "n_parameters": total if total is not None else sum(counts.values()),
        "stages": run.stages,
        "done": run.done,
        "pace": _pace(run),
        "charts": _curves(run),
        "has_loss": any(key.startswith("loss/") for epoch in run.epochs for key in epoch.terms),
        "gradients": _gradients(run),
        "numbered": not _names_fit(begun, run.done),
        "error": evaluation.get("error") if wording.is_number(evaluation.get("error")) else None,
        "interval": wording.interval_of(evaluation.get("interval")),
        "floors": wording.usable_floors(evaluation),
        "error_figure": _error_figure(run),
        "measures": _measures(evaluation),
        "confusion": matrix,
        "mistakes": _picture(mistakes) if mistakes else None,
        "map": _map(run),
        "worth_labelling": _picture(next_ones) if next_ones else None,
        "label_next": wording.label_next(run) if run.has_label_next else None,
        "skipped": dicts(facts["data"].get("skipped")),
        "n_skipped": _n_skipped(facts["data"]),
        "uneven": wording.uneven_labels(run),
        "balanced_error": _balanced_error(run),
        "trust": wording.trust(evaluation),
        "calibration": _calibration(evaluation),
        "chosen": config["chosen"] if isinstance(config.get("chosen"), dict) else {},
        "pictures": [_picture(panel) for panel in pictures],
        "commands": commands,
        "takes_folder": any("FOLDER" in command.split() for _, command in commands),
        "shown": SHOWN,
    }


def _map(run: Run) -> dict[str, Any] | None:
    panel = next((panel for panel in run.panels if panel.kind == "map"), None)
    if panel is None:
        return None
    found = embedding_map.content(panel, run.config.get("classes") or [])
    if found is None:
        run.problems.append(f"Left out: the map {panel.name}.png, which has no points to show.")
    return found


def _n_skipped(data: dict[str, Any]) -> int:
    n = data.get("n_skipped")
    return n if isinstance(n, int) else len(dicts(data.get("skipped")))


def _balanced_error(run: Run) -> float | None:
    """Return the mean of the classes' errors where it says something that the error does not."""
    value, matrix = run.evaluation.get("balanced_error"), run.evaluation.get("confusion")
    if not wording.is_number(value):
        return None
    try:
        counts = np.asarray(matrix, dtype=float).sum(axis=1)
    except (TypeError, ValueError):  # no matrix, or one that is none (which is told elsewhere)
        return float(value)
    return float(value) if counts.max() >= EVEN * counts.min() else None


def _calibration(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was measured of the probabilities besides what the sentences say."""
    told = {
        "nll_before": "negative log-likelihood before calibration, nats an image",
        "nll": "negative log-likelihood, nats an image",
    }
    found = evaluation.get("calibration")
    found = found if isinstance(found, dict) else {}
    return [
        (words, wording.measure(float(found[key])))
        for key, words in told.items()
        if wording.is_number(found.get(key)) and (found.get("n_validation") or "before" not in key)
    ]


def _key_figures(run: Run, digits: int) -> list[tuple[str, str, str]]:
    """Return (name, value, note) of the few numbers that the page begins with."""
    evaluation, data = run.evaluation, run.config.get("data") or {}
    found = []
    if wording.is_number(evaluation.get("error")):
        note = wording.span(evaluation.get("interval"), digits)
        value = wording.percent(evaluation["error"], digits)
        found.append(("test error", value, f"95 %: {note}" if note else ""))
    balanced = _balanced_error(run)
    if balanced is not None:
        value = wording.percent(balanced, digits)
        found.append(("mean class error", value, "each class counts equally"))
    if wording.is_number(evaluation.get("reconstruction_mse")):
        value = wording.measure(evaluation["reconstruction_mse"])
        found.append(("reconstruction error", value, "mean square, a pixel"))
    if wording.is_number(evaluation.get("log_likelihood")):
        value = wording.number(evaluation["log_likelihood"], 1)
        found.append(("log-likelihood", value, wording.likelihood_note(evaluation)))
    if "n_labeled" in data:
        found.append(("labels", wording.thousands(data["n_labeled"] or 0), ""))
    if "n_train" in data:
        found.append(("training images", wording.thousands(data["n_train"]), ""))
    if run.epochs:
        done, planned = sum(run.done.values()), sum(run.planned.values())
        seconds = sum(_finite(epoch.values.get("seconds")) for epoch in run.epochs)
        value = f"{done} of {planned}" if done < planned else str(done)
        found.append(("epochs", value, f"in {wording.duration(seconds)}" if seconds else ""))
    return found


def _finite(value: float | None) -> float:
    return value if value is not None and isfinite(value) else 0.0


def _pace(run: Run) -> list[str]:
    """Return how long training took and how fast it was, in phrases."""
    found = []
    seconds = sum(_finite(epoch.values.get("seconds")) for epoch in run.epochs)
    if seconds:
        found.append(f"{wording.duration(seconds)} of training")
    rates = [_finite(epoch.values.get("images_per_second")) for epoch in run.epochs]
    if any(rates):
        found.append(f"{np.median([r for r in rates if r]):,.0f} images a second (median)")
    waiting = [e.values["waiting"] for e in run.epochs if isfinite(e.values.get("waiting", np.nan))]
    if waiting:
        found.append(f"{100 * float(np.mean(waiting)):.1f} % of the time spent waiting for data")
    return found


def _curves(run: Run) -> list[_Chart]:
    """Return a figure for each validation measure, each term, and a moving learning rate."""
    names = list(dict.fromkeys(key for epoch in run.epochs for key in epoch.values))
    chosen = [n for n in names if n.startswith(VALIDATION)]
    terms = dict.fromkeys(key for epoch in run.epochs for key in epoch.terms)
    chosen += sorted(terms, key=lambda name: not name.startswith("loss/"))
    rates = {epoch.values.get("learning_rate") for epoch in run.epochs}
    if len(rates) > 1:
        chosen.append("learning_rate")
    order = list(run.done)
    starts, total = {}, 0
    for stage in order:
        starts[stage] = total
        total += run.done[stage]
    begun = [stage for stage in order if run.done[stage]]
    marks: list[tuple[float, str]] = []
    if len(begun) > 1:
        named = _names_fit(begun, run.done)
        marks = [
            (starts[stage] + 1, stage if named else str(order.index(stage) + 1)) for stage in begun
        ]
    charts = []
    for name in chosen:
        segments = []
        for stage in begun:
            here = [e for e in run.epochs if e.stage == stage]
            xs = [starts[stage] + k + 1 for k, e in enumerate(here) if name in e.values]
            ys = [e.values[name] for e in here if name in e.values]
            if ys:
                segments.append((xs, ys))
        group, _, rest = name.partition("/")
        title = (f"{group}: {rest}" if rest else group).replace("_", " ")
        first, last = segments[0][1][0], segments[-1][1][-1]
        note = f"{first:.4g} → {last:.4g}" if isfinite(last) else "not finite at the end"
        if "validation" in group and "error" in rest and isfinite(last):
            note += " %"
        note += NOTES.get(name, "")
        svg = figures.curve(segments, total, marks, f"{title} against epochs: {note}")
        charts.append(_Chart(title, note, Markup(svg)))
    return charts


def _gradients(run: Run) -> _Chart | None:
    """Return the size of the first gradient in each layer, where it was measured."""
    for epoch in run.epochs:
        found = {
            name.removeprefix(GRADIENT): value
            for name, value in epoch.values.items()
            if name.startswith(GRADIENT) and isfinite(value)
        }
        if len(found) > 1:
            first, *_, last = found.values()
            note = f"lowest layer {first:.2g}, topmost {last:.2g}"
            title = f"first gradient of {epoch.stage}"
            names = [name.removeprefix("layer") for name in found]
            svg = figures.sizes(list(found.values()), names, f"{title} by layer: {note}")
            return _Chart(title, note, Markup(svg))
    return None


def _names_fit(begun: list[str], done: dict[str, int]) -> bool:
    """Whether the name of each stage fits above its part of the axis, some 45 letters wide."""
    total = sum(done[stage] for stage in begun)
    return all(len(stage) < 45 * done[stage] / total for stage in begun)


def _error_figure(run: Run) -> Markup | None:
    error = run.evaluation.get("error")
    floors = wording.usable_floors(run.evaluation)
    if not wording.is_number(error):
        return None
    own = wording.interval_of(run.evaluation.get("interval"))
    name = f"{run.config.get('model', 'this run')} (this run)"
    points = [(name, figures.point(float(error), own))]
    points += [
        (floor["name"], figures.point(floor["error"], floor["interval"])) for floor in floors
    ]
    return Markup(
        figures.intervals(
            points,
            "test error, %, with its 95 % interval",
            wording.digits_of(run.evaluation),
            description="The numbers stand in the table.",
        )
    )


def _measures(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was measured besides the error, in words."""
    told = {
        "n": "test images",
        "balanced_error": "mean of the classes' errors, % (each class counts equally)",
        "accuracy": "accuracy (share of right classes, 0 to 1)",
        "reconstruction_mse": "reconstruction: mean squared error a pixel, pixels in [0, 1]",
        "reconstruction_sse": "reconstruction: squared error summed over an image",
        "log_likelihood": "log-likelihood, nats an image",
        "log_likelihood_how": "how that was found",
    }
    left_out = {"error", "interval", "confusion", "classes", "floors", "format"}
    return [
        (told.get(key, key.replace("_", " ")), wording.measure(value))
        for key, value in evaluation.items()
        if key not in left_out and isinstance(value, str | int | float)
    ]


def _confusion(run: Run) -> dict[str, Any] | None:
    """Return the confusion matrix as the template wants it, or None where there is none."""
    counts = run.evaluation.get("confusion")
    if not isinstance(counts, list) or not counts:
        return None
    try:
        matrix = np.asarray(counts, dtype=int)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    k = len(counts)
    if matrix.shape != (k, k):
        run.problems.append("Left out: the confusion matrix, which is not square.")
        return None
    names = run.evaluation.get("classes") or run.config.get("classes") or []
    names = [str(name) for name in names] if len(names) == k else [str(i) for i in range(k)]
    share, error = figures.shares(counts)
    rows = [
        {
            "name": names[i],
            "cells": [
                {
                    "count": int(matrix[i, j]),
                    "hit": i == j,
                    "strength": _strength(share, error, i, j),
                }
                for j in range(k)
            ],
        }
        for i in range(k)
    ]
    small = k <= TABLE_CLASSES
    words = f"Confusion matrix of {k} classes; the most frequent confusions are listed below."
    return {
        "names": names,
        "rows": rows if small else [],
        "long_names": max(map(len, names)) > 4,
        "svg": None if small else Markup(figures.confusion(counts, words)),
        "classes": _class_errors(matrix, names, wording.labels_by_class(run)),
        "pairs": [
            {"true": names[i], "predicted": names[j], "count": int(matrix[i, j]),
             "share": 100 * share[i, j]}
            for i, j in _largest(matrix, SHOWN)
        ],
    }  # fmt: skip


def _strength(share: np.ndarray, error: np.ndarray, i: int, j: int) -> str:
    return f"{share[i, j] if i == j else np.sqrt(error[i, j]):.2f}"


def _largest(matrix: np.ndarray, n: int) -> list[tuple[int, int]]:
    """Return the places of the largest counts off the diagonal, the largest first."""
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    places = np.argsort(-wrong, axis=None, kind="stable")[:n]
    found = [divmod(int(place), len(matrix)) for place in places]
    return [(i, j) for i, j in found if wrong[i, j] > 0]


def _class_errors(
    matrix: np.ndarray, names: Sequence[str], labels: Mapping[str, int]
) -> list[_ClassError]:
    found = []
    n = matrix.sum(axis=1)
    wrong = n - matrix.diagonal()
    error = 100 * wrong / np.maximum(n, 1)
    lengths = error / max(error.max(), 1e-12)
    for i, name in enumerate(names):
        others = np.where(np.arange(len(names)) == i, 0, matrix[i])
        most = int(others.argmax())
        taken_for = f"{names[most]} ({others[most]})" if others[most] else ""
        found.append(
            _ClassError(
                name=name,
                n=int(n[i]),
                labels=labels.get(name, 0) if labels else None,
                wrong=int(wrong[i]),
                error=float(error[i]),
                length=float(lengths[i]),
                taken_for=taken_for,
            )
        )
    return sorted(found, key=lambda row: -row.error)


def _picture(panel: Panel) -> dict[str, Any]:
    return {
        "name": panel.name,
        "title": panel.title,
        "caption": panel.caption,
        "width": panel.width,
        "height": panel.height,
        "source": f"data:image/png;base64,{b64encode(panel.png).decode('ascii')}",
        "rows": panel.rows,
    }
