"""How `archbench show` lays out what is known of a network."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from archbench.analyze.figures import SecondOpinion
from archbench.catalog.card import Card
from archbench.cli.catalog_text import BILLION, MILLION, console, scaled, shape, table

MIB = 2.0**20


class Shown(Card, frozen=True, kw_only=True):
    """What `--json` prints: a card, and what is known only of a network that was built."""

    batch_size: int | None = None
    """For which memory is predicted."""
    predicted_inference_peak_bytes: int | None = None
    """Live tensor bytes of one fp32 step on the CPU, weights and input included."""
    predicted_training_peak_bytes: int | None = None
    unpredicted: str | None = None
    """Why a prediction is missing."""
    second_opinion: SecondOpinion | None = None


def show(shown: Shown) -> None:
    """Print everything, a paragraph a subject."""
    out = console()
    out.print("\n".join(_head(shown)))
    if shown.params is not None:
        out.print("\nSize, per image" + (f" of {shape(shown.input_shape)}" if shown.input_shape else ""), style="bold")
        out.print(_sizes(shown))
        out.print("\n".join(_more_sizes(shown)))
    if shown.second_opinion is not None:
        out.print("\n".join(_second_opinion(shown.second_opinion)))
    if shown.batch_size is not None:
        out.print("\n".join(_memory(shown)))
    _accuracies(shown, out)
    if shown.stages:
        out.print("\nStages", style="bold")
        out.print(_stages(shown))
    for paragraph in filter(None, (shown.note, shown.about)):
        out.print(f"\n{paragraph}")


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


def _sizes(card: Card) -> Table:
    """Counted beside published, each column with its origin."""
    columns = ("", "counted", *(size.origin for size in card.published))
    params = ("params M", scaled(card.params, MILLION), *(scaled(size.params, MILLION) for size in card.published))
    macs = ("GMACs", scaled(card.macs, BILLION), *(scaled(size.macs, BILLION) for size in card.published))
    return table(columns, columns[1:], (params, macs))


def _more_sizes(card: Card) -> Iterator[str]:
    """What is only counted."""
    assert card.params is not None
    assert card.activations is not None
    yield f"  {card.params:,} trainable parameters, {card.buffers:,} elements in buffers"
    if card.idle_params:
        yield f"  of these, {card.idle_params:,} parameters are not used in inference (auxiliary heads)"
    yield f"  {card.macs:,} MACs = {card.flops:,} FLOPs; depth {card.depth} weight layers"
    yield f"  {card.activations:,} activations, {_mib(card.activation_bytes)} in fp32"
    yield f"  {_mib(card.weight_bytes)} of weights and buffers"
    if card.feature_width is not None:
        yield f"  {card.feature_width} feature channels under the classifier"
    for variant in card.variants:
        options = ", ".join(f"{key}={value}" for key, value in variant.options.items())
        yield f"  with {options}: {scaled(variant.params, MILLION)} M parameters, {scaled(variant.macs, BILLION)} GMACs"


def _second_opinion(opinion: SecondOpinion) -> Iterator[str]:
    yield (
        f"  second counter (fvcore): {scaled(opinion.macs, BILLION)} GMACs, {opinion.disagreement:+.2%}; "
        f"with its estimates for normalisation and pooling {scaled(opinion.total, BILLION)}"
    )
    if opinion.uncounted:
        yield f"  which it does not count: {', '.join(f'{o.operator} x{o.calls}' for o in opinion.uncounted)}"


def _memory(shown: Shown) -> Iterator[str]:
    inference, training = shown.predicted_inference_peak_bytes, shown.predicted_training_peak_bytes
    yield f"\nMemory predicted for batch {shown.batch_size} in fp32: live tensors at the peak of one step"
    yield f"  inference {_mib(inference)}, training {_mib(training)} (SGD with momentum)"
    if shown.unpredicted:
        yield f"  {shown.unpredicted}"


def _accuracies(card: Card, out: Console) -> None:
    if not card.accuracies:
        out.print("\nNo published accuracy is known.")
        return
    out.print("\nPublished accuracy, never measured here; the first line stands for the network", style="bold")
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
    out.print(table((*numeric, "on", "from", "protocol", "trained by"), numeric, rows))
    if card.accuracy_source is None:
        out.print("None of these is of the network with these departures.")


def _stages(card: Card) -> Table:
    headings = ("stage", "output", "params M", "GMACs", "kind")
    rows = [
        (
            stage.name,
            shape(stage.output_shape),
            scaled(stage.params, MILLION) if stage.params else "",
            scaled(stage.macs, BILLION) if stage.macs else "",
            stage.kind,
        )
        for stage in card.stages
    ]
    return table(headings, ("params M", "GMACs"), rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{scaled(size, MIB)} MiB"
