"""What the table of contents says of a named set, and where its files are looked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whatwhere.core import InputError
from whatwhere.data.images import DataSet


@dataclass(frozen=True)
class NamedSet:
    """A set of images that is known by its name.

    Attributes
    ----------
    name : str
    read : callable (Path) -> DataSet
        Reads it from a data folder; the test part is None where it has none of its own.
    present : callable (Path) -> bool
        Whether its files seem to be in a data folder; cheap.
    n_train, n_test : int
        Images; n_test is 0 where the set has no test part of its own.
    shape : (C, H, W)
    classes : tuple of int or str
    licence : str
    origin : str
        Who made it, and where it was published.
    files : str
        Which files are read, under the data folder.
    """

    name: str
    read: Callable[[Path], DataSet]
    present: Callable[[Path], bool]
    n_train: int
    n_test: int
    shape: tuple[int, int, int]
    classes: tuple[int | str, ...]
    licence: str
    origin: str
    files: str

    def describe(self) -> dict[str, str]:
        """Return the facts as a row of the table `whatwhere data`."""
        c, h, w = self.shape
        test = f" + {self.n_test:,} test" if self.n_test else ""
        return {
            "name": self.name,
            "images": f"{self.n_train:,}{test}",
            "size": f"{h} x {w}, {'grey' if c == 1 else 'colour'}",
            "classes": ", ".join(map(str, self.classes)),
            "licence": self.licence,
            "from": self.origin,
            "files": self.files,
        }


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the named sets.

    It is `data_dir` (--data-dir), else the environment's WHATWHERE_DATA, else the user's cache:
    `whatwhere` in XDG_CACHE_HOME or in ~/.cache.
    """
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if folder := os.environ.get("WHATWHERE_DATA"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whatwhere"


def missing(name: str, what: str, folder: Path) -> InputError:
    """Return the error that says which file was looked for, where, and how to point elsewhere."""
    reason = "" if folder.is_dir() else ", which is no folder"
    return InputError(
        f"{name}: no {what} in {folder}{reason}; name the folder that holds {name}/ with "
        "--data-dir or the environment's WHATWHERE_DATA"
    )
