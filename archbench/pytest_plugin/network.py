"""The fixture's work: one network made ready as a cell of a suite would be, and timed by pytest-benchmark."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from archbench.analyze.counts import count, count_module
from archbench.analyze.memory import measured_peak
from archbench.catalog import resolve
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Batch
from archbench.device.kind import MS, checked, find_device, kind_of
from archbench.measure import compiler
from archbench.measure.metrics.footprint import measure_memory
from archbench.measure.sampling import gc_paused, warm_up
from archbench.measure.state import default_threads, restored_state
from archbench.measure.workload import Workload
from archbench.model.axes import CompileMode, MemoryFormat, Phase, Precision, Quantize, Runtime, Scalar
from archbench.model.cell import Cell, Network
from archbench.model.environment import Environment
from archbench.model.errors import UnsupportedError, UsageError
from archbench.model.protocol import Protocol, protocol_for
from archbench.pytest_plugin import DEVICES
from archbench.session import describe
from archbench.suite.cells import unsupported_toggle

SAMPLING_S = 1.0
"""pytest-benchmark wants to know beforehand how many rounds: as many as fill this time, within the protocol's bounds.
Its table has no interval that could stop it earlier."""


class DeviceTimer:
    """The host's clock, until it is given a CUDA device: from then on that device's own, by events.

    Stamps of a device subtract to the seconds between them on the device, the gaps in which it waited for the host
    included. Subtracting waits for the later one, so that the next round begins with an empty queue.
    """

    __name__ = "archbench"  # what pytest-benchmark stores as the timer's name

    def __init__(self) -> None:
        self._device: torch.device | None = None

    def use(self, device: torch.device) -> None:
        """Time work on this device."""
        self._device = device if kind_of(device).own_clock else None

    def __call__(self) -> float | _Stamp:
        return time.perf_counter() if self._device is None else _Stamp(self._device)


class _Stamp:
    """A moment on a CUDA device's own clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        # Without a stream it would be that of the current device, which need not be this one.
        self._event.record(torch.cuda.current_stream(device))

    def __sub__(self, earlier: _Stamp) -> float:
        """Seconds since `earlier`. Raises `ClockError` for stamps in the wrong order."""
        torch.cuda.synchronize(self._device)
        return checked(earlier._event.elapsed_time(self._event) * MS)


class NetworkBenchmark:
    """What the fixture `benchmark_network` gives: call it once with a network.

    ```python
    def test_resnet(benchmark_network):
        benchmark_network("resnet18", batch_size=8, precision="amp-bf16")

    def test_my_block(benchmark_network):
        benchmark_network(MyBlock(64), torch.randn(8, 64, 56, 56))
    ```
    """

    def __init__(self, benchmark: Any, timer: DeviceTimer, config: pytest.Config) -> None:
        self._benchmark = benchmark
        self._timer = timer
        self._config = config

    def __call__(
        self,
        network: str | nn.Module,
        *inputs: Tensor,
        batch_size: int = 1,
        input_size: int | None = None,
        options: Mapping[str, Scalar] | None = None,
        phase: Phase = "inference",
        precision: Precision = "fp32",
        compile_mode: CompileMode = "off",
        memory_format: MemoryFormat = "contiguous",
        runtime: Runtime = "torch",
        quantize: Quantize = "off",
        device: str | None = None,
        seed: int = 0,
        protocol: Mapping[str, float] | None = None,
    ) -> Any:
        """Benchmark one step of `network` and return what its last step returned (the output, or in training the loss).

        `network`: a name (`resnet50`, `timm:hrnet_w18`, `package.module:function`) with `batch_size`, `input_size` and
        `options`, or a module with its `inputs`, whole batches; a copy of it is measured. The toggles are those of a
        suite; `protocol` overrides constants of measuring as there. `device`: in place of `--archbench-device`. Fails
        the test, in one line, where the network cannot be built, and skips it where the device cannot do what is asked.
        """
        try:
            environment = describe(device or self._config.getoption("archbench_device"))
            subject: _Named | _Given
            if isinstance(network, str):
                name = resolve(network, allow_code=True).name
                subject = _Named(Network(name=name, input_size=input_size, options={**(options or {})}), batch_size)
            else:
                subject = _Given(network, inputs)
            cell = Cell(
                network=subject.network,
                batch_size=subject.batch_size,
                phase=phase,
                precision=precision,
                compile_mode=compile_mode,
                memory_format=memory_format,
                runtime=runtime,
                quantize=quantize,
                device=environment.kind,
            )
            if cell.is_converted:
                raise UsageError("other runtimes and formats are benchmarked by a suite: `pytest SUITE.yaml`")
            if reason := unsupported_toggle(cell):
                pytest.skip(reason)
            self._config.stash[DEVICES].add(environment.device)
            constants, threads = protocol_for(environment.kind, protocol or {}), default_threads(environment.cpu_count)
            found = find_device(environment)
            with kind_of(found).current(found), restored_state(precision, threads, seed):
                return self._measure(cell, subject, environment, found, constants, seed)
        except UnsupportedError as error:
            skip, message = True, str(error)
        except (UsageError, msgspec.ValidationError) as error:
            skip, message = False, str(error)
        # Outside the handlers, or pytest would show the exception that is being put into a line here.
        if skip:
            pytest.skip(message)
        pytest.fail(message, pytrace=False)

    def _measure(
        self,
        cell: Cell,
        subject: _Named | _Given,
        environment: Environment,
        device: torch.device,
        protocol: Protocol,
        seed: int,
    ) -> Any:
        clock = kind_of(device).clock(device)
        compiles = cell.compile_mode != "off"
        if compiles:
            compiler.reset()
        before = _standing_bytes(device)
        workload = subject.workload(cell, device, protocol, seed)
        workload.require(workload.applied())
        self._timer.use(device)
        if self._benchmark.disabled:
            return self._benchmark.pedantic(workload.step)
        workload.step()
        clock.synchronize()
        warm = warm_up(workload.step, clock, protocol, first_cell=True)
        rounds, steps = _amount(protocol, warm.step_s, device)
        guard = compiler.no_recompiles() if compiles else nullcontext()
        clock.synchronize()
        with guard, gc_paused():
            result = self._benchmark.pedantic(workload.step, rounds=rounds, iterations=steps)
        peak = measure_memory(workload.step, device, None).peak_allocated
        self._benchmark.extra_info.update(
            _identity(cell, environment),
            **subject.figures(),
            peak_allocated_bytes=None if peak is None else peak - before,
            warmup_steps=warm.calls + 1,
            warmup_level=warm.level,
        )
        return result


class _Named:
    """A network of the catalogue, a library or the user's code, built here."""

    def __init__(self, network: Network, batch_size: int) -> None:
        self.network = network
        self.batch_size = batch_size

    def workload(self, cell: Cell, device: torch.device, protocol: Protocol, seed: int) -> Workload:
        module = build(self.network, allow_code=True)
        given = takes_of(self.network, module, allow_code=True)
        return Workload(cell, module, given, device, ring=protocol.input_ring, seed=seed)

    def figures(self) -> dict[str, int | None]:
        counts = count(self.network, allow_code=True)
        return {"params": counts.params, "macs": counts.macs, "weight_bytes": counts.weight_bytes}


class _Given:
    """A module that a test made, on the test's own inputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        if not inputs or not all(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in inputs):
            raise UsageError(
                "a module is benchmarked on inputs: benchmark_network(module, tensor, ...), each a batch of them"
            )
        self._module = module
        self._inputs = inputs
        self.network = Network(name=type(module).__name__)
        self.batch_size = inputs[0].shape[0]

    def workload(self, cell: Cell, device: torch.device, protocol: Protocol, seed: int) -> Workload:
        module = copy.deepcopy(self._module)
        return Workload(cell, module, (), device, ring=1, seed=seed, inputs=[Batch(tuple(self._inputs))])

    def figures(self) -> dict[str, int | None]:
        params = sum(weight.numel() for weight in self._module.parameters() if weight.requires_grad)
        if len(self._inputs) > 1 or not self._inputs[0].is_floating_point():
            return {"params": params, "macs": None}  # the counter gives a network one tensor of real numbers
        try:
            return {"params": params, "macs": count_module(self._module, tuple(self._inputs[0].shape[1:])).macs}
        except UsageError:
            return {"params": params, "macs": None}


def _amount(protocol: Protocol, step_s: float, device: torch.device) -> tuple[int, int]:
    """Rounds and steps a round. On a device with its own clock a round is one step: a second would be pipelined."""
    steps = 1 if kind_of(device).own_clock else max(1, math.ceil(protocol.sample_floor_s / step_s))
    least = protocol.min_samples if step_s < protocol.slow_step_s else protocol.min_samples_slow
    fitting = round(min(SAMPLING_S, protocol.max_sampling_s) / (step_s * steps))
    return min(protocol.max_samples, max(least, fitting)), steps


def _standing_bytes(device: torch.device) -> int:
    """What lives on the device already and is not this benchmark's."""
    allocator = kind_of(device).allocator(device)
    return measured_peak(lambda: None) if allocator is None else allocator.allocated()


def _identity(cell: Cell, environment: Environment) -> dict[str, Any]:
    toggles = ("batch_size", "phase", "precision", "compile_mode", "memory_format", "device")
    return {
        "cell_id": cell.cell_id,
        "architecture": cell.network.label,
        **{name: msgspec.structs.asdict(cell)[name] for name in toggles},
        "hardware_class": environment.hardware_class,
    }
