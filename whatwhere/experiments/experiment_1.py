"""Experiment 1: features that were learned without labels, judged side by side.

Each learner is trained on a set's own images without labels, all with the same net where that can
be, and is then judged by the same probes on the same few labels. Beside them stand a SWWAE that
sees the labels while it learns, the same net on labels alone, and what needs no learning.

Protocol: features are the maxima of the quarters of the maps of all levels. Labels are drawn
balanced; a draw shows every row the same. The test images are looked at once.

STL-10, the set of the published numbers, takes part where its files are at hand.

References
----------
Zhao, Mathieu, Goroshin, LeCun. Stacked What-Where Auto-encoders. 2016. arXiv:1506.02351
Dosovitskiy et al. Discriminative unsupervised feature learning with exemplar convolutional neural
networks. TPAMI 2016. arXiv:1406.6909
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from whatwhere.core import UNLABELED
from whatwhere.data.images import Images, draw_labels, hide_labels
from whatwhere.data.sources import NAMES, data_folder
from whatwhere.experiments.job import Job, Read
from whatwhere.experiments.plan import Cell, Column, Method, Plan, Result, metric, trained

if TYPE_CHECKING:
    from whatwhere.learner import Learner
    from whatwhere.train.trainer import Trainer

SETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
BY_HAND = {"stl10": "STL-10"}
NET = "(32)5c-2p-(64)3c-2p-(128)3c-2p"
LABELS = ("100", "1000", "4000", "all")
FEW, SOME, MORE = LABELS[:3]
CELL = "test"

SWWAE, EXEMPLAR, COPYING, RANDOM, PCA, PIXELS, SEMI, ALONE = (
    "SWWAE",
    "Exemplar-CNN",
    "auto-encoder without where",
    "random filters",
    "principal components",
    "raw pixels",
    "SWWAE that sees the labels",
    "labels alone",
)
EACH = tuple(f"{int(n):,} labels" if n.isdecimal() else "all labels" for n in LABELS)
PUBLISHED = {
    (f"CIFAR-10: {EXEMPLAR}", "4,000 labels"): "23.4 (features of STL-10)",
    (f"CIFAR-10: {EXEMPLAR}", "all labels"): "15.7 (features of STL-10)",
    (f"STL-10: {EXEMPLAR}", "1,000 labels"): "25.8",
    (f"STL-10: {SEMI}", "1,000 labels"): "25.67",
}
DIFFERENCES = (
    (SWWAE, EXEMPLAR),
    (SWWAE, COPYING),
    (SWWAE, RANDOM),
    (EXEMPLAR, RANDOM),
    (COPYING, RANDOM),
    (SEMI, ALONE),
)
ON_STL10 = (
    "STL-10: all of its 5,000 labeled images are among those that are learned from; all labels are "
    "these 5,000. The draws of 1,000 are ours, not the ten published ones. Its images have nine "
    "times the pixels of CIFAR-10's."
)
IMAGES = {"quick": 10_000, "full": None}  # training images; None for all
EPOCHS = {"quick": 3, "full": 12}  # passes over them, without labels
OWN_EPOCHS = {"quick": 3, "full": 2}  # of nets that see the labels
N_SEEDS = {"quick": 500, "full": 2000}
SEEDS, ENOUGH, DRAWS_OF_FEW = {"quick": 1, "full": 3}, 3, 10
WITHIN = {"quick": False, "full": True}
"""Whether further draws of 100 labels judge the same features, for want of time to learn others."""
JUDGES = {"linear": LABELS, "knn": (SOME,), "svm": (SOME,), "linear_svm": (MORE,)}


def shown_part(cell: Cell, read: Read) -> Read:
    """Return the images with as many training images as the cell takes, and all their labels."""
    whole, n = read.data.train, cell.options["images"]
    return replace(read, train=whole if n is None else some(whole, n))


def some(images: Images, n: int) -> Images:
    """Return n images, as many of each class: of a set with fewer labels, these and others."""
    if n <= images.n_labeled:
        return images.take(draw_labels(images, n, seed=0))
    known, others = labeled(images), np.flatnonzero(images.y == UNLABELED)
    more = np.random.default_rng(0).permutation(others)[: n - len(known)]
    return images.take(np.sort(np.concatenate([known, more])))


def labeled(images: Images) -> np.ndarray:
    """Return the rows that have a label."""
    return np.flatnonzero(images.y != UNLABELED)


Take = Callable[[np.ndarray], np.ndarray]
"""Rows of the training part -> their features."""


def error(cell: Cell, read: Read, judge: str, take: Take, z: np.ndarray, n: str) -> float:
    """Return the error of a probe with n labels in percent, a mean over the cell's draws.

    Parameters
    ----------
    cell : Cell
    read : Read
    judge : str
        Out of `whatwhere.evaluate.probes.PROBES`.
    take : Take
    z : ndarray (n_test, K)
        Features of the test part.
    n : str
    """
    from whatwhere.evaluate.probes import PROBES

    assert read.test is not None
    errors = []
    for draw in cell.options["draws"][n]:
        rows = drawn(read, n, draw)
        predicted = PROBES[judge]().fit(take(rows), read.train.y[rows]).predict(z)
        errors.append(100 * float((predicted != read.test.y).mean()))
    return float(np.mean(errors))


def drawn(read: Read, n: str, draw: int) -> np.ndarray:
    """Return the training rows whose labels are shown: of all images, or so many, balanced."""
    from whatwhere.evaluate import protocol

    assert read.test is not None
    labels = protocol.Labels(read.train.y, read.test.y, read.train.classes)
    return protocol.drawn(labels, n, draw)


def judged(cell: Cell, read: Read, x: np.ndarray, z: np.ndarray) -> dict[str, float]:
    """Return the errors of all probes: ``linear_100`` and so on.

    Parameters
    ----------
    cell : Cell
    read : Read
    x : ndarray (n_labeled, K)
        Features of the training images that have a label.
    z : ndarray (n_test, K)
        Features of the test part.
    """
    known = labeled(read.train)
    return {
        f"{judge}_{n}": error(cell, read, judge, lambda rows: x[np.searchsorted(known, rows)], z, n)
        for judge, numbers in JUDGES.items()
        for n in numbers
        if n in cell.options["draws"]
    }


def unsupervised(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner without labels, or not at all, and judge its features."""
    from whatwhere.core import HasWhere
    from whatwhere.evaluate.features import ALL, features

    read = shown_part(cell, read)
    assert read.test is not None
    learner = trained(cell.job, replace(read, train=hide_labels(read.train, [])), trainer)

    def seen(images: np.ndarray, *, where: bool = False) -> np.ndarray:
        return features(learner, images, level=ALL, pool="quadrants", where=where)

    metrics = judged(cell, read, seen(read.train.x[labeled(read.train)]), seen(read.test.x))
    if SOME not in cell.options["draws"]:
        return Result(metrics, learner.history_)
    if isinstance(learner.module_, HasWhere):
        # Four times as many numbers: of those images alone that are needed.
        own = partial(seen, where=True)
        z = own(read.test.x)
        metrics[f"where_{SOME}"] = error(
            cell, read, "linear", lambda rows: own(read.train.x[rows]), z, SOME
        )
    return Result(metrics | tuned(cell, read, learner), learner.history_)


def tuned(cell: Cell, read: Read, learner: "Learner") -> dict[str, float]:
    """Return the error of the net that begins with the learner's encoder, with few labels."""
    from whatwhere.evaluate import nets

    if nets.encoder_of(learner) is None:
        return {}
    assert read.test is not None
    errors = []
    for draw in cell.options["draws"][SOME]:
        few = hide_labels(read.train, drawn(read, SOME, draw))
        net = nets.fine_tuned(learner, few, seed=cell.job.seed)
        errors.append(100 * float((nets.places(net, read.test) != read.test.y).mean()))
    return {f"tuned_{SOME}": float(np.mean(errors))}


def pixels(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Judge raw pixels."""
    from whatwhere.evaluate import protocol

    read = shown_part(cell, read)
    assert read.test is not None
    source = protocol.pixels(read.train.x, read.test.x, labeled(read.train))
    return Result(judged(cell, read, source.train, source.test))


def components(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Judge principal components."""
    from whatwhere.evaluate import protocol

    read = shown_part(cell, read)
    assert read.test is not None
    source = protocol.components(read.train.x, read.test.x, labeled(read.train))
    return Result(judged(cell, read, source.train, source.test))


def own_classes(cell: Cell, read: Read, trainer: "Trainer") -> Result:
    """Fit the learner with each number of labels, and judge its own classes.

    The errors are told under the names of the probes in the same columns.
    """
    from whatwhere.evaluate import judge

    read = shown_part(cell, read)
    assert read.test is not None
    metrics, curve = {}, []
    # Several trainings cannot share a checkpoint: a cell that was stopped begins anew.
    trainer = replace(trainer, checkpoint=None)
    for n, draws in cell.options["draws"].items():
        errors = []
        for draw in draws:
            few = replace(read, train=hide_labels(read.train, drawn(read, n, draw)))
            learner = trained(replace(cell.job, labels=n, label_seed=draw), few, trainer)
            errors.append(judge.evaluate(learner, read.test)["error"])
            curve += [epoch | {"labels": n, "draw": draw} for epoch in learner.history_]
        metrics[f"linear_{n}"] = float(np.mean(errors))
    return Result(metrics, curve)


def rows(budget: str, data: str) -> Mapping[str, tuple[str, Method, Mapping[str, Any]]]:
    """Return model, method and settings of each row."""
    n_seeds = N_SEEDS[budget]
    seen = EPOCHS[budget] * (IMAGES[budget] or NAMES[data].n_train)
    net = {"architecture": NET}
    # As many transformed patches as the others see images.
    copies = {"n_seeds": n_seeds, "epochs": seen // n_seeds, "batch_size": 100}
    without, own = {"epochs": EPOCHS[budget]}, {"epochs": OWN_EPOCHS[budget]}
    return {
        SWWAE: ("swwae", unsupervised, net | without | {"learning_rate": 2e-3}),
        EXEMPLAR: ("exemplar_cnn", unsupervised, net | copies),
        COPYING: ("autoencoder", unsupervised, net | without),
        RANDOM: ("cnn", unsupervised, net),
        PCA: ("pca", components, {}),
        PIXELS: ("pixels", pixels, {}),
        SEMI: ("swwae", own_classes, net | own),
        ALONE: ("cnn", own_classes, net | own),
    }


def minutes(record: Mapping[str, Any]) -> float | None:
    """Return how long the nets of a cell with all numbers of labels were trained."""
    curve, whole = record["curve"], SOME in record["options"]["draws"]
    return sum(epoch["seconds"] for epoch in curve) / 60 if curve and whole else None


def columns() -> tuple[Column, ...]:
    """Return the columns: the errors by labels, those of other judges, and the minutes."""
    unit = "%"

    def of(label: str, name: str) -> Column:
        return Column(label, metric(name), unit, 1, CELL)

    return (
        *(of(label, f"linear_{n}") for label, n in zip(EACH, LABELS, strict=True)),
        of("what and where, 1,000", f"where_{SOME}"),
        of("1-NN, 1,000", f"knn_{SOME}"),
        of("RBF-SVM, 1,000", f"svm_{SOME}"),
        of("linear SVM, 4,000", f"linear_svm_{MORE}"),
        of("fine-tuned, 1,000", f"tuned_{SOME}"),
        Column("minutes", minutes, "", 1, CELL),
    )


def draws(n_seeds: int, *, within: bool) -> list[dict[str, list[int]]]:
    """Return the draws of labels, by their number, that each draw of the weights is judged with.

    Errors with 100 labels differ most from draw to draw, so of these there are ten: within the
    draws of the weights, or, once those are `ENOUGH`, with further weights that see no others.
    """
    few = max(n_seeds, DRAWS_OF_FEW if within or n_seeds >= ENOUGH else 0)
    step = n_seeds if within else few
    numbers: list[dict[str, list[int]]] = [
        {n: [draw] for n in LABELS} | {FEW: list(range(draw, few, step)), "all": [0]}
        for draw in range(n_seeds)
    ]
    return numbers + [{FEW: [draw]} for draw in range(n_seeds, step)]


def notes(budget: str, n_seeds: int) -> tuple[str, ...]:
    """Return what a reader of the table has to know."""
    within = WITHIN[budget]
    few = sum(len(numbers[FEW]) for numbers in draws(n_seeds, within=within))
    shared = ", averaged within a draw of weights for features" if within else ""
    return (
        f"The net is {NET} in every row that has one, with batch normalization but for the "
        "auto-encoder, which has none, and logistic pixels with cross-entropy: it differs from the "
        "SWWAE by more than where. Features are the maxima of the quarters of the maps of all "
        "levels, 896 numbers. What and where: each map of a level spread over the four places of "
        "its windows, 3,584 numbers.",
        f"{EPOCHS[budget]} passes over the images without labels in batches of 100, and as many "
        f"transformed patches, of {N_SEEDS[budget]:,} of the images, for the Exemplar-CNN; "
        f"{OWN_EPOCHS[budget]} passes for the nets that see the labels, which meet the same "
        "labeled batches with reconstruction and without.",
        f"{n_seeds} draw{'s' * (n_seeds > 1)} of weights and labels at most, told in brackets"
        + (f"; {few} of 100 labels{shared}" if few > n_seeds else "")
        + ". C of the probes is chosen by cross-validation where each class has ten labels or "
        "more.",
        "The learning rate (of three for the SWWAE and the Exemplar-CNN, of two for the "
        "auto-encoder), noise on the SWWAE's images (none or 0.2) and the number of seeds (of "
        "five) were chosen by the error of the linear probe with 1,000 labels, on 4,000 training "
        "images of CIFAR-10 beside the 10,000 of the quick budget; all else is as the learner has "
        "it by default.",
        "Fine-tuned: the net begun with the features' encoder, all of it trained with 1,000 "
        "labels by the usual recipe for so many; in the row of random filters it begins with "
        "random weights.",
        "Minutes of training on one thread of a busy machine, without the probes; of all the row's "
        "nets where it has several.",
        "Published as context: Exemplar-CNN of 92, 256 and 512 maps, trained on the unlabeled "
        "images of STL-10 and judged on CIFAR-10 by a linear SVM; SWWAE reached 25.67 % on STL-10.",
    )


def plan(budget: str, seeds: int | None, data_dir: str | None) -> Plan:
    """Return the table.

    Parameters
    ----------
    budget : {"quick", "full"}
        Quick is 10,000 training images of each set in place of all, and fewer epochs.
    seeds : int, optional
        Draws of weights and labels; default 1 (quick) or 3. With three or more there are ten of
        100 labels.
    data_dir : str, optional
        A set that is fetched by hand takes part if its files are there.
    """
    n_seeds = seeds or SEEDS[budget]
    folder = data_folder(data_dir)
    sets = SETS | {data: name for data, name in BY_HAND.items() if NAMES[data].present(folder)}
    cells = [
        Cell(
            f"{name}: {row}",
            CELL,
            draw,
            Job(
                data=data,
                model=model,
                labels="none",
                settings=dict(settings),
                seed=draw,
                data_dir=data_dir,
            ),
            budget,
            method,
            {"images": IMAGES[budget], "draws": numbers},
        )
        for data, name in sets.items()
        for row, (model, method, settings) in rows(budget, data).items()
        for draw, numbers in enumerate(
            draws(n_seeds, within=WITHIN[budget] and method is not own_classes)
        )
    ]
    cells.sort(key=lambda cell: cell.draw)  # a whole table with one draw comes first
    n_images = IMAGES[budget]
    plan = Plan(
        title="Experiment 1: features learned without labels",
        caption="Test error in percent, of all test images. Features are learned on "
        f"{f'{n_images:,} of ' if n_images else ''}the set's own training images without labels; "
        "the columns by numbers of labels are logistic regression on them, but for the rows "
        f"“{SEMI}” and “{ALONE}”, whose nets name the classes themselves.",
        columns=columns(),
        cells=tuple(cells),
        published=PUBLISHED,
        differences=tuple(
            (f"{name}: {row}", f"{name}: {other}")
            for name in sets.values()
            for row, other in DIFFERENCES
        ),
        drawn=EACH,
        notes=(*notes(budget, n_seeds), *(ON_STL10 for data in sets if data in BY_HAND)),
    )
    return plan.part(plan.rows)  # published values of other sets have no row
