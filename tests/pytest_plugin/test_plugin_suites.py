"""Suites collected as tests: `pytest suites/smoke.yaml`, in a pytest inside this one, with real workers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import msgspec
import pytest
from builders import make_record, make_samples

import archbench.pytest_plugin.suites  # the pytest inside forgets what it imports: a second a test
from archbench.model.messages import CellFinished
from archbench.session import Tasks

pytest_plugins = ["pytester"]

QUICK = (
    "protocol: {warmup_first_cell_s: 0.02, warmup_later_cell_s: 0.02, warmup_cap_s: 0.1, max_sampling_s: 0.2,"
    " min_sampling_s: 0.05, min_throughput_s: 0.05, max_throughput_s: 0.1, burst_s: 0.02}\n"
)
TINY = (
    "suite: tiny\narchitectures: [lenet5]\naxes: {batch_size: [1, 2], precision: [fp32, tf32]}\n"
    "metrics: [static, latency, memory]\n" + QUICK
)
OWN = (
    "suite: own\narchitectures: ['mynets:good', 'mynets:bad', 'mynets:dies']\naxes: {batch_size: [1, 2]}\n"
    "metrics: [latency]\n" + QUICK
)
MYNETS = """
import os, pathlib, torch

class Net(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
    def forward(self, image):
        if image.device.type != "meta":
            with pathlib.Path("steps").open("a") as steps:
                steps.write(f"{os.getpid()} {self.what} {len(image)}\\n")
        if self.what == "bad":
            raise ValueError("no such\\nlayer")
        if self.what == "dies":
            os.kill(os.getpid(), 9)
        return image.mean((1, 2, 3))

def good(): return Net("good")
def bad(): return Net("bad")
def dies(): return Net("dies")
"""


@pytest.fixture(autouse=True)
def _light(pytester, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio -p no:cacheprovider")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark would switch itself off
    # Where the lock of the device lies: the tests of other processes measure too, and need not wait for each other.
    monkeypatch.setattr("tempfile.tempdir", str(pytester.path))


@pytest.fixture
def uncalibrated(monkeypatch):
    """For tests in which nobody looks at the device's ceilings: two seconds a worker."""

    def tasks(*given: Any, calibrate: bool, **rest: Any) -> Tasks:
        return Tasks(*given, **rest)

    monkeypatch.setattr(archbench.pytest_plugin.suites, "Tasks", tasks)


@pytest.fixture
def suite(pytester):
    return lambda text, name="tiny": pytester.makefile(".yaml", **{name: text})


def steps(pytester):
    path = pytester.path / "steps"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_cells_are_items_and_their_times_are_pytest_benchmarks(pytester, suite):
    suite(TINY)
    result = pytester.runpytest("tiny.yaml", "-v", "-rs", "--benchmark-json=out.json", "--junit-xml=junit.xml")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines(["tiny.yaml::lenet5@batch_size=1 PASSED*", "*TF32 is a number format*"])
    benches = {
        b["extra_info"]["batch_size"]: b for b in json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    }
    assert set(benches) == {1, 2}
    for batch, bench in benches.items():
        assert bench["extra_info"]["macs"] == 326_520
        assert bench["stats"]["rounds"] >= 12
        # The same samples: pytest-benchmark takes their median, archbench that of medians of blocks.
        assert bench["stats"]["median"] == pytest.approx(bench["extra_info"]["latency_median_s"], rel=0.2)
        assert bench["fullname"] == f"tiny.yaml::lenet5@batch_size={batch}"
    cases = list(ElementTree.parse(pytester.path / "junit.xml").iter("testcase"))
    assert {(case.get("classname"), case.get("name")) for case in cases} == {
        ("tiny.yaml", f"lenet5@batch_size={batch}{precision}")
        for batch in (1, 2)
        for precision in ("", ",precision=tf32")
    }
    found = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    assert sum("latency_median_s" in properties for properties in found) == 2


def test_failures_are_one_line_and_the_next_cells_run(pytester, suite, uncalibrated):
    pytester.makepyfile(mynets=MYNETS)
    suite(OWN, "own")
    result = pytester.runpytest("own.yaml", "--archbench-allow-code", "--archbench-only", "*@batch_size=1")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "mynets:bad@batch_size=1: error in first call: ValueError: no such layer",
            "mynets:dies@*: *killed by SIGKILL*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert {batch for _, _, batch in steps(pytester)} == {"1"}


@pytest.mark.parametrize("bursts", [0, 1])
def test_a_cell_whose_blocks_were_all_rejected_fails_with_the_rows_reasons(pytester, suite, monkeypatch, bursts):
    """As on a GPU that throttles all the while. A burst that was kept does not stand in for the latencies."""

    def measure(runner, cell, *, once):
        reasons = ("throttled", "few_samples", "latency_p99_s:too_few_samples")
        row = make_record(cell_id=cell.cell_id, verdict="invalid", reasons=reasons)
        rejected = [msgspec.structs.replace(sample, kept=False) for sample in make_samples(row)]
        kept = [msgspec.structs.replace(rejected[0], experiment="throughput", kept=True)] * bursts
        return CellFinished(record=row, samples=(*rejected, *kept))

    monkeypatch.setattr(archbench.pytest_plugin.suites.GroupRunner, "measure", measure)
    suite(TINY)
    result = pytester.runpytest("tiny.yaml", "--archbench-only", "lenet5@batch_size=1,precision=fp32")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["lenet5@batch_size=1: every block was rejected: throttled, few_samples"])
    result.stdout.no_fnmatch_line("*Error*")


def test_what_is_deselected_is_not_measured(pytester, suite, uncalibrated):
    pytester.makepyfile(mynets=MYNETS)
    suite(OWN, "own")
    pytester.runpytest("own.yaml::mynets:good@batch_size=2", "--archbench-allow-code").assert_outcomes(passed=1)
    assert {batch for _, _, batch in steps(pytester)} == {"2"}


def test_a_pattern_that_matches_nothing_is_told(pytester, suite):
    suite(TINY)
    result = pytester.runpytest("tiny.yaml", "--archbench-only", "vgg*")
    result.stdout.fnmatch_lines(["--archbench-only 'vgg[*]' matches no cell of the suite; it has lenet5"])
    result = pytester.runpytest("tiny.yaml", "--archbench-only=@batch_size=2", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["tiny.yaml::lenet5@batch_size=2"])
    result.stdout.no_fnmatch_line("*@batch_size=1*")
    help = pytester.runpytest("--help").stdout.str()
    assert "--archbench-only=@batch_size=1" in "".join(help.split())


def test_a_group_is_measured_by_one_process(pytester, suite, uncalibrated):
    pytester.makepyfile(mynets=MYNETS)
    suite(OWN, "own")
    pytester.runpytest("own.yaml", "--archbench-allow-code", "-k", "good").assert_outcomes(passed=2)
    assert len({pid for pid, _, _ in steps(pytester)}) == 1
    assert {batch for _, _, batch in steps(pytester)} == {"1", "2"}


def test_disabled_makes_one_step_of_each_cell(pytester, suite):
    pytester.makepyfile(mynets=MYNETS)
    suite(OWN, "own")
    result = pytester.runpytest("own.yaml", "--archbench-allow-code", "--benchmark-disable")
    result.assert_outcomes(passed=2, failed=4)
    assert sorted((what, batch) for _, what, batch in steps(pytester)) == [
        (what, batch) for what in ("bad", "dies", "good") for batch in ("1", "2")
    ]


@pytest.mark.parametrize(
    ("options", "outcomes"),
    [
        (["--benchmark-skip"], {"skipped": 6}),
        (["-p", "no:benchmark", "--archbench-only", "mynets:good@batch_size=1"], {"passed": 1}),
    ],
)
def test_with_and_without_pytest_benchmark(pytester, suite, uncalibrated, options, outcomes):
    pytester.makepyfile(mynets=MYNETS)
    suite(OWN, "own")
    pytester.runpytest("own.yaml", "--archbench-allow-code", *options).assert_outcomes(**outcomes)


def test_a_mistake_in_a_suite_is_its_one_line(pytester, suite):
    suite(TINY.replace("lenet5", "lenet55"))
    result = pytester.runpytest("tiny.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*tiny.yaml:2:*lenet55*did you mean*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_code_needs_permission(pytester, suite):
    suite(OWN, "own")
    pytester.runpytest("own.yaml").stdout.fnmatch_lines(["*--archbench-allow-code*"])


def test_nobody_elses_yaml_is_touched(pytester, suite):
    suite("suite: of chairs\nfurniture: [table]\n", "furniture")
    suite("architectures: [x86]\n", "chips")
    suite(TINY)
    nothing = pytester.runpytest(pytester.path)
    nothing.assert_outcomes()
    assert nothing.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    named = pytester.runpytest("furniture.yaml", "chips.yaml", "--collect-only")
    named.stdout.no_fnmatch_line("*CellItem*")
    asked = pytester.runpytest("--archbench-suites", "--collect-only", "-q")
    asked.stdout.fnmatch_lines(["tiny.yaml::lenet5@batch_size=1"])
    asked.stdout.no_fnmatch_line("*furniture*")


def test_cells_are_not_timed_side_by_side(pytester, suite):
    suite(TINY)
    result = pytester.runpytest(
        "tiny.yaml", "-n", "1", "-p", "no:benchmark", "--archbench-only", "lenet5@precision=fp32,batch_size=1"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run suites without -n*"])
