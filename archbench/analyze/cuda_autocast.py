"""Makes autocast on the CPU promote to fp32 what it promotes on CUDA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# "CUDA Ops that can autocast to float32" of torch's autocast reference, as far as networks use them in a forward pass
# or a loss. The CPU's list has none of these.
_IN_FP32 = frozenset(
    """
    __pow__ __rpow__ __rtruediv__ cdist cosine_similarity cross_entropy cumprod cumsum exp expm1 group_norm layer_norm
    log log1p log_softmax mse_loss nll_loss norm normalize pow prod reciprocal rsqrt softmax softmin softplus sum
    """.split()  # noqa: SIM905 - twenty-five lines as a list
)


class CudaAutocast(TorchFunctionMode):
    """Stands in for CUDA's autocast where fake tensors have to be CPU tensors: a Swin takes a tenth more to train."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", None) in _IN_FP32:
            args = [_promoted(argument) for argument in args]
        return func(*args, **(kwargs or {}))


def _promoted(argument: Any) -> Any:
    is_half = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
    return argument.float() if is_half else argument
