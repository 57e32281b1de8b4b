"""The map of the embeddings: a dot an image, which shows its image without a script.

The dots are radio buttons of one group. A browser then gives hovering, tapping, one stop of the
tab key, the arrow keys and a spoken label for nothing; the style sheet shows the card of the dot
that is pointed at or chosen. All thumbnails are one picture, embedded once.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from whatwhere.report import wording
from whatwhere.report.read import Panel, dicts

KINDS = 8
"""Colors and shapes, each; a class has one of both."""

ENLARGED = 3
"""How many times larger than in the file a thumbnail is shown."""


@dataclass(frozen=True)
class Look:
    """Color and shape of a class, as numbers of the style sheet; None: no class is known."""

    color: int | None
    shape: int


@dataclass(frozen=True)
class Dot:
    """An image on the map.

    Attributes
    ----------
    x, y : str
        Place, 0 to 1 from the left and from the top.
    column, row : int
        Place of its thumbnail in the sheet.
    name, facts : str
        Which image it is; its class and what was predicted.
    group : str or None
        The class that gives the dot its look.
    look : Look
        Color and shape.
    hollow : bool
        Whether `group` is a prediction, the class being unknown.
    """

    x: str
    y: str
    column: int
    row: int
    name: str
    facts: str
    group: str | None
    look: Look
    hollow: bool


def content(panel: Panel, classes: Sequence[Any]) -> dict[str, Any] | None:
    """Return what the template shows of the map.

    Parameters
    ----------
    panel : Panel
        The sheet of thumbnails, and the points in its words.
    classes : sequence
        The classes in the order of the run, which is that of the colors; others come after them.

    Returns
    -------
    dict of str to Any, or None
        None where no point can be shown.
    """
    tile, columns = (_whole(panel.words.get(key)) for key in ("tile", "columns"))
    if not tile or not columns or columns * tile > panel.width:
        return None
    n_tiles = columns * (panel.height // tile)
    points = [point for point in dicts(panel.words.get("points")) if _can_be_shown(point, n_tiles)]
    if not points:
        return None
    known = [str(name) for name in classes]
    groups = [_group(point) for point in points]
    known += sorted({group for group in groups if group is not None} - set(known))
    looks = {name: look(i) for i, name in enumerate(known)}
    dots = [_dot(point, columns, looks) for point in points]
    # The arrow keys walk through the dots in this order: class by class, from left to right.
    places = {name: i for i, name in enumerate(known)} | {None: len(known)}
    dots.sort(key=lambda dot: (places[dot.group], float(dot.x), float(dot.y), dot.name))
    used = {dot.group for dot in dots}
    return {
        "title": panel.title,
        "caption": panel.caption,
        "method": str(panel.words.get("method") or ""),
        "dots": dots,
        "legend": [(name, looks[name]) for name in known if name in used] if used != {None} else [],
        "unknown": Look(None, 0) if None in used and used != {None} else None,
        "hollow": any(dot.hollow for dot in dots),
        "style": _style(panel, tile),
    }


def look(i: int) -> Look:
    """Return color and shape of class `i`: no two of 64 classes share both."""
    return Look(i % KINDS, (i + i // KINDS) % KINDS)


def _group(point: dict[str, Any]) -> str | None:
    value = point.get("class")
    value = point.get("predicted") if value is None else value
    return None if value is None else str(value)


def _dot(point: dict[str, Any], columns: int, looks: dict[str, Look]) -> Dot:
    group = _group(point)
    row, column = divmod(int(point["tile"]), columns)
    return Dot(
        x=f"{point['x']:.3f}",
        y=f"{point['y']:.3f}",
        column=column,
        row=row,
        name=wording.image_name(point),
        facts=", ".join(_facts(point)),
        group=group,
        look=Look(None, 0) if group is None else looks[group],
        hollow=point.get("class") is None and group is not None,
    )


def _facts(point: dict[str, Any]) -> Iterable[str]:
    true, predicted = point.get("class"), point.get("predicted")
    yield "class not known" if true is None else f"class {true}"
    if predicted is not None:
        sure = point.get("probability")
        wrong = " (wrong)" if true is not None and str(true) != str(predicted) else ""
        said = f"predicted {predicted}{wrong}"
        yield said + (
            f" with {100 * sure:.0f}\N{NO-BREAK SPACE}%" if wording.is_number(sure) else ""
        )


def _can_be_shown(point: dict[str, Any], n_tiles: int) -> bool:
    tile = point.get("tile")
    inside = isinstance(tile, int) and not isinstance(tile, bool) and 0 <= tile < n_tiles
    places = (point.get("x"), point.get("y"))
    return inside and all(wording.is_number(place) and 0 <= place <= 1 for place in places)


def _style(panel: Panel, tile: int) -> Markup:
    """Return the one rule that holds the thumbnails; all that goes into it is ours or a number."""
    sheet = b64encode(panel.png).decode("ascii")
    return Markup(
        f".tip i {{ --tile: {tile * ENLARGED}px; background-size: {panel.width * ENLARGED}px auto; "
        f"background-image: url(data:image/png;base64,{sheet}); }}"
    )


def _whole(value: Any) -> int:
    """Return a positive whole number, or 0 where `value` is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
