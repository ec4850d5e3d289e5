"""Counts a network without running it: one forward pass over tensors that have a shape and no data.

MACs are half of what `torch.utils.flop_counter.FlopCounterMode` counts. On the meta device fused attention decomposes
into the matrix products that its formulas know; on CPU tensors it does not, and ViT-B/16 would lose a third of itself.
"""

from __future__ import annotations

import copy
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._device import DeviceContext

from archbench.analyze.forward_trace import ForwardTrace
from archbench.analyze.stages import StageRecorder
from archbench.catalog.build import build, input_shape
from archbench.model.cell import Network
from archbench.model.counts import Counts, OperatorCalls
from archbench.model.errors import UsageError, in_one_line, words_of

Shape = tuple[int, ...]
T = TypeVar("T")


def count(network: Network, *, allow_code: bool = False) -> Counts:
    """Count one network at its input size (its native one, if `network` leaves it open), with no data and no weights.

    Raises `UsageError` where the network cannot be built or cannot take an input of this size.
    """
    shape = input_shape(network, allow_code=allow_code)
    try:
        with _uncollected():
            return on_module(network, lambda module: _count(module, shape), allow_code=allow_code)
    except UsageError:
        raise
    except Exception as error:  # the network's own code
        raise _refusal(shape, error, f"{network.label}: ") from error


def on_module(network: Network, work: Callable[[nn.Module], T], *, allow_code: bool = False) -> T:
    """Do `work` on `network` built without data; where that fails, since its code looks at values, on one with data.

    Raises whatever the building, or the work, raises with data.
    """
    try:
        with without_data():
            module = build(network, allow_code=allow_code)
        return work(module)
    except Exception:  # the network's own code
        module = build(network, allow_code=allow_code)
    return work(module)


def count_module(module: nn.Module, input_shape: Shape) -> Counts:
    """Count `module` for one input of `input_shape` (channels, height, width), in evaluation mode.

    The module is left as it was: a copy without data is counted, and only where that copy cannot run (its forward
    pass looks at values) the module itself. Raises `UsageError` where neither can.
    """
    with suppress(Exception):  # the network's own code
        return _count(copy_with(module, on_meta), input_shape)
    try:
        return _count(module, input_shape)
    except Exception as error:
        raise _refusal(input_shape, error) from error


def _count(module: nn.Module, shape: Shape) -> Counts:
    try:
        return _counted(module, shape, torch.inference_mode())
    except RuntimeError as error:
        if "grad" not in words_of(error):
            raise
    # A forward pass that takes gradients itself (forces of an energy): what they cost counts, too.
    return _counted(module, shape, torch.no_grad())


def _counted(module: nn.Module, shape: Shape, mode: AbstractContextManager[Any]) -> Counts:
    image = blank_image(module, shape)
    trace = ForwardTrace(module, image)
    recorder = StageRecorder(module, lambda: trace.macs)
    with evaluating(module), decomposed_attention(), mode, image.device, recorder, trace:
        output = module(image)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    packed = [tensor for part in module.modules() for tensor in _packed(part)]
    stored: list[Tensor] = [*module.parameters(), *module.buffers(), *packed]
    return Counts(
        input_shape=shape,
        params=_elements([*trainable, *packed]),
        idle_params=_elements([p for p in trace.idle_parameters() if p.requires_grad]),
        buffers=_elements(list(module.buffers())),
        macs=trace.macs,
        activations=trace.activations,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
        depth=trace.depth_of(output),
        uncounted=operator_calls(trace.uncounted),
        stages=recorder.stages(),
    )


def _packed(module: nn.Module) -> list[Tensor]:
    """Weights of a quantised layer, which it keeps in a form of its own and gives out by functions."""
    tensors = [get() for name in ("weight", "bias") if callable(get := getattr(module, name, None))]
    return [tensor for tensor in tensors if isinstance(tensor, Tensor)]


def operator_calls(calls: Counter[str]) -> tuple[OperatorCalls, ...]:
    """`calls` by operator, the most called first; of equals, the first in the alphabet."""
    return tuple(OperatorCalls(operator=n, calls=c) for n, c in sorted(calls.items(), key=lambda kv: (-kv[1], kv[0])))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside; afterwards each part as it was."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        yield
    finally:
        for child in training:
            child.training = True


@contextmanager
def decomposed_attention() -> Iterator[None]:
    """Keeps attention in operators with a MAC formula, on real tensors too."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def blank_image(module: nn.Module, shape: Shape) -> Tensor:
    """One input of `shape`, all zero, where the module's parameters lie; without data for a module that has none."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("meta"))
    return torch.zeros(1, *shape, device=device)


def copy_with(module: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a deep copy of `module` in which `make` has replaced each parameter and buffer.

    No data is copied on the way, and what was tied stays tied.
    """
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(make(parameter), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = make(buffer)
    return copy.deepcopy(module, memo)


def on_meta(tensor: Tensor) -> Tensor:
    """A tensor like this one on the meta device."""
    return torch.empty_like(tensor, device="meta")


@contextmanager
def without_data() -> Iterator[None]:
    """Build modules on the meta device, and skip the drawing of weights that would have nothing to draw into."""
    with _NoData("meta"):
        yield


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a network is ten thousand objects that live on, and each look at all takes long."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _NoData(DeviceContext):  # type: ignore[no-untyped-call]
    """`torch.device`, and skips `torch.nn.init` and what changes the values of meta tensors: they have none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


_FILLS = frozenset(
    getattr(Tensor, name)
    for name in (
        *("normal_", "uniform_", "bernoulli_", "random_", "trunc_normal_", "fill_", "zero_", "copy_", "clamp_"),
        *("clamp_min_", "clamp_max_", "erfinv_", "mul_", "add_", "sub_", "div_", "neg_", "exp_", "log_", "sqrt_"),
    )
    if hasattr(Tensor, name)
)


def _elements(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _refusal(shape: Shape, error: Exception, label: str = "") -> UsageError:
    return UsageError(f"{label}cannot take an input of {'x'.join(map(str, shape))}: {in_one_line(error)}")
