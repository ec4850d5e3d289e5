"""Predicts the peak memory of a step without running it: two probes with fake tensors give every batch size.

At each operator of a step the live bytes grow linearly with the batch, whatever is live there. Two probes at
different batch sizes therefore give one line per operator, and the peak at any batch size is the largest of the lines:
piecewise linear, since small batches peak where weights and gradients are alive and large ones where activations are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from archbench.analyze.cpu_workspace import convolution_workspace, no_workspace
from archbench.analyze.dataless import copy_with
from archbench.analyze.figures import MemoryLine, MemoryModel
from archbench.analyze.live_bytes import LiveBytes
from archbench.catalog.build import build, input_shape
from archbench.model.axes import DeviceKind, MemoryFormat, Phase, Precision
from archbench.model.cell import Network
from archbench.model.errors import UnfitError

_PROBES = (2, 4)
"""Batch sizes of the probes. Not 1: batch normalisation cannot train on one value per channel."""
_AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
_STORED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_GRANULE = {"cpu": 1, "cuda": 512}
"""What an allocation rounds up to. CUDA: kMinBlockSize of torch's caching allocator."""


def predict(
    network: Network,
    phase: Phase,
    precision: Precision,
    *,
    memory_format: MemoryFormat = "contiguous",
    device: DeviceKind = "cpu",
    allow_code: bool = False,
) -> MemoryModel:
    """Predict the memory of `network`'s step, eager, under the given toggles.

    Raises `UsageError` where the network cannot be built, `UnfitError` where its step cannot run without data.
    """
    with torch.device("meta"):
        module = build(network, allow_code=allow_code)
    try:
        return predict_module(module, input_shape(network, allow_code=allow_code), phase, precision, memory_format, device)
    except Exception as error:  # the network's own code
        first_line = (str(error).splitlines() or [""])[0]
        raise UnfitError(
            f"{network.label}: memory cannot be predicted, its {phase} step needs data "
            f"({type(error).__name__}: {first_line}); measure it instead"
        ) from error


def predict_module(
    module: nn.Module,
    shape: tuple[int, ...],
    phase: Phase,
    precision: Precision,
    memory_format: MemoryFormat = "contiguous",
    device: DeviceKind = "cpu",
) -> MemoryModel:
    """The same for a module that is already built, on whatever device; it is copied and left as it was."""
    step = _FakeStep(module, shape, phase, precision, memory_format, device)
    small, large = (step.timeline(batch_size) for batch_size in _PROBES)
    one_line = len(small) != len(large)
    if one_line:
        small, large = [max(small)], [max(large)]
    dtype = _STORED.get(precision, torch.float32)
    return MemoryModel(
        lines=_upper_envelope([_line_through(a, b) for a, b in zip(small, large, strict=True)]),
        weight_bytes=step.weight_bytes,
        input_bytes_per_image=torch.Size(shape).numel() * dtype.itemsize,
        labels_bytes_per_image=torch.int64.itemsize if phase == "training" else 0,
        one_line=one_line,
    )


class _FakeStep:
    """One step of a network, as `archbench.measure` runs it, on fake tensors."""

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        phase: Phase,
        precision: Precision,
        memory_format: MemoryFormat,
        device: DeviceKind,
    ) -> None:
        self._shape, self._phase, self._device = shape, phase, device
        self._dtype = _STORED.get(precision, torch.float32)
        self._autocast = _AUTOCAST.get(precision)
        self._layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        self._fake = FakeTensorMode()
        with self._fake:
            self._module = copy_with(module, self._like).train(phase == "training")
            trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
            self._momentum = [torch.empty_like(parameter) for parameter in trained] if phase == "training" else []
        # The state after the first step: momentum exists, gradients do not.
        self._optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, foreach=True)
        for parameter, buffer in zip(trained, self._momentum, strict=False):
            self._optimizer.state[parameter]["momentum_buffer"] = buffer
        self._weights: list[Tensor] = [*self._module.parameters(), *self._module.buffers()]
        self.weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in self._weights)

    def timeline(self, batch_size: int) -> list[int]:
        """Run the step; return the live bytes at each of its operators."""
        workspace = convolution_workspace if self._device == "cpu" else no_workspace
        live = LiveBytes(workspace, _GRANULE[self._device])
        with self._fake:
            image = self._allocate((batch_size, *self._shape), self._dtype)
            labels = torch.zeros(batch_size, dtype=torch.int64)
            live.hold([*self._weights, *self._momentum, image, *([labels] if self._phase == "training" else [])])
            with live:
                if self._phase == "training":
                    self._train(image, labels)
                else:
                    self._infer(image)
        return live.timeline

    def _infer(self, image: Tensor) -> None:
        # Not inference mode: under it operators arrive here undecomposed, and what they hold inside stays unseen.
        with torch.no_grad(), self._precision():
            self._module(image)

    def _train(self, image: Tensor, labels: Tensor) -> None:
        with self._precision():
            loss = _loss(self._module(image), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _like(self, tensor: Tensor) -> Tensor:
        return self._allocate(tensor.shape, self._dtype if tensor.is_floating_point() else tensor.dtype)

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        layout = self._layout if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        # Always the CPU's autocast: fake tensors stand for CPU tensors, since backward on a fake CUDA device aborts.
        with torch.autocast("cpu", self._autocast) if self._autocast else contextlib.nullcontext():
            yield


def _loss(output: object, labels: Tensor) -> Tensor:
    """Cross-entropy of each classifier output, mean square of anything else, summed."""
    if isinstance(output, Tensor):
        if output.dim() == 2:
            return nn.functional.cross_entropy(output, labels)
        return output.float().square().mean()
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    losses = [_loss(part, labels) for part in parts]
    if not losses:
        raise TypeError(f"the network returned {type(output).__name__}, in which there is no tensor")
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _line_through(small: int, large: int) -> MemoryLine:
    first, second = _PROBES
    slope = (large - small) / (second - first)
    return MemoryLine(base_bytes=small - slope * first, bytes_per_image=slope)


def _upper_envelope(lines: list[MemoryLine]) -> tuple[MemoryLine, ...]:
    """Of `lines`, those that are the largest at some batch size from 1 on."""
    envelope: list[MemoryLine] = []
    for line in sorted(set(lines), key=lambda one: (one.bytes_per_image, one.base_bytes)):
        # A line with a steeper slope takes over from some batch size on; whatever it beats at once goes.
        while envelope and _takes_over(envelope[-1], line) <= (
            _takes_over(envelope[-2], envelope[-1]) if len(envelope) > 1 else 1.0
        ):
            envelope.pop()
        envelope.append(line)
    return tuple(envelope)


def _takes_over(flat: MemoryLine, steep: MemoryLine) -> float:
    """Batch size from which `steep` is above `flat`."""
    rise = steep.bytes_per_image - flat.bytes_per_image
    drop = flat.base_bytes - steep.base_bytes
    return drop / rise if rise else (-1.0 if drop <= 0 else float("inf"))
