"""The files under a folder, found without being led astray by links, pipes or odd names."""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from whatwhere.data.images import Skipped

PASSED_OVER = ("thumbs.db", "desktop.ini")
"""Files that systems leave in folders of images."""

UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What breaks a line or a table, and what stands for bytes that are no UTF-8."""


class Found(NamedTuple):
    """A regular file.

    Attributes
    ----------
    name : str
        Relative to the folder, with forward slashes.
    time : int
        Of its last change, in nanoseconds.
    size : int
        Bytes.
    """

    name: str
    time: int
    size: int


def walk(root: Path) -> tuple[list[Found], list[Skipped]]:
    """Return the regular files at any depth, and what else is there with the reason against it.

    Links are followed, each folder is read once. Hidden files and folders, tables (`.csv`) and what
    systems leave behind are passed over in silence.

    Raises
    ------
    OSError
        If the folder itself cannot be read.
    """
    found: list[Found] = []
    skipped: list[Skipped] = []
    # A link to where it came from leads to what has been seen.
    seen = {_identity(folder.stat()) for folder in root.resolve().parents}
    # Links wait until all that lies in the folder itself is seen: it goes by its own name.
    folders, links = [""], []
    while folders or links:
        name = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity((root / name).stat())
            if identity in seen:
                skipped.append(Skipped(name, "a link to a folder that is read already"))
                continue
            seen.add(identity)
            with os.scandir(root / name) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not name:
                raise
            skipped.append(Skipped(name, f"cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name.casefold() in PASSED_OVER:
                continue
            path = f"{name}/{entry.name}" if name else entry.name
            reason = _look(entry, path, found, links if entry.is_symlink() else folders)
            if reason is not None:
                skipped.append(Skipped(writable(path), reason))
    return found, skipped


def writable(name: str) -> str:
    """Return the name with what cannot be written to a line of text spelled out."""
    return UNWRITABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def _look(entry: os.DirEntry, path: str, found: list[Found], folders: list[str]) -> str | None:
    """Put a file with those found and a folder with those to read; return what else it is."""
    if UNWRITABLE.search(entry.name):
        return "its name is not UTF-8, or holds control characters: rename it"
    try:
        facts = entry.stat()
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(facts.st_mode):
        folders.append(path)
    elif not stat.S_ISREG(facts.st_mode):
        return "neither a file nor a folder"
    elif not entry.name.casefold().endswith(".csv"):
        found.append(Found(path, facts.st_mtime_ns, facts.st_size))
    return None


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
