"""A job: one learner on one set of images, and the machine that it runs on."""

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np

from whatwhere import models
from whatwhere.core import UNLABELED, InputError, unknown
from whatwhere.data import sources
from whatwhere.data.images import DataSet, Images, draw_labels, draw_validation, hide_labels
from whatwhere.data.sources.folder import Reading

if TYPE_CHECKING:
    from whatwhere.learner import Learner

GIVEN_BY_DATA = ("image_shape", "channels", "value_range", "trainer", "random_state")
STAGE_EPOCHS = "stage_epochs"  # is told stage by stage, as STAGE.epochs
LABEL_WORDS = ("all", "none")
SKIPPED_TOLD = 100  # files that a run's record names; skipped.csv names all


@dataclass(frozen=True)
class Machine:
    """On what a job runs.

    Attributes
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"32-true", "bf16-mixed"}
    threads : int, optional
        Of torch on the CPU. Default: as torch chooses, or as OMP_NUM_THREADS says.
    cache : bool
        Whether the decoded images of a folder are kept in the user's cache.
    devices : int
        Processes on each node, one a device. What torchrun or srun started is counted instead.
    num_nodes : int
        Nodes; more than one are started by torchrun or srun.
    compile : bool
        Whether updates are compiled.
    """

    device: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    cache: bool = True
    devices: int = 1
    num_nodes: int = 1
    compile: bool = False

    def fabric(self) -> Any:
        """Return the engine's runtime; among several processes, once they have met.

        Raises
        ------
        InputError
            If a device is not there, or what `compile` needs.
        """
        from whatwhere.train import runtime

        device = self.check()
        return runtime.begin(
            device,
            devices=self.devices,
            n_nodes=self.num_nodes,
            precision=self.precision,
            compiled=self.compile,
        )

    def check(self) -> str:
        """Return the device, after a check that all is there, and set the number of threads."""
        import torch

        there = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        device = self.device
        if device == "auto":
            device = next(name for name in ("cuda", "mps", "cpu") if there[name])
        if not there.get(device, False):
            found = ", ".join(name for name, here in there.items() if here)
            raise InputError(f"there is no device {device!r} here; use --device auto or {found}")
        cores = os.cpu_count() or 1
        if self.threads is not None:
            if self.threads > cores:
                raise InputError(f"{self.threads} threads on {cores} cores; use {cores} at most")
            torch.set_num_threads(self.threads)
        there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, self.devices)
        if self.devices > there:
            raise InputError(
                f"--devices {self.devices}, and there {'is' if there == 1 else 'are'} {there} "
                f"{device} here; use --devices {there}"
            )
        if self.compile:
            check_compiler(device)
        return device


def check_compiler(device: str) -> None:
    """Refuse to compile where there is no compiler.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"--compile needs a C++ compiler, and there is no {compiler} here; "
            "install it (or name another in CXX), or leave --compile out"
        )
    if device == "cuda" and find_spec("triton") is None:
        raise InputError("--compile needs triton on cuda; install it, or leave --compile out")


@dataclass(frozen=True)
class Job:
    """What is fitted on what; all that decides the result but the machine.

    Attributes
    ----------
    data : str
        A named set or a path.
    model : str
        A name in the table of contents of `whatwhere.models`.
    labels : str
        ``all``, ``none`` or how many in total, balanced over the classes.
    label_seed : int
        Which draw of labels.
    validation : str
        ``none``, a count, or a fraction of the labeled images.
    settings : dict
        Hyper-parameters by name, as text or as values.
    seed : int
        Of weights and batches.
    data_dir, split, test_fraction
        See `whatwhere.data.sources.load`.
    label_file : str, optional
        The path of a table that says the labels, in place of the class folders.
    image_size, fit, keep_depth
        See `whatwhere.data.sources.folder.Reading`; fit is crop where it is None.
    start : str, optional
        A run folder whose weights are begun with.
    probe : str, optional
        How many labels, or ``all``, probes of the features are fitted to after each epoch, beside
        training: it does not see them. They are judged on the validation images.
    """

    data: str
    model: str
    labels: str = "all"
    label_seed: int = 0
    validation: str = "none"
    settings: Mapping[str, Any] | None = None
    seed: int = 0
    data_dir: str | None = None
    split: sources.Split = "train"
    test_fraction: float | None = None
    label_file: str | None = None
    image_size: int | None = None
    fit: Literal["crop", "pad"] | None = None
    keep_depth: bool = False
    start: str | None = None
    probe: str | None = None

    def record(self) -> dict[str, Any]:
        """Return what decides the result, as JSON holds it.

        Options that came later than the first recorded tables are left out where nobody asked for
        them, so that the cells of those tables are found again.
        """
        told = asdict(self)
        later = ("label_file", "image_size", "fit", "keep_depth", "start", "probe")
        return {name: value for name, value in told.items() if name not in later or value}

    def learner(self) -> "Learner":
        """Return the learner with its hyper-parameters, every one of them checked.

        Raises
        ------
        InputError
            Naming the key or the value that is wrong, and what would be right.
        """
        cls = models.learner_class(self.model)
        types = get_type_hints(cls)
        told_otherwise = (*GIVEN_BY_DATA, STAGE_EPOCHS)
        known = [f.name for f in fields(cls) if f.init and f.name not in told_otherwise]
        values, epochs = {}, {}
        for name, value in (self.settings or {}).items():
            stage, _, of_stage = name.rpartition(".")
            if stage and of_stage == "epochs":
                epochs[stage] = parse_value(name, value, int)
            elif name in known:
                values[name] = parse_value(name, value, types[name])
            else:
                raise unknown(f"{self.model} has no hyper-parameter", name, known)
        learner = cls(random_state=self.seed, stage_epochs=epochs or None, **values)
        learner.check()
        if values.get("patience") is not None and self.n_validation() is None:
            raise InputError(
                "patience looks at validation images, and there are none; give --validation COUNT, "
                "or leave patience out"
            )
        return learner

    def names_classes(self) -> bool:
        """Return whether the model learns from labels, and so names classes."""
        from whatwhere.learner import ImageClassifier

        known = self.model in models.CONTENTS
        return known and issubclass(models.learner_class(self.model), ImageClassifier)

    def load(self, cache: bool = True) -> DataSet:
        """Return the images as they come, with every label that there is.

        Parameters
        ----------
        cache : bool
            Whether the decoded images of a folder are kept in the user's cache.
        """
        if self.fit is not None and self.image_size is None:
            raise InputError(
                f"--fit {self.fit} says how images come to a size, and none is given; "
                "give --image-size N, or leave --fit out"
            )
        return sources.load(
            self.data,
            data_dir=self.data_dir,
            split=self.split,
            test_fraction=self.test_fraction,
            reading=Reading(
                self.image_size, self.fit or "crop", self.keep_depth, cache, self.label_file
            ),
        )

    def read(self, cache: bool = True) -> "Read":
        """Return the images, with the labels and the validation rows drawn."""
        n_labels, validation, n_probe = self.n_labels(), self.n_validation(), self.n_probe()
        data = self.load(cache)
        whole = data.train
        keep = np.flatnonzero(whole.y >= 0)
        if n_labels is not None:
            keep = draw_labels(whole, n_labels, seed=self.label_seed) if n_labels else keep[:0]
        held = np.empty(0, dtype=np.int64)
        if validation is not None:
            drawn = keep if n_labels is not None else keep[:0]
            held = draw_validation(whole, validation, keep=drawn, seed=self.label_seed)
        train = hide_labels(whole, np.setdiff1d(keep, held))
        rest = np.setdiff1d(np.arange(len(whole)), held)
        read = Read(
            data,
            train.take(rest) if len(held) else train,
            whole.take(held) if len(held) else None,
            None if n_probe is None else _probed(whole, held, n_probe, self.label_seed),
        )
        read.check()
        return read

    def n_labels(self) -> int | None:
        """Return how many labels are asked for; None for all."""
        if self.labels in LABEL_WORDS:
            return None if self.labels == "all" else 0
        if not self.labels.isdecimal() or int(self.labels) == 0:
            raise InputError(
                f"--labels {self.labels}: it takes all, none, or a number from 1 on; or FILE.csv "
                "for a folder of images"
            )
        return int(self.labels)

    def n_probe(self) -> int | None:
        """Return how many labels the probes beside training have; 0 for all, None for no probe.

        Raises
        ------
        InputError
            If it is no number, or nothing is held out to judge them on.
        """
        if self.probe is None:
            return None
        if self.probe != "all" and (not self.probe.isdecimal() or int(self.probe) == 0):
            raise InputError(f"--online-probe {self.probe}: it takes all, or a number from 1 on")
        if self.n_validation() is None:
            raise InputError(
                "--online-probe is judged on validation images, and there are none; "
                "give --validation COUNT, or leave it out"
            )
        return 0 if self.probe == "all" else int(self.probe)

    def n_validation(self) -> float | None:
        """Return the size of the validation part, a count or a fraction; None for none."""
        if self.validation == "none":
            return None
        try:
            value = int(self.validation) if self.validation.isdecimal() else float(self.validation)
        except ValueError:
            value = math.nan
        if not (isinstance(value, int) and value > 0) and not 0 < value < 1:
            raise InputError(
                f"--validation {self.validation}: it takes none, a count from 1 on, "
                "or a fraction between 0 and 1"
            )
        return value


@dataclass(frozen=True)
class Read:
    """Images read for a job.

    Attributes
    ----------
    data : DataSet
        As it came.
    train : Images
        To learn from; hidden labels are `UNLABELED`.
    validation : Images or None
        Not trained on.
    probed : Images or None
        Out of the training images, with the labels that probes beside training are fitted to.
    """

    data: DataSet
    train: Images
    validation: Images | None
    probed: Images | None = None

    @property
    def test(self) -> Images | None:
        """The test part, looked at once, at the end."""
        return self.data.test

    def check(self) -> None:
        """Check that there is something to learn, before anything is written.

        Raises
        ------
        InputError
            If there are too few images or classes, or a class that no training label has.
        """
        name, train = self.data.name, self.train
        if len(train) < 2:
            raise InputError(
                f"{name} leaves {len(train)} image to train on, and it takes two or more; "
                "give more images, or a smaller --validation"
            )
        shown = np.unique(train.y[train.y != UNLABELED])
        if len(shown) == 1:
            raise InputError(
                f"the labels of {name} name one class only, {train.classes[shown[0]]!r}; "
                "a classifier needs two or more, or use --labels none"
            )
        if len(shown) == 0:
            return
        for part, images in (("validation", self.validation), ("test", self.test)):
            strangers = [] if images is None else np.setdiff1d(images.y, [*shown, UNLABELED])
            if len(strangers):
                raise InputError(
                    f"the {part} part of {name} has the class {train.classes[strangers[0]]!r}, and "
                    "no training label has it; show more labels, or leave that class out"
                )

    def fingerprints(self) -> dict[str, str | None]:
        """Return what tells these images from all others."""
        return {
            "fingerprint": self.data.train.fingerprint(),
            "test_fingerprint": None if self.test is None else self.test.fingerprint(),
        }

    def facts(self, job: Job) -> dict[str, Any]:
        """Return what a run records of its data."""
        use = "judging after each epoch"
        if self.train.n_labeled and job.names_classes():
            use += ", and calibration"
        if (job.settings or {}).get("patience") is not None:
            use += ", and early stopping"
        return {
            "name": self.data.name,
            **self.fingerprints(),
            "n_train": len(self.train),
            "n_test": 0 if self.test is None else len(self.test),
            "n_labeled": self.train.n_labeled,
            "labels": job.label_file or job.labels,
            **({"label_seed": job.label_seed} if job.n_labels() or job.probe else {}),
            **({"n_probed": self.probed.n_labeled} if self.probed is not None else {}),
            "n_validation": 0 if self.validation is None else len(self.validation),
            "validation_use": "nothing" if self.validation is None else use,
            "classes": list(self.train.classes),
            "labels_by_class": self.labels_by_class(),
            "n_skipped": len(self.data.skipped),
            "skipped": [one._asdict() for one in self.data.skipped[:SKIPPED_TOLD]],
        }

    def labels_by_class(self) -> dict[str, int]:
        """Return how many labels of each class are shown."""
        shown = self.train.y[self.train.y != UNLABELED]
        counts = np.bincount(shown, minlength=len(self.train.classes))
        return dict(zip(map(str, self.train.classes), counts.tolist(), strict=True))


def _probed(whole: Images, held: np.ndarray, n: int, seed: int) -> Images:
    """Return images that are not held out, with n labels drawn of theirs, or all where n is 0.

    They are drawn last: whoever looks on must not change what is trained and validated on.
    """
    rest = hide_labels(whole, np.setdiff1d(np.flatnonzero(whole.y >= 0), held))
    return whole.take(draw_labels(rest, n, seed=seed) if n else np.flatnonzero(rest.y >= 0))


def parse_value(name: str, value: Any, kind: Any) -> Any:
    """Return `value`, text from a command line or not, as the type that a hyper-parameter has."""
    if not isinstance(value, str):
        return value
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if NoneType in kinds and value.lower() == "none":
        return None
    words = {"true": True, "false": False}
    for one in kinds:
        try:
            if one is bool:
                return words[value.lower()]
            if one in (int, float, str):
                return one(value)
        except (ValueError, KeyError):
            continue
    names = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}
    wanted = " or ".join(names.get(one, str(one)) for one in kinds)
    raise InputError(f"{name}={value}: it takes {wanted}")
