"""`archbench doctor`: is this machine fit to measure, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from archbench.model.errors import UnfitError

if TYPE_CHECKING:
    from archbench.device.doctor import Examination

_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "unfit": "bold red"}
_PIPE_WIDTH = 160


def command(
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    as_json: bool = typer.Option(False, "--json", help="Print findings and environment as JSON."),
) -> None:
    """Judge whether this machine is fit to measure: each finding with its remedy; exit 3 when it is not."""
    import msgspec

    from archbench.device import examine, resolve_device

    examined = examine(resolve_device(device))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(examined)).decode())
    else:
        _show(examined)
    if not examined.fit:
        reasons = dict.fromkeys(finding.code for finding in examined.findings if finding.severity == "unfit")
        raise UnfitError(f"this machine is not fit to measure on {examined.environment.device}: {', '.join(reasons)}")


def _show(examined: Examination) -> None:
    """A table on stdout; rich leaves the colours out for NO_COLOR and where nobody is looking."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "what", "finding", "remedy"):
        table.add_column(heading, no_wrap=heading in ("", "what"))
    for finding in examined.findings:
        severity = Text(finding.severity, style=_STYLES[finding.severity])
        table.add_row(severity, finding.code, Text(finding.what), Text(finding.remedy))
    console.print(Text(f"{examined.environment.hardware_class}, measured as {examined.environment.device}"))
    console.print(table)
