"""What a run says of each image, as a table in a file: predictions and embeddings."""

import csv
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.learner import ImageClassifier, Learner

Table = Mapping[str, np.ndarray]

TABLES, EMBEDDINGS, PICTURES = (".csv", ".parquet"), (".npz", ".parquet"), (".png",)


def check(out: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises
    ------
    InputError
        If the ending is another, the file is there already, or its folder is not.
    """
    if out.suffix.lower() not in endings:
        raise InputError(f"--out {out}: it takes a file that ends in {' or '.join(endings)}")
    if out.exists():
        raise InputError(f"--out {out} exists; choose another name, or move it away first")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(
            f"--out {out}: Parquet needs pyarrow; pip install 'whatwhere[parquet]', "
            f"or choose {endings[0]}"
        )


def _named(images: Images) -> dict[str, np.ndarray]:
    if images.names is not None:
        return {"file": np.array(images.names)}
    return {"row": np.arange(len(images))}


def predictions(learner: Learner, images: Images) -> Table:
    """Return ``file`` (or ``row``), ``label``, and ``p:CLASS`` for each class."""
    if not isinstance(learner, ImageClassifier) or not len(learner.classes_):
        raise InputError(
            "this run was trained without labels, so it has no classes; "
            "fit one with --labels, or use embed"
        )
    probability = learner.predict_proba(images.x)
    columns = {f"p:{name}": probability[:, place] for place, name in enumerate(learner.classes_)}
    return _named(images) | {"label": learner.classes_[probability.argmax(1)]} | columns


def embeddings(learner: Learner, images: Images) -> Table:
    """Return ``file`` (or ``row``) and ``embedding``, float32 (n, features)."""
    return _named(images) | {"embedding": learner.transform(images.x)}


def write(out: Path, table: Table) -> None:
    """Write a table whole or not at all, in the form that its ending names."""
    fresh = out.with_name(f".{out.name}.tmp")
    try:
        _write(fresh, out.suffix.lower(), table)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def _write(path: Path, ending: str, table: Table) -> None:
    if ending == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            rows: Any = zip(*(column.tolist() for column in table.values()), strict=True)
            csv.writer(file).writerows([list(table), *rows])
    elif ending == ".npz":
        # As numpy.savez_compressed writes it, which takes no array that is called "file".
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in table.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {name: _column(values) for name, values in table.items()}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _column(values: np.ndarray) -> Any:
    import pyarrow

    if values.ndim == 1:
        return pyarrow.array(values)
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), values.shape[1])
