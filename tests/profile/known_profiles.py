"""Profiles made of given leaves: everything above them is summed, so that they add up as measured ones do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from archbench.model.cell import Cell, Network
from archbench.model.profile import ModuleProfile, Profile, Roofline, StepPart

PEAK, BANDWIDTH = 1e12, 1e10


class Leaf(Struct, frozen=True):
    """Seconds ahead and back, MACs, bytes moved, bytes kept; what it is and what it gives."""

    forward_s: float
    backward_s: float = 0.0
    macs: int = 0
    moved: int = 0
    kept: int = 0
    kind: str = "Conv2d"
    shape: tuple[int, ...] = (8, 4, 4)


def make_profile(
    leaves: Mapping[str, Leaf],
    stages: Sequence[str] = (),
    *,
    phase: str = "training",
    optimizer_s: float = 0.0,
    cell: Mapping[str, Any] = {},
    **fields: Any,
) -> Profile:
    """A profile of batch size 2 whose modules are `leaves`, by path, and the containers that these imply."""
    paths: dict[str, None] = {"": None}
    for leaf in leaves:
        parts = leaf.split(".")
        paths |= {".".join(parts[: n + 1]): None for n in range(len(parts))}
    step_s = sum(leaf.forward_s + leaf.backward_s for leaf in leaves.values()) + optimizer_s
    in_order = sorted(paths, key=lambda path: path.split(".") if path else [])  # each before those inside it
    rows = [_row(path, leaves, stages, step_s, training=phase == "training") for path in in_order]
    named: dict[str, Any] = {"name": "net", "batch_size": 2, "phase": phase, **cell}
    measured: dict[str, Any] = {
        "network": named["name"],
        "cell": Cell(network=Network(name=named.pop("name")), **named),
        "device": "cpu",
        "environment": None,
        "threads": 1,
        "params": 10,
        "macs": rows[0].macs,
        "step_s": step_s,
        "observed_step_s": step_s,
        "observing_cost": 0.0,
        "steps": 5,
        "modules": tuple(rows),
        "parts": (
            StepPart(
                name="optimizer",
                forward_s=optimizer_s,
                backward_s=None,
                share=optimizer_s / step_s,
                flops=0,
                bytes_moved=0,
            ),
        ),
        "stages": tuple(stages),
        "operators": (),
        "roofline": Roofline(
            peak_flops=PEAK, bandwidth=BANDWIDTH, points=(), device_busy_s=None, launch_gap_s=None, host_s=0.0
        ),
    }
    return Profile(**(measured | fields))


def _row(
    path: str, leaves: Mapping[str, Leaf], stages: Sequence[str], step_s: float, *, training: bool
) -> ModuleProfile:
    inside = [leaf for name, leaf in leaves.items() if not path or name == path or name.startswith(f"{path}.")]
    own = leaves.get(path)
    total_s = sum(leaf.forward_s + leaf.backward_s for leaf in inside)
    compute_s = sum(s for leaf in inside if (s := _compute_s(leaf)) > leaf.moved / BANDWIDTH)
    memory_s = sum(leaf.moved / BANDWIDTH for leaf in inside if _compute_s(leaf) <= leaf.moved / BANDWIDTH)
    macs, moved = sum(leaf.macs for leaf in inside), sum(leaf.moved for leaf in inside)
    least_s = compute_s + memory_s
    return ModuleProfile(
        path=path,
        kind=own.kind if own else "Sequential",
        depth=len(path.split(".")) if path else 0,
        stage=next((stage for stage in stages if path == stage or path.startswith(f"{stage}.")), None),
        output_shape=inside[-1].shape,
        calls=1,
        forward_s=sum(leaf.forward_s for leaf in inside),
        backward_s=sum(leaf.backward_s for leaf in inside) if training else None,
        own_s=own.forward_s + own.backward_s if own else 0.0,
        share=total_s / step_s,
        params=1,
        macs=macs,
        own_macs=own.macs if own else 0,
        flops=4 * macs,
        activation_bytes=0,
        saved_bytes=sum(leaf.kept for leaf in inside) if training else None,
        own_saved_bytes=(own.kept if own else 0) if training else None,
        bytes_moved=moved,
        own_bytes=own.moved if own else 0,
        intensity=4 * macs / moved if moved else None,
        achieved_flops=4 * macs / total_s if total_s else None,
        least_s=least_s or None,
        roofline_share=least_s / total_s if least_s and total_s else None,
        bound=None if not least_s else "compute" if compute_s > memory_s else "memory",
    )


def _compute_s(leaf: Leaf) -> float:
    return 4 * leaf.macs / PEAK
