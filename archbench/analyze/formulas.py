"""MACs of operators that torch's own counter has no formula for: of products, that is; pointwise arithmetic has none.

Outer and Kronecker products multiply without adding and count one MAC an element; unfold, times, sum (a locally
connected layer) is pointwise arithmetic and a sum as far as operators tell, and counts none. A product of complex
numbers is one MAC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_ATEN = torch.ops.aten


def has_formula(operator: str, args: Any) -> bool:
    """Whether `macs_of` knows the operator, `aten.cdist`; all others are left to torch's counter."""
    return operator in _MACS or (operator in _SPARSE and _sparse(args) is not None)


def macs_of(operator: str, args: Any, out: Any) -> int:
    """MACs of one call of an operator that has a formula here."""
    sparse = _sparse(args)
    if sparse is not None and operator in _SPARSE:
        return int(sparse._nnz() * (out.shape[-1] if out.dim() > 1 else 1))
    return _MACS[operator](args, out)


def without_sum(operator: str, args: Any, out: Any) -> int:
    """MACs of an einsum that sums over nothing, which torch multiplies pointwise; 0 of any other operator."""
    if operator != "aten.einsum":
        return 0
    return int(out.numel()) * (len(args[1]) - 1)


def _sparse(args: Any) -> Tensor | None:
    return next((one for one in args if isinstance(one, Tensor) and one.layout != torch.strided), None)


def _per_output(weight: Any, out: Tensor) -> int:
    """Of a convolution: each element of the output is a product with one filter."""
    return out.numel() * int(weight[0].numel())


def _as_many(args: Any, out: Tensor) -> int:
    return out.numel()


def _packed_linear(args: Any, out: Tensor) -> int:
    return out.numel() * int(args[0].shape[-1])


def _packed_convolution(args: Any, out: Tensor) -> int:
    return _per_output(args[1].weight(), out)


_SPARSE = frozenset({"aten._sparse_mm", "aten.mm", "aten.matmul", "aten.mv", "aten.addmm", "aten.smm", "aten.linear"})
_MACS: dict[str, Callable[[Any, Any], int]] = {
    "torchvision.deform_conv2d": lambda args, out: _per_output(args[1], out),
    "aten.outer": _as_many,
    "aten.ger": _as_many,
    "aten.kron": _as_many,
    "aten.addbmm": lambda args, out: args[1].numel() * args[2].shape[-1],
    "aten.cdist": lambda args, out: out.numel() * args[0].shape[-1],
    "aten._cdist_forward": lambda args, out: out.numel() * args[0].shape[-1],
    "aten.pdist": lambda args, out: out.numel() * args[0].shape[-1],
    "aten.bilinear": lambda args, out: out.numel() * args[2].shape[1] * args[2].shape[2],
    **dict.fromkeys(
        ("quantized.linear", "quantized.linear_relu", "quantized.linear_dynamic", "quantized.linear_relu_dynamic"),
        _packed_linear,
    ),
    **dict.fromkeys(
        (f"quantized.conv{axes}d{relu}" for axes in (1, 2, 3) for relu in ("", "_relu")), _packed_convolution
    ),
}


# What lies inside other operators (`matmul` of a matrix and a vector) torch's counter has to know itself.


@register_flop_formula([_ATEN.mv, _ATEN.dot, _ATEN.vdot])
def _vector_flop(a_shape: Any, b_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * int(torch.Size(a_shape).numel())


@register_flop_formula([_ATEN.addmv, _ATEN.addr])
def _added_flop(bias: Any, a_shape: Any, b_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    sizes = torch.Size(a_shape).numel()
    return 2 * int(sizes if len(a_shape) == 2 else sizes * torch.Size(b_shape).numel())
