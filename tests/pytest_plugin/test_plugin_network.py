"""The fixture `benchmark_network`, in a pytest inside this one."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch._dynamo  # setting a seed loads it, the pytest inside forgets it, and no process can load it twice
from builders import make_environment

from archbench.device.cuda import Cuda
from archbench.device.kind import ClockError
from archbench.model.errors import UsageError
from archbench.pytest_plugin import (
    DEVICES,
    describe_devices,
    network,  # the pytest inside forgets it, a second a test
    refuse_others,
)
from archbench.pytest_plugin.network import DeviceTimer
from archbench.pytest_plugin.suites import ReplayTimer

pytest_plugins = ["pytester"]

QUICK = "protocol={'warmup_first_cell_s': 0.02, 'warmup_cap_s': 0.1, 'max_sampling_s': 0.1}"
SLEEPER = """
    import os, time, torch
    class Sleeper(torch.nn.Module):
        calls = 0
        def forward(self, image):
            Sleeper.calls += 1
            time.sleep(float(os.environ.get("SLEEP_S", "0.002")))
            return image * 2
"""
ONE_TEST = f"""{SLEEPER}
    def test_sleeper(benchmark_network):
        benchmark_network(Sleeper(), torch.ones(2, 3), {QUICK})
"""


@pytest.fixture(autouse=True)
def _light(pytester, monkeypatch):
    """One thread, and of other people's plugins none that takes its time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio -p no:cacheprovider")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark would switch itself off


def stored(pytester):
    (path,) = pytester.path.glob(".benchmarks/*/0001_*.json")
    return path, json.loads(path.read_text())


def test_a_network_by_name_with_its_figures_and_the_machine(pytester):
    pytester.makepyfile(f"""
        import pytest
        @pytest.mark.benchmark(group="classics")
        def test_lenet(benchmark_network):
            output = benchmark_network("lenet5", batch_size=3, {QUICK})
            assert output.shape == (3, 10)
    """)
    pytester.runpytest("--benchmark-json=out.json").assert_outcomes(passed=1)
    document = json.loads((pytester.path / "out.json").read_text())
    (bench,) = document["benchmarks"]
    info = bench["extra_info"]
    assert (info["params"], info["macs"], info["batch_size"]) == (60_000, 326_520, 3)
    assert (info["precision"], info["phase"], info["device"]) == ("fp32", "inference", "cpu")
    weights_and_image = info["weight_bytes"] + 3 * 32 * 32 * 4
    assert weights_and_image < info["peak_allocated_bytes"] < 4 * weights_and_image
    assert bench["group"] == "classics"
    assert bench["stats"]["rounds"] >= 12
    assert bench["stats"]["iterations"] * bench["stats"]["median"] > 0.005  # the protocol's floor of a sample
    machine = document["machine_info"]["archbench"]["cpu"]
    assert machine["hardware_class"] == info["hardware_class"]
    assert machine["torch"] == torch.__version__
    assert machine["gpu"] is None


def test_modules_of_ones_own_with_any_inputs(pytester):
    pytester.makepyfile(f"""
        import torch
        from torch import nn
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.words, self.mix = nn.Embedding(10, 4), nn.Bilinear(4, 4, 3)
            def forward(self, words, image):
                return self.mix(self.words(words), image)
        def test_two_inputs(benchmark_network):
            network = Two()
            before = network.mix.weight.clone()
            benchmark_network(network, torch.tensor([1, 2]), torch.randn(2, 4), phase="training", {QUICK})
            assert torch.equal(network.mix.weight, before)  # a copy was trained
            assert network.training
        def test_convolution(benchmark_network):
            output = benchmark_network(nn.Conv2d(3, 8, 3), torch.randn(4, 3, 9, 9), precision="bf16", {QUICK})
            assert output.dtype == torch.bfloat16
    """)
    pytester.runpytest("--benchmark-json=out.json").assert_outcomes(passed=2)
    benches = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    two, convolution = (bench["extra_info"] for bench in benches)
    assert (two["batch_size"], two["params"], two["macs"]) == (2, 10 * 4 + 3 * 16 + 3, None)
    assert (convolution["batch_size"], convolution["macs"]) == (4, 7 * 7 * 8 * 27)


@pytest.mark.parametrize(
    ("call", "outcome", "says"),
    [
        ("'resnet5O'", "failed", "*did you mean*resnet50*"),
        ("torch.nn.ReLU()", "failed", "*benchmarked on inputs*"),
        ("torch.nn.ReLU(), 3", "failed", "*benchmarked on inputs*"),
        ("'lenet5', device='cuda:17'", "failed", "*cuda:17*"),
        ("'lenet5', protocol={'min_sample': 3}", "failed", "*min_sample*"),
        ("'lenet5', precision='tf32', device='cpu'", "skipped", "*TF32*"),
        (
            "'lenet5', runtime='openvino', device='cpu'",
            "failed",
            "*other runtimes and formats are benchmarked by a suite*",
        ),
        ("torch.nn.ReLU(), torch.ones(1), precision='tf32', device='cpu'", "skipped", "*TF32*"),
        ("torch.nn.ReLU(), torch.ones(1), phase='training', device='cpu'", "skipped", "*training needs parameters*"),
    ],
)
def test_what_cannot_be_benchmarked_is_told_in_one_line(pytester, call, outcome, says):
    pytester.makepyfile(f"import torch\ndef test_it(benchmark_network):\n    benchmark_network({call})\n")
    result = pytester.runpytest("-rs")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines([says])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_disabled_runs_the_step_once(pytester):
    pytester.makepyfile(f"{ONE_TEST}        assert Sleeper.calls == 1\n")
    pytester.runpytest("--benchmark-disable").assert_outcomes(passed=1)


def test_compare_fail_fails_on_a_slowdown_and_on_nothing_else(pytester, monkeypatch):
    pytester.makepyfile(ONE_TEST)
    pytester.runpytest("--benchmark-autosave").assert_outcomes(passed=1)
    same = pytester.runpytest("--benchmark-compare=0001", "--benchmark-compare-fail=median:100%")
    assert same.ret == 0
    same.stderr.no_fnmatch_line("*machine_info is different*")
    monkeypatch.setenv("SLEEP_S", "0.02")
    slow = pytester.runpytest("--benchmark-compare=0001", "--benchmark-compare-fail=median:100%")
    assert slow.ret != 0
    slow.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_another_gpu_is_refused_before_anything_is_measured(pytester):
    pytester.makepyfile(ONE_TEST)
    pytester.runpytest("--benchmark-autosave").assert_outcomes(passed=1)
    path, document = stored(pytester)
    for machine, says in (
        ({"cuda": {"hardware_class": "NVIDIA H200"}}, "*measured on cuda (NVIDIA H200)*measures on cpu*"),
        ({"cpu": {"hardware_class": "Another CPU x64"}}, "*measured on Another CPU x64, and this is*"),
    ):
        document["machine_info"]["archbench"] = machine
        path.write_text(json.dumps(document))
        refused = pytester.runpytest("--benchmark-compare=0001")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines([says])
        refused.stdout.no_fnmatch_line("*passed*")


def test_two_gpus_of_one_machine_tell_each_other_apart(pytester, monkeypatch):
    """Both sides have CUDA here: only the names differ."""
    gpu = {"auto": "cuda:0", "cuda": "cuda:0"}
    monkeypatch.setattr("archbench.device.resolve_device", lambda device: gpu.get(device, device))
    monkeypatch.setattr("archbench.device.collect_environment", make_environment)
    stored = describe_devices(["cuda:0"])
    assert stored["cuda"] == {
        "hardware_class": "NVIDIA H200",
        "gpu": "NVIDIA H200",
        "driver": "580.95.05",
        "torch": "2.15.0+cu132",
        "cuda": "13.2",
    }
    assert refuse_others(stored, "auto") == stored
    with pytest.raises(pytest.UsageError, match="NVIDIA H100 80GB HBM3, and this is NVIDIA H200"):
        refuse_others({"cuda": {"hardware_class": "NVIDIA H100 80GB HBM3"}}, "auto")
    with pytest.raises(pytest.UsageError, match=r"measured on cpu \(Xeon x2\), and this session measures on cuda"):
        refuse_others({"cpu": {"hardware_class": "Xeon x2"}}, "auto")


def test_other_peoples_benchmarks_hear_nothing_of_us(pytester):
    pytester.makepyfile("def test_plain(benchmark):\n    benchmark.pedantic(lambda: None, rounds=3)\n")
    pytester.runpytest("--benchmark-json=out.json").assert_outcomes(passed=1)
    document = json.loads((pytester.path / "out.json").read_text())
    assert "archbench" not in document["machine_info"]
    assert document["benchmarks"][0]["options"]["timer"] == "perf_counter"


def test_without_pytest_benchmark_the_remedy_is_told(pytester):
    pytester.makepyfile("def test_it(benchmark_network):\n    pass\n")
    result = pytester.runpytest("-p", "no:benchmark")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install 'archbench[[]pytest[]]'*"])


def test_a_pytest_that_does_not_use_it_pays_nothing(pytester):
    pytester.makepyfile("""
        import sys
        def test_light():
            ours = {name for name in sys.modules if name.startswith("archbench")}
            assert ours == {"archbench", "archbench.pytest_plugin"}
            assert not {"torch", "msgspec", "pandas", "rich"} & set(sys.modules)
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


class FakeCuda:
    """Stands in for torch.cuda: a device on whose clock every event comes `apart_ms` after the last."""

    def __init__(self, monkeypatch, apart_ms):
        self.diary: list[str] = []
        self.streams: list[str] = []
        fake = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, stream):
                fake.streams.append(stream)
                fake.diary.append("event")
                self.at = len(fake.diary)

            def elapsed_time(self, later):
                assert fake.diary[-1] == "sync", "an event is read before it has happened"
                return apart_ms if later.at > self.at else -apart_ms

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"{device}'s stream")
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.diary.append("sync"))


def test_the_device_timer_subtracts_to_seconds(monkeypatch):
    cuda = FakeCuda(monkeypatch, 5.0)
    timer = DeviceTimer()
    timer.use(torch.device("cuda"))
    start, end = timer(), timer()
    assert cuda.diary == ["event", "event"]  # nothing waits between the stamps
    assert end - start == pytest.approx(5e-3)
    assert cuda.diary == ["event", "event", "sync"]
    with pytest.raises(ClockError):
        start - end
    timer.use(torch.device("cpu"))
    assert isinstance(timer(), float)


def test_the_device_timer_stamps_the_stream_of_its_own_device(monkeypatch):
    cuda = FakeCuda(monkeypatch, 5.0)
    timer = DeviceTimer()
    timer.use(torch.device("cuda:1"))
    timer()
    assert cuda.streams == ["cuda:1's stream"]


def test_a_second_gpu_is_the_current_one_while_its_network_is_measured(monkeypatch):
    """Up to the opening of its clock, whose events go to the current device; there is no GPU to go on with."""
    current = ["cuda:0"]

    @contextlib.contextmanager
    def device(chosen):
        current.append(str(chosen))
        yield
        current.pop()

    def clock(_kind, device):
        raise UsageError(f"a clock of {device} on {current[-1]}")

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(network, "describe", make_environment)
    monkeypatch.setattr(Cuda, "clock", clock)
    monkeypatch.setattr(network, "find_device", lambda environment: torch.device(environment.device))
    config = SimpleNamespace(stash={DEVICES: set()})
    benchmark_network = network.NetworkBenchmark(None, DeviceTimer(), cast("pytest.Config", config))
    with pytest.raises(pytest.fail.Exception, match="a clock of cuda:1 on cuda:1"):
        benchmark_network("lenet5", device="cuda:1")


def test_pytest_benchmark_takes_the_device_timers_seconds(pytester, monkeypatch):
    FakeCuda(monkeypatch, 5.0)
    pytester.makepyfile("""
        import torch
        def test_on_a_gpu(_archbench_timer, benchmark):
            _archbench_timer.use(torch.device("cuda"))
            benchmark.pedantic(lambda: None, rounds=4)
    """)
    pytester.runpytest("--benchmark-json=out.json").assert_outcomes(passed=1)
    stats = json.loads((pytester.path / "out.json").read_text())["benchmarks"][0]["stats"]
    assert stats["data"] == pytest.approx([5e-3] * 4)


def test_a_replay_gives_each_round_its_duration():
    timer = ReplayTimer()
    timer.load([0.25, 0.5])
    assert [-timer() + timer(), -timer() + timer()] == [0.25, 0.5]
