"""The pytest plugin: networks benchmarked by tests, through pytest-benchmark, and suites collected as tests.

pytest imports this file whenever it starts, for whatever tests: so it imports nothing but pytest, and the files beside
it, torch and the rest of archbench only come in when a test or a suite asks for them.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from archbench.model.record import Record
    from archbench.pytest_plugin.network import NetworkBenchmark

DEVICES: pytest.StashKey[set[str]] = pytest.StashKey()
"""On which devices this session has benchmarked (`cpu`, `cuda:0`)."""
ROWS: pytest.StashKey[list[Record]] = pytest.StashKey()
"""The rows of the suites' cells, for the summary."""

_TOP_LEVEL_KEY = re.compile(r"^(suite|architectures)[ \t]*:", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `docs/pytest.md`."""
    group = parser.getgroup("archbench", "network benchmarks")
    group.addoption(
        "--archbench-suites",
        action="store_true",
        help="Collect the archbench suites found in directories too, not only those named as arguments.",
    )
    group.addoption(
        "--archbench-device", default="auto", metavar="DEVICE", help="Where to benchmark: auto, cpu, cuda or cuda:N."
    )
    group.addoption(
        "--archbench-only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="Of a suite's cells, collect those that match, as with `archbench run --only`: resnet*, "
        "resnet18@batch_size=1. What begins with @ is joined by an equals sign (pytest takes a word @NAME for a file "
        "of options): --archbench-only=@batch_size=1.",
    )
    group.addoption(
        "--archbench-allow-code", action="store_true", help="Accept module:function architectures in suites."
    )


def pytest_configure(config: pytest.Config) -> None:
    """The fixture that measures, or one that says what is missing where pytest-benchmark is not installed."""
    config.stash[DEVICES] = set()
    config.stash[ROWS] = []
    config.pluginmanager.register(_Fixture() if has_benchmark(config) else _NoFixture(), "archbench-fixture")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite of archbench, if it was named or its kind asked for: other people's YAML files are left alone."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    if not (parent.session.isinitpath(file_path) or parent.config.getoption("archbench_suites")):
        return None
    text = file_path.read_bytes().decode(errors="replace")
    if {found[1] for found in _TOP_LEVEL_KEY.finditer(text)} != {"suite", "architectures"}:
        return None
    from archbench.pytest_plugin.suites import CollectedSuite

    return CollectedSuite.from_parent(parent, path=file_path)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each cell of the suites that were collected, with its verdict."""
    rows = config.stash.get(ROWS, [])
    if rows:
        from archbench.progress import describe

        terminalreporter.section("archbench")
        for row in rows:
            terminalreporter.write_line(describe(row))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: MutableMapping[str, Any]) -> None:
    """Say on which devices networks were benchmarked; nothing where none was."""
    devices = config.stash[DEVICES]
    if devices:
        from archbench.pytest_plugin.benchmark import describe_devices

        machine_info["archbench"] = describe_devices(devices)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: MutableMapping[str, Any], compared_benchmark: MutableMapping[str, Any]
) -> None:
    """Refuse to compare with another GPU's figures: pytest-benchmark itself only warns of another machine."""
    stored = compared_benchmark.get("machine_info", {}).get("archbench")
    if stored:
        from archbench.pytest_plugin.benchmark import refuse_others

        # So that pytest-benchmark, which looks next, finds no difference where there is none.
        machine_info["archbench"] = refuse_others(stored, config.getoption("archbench_device"))


def has_benchmark(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is there to keep and compare the times."""
    return config.pluginmanager.has_plugin("benchmark")


class _Fixture:
    """The fixture, where pytest-benchmark is there."""

    @pytest.fixture
    def _archbench_timer(self, request: pytest.FixtureRequest) -> Any:
        """pytest-benchmark reads its timer from the test's marker when `benchmark` is made, hence before that."""
        from archbench.pytest_plugin.benchmark import DeviceTimer, mark_timer

        timer = DeviceTimer()
        mark_timer(request.node, timer)
        return timer

    @pytest.fixture
    def benchmark_network(
        self, _archbench_timer: Any, benchmark: Any, request: pytest.FixtureRequest
    ) -> NetworkBenchmark:
        """Benchmark a network of the catalogue by name and axes, or any `nn.Module` on inputs of your own."""
        from archbench.pytest_plugin.network import NetworkBenchmark

        return NetworkBenchmark(benchmark, _archbench_timer, request.config)


class _NoFixture:
    """What stands for it where pytest-benchmark is not: a line that says what to do."""

    @pytest.fixture
    def benchmark_network(self) -> None:
        pytest.fail("benchmark_network needs pytest-benchmark: pip install 'archbench[pytest]'", pytrace=False)
