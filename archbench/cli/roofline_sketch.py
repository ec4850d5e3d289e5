"""A roofline drawn in letters: FLOP per byte to the right, FLOP per second upwards, both logarithmic."""

from __future__ import annotations

import math

from archbench.model.profile import Roofline, RooflinePoint
from archbench.model.units import GIGA, figure, percent

WIDTH, HEIGHT = 46, 9
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
WHOLE = "#"
"""The letter of the whole network."""
_ROOF = {True: "/", False: "-"}
_DECADES = 2.5
"""Below the peak that are drawn at least, so that the slope is seen."""


def sketch(roofline: Roofline) -> list[str]:
    """Lines of equal width: the roof, and a letter for each point with its legend beside it."""
    *stages, whole = roofline.points
    largest = sorted(stages, key=lambda point: -point.time_share)[:HEIGHT]
    named = [(_LETTERS[number], point) for number, point in enumerate(p for p in stages if p in largest)]
    marked = [*named, (WHOLE, whole)]
    canvas = _canvas(roofline, marked)
    legend = [f"{letter} {_legend(point)}" for letter, point in marked]
    ceilings = (
        f"{figure(roofline.peak_flops, GIGA)} GFLOP/s, {figure(roofline.bandwidth, GIGA)} GB/s, "
        f"ridge at {roofline.ridge:.3g} FLOP/byte"
    )
    rows = [f"  {ceilings}"]
    for number in range(max(len(canvas), len(legend))):
        left = canvas[number] if number < len(canvas) else " " * WIDTH
        right = legend[number] if number < len(legend) else ""
        rows.append(f"  {left}  {right}".rstrip())
    return rows


def _legend(point: RooflinePoint) -> str:
    return f"{point.name}: {figure(point.achieved_flops, GIGA)} GFLOP/s, {percent(point.time_share)} of the step"


def _canvas(roofline: Roofline, marked: list[tuple[str, RooflinePoint]]) -> list[str]:
    intensities = [point.intensity for _, point in marked]
    left = math.log10(min([*intensities, roofline.ridge / 4])) - 0.1
    right = math.log10(max([*intensities, roofline.ridge * 4])) + 0.1
    top = math.log10(roofline.peak_flops)
    bottom = min(top - _DECADES, *(math.log10(point.achieved_flops) for _, point in marked))

    def row(flops: float) -> int:
        share = (top - math.log10(flops)) / (top - bottom)
        return min(HEIGHT - 1, max(0, round(share * (HEIGHT - 1))))

    def column(intensity: float) -> int:
        return min(WIDTH - 1, max(0, round((math.log10(intensity) - left) / (right - left) * (WIDTH - 1))))

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for x in range(WIDTH):
        intensity = 10 ** (left + (right - left) * x / (WIDTH - 1))
        sloped = intensity < roofline.ridge
        height = min(roofline.peak_flops, intensity * roofline.bandwidth)
        if math.log10(height) >= bottom:
            cells[row(height)][x] = _ROOF[sloped]
    # The points with the most time last: where two share a place, the more important is seen.
    for letter, point in sorted(marked, key=lambda pair: pair[1].time_share):
        cells[row(point.achieved_flops)][column(point.intensity)] = letter
    return ["".join(line) for line in cells]
