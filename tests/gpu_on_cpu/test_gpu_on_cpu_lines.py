"""Which CUDA statements no test reaches: those of `unexecuted.txt`, each with its reason, and no other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import cuda_lines
import pytest

HERE = Path(__file__).parent
LIST = HERE / "unexecuted.txt"
REACHING = (
    *("tests/device", "tests/plan", "tests/gpu_on_cpu", "tests/measure/test_measure_device_time.py"),
    "tests/measure/test_measure_runtimes.py::test_what_a_runtime_cannot_be_asked_for_is_known_before_anything_runs",
)
SHARE = 0.95


def explained() -> dict[str, str]:
    """The list: a statement, and why no test reaches it."""
    lines = [line for line in LIST.read_text().splitlines() if not line.startswith("#")]
    return {line: why for line, _, why in (text.partition(" ## ") for text in lines)}


def test_the_list_is_short_and_of_statements_that_exist():
    listed, there = explained(), set(cuda_lines.all_lines())
    assert not set(listed) - there, "gone or changed: take it out of unexecuted.txt, or give it its new words"
    assert all(listed.values()), "each says why"
    assert len(listed) <= (1 - SHARE) * len(there)


@pytest.mark.parametrize(
    ("test", "side"),
    [
        ("device == 'cuda'", "cuda"),
        ("device != 'cuda'", "cpu"),
        ("not device.type == 'cpu'", "cuda"),
        ("step_s > 1 and kind.own_clock", "cuda"),
        ("allocator is None", "cpu"),
        ("kind.activity is not None", "cuda"),
        ("name == 'resnet18'", None),
        ("self.workload", None),
    ],
)
def test_a_condition_is_of_one_kind_of_device(test, side):
    assert cuda_lines.side_of(ast.parse(test, mode="eval").body) == side


def test_what_is_reached_is_noted_once_and_what_is_not_is_not(tmp_path):
    code = "from archbench.device import visible\nvisible.select((), '0'); visible.select((), '1')\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, cuda_lines.ROOT)))}
    subprocess.run([sys.executable, "-c", code], env={**environment, "CUDA_LINES": str(tmp_path / "l")}, check=True)
    noted = (tmp_path / "l").read_text().splitlines()
    assert len(noted) == len(set(noted))
    functions = {line.split(": ")[1] for line in noted}
    assert "select" in functions
    assert "is_gone" not in functions
    assert set(noted) <= set(cuda_lines.all_lines())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_other_statement_is_reached_by_a_test(tmp_path):
    """Runs the tests that reach CUDA code once more, with every process noting what it reaches."""
    lines = tmp_path / "lines"
    environment = {
        **os.environ,
        "CUDA_LINES": str(lines),
        "ARCHBENCH_COLD": "1",  # a fork of a process that has loaded a file notes nothing new of it
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, cuda_lines.ROOT))),
        "PYTEST_ADDOPTS": "--assert=plain",  # pytest's own rewriting would load what is to be watched
    }
    words = ("-q", "-p", "no:cacheprovider", "-m", "not gpu", f"--ignore={__file__}", *REACHING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], env=environment, cwd=cuda_lines.ROOT, timeout=1400, check=False
    )
    assert done.returncode in (0, 1), "what fails there fails by itself as well"
    reached = set(lines.read_text().splitlines())
    there = list(cuda_lines.all_lines())
    missing = [line for line in there if line not in reached]
    print(f"{1 - len(missing) / len(there):.1%} of {len(there)} CUDA statements are reached")
    new = [line for line in missing if line not in explained()]
    assert not new, "reach them by a test, or add them to unexecuted.txt with the reason"
