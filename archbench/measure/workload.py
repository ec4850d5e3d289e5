"""One cell made real: the module, its inputs and the step that is timed, with every toggle applied and read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from archbench.analyze.step import (
    AUTOCAST,
    WHOLE_MODEL,
    cast,
    figures_in,
    loss_of,
    optimizer_for,
    prepare_training,
    settled,
)
from archbench.catalog.inputs import Batch, Taken, Takes, takes, tensors_in
from archbench.catalog.roles import in_mode
from archbench.device.kind import kind_of
from archbench.measure import compiler
from archbench.measure.runtimes import Engine, Prepared
from archbench.measure.state import Applied, flushes_denormals, host_allocator, step_contexts
from archbench.model.cell import Cell
from archbench.model.errors import UnsupportedError, words_of


class Workload:
    """A cell's step, ready to be called any number of times.

    Inference: forward under inference mode. Training: forward, loss, backward, SGD with momentum; gradients are
    dropped, not zeroed; with amp-fp16 the loss is scaled. Inputs come from a ring of seeded random batches, labels
    from a ring of seeded classes.
    """

    def __init__(
        self,
        cell: Cell,
        module: nn.Module,
        given: Taken,
        device: torch.device,
        *,
        ring: int,
        seed: int,
        inputs: Sequence[Batch] | None = None,
        artifacts: Path | None = None,
        calibration: Callable[[], list[Tensor]] | None = None,
    ) -> None:
        """Take over `module`: it is moved, cast and formatted in place. `given`: what it takes, or one
        input's shape.

        `inputs`, whole batches, are used in turn in place of a ring of random ones. A converted cell needs both
        `artifacts`, where its runtime keeps what it makes of the network, and `calibration`, which gives the batches
        from which a quantiser takes ranges.
        """
        self.cell = cell
        self.device = device
        self._seed = seed
        self._contexts = step_contexts(device, cell.phase, cell.precision)
        self._takes_gradients = False
        self.module = self._prepare(module)
        ring_of = _input_ring(cell, takes(given), ring, seed, device) if inputs is None else inputs
        self.inputs = [batch.map(lambda tensor: _placed(tensor, cell, device)) for batch in ring_of]
        self.trained_on: str | None = None
        """What a training step minimises, in words, once it has."""
        self._turn = cycle(range(len(self.inputs)))
        self._labels: dict[tuple[tuple[int, ...], int], list[Tensor]] = {}
        self._forward: Callable[..., Any] = self.module
        self._prepared: Prepared | None = None
        if cell.is_converted:
            assert artifacts is not None, "a converted cell has a place for its artifact"
            assert calibration is not None, "a converted cell has images to be calibrated by"
            self._forward = self._prepared = Prepared(
                cell, self.module, threads=torch.get_num_threads(), artifacts=artifacts, calibration=calibration
            )
        elif cell.compile_mode != "off":
            self._forward = compiler.compile_module(self.module, cell.compile_mode)
        self.records_graphs = cell.compile_mode in compiler.CUDA_GRAPH_MODES and kind_of(device).records_graphs
        """Whether the second step records CUDA graphs, for all further ones to replay."""
        if cell.phase == "training":
            self._prepare_training()

    def step(self) -> object:
        """Do one step of the cell's phase; asynchronous where the device is."""
        return self._train() if self.cell.phase == "training" else self._infer()

    def _prepare(self, module: nn.Module) -> nn.Module:
        cell = self.cell
        in_mode(module, training=cell.phase == "training")
        cast(module.to(self.device), WHOLE_MODEL.get(cell.precision))
        if cell.memory_format == "channels_last":
            if all(weight.dim() != 4 for weight in module.parameters()):
                raise UnsupportedError("channels_last needs convolution weights, and this network has none")
            module.to(memory_format=torch.channels_last)
        if cell.phase == "training":  # before it is compiled: what is frozen is none of the graph's gradients
            self._trained = prepare_training(module, cell.network)
        return module

    def _prepare_training(self) -> None:
        self._optimizer = optimizer_for(self.cell.network, self._trained)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.cell.precision == "amp-fp16")

    def _infer(self) -> object:
        if self.records_graphs:
            compiler.mark_step()
        with self._contexts():
            try:
                return settled(self.inputs[next(self._turn)](self._forward))
            except RuntimeError as error:
                if self._takes_gradients or "grad" not in words_of(error).lower():
                    raise
        # A forward pass that takes gradients itself: forces of an energy, a gradient penalty.
        self._takes_gradients = True
        self._contexts = step_contexts(self.device, self.cell.phase, self.cell.precision, takes_gradients=True)
        return self._infer()

    def _train(self) -> object:
        loss = self.loss()
        self.backward(loss)
        self.update()
        return loss

    def loss(self) -> Tensor:
        """The first third of a training step: the forward pass and the loss, on the next batch of the ring."""
        if self.records_graphs:
            compiler.mark_step()
        turn = next(self._turn)
        with self._contexts():
            output = settled(self.inputs[turn](self._forward))
            loss, self.trained_on = loss_of(
                output, self.cell.batch_size, lambda *what: self._labels_for(*what)[turn], self.cell.network.loss
            )
        if loss is None:
            raise UnsupportedError(
                "nothing that the network returns depends on a weight, so there is no loss to train on"
            )
        return loss

    def backward(self, loss: Tensor) -> None:
        """The second third: gradients of all weights."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """The last third: the optimizer's step; gradients are dropped."""
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _labels_for(self, shape: tuple[int, ...], classes: int, dtype: torch.dtype) -> list[Tensor]:
        """The ring of labels below so many classes; made in the first step, which is kept out of every figure."""
        if (shape, classes) not in self._labels:
            generator = torch.Generator().manual_seed(self._seed)
            self._labels[shape, classes] = [
                torch.randint(0, classes, shape, generator=generator).to(self.device, dtype) for _ in self.inputs
            ]
        return self._labels[shape, classes]

    def ready(self) -> list[tuple[str, Tensor]]:
        """What lies ready for the next steps: images, and in training labels, once the first step has made them."""
        labels = [tensor for ring in self._labels.values() for tensor in ring]
        return [("input", tensor) for tensor in self.input_tensors] + [("labels", tensor) for tensor in labels]

    def optimizer_state(self) -> list[tuple[str, Tensor]]:
        """What the optimizer keeps between steps, under its parameter's name; nothing at inference."""
        if self.cell.phase != "training":
            return []
        state = self._optimizer.state
        kept = ((name, state.get(weight, {})) for name, weight in self.module.named_parameters())
        return [(name, thing) for name, things in kept for thing in things.values() if isinstance(thing, Tensor)]

    @property
    def input_tensors(self) -> list[Tensor]:
        """All tensors that the steps are given."""
        return [tensor for batch in self.inputs for tensor in batch.tensors]

    def unrecorded(self) -> AbstractContextManager[None]:
        """A context of inference in which this network works, whatever the precision."""
        return torch.no_grad() if self._takes_gradients else torch.inference_mode()

    def output(self, batch: Batch, *, eager: bool = False) -> list[Tensor]:
        """Run the cell's own forward pass on a batch of its shape and return what `figures_in` finds.

        `eager`: that of the network itself, at the same precision.
        """
        placed = batch.map(lambda tensor: _placed(tensor, self.cell, self.device))
        with self._contexts():
            if self.records_graphs and not eager:
                compiler.mark_step()
            return [tensor.clone() for tensor in figures_in(placed(self.module if eager else self._forward))]

    def applied(self) -> Applied:
        """Read the state back from torch inside the very contexts of the timed step."""
        with self._contexts():
            grad_mode = (
                "inference" if torch.is_inference_mode_enabled() else ("grad" if torch.is_grad_enabled() else "no_grad")
            )
            autocast = torch.is_autocast_enabled(self.device.type)
            autocast_dtype = _name(torch.get_autocast_dtype(self.device.type)) if autocast else None
        weights = Counter[str]()
        for weight in self.module.parameters():
            weights[_name(weight.dtype)] += weight.numel() * weight.is_floating_point()
        allocator = kind_of(self.device).allocator(self.device)
        return Applied(
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn_tf32=torch.backends.cudnn.allow_tf32,
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cudnn_benchmark_limit=torch.backends.cudnn.benchmark_limit,
            cudnn_deterministic=torch.backends.cudnn.deterministic,
            threads=torch.get_num_threads(),
            interop_threads=torch.get_num_interop_threads(),
            flush_denormals=flushes_denormals(),
            grad_mode=grad_mode,
            autocast_dtype=autocast_dtype,
            weight_dtype=weights.most_common(1)[0][0] if weights.total() else "none",
            model_format=_format_of([weight for weight in self.module.parameters() if weight.dim() == 4]),
            input_format=_format_of([tensor for tensor in self.input_tensors if tensor.dim() == 4]),
            training_modules=sum(module.training for module in self.module.modules()),
            seed=self._seed,
            allocator=host_allocator() if allocator is None else allocator.backend,
            runtime=None if self.engine is None else self.engine.told,
        )

    @property
    def engine(self) -> Engine | None:
        """What the cell's runtime made of the network; `None` for torch, and before the first step."""
        return None if self._prepared is None else self._prepared.engine

    def require(self, applied: Applied) -> None:
        """Raise `UnsupportedError` where what torch reports is not what the cell asks for."""
        cell = self.cell
        autocast = AUTOCAST.get(cell.precision)
        weights = WHOLE_MODEL.get(cell.precision, torch.float32)
        wanted = torch.channels_last if cell.memory_format == "channels_last" else torch.contiguous_format
        images = [t for t in (*self.module.parameters(), *self.input_tensors) if t.dim() == 4]
        for what, holds in (
            ("modules stay in training mode", cell.phase == "training" or applied.training_modules == 0),
            (
                "the gradient mode is another",
                applied.grad_mode
                == ("grad" if cell.phase == "training" else "no_grad" if self._takes_gradients else "inference"),
            ),
            ("autocast runs in another dtype", applied.autocast_dtype == (_name(autocast) if autocast else None)),
            (
                f"the network makes its weights {applied.weight_dtype}; measure it at that precision",
                applied.weight_dtype in (_name(weights), "none"),
            ),
            ("TF32 is set otherwise", applied.cudnn_tf32 == (cell.precision == "tf32")),
            (
                "products are of another precision",
                applied.matmul_precision == ("high" if cell.precision == "tf32" else "highest"),
            ),
            ("the memory format is another", all(t.is_contiguous(memory_format=wanted) for t in images)),
        ):
            if not holds:
                raise UnsupportedError(f"the cell's toggles could not be applied: {what}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _input_ring(cell: Cell, given: Takes, ring: int, seed: int, device: torch.device) -> list[Batch]:
    """Drawn on the device itself: to draw a large batch on the CPU and copy it takes a GPU's cell a second."""
    torch.manual_seed(seed)
    return [given.drawn(cell.batch_size, device) for _ in range(ring)]


def _placed(tensor: Tensor, cell: Cell, device: torch.device) -> Tensor:
    """An input on the device, in the cell's dtype (indices stay whole numbers) and memory format."""
    dtype = WHOLE_MODEL.get(cell.precision) if tensor.is_floating_point() else None
    tensor = tensor.detach().to(device, dtype or tensor.dtype)
    if tensor.dim() != 4:
        return tensor
    wanted = torch.channels_last if cell.memory_format == "channels_last" else torch.contiguous_format
    return tensor.contiguous(memory_format=wanted)


def first_tensor(output: object) -> Tensor:
    """The first tensor in whatever a network returns. Raises `UnsupportedError` where there is none."""
    found = next(tensors_in(output), None)
    if found is None:
        raise UnsupportedError(f"the network's forward returned {type(output).__name__}, in which there is no tensor")
    return found


def _format_of(tensors: list[Tensor]) -> str:
    """The memory format that all 4-d tensors have in common. 1x1 kernels fit both, so the plain one is asked last."""
    if not tensors:
        return "none"
    plain = [tensor.is_contiguous() for tensor in tensors]
    if all(plain):
        return "contiguous"
    return "channels_last" if all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors) else "mixed"
