"""What holds for every test. Helpers of a test folder are imported by their bare name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Tests share their cores with each other: what refuses a machine that is taken is tested where it is tested.
os.environ["ARCHBENCH_FORCE"] = "1"
# Two threads each beside another process wait for each other a hundred times longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Whatever measures in the test's own process has tiny numbers flushed to zero: not beyond the test."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
