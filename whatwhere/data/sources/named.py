"""What the table of contents says of a named set: its facts, its files, and where to get them."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whatwhere.core import InputError
from whatwhere.data.images import DataSet


@dataclass(frozen=True)
class Download:
    """An original file of a named set, as it was published.

    Attributes
    ----------
    name : str
        Of the file, in the set's own folder.
    n_bytes : int
    sha256 : str
        64 hexadecimal digits. It decides whether a file is the published one, so a mirror need not
        be trusted.
    urls : tuple of str
        Where it may be had, in the order in which they are tried.
    """

    name: str
    n_bytes: int
    sha256: str
    urls: tuple[str, ...]


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
    downloads : tuple of Download
        What `whatwhere data download` fetches into the folder `name` of the data folder; the set is
        read from these alone. Empty where the set needs no files, or has a page.
    page : str, optional
        The address from which its files are to be fetched by hand, where there is no published hash
        to download them by.
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
    downloads: tuple[Download, ...] = ()
    page: str | None = None

    def describe(self) -> dict[str, str]:
        """Return the facts as a row of the table `whatwhere data`."""
        c, h, w = self.shape
        test = f" + {self.n_test:,} test" if self.n_test else ""
        megabytes = sum(file.n_bytes for file in self.downloads) / 1e6
        by_hand = f"by hand, from {self.page}" if self.page else "not needed"
        return {
            "name": self.name,
            "images": f"{self.n_train:,}{test}",
            "size": f"{h} x {w}, {'grey' if c == 1 else 'colour'}",
            "classes": ", ".join(map(str, self.classes)),
            "licence": self.licence,
            "from": self.origin,
            "files": self.files,
            "download": f"{megabytes:.1f} MB" if self.downloads else by_hand,
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


def download_command(name: str, data_dir: Path) -> str:
    """Return the command that fetches a named set into a data folder."""
    place = "" if data_dir == data_folder() else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"whatwhere data download {name}{place}"


def how_to_fetch(name: str, data_dir: Path, page: str | None = None) -> str:
    """Return how a named set comes into a data folder: by a command, or by hand from its page."""
    if page is not None:
        return f"fetch it by hand from {page}"
    return f"fetch it: {download_command(name, data_dir)}"


def missing(
    name: str, what: str, folder: Path, data_dir: Path, page: str | None = None
) -> InputError:
    """Return the error that says what was looked for, where, how to fetch it, or point elsewhere.

    Parameters
    ----------
    name : str
        Of the set.
    what : str
        What was looked for.
    folder : path
        Where it was looked for, in
    data_dir : path
        the data folder.
    page : str, optional
        Of a set that is fetched by hand.
    """
    reason = "" if folder.is_dir() else ", which is no folder"
    return InputError(
        f"{name}: no {what} in {folder}{reason}; {how_to_fetch(name, data_dir, page)} (or name the "
        f"folder that holds {name}/ with --data-dir or the environment's WHATWHERE_DATA)"
    )
