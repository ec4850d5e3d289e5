"""Which groups of a round compile side by side: as many as the machine has cores and memory for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from archbench.device.kind import kind_named
from archbench.model.axes import Metric
from archbench.model.cell import Cell, Group
from archbench.model.environment import Environment
from archbench.suite.duration import size_of

MOST = 8
"""Processes of a wave: each holds its compiled network until it is measured."""
MEMORY_SHARE = 0.9
"""Of the device's memory that they may fill together."""
TRAINING_WEIGHTS = 3
"""Weights, gradients, momentum."""
LIVE = 0.25
"""Share of an inference step's activations that are alive at its peak, at most: a training step keeps all."""


def arranged(
    groups: Sequence[Group], environment: Environment, metrics: Collection[Metric]
) -> Iterator[tuple[int, Group]]:
    """The groups of a round with the number of their wave, 0 for those that are prepared alone.

    The first of a wave draws its others forward to its own place; the rest keep the order that they have. Alone stay
    eager groups, those that time kernels as they compile (max-autotune), and those that another runtime prepares. Where
    the suite asks for `compile` one group of each network and phase, its first, compiles undisturbed: alone, too.
    """
    left = list(groups)
    seen: set[tuple[str, str]] = set()
    number = 0
    while left:
        first = left.pop(0)
        wave = [first]
        if _joins(first, metrics, seen):
            for other in list(left):
                if len(wave) == most_at_once(environment):
                    break
                if _joins(other, metrics, seen) and _fit([*wave, other], environment):
                    wave.append(other)
                    left.remove(other)
        number += len(wave) > 1
        yield from ((number if len(wave) > 1 else 0, group) for group in wave)
        seen |= {_network(group) for group in wave if not group.cells[0].is_eager}


def most_at_once(environment: Environment) -> int:
    """Processes that may compile at the same time: each keeps one core busy, now and then more."""
    return min(MOST, environment.cpu_count)


def _joins(group: Group, metrics: Collection[Metric], seen: Collection[tuple[str, str]]) -> bool:
    cell = group.cells[0]
    if cell.runtime != "torch" or cell.compile_mode not in ("default", "reduce-overhead"):
        return False
    return "compile" not in metrics or _network(group) in seen


def _network(group: Group) -> tuple[str, str]:
    return group.cells[0].network.label, group.cells[0].phase


def _fit(groups: Sequence[Group], environment: Environment) -> bool:
    kind = kind_named(environment.kind)
    room = kind.room(environment)
    held = sum(kind.process_bytes + _bytes(group.cells[-1]) for group in groups)
    return room is None or held <= MEMORY_SHARE * room


def _bytes(cell: Cell) -> float:
    """About what a cell's step holds at its peak, in fp32."""
    size = size_of(cell.network)
    training = cell.phase == "training"
    weights = size.params * (TRAINING_WEIGHTS if training else 1)
    return 4.0 * (weights + size.activations * cell.batch_size * (1.0 if training else LIVE))
