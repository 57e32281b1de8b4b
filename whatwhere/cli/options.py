"""What the commands take: each argument and option is said once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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


class Fit(StrEnum):
    """How an image is brought to a square."""

    crop = "crop"
    pad = "pad"


class ProbeName(StrEnum):
    """A simple classifier on features."""

    linear = "linear"
    knn = "knn"
    linear_svm = "linear_svm"
    svm = "svm"


class Beginning(StrEnum):
    """Where chains begin."""

    data = "data"
    noise = "noise"


class BudgetName(StrEnum):
    """How long a table may take."""

    quick = "quick"
    full = "full"


DATA, MACHINE = "Data", "Device"
DATA_ARGUMENT = typer.Argument(
    metavar="DATA", help="A named set, a folder of images, or an .npz file."
)
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
ImageSize = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Bring every image to N x N pixels.", rich_help_panel=DATA
    ),
]
FitOption = Annotated[
    Fit | None,
    typer.Option(
        "--fit",
        help="With --image-size: cut the middle out (crop, the default), or fill up (pad).",
        rich_help_panel=DATA,
    ),
]
KeepDepth = Annotated[
    bool,
    typer.Option("--keep-depth", help="Keep 16 bits a pixel of a folder.", rich_help_panel=DATA),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Do not keep the decoded images of a folder.", rich_help_panel=DATA
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        metavar="all|none|N|FILE.csv",
        help="Which labels are shown: N in total, balanced over the classes; or those of a table "
        "with the columns file and label.",
    ),
]
LabelSeed = Annotated[int, typer.Option(help="Which draw of labels.")]
Validation = Annotated[
    str,
    typer.Option(
        metavar="none|FRACTION|COUNT",
        help="Labeled images kept out of training, to judge the learner after each epoch and to "
        "calibrate its probabilities.",
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
Devices = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Processes, one a device.", rich_help_panel=MACHINE),
]
NumNodes = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Nodes with as many; torchrun or srun starts them.",
        rich_help_panel=MACHINE,
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the training step.", rich_help_panel=MACHINE),
]
Table = Annotated[Path, typer.Option(metavar="FILE.csv|FILE.parquet", help="New table.")]
Picture = Annotated[Path, typer.Option(metavar="FILE.png", help="New picture.")]
Shown = Annotated[int, typer.Option("-n", min=1, max=200, help="Images in the picture.")]
