"""The command that judges features by one protocol, wherever they come from: probe."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whatwhere.cli.options import (
    DataDir,
    Fit,
    FitOption,
    ImageSize,
    NoCache,
    ProbeName,
    TestFraction,
)
from whatwhere.cli.places import job_for, loaded, trained_on
from whatwhere.cli.words import names, tell
from whatwhere.core import InputError, unknown

if TYPE_CHECKING:
    import numpy as np

    from whatwhere.data.images import DataSet, Images
    from whatwhere.evaluate.protocol import Labels, Record, Source
    from whatwhere.experiments.job import Job

EMBEDDINGS = ".npz"
READING = {"image_size": None, "fit": None, "keep_depth": False}  # of a job that says nothing
PARTS = ("x_train", "y_train", "x_test", "y_test")


def probe(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Run folders, or .npz files of embeddings: x_train and x_test, a row of features "
            "an image, y_train and y_test.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Images to judge runs on. Default: what they were fitted to."
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="N,N,...", help="How many labels are shown, balanced over the classes; or all."
        ),
    ] = "100,1000",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of so many labels.")] = 3,
    judges: Annotated[
        str,
        typer.Option(
            "--probes", metavar="A,B,...", help=f"Of {', '.join(one.value for one in ProbeName)}."
        ),
    ] = "linear,knn,linear_svm",
    level: Annotated[
        str | None,
        typer.Option(metavar="NAME|all", help="Which level of a run. Default: what embed gives."),
    ] = None,
    pool: Annotated[
        str,
        typer.Option(metavar="none|quadrants|mean|max", help="What is left of a level's maps."),
    ] = "none",
    where: Annotated[
        bool, typer.Option("--where", help="Tell the probes where each maximum was, too.")
    ] = False,
    fine_tune: Annotated[
        bool,
        typer.Option(
            "--fine-tune",
            help="Also train nets on the labels: begun as the runs, and with random weights.",
        ),
    ] = False,
    floors: Annotated[
        bool,
        typer.Option(help="Also judge raw pixels, principal components and random filters."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_dir: DataDir = None,
    test_fraction: TestFraction = None,
    image_size: ImageSize = None,
    how: FitOption = None,
    no_cache: NoCache = False,
) -> None:
    """Judge features by simple classifiers on few labels, all sources on the same draws.

    A row is a source and a probe, a column a number of labels. The first source is compared with
    the others draw by draw.
    """
    from whatwhere.evaluate import protocol
    from whatwhere.evaluate.features import POOLS, features
    from whatwhere.experiments.table import told

    if pool not in POOLS:
        raise unknown("no way to pool is called", pool, POOLS)
    numbers = [str(int(n)) if n.isdecimal() else n for n in names(labels)]
    probes = names(judges)
    protocol.check(numbers, probes)
    runs = [path for path in sources if path.suffix.lower() != EMBEDDINGS]
    _check_sources(
        runs,
        of_runs=level is not None or where or fine_tune or pool != "none",
        of_images=any(one is not None for one in (test_fraction, image_size, how)),
    )
    read = None
    if runs or data is not None:
        read = _read(runs, data, data_dir, test_fraction, image_size, how, no_cache)
    tables = {path: _table(path) for path in sources if path not in runs}
    known = _labels(tables, read)
    rows = protocol.needed(known, numbers, seeds)

    def source_of(learner: Any, train: "Images", test: "Images") -> "Source":
        asked: dict[str, Any] = {"level": level, "pool": pool, "where": where}
        return protocol.Source(
            features(learner, train.x, **asked), features(learner, test.x, **asked)
        )

    found: dict[str, Source] = {}
    learners: dict[str, tuple[Any, Images, Images]] = {}
    for path in sources:
        if path in tables:
            x_train, x_test = (tables[path][key] for key in ("x_train", "x_test"))
            found[str(path)] = protocol.Source(x_train[rows], x_test)
        else:
            assert read is not None and read.test is not None
            learners[str(path)] = _seen(path, read, rows)
            found[str(path)] = source_of(*learners[str(path)])
            tell(f"{path}: {found[str(path)].test.shape[1]:,} features an image")
    if floors and read is not None:
        assert read.test is not None
        for name, floor in protocol.FLOORS.items():
            made = floor(read.train.x, read.test.x, rows)
            # By what judges the features, so that they compare; and by the usual machine.
            found[name] = made._replace(probes=tuple(dict.fromkeys([*probes, *made.probes])))
    if floors:
        found |= _random(learners, source_of)
    records = protocol.run(
        found, known, numbers=numbers, draws=seeds, judges=probes, rows=rows, tell=tell
    )
    tuned: list[tuple[str, str]] = []
    if fine_tune:
        more, tuned = _fine_tuned(learners, known, numbers, seeds, rows)
        records += more
    table = protocol.table(records, [*_differences(records, list(found), probes), *tuned])
    if as_json:
        typer.echo(json.dumps({"n": int((known.test >= 0).sum()), "records": records} | table))
        return
    typer.echo(told(table))


def _check_sources(runs: Sequence[Path], *, of_runs: bool, of_images: bool) -> None:
    """Refuse files that are neither, and options that mean nothing where there are no runs."""
    for path in runs:
        if path.is_file():
            raise InputError(
                f"{path} is no run folder; embeddings are an {EMBEDDINGS} of {', '.join(PARTS)}"
            )
    if not runs and of_runs:
        raise InputError(
            "--level, --pool, --where and --fine-tune ask for a run; embeddings of a file are "
            "judged as they are"
        )
    if not runs and of_images:
        raise InputError(
            "--test-fraction, --image-size and --fit are about images, and embeddings of a file "
            "have none; leave them out"
        )


def _read(
    runs: Sequence[Path],
    data: str | None,
    data_dir: Path | None,
    test_fraction: float | None,
    image_size: int | None,
    how: Fit | None,
    no_cache: bool,
) -> "DataSet":
    """Return the images that runs are judged on, with a test part."""
    from whatwhere.experiments.fitting import told_of_skipped

    if not runs:
        raise InputError("--data says what runs are judged on, and there is none; leave it out")
    if data is None and len(former := {trained_on(run) for run in runs}) > 1:
        raise InputError(
            f"the runs were fitted to different images ({', '.join(sorted(map(str, former)))}); "
            "name those to judge them on, --data DATA"
        )
    job = job_for(
        runs[0],
        data,
        data_dir=data_dir,
        test_fraction=test_fraction,
        image_size=image_size,
        how=how,
    )
    if job.data != trained_on(runs[0]):
        job = _as_they_come(job, runs, image_size, how)
    read = job.load(not no_cache)
    if read.test is None:
        way = "fit again with --test-fraction F"
        if job.data != trained_on(runs[0]):
            way = "cut one off it with --test-fraction F"
        part = "" if job.split == "train" else f", of which {runs[0]} saw the {job.split} part,"
        raise InputError(f"{job.data}{part} has no test part; name other --data, or {way}")
    for line in told_of_skipped(read.skipped):
        tell(line)
    for run in runs:
        if trained_on(run) != job.data or run != runs[0]:
            _refuse_what_was_met(run, job, read, not no_cache)
    return read


def _as_they_come(
    job: "Job", runs: Sequence[Path], image_size: int | None, how: Fit | None
) -> "Job":
    """Return the job that reads other images for all runs alike.

    A folder, whose images may differ in size, is read as the runs read theirs, if all did the same.
    """
    ways = [_reading(run) for run in runs]
    alike = Path(job.data).is_dir() and all(way == ways[0] for way in ways)
    asked = {"image_size": image_size, "fit": None if how is None else how.value}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(job, **((ways[0] if alike else READING) | given))


def _reading(run: Path) -> dict[str, Any]:
    """Return how a run brought its images together."""
    from whatwhere import runs

    job = runs.read_config(run).get("job", {})
    return {name: job.get(name, usual) for name, usual in READING.items()}


def _refuse_what_was_met(run: Path, job: "Job", read: "DataSet", cache: bool) -> None:
    """Refuse to judge a run on images that it was trained on."""
    from whatwhere.experiments import beginning

    # As the run read its own: the same image is another one in another size.
    alike = replace(job, **_reading(run))
    try:
        seen = read if alike == job else alike.load(cache)
    except InputError:
        seen = read
    assert seen.test is not None
    n = beginning.n_met(seen.test, beginning.trained_on(run, cache), seen.train)
    if n:
        raise InputError(
            f"{n:,} of the test images of {read.name} were trained on by {run}, and would judge it "
            "too well; name other --data, or cut the same test part off as there"
        )


def _table(path: Path) -> "dict[str, np.ndarray]":
    """Return embeddings and labels out of a file."""
    from whatwhere.data.sources import npz

    arrays = npz.read_arrays(path)
    if any(key not in arrays for key in PARTS):
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; embeddings to probe are "
            f"{', '.join(PARTS)} (whatwhere embed writes one part, without labels)"
        )
    for key in ("x_train", "x_test"):
        if arrays[key].ndim != 2:
            raise InputError(
                f"{key} of {path} has the shape {arrays[key].shape}; embeddings are (n, K), a row "
                "an image: flatten each, or fit a learner to images"
            )
    for part in ("train", "test"):
        y = arrays[f"y_{part}"]
        if y.size != len(y):
            raise InputError(
                f"y_{part} of {path} has the shape {y.shape}; a row has one class (of one-hot rows "
                "it is y.argmax(axis=1)), or -1 for none"
            )
        n, n_labels = len(arrays[f"x_{part}"]), len(y)
        if n != n_labels:
            raise InputError(
                f"{path} has {n} rows of x_{part} and {n_labels} of y_{part}; give a label a row "
                "(-1 for none)"
            )
    return arrays


def _labels(tables: "dict[Path, dict[str, np.ndarray]]", read: "DataSet | None") -> "Labels":
    """Return the labels that all sources share."""
    from whatwhere.evaluate import protocol

    shared = {
        str(path): protocol.labels_of(arrays["y_train"].reshape(-1), arrays["y_test"].reshape(-1))
        for path, arrays in tables.items()
    }
    if read is not None:
        assert read.test is not None
        own = protocol.Labels(read.train.y, read.test.y, read.train.classes)
        shared = {read.name: own, **shared}

    def called(labels: "Labels") -> list[list[str | None]]:
        return [
            [_class(labels.classes[y]) if y >= 0 else None for y in part.tolist()]
            for part in (labels.train, labels.test)
        ]

    (first, labels), *others = shared.items()
    for name, theirs in others:
        if (there := called(theirs)) != (here := called(labels)):
            raise InputError(
                f"{name} and {first} have other labels, or in another order "
                f"({_differing(there, here)}); sources are judged on the same images in the same "
                "order"
            )
    return labels


def _class(name: Any) -> str:
    """Return what a class is called: 3.0 out of a table of floats is 3."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _differing(some: list[list[str | None]], others: list[list[str | None]]) -> str:
    """Say where labels of the training and the test part differ first."""
    for part, a, b in zip(("training", "test"), some, others, strict=True):
        if len(a) != len(b):
            return f"{len(a):,} and {len(b):,} {part} rows"
        for row, (one, other) in enumerate(zip(a, b, strict=True)):
            if one != other:
                return f"{part} row {row}: {one} and {other}"
    raise AssertionError("they are the same")


def _seen(path: Path, read: "DataSet", rows: "np.ndarray") -> "tuple[Any, Images, Images]":
    """Return the learner of a run, and the images of both parts as it sees them."""
    from whatwhere.evaluate.features import as_seen
    from whatwhere.learner import ImageClassifier

    learner = loaded(path)
    assert read.test is not None
    if isinstance(learner, ImageClassifier) and len(learner.classes_):
        tell(
            f"{path} was itself fitted with {learner.spec_.n_labeled:,} labels: where a draw shows "
            "others, its features know more than the probe"
        )
    if learner.image_shape_ != read.train.shape:
        here, there = (" x ".join(map(str, s)) for s in (read.train.shape, learner.image_shape_))
        tell(f"{path}: images of {here} are brought to the {there} that it was fitted to")
    train, test = read.train.take(rows), read.test
    return (
        learner,
        replace(train, x=as_seen(learner, train.x)),
        replace(test, x=as_seen(learner, test.x)),
    )


def _random(
    learners: "dict[str, tuple[Any, Images, Images]]",
    source_of: "Callable[[Any, Images, Images], Source]",
) -> "dict[str, Source]":
    """Return the features of each learner as it was before it learned; those alike are one."""
    from whatwhere.evaluate import nets

    called, found = Names(), {}
    for learner, train, test in learners.values():
        try:
            fresh = nets.random_filters(learner)
        except InputError:
            continue
        made = source_of(fresh, train, test)
        digest = blake2b(made.train.tobytes() + made.test.tobytes()).digest()
        found[called.of(f"random filters {_net(learner)}", digest)] = made
    return found


class Names:
    """Names for things, of which two that are not the same are never called alike."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, Any], str] = {}

    def of(self, name: str, thing: Any) -> str:
        """Return the name of a thing: as given, or with a number where another is called so."""
        alike = sum(other == name for other, _ in self.known)
        return self.known.setdefault((name, thing), f"{name} ({alike + 1})" if alike else name)


def _net(learner: Any) -> str:
    """Return what a learner's net is called: its architecture, or else its kind."""
    from whatwhere import runs
    from whatwhere.nn.conv import Encoder

    encoder = getattr(learner.module_, "encoder", None)
    if isinstance(encoder, Encoder) and encoder.layers:
        return "-".join(map(str, encoder.layers))
    return runs.snake_case(type(learner).__name__)


def _fine_tuned(
    learners: "dict[str, tuple[Any, Images, Images]]",
    known: "Labels",
    numbers: Sequence[str],
    seeds: int,
    rows: "np.ndarray",
) -> "tuple[list[Record], list[tuple[str, str]]]":
    """Return records of nets that are trained on the labels, and which rows to compare."""
    import numpy as np

    from whatwhere.data.images import hide_labels
    from whatwhere.evaluate import nets, protocol

    records, compared, called = [], {}, Names()
    for name, (learner, train, test) in learners.items():
        if nets.encoder_of(learner) is None:
            tell(
                f"{name} has no convolutional encoder of whole images to fine-tune (a dense layer "
                "that looks at a patch is none); its features are judged alone"
            )
            continue
        net = nets.same_net(learner)
        kind = net.batch_norm, learner.image_shape_
        tuned = f"{name}, fine-tuned"
        alone = called.of(f"{net.architecture}, labels alone", kind)
        fresh = alone not in compared.values()
        compared[tuned] = alone
        for n in numbers:
            for draw in protocol.draws_of(n, seeds):
                tell(f"{tuned}, {n} labels, draw {draw + 1}")
                at = np.searchsorted(rows, protocol.drawn(known, n, draw))
                shown = hide_labels(train, at)
                fits = {tuned: nets.fine_tuned} | ({alone: nets.labels_alone} if fresh else {})
                for row, fit in fits.items():
                    net = fit(learner, shown, seed=draw)
                    predicted = nets.places(net, test)
                    records.append(protocol.record(row, n, draw, known, predicted))
    return records, list(compared.items())


def _differences(
    records: "Sequence[Record]", sources: Sequence[str], probes: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the rows to compare: the first source with each other, by the same probe."""
    from whatwhere.evaluate.protocol import row_of

    there = {one["row"] for one in records}
    pairs = [(row_of(sources[0], by), row_of(one, by)) for one in sources[1:] for by in probes]
    return [pair for pair in pairs if there.issuperset(pair)]
