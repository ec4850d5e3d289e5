"""A card that is lost, hangs, or is full, in each phase of a cell: a row says so, and the next is measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from quick import QUICK

import archbench as package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SUITE = """\
suite: faults
architectures: ["tiny_networks:convolution"]
axes: {{batch_size: [2], input_size: [{sizes}]}}
settings:
  fp32: {{}}
  amp: {{precision: amp-bf16, only: {{input_size: 32}}}}
  bf16: {{precision: bf16, only: {{input_size: 32}}}}
devices: {{cuda: [{{phase: inference}}]}}
metrics: [latency, throughput, memory, energy, numerics, profile]
protocol: {protocol}
"""
TIMED = ("first call", "warmup", "latency", "throughput")
"""A card that fails when the network is built cannot be had at all: the last test's."""
ASIDE = {"energy": "energy_j_per_img", "memory": "peak_allocated_bytes", "profile": "latency_median_s"}
STATUS = {"lost": "error", "oom": "oom", "hang": "timeout"}
SAYS = {"lost": "CUDA error: unspecified launch failure", "oom": "CUDA out of memory", "hang": ""}
FEW = (("latency", "lost"), ("first call", "oom"))
ALL = (
    *((phase, kind) for kind in ("lost", "oom") for phase in (*TIMED, *ASIDE)),
    ("memory", "hang"),
)


@pytest.mark.parametrize("faults", [pytest.param(FEW, id="few"), pytest.param(ALL, id="all")])
def test_a_fault_costs_what_it_struck_and_the_others_are_measured(archbench, tmp_path, faults):
    """Each input size has a fault of its own but for the first, whose numerics alone have one, and the last."""
    of_size = dict(enumerate(faults, start=33))
    sound = 33 + len(faults)
    protocol = QUICK.replace("{", "{cell_deadline_s: 12, ")
    suite = SUITE.format(sizes=", ".join(map(str, range(32, sound + 1))), protocol=protocol)
    (tmp_path / "faults.yaml").write_text(suite)
    script = ";".join(f"input_size={size}]|{phase}|{kind}" for size, (phase, kind) in of_size.items())
    script += ";precision=amp-bf16|numerics|lost;precision=bf16|numerics|oom"
    words = ("run", "faults.yaml", "--device", "cuda", "--allow-code", "--out", "run")
    done = archbench(*words, cwd=tmp_path, timeout=500, GPU_FAULTS=script)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    rows = package.load(tmp_path / "run")
    for values in rows.to_dict("records"):
        row = SimpleNamespace(**{str(column): value for column, value in values.items()})
        phase, kind = of_size.get(row.input_size, ("", ""))
        where = (row.cell_id, phase, kind, row.status, row.error_phase, row.error_message, list(row.reasons))
        if row.precision != "fp32":
            assert row.status == "ok", where
            assert "output_rel_error:phase_failed" in row.reasons, where
        elif row.input_size in (32, sound):
            assert row.status == "ok", where
            assert not any("phase_failed" in reason for reason in row.reasons), where
        elif phase in TIMED or kind == "hang":
            assert (row.status, row.error_phase) == (STATUS[kind], phase), where
            assert SAYS[kind] in row.error_message, where
        else:
            assert row.status == "ok", where
            assert row.latency_median_s > 0, where
            if phase != "profile":
                assert f"{ASIDE[phase]}:phase_failed" in row.reasons, where
    assert len(rows) == len(faults) + 4


def test_a_card_that_cannot_be_had_ends_the_run_and_the_same_command_resumes_it(archbench, tmp_path):
    (tmp_path / "faults.yaml").write_text(SUITE.format(sizes="33, 34, 35", protocol=QUICK))
    words = ("run", "faults.yaml", "--device", "cuda", "--allow-code", "--out", "run", "--retry-failed")
    done = archbench(*words, cwd=tmp_path, timeout=200, GPU_FAULTS="input_size=34]|build|lost")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot be used: RuntimeError: CUDA error: unspecified launch failure" in done.stderr
    done = archbench(*words, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(package.load(tmp_path / "run")["status"]) == {"ok"}
