"""Where the difference between two profiles comes from: rows that are alike in both, adding up to the whole."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from archbench.model.profile import ModuleProfile, Profile

REST = "between stages"
"""The network's own code, and modules of another network whose output has no resolution."""

_OUTSIDE_LEVELS = 2
"""Levels to which modules outside every stage keep their own rows."""


class Share(Struct):
    """One profile's part of an aligned row."""

    names: tuple[str, ...] = ()
    """Paths of the stages that it holds, in order."""
    seconds: float = 0.0
    macs: int | None = 0
    """`None` for a network that cannot be counted."""
    bytes_moved: int = 0
    saved_bytes: int = 0


class Aligned(Struct, frozen=True, kw_only=True):
    """What stands at the same place in both networks: a stage, a resolution, or a part of the step."""

    name: str
    base: Share
    other: Share

    @property
    def change_s(self) -> float:
        """Seconds that the other takes more."""
        return self.other.seconds - self.base.seconds


class Difference(Struct, frozen=True, kw_only=True):
    """Two profiles side by side; over all rows, `change_s` adds up to `change_s` of the whole."""

    aligned_by: str
    """`stage` or `module` where both are one network, else `resolution`."""
    rows: tuple[Aligned, ...]
    base_s: float
    other_s: float

    @property
    def change_s(self) -> float:
        """Seconds that the other's step takes more."""
        return self.other_s - self.base_s


def difference(base: Profile, other: Profile, depth: int | None = None) -> Difference:
    """Align two profiles of one network by stage, or by module down to `depth`; of two, by the maps' resolution."""
    same = base.network == other.network
    place: Place = _by_resolution
    if same:
        place = _by_stage if depth is None else lambda _, row: ".".join(row.path.split(".")[:depth]) or REST
    one, two = _sides(base, place), _sides(other, place)
    names = list(dict.fromkeys([*one, *two]))
    if not same:
        names.sort(key=_rank)
    return Difference(
        aligned_by="resolution" if not same else "stage" if depth is None else "module",
        rows=tuple(Aligned(name=name, base=one.get(name, Share()), other=two.get(name, Share())) for name in names),
        base_s=base.attributed_s,
        other_s=other.attributed_s,
    )


class Compared(Profile, frozen=True, kw_only=True):
    """What `archbench profile A --against B --json` prints: A's profile, B's, and what lies between."""

    against: Profile
    difference: Difference


Place = Callable[[Profile, ModuleProfile], str]


def _sides(profile: Profile, place: Place) -> dict[str, Share]:
    """By place: each module's own share goes to exactly one, so that nothing counts twice or is left out."""
    sides: dict[str, Share] = {}
    for row in profile.modules:
        side = sides.setdefault(place(profile, row), Share())
        side.seconds += row.own_s
        side.macs = None if side.macs is None or row.own_macs is None else side.macs + row.own_macs
        side.bytes_moved += row.own_bytes
        side.saved_bytes += row.own_saved_bytes or 0
        if row.path in profile.stages and row.path != place(profile, row):
            side.names += (row.path,)
    for part in profile.parts:
        side = sides.setdefault(part.name, Share())
        side.seconds += part.total_s
        side.bytes_moved += part.bytes_moved
    return sides


def _by_stage(profile: Profile, row: ModuleProfile) -> str:
    return row.stage or ".".join(row.path.split(".")[:_OUTSIDE_LEVELS]) or REST


def _by_resolution(profile: Profile, row: ModuleProfile) -> str:
    """That of the stage's output; of a module outside every stage, its own."""
    at = row
    if row.stage is not None:
        at = next(stage for stage in profile.modules if stage.path == row.stage)
    shape = at.output_shape
    if shape is None or not row.path:
        return REST
    if len(shape) == 3:
        height, width = (shape[1], shape[2]) if shape[1] == shape[2] else (shape[0], shape[1])
        return f"{height}x{width}" if height * width > 1 else "vector"
    return {1: "vector", 2: f"{shape[0]} tokens"}.get(len(shape), REST)


def _rank(name: str) -> tuple[int, int]:
    """Large maps first, tokens, vectors, then parts in the order of the step."""
    height, cross, width = name.partition("x")
    if cross and height.isdecimal() and width.isdecimal():
        return 0, -int(height) * int(width)
    if name.endswith(" tokens"):
        return 1, 0
    return 2 + ["vector", REST, "loss", "optimizer", "other"].index(name), 0
