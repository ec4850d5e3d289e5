"""Predicts the peak memory of a step, at every batch size, without running it: from one probe with fake tensors.

At each moment of a step the live bytes are a constant (weights, gradients, momentum) and so many bytes per image. The
probe runs at a batch so large that no constant reaches it, which lets one division tell the two apart. Each moment is
then a line over the batch size, and the peak is the largest of the lines: piecewise linear, since small batches peak
where weights and gradients are alive and large ones where activations are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from archbench.analyze.cpu_workspace import convolution_workspace, no_workspace
from archbench.analyze.cuda_autocast import CudaAutocast
from archbench.analyze.dataless import copy_with, without_data
from archbench.analyze.live_bytes import Bytes, LiveBytes
from archbench.analyze.step import AUTOCAST, LEARNING_RATE, MOMENTUM, WHOLE_MODEL
from archbench.catalog.build import build, input_shape
from archbench.model.axes import DeviceKind, MemoryFormat, Phase, Precision
from archbench.model.cell import Cell, Network
from archbench.model.counts import MemoryLine, MemoryModel
from archbench.model.errors import UnfitError

_PROBE_BATCH = 2**30
"""More images than any weight has bytes, few enough for 32-bit sizes inside torch."""
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

    Raises `UsageError` where there is no such network, `UnfitError` where it cannot be built, or run its step, without
    data.
    """
    shape = input_shape(network, allow_code=allow_code)
    try:
        with without_data():
            module = build(network, allow_code=allow_code)
        return predict_module(module, shape, phase, precision, memory_format=memory_format, device=device)
    except Exception as error:  # the network's own code
        first_line = (str(error).splitlines() or [""])[0]
        raise UnfitError(
            f"{network.label}: memory cannot be predicted, its {phase} step needs data "
            f"({type(error).__name__}: {first_line}); measure it instead"
        ) from error


def predict_cell(cell: Cell, *, allow_code: bool = False) -> MemoryModel | None:
    """The memory model of a cell's network under its toggles, for any batch size; `None` where its step needs data.

    Raises `UsageError` where there is no such network.
    """
    try:
        return predict(
            cell.network,
            cell.phase,
            cell.precision,
            memory_format=cell.memory_format,
            device=cell.device,
            allow_code=allow_code,
        )
    except UnfitError:
        return None


def predict_module(
    module: nn.Module,
    shape: tuple[int, ...],
    phase: Phase,
    precision: Precision,
    *,
    memory_format: MemoryFormat = "contiguous",
    device: DeviceKind = "cpu",
) -> MemoryModel:
    """The same for a module that is already built, on whatever device; it is copied and left as it was."""
    step = FakeStep(module, shape, phase, precision, memory_format=memory_format, device=device)
    if step.largest_weight >= _PROBE_BATCH:
        raise ValueError(f"a weight of {step.largest_weight} bytes is more than the probe can tell from activations")
    lines = [MemoryLine(base_bytes=c, bytes_per_image=p) for c, p in set(step.timeline(_PROBE_BATCH, _PROBE_BATCH))]
    return MemoryModel(
        lines=upper_envelope(lines),
        weight_bytes=step.weight_bytes,
        input_bytes_per_image=step.input_bytes_per_image,
    )


class FakeStep:
    """One step of a network, as `archbench.measure` runs it, on fake tensors."""

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        phase: Phase,
        precision: Precision,
        *,
        memory_format: MemoryFormat = "contiguous",
        device: DeviceKind = "cpu",
    ) -> None:
        self._shape, self._phase, self._device = shape, phase, device
        self._dtype = WHOLE_MODEL.get(precision, torch.float32)
        self._autocast = AUTOCAST.get(precision)
        self._layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        self._fake = FakeTensorMode()
        with self._fake:
            self._module = copy_with(module, self._like).train(phase == "training")
            trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
            self._momentum = [torch.empty_like(parameter) for parameter in trained] if phase == "training" else []
        # The state after the first step: momentum exists, gradients do not.
        self._optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM, foreach=True)
        for parameter, buffer in zip(trained, self._momentum, strict=False):
            self._optimizer.state[parameter]["momentum_buffer"] = buffer
        self._weights: list[Tensor] = [*self._module.parameters(), *self._module.buffers()]
        sizes = [tensor.numel() * tensor.element_size() for tensor in self._weights]
        self.weight_bytes = sum(sizes)
        self.largest_weight = max(sizes, default=0)
        label = torch.int64.itemsize if phase == "training" else 0
        self.input_bytes_per_image = torch.Size(shape).numel() * self._dtype.itemsize + label

    def timeline(self, batch_size: int, unit: int) -> list[Bytes]:
        """Run the step; return what is alive at each of its moments, told apart by `unit` (see `LiveBytes`)."""
        workspace = convolution_workspace if self._device == "cpu" else no_workspace
        live = LiveBytes(unit, workspace, _GRANULE[self._device])
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
        with contextlib.ExitStack() as stack:
            if self._autocast:
                stack.enter_context(torch.autocast("cpu", self._autocast))
                if self._device == "cuda":
                    stack.enter_context(CudaAutocast())  # type: ignore[no-untyped-call]
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


def upper_envelope(lines: Iterable[MemoryLine]) -> tuple[MemoryLine, ...]:
    """Of `lines`, those that are the largest at some batch size from 1 on, by rising slope."""
    envelope: list[MemoryLine] = []
    for line in sorted(lines, key=lambda one: (one.bytes_per_image, one.base_bytes)):
        # This line is the steepest so far, so it wins from some batch size on. Whatever it overtakes before that line
        # itself has overtaken its predecessor is never the largest.
        while envelope and _overtakes(line, envelope[-1]) <= (
            _overtakes(envelope[-1], envelope[-2]) if len(envelope) > 1 else 1
        ):
            envelope.pop()
        envelope.append(line)
    return tuple(envelope)


def _overtakes(steep: MemoryLine, flat: MemoryLine) -> float:
    """Batch size from which `steep` is not below `flat`."""
    rise = steep.bytes_per_image - flat.bytes_per_image
    return (flat.base_bytes - steep.base_bytes) / rise if rise else 0.0
