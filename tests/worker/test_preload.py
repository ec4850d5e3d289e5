"""What the host imports for a task, and what it leaves to those that need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from archbench.worker.preload import import_torch, import_for
from worker_fakes import make_environment
from archbench.model.cell import Cell, Group, Network
from archbench.model.messages import ProfileRequest
import_torch()
from archbench import measure
cell = Cell(network=Network(name="resnet18"), batch_size=1, phase="{phase}")
import_for(ProfileRequest(cell=cell, environment=make_environment()))
import torchvision
{then}
print("torch._dynamo.convert_frame" in sys.modules)
"""
ASKED = "print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu'))"


@pytest.mark.parametrize(
    ("phase", "then", "printed"),
    [
        ("inference", "", "False"),
        ("training", "", "True"),
        ("inference", ASKED, "True True"),  # the question is still answered, by dynamo itself
        ("inference", "import torch; torch.compile(lambda x: x, backend='eager')(torch.ones(1))", "True"),
    ],
)
def test_an_eager_quick_look_does_not_wait_for_dynamo(phase, then, printed, pytestconfig):
    script = SCRIPT.format(phase=phase, then=then)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=pytestconfig.rootpath / "tests/worker"
    )
    assert done.stdout.split() == printed.split(), done.stderr


LATER = """
import sys
from msgspec.structs import replace
from archbench.worker.preload import import_torch, import_for
from worker_fakes import make_task
from archbench.model.counts import Carried, MemoryLine, MemoryModel
import_torch()
first = make_task("ok", name="resnet18")
for metrics, predicted in {tasks}:
    model = MemoryModel(lines=(MemoryLine(base_bytes=1, bytes_per_image=1),), weight_bytes=1, input_bytes_per_image=1)
    carried = Carried(memory={{cell.group_id: model for cell in first.group.cells}} if predicted else {{}})
    import_for(replace(first, metrics=metrics, carried=carried))
    print("torch._dynamo.convert_frame" in sys.modules)
"""
TIMES, MEMORY = ("latency",), ("latency", "memory")


@pytest.mark.parametrize(
    ("tasks", "printed"),
    [
        ([(MEMORY, False), (MEMORY, False)], "False True"),
        ([(MEMORY, False), (TIMES, False), (MEMORY, True)], "False False False"),
        ([(TIMES, False), (("static",), False)], "False True"),  # nothing is known of its counts
    ],
)
def test_only_the_first_child_loads_dynamo_to_count_or_predict(tasks, printed, pytestconfig):
    """The first one shows a figure before it does; a task that needs neither loads it nowhere."""
    done = subprocess.run(
        [sys.executable, "-c", LATER.format(tasks=tasks)],
        capture_output=True,
        text=True,
        cwd=pytestconfig.rootpath / "tests/worker",
    )
    assert done.stdout.split() == printed.split(), done.stderr
