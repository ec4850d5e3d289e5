"""What the host imports for a task, and what it leaves to those that need it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HOST = """
import json, os, sys, traceback
from archbench.worker.preload import import_torch, import_for
from worker_fakes import make_environment, make_task
from archbench.model.cell import Cell, Network
from archbench.model.messages import ProfileRequest
import_torch()
from archbench import measure
for line in sys.stdin:
    if os.fork() == 0:
        try:
            exec(json.loads(line))
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        print("done", flush=True)
        os._exit(0)
    os.wait()
"""
"""Has torch, as a host has before its first request, and does what it is asked to in a process that is forked."""

SCRIPT = """
cell = Cell(network=Network(name="resnet18"), batch_size=1, phase="{phase}")
import_for(ProfileRequest(cell=cell, environment=make_environment()))
import torchvision
{then}
print("torch._dynamo.convert_frame" in sys.modules)
"""
ASKED = "print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu'))"


@pytest.fixture(scope="module")
def host(pytestconfig):
    """Runs a script in a process of its own, which has of torch what a host has; gives the words that it prints."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=pytestconfig.rootpath / "tests/worker",
    ) as process:

        def run(script):
            process.stdin.write(json.dumps(script) + "\n")
            process.stdin.flush()
            words: list[str] = []
            for line in process.stdout:
                if line == "done\n":
                    return words
                words += line.split()
            raise AssertionError("the host has ended")

        yield run
        process.stdin.close()


@pytest.mark.parametrize(
    ("phase", "then", "printed"),
    [
        ("inference", "", "False"),
        ("training", "", "True"),
        ("inference", ASKED, "True True"),  # the question is still answered, by dynamo itself
        ("inference", "import torch; torch.compile(lambda x: x, backend='eager')(torch.ones(1))", "True"),
    ],
)
def test_an_eager_quick_look_does_not_wait_for_dynamo(phase, then, printed, host):
    assert host(SCRIPT.format(phase=phase, then=then)) == printed.split()


LATER = """
from msgspec.structs import replace
from archbench.model.counts import Carried, MemoryLine, MemoryModel
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
def test_only_the_first_child_loads_dynamo_to_count_or_predict(tasks, printed, host):
    """The first one shows a figure before it does; a task that needs neither loads it nowhere."""
    assert host(LATER.format(tasks=tasks)) == printed.split()
