"""A folder of images: which files are images, and which class each belongs to.

- Class sub-folders: the folders at the first level name the classes, and deeper ones are searched.
- Files beside class folders, or in a folder `unlabeled`, are unlabeled; so are those of a flat
  folder.
- `train/` and `test/` above either. `unlabeled/` beside them joins the training part.
- A table of labels overrides class folders; see `whatwhere.data.labels`.

What cannot be read is skipped, with its reason. Rows and classes are in natural order, in which
`image 10` follows `image 9`; the training part comes first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from whatwhere.core import UNLABELED, InputError
from whatwhere.data.images import DataSet, Images
from whatwhere.data.labels import read_labels
from whatwhere.data.sources.walking import Found, walk, writable

if TYPE_CHECKING:
    from whatwhere.data.sources.decoding import Decoded

TRAIN, TEST, NO_CLASS = "train", "test", "unlabeled"
OTHER_TESTS = ("val", "valid", "validation", "dev")
"""What a part that is not trained on is called elsewhere."""

LARGEST_SIZE = 4096
"""Pixels of the sides that images are brought to, at most."""


@dataclass(frozen=True)
class Reading:
    """How files of images are read.

    Attributes
    ----------
    image_size : int, optional
        N: every image becomes N x N pixels. Default: all have one size.
    fit : {"crop", "pad"}
        "crop" brings the short side to N and cuts the middle out. "pad" brings the long side to N
        and fills the rest with the median color of the image's own border.
    keep_depth : bool
        Grey of 16 bits keeps them: all images are float32 in [0, 1] instead of uint8. (Of color,
        the upper 8 bits are read.)
    cache : bool
        Whether decoded images are kept in the user's cache.
    labels : str, optional
        The path of a table of labels; see `whatwhere.data.labels`.

    Raises
    ------
    InputError
        If the size is not in 1 to `LARGEST_SIZE`, or the fit is another.
    """

    image_size: int | None = None
    fit: Literal["crop", "pad"] = "crop"
    keep_depth: bool = False
    cache: bool = True
    labels: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIZE:
            raise InputError(
                f"--image-size {self.image_size} is not possible: give 1 to {LARGEST_SIZE}"
            )
        if self.fit not in ("crop", "pad"):
            raise InputError(f"--fit {self.fit}: it takes crop or pad")


class _Place(NamedTuple):
    """Where a file stands: in the test part or not, and in the folder of which class."""

    is_test: bool
    label: str | None


def read(root: Path, reading: Reading) -> DataSet:
    """Return the images of a folder; the test part is None where it has none.

    Raises
    ------
    InputError
        If no image can be read, if sizes differ and no size is given, if the parts are not clear,
        or if the table of labels does not fit.
    """
    shown = writable(str(root))
    if shown != str(root):
        raise InputError(f"{shown} is not UTF-8, or holds control characters: rename the folder")
    found, skipped = walk(root)
    places = _places(root, [file.name for file in found])
    found.sort(key=lambda file: (places[file.name].is_test, _natural(file.name)))
    names = [file.name for file in found]
    if not found:
        raise InputError(f"{root} holds no image: put PNG, JPEG, WebP, BMP or TIFF files there")
    # What can be told without decoding is told before.
    labels = {name: place.label for name, place in places.items()}
    if reading.labels is not None:
        labels = _labels(reading.labels, root, places, [one.file for one in skipped])
    decoded = _decode(root, found, reading)
    gone = {file for file, _ in decoded.skipped}
    kept = [name for name in names if name not in gone]
    n_train = sum(not places[name].is_test for name in kept)
    for name, n in ((TRAIN, n_train), (TEST, len(kept) - n_train)):
        if n == 0 and any(place.is_test == (name == TEST) for place in places.values()):
            raise InputError(
                f"{root} holds no image that can be read in its {name} part: put some there, "
                f"or name another folder ({decoded.skipped[0].file}: {decoded.skipped[0].reason})"
            )
    classes = tuple(sorted({label for name in kept if (label := labels[name])}, key=_natural))
    codes = {label: code for code, label in enumerate(classes)} | {None: UNLABELED}
    y = np.array([codes[labels[name]] for name in kept], dtype=np.int64)

    def part(rows: slice) -> Images:
        return Images(decoded.x[rows], y[rows], classes, tuple(kept[rows]))

    test = part(slice(n_train, None)) if n_train < len(kept) else None
    everything = sorted([*skipped, *decoded.skipped], key=lambda one: _natural(one.file))
    return DataSet(str(root), part(slice(n_train)), test, tuple(everything))


def _places(root: Path, names: Sequence[str]) -> dict[str, _Place]:
    """Return where each file stands; the layout follows from the folders at the first level."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    kinds = {top.casefold() for top in tops}
    is_parted = {TRAIN, TEST} <= kinds or TRAIN in kinds <= {TRAIN, NO_CLASS}
    others = kinds - {TRAIN, TEST, NO_CLASS}
    if (is_parted and others) or (TRAIN in kinds and kinds & set(OTHER_TESTS)):
        # Taken for classes, these would teach nonsense.
        stray = min(top for top in tops if top.casefold() in others)
        raise InputError(
            f"{root} holds {TRAIN}/ and beside it {stray}/: move that away, or into {TRAIN}/, or "
            f"call the part to be tested on {TEST}/"
        )
    return {name: _place(name, is_parted) for name in names}


def _place(name: str, is_parted: bool) -> _Place:
    *folders, _ = name.split("/")
    kind = folders[0].casefold() if folders else NO_CLASS
    if is_parted and kind != NO_CLASS:
        return _Place(kind == TEST, _class(folders[1:]))
    return _Place(False, _class(folders))


def _class(folders: Sequence[str]) -> str | None:
    if not folders or folders[0].casefold() in (NO_CLASS, str(UNLABELED)):
        return None
    return folders[0]


def _labels(
    table: str, root: Path, places: dict[str, _Place], skipped: Sequence[str]
) -> dict[str, str | None]:
    """Return the label of each file: the table's, but for a part of which it names no file."""
    told = read_labels(Path(table), [*places, *skipped], str(root))
    told_parts = {places[name].is_test for name in told if name in places}
    return {
        name: told.get(name) if place.is_test in told_parts else place.label
        for name, place in places.items()
    }


def _decode(root: Path, found: Sequence[Found], reading: Reading) -> "Decoded":
    # Pillow waits until a folder is read.
    from whatwhere.data.sources.cache import Entry
    from whatwhere.data.sources.decoding import decode

    size, fit, keep_depth = reading.image_size, reading.fit, reading.keep_depth
    entry = Entry(root, (size, size and fit, keep_depth), found)
    kept = entry.load() if reading.cache else None
    if kept is not None:
        return kept
    names = [file.name for file in found]
    decoded = decode(root, names, size=size, fit=fit, keep_depth=keep_depth)
    return entry.save(decoded) if reading.cache else decoded


def _natural(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """Return a key by which names sort with their numbers as numbers."""
    pairs = re.findall(r"([^0-9]*)0*([0-9]*)", name)
    return [(text, len(digits), digits) for text, digits in pairs], name
