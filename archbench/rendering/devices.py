"""The devices of a run: how far they differ, and which is far from its class."""

from __future__ import annotations

import math
from collections.abc import Callable

from archbench.model.units import counted, percent
from archbench.rendering.content import Paragraph, Section, tabled
from archbench.rendering.run_data import RunData
from archbench.stats.devices import FEWEST, Devices


def devices(run: RunData) -> Section | None:
    """What the cells that several devices measured say of these; `None` for a run of one device."""
    found = run.devices
    if found is None:
        return None
    columns: dict[str, Callable[[tuple[str, float]], str]] = {
        "Device": lambda one: one[0],
        ">Time over the class's": lambda one: percent(math.expm1(one[1]), signed=True),
        "": lambda one: "far from its class" if one[0] in found.far else "",
    }
    slowest_first = sorted(found.effects.items(), key=lambda one: -one[1])
    return Section(
        title="Devices",
        blocks=(
            Paragraph(statement(found, run.environment.hardware_class)),
            tabled(slowest_first, columns, "The devices"),
        ),
    )


def statement(found: Devices, hardware_class: str) -> str:
    """`These 8 NVIDIA H100 differ by 3.1 %`, what that is known by, and what it means for the figures."""
    number = len(found.effects)
    differ = (
        f"These {number} devices of class {hardware_class} differ by {percent(found.range)} from fastest to slowest, "
        f"{percent(math.expm1(found.between))} (standard deviation) beyond what processes alone explain; told by "
        f"{counted(found.cells, 'cell')} that several of them measured."
    )
    said = [
        differ,
        "The device is a random effect: intervals hold for the class, not for the card that a cell happened to meet.",
    ]
    if found.far:
        names = ", ".join(f"{name} ({percent(math.expm1(found.effects[name]), signed=True)})" for name in found.far)
        said.append(f"Far from their class, and to be looked at (clocks, power limit, cooling, neighbours): {names}.")
        said.append("Their rows are `suspect`.")
    elif number < FEWEST:
        said.append("Of two devices nobody can say which is not as it should be.")
    return " ".join(said)
