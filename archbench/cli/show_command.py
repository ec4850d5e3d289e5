"""`archbench show`: all that is known of one network without timing it, each figure with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

if TYPE_CHECKING:
    from archbench.cli.show_text import Shown
    from archbench.model.axes import Phase, Scalar
    from archbench.model.cell import Network

_SECOND_COUNT_LIMIT_BYTES = 2**30
"""Heavier networks are not put into memory for a second count unless `--build` asks for it."""


def command(
    name: Annotated[str, typer.Argument(help="A catalogue name, torchvision:NAME, timm:NAME or module:function.")],
    input_size: Annotated[int | None, typer.Option(min=1, help="Side of the image in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Predict memory at this batch size.")] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Outputs of the classifier.")] = None,
    in_channels: Annotated[int | None, typer.Option(min=1, help="Channels of the image, or width of a vector.")] = None,
    head: Annotated[str, typer.Option(help="classifier, or none for the feature maps.")] = "classifier",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the network: aux_logits=true.")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Build it: second counter and predicted memory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function.")] = False,
) -> None:
    """Show one network: size counted and published, accuracy with its protocol, stages; memory where it is built."""
    import msgspec
    from msgspec.structs import asdict

    from archbench.catalog import resolve
    from archbench.catalog.card import card, stored
    from archbench.cli.show_text import Shown, lines
    from archbench.model.axes import Head
    from archbench.model.cell import Network
    from archbench.model.errors import UsageError

    if head not in get_args(Head):
        raise UsageError(f"--head {head}: must be {' or '.join(get_args(Head))}")
    entry = resolve(name, allow_code=allow_code)
    network = Network(
        name=entry.name,
        options=dict(_option(text) for text in option or ()),
        num_classes=num_classes,
        in_channels=in_channels,
        head=head,  # type: ignore[arg-type]
        input_size=None if input_size == entry.input_size else input_size,
    )
    if build or batch_size is not None or stored(network) is None:
        shown = _build(network, batch_size or 1, even_if_heavy=build, allow_code=allow_code)
    else:
        shown = Shown(**asdict(card(entry, network, stored(network))))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    else:
        print("\n".join(lines(shown)))


def _build(network: Network, batch_size: int, *, even_if_heavy: bool, allow_code: bool) -> Shown:
    """Count the network here and now. The only place where the parent side imports torch: nothing is timed here."""
    from msgspec.structs import asdict

    from archbench.analyze import count, second_opinion
    from archbench.catalog import Counted, resolve
    from archbench.catalog.build import feature_width
    from archbench.catalog.card import card
    from archbench.cli.show_text import Shown

    counts = count(network, allow_code=allow_code)
    counted = Counted(counts=counts, feature_width=feature_width(network, allow_code=allow_code))
    heavy = counts.weight_bytes > _SECOND_COUNT_LIMIT_BYTES and not even_if_heavy
    inference, inference_note = _peak(network, "inference", batch_size, allow_code=allow_code)
    training, training_note = _peak(network, "training", batch_size, allow_code=allow_code)
    return Shown(
        **asdict(card(resolve(network.name, allow_code=allow_code), network, counted)),
        batch_size=batch_size,
        predicted_inference_peak_bytes=inference,
        predicted_training_peak_bytes=training,
        unpredicted=inference_note or training_note,
        second_opinion=None if heavy else second_opinion(network, counts, allow_code=allow_code),
    )


def _peak(network: Network, phase: Phase, batch_size: int, *, allow_code: bool) -> tuple[int | None, str | None]:
    """Predicted peak bytes of one step; or why there is no prediction, which is no reason to show nothing."""
    from archbench.analyze import predict
    from archbench.model.errors import UnfitError

    try:
        return predict(network, phase, "fp32", allow_code=allow_code).peak_bytes(batch_size), None
    except UnfitError as error:
        return None, str(error)


def _option(text: str) -> tuple[str, Scalar]:
    """`aux_logits=true` as ("aux_logits", True): numbers, true, false and null as in a suite, all else as text."""
    import msgspec

    from archbench.model.axes import Scalar
    from archbench.model.errors import UsageError

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--option {text}: must be KEY=VALUE, as in --option aux_logits=true")
    try:
        return key, msgspec.json.decode(value, type=Scalar)
    except msgspec.DecodeError:
        return key, value
