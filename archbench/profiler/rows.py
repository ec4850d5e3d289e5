"""Puts what was timed, counted and moved for each module into rows that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct
from torch import nn

from archbench.model.counts import Stage
from archbench.model.profile import Bound, ModuleProfile, StepPart
from archbench.profiler.boundaries import PARTS, Owner
from archbench.profiler.counting import Counted
from archbench.profiler.timing import StepTimes
from archbench.profiler.traffic import Traffic


class Ceilings(Struct, frozen=True, kw_only=True):
    """Measured: FLOP/s of a product at the cell's arithmetic, bytes per second of a copy."""

    flops: float
    bandwidth: float


class Tally(Struct):
    """Sums over a module, or over it and all inside."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    macs: int = 0
    flops: int = 0
    bytes_moved: int = 0
    written: int = 0
    saved: int = 0
    compute_s: float = 0.0
    """Least time of the modules that the product's ceiling limits."""
    memory_s: float = 0.0
    """Least time of those that the bandwidth limits."""

    def add(self, other: Tally) -> None:
        """Every figure of another one on top."""
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    @property
    def total_s(self) -> float:
        """Forward and backward."""
        return self.forward_s + self.backward_s


def module_rows(
    module: nn.Module,
    times: StepTimes,
    counted: Counted | None,
    traffic: Traffic,
    ceilings: Ceilings | None,
    *,
    batch_size: int,
    training: bool,
) -> tuple[ModuleProfile, ...]:
    """The network's row first, then its modules in the order of their first call, each before those inside it.

    `counted`: `None` for a network that cannot be counted; its rows have no MACs, and at inference no FLOP.
    """
    own = _own_tallies(times, counted, traffic, ceilings, batch_size=batch_size, training=training)
    tree = _children(own)
    inside: dict[str, Tally] = {}

    def gather(path: str) -> None:
        inside[path] = Tally()
        inside[path].add(own.get(path, Tally()))
        for child in tree.get(path, ()):
            gather(child)
            inside[path].add(inside[child])

    gather("")
    modules = dict(module.named_modules(remove_duplicate=False))
    rows: list[ModuleProfile] = []

    def write(path: str, depth: int) -> None:
        rows.append(
            _row(
                path,
                depth,
                modules[path],
                own.get(path, Tally()),
                inside[path],
                times,
                stage=None if counted is None else _stage_of(path, counted.stages),
                counted=counted is not None,
                training=training,
            )
        )
        for child in tree.get(path, ()):
            write(child, depth + 1)

    write("", 0)
    return tuple(rows)


def step_parts(times: StepTimes, traffic: Traffic, *, training: bool) -> tuple[StepPart, ...]:
    """What belongs to no module."""
    parts = []
    for name in PARTS:
        ahead, back = Owner(name, backward=False), Owner(name, backward=True)
        if ahead in times.by_owner or back in times.by_owner:
            forward_s, backward_s = times.by_owner.get(ahead, 0.0), times.by_owner.get(back)
            works = [traffic.by_owner[owner] for owner in (ahead, back) if owner in traffic.by_owner]
            part = StepPart(
                name=name.strip("()"),
                forward_s=forward_s,
                backward_s=backward_s if training else None,
                share=(forward_s + (backward_s or 0.0)) / times.observed_s,
                flops=sum(work.flops for work in works),
                bytes_moved=sum(work.bytes_moved for work in works),
            )
            parts.append(part)
    return tuple(parts)


def _own_tallies(
    times: StepTimes,
    counted: Counted | None,
    traffic: Traffic,
    ceilings: Ceilings | None,
    *,
    batch_size: int,
    training: bool,
) -> dict[str, Tally]:
    """By path, without what modules inside do."""
    own: dict[str, Tally] = {}
    paths = [owner.path for owner in (*times.by_owner, *traffic.by_owner)]
    own_macs = Counter[str]() if counted is None else counted.own_macs
    for path in dict.fromkeys([*times.kinds, *paths, *own_macs]):
        if path in PARTS:
            continue
        ahead, back = Owner(path, backward=False), Owner(path, backward=True)
        works = [traffic.by_owner[owner] for owner in (ahead, back) if owner in traffic.by_owner]
        macs = own_macs[path]
        # In inference mode operators arrive whole (`linear`), for which the counter of FLOP has no formula; in training
        # they arrive in parts, and the counts are those of what really runs, backward and auxiliary heads included.
        flops = sum(work.flops for work in works) if training else 2 * macs * batch_size
        tally = own[path] = Tally(
            forward_s=times.by_owner.get(ahead, 0.0),
            backward_s=times.by_owner.get(back, 0.0),
            macs=macs,
            flops=flops,
            bytes_moved=sum(work.bytes_moved for work in works),
            written=traffic.written[ahead],
            saved=traffic.saved[path],
        )
        if ceilings is not None and (training or counted is not None):
            compute_s, memory_s = flops / ceilings.flops, tally.bytes_moved / ceilings.bandwidth
            if compute_s > memory_s:
                tally.compute_s = compute_s
            else:
                tally.memory_s = memory_s
    return own


def _children(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths right under each path, containers that are never called included, in the order of first calls."""
    children: dict[str, list[str]] = {}
    for path in paths:
        below = path
        while below:
            above = below.rpartition(".")[0]
            siblings = children.setdefault(above, [])
            if below in siblings:
                break
            siblings.append(below)
            below = above
    return children


def _row(
    path: str,
    depth: int,
    module: nn.Module,
    own: Tally,
    inside: Tally,
    times: StepTimes,
    *,
    stage: str | None,
    counted: bool,
    training: bool,
) -> ModuleProfile:
    least_s = inside.compute_s + inside.memory_s
    bound: Bound = "compute" if inside.compute_s > inside.memory_s else "memory"
    total_s = inside.total_s
    flops = inside.flops if counted or training else None
    return ModuleProfile(
        path=path,
        kind=type(module).__name__,
        depth=depth,
        stage=stage,
        output_shape=times.shapes.get(path),
        calls=times.calls.get(path, 0),
        forward_s=inside.forward_s,
        backward_s=inside.backward_s if training else None,
        own_s=own.total_s,
        share=total_s / times.observed_s,
        params=sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        macs=inside.macs if counted else None,
        own_macs=own.macs if counted else None,
        flops=flops,
        activation_bytes=inside.written,
        saved_bytes=inside.saved if training else None,
        own_saved_bytes=own.saved if training else None,
        bytes_moved=inside.bytes_moved,
        own_bytes=own.bytes_moved,
        intensity=flops / inside.bytes_moved if flops is not None and inside.bytes_moved else None,
        achieved_flops=flops / total_s if flops is not None and total_s else None,
        least_s=least_s or None,
        roofline_share=least_s / total_s if least_s and total_s else None,
        bound=bound if least_s else None,
    )


def _stage_of(path: str, stages: Sequence[Stage]) -> str | None:
    return next((stage.name for stage in stages if path == stage.name or path.startswith(f"{stage.name}.")), None)


def stage_rows(rows: Iterable[ModuleProfile]) -> tuple[ModuleProfile, ...]:
    """The rows that are the network's stages, in order."""
    return tuple(row for row in rows if row.stage == row.path)
