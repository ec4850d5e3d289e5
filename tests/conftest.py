"""What holds for every test. Helpers of a test folder are imported by their bare name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Tests share their cores with each other: what refuses a machine that is taken is tested where it is tested.
os.environ["ARCHBENCH_FORCE"] = "1"


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Whatever measures in the test's own process has tiny numbers flushed to zero: not beyond the test."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
