"""Networks of microseconds, good and bad, for `module:function` names."""

from __future__ import annotations

import torch
from torch import nn


def convolution() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


class _Switches(nn.Module):
    def __init__(self, at: str) -> None:
        super().__init__()
        self.inner, self.at = convolution(), at
        if at == "build":
            self.switch()

    def switch(self) -> None:
        torch.set_float32_matmul_precision("medium")
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True, warn_only=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.at == "step" and not image.is_meta:
            self.switch()
        return self.inner(image)


def switches_when_built() -> nn.Module:
    return _Switches("build")


def switches_in_its_step() -> nn.Module:
    return _Switches("step")


def starts_at_zero() -> nn.Module:
    *body, last = convolution()
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    return nn.Sequential(*body, last)


class _FailsAt(nn.Module):
    """Works on small batches; from `batch` images on it raises."""

    def __init__(self, batch: int, error: Exception) -> None:
        super().__init__()
        self.inner = convolution()
        self.batch = batch
        self.error = error

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[0] >= self.batch:
            raise self.error
        return self.inner(image)


def runs_out_of_memory() -> nn.Module:
    return _FailsAt(4, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))


def runs_out_of_cpu_memory() -> nn.Module:
    return _FailsAt(4, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 1 TiB"))


def raises() -> nn.Module:
    return _FailsAt(4, ValueError("no such\nlayer"))


def without_weights() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


class _Breaks(nn.Module):
    """Prints half-way, which torch.compile cannot take into its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = torch.relu(image)
        print("half-way")
        return self.inner(image)


def breaks_the_graph() -> nn.Module:
    return _Breaks()


class _Looks(_Breaks):
    """Goes by the values of its input, which tensors without data have not."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image) if image.sum().item() > 0 else self.inner(-image)


def looks_at_values() -> nn.Module:
    return _Looks()


def reads_values_to_be_built() -> nn.Module:
    """As drop-path rates often are: `.item()` of a tensor, which one without data has not."""
    rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
    return nn.Sequential(convolution(), *(nn.Dropout(rate) for rate in rates))
