"""`archbench doctor`: is this machine fit to measure, and what to do where it is not."""

from __future__ import annotations

import typer

from archbench.cli.console import print_json
from archbench.model.errors import UnfitError


def command(
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    as_json: bool = typer.Option(False, "--json", help="Print findings and environment as JSON."),
) -> None:
    """Judge whether this machine is fit to measure: each finding with its remedy; exit 3 when it is not."""
    from archbench.device import examine, resolve_device
    from archbench.rendering.content import Report, table
    from archbench.rendering.terminal import print_report

    examined = examine(resolve_device(device))
    if as_json:
        print_json(examined)
    else:
        here = examined.environment
        rows = [
            (one.severity, one.code, f"{one.what}. {one.remedy}" if one.remedy else one.what)
            for one in examined.findings
        ]
        title = f"{here.hardware_class}, measured as {here.device}"
        print_report(Report(title=title, lead=(table(("", "", ""), rows),), sections=()))
    if not examined.fit:
        reasons = dict.fromkeys(finding.code for finding in examined.findings if finding.severity == "unfit")
        raise UnfitError(f"this machine is not fit to measure on {examined.environment.device}: {', '.join(reasons)}")
