"""Commands that use a run.

evaluate, predict, embed, reconstruct, denoise, complete, sample, outliers, export.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from whatwhere.cli.options import (
    Beginning,
    Data,
    DataDir,
    Fit,
    FitOption,
    ImageSize,
    LabelSeed,
    NoCache,
    OptionalData,
    Part,
    Picture,
    ProbeName,
    Run,
    Shown,
    Split,
    Table,
    TestFraction,
)
from whatwhere.cli.places import (
    job_for,
    label_options,
    loaded,
    refuse_inside,
    suited,
    trained_on,
)
from whatwhere.cli.words import lines_of, names, tell
from whatwhere.core import HasLikelihood, InputError

if TYPE_CHECKING:
    from whatwhere.data.images import Images
    from whatwhere.learner import Learner

LEVEL = 0.3  # of the noise that is added, where none is said
EVERY = 5.0  # seconds between two lines that say how far a long command is
SKIPPED = "-skipped.csv"  # beside what a command writes


def evaluate(
    run: Run,
    data: OptionalData = None,
    probe: Annotated[
        ProbeName | None, typer.Option(help="Judge the features by a simple classifier on them.")
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="all|N|FILE.csv",
            help="Labels that the probe is shown; or the table that says the true ones.",
        ),
    ] = "all",
    label_seed: LabelSeed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_dir: DataDir = None,
    split: Split = None,
    test_fraction: TestFraction = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Judge a run on the test part of DATA (by default, of what it was trained on)."""
    from whatwhere.evaluate import judge
    from whatwhere.experiments.fitting import told_of_skipped

    shown, label_file = label_options(labels)
    if probe is None and shown != "all":
        raise InputError("--labels says how many a --probe is shown; name a probe, or leave it out")
    if probe is not None and split is not None:
        raise InputError("--probe is judged on the test part; leave --split out")
    job = job_for(
        run,
        data,
        data_dir=data_dir,
        split=split,
        test_fraction=test_fraction,
        label_file=label_file,
        image_size=image_size,
        how=how,
    )
    read = job.read(not no_cache)
    test = read.test if split is None else read.train
    if test is None:
        raise InputError(
            f"{job.data} has no test part that the run has not seen; name other DATA with "
            "--split all, or fit again with --test-fraction F"
        )
    if split in (Part.train, Part.all) and (data is None or job.data == trained_on(run)):
        tell(f"{run} was trained on images among these: the numbers are better than on new ones")
    learner = loaded(run)
    test = suited(test, learner, run, job.data)
    for line in told_of_skipped(read.data.skipped):
        tell(line)
    if isinstance(learner.module_, HasLikelihood):
        tell("finding log Z as carefully as for a published number: minutes, if it is estimated")
    told = judge.evaluate(learner, test, careful=True)
    if probe is not None:
        few = replace(job, labels=shown, label_seed=label_seed).read(not no_cache).train
        told |= judge.probe(learner, suited(few, learner, run, job.data), test, probe.value)
    if as_json:
        typer.echo(json.dumps(told))
        return
    part = "" if split is Part.all else f"{split or 'test'} "
    typer.echo(f"{told['n']} {part}images of {job.data}")
    for line in lines_of(told):
        typer.echo(line)


def predict(
    run: Run,
    data: Data,
    out: Table,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Write the class of each image, and the probability of every class."""
    from whatwhere.evaluate import tables

    tables.check(out, tables.TABLES)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    tables.write(out, tables.predictions(learner, images))
    typer.echo(f"{len(images)} predictions in {out}")


def embed(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.npz|FILE.parquet", help="New file.")],
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Write the features of each image."""
    from whatwhere.evaluate import tables

    tables.check(out, tables.EMBEDDINGS)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    table = tables.embeddings(learner, images)
    tables.write(out, table)
    typer.echo(f"{len(images)} embeddings of {table['embedding'].shape[1]} numbers in {out}")


def reconstruct(
    run: Run,
    data: Data,
    out: Picture,
    n: Shown = 12,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Draw the first images above what the learner rebuilds from their codes."""
    from whatwhere.evaluate import judge, tables

    tables.check(out, tables.PICTURES)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    error = judge.draw_reconstructions(learner, images, n, out)
    typer.echo(f"{min(n, len(images))} images, mean squared error a pixel {error:.5f}, in {out}")


def denoise(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder.")],
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="masking|gaussian|salt-and-pepper",
            help="Add noise first, to see what the run can do on clean images.",
        ),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            help="Part of the pixels that --noise changes; of gaussian, its deviation (pixels are "
            f"in 0 to 1). Default: {LEVEL}.",
        ),
    ] = None,
    n: Shown = 12,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Write each image with its noise taken out, and a picture of the first before and after."""
    from whatwhere.data.corruption import corruption
    from whatwhere.evaluate import denoising

    denoising.check(out)
    if level is not None and noise is None:
        raise InputError(f"--level {level:g} says how much --noise is added; name a noise too")
    added = None if noise is None else corruption(noise, LEVEL if level is None else level)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    progress = _progress(len(images))
    told = denoising.write(learner, images, out, added, n=n, progress=progress)
    if learner.undoes is None:
        tell(
            f"{run} was not trained to undo noise, so what it rebuilds may keep much of it; "
            "--model denoising_autoencoder is"
        )
    typer.echo(
        f"{told.n} denoised images in {out}, the first {told.shown} before and after in "
        f"{out / denoising.OVERVIEW}"
    )
    if told.noisy is not None:
        typer.echo(
            f"{added}: mean squared error a pixel {told.noisy:.5f} with the noise, "
            f"{told.denoised:.5f} denoised"
        )


def complete(
    run: Run,
    data: Data,
    mask: Annotated[
        str,
        typer.Option(
            metavar="left|right|top|bottom|center|FILE.png",
            help="Which part is hidden; of a picture, what is black.",
        ),
    ],
    out: Picture,
    n: Shown = 12,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Hide a part of the first images, and draw how the learner fills it in."""
    from whatwhere.evaluate import completion, tables

    tables.check(out, tables.PICTURES)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    hidden = completion.mask(mask, images.shape)
    told = completion.draw(learner, images, n, hidden, out)
    single = f", single draws: {told['mse_single']:.5f}" if "mse_single" in told else ""
    typer.echo(
        f"{told['n']} images, {told['hidden']:.0%} hidden, in {out}; mean squared error a hidden "
        f"pixel {told['mse']:.5f} (the mean of what is seen: {told['mse_start']:.5f}{single})"
    )


def sample(
    run: Run,
    data: OptionalData = None,
    *,
    out: Picture,
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="Images to draw.")] = 64,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    gibbs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps of Gibbs sampling of each chain.")
    ] = 1000,
    beginning: Annotated[
        Beginning, typer.Option("--from", help="Where chains begin.")
    ] = Beginning.noise,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Draw new images, and a filmstrip of the chains that lead there.

    With --from data, chains begin at images of DATA (by default, of what the run was trained on).
    """
    from whatwhere.evaluate import sampling, tables

    for path in (out, sampling.beside(out)):
        tables.check(path, tables.PICTURES)
    learner = loaded(run)
    sampling.check(learner)
    images = None
    if beginning is Beginning.data:
        images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    elif any(given is not None for given in (data, split, image_size, how)):
        raise InputError("DATA says at which images chains begin; add --from data, or leave it out")
    told = sampling.draw(learner, out, n, gibbs, seed, images)
    typer.echo(
        f"{told.n} samples in {out}, each after {gibbs:,} steps of Gibbs sampling from "
        f"{beginning.value}; {told.shown} of the chains on their way in {told.filmstrip}"
    )


def outliers(
    run: Run,
    data: Data,
    out: Table,
    data_dir: DataDir = None,
    split: Split = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Rank the images by how unusual they are to the run, with a picture of the oddest."""
    from whatwhere.evaluate import outliers as room
    from whatwhere.evaluate import tables

    tables.check(out, tables.TABLES)
    learner = loaded(run)
    images = images_for(learner, run, data, out, data_dir, split, image_size, how, no_cache)
    room.write(learner, images, out)
    typer.echo(f"{len(images)} images ranked in {out}, the oddest in {out.with_suffix('.png')}")


def export(
    run: Run,
    data: OptionalData = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="New file.")],
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Of probabilities, embedding and reconstruction. Default: all that the run has.",
        ),
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Write a run as ONNX, checked on images (by default, those it was trained on or tested on)."""
    from whatwhere.evaluate import tables
    from whatwhere.export import onnx

    tables.check(out, onnx.ENDINGS)
    job = job_for(run, data, data_dir=data_dir, image_size=image_size, how=how)
    data_set = job.load(not no_cache)
    images = suited(data_set.test or data_set.train, loaded(run), run, job.data)
    told = onnx.write(run, out, images, None if outputs is None else names(outputs))
    largest = max(told["differences"].values())
    typer.echo(
        f"{', '.join(told['differences'])} in {out}, {told['bytes']:,} bytes; on "
        f"{told['n_images']:,} images within {largest:.1e} of torch's numbers"
    )


def _progress(n: int) -> Callable[[int], None]:
    """Return what says on stderr how many of n images are done, every few seconds."""
    last = monotonic()

    def said(done: int) -> None:
        nonlocal last
        if monotonic() - last >= EVERY and done < n:
            last = monotonic()
            tell(f"{done:,} of {n:,} images")

    return said


def images_for(
    learner: "Learner",
    run: Path,
    data: str | None,
    out: Path,
    data_dir: Path | None,
    split: Part | None,
    image_size: int | None,
    how: Fit | None,
    no_cache: bool,
) -> "Images":
    """Return the images of DATA that a run is to look at; by default all of them.

    Without DATA they are of what it was trained on.
    What was skipped is told, and listed beside `out`.
    """
    from whatwhere import runs
    from whatwhere.experiments.fitting import told_of_skipped

    job = job_for(
        run, data, data_dir=data_dir, split=split or Part.all, image_size=image_size, how=how
    )
    refuse_inside(out, job.data if data is None else data)
    data_set = job.load(not no_cache)
    images = suited(data_set.train, learner, run, job.data)
    if data_set.skipped:
        listed = out.with_name(f"{out.stem}{SKIPPED}")
        runs.write_rows(listed, [("file", "reason"), *data_set.skipped])
        for line in told_of_skipped(data_set.skipped):
            tell(f"{line}; all in {listed}")
    return images
