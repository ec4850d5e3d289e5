"""A second, independent count: fvcore traces the network on CPU tensors and applies formulas of its own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from archbench.analyze.counts import decomposed_attention, evaluating, operator_calls
from archbench.analyze.step import settled
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Batch, Taken, takes, tensors_in
from archbench.model.cell import Network
from archbench.model.counts import Counts, SecondOpinion
from archbench.model.errors import UsageError, in_one_line

with warnings.catch_warnings():
    # Importing fvcore calls torch.jit.script, which is deprecated.
    warnings.simplefilter("ignore")
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from fvcore.nn.jit_analysis import JitModelAnalysis
    from fvcore.nn.jit_handles import bmm_flop_jit, generic_activation_jit, get_shape

# fvcore's names of the operators that have MACs in both counters.
_MULTIPLICATIONS = frozenset(
    {"conv", "_convolution", "_convolution_mode", "addmm", "baddbmm", "bmm", "einsum", "linear", "matmul", "mm"}
    | {"scaled_dot_product_attention"}
)


def second_opinion(network: Network, first: Counts, *, allow_code: bool = False) -> SecondOpinion:
    """Count `network` with fvcore, at the input size of the `first` count.

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


class _Called(nn.Module):
    """A module, called with the tensors of one batch in order, and giving tensors alone: fvcore traces no others."""

    def __init__(self, module: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.module, self._batch = module, batch

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        return tuple(tensors_in(settled(self._batch.map(lambda _: next(rest))(self.module))))


def second_opinion_on(module: nn.Module, first: Counts, given: Taken) -> SecondOpinion:
    """Count `module`, which lies on the CPU and takes what is `given`, with fvcore; held against the `first` count."""
    batch = takes(given).blank(1, torch.device("cpu"))
    called, tensors = _Called(module, batch), tuple(batch.tensors)
    flops = FlopCountAnalysis(called, tensors).set_op_handle(
        **{
            "aten::scaled_dot_product_attention": _attention_macs,
            "aten::_convolution_mode": _convolution_macs,
            "aten::baddbmm": lambda inputs, outputs: bmm_flop_jit(inputs[1:3], outputs),
        }
    )
    activations = ActivationCountAnalysis(called, tensors).set_op_handle(
        **{name: generic_activation_jit() for name in ("aten::_convolution_mode", "aten::baddbmm", "aten::mm")}
    )
    with evaluating(module), decomposed_attention(), warnings.catch_warnings():
        # fvcore leans on torch.jit.trace, which is deprecated, and which remarks on every shape it turns into a number.
        warnings.simplefilter("ignore")
        by_operator = _quiet(flops).by_operator()
        macs = sum(count for operator, count in by_operator.items() if operator in _MULTIPLICATIONS)
        return SecondOpinion(
            macs=int(macs),
            total=int(flops.total()),
            activations=int(_quiet(activations).total()),
            disagreement=macs / first.macs - 1 if first.macs else math.inf if macs else 0.0,
            uncounted=operator_calls(flops.unsupported_ops()),
        )


def _quiet(analysis: JitModelAnalysis) -> JitModelAnalysis:
    """Log nothing: what was not counted is part of the result."""
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Query times key, and the result times value. Shapes (..., L, E), (..., S, E) and (..., S, V)."""
    *batch, queries, width = get_shape(inputs[0])
    keys, value_width = get_shape(inputs[2])[-2:]
    return int(math.prod(batch) * queries * keys * (width + value_width))


def _convolution_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """A convolution whose padding is given by name: each output element takes one weight kernel's MACs."""
    return int(math.prod(get_shape(outputs[0])) * math.prod(get_shape(inputs[1])[1:]))
