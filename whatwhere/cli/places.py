"""Where things lie: DATA, tables of labels, new run folders, and what a run reads its images by."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import whatwhere
from whatwhere.cli.options import Fit, Part
from whatwhere.core import InputError

if TYPE_CHECKING:
    from whatwhere.data.images import Images
    from whatwhere.experiments.job import Job

TABLE = ".csv"


def placed(data: str) -> str:
    """Return DATA as it is found from every folder: a run may be asked for from another."""
    from whatwhere.data import sources

    path = Path(data).expanduser()
    return str(path.resolve()) if data not in sources.NAMES and path.exists() else data


def there(data: str) -> bool:
    """Return whether DATA is a named set, or a path that leads somewhere."""
    from whatwhere.data import sources

    return data in sources.NAMES or Path(data).exists()


def data_folder(data: str, data_dir: Path | None) -> str | None:
    """Return where a named set lies, if that was said; other DATA say so themselves."""
    from whatwhere.data import sources

    return str(data_dir.resolve()) if data_dir is not None and data in sources.NAMES else None


def label_options(labels: str) -> tuple[str, str | None]:
    """Return what --labels says: how many labels are shown, and the table that names them."""
    if not labels.lower().endswith(TABLE):
        return labels, None
    return "all", placed(labels)


def refuse_inside(out: Path, data: str) -> None:
    """Refuse to write into a folder of images: what is written would be read as images.

    Raises
    ------
    InputError
        Naming both.
    """
    folder = Path(placed(data))
    if folder.is_dir() and out.resolve().is_relative_to(folder):
        raise InputError(
            f"--out {out} lies in {data}, where it would be read as images; choose a place outside"
        )


def new_folder(data: str, model: str) -> Path:
    """Return the first of runs/DATA-MODEL-1, runs/DATA-MODEL-2, ... that is not there."""
    name = f"{Path(data).resolve().stem or 'data'}-{model}"
    return next(folder for k in count(1) if not (folder := Path("runs") / f"{name}-{k}").exists())


def job_for(
    run: Path,
    data: str | None,
    *,
    data_dir: Path | None = None,
    split: Part | None = None,
    test_fraction: float | None = None,
    label_file: str | None = None,
    image_size: int | None = None,
    how: Fit | None = None,
) -> "Job":
    """Return the job of a run, or the like for other DATA: read the same way, all labels shown."""
    from whatwhere import runs
    from whatwhere.experiments.job import Job

    config = runs.read_config(run)
    if "job" not in config and data is None:
        raise InputError(f"{run} does not say what it was trained on; name DATA")
    job = Job(**config["job"]) if "job" in config else Job(str(data), config["model"])
    if data is None and not there(job.data):
        raise InputError(
            f"{job.data}, on which {run} was trained, is not there any more; name DATA, for "
            "instance where it lies now"
        )
    if data is not None and placed(data) != job.data:
        job = replace(
            job, data=placed(data), split="train", test_fraction=test_fraction, label_file=None
        )
    elif test_fraction is not None:
        raise InputError(
            "--test-fraction cuts a part off that the run was trained on; leave it out, "
            "name other DATA, or fit again with it"
        )
    given: dict[str, Any] = {
        "data_dir": data_folder(job.data, data_dir),
        "split": None if split is None else split.value,
        "label_file": label_file,
        "image_size": image_size,
        "fit": None if how is None else how.value,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return replace(job, labels="all", validation="none", **given)


def trained_on(run: Path) -> str | None:
    """Return the DATA of a run, where it says so."""
    from whatwhere import runs

    return runs.read_config(run).get("job", {}).get("data")


def loaded(run: Path) -> Any:
    """Return the learner of a run, set to read images as they come from DATA."""
    return whatwhere.load(run).set_params(channels="first", value_range=None)


def suited(images: "Images", learner: Any, run: Path, data: str) -> "Images":
    """Return images as a run reads them: gray ones in color where it learned color.

    Raises
    ------
    InputError
        If they are of another size, or in color and the run learned gray.
    """
    own: tuple[int, int, int] = learner.image_shape_
    if images.shape == own:
        return images
    (c, h, w), (own_c, own_h, own_w) = images.shape, own
    if (h, w) == (own_h, own_w) and c == 1:
        return replace(images, x=images.x.repeat(own_c, axis=1))
    if (h, w) == (own_h, own_w):
        way = f"{run} learned from images of {own_c} channel{'s' * (own_c > 1)}; save them as such"
    else:
        size = f" (--image-size {own_h})" if own_h == own_w else ""
        way = f"{run} learned from {own_h} x {own_w}; bring them to that size{size}"
    raise InputError(
        f"the images of {data} have {h} x {w} pixels, {c} channel{'s' * (c > 1)}; {way}"
    )
