"""Pictures: the words of Vega-Lite that charts are written in, their colours, and how they become files.

A definition is a dict, as Vega-Lite has it (https://vega.github.io/vega-lite/docs/), so that charts need no library;
`vl_convert` draws files from them and holds the scripts that draw them in a page.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

from archbench.model.errors import UnfitError
from archbench.model.units import printable
from archbench.rendering.content import NAMES, Picture, Report, every

log = logging.getLogger(__name__)

Spec: TypeAlias = dict[str, Any]
"""A part of a definition."""
DRAWN_BY = "`pip install 'archbench[plots]'` brings what draws them"
STARTING = RLock()
"""Held while the library draws its first picture: one start of some hundreds was seen never to end."""
START_S = 60.0
KINDS = ("svg", "png", "pdf")
"""Files that a picture can be stored as."""
WIDTH = 680
"""Pixels: as wide as a forge shows a page's text."""
_PNG_SCALE = 2
_LEGEND_COLUMNS = 4
_INK, _FAINT, _PAPER = "#1f2328", "#d8dee4", "#ffffff"
LIGHT = ("#0072b2", "#d55e00", "#00805f", "#b0508c", "#8a6d00", "#4d5560", "#7a4bc4", "#0a8ea0")
"""Colours that stay apart for every kind of colour vision and stand out from white by 3:1 (after Okabe and Ito)."""
DARK = ("#56b4e9", "#ff9d5c", "#2dc9a0", "#e79ac6", "#e6d33f", "#b8bec6", "#b79cf0", "#4fd3e0")
"""The same on a dark ground."""
_SIDES = ("right", "left", "top", "bottom", "top-right", "bottom-right", "top-left", "bottom-left")
PLACED: Spec = {
    "type": "label",
    "anchor": [*_SIDES, "top", "bottom"],
    "offset": [*(5 if "-" in side else 8 for side in _SIDES), 20, 20],
    "size": {"signal": "[width, height]"},
    "sort": {"field": "datum.name_order"},
}
"""Vega's own way to place names: where they cover no point and no other name; those without room go. The smallest
`name_order` chooses first. Vega-Lite has no word for it, so it is added to what that compiles to."""


def word(field: str, title: str = "", **rest: Any) -> Spec:
    """A field whose values are names."""
    return {"field": field, "type": "nominal", **({"title": title} if title else {}), **rest}


def number(field: str, title: str = "", **rest: Any) -> Spec:
    """A field whose values are numbers."""
    return {"field": field, "type": "quantitative", **({"title": title} if title else {}), **rest}


def layer(kind: str, encoding: Spec, *, data: Sequence[Spec] | None = None, name: str = "", **mark: Any) -> Spec:
    """Marks of one kind; `data`: rows of its own."""
    own = {} if data is None else {"data": {"values": list(data)}}
    return {**own, **({"name": name} if name else {}), "mark": {"type": kind, **mark}, "encoding": encoding}


def names(x: Spec, y: Spec, **rest: Any) -> Spec:
    """A layer of the names that `called` gives points, placed by `PLACED`."""
    return layer("text", {"x": x, "y": y, "text": word("called")}, name=NAMES, fontSize=11, **rest)


def called(name: str, order: str = "0") -> list[Spec]:
    """Transforms that `names` needs: each point's name and its turn to choose a place, as Vega's expressions."""
    return [{"calculate": name, "as": "called"}, {"calculate": order, "as": "name_order"}]


def chart(layers: Sequence[Spec], height: int | Spec, **rest: Any) -> str:
    """A definition as JSON, as wide as where it stands."""
    return json.dumps({"layer": list(layers), "width": "container", "height": height, **rest})


def log_axis(channel: str, **axis: Any) -> Spec:
    """A logarithmic scale with figures at 1, 2, 5, 10 and so on; at every line where less than a decade is shown."""
    decades = f"(log(domain('{channel}')[1] / domain('{channel}')[0]) / LN10)"
    leading = "round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))"
    shown = f"{decades} < 1 || indexof({decades} < 3.5 ? [1, 2, 5] : [1], {leading}) >= 0"
    return {
        "scale": {"type": "log", "nice": False, "padding": 20},
        "axis": {"tickCount": 8, "labelExpr": f"{shown} ? format(datum.value, ',.4~r') : ''", **axis},
    }


def draw(report: Report, folder: Path, kinds: Collection[str] = ("svg",)) -> bool:
    """Write each picture as `folder`/NAME.svg or another of `KINDS`; whether all are there.

    What hinders it is a warning: text goes on. Raises `UnfitError` where the folder cannot be written.
    """
    from archbench.results.files import write_bytes

    try:
        images = [(f"{name}.{kind}", drawn(vega, kind)) for name, vega in compiled(report) for kind in kinds]
    except (ImportError, ValueError) as error:  # ValueError: what Vega says of a definition that it cannot draw
        log.warning("plots are described, not drawn: %s; %s", error, DRAWN_BY)
        return False
    if images:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UnfitError(f"cannot write {folder}: {error.strerror}; make room or give another place") from error
    for name, image in images:
        write_bytes(folder / name, image)
    return True


def library() -> Any:
    """What draws. Raises `ImportError` where it is missing, or has been starting in another thread for `START_S`."""
    if not STARTING.acquire(timeout=START_S):
        raise ImportError(f"the plotting library has not started in {START_S:g} s")
    STARTING.release()
    return import_module("vl_convert")


def drawn(vega: Spec, kind: str = "svg") -> bytes:
    """A picture of `compiled` as a file's content."""
    vl_convert = library()
    match kind:
        case "png":
            return bytes(vl_convert.vega_to_png(vega, scale=_PNG_SCALE))
        case "pdf":
            return bytes(vl_convert.vega_to_pdf(vega))
    return str(vl_convert.vega_to_svg(vega)).encode()


def compiled(report: Report) -> Iterator[tuple[str, Spec]]:
    """The name of each picture and what Vega draws of it. Raises `ImportError` without the plotting library."""
    vl_convert = library()
    # Not every mark has a label: an image is described by its alternative text.
    config = {**theme(_INK, _FAINT, LIGHT, background=_PAPER), "aria": False}
    for picture in every(Picture, report.blocks):
        spec = json.loads(picture.spec)
        for one in spec.get("layer", [spec]):  # an image has no pointer above it
            one.get("encoding", {}).pop("tooltip", None)
        whole = json.dumps(spec)
        if "transform" in spec:  # a calculation whose result nothing draws, as that of a tooltip's words, takes time
            used = (step for step in spec["transform"] if "calculate" not in step or whole.count(step["as"]) > 1)
            spec["transform"] = list(used)
        if report.dataset and spec.get("data") == {"name": report.dataset.name}:
            named = json.dumps(spec)  # and so do columns
            kept = [(place, name) for place, name in enumerate(report.dataset.columns) if name in named]
            spec["data"] = {"values": [{name: row[place] for place, name in kept} for row in report.dataset.rows]}
        if spec.get("width") == "container":
            spec["width"] = WIDTH
        vega = vl_convert.vegalite_to_vega(_drawable(spec), config=config)
        for mark in vega["marks"]:
            if mark.get("name") == f"{NAMES}_marks":
                mark["transform"] = [PLACED]
        yield picture.name, vega


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
    library().vegalite_to_svg({"mark": "point"})


def theme(ink: str, faint: str, palette: tuple[str, ...], *, background: str) -> dict[str, Any]:
    """A Vega-Lite configuration in these colours."""
    colours, sizes = {"labelColor": ink, "titleColor": ink}, {"labelFontSize": 12, "titleFontSize": 12}
    words = {**colours, "titleFontWeight": "normal", **sizes}
    return {
        "background": background,
        "font": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif",
        "padding": 8,
        "view": {"stroke": None},
        "axis": {**words, "gridColor": faint, "domainColor": faint, "tickColor": faint, "titlePadding": 10},
        "legend": {**words, "orient": "bottom", "labelLimit": 220, "columns": _LEGEND_COLUMNS},
        "text": {"color": ink},
        "rule": {"color": ink},
        "range": {"category": list(palette)},
    }
