"""What a test needs to have `cuda` on this CPU: the libraries built, and the environment in which processes see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
ROOT = TESTS.parent
COMPILER = shutil.which("gcc") or shutil.which("cc")
SOURCES = {"ledger.so": HERE / "ledger.c", "libnvidia-ml.so.1": TESTS / "device" / "libnvidia_ml_stub.c"}
Archbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has one card, an H100 by its name."""
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("card")
    (folder / "contexts").mkdir()
    (folder / "tmp").mkdir()
    for name, source in SOURCES.items():
        subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", folder / name, source], check=True, timeout=60)
    return {
        **os.environ,
        "LD_PRELOAD": str(folder / "ledger.so"),
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, ROOT, TESTS / "measure"))),
        "STUB_CONTEXTS": str(folder / "contexts"),
        "TMPDIR": str(folder / "tmp"),  # where the lock of this card lies: others may have one at the same time
        "STUB_NAME": "NVIDIA H100 80GB HBM3",
        "STUB_MEMORY": str(80 * 2**30),
        "STUB_WATTS": "350",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def archbench(card: dict[str, str]) -> Archbench:
    """Runs a command of archbench where there is a card; keywords are further variables of its environment."""

    def run(*words: object, cwd: Path, timeout: float = 300.0, **script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "archbench", *map(str, words)],
            env={**card, **script},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
