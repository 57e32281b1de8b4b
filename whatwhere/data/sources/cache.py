"""Decoded images in the user's cache, so that a second start need not decode.

A folder of images has an entry for each set of options: `KEY.pixels`, the bare values, and
`KEY.json`, which says what they are and is written last. The key tells the files with their times
and sizes, so an entry is found only as long as no file has changed; another entry of the same
folder and options is replaced. Nothing is unpickled, and no trouble with the cache stops anyone:
what cannot be kept is decoded again.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from whatwhere.data.images import Skipped
from whatwhere.data.sources.decoding import Decoded

FORMAT = 1
"""Of the entries, and of how pixels are made: a change of either makes all entries stale."""

DTYPES = ("uint8", "float32")


class Entry:
    """The place of one folder's decoded images.

    Parameters
    ----------
    root : Path
    options : sequence
        All that decides the pixels beside the files; numbers, strings and None.
    files : sequence of (name, time in ns, bytes)
        In the order of the rows.
    """

    def __init__(
        self, root: Path, options: Sequence[Any], files: Sequence[tuple[str, int, int]]
    ) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        place = json.dumps([os.fsdecode(root.resolve()), *options])
        self.folder = Path(home) / "whatwhere" / "decoded" / _digest(place)
        # Another Pillow may decode otherwise, or read what this one skips.
        self.key = _digest(json.dumps([FORMAT, PIL.__version__, files]))
        self.n_files = len(files)

    def load(self) -> Decoded | None:
        """Return what is kept, mapped into memory, or None where nothing is or it is damaged.

        The pixels can be written to; the file is not changed by that.
        """
        try:
            about = json.loads(self._path("json").read_text(encoding="utf-8"))
            shape, dtype = tuple(about["shape"]), about["dtype"]
            skipped = tuple(Skipped(file, reason) for file, reason in about["skipped"])
            whole = (
                dtype in DTYPES
                and len(shape) == 4
                and shape[0] + len(skipped) == self.n_files
                and self._path("pixels").stat().st_size == prod(shape) * np.dtype(dtype).itemsize
            )
            if not whole:
                return None
            found = Decoded(self._map(shape, dtype), skipped)
            return found if about["checksum"] == _checksum(found) else None
        except Exception:  # damage has many faces, and each means: decode again
            return None

    def save(self, decoded: Decoded) -> Decoded:
        """Keep the images and return them mapped from there, or as they are where that fails."""
        about = _facts(decoded) | {"checksum": _checksum(decoded)}
        try:
            self._path("json").parent.mkdir(parents=True, exist_ok=True)
            self._write("pixels", decoded.x.data)
            self._write("json", json.dumps(about).encode())
            for other in self._path("json").parent.iterdir():
                if other not in (self._path("pixels"), self._path("json")):
                    other.unlink(missing_ok=True)
            # Not looked at again, so that the memory of the first copy is free before.
            mapped = self._map(decoded.x.shape, decoded.x.dtype)
        except (OSError, RuntimeError):  # a full disk, no permission; no home
            return decoded
        return decoded._replace(x=mapped)

    def _map(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        return np.asarray(np.memmap(self._path("pixels"), dtype, "c", shape=shape))

    def _path(self, ending: str) -> Path:
        return self.folder.expanduser() / f"{self.key}.{ending}"

    def _write(self, ending: str, content: bytes | memoryview) -> None:
        """Write a file whole or not at all."""
        path = self._path(ending)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            fresh = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    fresh.unlink()
                raise
        fresh.replace(path)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _facts(decoded: Decoded) -> dict[str, Any]:
    return {
        "shape": list(decoded.x.shape),
        "dtype": str(decoded.x.dtype),
        "skipped": [list(one) for one in decoded.skipped],
    }


def _checksum(decoded: Decoded) -> int:
    return zlib.crc32(decoded.x.data, zlib.crc32(json.dumps(_facts(decoded)).encode()))
