"""Pictures as SVG files for formats that cannot draw them, their colours, and where names have room in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from archbench.model.errors import UnfitError
from archbench.model.units import printable
from archbench.rendering.content import Dataset, Picture, Report, every

log = logging.getLogger(__name__)

DRAWN_BY = "`pip install 'archbench[plots]'` brings what draws them"
WIDTH = 680
"""Pixels: as wide as a forge shows a page's text."""
_LEGEND_COLUMNS = 4
_INK, _FAINT, _PAPER = "#1f2328", "#d8dee4", "#ffffff"
LIGHT = ("#0072b2", "#d55e00", "#00805f", "#b0508c", "#8a6d00", "#4d5560", "#7a4bc4", "#0a8ea0")
"""Colours that stay apart for every kind of colour vision and stand out from white by 3:1 (after Okabe and Ito)."""
DARK = ("#56b4e9", "#ff9d5c", "#2dc9a0", "#e79ac6", "#e6d33f", "#b8bec6", "#b79cf0", "#4fd3e0")
"""The same on a dark ground."""

Place: TypeAlias = tuple[Literal["left", "center", "right"], int, int]
"""How a name is aligned, and how far right of its point and below it it stands."""
LETTER_WIDTH, _LINE, _DOT = 6.5, 14, 6
"""A letter's width, a line's height, and half a point's size, in pixels."""
_AROUND: tuple[Place, ...] = (
    *(("left", 10, 0), ("right", -10, 0), ("center", 0, -14), ("center", 0, 16)),
    *(("left", 8, -14), ("left", 8, 16), ("right", -8, -14), ("right", -8, 16), ("center", 0, -28), ("center", 0, 30)),
)
"""Places around a point, in the order in which they are tried."""


def draw(report: Report, folder: Path) -> bool:
    """Write each picture as `folder`/NAME.svg; whether all are there. What hinders it is a warning: text goes on.

    Raises `UnfitError` where the folder cannot be written.
    """
    from archbench.results.files import write_bytes

    try:
        images = dict(drawn(report))
    except (ImportError, ValueError) as error:  # ValueError: what Vega says of a definition that it cannot draw
        log.warning("plots are described, not drawn: %s; %s", error, DRAWN_BY)
        return False
    if images:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UnfitError(f"cannot write {folder}: {error.strerror}; make room or give another place") from error
    for name, image in images.items():
        write_bytes(folder / f"{name}.svg", image.encode())
    return True


def drawn(report: Report) -> Iterator[tuple[str, str]]:
    """The name of each picture and its SVG. Raises `ImportError` where the plotting library is missing."""
    import vl_convert

    # Not every mark has a label: an image is described by its alternative text.
    config = {**theme(_INK, _FAINT, LIGHT, background=_PAPER), "aria": False}
    for picture in every(Picture, report.blocks):
        spec = json.loads(picture.spec)
        for layer in spec.get("layer", [spec]):  # an image has no pointer above it
            layer.get("encoding", {}).pop("tooltip", None)
        _drop_unused(spec)
        if report.dataset and spec.get("data") == {"name": report.dataset.name}:
            named = json.dumps(spec)
            spec["data"] = {"values": _rows(report.dataset, [name for name in report.dataset.columns if name in named])}
        if spec.get("width") == "container":
            spec["width"] = WIDTH
        yield picture.name, vl_convert.vegalite_to_svg(_drawable(spec), config=config)


def _drawable(value: Any) -> Any:
    """The same with every text printable: at a control character the library aborts the whole process."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_drawable(one) for one in value]
        case dict():
            return {name: _drawable(one) for name, one in value.items()}
    return value


def load_converter() -> None:
    """Draw next to nothing: the first picture of a process takes half a second more. Raises as `drawn` does."""
    import vl_convert

    vl_convert.vegalite_to_svg({"mark": "point"})


def _drop_unused(spec: dict[str, Any]) -> None:
    """Without the calculations whose result nothing draws, as that of a tooltip's words: they take time for nothing."""
    if "transform" in spec:
        whole = json.dumps(spec)
        spec["transform"] = [
            step for step in spec["transform"] if "calculate" not in step or whole.count(step["as"]) > 1
        ]


def _rows(dataset: Dataset, columns: Collection[str]) -> list[dict[str, Any]]:
    """The rows as Vega takes them, with these columns alone: others would only take time."""
    kept = [(place, name) for place, name in enumerate(dataset.columns) if name in columns]
    return [{name: row[place] for place, name in kept} for row in dataset.rows]


def theme(ink: str, faint: str, palette: tuple[str, ...], *, background: str) -> dict[str, Any]:
    """A Vega-Lite configuration in these colours."""
    return {
        "background": background,
        "font": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif",
        "padding": 8,
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink,
            "titleColor": ink,
            "gridColor": faint,
            "domainColor": faint,
            "tickColor": faint,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelFontSize": 12,
            "titleFontSize": 12,
        },
        "legend": {
            "orient": "bottom",
            "labelColor": ink,
            "titleColor": ink,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelLimit": 220,
            "columns": _LEGEND_COLUMNS,
        },
        "text": {"color": ink},
        "rule": {"color": ink},
        "range": {"category": list(palette)},
    }


class Box(NamedTuple):
    """A rectangle of the plot."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def places(names: Sequence[str], points: Sequence[tuple[float, float]], taken: Iterable[Box] = ()) -> list[Place]:
    """Where each point's name has room, besides what is `taken`; beside its point where it has none."""
    full = [*taken, *(Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in points)]
    chosen = []
    for name, (x, y) in zip(names, points, strict=True):
        boxes = [_box(place, len(name) * LETTER_WIDTH, x, y) for place in _AROUND]
        free = [place for place, box in enumerate(boxes) if not any(box.overlaps(other) for other in full)]
        place = free[0] if free else 0
        full.append(boxes[place])
        chosen.append(_AROUND[place])
    return chosen


def _box(place: Place, width: float, x: float, y: float) -> Box:
    align, dx, dy = place
    start = x + dx - (0 if align == "left" else width if align == "right" else width / 2)
    return Box(start, y + dy - _LINE / 2, start + width, y + dy + _LINE / 2)
