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


class _Waves(nn.Module):
    """Complex weights, as Fourier operators have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.last = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 8, dtype=torch.cfloat), nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.fft(self.stem(image).mean((2, 3)))
        return self.last(self.mix(waves).imag)


def with_complex_weights() -> nn.Module:
    return _Waves()


class _Exact(nn.Module):
    """A table of fp64 beside weights of fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution()
        self.register_buffer("table", torch.linspace(0, 1, 10, dtype=torch.float64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image).double() @ torch.outer(self.table, self.table)  # type: ignore[arg-type]


def with_a_table_of_fp64() -> nn.Module:
    return _Exact()


def in_half_precision() -> nn.Module:
    return convolution().bfloat16()


def exported() -> nn.Module:
    """What `torch.export` gives has no `train` and no `eval`."""
    with torch.device("cpu"):
        program = torch.export.export(
            convolution().eval(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("n")},)
        )
    return program.module()


class _Forgetful(nn.Module):
    """`train` without `return self`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution()

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.inner[1].eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image)


def forgets_itself() -> nn.Module:
    return _Forgetful()
