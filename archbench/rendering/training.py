"""A training probe as something to read: the two curves that everybody knows, gradients, and how each ended."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean

from archbench.model.units import NULL, counted, duration, plain
from archbench.rendering.content import Columns, Picture, Report, Section, body, section, sections, tabled
from archbench.rendering.drawing import Spec, layer, number, word
from archbench.training.probe import Probe
from archbench.training.settings import SUBJECTS, Point

_HEIGHT = 280
_WIDE = 290
"""Pixels of each of two pictures side by side."""
_FAILED_BELOW = 0.95
"""Of the accuracy that the better of two networks of one depth reached: where the other has not trained."""


def probe_report(probe: Probe) -> Report:
    """What was trained and how, the curves, and the table of ends."""
    settings, about = probe.about.settings, probe.about
    schedule = ", ".join(
        f"{kind}: {one.steps} steps of {one.batch_size} images, learning rate {one.learning_rate:g}"
        for kind, one in settings.schedules.items()
        if any(SUBJECTS[name].kind == kind for name in settings.subjects)
    )
    done = counted(len(probe.last), "training")
    left = f"; {counted(len(probe.missing), 'training')} missing" if probe.missing else ""
    lead = body(
        f"{done} on {settings.data}, images of {settings.image_size} px, {counted(len(settings.seeds), 'seed')}, "
        f"on {about.hardware_class}, torch {about.torch_version}, {about.at_once} at once, one thread each: "
        f"{duration(about.spent_s)}{left}.",
        f"SGD with momentum 0.9, the rate divided by ten after half and three quarters. {schedule}.",
    )
    kinds = {"Depth": "depth", "Adding and concatenating": "joining", "Chains": "chain"}
    tables = (
        _table(title, [one for one in probe.last if SUBJECTS[one.network].kind == kind], probe)
        for title, kind in kinds.items()
    )
    return Report(
        title=f"Training probe on {settings.data}",
        lead=lead,
        sections=sections(_curves(probe), section("Gradients", _gradients(probe)), *tables),
    )


def _curves(probe: Probe) -> Section | None:
    points = [one for one in probe.points if SUBJECTS[one.network].kind == "depth"]
    if not points:
        return None
    shallow, deep = _accuracy(probe, "plain20"), _accuracy(probe, "plain56")
    degrades = shallow is not None and deep is not None and deep < shallow
    picture = Picture(
        name="two-curves",
        title="Training loss of plain and of residual networks",
        alt="Left: plain networks, where more layers train worse. Right: residual ones of the same depths. Lines are "
        "means over seeds, bands from the lowest to the highest."
        if degrades
        else "Left: plain networks. Right: residual ones of the same depths. Lines are means over seeds.",
        spec=_curve_spec(points),
    )
    return section("The two curves", _verdict(probe), picture)


def _accuracy(probe: Probe, name: str) -> float | None:
    found = [one.train_accuracy for one in probe.last if one.network == name]
    return fmean(found) if found else None


def _verdict(probe: Probe) -> str:
    """Whether plain networks fail where residual ones train, by depth, as this probe has it."""
    told = []
    for depth in (20, 56, 110):
        plain_net, residual = _accuracy(probe, f"plain{depth}"), _accuracy(probe, f"resnet{depth}")
        if plain_net is None or residual is None:
            continue
        failed = plain_net < _FAILED_BELOW * residual
        word = "fails where the residual one trains" if failed else "trains about as far as the residual one"
        told.append(f"at {depth} layers the plain network {word} ({plain_net:.1f} against {residual:.1f} %)")
    return f"By training accuracy, mean over seeds: {'; '.join(told)}." if told else "Too little is trained to tell."


def _faceted(rows: Sequence[Spec], column: Spec, layers: Sequence[Spec]) -> str:
    """Two pictures side by side, told apart by a column."""
    spec = {"width": _WIDE, "height": _HEIGHT, "layer": list(layers)}
    return json.dumps({"data": {"values": list(rows)}, "facet": {"column": column}, "spec": spec})


def _curve_spec(points: Sequence[Point]) -> str:
    rows: list[Spec] = [
        {
            "step": one.step,
            "loss": one.train_loss if math.isfinite(one.train_loss) else None,
            "layers": "".join(filter(str.isdigit, one.network)),
            "kind": "plain" if one.network.startswith("plain") else "residual",
        }
        for one in points
    ]
    x = number("step", "Step")
    y = number("loss", "Training loss", scale={"zero": True})
    layers = word("layers", "Layers", sort=["20", "56", "110"])
    mean = {"x": x, "y": {**y, "aggregate": "mean"}, "color": layers}
    band = {"x": x, "y": {**y, "aggregate": "min"}, "y2": {"field": "loss", "aggregate": "max"}, "color": layers}
    layers_of = [layer("area", band, opacity=0.2), layer("line", mean, strokeWidth=2)]
    return _faceted(rows, word("kind", "", header={"title": None}), layers_of)


def _gradients(probe: Probe) -> Picture | None:
    """First and last point's norms by layer, of the networks of depth at their first seed."""
    rows: list[Spec] = []
    for name in [one for one in probe.about.settings.subjects if SUBJECTS[one].kind == "depth"]:
        along = [one for one in probe.points if one.network == name and one.seed == probe.about.settings.seeds[0]]
        for when, point in (("at the beginning", along[0]), ("at the end", along[-1])) if along else ():
            count = len(point.gradient_norms)
            rows += [
                {"network": name, "when": when, "place": place / max(count - 1, 1), "norm": norm}
                for place, norm in enumerate(point.gradient_norms)
                if norm > 0 and math.isfinite(norm)
            ]
    if not rows:
        return None
    line = {
        "x": number("place", "Place in the network", axis={"format": "%"}),
        "y": number("norm", "Norm of the gradient", scale={"type": "log"}, axis={"format": ".0e"}),
        "color": word("network", "Network", sort=None),
    }
    return Picture(
        name="gradients",
        title="Gradients from the first layer to the last",
        alt="The norm of the loss's gradient by each layer's weights, first layer (0 %) to last, one seed.",
        spec=_faceted(rows, word("when", "", header={"title": None}, sort=None), [layer("line", line)]),
    )


def _table(title: str, ends: Sequence[Point], probe: Probe) -> Section | None:
    if not ends:
        return None
    names = list(dict.fromkeys(one.network for one in ends))

    def of(name: str) -> list[Point]:
        return [one for one in ends if one.network == name]

    def mean(name: str, field: str) -> str:
        values = [getattr(one, field) for one in of(name)]
        finite = [value for value in values if math.isfinite(value)]
        return f"{plain(fmean(finite))}" if len(finite) == len(values) else "NaN"

    def spread(name: str) -> str:
        return ", ".join("NaN" if math.isnan(one.train_loss) else plain(one.train_loss, 2) for one in of(name))

    def ended(name: str) -> str:
        early = [one for one in of(name) if math.isnan(one.train_loss)]
        return f"diverged at step {', '.join(str(one.step) for one in early)}" if early else ""

    def first_to_last(point: Point) -> float:
        last = point.gradient_norms[-1]
        return point.gradient_norms[0] / last if last else math.nan

    def seconds(name: str) -> str:
        times = [spent for training, spent in probe.about.seconds.items() if training.rpartition(" ")[0] == name]
        return plain(fmean(times)) if times else NULL

    columns: Columns[str] = {
        "Network": lambda name: name,
        "What": lambda name: SUBJECTS[name].about,
        ">Training loss": lambda name: mean(name, "train_loss"),
        ">by seed": spread,
        ">Training accuracy %": lambda name: mean(name, "train_accuracy"),
        ">Test accuracy %": lambda name: mean(name, "test_accuracy"),
        ">Gradient, first over last": lambda name: plain(fmean(map(first_to_last, of(name)))),
        ">Seconds each": seconds,
    }
    if any(map(ended, names)):
        columns = {**columns, "Ended": lambda name: ended(name) or NULL}
    return section(title, tabled(names, columns, title))
