"""Comparisons: several learners, on the same images with the same labels."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from whatwhere.core import InputError, unknown
from whatwhere.experiments.fitting import spec_of
from whatwhere.experiments.job import Job
from whatwhere.experiments.plan import SVM, Cell, Plan
from whatwhere.models import learner_class

EPOCHS_OF_STAGE = ".epochs"


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
    if "none" in labels:
        raise InputError("--labels none leaves nothing to compare: errors need labels")
    own = _settings(base, models, labels[0])
    if len(set(models)) < len(models) or len(set(labels)) < len(labels):
        raise InputError("a model, or a number of labels, is named twice")
    cells = tuple(
        Cell(model, _column(n), draw, replace(job, labels=n, label_seed=draw, seed=draw))
        for n in labels
        for draw in range(seeds)
        for model in models
        for job in [replace(base, model=model, settings=own[model] or None)]
    )
    first, *others = models
    return Plan(
        title=f"{', '.join(models)} on {base.data}",
        caption="Test error in percent, mean and deviation over "
        f"{seeds} draw{'s' * (seeds > 1)} of labels and weights. Every model sees the same labels.",
        columns=tuple(_column(n) for n in labels),
        cells=cells,
        differences=tuple((other, first) for other in others),
    )


def _column(labels: str) -> str:
    return f"{labels} labels"


def _settings(base: Job, models: Sequence[str], labels: str) -> Mapping[str, dict[str, Any]]:
    """Return, of each model, those of the settings that it has.

    Raises
    ------
    InputError
        If no model has one of them, a hyper-parameter or a stage.
    """
    given = dict(base.settings or {})
    of_stages = {key for key in given if key.endswith(EPOCHS_OF_STAGE)}
    learners = [model for model in models if model != SVM]
    own: dict[str, dict[str, Any]] = {SVM: {}}
    for model in learners:
        known = {field.name for field in fields(learner_class(model)) if field.init}
        own[model] = {key: value for key, value in given.items() if key in known}
    stages = {model: _stages(base, model, labels, own[model]) for model in learners if of_stages}
    for key in of_stages:
        stage = key.removesuffix(EPOCHS_OF_STAGE)
        having = [model for model in learners if stage in stages[model]]
        there = dict.fromkeys(name for model in learners for name in stages[model])
        if not having and there:
            raise unknown(f"none of {', '.join(models)} has a stage", stage, there)
        for model in having:
            own[model][key] = given[key]
    for key in given:
        if not any(key in settings for settings in own.values()):
            for model in learners[:1]:
                replace(base, model=model).learner()  # says which keys there are
            raise InputError(f"none of {', '.join(models)} has a hyper-parameter {key!r}")
    return own


def _stages(base: Job, model: str, labels: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of a model's stages on these images: they may depend on them."""
    job = replace(base, model=model, labels=labels, settings=settings)
    return [stage.name for stage in job.learner().plan(spec_of(job.read(), job.seed))[1]]
