"""The folklore checked: claims beside what is measured, in a report of their own and in a run's; the training probe."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from archbench.folklore import claims
from archbench.folklore.claims import Judged, Judgement
from archbench.folklore.sources import Sources
from archbench.model.units import NULL, counted, duration, plain
from archbench.rendering import content
from archbench.rendering.content import Columns, Picture, Report, Section, listed, report, section, table, tabled
from archbench.rendering.drawing import Spec, layer, number, word
from archbench.rendering.run_data import RunData
from archbench.training.settings import SUBJECTS, Point

if TYPE_CHECKING:
    from archbench.training.probe import Probe

_MOST_CLAIMS = 500
_HEIGHT = 280
_WIDE = 290
"""Pixels of each of two pictures side by side."""
_FAILED_BELOW = 0.95
"""Of the accuracy that the better of two networks of one depth reached: where the other has not trained."""


def folklore_report(found: Sequence[Judged]) -> Report:
    """Verdicts by kind, every claim, what is right where a source is not, and what would judge the rest."""
    mended = [one for one in found if one.right is not None and one.verdict in ("refuted", "depends")]
    pairs = [(one, each) for one in found for each in one.judgements if _by_cells(each)]
    commands = dict.fromkeys(command for one in found for command in one.commands)
    sources = {one.id.partition(".")[0]: f"{one.source}{f', {one.url}' if one.url else ''}" for one in found}
    of_kind = {kind: [one for one in found if kind in (one.kind, "all")] for kind in (*claims.KINDS, "all")}
    counts = (
        (kind, *(str(sum(one.verdict == ruling for one in those)) for ruling in claims.RULINGS))
        for kind, those in of_kind.items()
        if those
    )
    return report(
        f"{counted(len(found), 'claim')}, checked",
        "Each claim is judged by an expression over counts, stored runs, trainings and published figures; "
        "`depends` where the answer changes with what one looks at or with the setting.",
        table(("Kind", *(f">{ruling.capitalize()}" for ruling in claims.RULINGS)), counts, "Verdicts by kind"),
        _section("Claims", found, _CLAIMS),
        _section("Where a source is wrong, or half right", mended, _MENDED),
        section(
            "Setting by setting",
            content.fold(f"{len(pairs):,} judgements by stored cells", listed(pairs, _JUDGEMENTS, noun="judgements")),
        ),
        section(
            "Not judged yet",
            content.Code("\n".join(commands)),
            note="What would judge the rest (`--measure 10m` runs it within that time):",
        ),
        section("Sources", content.bullets(*(f"{name}: {text}" for name, text in sources.items()))),
    )


def folklore(run: RunData) -> Section | None:
    """What this run alone says of claims about time and memory; `None` where it has the figures of none."""
    own = claims.own_claims()
    sources = Sources(own.facts, [run.candidates], builds=False)
    found = (claims.judge_one(one, sources) for one in own.claims if claims.measured_alone(one))
    measured = [one for one in found if any(_by_cells(each) for each in one.judgements)]
    return section(
        "Folklore",
        listed(measured, _CLAIMS, noun="claims", caption="Folklore"),
        note="What tutorials and papers say, as this run has it; `archbench claims` judges the others, too.",
    )


def _by_cells(one: Judgement) -> bool:
    return one.hardware_class is not None


_CLAIMS: Columns[Judged] = {
    "Id": lambda one: one.id,
    "Claim": lambda one: one.statement,
    "Kind": lambda one: one.kind,
    "Verdict": lambda one: one.verdict,
    "What decides it": lambda one: one.why,
}
_MENDED: Columns[Judged] = {
    "Id": lambda one: one.id,
    "Claim": lambda one: one.statement,
    "Source": lambda one: one.source,
    "Verdict": lambda one: one.verdict,
    "What is right": lambda one: one.right or NULL,
}
_JUDGEMENTS: Columns[tuple[Judged, Judgement]] = {
    "Id": lambda pair: pair[0].id,
    "By": lambda pair: pair[1].aspect or NULL,
    "Setting": lambda pair: pair[1].setting,
    "Machine": lambda pair: pair[1].hardware_class or NULL,
    "Holds": lambda pair: {True: "yes", False: "no", None: "open"}[pair[1].holds],
    "Figures": lambda pair: claims.figures_of(pair[1]),
}


def _section(title: str, found: Sequence[Judged], columns: Columns[Judged]) -> Section | None:
    blocks = listed(found, columns, noun="claims", caption=title, most=_MOST_CLAIMS, elsewhere="which `--json` has")
    return section(title, blocks)


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
    kinds = {"Depth": "depth", "Adding and concatenating": "joining", "Chains": "chain"}
    tables = (
        _table(title, [one for one in probe.last if SUBJECTS[one.network].kind == kind], probe)
        for title, kind in kinds.items()
    )
    return report(
        f"Training probe on {settings.data}",
        f"{done} on {settings.data}, images of {settings.image_size} px, {counted(len(settings.seeds), 'seed')}, "
        f"on {about.hardware_class}, torch {about.torch_version}, {about.at_once} at once, one thread each: "
        f"{duration(about.spent_s)}{left}.",
        f"SGD with momentum 0.9, the rate divided by ten after half and three quarters. {schedule}.",
        _curves(probe),
        section("Gradients", _gradients(probe)),
        *tables,
    )


def _curves(probe: Probe) -> Section | None:
    rows: list[Spec] = [
        {
            "step": one.step,
            "loss": one.train_loss if math.isfinite(one.train_loss) else None,
            "layers": "".join(filter(str.isdigit, one.network)),
            "kind": "plain" if one.network.startswith("plain") else "residual",
        }
        for one in probe.points
        if SUBJECTS[one.network].kind == "depth"
    ]
    if not rows:
        return None
    x, y = number("step", "Step"), number("loss", "Training loss", scale={"zero": True})
    layers = word("layers", "Layers", sort=["20", "56", "110"])
    mean = {"x": x, "y": {**y, "aggregate": "mean"}, "color": layers}
    band = {"x": x, "y": {**y, "aggregate": "min"}, "y2": {"field": "loss", "aggregate": "max"}, "color": layers}
    drawn = [layer("area", band, opacity=0.2), layer("line", mean, strokeWidth=2)]
    shallow, deep = _accuracy(probe, "plain20"), _accuracy(probe, "plain56")
    degrades = shallow is not None and deep is not None and deep < shallow
    picture = Picture(
        name="two-curves",
        title="Training loss of plain and of residual networks",
        alt="Left: plain networks, where more layers train worse. Right: residual ones of the same depths. Lines are "
        "means over seeds, bands from the lowest to the highest."
        if degrades
        else "Left: plain networks. Right: residual ones of the same depths. Lines are means over seeds.",
        spec=_faceted(rows, word("kind", "", header={"title": None}), drawn),
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
    of = content.grouped(ends, lambda one: one.network)

    def mean(name: str, field: str) -> str:
        values = [getattr(one, field) for one in of[name]]
        return plain(fmean(values)) if all(map(math.isfinite, values)) else "NaN"

    def spread(name: str) -> str:
        return ", ".join("NaN" if math.isnan(one.train_loss) else plain(one.train_loss, 2) for one in of[name])

    def ended(name: str) -> str:
        early = ", ".join(str(one.step) for one in of[name] if math.isnan(one.train_loss))
        return f"diverged at step {early}" if early else ""

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
        ">Gradient, first over last": lambda name: plain(fmean(map(first_to_last, of[name]))),
        ">Seconds each": seconds,
    }
    if any(map(ended, of)):
        columns = {**columns, "Ended": lambda name: ended(name) or NULL}
    return section(title, tabled(of, columns, title))
