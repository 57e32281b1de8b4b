"""Commands that train: demo, fit, compare and reproduce."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from whatwhere.cli.options import (
    DATA_ARGUMENT,
    BudgetName,
    Compile,
    Data,
    DataDir,
    Device,
    DeviceOption,
    Devices,
    Epochs,
    FitOption,
    ImageSize,
    Jobs,
    KeepDepth,
    Labels,
    LabelSeed,
    NoCache,
    NumNodes,
    Precision,
    PrecisionOption,
    Seed,
    Set,
    Split,
    TestFraction,
    Threads,
    Validation,
)
from whatwhere.cli.places import data_folder, label_options, new_folder, placed, refuse_inside
from whatwhere.cli.words import names, say_report, say_run, tell, told_to_stop, typed, watch
from whatwhere.core import InputError


def demo(
    out: Annotated[Path, typer.Option(help="New folder of the results.")] = Path("demo-run"),
) -> None:
    """Train on small digits with 50 labels, beside what the labels alone give: about a minute."""
    from whatwhere import report as room
    from whatwhere.experiments import demo as experiment
    from whatwhere.experiments import table

    with told_to_stop(out, "start it again in another --out"):
        made = experiment.run(out, watch, typed())
    typer.echo(table.told(made))
    for run in experiment.ROWS:
        room.write(out / run)
    say_report(out)


def fit(
    context: typer.Context,
    data: Annotated[str | None, DATA_ARGUMENT] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Which learner; see whatwhere models. Default: swwae, or that of --from."
        ),
    ] = None,
    labels: Labels = "all",
    label_seed: LabelSeed = 0,
    validation: Validation = "none",
    settings: Set = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the weights of this run, and with its settings where none are given.",
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--online-probe",
            metavar="N|all",
            help="After each epoch fit simple classifiers to the features of so many labeled "
            "images, which training does not know of, and judge them on those of --validation.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New run folder. Default: runs/DATA-MODEL-K.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with this run, which says all the rest."),
    ] = None,
    data_dir: DataDir = None,
    split: Split = None,
    test_fraction: TestFraction = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    keep_depth: KeepDepth = False,
    no_cache: NoCache = False,
    device: DeviceOption = Device.auto,
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    precision: PrecisionOption = Precision.full,
    threads: Threads = None,
    compiled: Compile = False,
) -> None:
    """Train a learner on images, judge it on the test part, and write a run folder."""
    if (data is None) == (resume is None):
        raise InputError("fit takes DATA for a new run, or --resume RUN to go on with one")
    from whatwhere.experiments import beginning, fitting, job

    if resume is not None:
        given = given_beside_resume(context)
        with told_to_stop(resume, f"go on with: whatwhere fit --resume {resume}"):
            fitting.resume(resume, **given, watch=watch(""))
        return say_run(resume)
    shown, label_file = label_options(labels)
    asked = job.Job(
        data=placed(str(data)),
        model=model or "swwae",
        labels=shown,
        label_seed=label_seed,
        validation=validation,
        probe=probe,
        settings=read_settings(settings, epochs),
        seed=seed,
        data_dir=data_folder(str(data), data_dir),
        split="train" if split is None else split.value,
        test_fraction=test_fraction,
        label_file=label_file,
        image_size=image_size,
        fit=None if how is None else how.value,
        keep_depth=keep_depth,
    )
    if start is not None:
        asked = beginning.begun_with(asked, start, same_model=model is None)
    machine = job.Machine(
        device.value, precision.value, threads, not no_cache, devices, num_nodes, compiled
    )
    run = new_folder(str(data), asked.model) if out is None else out
    refuse_inside(run, str(data))
    with told_to_stop(run, f"go on with: whatwhere fit --resume {run}"):
        fitting.fit(asked, run, machine=machine, watch=watch(""), tell=tell, command=typed())
    return say_run(run)


def compare(
    data: Data,
    models: Annotated[str, typer.Option(metavar="A,B,...", help="Which learners.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the results; what is in it is not run again.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="N,N,...|FILE.csv", help="Numbers of labels, or all.")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of labels and weights.")] = 3,
    validation: Validation = "none",
    settings: Set = None,
    epochs: Epochs = None,
    jobs: Jobs = 1,
    data_dir: DataDir = None,
    test_fraction: TestFraction = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    keep_depth: KeepDepth = False,
    no_cache: NoCache = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.full,
    threads: Threads = None,
) -> None:
    """Fit several learners to the same images and labels, and write one table and one report."""
    from whatwhere.experiments import comparison, table
    from whatwhere.experiments.job import Job, Machine

    shown, label_file = label_options(labels)
    base = Job(
        data=placed(data),
        model="",
        validation=validation,
        settings=read_settings(settings, epochs),
        data_dir=data_folder(str(data), data_dir),
        test_fraction=test_fraction,
        label_file=label_file,
        image_size=image_size,
        fit=None if how is None else how.value,
        keep_depth=keep_depth,
    )
    machine = Machine(device.value, precision.value, threads, not no_cache)
    plan = comparison.plan(base, names(models), names(shown), seeds)
    with told_to_stop(out, "the same command goes on"):
        made = table.run(plan, out, machine=machine, jobs=jobs, watch=watch, command=typed())
    typer.echo(table.told(made))
    say_report(out)


def reproduce(
    name: Annotated[str, typer.Argument(help="Which table; see whatwhere experiments.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="Draws of labels and weights.")] = None,
    budget: Annotated[
        BudgetName, typer.Option(help="Minutes, or the whole table.")
    ] = BudgetName.quick,
    only: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only the cells whose name holds TEXT.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: results/NAME[-quick].")
    ] = None,
    jobs: Jobs = 1,
    data_dir: DataDir = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.full,
    threads: Threads = None,
) -> None:
    """Run a published table again, cell by cell; a second call fills in what is missing."""
    from whatwhere import experiments
    from whatwhere.experiments import table
    from whatwhere.experiments.job import Machine

    experiment = experiments.find(name)
    machine = Machine(device.value, precision.value, threads)
    plan = experiment.plan(
        budget.value, seeds, None if data_dir is None else str(data_dir.resolve())
    )
    again = ["whatwhere", "reproduce", name, "--budget", budget.value]
    again += [] if seeds is None else ["--seeds", str(seeds)]
    part = name if budget is BudgetName.full else f"{name}-{budget}"
    folder = Path("results") / part if out is None else out
    with told_to_stop(folder, "the same command goes on"):
        made = table.run(
            plan,
            folder,
            machine=machine,
            jobs=jobs,
            watch=watch,
            command=shlex.join(again),
            only=only or "",
        )
    typer.echo(table.told(made))
    say_report(folder)


def given_beside_resume(context: typer.Context) -> dict[str, Any]:
    """Return the numbers of processes, if given, and refuse what a resumed run would not heed."""
    given = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name == "resume" or source is None or source.name != "COMMANDLINE":
            continue
        if name not in ("devices", "num_nodes"):
            raise InputError(
                f"--resume RUN reads everything from the run; leave {parameter.opts[0]} out"
            )
        given[name] = context.params[name]
    return given


def read_settings(pairs: list[str] | None, epochs: int | None) -> dict[str, Any]:
    """Return hyper-parameters by name, as text."""
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set {pair}: it takes KEY=VALUE, as in --set learning_rate=0.001")
        stage, dot, key = name.strip().rpartition(".")  # the names of stages have hyphens
        settings[f"{stage}{dot}{key.replace('-', '_')}"] = value.strip()
    if epochs is not None:
        settings["epochs"] = epochs
    return settings
