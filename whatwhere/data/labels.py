"""Labels from a table: a CSV with the columns `file` and `label`, as spreadsheets write it.

UTF-8, with commas, semicolons or tabs. `file` is relative to the folder of images, with forward
slashes; a blank label, or -1, is unlabeled. Other columns are left alone.
"""

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from whatwhere.core import UNLABELED, InputError

COLUMNS = ("file", "label")
DELIMITERS = (",", ";", "\t")
MOST_COLUMNS = 12
"""How many names of columns an error tells."""

MOST_LETTERS = 80
"""How much of a name an error tells."""


def read_labels(path: Path, files: Iterable[str], folder: str) -> dict[str, str | None]:
    """Return the label of each file that the table names; None is unlabeled.

    Parameters
    ----------
    path : Path
        The table.
    files : iterable of str
        All files that may be named, relative to the folder.
    folder : str
        What the folder is called in errors.

    Raises
    ------
    InputError
        If the table cannot be read, has no such columns, names files that are not there, or says
        two things of one file.
    """
    known = {name: name for name in files}
    # A file that was named on another system may spell its accents in another way.
    composed = {unicodedata.normalize("NFC", name): name for name in known}
    labels: dict[str, str | None] = {}
    strangers: list[str] = []
    for file, label in _rows(path):
        tidy = str(PurePosixPath(file.strip()))  # without ./ and doubled slashes
        name = (
            known.get(file) or known.get(tidy) or composed.get(unicodedata.normalize("NFC", tidy))
        )
        if name is None:
            strangers.append(file)
            continue
        found = None if label in ("", str(UNLABELED)) else label
        if labels.setdefault(name, found) != found:
            told = " and ".join(_shown(one or "none") for one in (labels[name], found))
            raise InputError(
                f"{path} has two labels for {_shown(name)}, {told}: leave one of the rows out"
            )
    if strangers:
        two = " and ".join(map(_shown, dict.fromkeys(strangers[:1] + strangers[-1:])))
        raise InputError(
            f"{path} names {len(strangers):,} {'file' if len(strangers) == 1 else 'files'} that "
            f"{folder} does not hold ({two}): `file` is relative to that folder, with forward "
            "slashes"
        )
    if not labels:
        raise InputError(f"{path} names no file: write one in each row, with its label")
    return labels


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Return file and label of each row that is not blank; the label is stripped."""
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"{path} {reason}: name a CSV with the columns file and label")
    try:
        delimiter, n_columns, places = _header(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            next(reader)
            for row in reader:
                if any(field.strip() for field in row[n_columns:]):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} fields under {n_columns} "
                        "columns; put a field that holds a separator between quotes"
                    )
                name, label = (row[place] if place < len(row) else "" for place in places)
                label = label.strip()
                if name.strip():
                    yield name, label
                elif label:
                    raise InputError(
                        f"{path}, line {reader.line_num}: the label {_shown(label)} has no file; "
                        "fill in the column file"
                    )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as CSV UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path} is no CSV that can be read ({error}): save it anew") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _header(path: Path) -> tuple[str, int, list[int]]:
    """Return the delimiter, the number of columns, and the places of file and label."""
    most: list[str] = []
    for delimiter in DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="") as file:
            row = next(csv.reader(file, delimiter=delimiter), [])
        columns = [column.strip().casefold() for column in row]
        if all(columns.count(column) == 1 for column in COLUMNS):
            return delimiter, len(columns), [columns.index(column) for column in COLUMNS]
        most = max(most, columns, key=len)
    raise InputError(
        f"{path} needs one column `file` and one column `label` in its first line, and it has "
        f"{_told(most)}"
    )


def _told(columns: Sequence[str]) -> str:
    names = [_shown(column) for column in columns[:MOST_COLUMNS]]
    return ", ".join(names + ["..."] * (len(columns) > MOST_COLUMNS)) or "nothing"


def _shown(text: str) -> str:
    """Return text as an error can print it: in one line, cut, and escaped."""
    text = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
    return text if text.isprintable() and text else ascii(text)
