"""How `archbench show` lays out what is known of a network."""

from __future__ import annotations

from collections.abc import Iterator

from archbench.catalog.card import Card
from archbench.cli.catalog_text import mib, scaled, shape, table
from archbench.known import Shown
from archbench.model.counts import SecondOpinion
from archbench.model.units import GIGA, MILLION


def lines(shown: Shown) -> Iterator[str]:
    """Everything that is known, a paragraph a subject."""
    yield from _head(shown)
    if shown.params is not None:
        yield from ("", f"Size, per image of {shape(shown.input_shape)}", *_sizes(shown))
    if shown.second_opinion is not None:
        yield from _second_opinion(shown.second_opinion)
    if shown.batch_size is not None:
        yield from ("", *_memory(shown))
    yield from ("", *_accuracies(shown))
    if shown.stages:
        yield from ("", "Stages", *_stages(shown))
    for paragraph in filter(None, (shown.note, shown.about)):
        yield from ("", paragraph)


def _head(card: Card) -> Iterator[str]:
    origin = ", ".join(str(part) for part in (card.family, card.year) if part)
    yield f"{card.variant} ({origin})" if origin else card.variant
    if card.idea:
        yield f"  {card.idea}"
    if card.paper:
        yield f"  {card.paper}" + (f", arXiv {card.arxiv}" if card.arxiv else "")
    options = "".join(f", {key}={value}" for key, value in card.options.items())
    yield f"  from {card.source}: {card.constructor}{options}"
    if card.aliases:
        yield f"  also called {', '.join(card.aliases)}"


def _sizes(card: Card) -> Iterator[str]:
    """Counted beside published, each column with its origin; then what is only counted."""
    headings = ("", "counted", *(size.origin for size in card.published))
    params = ("params M", scaled(card.params, MILLION), *(scaled(size.params, MILLION) for size in card.published))
    macs = ("GMACs", scaled(card.macs, GIGA), *(scaled(size.macs, GIGA) for size in card.published))
    yield from table(headings, headings[1:], (params, macs))
    yield f"  {card.params:,} trainable parameters, {card.buffers:,} elements in buffers"
    if card.idle_params:
        yield f"  of these, {card.idle_params:,} parameters are not used in inference (auxiliary heads)"
    yield f"  {card.macs:,} MACs = {card.flops:,} FLOPs; depth {card.depth} weight layers"
    yield f"  {card.activations:,} activations, {mib(card.activation_bytes)} in fp32"
    yield f"  {mib(card.weight_bytes)} of weights and buffers"
    if card.feature_width is not None:
        yield f"  {card.feature_width} feature channels under the classifier"
    for variant in card.variants:
        options = ", ".join(f"{key}={value}" for key, value in variant.options.items())
        yield f"  with {options}: {scaled(variant.params, MILLION)} M parameters, {scaled(variant.macs, GIGA)} GMACs"


def _second_opinion(opinion: SecondOpinion) -> Iterator[str]:
    yield (
        f"  second counter (fvcore): {scaled(opinion.macs, GIGA)} GMACs, {opinion.disagreement:+.2%}; "
        f"with its estimates for normalisation and pooling {scaled(opinion.total, GIGA)}"
    )
    if opinion.uncounted:
        yield f"  which it does not count: {', '.join(f'{o.operator} x{o.calls}' for o in opinion.uncounted)}"


def _memory(shown: Shown) -> Iterator[str]:
    inference, training = shown.predicted_inference_peak_bytes, shown.predicted_training_peak_bytes
    yield f"Memory predicted for batch {shown.batch_size} in fp32: live tensors at the peak of one step"
    yield f"  inference {mib(inference)}, training {mib(training)} (SGD with momentum)"
    if shown.unpredicted:
        yield f"  {shown.unpredicted}"


def _accuracies(card: Card) -> Iterator[str]:
    if not card.accuracies:
        yield "No published accuracy is known."
        return
    yield "Published accuracy, never measured here; the first line stands for the network"
    rows = [
        (
            _percent(accuracy.top1),
            _percent(accuracy.top5),
            accuracy.dataset,
            f"{accuracy.origin} {accuracy.tag or ''}",
            accuracy.protocol,
            accuracy.recipe or "",
        )
        for accuracy in card.accuracies
    ]
    numeric = ("top-1 %", "top-5 %")
    yield from table((*numeric, "on", "from", "protocol", "trained by"), numeric, rows)
    if card.accuracy_source is None:
        yield "None of these is of the network with these departures."


def _stages(card: Card) -> Iterator[str]:
    headings = ("stage", "output", "params M", "GMACs", "kind")
    rows = [
        (
            stage.name,
            shape(stage.output_shape),
            scaled(stage.params, MILLION) if stage.params else "",
            scaled(stage.macs, GIGA) if stage.macs else "",
            stage.kind,
        )
        for stage in card.stages
    ]
    return table(headings, ("params M", "GMACs"), rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
