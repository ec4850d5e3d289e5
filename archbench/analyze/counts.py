"""Counts a network without running it: one forward pass over tensors that have a shape and no data.

MACs are half of what `torch.utils.flop_counter.FlopCounterMode` counts. On the meta device fused attention decomposes
into the matrix products that its formulas know; on CPU tensors it does not, and ViT-B/16 would lose a third of itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from archbench.analyze.dataless import copy_with, on_meta, without_data
from archbench.analyze.forward_trace import ForwardTrace
from archbench.analyze.stages import StageRecorder
from archbench.catalog.build import build, input_shape
from archbench.model.cell import Network
from archbench.model.counts import Counts, OperatorCalls
from archbench.model.errors import UsageError

Shape = tuple[int, ...]


def count(network: Network, *, allow_code: bool = False) -> Counts:
    """Count one network at its input size (its native one, if `network` leaves it open), with no data and no weights.

    Raises `UsageError` where the network cannot be built or cannot take an input of this size.
    """
    shape = input_shape(network, allow_code=allow_code)
    try:
        with without_data():
            module = build(network, allow_code=allow_code)
        return _count(module, shape)
    except Exception:  # the network's own code: it may look at values, which only a module with data has
        module = build(network, allow_code=allow_code)
    try:
        return _count(module, shape)
    except Exception as error:
        raise UsageError(f"{network.label}: cannot take an input of {_times(shape)}: {_line(error)}") from error


def count_module(module: nn.Module, input_shape: Shape) -> Counts:
    """Count `module` for one input of `input_shape` (channels, height, width), in evaluation mode.

    The module is left as it was: a copy without data is counted, and only where that copy cannot run (its forward
    pass looks at values) the module itself. Raises `UsageError` where neither can.
    """
    try:
        return _count(copy_with(module, on_meta), input_shape)
    except Exception as error:  # the network's own code
        if _device(module).type == "meta":
            raise UsageError(f"cannot take an input of {_times(input_shape)}: {_line(error)}") from error
    try:
        return _count(module, input_shape)
    except Exception as error:
        raise UsageError(f"cannot take an input of {_times(input_shape)}: {_line(error)}") from error


def _count(module: nn.Module, shape: Shape) -> Counts:
    device = _device(module)
    image = torch.zeros(1, *shape, device=device)
    trace = ForwardTrace(module, image)
    recorder = StageRecorder(module, lambda: trace.macs)
    with evaluating(module), decomposed_attention(), torch.inference_mode(), device, recorder, trace:
        output = module(image)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    stored: list[Tensor] = [*module.parameters(), *module.buffers()]
    return Counts(
        input_shape=shape,
        params=_elements(trainable),
        idle_params=_elements([p for p in trace.idle_parameters() if p.requires_grad]),
        buffers=_elements(list(module.buffers())),
        macs=trace.macs,
        activations=trace.activations,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
        depth=trace.depth_of(output),
        uncounted=operator_calls(trace.uncounted),
        stages=recorder.stages(),
    )


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


def _device(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), None)
    return torch.device("meta") if tensor is None else tensor.device


def _elements(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
