"""Writes docs/protocol.md, the constants of measuring: `python docs/protocol_page.py > docs/protocol.md`."""

from __future__ import annotations

from archbench.model.axes import DEVICE_KINDS
from archbench.model.protocol import PROTOCOL_VERSION, constants, protocol_for
from archbench.rendering.content import report, table
from archbench.rendering.text import render_markdown

UNITS = {"s": "seconds", "share": "a share of 1", "ratio": "a ratio", "count": "a count"}


def protocol_markdown() -> str:
    """The page: a row for each constant."""
    opening = (
        "The defaults of the protocol that `measuring.md` explains. A suite changes one under `protocol:`, as in "
        "`protocol: {max_sampling_s: 10}`; a run stores those that it used in `protocol.json`. Protocol version "
        f"{PROTOCOL_VERSION}, a column of every row: figures of two versions are not compared."
    )
    defaults = {kind: protocol_for(kind, {}) for kind in DEVICE_KINDS}
    rows = (
        (
            f"`{one.name}`",
            *(f"{getattr(protocol, one.name):g}" for protocol in defaults.values()),
            UNITS[one.unit],
            one.meaning,
        )
        for one in constants()
    )
    headings = ("constant", *(f">{kind}" for kind in defaults), "unit", "meaning")
    return render_markdown(report("Protocol", opening, table(headings, rows)))


if __name__ == "__main__":
    print(protocol_markdown(), end="")
