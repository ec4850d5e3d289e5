"""What is carried from one process of a run to the next."""

from __future__ import annotations

from builders import make_record
from msgspec import structs

from archbench.model.cell import Cell, Group, Network
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.messages import CellFinished
from archbench.session import CarriedFigures

COUNTS = Counts(
    input_shape=(3, 8, 8),
    params=1,
    idle_params=0,
    buffers=0,
    macs=2,
    activations=3,
    weight_bytes=4,
    depth=1,
    uncounted=(),
    stages=(),
)
MEMORY = MemoryModel(lines=(), weight_bytes=4, input_bytes_per_image=1)


def finished(cell: Cell, found: Carried) -> CellFinished:
    row = structs.replace(make_record(), variant=cell.network.label, group_id=cell.group_id)
    return CellFinished(record=row, found=found)


def test_counts_serve_every_group_of_a_network_and_memory_models_their_toggles() -> None:
    small = Cell(network=Network(name="resnet18"), batch_size=1)
    carried = CarriedFigures()
    assert carried.of(Group(cells=(small,))) == Carried()

    amp = structs.replace(small, precision="amp-bf16")
    carried.note(finished(small, Carried(counts=COUNTS, memory={small.group_id: MEMORY})))
    carried.note(finished(small, Carried()))  # the next row of the same process found nothing more
    larger = structs.replace(small, batch_size=8)
    training = structs.replace(small, phase="training")
    sized = structs.replace(small, network=Network(name="resnet18", input_size=64))
    assert carried.of(Group(cells=(larger,))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried.of(Group(cells=(small, amp))) == Carried(counts=COUNTS, memory={small.group_id: MEMORY})
    assert carried.of(Group(cells=(training,))) == Carried(counts=COUNTS)
    assert carried.of(Group(cells=(sized,))) == Carried()
