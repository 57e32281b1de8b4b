"""Fitting: a job on a machine becomes a run folder, and goes on where it was stopped."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whatwhere import models, runs
from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import Skipped
from whatwhere.experiments import beginning, starting
from whatwhere.experiments.job import Job, Machine, Read
from whatwhere.experiments.stopping import interrupted_by, stoppable

if TYPE_CHECKING:
    from whatwhere.learner import Learner, Spec
    from whatwhere.train.trainer import Monitor, Watcher

Tell = Callable[[str], None]
Stop = Callable[[], bool]
CHANGED = "equal up to rounding to a run whose number of processes did not change"
NAMED = 3  # skipped files that a line names


def silent(line: str) -> None:
    """Say nothing."""


def fit(
    job: Job,
    out: Path,
    *,
    machine: Machine | None = None,
    watch: Sequence["Watcher"] = (),
    tell: Tell = silent,
    command: str = "",
    stop: Stop | None = None,
) -> "Learner":
    """Run the job into a new run folder.

    Where the machine asks for several processes, all run this at once: the ones that torchrun or
    srun started, or else those that are started here.

    Parameters
    ----------
    job : Job
    out : Path
        A folder that is missing or empty.
    machine : Machine, optional
    watch : sequence of Watcher
        Beside the metrics file.
    tell : callable (str) -> None
        Is told, before training, what was read and what was chosen for it, a line each.
    command : str
        What the user typed, for the record.
    stop : callable () -> bool, optional
        Says when to end with `Interrupted`. Default: after Ctrl-C or SIGTERM.

    Returns
    -------
    Learner
        Fitted; by the first process judged on the test part, and saved.

    Raises
    ------
    InputError
        If anything in the job cannot be; nothing is written then.
    Interrupted
        After Ctrl-C; what was learned is saved, and `resume` goes on.
    Lost
        If another process was killed; `resume` goes on.
    """
    import torch

    machine = starting.placed(machine or Machine())
    if starting.are_to_start(machine):
        job.learner()  # what can be refused at once
        machine.check()
        given = {"machine": machine, "watch": watch, "tell": tell, "command": command}
        starting.start(machine, partial(fit, **given), job, out)
        return models.load(out)
    learner, fabric = job.learner(), machine.fabric()
    with starting.together(fabric):
        start = None if job.start is None else models.load(job.start)
        read = job.read(machine.cache)
        spec = spec_of(read, job.seed)
        chosen = learner.choose(spec)
        learner.plan(spec)  # what a plan refuses is refused before anything is written
        if start is not None:
            beginning.check_weights(str(job.start), start, learner, spec)
            beginning.check_unseen(str(job.start), read, machine.cache)
        if fabric.is_global_zero:
            runs.create(out)
    if not fabric.is_global_zero:
        return _train(job, read, learner, fabric, out, {}, (), start, stop)
    skipped = read.data.skipped
    if skipped:
        runs.write_rows(out / runs.SKIPPED, [("file", "reason"), *skipped])
    for line in [*told_of(read, job), *told_of_choices(chosen)]:
        tell(line)
    config = {
        "format": runs.FORMAT,
        "model": job.model,
        "params": learner.hyper_parameters(),
        "chosen": chosen,
        "start": job.start,
        "job": asdict(job),
        "machine": asdict(machine),
        "data": read.facts(job),
        "seed": job.seed,
        "threads": torch.get_num_threads(),
        "processes": fabric.world_size,
        "precision": machine.precision,
        "hardware": runs.hardware() | {"device": str(fabric.device)},
        "versions": runs.versions(),
        "command": command,
    }
    runs.write_json(out / runs.CONFIG, config)
    return _train(job, read, learner, fabric, out, config, watch, start, stop)


def resume(
    run: Path,
    *,
    devices: int | None = None,
    num_nodes: int | None = None,
    watch: Sequence["Watcher"] = (),
    stop: Stop | None = None,
) -> "Learner":
    """Go on with a run that was stopped or killed, to the bits it would have had.

    Parameters
    ----------
    run : Path
    devices, num_nodes : int, optional
        Processes on each node, and nodes. Default: as before. With another number of processes
        sums are rounded otherwise: the result is equal up to that, and the run says so.
    watch, stop
        As for `fit`.

    Raises
    ------
    InputError
        If the run has ended, or if its data or its number of threads are not what they were.
    Lost
        If another process was killed; `resume` goes on.
    """
    import torch

    config = runs.read_config(run)
    if "job" not in config or (runs.has_weights(run) and not runs.has_checkpoint(run)):
        raise InputError(f"{run} has ended: there is nothing to resume; use evaluate or predict")
    job, machine = Job(**config["job"]), Machine(**config["machine"])
    if devices is not None or num_nodes is not None or starting.are_started():
        machine = replace(machine, devices=devices or 1, num_nodes=num_nodes or 1)
    machine = starting.placed(machine)
    threads = config["threads"]
    if os.environ.get("OMP_NUM_THREADS", str(threads)) != str(threads):
        raise InputError(
            f"{run} was started with {threads} threads, and OMP_NUM_THREADS is "
            f"{os.environ['OMP_NUM_THREADS']}: other threads add up in another order, and "
            f"the result would not be the same bits; set OMP_NUM_THREADS={threads}"
        )
    if starting.are_to_start(machine):
        machine.check()
        given = {"devices": machine.devices, "num_nodes": machine.num_nodes, "watch": watch}
        starting.start(machine, partial(resume, **given), run)
        return models.load(run)
    learner, fabric = job.learner(), replace(machine, threads=threads).fabric()
    learner.set_params(**config["chosen"])  # as it was chosen then, not by a later rule
    if torch.get_num_threads() != threads:
        raise InputError(f"{run} was started with {threads} threads, which this machine refuses")
    with starting.together(fabric):
        read = job.read(machine.cache)
        found, wanted = read.data.train.fingerprint(), config["data"]["fingerprint"]
        if found != wanted:
            raise InputError(
                f"the images or labels of {job.data} changed since {run} was started (fingerprint "
                f"{found[:12]}, then {wanted[:12]}); bring the old ones back, or fit anew"
            )
    if fabric.world_size != config.get("processes", 1):
        config |= {"processes": fabric.world_size, "processes_changed": CHANGED}
        config["machine"] |= {"devices": machine.devices, "num_nodes": machine.num_nodes}
    # A checkpoint holds the weights; before the first one, they are those that were begun with.
    begins = job.start is not None and not runs.has_checkpoint(run)
    start = models.load(str(job.start)) if begins else None
    return _train(job, read, learner, fabric, run, config, watch, start, stop)


def _train(
    job: Job,
    read: Read,
    learner: "Learner",
    fabric: Any,
    out: Path,
    config: dict[str, Any],
    watch: Sequence["Watcher"],
    start: "Learner | None",
    stop: Stop | None,
) -> "Learner":
    from whatwhere.evaluate.growing import Growing
    from whatwhere.train import checkpoint
    from whatwhere.train.progress import MetricsFile
    from whatwhere.train.trainer import Interrupted, Trainer

    metrics = MetricsFile(
        lambda records: runs.write_metrics(out, records),
        lambda record: runs.append_metrics(out, record),
    )
    growing = Growing(out / runs.PANELS, read.train.shape, job.seed)
    judges = [*probes(read), growing]
    try:
        with stoppable() if stop is None else nullcontext(stop) as asked:
            learner.trainer = Trainer(
                fabric, out / runs.CHECKPOINT, [metrics, *watch], asked, monitors=judges
            )
            with starting.missing_others():
                fit_images(learner, read, start)
    except Interrupted:
        if fabric.is_global_zero:
            save(learner, out, config)
            growing.draw()
        raise
    if not fabric.is_global_zero:
        return learner
    save(learner, out, config)
    with nullcontext() if stop is None else interrupted_by(stop):
        growing.finish()
        judge_run(learner, read, out)
    checkpoint.remove(out / runs.CHECKPOINT)
    return learner


def probes(read: Read) -> list["Monitor"]:
    """Return what judges the features after each epoch, where that was asked for."""
    from whatwhere.evaluate.online import OnlineProbe

    if read.probed is None or read.validation is None:
        return []
    return [OnlineProbe(read.probed, read.validation)]


def spec_of(read: Read, seed: int) -> "Spec":
    """Return what the images ask of a module."""
    from whatwhere.data.rows import Rows
    from whatwhere.learner import Spec

    train, counts = read.train, tuple(n for n in read.labels_by_class().values() if n)
    bounds = Rows(train.x).bounds
    return Spec(train.shape, len(train), len(counts), train.n_labeled, seed, counts, bounds)


def told_of(read: Read, job: Job) -> list[str]:
    """Say what was read: how many images and labels, and which files were skipped."""
    train, test = read.train, read.test
    c, h, w = train.shape
    kind = {1: "gray", 3: "color"}.get(c, f"{c} channels")
    line = f"{len(train):,} images of {h} x {w} pixels, {kind}"
    counts = {name: count for name, count in read.labels_by_class().items() if count}
    if counts:
        line += f"; {train.n_labeled:,} labels in {len(counts)} classes"
        most, fewest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[most] > counts[fewest]:
            line += f", from {counts[fewest]} ({fewest}) to {counts[most]} ({most})"
    else:
        line += "; no labels, so it will describe images and name no classes"
    if counts and not job.names_classes():
        line += f", which {job.model} does not learn from"
    if read.validation is not None:
        line += f"; {len(read.validation):,} more to validate on"
    if test is not None:
        line += f"; {len(test):,} to test on"
    return [line, *told_of_skipped(read.data.skipped)]


def told_of_skipped(skipped: Sequence[Skipped]) -> list[str]:
    """Say how many files were skipped, and name the first; nothing where there are none."""
    if not skipped:
        return []
    named = "; ".join(f"{one.file} ({one.reason})" for one in skipped[:NAMED])
    more = f"; and {len(skipped) - NAMED:,} more" if len(skipped) > NAMED else ""
    return [f"skipped {len(skipped):,} file{'s' * (len(skipped) > 1)}: {named}{more}"]


def told_of_choices(chosen: Mapping[str, Any]) -> list[str]:
    """Say what the learner chose for the images; nothing where all was given."""
    if not chosen:
        return []
    told = ", ".join(f"{name}={value}" for name, value in chosen.items())
    return [f"chosen for these images: {told} (--set KEY=VALUE for others)"]


def fit_images(learner: "Learner", read: Read, start: "Learner | None" = None) -> "Learner":
    """Fit the learner to images with their labels as places in `classes`.

    Parameters
    ----------
    learner : Learner
    read : Read
    start : Learner, optional
        Fitted: its weights are begun with. Its classes are called by their places from then on.
    """
    from whatwhere.learner import ImageClassifier

    validation = None if read.validation is None else (read.validation.x, read.validation.y)
    y = read.train.y if read.train.n_labeled else None
    if isinstance(start, ImageClassifier):
        places = {name: place for place, name in enumerate(read.train.classes)}
        unknown = UNLABELED - 1  # a place that no class has
        start.name_classes([places.get(name, unknown) for name in start.classes_.tolist()])
    try:
        return learner.fit(read.train.x, y, validation=validation, start=start)
    finally:  # an interrupted learner is a fitted one
        if isinstance(learner, ImageClassifier) and len(getattr(learner, "classes_", ())):
            learner.name_classes([read.train.classes[place] for place in learner.classes_])


def save(learner: "Learner", out: Path, config: Mapping[str, Any]) -> None:
    """Write weights, and what only the fitted learner knows, into the run folder."""
    told = learner.describe() | {"stages": learner.stages_, "chosen": config["chosen"]}
    runs.write_weights(out, learner.module_)
    runs.write_json(out / runs.CONFIG, dict(config) | told | {"versions": config["versions"]})


def judge_run(learner: "Learner", read: Read, out: Path) -> dict[str, Any]:
    """Judge the learner on the test part, beside the floors, and write evaluation and panels."""
    from whatwhere.evaluate import album, judge

    images = read.train if read.test is None else read.test
    evaluation = judge.evaluate(learner, read.test) if read.test is not None else {}
    if read.test is not None and read.train.n_labeled:
        evaluation["floors"] = judge.floors(read.train, read.test)
    runs.write_json(out / runs.EVALUATION, evaluation)
    album.draw(learner, images, out, tested=read.test is not None, train=read.train)
    return evaluation
