"""`archbench profile`: where the time and the memory of one step go, in one screen, and what would help."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from archbench.cli.console import AsJson, NetworkArgument, print_json, taking
from archbench.model.errors import UsageError
from archbench.options import ProfileOptions


@taking(ProfileOptions)
def profile_command(
    name: NetworkArgument,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels of modules to show; by default the stages.")] = None,
    top: Annotated[int, typer.Option(min=0, max=60, help="Operators or kernels to show.")] = 6,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show where one step's time and memory go: by module, operator and stage, under the roofline."""
    from archbench.choose.profile_difference import Compared
    from archbench.profiling import profile
    from archbench.rendering.profile_screen import difference_screen, profile_screen
    from archbench.rendering.terminal import print_report

    if given["against"] and given["stage"]:
        raise UsageError("--stage shows the inside of one network; leave out --against, or --stage")
    found = profile(name, **given)
    if as_json:
        print_json(found, indent=False)
    elif isinstance(found, Compared):
        print_report(difference_screen(found, found.against, depth=depth))
    else:
        print_report(profile_screen(found, depth=depth, stage=given["stage"], top=top))
    for written in ("html", "trace", "snapshot"):
        if written in given:
            print(f"written: {given[written]}", file=sys.stderr)
