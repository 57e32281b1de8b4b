"""Comparisons: several learners, on the same images with the same labels."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from whatwhere.core import InputError
from whatwhere.experiments.job import Job
from whatwhere.experiments.table import SVM, Cell, Plan
from whatwhere.models import learner_class


def plan(base: Job, models: Sequence[str], labels: Sequence[str], seeds: int) -> Plan:
    """Return the table of every model at every number of labels.

    Parameters
    ----------
    base : Job
        All that the cells share.
    models : sequence of str
        Names of learners, and ``svm`` for a support vector machine on raw pixels. The first is the
        one that the others are paired with.
    labels : sequence of str
        Numbers of labels, or ``all``.
    seeds : int
        Draws of labels; a draw is also the seed of weights and batches.
    """
    if not models or not labels:
        raise InputError("nothing to compare: name models and numbers of labels, with commas")
    for name in models:
        if name != SVM:
            learner_class(name)
    shared = [_settings(base, name) for name in models]
    for key in base.settings or {}:
        if not any(key in settings for settings in shared):
            replace(base, model=models[0]).learner()  # says which keys there are
            raise InputError(f"none of {', '.join(models)} has a hyper-parameter {key!r}")
    if len(set(models)) < len(models) or len(set(labels)) < len(labels):
        raise InputError("a model, or a number of labels, is named twice")
    if "none" in labels:
        raise InputError("--labels none leaves nothing to compare: errors need labels")
    cells = tuple(
        Cell(model, _column(n), draw, job)
        for n in labels
        for draw in range(seeds)
        for model in models
        for job in [_job(base, model, n, draw)]
    )
    first, *others = models
    return Plan(
        title=f"{', '.join(models)} on {base.data}",
        caption=f"Test error in percent, mean and deviation over {seeds} draws of labels and "
        "weights. Every model sees the same labels.",
        columns=tuple(_column(n) for n in labels),
        cells=cells,
        differences=tuple((other, first) for other in others),
    )


def _column(labels: str) -> str:
    return f"{labels} labels"


def _job(base: Job, model: str, labels: str, draw: int) -> Job:
    settings = _settings(base, model) or None
    return replace(base, model=model, labels=labels, label_seed=draw, seed=draw, settings=settings)


def _settings(base: Job, model: str) -> dict[str, Any]:
    """Return those of the settings that a model has."""
    if model == SVM:
        return {}
    known = {field.name for field in fields(learner_class(model)) if field.init}
    return {key: value for key, value in (base.settings or {}).items() if key in known}
