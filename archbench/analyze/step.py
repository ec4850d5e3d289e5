"""What a precision and the optimizer of a training step are to torch: the same measured, predicted and traced."""

from __future__ import annotations

import torch

AUTOCAST: dict[str, torch.dtype] = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
"""Precisions that choose a type for each operator; weights stay fp32."""
WHOLE_MODEL: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions in which weights and inputs themselves are stored."""
LEARNING_RATE = 1e-4
"""Small, so that weights stay finite over thousands of steps on random labels; no step's cost depends on it."""
MOMENTUM = 0.9
