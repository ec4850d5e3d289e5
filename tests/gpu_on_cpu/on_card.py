"""Patches torch so that `cuda` is the card of `card.py`: tensors stay on the CPU, `torch.cuda` speaks of the card."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from card import CAPABILITY, CARD, CYCLES_PER_S, MEMORY_BYTES, SEGMENT, Capture, Event, Graph, Stream

Figure = TypeVar("Figure")
CPU = torch.device("cpu")
NAME = os.environ.get("STUB_NAME", "NVIDIA Stub 0")
GRAPH_MODES = ("reduce-overhead", "max-autotune")
FACTORIES = (
    *("arange", "as_tensor", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace", "ones"),
    *("ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor", "zeros", "zeros_like"),
)

NO_KERNEL = {
    f"aten::{name}"
    for name in (
        *("as_strided", "convolution", "_convolution", "conv2d", "detach", "empty", "empty_like", "empty_strided"),
        *("expand", "flatten", "linear", "batch_norm", "relu", "reshape", "resize_", "t", "transpose", "view"),
    )
}
"""Operators that only call others, or only make a view."""


def install() -> None:
    """Patch the torch that has been imported."""
    _devices()
    _amp()
    for name, there in _cuda().items():
        setattr(torch.cuda, name, there)
        if hasattr(torch.cuda.memory, name):
            setattr(torch.cuda.memory, name, there)
    torch._C._cuda_clearCublasWorkspaces = CARD.use
    torch.accelerator.is_available = lambda: False  # dynamo would have it ask the driver
    _compile()
    _profiler()


def landed(value: Any) -> Any:
    """The CPU for anything that names the card, which needs a context from here on; else the value itself."""
    if (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.partition(":")[0] == "cuda"
    ):
        CARD.use()
        return CPU
    return value


def _landing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = landed(kwargs["device"])
        return original(*args, **kwargs)

    return call


def _devices() -> None:
    for name in FACTORIES:
        setattr(torch, name, _landing(getattr(torch, name)))
    to = torch.Tensor.to

    def tensor_to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return to(self, *map(landed, args), **{name: landed(value) for name, value in kwargs.items()})

    torch.Tensor.to = tensor_to  # type: ignore[assignment,method-assign]
    torch.Tensor.cuda = lambda self, *_, **__: to(self, landed("cuda"))  # type: ignore[assignment,method-assign]

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Generator:
            return super().__new__(cls, landed(device))  # type: ignore[call-arg]  # written in C

    torch.Generator = Generator  # type: ignore[misc]


def _amp() -> None:
    def kind(device_type: str) -> str:
        return "cpu" if device_type == "cuda" else device_type

    for owner, name in ((torch.autocast, "__init__"), (torch.amp.GradScaler, "__init__")):
        original = getattr(owner, name)

        def made(self: Any, device: str = "cuda", *args: Any, __original: Any = original, **kwargs: Any) -> None:
            __original(self, kind(device), *args, **kwargs)

        setattr(owner, name, made)
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        asked = getattr(torch, name)
        setattr(torch, name, lambda *device, __asked=asked: __asked(*map(kind, device)))


def _cuda() -> dict[str, Any]:
    state = torch.Generator().get_state()

    def properties(device: Any = None) -> Any:
        CARD.use()
        return SimpleNamespace(
            name=NAME,
            uuid="0",
            major=CAPABILITY[0],
            minor=CAPABILITY[1],
            total_memory=MEMORY_BYTES,
            multi_processor_count=132,
            L2_cache_size=50 * 2**20,
            max_threads_per_multi_processor=2048,
            regs_per_multiprocessor=65536,
            shared_memory_per_block_optin=232448,
            warp_size=32,
        )

    def ledger(figure: Callable[[], Figure]) -> Callable[..., Figure]:
        def asked(device: Any = None) -> Figure:
            CARD.use()
            return figure()

        return asked

    def reserved(held: int) -> int:
        CARD.reserved_floor = max(CARD.reserved_floor, -(-held // SEGMENT) * SEGMENT)
        return CARD.reserved_floor

    def sleep(cycles: int) -> None:
        CARD.use()
        CARD.launch(cycles / CYCLES_PER_S)

    def empty_cache() -> None:
        CARD.use()
        CARD.reserved_floor = 0

    def using() -> Callable[..., None]:  # one for each name: dynamo tells functions apart by identity
        return lambda *_, **__: CARD.use()

    used = using()
    live, peak = (lambda: CARD.ledger.live()), (lambda: CARD.ledger.peak())
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: CARD.initialized,
        "init": using(),
        "_lazy_init": using(),
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: used() or 0,
        "set_device": using(),
        "device": lambda device: contextlib.nullcontext(used()),
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: CAPABILITY,
        "get_device_properties": properties,
        "get_arch_list": lambda: ["sm_90"],
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: CARD.wait(),
        "Event": Event,
        "Stream": Stream,
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "stream": lambda stream: contextlib.nullcontext(stream),
        "_sleep": sleep,
        "set_sync_debug_mode": using(),
        "CUDAGraph": Graph,
        "graph": Capture,
        "is_current_stream_capturing": lambda: False,
        "empty_cache": empty_cache,
        "set_per_process_memory_fraction": lambda share, device=None: CARD.limit(int(share * MEMORY_BYTES)),
        "memory_allocated": ledger(live),
        "max_memory_allocated": ledger(peak),
        "memory_reserved": ledger(lambda: reserved(CARD.ledger.live())),
        "max_memory_reserved": ledger(lambda: reserved(CARD.ledger.peak())),
        "reset_peak_memory_stats": ledger(lambda: CARD.ledger.reset_peak()),
        "mem_get_info": ledger(lambda: (MEMORY_BYTES - reserved(CARD.ledger.live()), MEMORY_BYTES)),
        "memory_stats": ledger(lambda: {"allocated_bytes.all.peak": CARD.ledger.peak()}),
        "get_allocator_backend": lambda: "native",
        "_record_memory_history": using(),
        "_snapshot": ledger(lambda: {"segments": [], "device_traces": []}),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: used() or state.clone(),
        "set_rng_state": lambda new, device=None: used() or state.copy_(new),
    }


def _compile() -> None:
    """What inductor would compile for the card is traced and then runs eagerly; a graph's replay shows as a launch."""
    compiled_by = torch.compile

    @functools.wraps(compiled_by)
    def compile_(model: Any = None, *, mode: str | None = None, backend: str = "aot_eager", **kwargs: Any) -> Any:
        made = compiled_by(model, backend=backend, **kwargs)
        if mode not in GRAPH_MODES:
            return made

        def replayed(*args: Any, **kwargs: Any) -> Any:
            with torch.profiler.record_function("cudaGraphLaunch"):
                return made(*args, **kwargs)

        return replayed

    torch.compile = compile_  # type: ignore[assignment]


def _profiler() -> None:
    """A session that asks for the card's activity sees a kernel for each operator that the CPU ran for it."""
    from torch.autograd import profiler
    from torch.profiler import ProfilerActivity

    begin, parse = torch.profiler.profile.__init__, profiler.profile._ensure_function_events

    def begun(self: Any, *, activities: Any = None, **kwargs: Any) -> None:
        asked = set(activities or (ProfilerActivity.CPU,))
        if ProfilerActivity.CUDA in asked:
            CARD.use()
            CARD.profiles += 1
        seen = CARD.profiles <= int(os.environ.get("GPU_PROFILES", "1000"))
        CARD.profiled = ProfilerActivity.CUDA in asked and seen
        begin(self, activities=asked - {ProfilerActivity.CUDA}, **kwargs)

    def parsed(self: Any) -> None:
        first = self._function_events is None
        parse(self)
        if first and CARD.profiled:
            _add_kernels(self._function_events)

    torch.profiler.profile.__init__ = begun  # type: ignore[method-assign]
    profiler.profile._ensure_function_events = parsed  # type: ignore[method-assign]


def _add_kernels(events: Any) -> None:
    from torch._C._autograd import DeviceType
    from torch.autograd.profiler_util import FunctionEvent

    events._use_device = "cuda"
    number = itertools.count(1 << 30)
    blank = {"stack": [], "input_shapes": [], "use_device": "cuda"}
    ran = [event for event in events if event.name.startswith("aten::") and event.name not in NO_KERNEL]
    for event in ran:
        kernel = f"void on_cpu::{event.name.removeprefix('aten::')}_kernel"
        own_us = event.self_cpu_time_total
        event.append_kernel(kernel, 0, own_us)
        times = event.time_range.end - own_us, event.time_range.end
        events.append(FunctionEvent(next(number), kernel, 0, *times, device_type=DeviceType.CUDA, **blank))
        launch = FunctionEvent(next(number), "cudaLaunchKernel", event.thread, times[0], times[0], **blank)
        events.append(launch)
    for event in events:
        event.use_device = "cuda"
