"""A profile on a card: kernels and the gap between them, and what is said when the profiler sees none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WORDS = (
    *("profile", "tiny_networks:convolution", "--device", "cuda", "--allow-code", "--batch-size", "2", "--json"),
    *("--compile-mode", "default", "--no-memory"),
)


def profile(archbench: Any, folder: Path, **script: str) -> dict[str, Any]:
    script["TMPDIR"] = str(folder)  # the lock of the card is there
    done = archbench(*WORDS, cwd=folder, **script)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    return document.get("profile", document)  # type: ignore[no-any-return]


def test_kernels_are_seen_and_the_gap_is_what_they_leave_of_the_step(archbench: Any, tmp_path: Path) -> None:
    found = profile(archbench, tmp_path)
    roofline = found["roofline"]
    assert found["kernels"]
    assert roofline["device_busy_s"] > 0
    assert roofline["launch_gap_s"] == pytest.approx(max(0.0, found["step_s"] - roofline["device_busy_s"]))
    assert roofline["host_s"] is None
    assert not {"kernels", "operators"} & found["missing"].keys()


def test_a_second_session_that_sees_no_kernel_is_noticed_and_said(archbench: Any, tmp_path: Path) -> None:
    found = profile(archbench, tmp_path, GPU_PROFILES="1")
    assert found["compiled"]["step_s"] > 0
    assert found["kernels"] == found["operators"] == []
    for part in ("kernels", "operators"):
        assert "saw no kernel" in found["missing"][part]
    assert found["roofline"]["device_busy_s"] is found["roofline"]["launch_gap_s"] is None
    assert found["modules"][0]["forward_s"] > 0, "what needs no session is there"
