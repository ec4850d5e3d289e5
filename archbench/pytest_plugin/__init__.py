"""The pytest plugin: networks benchmarked by tests, through pytest-benchmark, and suites collected as tests.

pytest imports this file whenever it starts, for whatever tests: so it imports nothing but pytest, and the files beside
it, torch and the rest of archbench only come in when a test or a suite asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from archbench.model.record import Record
    from archbench.pytest_plugin.network import NetworkBenchmark

DEVICES: pytest.StashKey[set[str]] = pytest.StashKey()
"""On which devices this session has benchmarked (`cpu`, `cuda:0`)."""
DeviceInfo = dict[str, str | None]
"""One device as it stands in pytest-benchmark's JSON."""
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
    if devices := config.stash[DEVICES]:
        machine_info["archbench"] = describe_devices(devices)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: MutableMapping[str, Any], compared_benchmark: MutableMapping[str, Any]
) -> None:
    """Refuse to compare with another GPU's figures: pytest-benchmark itself only warns of another machine."""
    if stored := compared_benchmark.get("machine_info", {}).get("archbench"):
        # So that pytest-benchmark, which looks next, finds no difference where there is none.
        machine_info["archbench"] = refuse_others(stored, config.getoption("archbench_device"))


def describe_devices(devices: Iterable[str]) -> dict[str, DeviceInfo]:
    """The devices (`cpu`, `cuda:0`) by their kind: hardware class, GPU, driver, torch."""
    from archbench.device import collect_environment

    return {
        one.kind: {
            "hardware_class": one.hardware_class,
            "gpu": one.gpus[0].name if one.gpus else None,
            "driver": one.driver_version,
            "torch": one.torch_version,
            "cuda": one.cuda_version,
        }
        for one in map(collect_environment, sorted(devices, reverse=True))
    }


def refuse_others(stored: Mapping[str, Mapping[str, Any]], device: str) -> dict[str, DeviceInfo]:
    """This machine's devices of the kinds that `stored` knows, if those benchmarks may be compared with this session.

    `device` is where the session benchmarks. Raises `pytest.UsageError` where a device is another, or of another kind.
    """
    from archbench.device import resolve_device
    from archbench.model.errors import UsageError

    try:
        kind = resolve_device(device).partition(":")[0]
    except UsageError as error:
        raise pytest.UsageError(f"--archbench-device: {error}") from None
    if kind not in stored:
        known = ", ".join(f"{name} ({info.get('hardware_class')})" for name, info in stored.items())
        raise pytest.UsageError(
            f"the stored benchmarks were measured on {known}, and this session measures on {kind}: "
            "give --archbench-device, or leave --benchmark-compare out"
        )
    here: dict[str, DeviceInfo] = {}
    for name, info in stored.items():
        try:
            ours = describe_devices([resolve_device(name)])[name]
        except UsageError:
            continue  # no such device here, so nothing of it will be compared
        if ours["hardware_class"] != info.get("hardware_class"):
            raise pytest.UsageError(
                f"the stored benchmarks were measured on {info.get('hardware_class')}, and this is "
                f"{ours['hardware_class']}: times of different hardware say nothing about the code; "
                "measure a baseline here, or leave --benchmark-compare out"
            )
        here[name] = ours
    return here


def has_benchmark(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is there to keep and compare the times."""
    return config.pluginmanager.has_plugin("benchmark")


def mark_timer(item: pytest.Item, timer: Any) -> None:
    """Have pytest-benchmark use `timer` for this test; what the test's own marker says besides stays.

    It calls a timer before and after the work and takes the difference as seconds.
    """
    own = item.get_closest_marker("benchmark")
    options = dict(own.kwargs) if own else {}
    item.add_marker(pytest.mark.benchmark(**{**options, "timer": timer}), append=False)


class _Fixture:
    """The fixture, where pytest-benchmark is there."""

    @pytest.fixture
    def _archbench_timer(self, request: pytest.FixtureRequest) -> Any:
        """pytest-benchmark reads its timer from the test's marker when `benchmark` is made, hence before that."""
        from archbench.pytest_plugin.network import DeviceTimer

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
