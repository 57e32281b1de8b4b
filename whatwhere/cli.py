"""The command line. Torch is imported when a command needs it, never for --help."""

import errno
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import whatwhere
from whatwhere.core import InputError

if TYPE_CHECKING:
    from whatwhere.data.images import Images
    from whatwhere.experiments.job import Job, Read
    from whatwhere.train.trainer import Watcher

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn image representations without labels, or with few.",
    epilog="DATA is a named set (see [b]whatwhere data[/b]) or an .npz file. "
    "Start with: [b]whatwhere demo[/b]",
)


class Device(StrEnum):
    """Where numbers are computed."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(StrEnum):
    """How numbers are held."""

    full = "32-true"
    half = "bf16-mixed"


class Part(StrEnum):
    """Which part of a data set."""

    train = "train"
    test = "test"
    all = "all"


class Probe(StrEnum):
    """A simple classifier on features."""

    linear = "linear"
    knn = "knn"
    svm = "svm"


class Budget(StrEnum):
    """How long a table may take."""

    quick = "quick"
    full = "full"


DATA, MACHINE, RESULT = "Data", "Device", "Result"
DATA_ARGUMENT = typer.Argument(metavar="DATA", help="A named set, or an .npz file.")
Data = Annotated[str, DATA_ARGUMENT]
OptionalData = Annotated[str | None, DATA_ARGUMENT]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that fit wrote.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where the named sets lie.", envvar="WHATWHERE_DATA", rich_help_panel=DATA),
]
Split = Annotated[Part | None, typer.Option(help="Which part of DATA.", rich_help_panel=DATA)]
TestFraction = Annotated[
    float | None,
    typer.Option(help="Cut a test part off DATA that has none.", rich_help_panel=DATA),
]
Labels = Annotated[
    str,
    typer.Option(
        metavar="all|none|N",
        help="Which labels are shown: N in total, balanced over the classes.",
    ),
]
LabelSeed = Annotated[int, typer.Option(help="Which draw of labels.")]
Validation = Annotated[
    str,
    typer.Option(
        metavar="none|FRACTION|COUNT",
        help="Labeled images kept out of training, to judge the learner after each epoch.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A hyper-parameter; may be repeated."),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of the last stage.")]
Seed = Annotated[int, typer.Option(help="Of weights and batches.")]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where to compute.", rich_help_panel=MACHINE)
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Of numbers.", rich_help_panel=MACHINE)
]
Jobs = Annotated[
    int,
    typer.Option(min=1, help="Cells at a time, each on one thread.", rich_help_panel=MACHINE),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads on the CPU.", rich_help_panel=MACHINE)
]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False,
) -> None:
    """Answer --version."""
    if show:
        typer.echo(f"whatwhere {whatwhere.__version__}")
        raise typer.Exit


@app.command()
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


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[str | None, DATA_ARGUMENT] = None,
    model: Annotated[str, typer.Option(help="Which learner; see whatwhere models.")] = "swwae",
    labels: Labels = "all",
    label_seed: LabelSeed = 0,
    validation: Validation = "none",
    settings: Set = None,
    epochs: Epochs = None,
    seed: Seed = 0,
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
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.full,
    threads: Threads = None,
) -> None:
    """Train a learner on images, judge it on the test part, and write a run folder."""
    if (data is None) == (resume is None):
        raise InputError("fit takes DATA for a new run, or --resume RUN to go on with one")
    from whatwhere.experiments import job

    if resume is not None:
        refuse_beside_resume(context)
        with told_to_stop(resume, f"go on with: whatwhere fit --resume {resume}"):
            job.resume(resume, watch=watch(""))
        return say_run(resume)
    asked = job.Job(
        data=placed(str(data)),
        model=model,
        labels=labels,
        label_seed=label_seed,
        validation=validation,
        settings=read_settings(settings, epochs),
        seed=seed,
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        split="train" if split is None else split.value,
        test_fraction=test_fraction,
    )
    machine = job.Machine(device.value, precision.value, threads)
    run = free_folder(f"{Path(str(data)).stem}-{model}") if out is None else out
    with told_to_stop(run, f"go on with: whatwhere fit --resume {run}"):
        job.fit(asked, run, machine=machine, watch=watch(""), command=typed())
    return say_run(run)


@app.command()
def evaluate(
    run: Run,
    data: OptionalData = None,
    probe: Annotated[
        Probe | None, typer.Option(help="Judge the features by a simple classifier on them.")
    ] = None,
    labels: Annotated[
        str, typer.Option(metavar="all|N", help="Labels that the probe is shown.")
    ] = "all",
    label_seed: LabelSeed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_dir: DataDir = None,
    split: Split = None,
    test_fraction: TestFraction = None,
) -> None:
    """Judge a run on the test part of DATA (by default, of what it was trained on)."""
    from whatwhere.evaluate import judge

    if probe is None and labels != "all":
        raise InputError("--labels says how many a --probe is shown; name a probe, or leave it out")
    if probe is not None and split is not None:
        raise InputError("--probe is judged on the test part; leave --split out")
    job, read = read_for(run, data, data_dir, split, test_fraction)
    test = read.test if split is None else read.train
    if test is None:
        raise InputError(
            f"{job.data} has no test part that the run has not seen; name other DATA, "
            "or fit again with --test-fraction F"
        )
    learner = loaded(run)
    told = judge.evaluate(learner, test)
    if probe is not None:
        from dataclasses import replace

        shown = replace(job, labels=labels, label_seed=label_seed).read().train
        told |= judge.probe(learner, shown, test, probe.value)
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{told['n']} {split or 'test'} images of {job.data}")
    for line in lines_of(told):
        typer.echo(line)


@app.command()
def predict(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.csv|FILE.parquet", help="New table.")],
    data_dir: DataDir = None,
    split: Split = None,
) -> None:
    """Write the class of each image, and the probability of every class."""
    from whatwhere.evaluate import tables

    tables.check(out, tables.TABLES)
    images = images_for(run, data, data_dir, split)
    learner = loaded(run)
    tables.write(out, tables.predictions(learner, images))
    typer.echo(f"{len(images)} predictions in {out}")


@app.command()
def embed(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.npz|FILE.parquet", help="New file.")],
    data_dir: DataDir = None,
    split: Split = None,
) -> None:
    """Write the features of each image."""
    from whatwhere.evaluate import tables

    tables.check(out, tables.EMBEDDINGS)
    images = images_for(run, data, data_dir, split)
    learner = loaded(run)
    table = tables.embeddings(learner, images)
    tables.write(out, table)
    typer.echo(f"{len(images)} embeddings of {table['embedding'].shape[1]} numbers in {out}")


@app.command()
def reconstruct(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="New picture.")],
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="Images in the picture.")] = 12,
    data_dir: DataDir = None,
    split: Split = None,
) -> None:
    """Draw the first images above what the learner rebuilds from their codes."""
    from whatwhere.evaluate import judge, tables

    tables.check(out, (".png",))
    images = images_for(run, data, data_dir, split)
    learner = loaded(run)
    error = judge.draw_reconstructions(learner, images, n, out)
    typer.echo(f"{min(n, len(images))} images, mean squared error a pixel {error:.5f}, in {out}")


@app.command()
def compare(
    data: Data,
    models: Annotated[str, typer.Option(metavar="A,B,...", help="Which learners.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the results; what is in it is not run again.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="N,N,...", help="Numbers of labels, or all.")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of labels and weights.")] = 3,
    validation: Validation = "none",
    settings: Set = None,
    epochs: Epochs = None,
    jobs: Jobs = 1,
    data_dir: DataDir = None,
    test_fraction: TestFraction = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.full,
    threads: Threads = None,
) -> None:
    """Fit several learners to the same images and labels, and write one table and one report."""
    from whatwhere.experiments import comparison, table
    from whatwhere.experiments.job import Job, Machine

    base = Job(
        data=placed(data),
        model="",
        validation=validation,
        settings=read_settings(settings, epochs),
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        test_fraction=test_fraction,
    )
    machine = Machine(device.value, precision.value, threads)
    plan = comparison.plan(base, names(models), names(labels), seeds)
    with told_to_stop(out, "the same command goes on"):
        made = table.run(plan, out, machine=machine, jobs=jobs, watch=watch, command=typed())
    typer.echo(table.told(made))
    say_report(out)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Which table; see whatwhere experiments.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="Draws of labels and weights.")] = None,
    budget: Annotated[Budget, typer.Option(help="Minutes, or the whole table.")] = Budget.quick,
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
    part = name if budget is Budget.full else f"{name}-{budget}"
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


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_DIR", help="A run, or a comparison.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="New page.")] = None,
) -> None:
    """Write one page about a run or a comparison, from its files alone."""
    from whatwhere import report as room

    typer.echo(room.write(folder, out))


@app.command()
def models() -> None:
    """List the learners and their hyper-parameters."""
    from whatwhere import models as room

    for name, (_, _, what) in room.CONTENTS.items():
        typer.echo(f"{name:8} {what}")
        learner = room.learner_class(name)()
        for key, value in learner.hyper_parameters().items():
            if key not in ("image_shape", "channels", "value_range"):
                typer.echo(f"  --set {key}={value}")


@app.command("experiments")
def list_experiments() -> None:
    """List the published tables that reproduce knows."""
    from whatwhere import experiments

    for name, (_, what) in experiments.CONTENTS.items():
        typer.echo(f"{name:14} {what}")


@app.command("data")
def list_data(data_dir: DataDir = None) -> None:
    """List the named sets, and where they are looked for."""
    from whatwhere.data import sources

    folder = sources.data_folder(data_dir)
    for name, source in sources.NAMES.items():
        told = source.describe()
        there = "" if source.present(folder) else f"; not here: needs {told['files']}"
        typer.echo(f"{name:14} {told['images']} images, {told['size']}, {told['licence']}{there}")
    typer.echo(f"looked for in {folder} (--data-dir, or WHATWHERE_DATA)")


def refuse_beside_resume(context: typer.Context) -> None:
    """Refuse an option that a resumed run would not heed."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name != "resume" and source is not None and source.name == "COMMANDLINE":
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            raise InputError(f"--resume RUN reads everything from the run; leave {option} out")


def watch(name: str) -> list["Watcher"]:
    """Return the progress line of a run or a cell."""
    from whatwhere.train.progress import ProgressLine

    return [ProgressLine(name)]


@contextmanager
def told_to_stop(folder: Path, way: str) -> Iterator[None]:
    """End the command with 130 after Ctrl-C in training, saying what is kept and how to go on."""
    from whatwhere import runs
    from whatwhere.train.trainer import Diverged, Interrupted

    try:
        yield
    except Interrupted as place:
        raise Ended(
            f"stopped in {place}; {folder} keeps what was learned; {way}", STOPPED
        ) from None
    except Diverged as reason:
        kept = f"; {folder} keeps the epoch before" if runs.has_checkpoint(folder) else ""
        raise Ended(f"training diverged: {reason}{kept}", MENDABLE) from None


def typed() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["whatwhere", *sys.argv[1:]])


def names(text: str) -> list[str]:
    """Split a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_settings(pairs: list[str] | None, epochs: int | None) -> dict[str, Any]:
    """Return hyper-parameters by name, as text."""
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set {pair}: it takes KEY=VALUE, as in --set learning_rate=0.001")
        settings[name.strip().replace("-", "_")] = value.strip()
    if epochs is not None:
        settings["epochs"] = epochs
    return settings


def placed(data: str) -> str:
    """Return DATA as it is found from every folder: a run may be asked for from another."""
    return str(Path(data).resolve()) if Path(data).is_file() else data


def free_folder(name: str) -> Path:
    """Return the first of runs/NAME-1, runs/NAME-2, ... that is not there."""
    return next(folder for k in count(1) if not (folder := Path("runs") / f"{name}-{k}").exists())


def read_for(
    run: Path,
    data: str | None,
    data_dir: Path | None,
    split: Part | None,
    test_fraction: float | None,
) -> tuple["Job", "Read"]:
    """Return the job of a run, or the like for other DATA, and its images."""
    from dataclasses import replace

    from whatwhere import runs
    from whatwhere.experiments.job import Job

    config = runs.read_config(run)
    if "job" not in config and data is None:
        raise InputError(f"{run} does not say what it was trained on; name DATA")
    job = Job(**config["job"]) if "job" in config else Job(str(data), config["model"])
    if data is not None and data != job.data:
        job = replace(job, data=data, split="train", test_fraction=test_fraction)
    elif test_fraction is not None:
        raise InputError(
            "--test-fraction cuts a part off that the run was trained on; leave it out, "
            "name other DATA, or fit again with it"
        )
    if split is not None:
        job = replace(job, split=split.value)
    folder = job.data_dir if data_dir is None else str(data_dir.resolve())
    job = replace(job, data_dir=folder, labels="all", validation="none")
    return job, job.read()


def loaded(run: Path) -> Any:
    """Return the learner of a run, set to read images as they come from DATA."""
    return whatwhere.load(run).set_params(channels="first", value_range=None)


def images_for(run: Path, data: str, data_dir: Path | None, split: Part | None) -> "Images":
    """Return the images of DATA that a run is to look at; by default all of them."""
    _, read = read_for(run, data, data_dir, split or Part.all, None)
    return read.train


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
    if told.get("reconstruction_mse") is not None:
        yield f"reconstruction: mean squared error a pixel {told['reconstruction_mse']:.5f}"
    for floor in told.get("floors") or ():
        low, high = floor["interval"]
        yield f"{floor['name']}: error {floor['error']:.2f} % ({low:.2f} to {high:.2f})"
    if told["error"] is None and told.get("reconstruction_mse") is None:
        yield "nothing to judge: no classifier and no reconstruction; try --probe linear"


def say_run(run: Path) -> None:
    """Say what a finished run reached, and write its report."""
    from whatwhere import runs

    told = json.loads((run / runs.EVALUATION).read_text(encoding="utf-8"))
    if told:
        typer.echo(f"{told['n']} test images")
        for line in lines_of(told):
            typer.echo(line)
    typer.echo(f"run in {run}")
    say_report(run)


def say_report(folder: Path) -> None:
    """Write the report of a folder, and say where it is."""
    from whatwhere import report as room

    typer.echo(f"report in {room.write(folder)}")


class Ended(Exception):
    """The command ends early, with one line and an exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


MENDABLE, STOPPED = 2, 130
USERS_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOENT),
)


def main() -> None:
    """Run the command line: exit 0, 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        app(standalone_mode=False)
    except InputError as error:
        end(str(error), MENDABLE)
    except typer.TyperException as error:
        # The parser has words for everything that it refuses, but for no word at all.
        end(error.format_message() or "name a command; see whatwhere --help", MENDABLE)
    except Ended as error:
        end(str(error), error.code)
    except (KeyboardInterrupt, typer.Abort):
        end("stopped", STOPPED)
    except OSError as error:
        if error.errno not in USERS_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        end(f"{place}{error.strerror}; what was written before is whole", MENDABLE)


def end(line: str, code: int) -> NoReturn:
    """Say one line on stderr and leave."""
    print(f"whatwhere: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)
