"""Beginning with the weights of a run: what is taken over from it, and what must not be."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whatwhere import runs
from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import Images
from whatwhere.experiments.job import Job, Read

if TYPE_CHECKING:
    from whatwhere.learner import Learner, Spec


def begun_with(job: Job, start: Path, *, same_model: bool) -> Job:
    """Return the job that begins with the weights of a run.

    What the job leaves open is as in that run: how its images are read, and its settings. The
    architecture is that of the run, unless the job names one.

    Parameters
    ----------
    job : Job
    start : Path
        A run folder.
    same_model : bool
        Whether the model is that of the run too.

    Raises
    ------
    InputError
        If it is no run folder, or nothing was learned in it.
    """
    config = runs.read_config(start)
    runs.require_weights(start)
    former = Job(**config["job"]) if "job" in config else Job("", config["model"])
    settings = dict(former.settings or {}) if same_model or job.model == former.model else {}
    settings["architecture"] = config["params"]["architecture"]
    return replace(
        job,
        model=former.model if same_model else job.model,
        settings=settings | dict(job.settings or {}),
        image_size=job.image_size or former.image_size,
        fit=job.fit or former.fit,
        keep_depth=job.keep_depth or former.keep_depth,
        start=str(start.resolve()),
    )


def check_weights(run: str, start: "Learner", learner: "Learner", spec: "Spec") -> None:
    """Check that the weights of a run fit the net, before anything is written.

    Raises
    ------
    InputError
        Naming the first that does not.
    """
    from whatwhere.learner.start import Start, begin

    known = learner.begins_with(Start(start.module_.state_dict(), ()))
    try:
        begin(learner.build(spec).state_dict(), (), known)
    except InputError as error:
        raise InputError(f"--from {run}: {error}") from None


def check_unseen(run: str, read: Read, cache: bool) -> None:
    """Check that the weights were not trained on the images that are to judge them.

    A run that trained on these test images, with labels or without, would be judged too well; so
    would one that trained on these validation images with their labels. Nothing is checked where
    the run does not say what it was trained on, or that is not there any more.

    Raises
    ------
    InputError
        If it was; how many of them.
    """
    former = trained_on(Path(run), cache)
    labeled = [images.take((images.y != UNLABELED).nonzero()[0]) for images in former]
    for part, images, seen, way in (
        ("test", read.test, former, "cut the same part off as there, with the same labels"),
        ("validation", read.validation, labeled, "leave --validation out"),
    ):
        n = 0 if images is None else n_met(images, seen, read.train)
        if n:
            raise InputError(
                f"{n:,} of the {part} images were trained on by --from {run}, and would judge it "
                f"too well: {way}, or fit without --from"
            )


def trained_on(run: Path, cache: bool) -> list[Images]:
    """Return the training images of a run, and of those that its weights began with.

    What a run does not name, or is gone, is not among them.
    """
    found: list[Images] = []
    start: Path | None = run
    while start is not None and (start / runs.CONFIG).is_file():
        config = runs.read_config(start)
        if "job" not in config:
            break
        job = Job(**config["job"])
        with suppress(InputError):
            found.append(job.read(cache).train)
        start = None if job.start is None else Path(job.start)
    return found


def n_met(images: Images, seen: Sequence[Images], beside: Images) -> int:
    """Return how many different images are among those that were seen.

    Bytes and floats of the same pixels are the same image; one of another size is another.

    Parameters
    ----------
    images : Images
    seen : sequence of Images
    beside : Images
        The training part of the images: what stands in both stands there without us.
    """
    met = set().union(*map(_digests, seen))
    return len((_digests(images) & met) - _digests(beside))


def _digests(images: Images) -> set[bytes]:
    found = set()
    for x in images.x:
        pixels = x if x.dtype == np.uint8 else np.rint(255 * x).astype(np.uint8)
        found.add(blake2b(pixels.tobytes(), digest_size=16).digest())
    return found
