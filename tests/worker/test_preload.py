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
