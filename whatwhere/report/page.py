"""Rendering and writing the page."""

import re
from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from whatwhere import runs
from whatwhere.core import InputError
from whatwhere.report import comparison, run, wording
from whatwhere.report.read import Run, read


def render(path: Path, *, beside: Path | None = None) -> str:
    """Return the report of a folder as one self-contained HTML page.

    Parameters
    ----------
    path : Path
        A run folder, a comparison folder (``table.json``), or a folder above run folders.
    beside : Path, optional
        The folder that the page will lie in, to which links to other reports are relative.
        Default: `path`.

    Returns
    -------
    str
        HTML that needs no network and no script. The same folder gives the same page.

    Raises
    ------
    InputError
        If the folder is none of these, or was written in a format that is not known here.
    """
    found = read(Path(path))
    if isinstance(found, Run):
        return _environment().get_template("run.html.j2").render(run.content(found))
    words = comparison.content(found, Path(beside or path))
    return _environment().get_template("comparison.html.j2").render(words)


def write(path: Path, out: Path | None = None) -> Path:
    """Write the report of a folder, all of it or nothing.

    Parameters
    ----------
    path : Path
        The folder, as `render` takes it.
    out : Path, optional
        The file to write. Default: ``report.html`` in the folder.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    InputError
        As `render`; and if `out` cannot be written.
    """
    out = Path(out) if out is not None else Path(path) / "report.html"
    page = render(path, beside=out.parent)
    if out.is_dir():
        raise InputError(f"{out} is a folder: --out names the file, for instance {out}/report.html")
    try:
        runs.write_text(out, page)
    except OSError as error:
        raise InputError(
            f"cannot write {out} ({error.strerror or error}): give another file with --out"
        ) from error
    return out


def _options(text: str) -> Markup:
    """Escape a sentence, and keep each option in it, with its value, on one line."""
    return Markup(
        re.sub(r"--[a-z-]+ [\w.]+(=\w+)?\b", r'<code class="option">\g<0></code>', escape(text))
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whatwhere.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": wording.duration,
        "image": wording.image,
        "image_name": wording.image_name,
        "initial": lambda text: text[:1].upper() + text[1:],
        "many": wording.many,
        "number": wording.number,
        "options": _options,
        "plain": wording.plain,
        "share": lambda value: f"{100 * value:.1f} %" if wording.is_number(value) else "–",
        "span": wording.span,
        "thousands": wording.thousands,
    }
    return environment
