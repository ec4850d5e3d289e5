"""`archbench show`: all that is known of one network without timing it, each figure with its source."""

from __future__ import annotations

from typing import Annotated

import typer

from archbench.cli.console import print_json


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
    from archbench.api import show
    from archbench.rendering.catalogue import card_report
    from archbench.rendering.terminal import print_report

    shown = show(
        name,
        input_size=input_size,
        batch_size=batch_size,
        num_classes=num_classes,
        in_channels=in_channels,
        head=head,
        option=option or (),
        build=build,
        allow_code=allow_code,
    )
    if as_json:
        print_json(shown)
    else:
        print_report(card_report(shown))
