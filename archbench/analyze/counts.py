"""Counts a network without running it: one forward pass over tensors that have a shape and no data. And once more.

MACs are half of what `torch.utils.flop_counter.FlopCounterMode` counts. On the meta device fused attention decomposes
into the matrix products that its formulas know; on CPU tensors it does not, and ViT-B/16 would lose a third of itself.
The second count is fvcore's, which traces the network on CPU tensors.
"""

from __future__ import annotations

import copy
import gc
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from math import inf, prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._device import DeviceContext

from archbench.analyze.forward_trace import ForwardTrace, StageRecorder
from archbench.analyze.step import settled
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Batch, Taken, Takes, refused, takes, tensors_in
from archbench.catalog.roles import folds, in_mode, levels
from archbench.model.cell import Network
from archbench.model.counts import Counts, OperatorCalls, SecondOpinion
from archbench.model.errors import UsageError, in_one_line, words_of

T = TypeVar("T")

_GIVE_OUT = ("weight", "bias", "get_weight", "get_bias")
"""What quantised layers call the functions that give their weights out; recurrent ones give dictionaries."""
_MULTIPLICATIONS = frozenset(
    {"conv", "_convolution", "_convolution_mode", "addmm", "baddbmm", "bmm", "einsum", "linear", "matmul", "mm"}
    | {"scaled_dot_product_attention"}
)
"""fvcore's names of the operators that have MACs in both counters."""


def count(network: Network, *, allow_code: bool = False) -> Counts:
    """Count one network at its input size (its native one, if `network` leaves it open), with no data and no weights.

    Raises `UsageError` where the network cannot be built or cannot take an input of this size.
    """
    given = takes_of(network, allow_code=allow_code)
    collects = gc.isenabled()
    gc.disable()  # a network is ten thousand objects that live on, and each look at all takes long
    try:
        return on_module(network, lambda module: _count(module, given), allow_code=allow_code)
    except UsageError as error:
        raise error if str(error).startswith(network.name) else UsageError(f"{network.label}: {error}") from error
    finally:
        if collects:
            gc.enable()


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


def count_module(module: nn.Module, given: Taken) -> Counts:
    """Count `module` for one sample of what it takes (a bare shape: one tensor), in evaluation mode.

    The module is left as it was: a copy without data is counted, and only where that copy cannot run (its forward
    pass looks at values) the module itself. Raises `UsageError` where neither can.
    """
    given = takes(given)
    with suppress(Exception):  # the network's own code
        return _count(copy_with(module, lambda tensor: torch.empty_like(tensor, device="meta")), given)
    return _count(module, given)


def _count(module: nn.Module, given: Takes) -> Counts:
    """Raises `UsageError` that says what was tried, whatever the network's own code raises."""
    device = device_of(module)
    try:
        try:
            return _counted(module, given, device, torch.inference_mode())
        except RuntimeError as error:
            if next(_stored(module), None) is None and isinstance(error, NotImplementedError):
                device = torch.device("cpu")  # nothing lies anywhere, and not everything works without data
            elif "grad" not in words_of(error):
                raise
        # A forward pass that takes gradients itself (forces of an energy): what they cost counts, too.
        return _counted(module, given, device, torch.no_grad())
    except Exception as error:
        raise UsageError(refused(module, given, error)) from error


def _counted(module: nn.Module, given: Takes, device: torch.device, mode: AbstractContextManager[Any]) -> Counts:
    batch = given.blank(1, device)
    trace = ForwardTrace(module, batch.tensors)
    recorder = StageRecorder(module, lambda: trace.macs)
    with evaluating(module), decomposed_attention(), mode, device, recorder, trace:
        output = settled(batch(module))
    trainable, frozen = list[Tensor](), list[Tensor]()
    for parameter in module.parameters():
        quantised = type(parameter) not in (nn.Parameter, Tensor)  # a quantiser's own, in the place of what is trained
        (trainable if parameter.requires_grad or quantised else frozen).append(parameter)
    packed = [tensor for part in module.modules() for tensor in _packed(part)]
    counted = [*(trainable or frozen), *packed]
    return Counts(
        input_shape=given.shape,
        inputs=given.text,
        params=_elements(counted),
        frozen_params=_elements(frozen),
        hidden_params=_elements(trace.hidden.values()),
        idle_params=_elements(p for p in trace.idle_parameters() if p.requires_grad),
        buffers=_elements(module.buffers()),
        macs=trace.macs,
        activations=trace.activations,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in _stored(module)),
        depth=trace.depth_of(output),
        uncounted=operator_calls(trace.uncounted),
        stages=recorder.stages(),
        pyramid=levels(output, given.image),
        folds=folds(module),
    )


def _packed(module: nn.Module) -> list[Tensor]:
    """Weights of a quantised layer, which it keeps in a form of its own and gives out by functions.

    Of torch's own layers alone: what a user's `get_weight` does, and asks for, is not known.
    """
    if not type(module).__module__.startswith("torch.ao."):
        return []
    given = [get() for name in _GIVE_OUT if callable(get := getattr(module, name, None))]
    tensors = [one for each in given for one in (each.values() if isinstance(each, dict) else [each])]
    return [tensor for tensor in tensors if isinstance(tensor, Tensor)]


def operator_calls(calls: Counter[str]) -> tuple[OperatorCalls, ...]:
    """`calls` by operator, the most called first; of equals, the first in the alphabet."""
    return tuple(OperatorCalls(operator=n, calls=c) for n, c in sorted(calls.items(), key=lambda kv: (-kv[1], kv[0])))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside; afterwards each part as it was."""
    training = [child for child in module.modules() if child.training]
    in_mode(module, training=False)
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
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")  # else it compiles itself, which a trace forbids
    if flex is not None:
        flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if flex is not None:
            flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = False
        torch.backends.mha.set_fastpath_enabled(fast_path)


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights lie; the device without data for a module that has none."""
    return next((tensor.device for tensor in _stored(module)), torch.device("meta"))


def _stored(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        yield from _packed(part)


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


def without_data() -> AbstractContextManager[Any]:
    """Build modules on the meta device, and skip the drawing of weights that would have nothing to draw into."""
    return _NoData("meta")


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


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


class _Called(nn.Module):
    """A module, called with the tensors of one batch in order, and giving tensors alone: fvcore traces no others."""

    def __init__(self, module: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.module, self._batch = module, batch

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        return tuple(tensors_in(settled(self._batch.map(lambda _: next(rest))(self.module))))


def second_opinion(network: Network, first: Counts, *, allow_code: bool = False) -> SecondOpinion:
    """Count `network` with fvcore, at the input size of the `first` count: an independent one, by formulas of its own.

    The network is built on the CPU and run for one image, which takes a hundred times as long as the first count
    and the memory of a real forward pass. Raises `UsageError` where the network cannot be built, or fvcore cannot
    trace it.
    """
    module = build(network, allow_code=allow_code)
    given = takes_of(network, module, allow_code=allow_code)
    try:
        return second_opinion_on(module, first, given)
    except Exception as error:  # torch.jit.trace over the network's own code
        raise UsageError(f"fvcore cannot trace it: {in_one_line(error)}") from error


def second_opinion_on(module: nn.Module, first: Counts, given: Taken) -> SecondOpinion:
    """Count `module`, which lies on the CPU and takes what is `given`, with fvcore; held against the `first` count."""
    with warnings.catch_warnings():
        # Importing fvcore, which takes a second, calls torch.jit.script, which is deprecated.
        warnings.simplefilter("ignore")
        from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
        from fvcore.nn.jit_handles import bmm_flop_jit, generic_activation_jit, get_shape

    def attention(inputs: list[Any], outputs: list[Any]) -> int:
        """Query times key, and the result times value. Shapes (..., L, E), (..., S, E) and (..., S, V)."""
        *batch, queries, width = get_shape(inputs[0])
        keys, value_width = get_shape(inputs[2])[-2:]
        return int(prod(batch) * queries * keys * (width + value_width))

    def convolution(inputs: list[Any], outputs: list[Any]) -> int:
        """A convolution whose padding is given by name: each output element takes one weight kernel's MACs."""
        return int(prod(get_shape(outputs[0])) * prod(get_shape(inputs[1])[1:]))

    batch = takes(given).blank(1, torch.device("cpu"))
    called, tensors = _Called(module, batch), tuple(batch.tensors)
    flops = FlopCountAnalysis(called, tensors).set_op_handle(
        **{
            "aten::scaled_dot_product_attention": attention,
            "aten::_convolution_mode": convolution,
            "aten::baddbmm": lambda inputs, outputs: bmm_flop_jit(inputs[1:3], outputs),
        }
    )
    activations = ActivationCountAnalysis(called, tensors).set_op_handle(
        **{name: generic_activation_jit() for name in ("aten::_convolution_mode", "aten::baddbmm", "aten::mm")}
    )
    for analysis in (flops, activations):  # they log nothing: what was not counted is part of the result
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with evaluating(module), decomposed_attention(), warnings.catch_warnings():
        # fvcore leans on torch.jit.trace, which is deprecated, and which remarks on every shape it turns into a number.
        warnings.simplefilter("ignore")
        by_operator = flops.by_operator()
        macs = sum(count for operator, count in by_operator.items() if operator in _MULTIPLICATIONS)
        return SecondOpinion(
            macs=int(macs),
            total=int(flops.total()),
            activations=int(activations.total()),
            disagreement=macs / first.macs - 1 if first.macs else inf if macs else 0.0,
            uncounted=operator_calls(flops.unsupported_ops()),
        )
