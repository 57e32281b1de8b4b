"""Many files of images, decoded on all cores into one array.

Headers come first, so that differing sizes are told before anything is decoded and so that the
array can be made at once; then each image is decoded to its place in it.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from whatwhere.core import InputError
from whatwhere.data.images import Skipped
from whatwhere.data.sources.files import Header, Unreadable, read_header, read_pixels
from whatwhere.data.sources.fitting import Fit, allocate

CHUNK = 16
"""Files that a thread takes at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Decoded(NamedTuple):
    """The pixels of many files.

    Attributes
    ----------
    x : ndarray (n, C, H, W)
        uint8, or float32 in [0, 1]; of the files that are not skipped, in their order.
    skipped : tuple of Skipped
        The files that are no images that can be read, in their order.
    """

    x: np.ndarray
    skipped: tuple[Skipped, ...]


def decode(
    root: Path, names: Sequence[str], *, size: int | None, fit: Fit, keep_depth: bool
) -> Decoded:
    """Decode files; a bar on stderr shows how far it is, where stderr is a terminal.

    Grey has one channel, unless one of the images has color: then all have three. Beside the array
    each thread holds one decoded image.

    Parameters
    ----------
    root : Path
        The folder that the names start from.
    names : sequence of str
    size, fit, keep_depth
        See `read_pixels`.

    Raises
    ------
    InputError
        If no file can be read, if the images have different sizes and no size is given, or if they
        need more memory than there is.
    """
    with _bar(2 * len(names)) as advance, _quiet():
        found = _on_all_cores(lambda name: read_header(root / name), names, advance)
        outcomes = dict(zip(names, found, strict=True))
        if size is None:
            outcomes |= _without_odd_sizes(root, outcomes)
        headers = {name: head for name, head in outcomes.items() if isinstance(head, Header)}
        first = next(iter(headers.values()), Header(1, 1, False))
        height, width = (first.height, first.width) if size is None else (size, size)
        channels = 3 if any(head.color for head in headers.values()) else 1
        dtype = np.float32 if keep_depth else np.uint8
        x = allocate((len(headers), channels, height, width), dtype)

        def decode_to(row: tuple[int, str]) -> bool:
            """Fill a row, and return whether it has color."""
            pixels = read_pixels(root / row[1], size, fit, keep_depth)
            if pixels.shape[1:] != (height, width) or len(pixels) > channels:
                raise Unreadable("it changed while it was read")
            x[row[0]] = pixels  # a grey one is repeated where others have color
            return len(pixels) == 3

        colors = _on_all_cores(decode_to, list(enumerate(headers)), advance)
    told = zip(headers, colors, strict=True)
    outcomes |= {name: color for name, color in told if isinstance(color, str)}
    skipped = tuple(Skipped(name, one) for name, one in outcomes.items() if isinstance(one, str))
    if len(skipped) == len(names):
        file, reason = skipped[0]
        raise InputError(
            f"{root} holds no image that can be read ({len(names):,} files; {file}: {reason}): "
            "put PNG, JPEG, WebP, BMP or TIFF files there"
        )
    kept = [place for place, color in enumerate(colors) if isinstance(color, bool)]
    for place, row in enumerate(kept):
        if place != row:
            x[place] = x[row]  # closed up in place: a copy would double the memory
    x = x[: len(kept)]
    if channels == 3 and True not in colors:  # what had color could not be decoded
        x = np.ascontiguousarray(x[:, :1])
    return Decoded(x, skipped)


def _without_odd_sizes(root: Path, heads: dict[str, Header | str]) -> dict[str, str]:
    """Return the reason against each file whose size differs because it is damaged.

    Raises
    ------
    InputError
        If images of different sizes can be decoded.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for name, head in heads.items():
        if isinstance(head, Header):
            groups.setdefault((head.width, head.height), []).append(name)
    if len(groups) < 2:
        return {}
    reasons: dict[str, str] = {}
    sound: list[tuple[str, tuple[int, int]]] = []
    usual = max(groups.values(), key=len)
    for size, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        for name in names:
            try:
                read_pixels(root / name, None, "crop", False)
            except Unreadable as error:
                reasons[name] = str(error)
            else:
                sound.append((name, size))
                break
        if len(sound) == 2:
            one, other = (f"{name} has {size[0]} x {size[1]} pixels" for name, size in sound)
            n = sum(map(len, groups.values()))
            raise InputError(
                f"{root} holds images of different sizes: {one} (width x height), {other}, and "
                f"{n - len(usual):,} of {n:,} differ from the commonest: give one size, with "
                "--image-size 64 --fit crop|pad"
            )
    return reasons


def _on_all_cores(
    work: Callable[[Item], Result], items: Sequence[Item], advance: Callable[[int], None]
) -> list[Result | str]:
    """Return what the work returns for each item, or the reason why it is unreadable."""

    def some(chunk: Sequence[Item]) -> list[Result | str]:
        return [outcome(item) for item in chunk]

    def outcome(item: Item) -> Result | str:
        try:
            return work(item)
        except Unreadable as error:
            return str(error)  # the error itself would hold what was decoded until then

    # Measured: processes take twice the processor time, most of it to hand the pixels over.
    pool = ThreadPoolExecutor(_n_cores(), thread_name_prefix="decode")
    try:
        chunks = [items[k : k + CHUNK] for k in range(0, len(items), CHUNK)]
        outcomes = []
        for future in [pool.submit(some, chunk) for chunk in chunks]:
            done = future.result()
            outcomes += done
            advance(len(done))
        return outcomes
    finally:
        # After Ctrl-C only the files in hand are waited for.
        pool.shutdown(cancel_futures=True)


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # in a container, fewer than the machine has
    return os.cpu_count() or 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Let no decoder warn: what is wrong with a file is told as the reason why it is skipped."""
    # Once around all threads, since what is warned of is a setting of the whole process.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar where stderr is a terminal; the block calls what it gets for each step done."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("reading images"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)
