"""What `archbench list`, `show`, `fits` and `plan` tell before anything is timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from archbench.catalog.card import Shown, Summary
from archbench.catalog.tables import Accuracy
from archbench.model.axes import PHASES
from archbench.model.cell import Cell, Plan, sides_of
from archbench.model.counts import Stage
from archbench.model.units import AT_LEAST, GIGA, MIB, MILLION, NULL, RATIO, counted, figure, fixed
from archbench.rendering.content import Columns, Report, Section, Table, bullets, report, section, table, tabled

if TYPE_CHECKING:
    from archbench.known import Fits
    from archbench.model.suite import Suite
    from archbench.suite.duration import Prediction

_NOT_CONTAINED = (
    "live tensors alone: kernels' scratch (a few percent), an allocator's rounding and CUDA's context come on top"
)
_STAGES: Columns[Stage] = {
    "stage": lambda one: one.name,
    "output": lambda one: _shape(one.output_shape),
    ">params M": lambda one: figure(one.params or None, MILLION),
    ">GMACs": lambda one: figure(one.macs or None, GIGA),
    "kind": lambda one: one.kind,
}


def catalogue_report(networks: Sequence[Summary]) -> Report:
    """A row for each network of the catalogue."""
    columns: Columns[Summary] = {
        "name": lambda one: one.name,
        "family": lambda one: one.family or NULL,
        ">year": lambda one: str(one.year or NULL),
        ">params M": lambda one: figure(one.params, MILLION),
        ">GMACs": _gmacs,
        ">top-1 %": lambda one: fixed(one.top1, RATIO, 2),
        "on": lambda one: one.dataset or NULL,
        "input": lambda one: _shape(one.input_shape),
        "source": lambda one: one.source,
        "accuracy from": lambda one: one.accuracy_source or NULL,
    }
    return Report(title="", parts=(tabled(networks, columns),))  # its headings even of none


def card_report(shown: Shown) -> Report:
    """Everything that is known of one network, a section a subject."""
    origin = ", ".join(str(part) for part in (shown.family, shown.year) if part)
    options = "".join(f", {key}={value}" for key, value in shown.options.items())
    paper = shown.paper and shown.paper + (f", arXiv {shown.arxiv}" if shown.arxiv else "")
    source = f"from {shown.source}: {shown.constructor}{options}"
    aliases = f"also called {', '.join(shown.aliases)}" if shown.aliases else None
    published = shown.published
    rows = (  # counted beside published, each column with its origin
        ("params M", figure(shown.params, MILLION), *(figure(size.params, MILLION) for size in published)),
        ("GMACs", _gmacs(shown), *(figure(size.macs, GIGA) for size in published)),
    )
    sizes = table(("", ">counted", *(f">{size.origin}" for size in published)), rows)
    memory = (
        f"inference {_mib(shown.predicted_inference_peak_bytes)}, "
        f"training {_mib(shown.predicted_training_peak_bytes)} (SGD with momentum)"
    )
    return report(
        f"{shown.variant} ({origin})" if origin else shown.variant,
        bullets(shown.idea, paper, source, aliases),
        section(
            f"Size, per image of {_shape(shown.input_shape)}",
            (sizes, bullets(*_sizes(shown))) if shown.params is not None else None,
        ),
        section(
            f"Memory predicted for batch {shown.batch_size} in fp32: live tensors at the peak of one step",
            bullets(memory, shown.unpredicted, _NOT_CONTAINED) if shown.batch_size is not None else None,
        ),
        _accuracies(shown),
        section("Stages", tabled(shown.stages, _STAGES) if shown.stages else None),
        section("To know", shown.note, shown.about),
    )


def _gmacs(one: Summary) -> str:
    return (AT_LEAST if one.macs_lower_bound else "") + figure(one.macs, GIGA)


def _sizes(card: Shown) -> Iterator[str]:
    frozen = card.frozen_params or 0
    are = "parameters, all of them frozen" if frozen == card.params else "trainable parameters"
    more = f", {frozen:,} frozen ones" if 0 < frozen != card.params else ""
    yield f"{card.params:,} {are}{more}, {card.buffers:,} elements in buffers"
    if card.idle_params:
        yield f"of these, {card.idle_params:,} parameters are not used in inference (auxiliary heads)"
    if card.hidden_params:
        yield (
            f"beside them {card.hidden_params:,} parameters that torch does not see: of layers in a plain list or "
            "dictionary; no optimizer trains them, no state dict has them"
        )
    bound = AT_LEAST if card.macs_lower_bound else ""
    yield f"{bound}{card.macs:,} MACs = {bound}{card.flops:,} FLOPs; depth {card.depth} weight layers"
    if card.unknown_products:
        calls = ", ".join(f"{one.operator} x{one.calls}" for one in card.unknown_products)
        yield f"at least: products in these operators have no formula and are not counted: {calls}"
    yield f"{card.activations:,} activations, {_mib(card.activation_bytes)} in fp32"
    yield f"{_mib(card.weight_bytes)} of weights and buffers"
    if card.folds:
        yield "this is the form for training; --deploy shows the one that it folds into for inference"
    if card.pyramid:
        yield f"maps: {', '.join(f'{one.channels} channels at stride {one.stride}' for one in card.pyramid)}"
    if card.feature_width is not None:
        yield f"{card.feature_width} feature channels under the classifier"
    for variant in card.variants:
        options = ", ".join(f"{key}={value}" for key, value in variant.options.items())
        yield f"with {options}: {figure(variant.params, MILLION)} M parameters, {figure(variant.macs, GIGA)} GMACs"
    if (second := card.second_opinion) is not None:
        yield (
            f"second counter (fvcore): {figure(second.macs, GIGA)} GMACs, {second.disagreement:+.2%}; "
            f"with its estimates for normalisation and pooling {figure(second.total, GIGA)}"
        )
        if second.uncounted:
            yield f"which it does not count: {', '.join(f'{one.operator} x{one.calls}' for one in second.uncounted)}"
    if card.no_second_opinion is not None:
        yield f"no second count: {card.no_second_opinion}"


def fits_report(fits: Fits) -> Report:
    """How many images fit, and what real steps said."""
    cell = fits.cell
    said = [f"{fits.largest_batch:,} images" if fits.largest_batch else "not even one image"]
    if fits.peak_bytes is not None:
        said.append(f"peak {_mib(fits.peak_bytes)}")
    lines = [
        f"predicted: {', '.join(said)}; one more takes {_mib(fits.next_peak_bytes)}",
        f"{_NOT_CONTAINED}; leave a tenth",
    ]
    edge = fits.edge
    if edge is not None:
        beyond = f"{edge.failed:,} ran out of it" if edge.failed else "none that was tried ran out of it"
        ran = f"{edge.ran:,} images ran (peak {_mib(edge.peak_bytes)})" if edge.ran else "none ran"
        lines.insert(1, f"tried in {edge.tries} processes of so much memory: {ran}, {beyond}")
    where = f"{cell.phase}, {cell.toggles.label}, {cell.device}"
    return report(f"{fits.network} in {_mib(fits.memory_bytes)} ({where})", bullets(*lines))


def _accuracies(card: Shown) -> Section | None:
    if not card.accuracies:
        return Section(title="No published accuracy is known.", blocks=())
    columns: Columns[Accuracy] = {
        ">top-1 %": lambda one: fixed(one.top1, RATIO, 2),
        ">top-5 %": lambda one: fixed(one.top5, RATIO, 2),
        "on": lambda one: one.dataset,
        "from": lambda one: f"{one.origin} {one.tag or ''}".rstrip(),
        "protocol": lambda one: one.protocol,
        "trained by": lambda one: one.recipe or NULL,
    }
    known = tabled(card.accuracies, columns)
    none = "None of these is of the network with these departures." if card.accuracy_source is None else ""
    return section("Published accuracy, never measured here; the first line stands for the network", known, none)


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{figure(size, MIB)} {MIB.symbol}"


def _shape(sides: Sequence[int] | None) -> str:
    """`3x224x224`."""
    return "x".join(map(str, sides or ())) or NULL


def plan_report(suite: Suite, plan: Plan, prediction: Prediction, *, by_phase: bool) -> Report:
    """What a run would measure, how long that would take, what it would skip and why."""
    networks, groups = {cell.network.label for cell in plan.cells}, {group.group_id for group in plan.rounds[0]}
    counts = (
        f"{counted(len(plan.cells), 'cell')} of {counted(len(networks), 'network')} in "
        f"{counted(len(groups), 'group')}, {counted(len(plan.rounds), 'round')}, seed {plan.seed}"
    )
    said = [suite.description]
    twin = next((group for group in plan.rounds[0] if group.visit), None)
    if twin is not None:
        cell = twin.cells[0]
        what = f"{cell.network.label} ({cell.phase}, {_setting(cell)})"
        said.append(f"twin: {what} is measured first, in between and last in each round")
    for reason, number in Counter(skip.reason for skip in plan.skipped).items():
        said.append(f"skipped: {counted(number, 'cell')}: {reason}")
    rows = ((name, f"{seconds:.0f}") for name, seconds in prediction.phases.items() if seconds >= 0.5)
    part = f", shard {plan.shard.word}" if plan.shard else ""
    return report(
        f"{suite.suite} on {plan.device}{part}: {counts}",
        said,
        prediction.in_words,
        _cells(suite, plan.cells) if plan.cells else None,
        table(("phase", ">seconds"), rows) if by_phase else None,
    )


def _cells(suite: Suite, cells: Sequence[Cell]) -> Table:
    """Networks down, settings across; in each field the number of cells, inference/training where both occur."""
    named, settings = [network.name for network in suite.architectures], list(suite.settings)

    def down(cell: Cell) -> tuple[int, int, str]:
        """As in the suite, a network's sizes ascending."""
        sides = sides_of(cell.network.input_size or 0)
        return named.index(cell.network.name), math.prod(sides), cell.network.label

    def across(cell: Cell) -> tuple[int, ...]:
        """As in the suite; without a setting by its toggles, the plain ones first."""
        place = (len(settings), *cell.toggles.order) if cell.setting is None else (settings.index(cell.setting),)
        return (*place, cell.threads or 0)

    numbers = Counter((cell.network.label, _setting(cell), cell.phase) for cell in cells)
    phases = [phase for phase in PHASES if any(cell.phase == phase for cell in cells)]
    columns = list(dict.fromkeys(map(_setting, sorted(cells, key=across))))

    def fields(network: str) -> Iterator[str]:
        yield network
        for setting in columns:
            found = [numbers[network, setting, phase] for phase in phases]
            yield "/".join(str(number or NULL) for number in found) if any(found) else NULL

    headings = (f"cells ({'/'.join(phases)})", *(f">{setting}" for setting in columns))
    return table(headings, map(fields, dict.fromkeys(cell.network.label for cell in sorted(cells, key=down))))


def _setting(cell: Cell) -> str:
    """The setting's name; without one, the toggles that are not at their default."""
    label = cell.setting or cell.toggles.label
    return label if cell.threads is None else f"{label}, {counted(cell.threads, 'thread')}"
