"""What torch's own counter lacks of operators: speed for the usual ones, formulas for the others that have products.

What the usual operators give without data, and their MACs, is told here in a tenth of the time that torch takes: on the
meta device it takes up to a dozen operators in Python to arrive at one new tensor. The rules hold for plain operands
alone, contiguous and of one type; for all others, and for any mistake of the network's, torch is asked.

MACs are of products; pointwise arithmetic has none. Outer and Kronecker products multiply without adding and count one
MAC an element; unfold, times, sum (a locally connected layer) is pointwise arithmetic and a sum as far as operators
tell, and counts none. A product of complex numbers is one MAC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import register_flop_formula

_ATEN = torch.ops.aten
Found = tuple[Tensor, int]


def foreseen(func: OpOverload, args: Any, kwargs: Any) -> Found | None:
    """The new tensor that `func` returns, and its MACs; `None` where torch has to be asked."""
    rule = _RULES.get(func.overloadpacket)
    if rule is None or not args:
        return None
    try:
        with torch._C.DisableTorchFunction():
            return rule(*args, **(kwargs or {}))
    except (TypeError, AttributeError):  # an operand of another kind than usual
        return None


def _plain(*tensors: Tensor) -> bool:
    first = tensors[0]
    return all(one.is_meta and one.is_contiguous() and one.dtype == first.dtype for one in tensors)


def _like(x: Tensor, *rest: Any, **options: Any) -> Found | None:
    """Of the shape, type and layout of the first operand."""
    if not (x.is_meta and x.is_floating_point()) or options.get("dtype") is not None:
        return None
    return torch.empty_like(x), 0


def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Found | None:
    return _like(x) if dtype is None and x.is_contiguous() else None


def _pointwise(x: Tensor, y: Any, **options: Any) -> Found | None:
    """Of two operands of which the second fits into the first."""
    if not (x.is_meta and x.is_floating_point()):
        return None
    if isinstance(y, (int, float)):
        return torch.empty_like(x), 0
    if x.dtype != y.dtype or not y.is_meta:
        return None
    if x.shape == y.shape:
        return (torch.empty_like(x), 0) if x.stride() == y.stride() else None
    fits = y.dim() <= x.dim() and all(b in (1, a) for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False))
    return (torch.empty_like(x), 0) if fits and x.is_contiguous() else None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Found | None:
    if not x.is_meta or x.dtype != weight.dtype or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        return None
    out = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device="meta")
    return out, out.numel() * weight.shape[1]


def _product(a: Tensor, b: Tensor) -> Found | None:
    if not (a.is_meta and b.is_meta) or a.dtype != b.dtype or min(a.dim(), b.dim()) < 2 or a.shape[-1] != b.shape[-2]:
        return None
    if b.dim() != 2 and a.shape[:-2] != b.shape[:-2]:
        return None
    out = torch.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype, device="meta")
    return out, out.numel() * a.shape[-1]


def _attention(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> Found | None:
    alike = q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and q.dtype == k.dtype == v.dtype
    if not (alike and q.is_meta and q.dim() >= 3) or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        return None
    out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device="meta")
    return out, q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Found | None:  # fmt: skip
    axes = weight.dim() - 2
    if not _plain(x, weight) or x.dim() != weight.dim() or x.shape[1] != weight.shape[1] * groups:
        return None
    sizes = [
        (side + 2 * pad - dilate * (kernel - 1) - 1) // step + 1
        for side, kernel, step, pad, dilate in zip(
            x.shape[2:], weight.shape[2:], *(_each(one, axes) for one in (stride, padding, dilation)), strict=True
        )
    ]
    if min(sizes) < 1:
        return None
    out = torch.empty((x.shape[0], weight.shape[0], *sizes), dtype=x.dtype, device="meta")
    return out, out.numel() * prod(weight.shape[1:])


def _each(value: Any, axes: int) -> Sequence[int]:
    """One number for every axis; raises `TypeError` for a word."""
    if isinstance(value, str):
        raise TypeError(value)
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _concatenation(tensors: Sequence[Tensor], dim: int = 0) -> Found | None:
    first = tensors[0]
    dim %= first.dim()
    rests = {(*one.shape[:dim], *one.shape[dim + 1 :]) for one in tensors}
    if len(rests) > 1 or not _plain(*tensors) or any(one.dim() != first.dim() for one in tensors):
        return None
    shape = (*first.shape[:dim], sum(one.shape[dim] for one in tensors), *first.shape[dim + 1 :])
    return torch.empty(shape, dtype=first.dtype, device="meta"), 0


def _copy(x: Tensor, *, memory_format: torch.memory_format = torch.preserve_format) -> Found | None:
    if not x.is_meta or not (x.is_contiguous() or memory_format == torch.contiguous_format):
        return None
    plain = memory_format in (torch.contiguous_format, torch.preserve_format)
    return (torch.empty(x.shape, dtype=x.dtype, device="meta"), 0) if plain else None


_RULES: dict[Any, Callable[..., Found | None]] = {
    # There are no MACs inside to miss.
    **dict.fromkeys((_ATEN.batch_norm, _ATEN.layer_norm, _ATEN.group_norm, _ATEN.instance_norm), _like),
    **dict.fromkeys((_ATEN.gelu, _ATEN.hardsigmoid, _ATEN.hardswish, _ATEN.relu, _ATEN.sigmoid, _ATEN.silu), _like),
    **dict.fromkeys((_ATEN.tanh, _ATEN.leaky_relu, _ATEN.relu6, _ATEN.hardtanh, _ATEN.exp, _ATEN.mish), _like),
    **dict.fromkeys((_ATEN.add, _ATEN.mul, _ATEN.sub, _ATEN.div), _pointwise),
    **dict.fromkeys((_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d), _convolution),
    **dict.fromkeys((_ATEN.matmul, _ATEN.bmm, _ATEN.mm), _product),
    _ATEN.softmax: _softmax,
    _ATEN.linear: _linear,
    _ATEN.scaled_dot_product_attention: _attention,
    _ATEN.cat: _concatenation,
    _ATEN.clone: _copy,
}


Formula = Callable[[Any, Any], int]
"""MACs of one call, by its operands and what it gave."""


def formula_of(operator: str, args: Any) -> Formula | None:
    """The formula for an operator, `aten.cdist`, on these operands; `None`: it is left to torch's counter."""
    tensors = [one for one in args if isinstance(one, Tensor)] if operator in _SPARSE else []
    sparse = next((one for one in tensors if one.layout in _LAYOUTS), None)
    if sparse is not None:
        return lambda args, out: int(sparse._nnz() * (out.shape[-1] if out.dim() > 1 else 1))
    return _MACS.get(operator)


def without_sum(operator: str, args: Any, out: Any) -> int:
    """MACs of an einsum that sums over nothing, which torch multiplies pointwise; 0 of any other operator."""
    if operator != "aten.einsum":
        return 0
    return int(out.numel()) * (len(args[1]) - 1)


_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def _per_output(weight: Any, out: Tensor) -> int:
    """Of a convolution: each element of the output is a product with one filter."""
    return out.numel() * int(weight[0].numel())


def _bag(args: Any, out: Any) -> int:
    """Rows are only summed, unless each has a weight of its own."""
    weighted = args[6] if len(args) > 6 else None
    return 0 if weighted is None else int(weighted.numel() * args[0].shape[-1])


def _recurrent(args: Any, out: Any) -> int:
    """A quantised LSTM or GRU, whose weights are packed: by the widths of its input and of its state."""
    states = next(one for one in args[1:] if isinstance(one, list | tuple) or one.dim() == 3)
    state, gates = (states[0], 4) if isinstance(states, list | tuple) else (states, 3)
    flag = next(place for place, one in enumerate(args) if isinstance(one, bool))  # behind it the number of layers
    ways, width = 1 + args[flag + 4], state.shape[-1]
    rows = sum((width * ways if layer else args[0].shape[-1]) + width for layer in range(args[flag + 1]))
    return int(out[0].numel() * gates * rows)


_SPARSE = frozenset(
    {f"aten.{name}" for name in ("_sparse_mm", "_sparse_addmm", "mm", "bmm", "matmul", "mv", "addmm", "smm", "linear")}
)
_MACS: dict[str, Formula] = {
    "torchvision.deform_conv2d": lambda args, out: _per_output(args[1], out),
    **dict.fromkeys(("aten.outer", "aten.ger", "aten.kron"), lambda args, out: out.numel()),
    "aten.conv_tbc": lambda args, out: out.numel() * args[1][..., 0].numel(),
    "aten.addbmm": lambda args, out: args[1].numel() * args[2].shape[-1],
    **dict.fromkeys(
        (
            *("aten.cdist", "aten._cdist_forward", "aten.pdist", "aten._int_mm", "aten._weight_int8pack_mm"),
            *(f"aten._weight_int4pack_mm{end}" for end in ("", "_for_cpu", "_with_scales_and_zeros")),
            *(f"quantized.linear{end}" for end in ("", "_relu", "_dynamic", "_relu_dynamic")),
        ),
        lambda args, out: out.numel() * int(args[0].shape[-1]),
    ),
    "aten.embedding_bag": _bag,
    **dict.fromkeys(("aten.quantized_lstm", "aten.quantized_gru"), _recurrent),
    "aten.bilinear": lambda args, out: out.numel() * args[2].shape[1] * args[2].shape[2],
    **dict.fromkeys(
        (f"quantized.conv{axes}d{relu}" for axes in (1, 2, 3) for relu in ("", "_relu")),
        lambda args, out: _per_output(args[1].weight(), out),
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
