"""An event that never completes: nobody waits for it longer than the cell's deadline, and its cell has a row."""

from __future__ import annotations

import pytest
from quick import QUICK

import archbench as package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_S = 6
SUITE = f"""\
suite: hanging
architectures: ["tiny_networks:convolution"]
axes: {{batch_size: [2, 4], input_size: [32]}}
devices:
  cuda: [{{phase: inference}}]
metrics: [latency, throughput]
protocol: {QUICK.replace("{", "{cell_deadline_s: " + str(DEADLINE_S) + ", ", 1)}
"""


@pytest.mark.parametrize("phase", ["device time", "latency"])
def test_a_hanging_event_is_a_row_and_the_next_cell_is_measured(archbench, tmp_path, phase):
    (tmp_path / "hanging.yaml").write_text(SUITE)
    script = {"GPU_FAULTS": f"batch_size=2|{phase}|hang"}
    done = archbench("run", "hanging.yaml", "--device", "cuda", "--allow-code", "--out", "run", cwd=tmp_path, **script)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = package.load(tmp_path / "run").set_index("batch_size")
    assert list(rows["status"].loc[[2, 4]]) == ["timeout", "ok"]
    assert rows.loc[2, "error_phase"] == phase
    assert f"{DEADLINE_S} s" in rows.loc[2, "error_message"]
    assert rows["device_time_median_s"].loc[4] > 0
