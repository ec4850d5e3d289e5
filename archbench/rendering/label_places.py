"""Where names stand around the points of a plot: on no other name and on no other point. Lengths are in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

Place: TypeAlias = tuple[Literal["left", "center", "right"], int, int]
"""How a name is aligned, and how far right of its point and below it it stands."""
LETTER_WIDTH, _LINE, _DOT = 6.5, 14, 6
"""A letter's width, a line's height, and half a point's size."""
_AROUND: tuple[Place, ...] = (
    *(("left", 10, 0), ("right", -10, 0), ("center", 0, -14), ("center", 0, 16)),
    *(("left", 8, -14), ("left", 8, 16), ("right", -8, -14), ("right", -8, 16), ("center", 0, -28), ("center", 0, 30)),
)
"""Places around a point, in the order in which they are tried."""


class Box(NamedTuple):
    """A rectangle of the plot."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def places(names: Sequence[str], points: Sequence[tuple[float, float]], taken: Iterable[Box] = ()) -> list[Place]:
    """Where each point's name has room, besides what is `taken`; beside its point where it has none."""
    full = [*taken, *(Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in points)]
    chosen = []
    for name, (x, y) in zip(names, points, strict=True):
        boxes = [_box(place, len(name) * LETTER_WIDTH, x, y) for place in _AROUND]
        free = [place for place, box in enumerate(boxes) if not any(box.overlaps(other) for other in full)]
        place = free[0] if free else 0
        full.append(boxes[place])
        chosen.append(_AROUND[place])
    return chosen


def _box(place: Place, width: float, x: float, y: float) -> Box:
    align, dx, dy = place
    start = x + dx - (0 if align == "left" else width if align == "right" else width / 2)
    return Box(start, y + dy - _LINE / 2, start + width, y + dy + _LINE / 2)
