"""Fetch the original files of the named sets, and go on where an earlier fetch stopped.

pooch speaks to the mirrors and computes the hashes. What has arrived of a file is kept beside it as
`NAME.part`, the rest is asked for with a Range header, and the file gets its name only when its
SHA-256 is the published one: under that name it is whole, or not there at all.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from whatwhere.core import InputError, unknown
from whatwhere.data.sources import NAMES
from whatwhere.data.sources.named import (
    Download,
    NamedSet,
    data_folder,
    download_command,
    how_to_fetch,
)

if TYPE_CHECKING:  # pooch and what comes with it are an extra
    from requests import RequestException, Response

CHUNK = 1 << 16  # bytes that are written at a time
PATIENCE = (10, 30)  # seconds to wait for a connection, and for the next bytes


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def download(
    name: str, data_dir: str | os.PathLike[str] | None = None, tell: Callable[[str], None] = say
) -> Path:
    """Fetch the files of a named set into its folder in the data folder.

    What is there whole is not fetched again, and a set that is there in another form (unpacked,
    say) is left alone.

    Parameters
    ----------
    name : str
        A name of `NAMES`.
    data_dir : path, optional
        The folder of the named sets; see `data_folder`.
    tell : callable (str) -> None
        Is told, line by line, what is done.

    Returns
    -------
    Path
        The folder of the set; of one without a download, the data folder.

    Raises
    ------
    InputError
        If there is no such set, if it is to be fetched by hand, if pooch is not installed, if no
        mirror gives a file as it was published, or if it cannot be written. What has arrived is
        kept.
    """
    if name not in NAMES:
        raise unknown("no data set is called", name, NAMES)
    source, root = NAMES[name], data_folder(data_dir)
    folder = root / name
    if source.page is not None:
        if not source.present(root):
            by_hand = how_to_fetch(name, root, source.page)
            raise InputError(
                f"{name} has no download: {by_hand}; what is read in {root} is {source.files}"
            )
        tell(f"{name} is in {root} already; nothing was fetched")
        return root
    if not source.downloads:
        tell(f"{name} needs no download: {source.files.removeprefix('none: ')}")
        return root
    if find_spec("pooch") is None:
        raise InputError("downloading needs pooch: pip install 'whatwhere[download]'")
    try:
        published = any((folder / file.name).exists() for file in source.downloads)
        if not published and source.present(root) and _reading_fails(source, root) is None:
            tell(f"{name} is in {root} already, though not as published; nothing was fetched")
            return folder
        absent = [file for file in source.downloads if not _is_whole(folder / file.name, file)]
        if not absent:
            tell(f"{name} is in {folder} already, with the published hashes")
        for place, file in enumerate(absent):
            folder.mkdir(parents=True, exist_ok=True)
            if reasons := _fetch(file, folder, tell):
                raise InputError(
                    f"{name}: {file.name} could not be fetched: {'; '.join(reasons)}. Nothing was "
                    f"lost: try again with {download_command(name, root)}, or put these files into "
                    f"{folder} by hand: {' '.join(other.urls[0] for other in absent[place:])}"
                )
        if error := _reading_fails(source, root):
            raise InputError(
                f"the published files of {name} are whole, but another one is read in their place; "
                f"move it away: {error}"
            )
    except OSError as error:
        raise InputError(
            f"{name}: {folder} cannot be used ({error.strerror or error}); make room there, or "
            "choose another folder with --data-dir: what has arrived is kept"
        ) from error
    return folder


def _reading_fails(source: NamedSet, root: Path) -> InputError | None:
    try:
        source.read(root)
    except InputError as error:
        return error
    return None


def _is_whole(path: Path, file: Download) -> bool:
    from pooch import file_hash

    return path.is_file() and file_hash(path) == file.sha256


def _fetch(file: Download, folder: Path, tell: Callable[[str], None]) -> list[str]:
    """Fetch a file from the first mirror that gives it; else return why each did not."""
    from requests import RequestException

    part = folder / f"{file.name}.part"
    # An earlier call may have been stopped between the last byte and the check.
    if _size(part) >= file.n_bytes and _settle(part, file):
        return []
    reasons = []
    for url in file.urls:
        before, host = _size(part), urlsplit(url).netloc
        rest = f"the last {decimal(file.n_bytes - before)} of " if before else ""
        tell(f"{rest}{file.name} ({decimal(file.n_bytes)}) from {host}")
        try:
            _go_on(url, part, file)
        except RequestException as error:
            reasons.append(_reason(error, host, arrived=_size(part) > before))
        else:
            if _settle(part, file):
                return []
            reasons.append(f"{host} sent other bytes (wrong SHA-256), which were removed")
        if len(reasons) < len(file.urls):
            tell(f"{reasons[-1]}; trying another mirror")
    return reasons


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _settle(part: Path, file: Download) -> bool:
    """Give a part its name if it is the whole file, else remove it."""
    if _is_whole(part, file):
        part.replace(part.with_name(file.name))
        return True
    part.unlink(missing_ok=True)
    return False


def _reason(error: "RequestException", host: str, arrived: bool) -> str:
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"{host} answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, exceptions.SSLError):
        return f"{host} could not be reached safely (TLS failed)"
    if isinstance(error, exceptions.ConnectionError | exceptions.Timeout) and not arrived:
        return f"{host} could not be reached"
    return f"{host} broke off"


def _go_on(url: str, part: Path, file: Download) -> None:
    """Add what is missing of the file to what is there of it."""
    from pooch import HTTPDownloader

    try:
        with ExitStack() as opened:
            output = opened.enter_context(part.open("ab"))
            before = output.tell()

            def begin(response: "Response", **_: Any) -> None:
                # An archive is kept packed, also where a server says it is a packed page.
                response.raw.headers.pop("Content-Encoding", None)
                if response.status_code == 200:  # all of it, though only the rest was asked for
                    output.seek(0)
                    output.truncate()

            headers = {"Accept-Encoding": "identity"}
            if before:
                headers["Range"] = f"bytes={before}-"
            fetch = HTTPDownloader(
                progressbar=_bar(opened, output, file),
                chunk_size=CHUNK,
                timeout=PATIENCE,
                headers=headers,
                hooks={"response": begin},
            )
            fetch(url, output, None)
    finally:
        if part.is_file() and not _size(part):
            part.unlink()


@dataclass
class _Bar:
    """A progress bar as pooch wants it: moved to the bytes that are there, whoever sent them."""

    live: Progress
    task: TaskID
    output: BinaryIO
    total: int = 0  # pooch sets it

    def update(self, n: int) -> None:
        del n  # pooch counts in chunks
        self.live.update(self.task, completed=self.output.tell())

    def reset(self) -> None: ...

    def close(self) -> None: ...


def _bar(opened: ExitStack, output: BinaryIO, file: Download) -> Any:
    """Return a progress bar on stderr where that is a terminal, else None."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    live = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    opened.enter_context(live)
    task = live.add_task(file.name, total=file.n_bytes, completed=output.tell())
    return _Bar(live, task, output)
