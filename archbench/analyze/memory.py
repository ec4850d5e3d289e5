"""The peak memory of a step: predicted at every batch size without running it, and measured on the CPU.

The prediction is made from one probe with fake tensors. At each moment of a step the live bytes are a constant
(weights, gradients, momentum) and so many bytes per image. The probe runs at a batch so large that no constant reaches
it, which lets one division tell the two apart. Each moment is then a line over the batch size, and the peak is the
largest of the lines: piecewise linear, since small batches peak where weights and gradients are alive and large ones
where activations are.
"""

from __future__ import annotations

import contextlib
import gc
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.profiler import profile
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from archbench.analyze.counts import copy_with, without_data
from archbench.analyze.step import AUTOCAST, WHOLE_MODEL, loss_of, prepare_training, settled
from archbench.catalog.build import build, takes_of
from archbench.catalog.inputs import Batch, Taken, dtype_of, takes
from archbench.catalog.names import resolve
from archbench.catalog.roles import in_mode
from archbench.device.kind import kind_named
from archbench.model.cell import Cell, Input
from archbench.model.counts import MemoryLine, MemoryModel
from archbench.model.errors import UnfitError, first_line

_PROBE_BATCH = 2**30
"""More images than any weight has bytes, few enough for 32-bit sizes inside torch."""
_NO_BATCH = 2**62
"""Of which nothing has a byte an image: all of a step's bytes are told as they are."""
_LINEAR = 1.01
"""How far from the followed peak the model's may be."""

# "CUDA Ops that can autocast to float32" of torch's autocast reference, as far as networks use them in a forward pass
# or a loss. The CPU's list has none of these.
_IN_FP32 = frozenset(
    """
    __pow__ __rpow__ __rtruediv__ cdist cosine_similarity cross_entropy cumprod cumsum exp expm1 group_norm layer_norm
    log log1p log_softmax mse_loss nll_loss norm normalize pow prod reciprocal rsqrt softmax softmin softplus sum
    """.split()  # noqa: SIM905 - twenty-five lines as a list
)
_CONVOLUTION = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default
_BLOCK_OF = {"AVX512": 16}
"""Channels that oneDNN's blocked layouts hold together, by the vectors that the CPU has; 8 for shorter ones."""
MEMORY = "[memory]"
"""What the profiler calls an event of an allocator."""

Moments = tuple[tuple[int, ...], ...]
"""From moment to moment inside an operator, the bytes of everything that it holds beside its result."""
Bytes = tuple[int, int]
"""A number of bytes as (constant, per image)."""


def predict_cell(cell: Cell, *, allow_code: bool = False) -> MemoryModel:
    """Predict the memory of the eager step of a cell's network under its toggles, at any batch size.

    Raises `UsageError` where there is no such network, `UnfitError` where it cannot be built, or run its step, without
    data, and for a device of whose allocator too little is known.
    """
    network, device = cell.network, cell.device
    if kind_named(device).granule is None:
        raise UnfitError(f"{network.label}: memory is not predicted on {device}: how its allocator rounds is not known")
    given = takes_of(network, allow_code=allow_code)
    try:
        with without_data():
            module = build(network, allow_code=allow_code)
        source = resolve(network.name, allow_code=allow_code).source
        return predict_module(module, given, cell, seen={"user code": (2, 3), "timm": (3,)}.get(source, ()))
    except UnfitError as error:
        raise UnfitError(f"{network.label}: {error}; measure it instead") from error
    except Exception as error:  # the network's own code
        raise UnfitError(
            f"{network.label}: memory cannot be predicted, its {cell.phase} step needs data "
            f"({type(error).__name__}: {first_line(error)}); measure it instead"
        ) from error


def predict_module(module: nn.Module, given: Taken, cell: Cell, *, seen: Sequence[int] = ()) -> MemoryModel:
    """The same for a network that is already built, on whatever device; it is copied and left as it was.

    `seen`: batch sizes at which a step is followed first. Raises `UnfitError` where it runs other operators at each, as
    if it went through the batch image by image, of which the probe has a thousand million; and where the model, which
    is made of lines, gives another peak than it has.
    """
    step = FakeStep(module, given, cell)
    if step.largest_weight >= _PROBE_BATCH:
        raise ValueError(f"a weight of {step.largest_weight} bytes is more than the probe can tell from activations")
    followed, operators = dict[int, list[Bytes]](), set[int]()
    for batch in seen[:1]:
        step.timeline(batch, _NO_BATCH)  # what it makes at its first call and keeps is none of a step's
    for batch in seen:
        followed[batch] = step.timeline(batch, _NO_BATCH)
        operators.add(step.operators)
    if len(operators) > 1:
        raise UnfitError("its step runs other operators for each batch size, so no line over the batch is its memory")
    lines = [MemoryLine(base_bytes=c, bytes_per_image=p) for c, p in set(step.timeline(_PROBE_BATCH, _PROBE_BATCH))]
    model = MemoryModel(
        lines=upper_envelope(lines), weight_bytes=step.weight_bytes, input_bytes_per_image=step.input_bytes_per_image
    )
    for batch, timeline in followed.items():
        peak = max(size for size, _ in timeline)
        if not peak / _LINEAR <= model.peak_bytes(batch) <= peak * _LINEAR:
            raise UnfitError("its memory does not grow in proportion to the batch, so no line over the batch is it")
    return model


class FakeStep:
    """One step of a network, as `archbench.measure` runs it, on fake tensors."""

    def __init__(self, module: nn.Module, given: Taken, cell: Cell) -> None:
        self._given, self._phase, self._kind = takes(given), cell.phase, kind_named(cell.device)
        self._loss, self._labels = cell.network.loss, list[Tensor]()
        self._dtype = WHOLE_MODEL.get(cell.precision)
        self._autocast = AUTOCAST.get(cell.precision)
        self._layout = torch.channels_last if cell.memory_format == "channels_last" else torch.contiguous_format
        self._fake = FakeTensorMode()
        with self._fake:
            self._module = in_mode(copy_with(module, self._like), training=self._phase == "training")
            self._trained = prepare_training(self._module, cell.network) if self._phase == "training" else []
            # The state after the first step: momentum exists, gradients do not.
            moments = 2 if cell.network.optimizer == "adamw" else 1
            self._moments = [[torch.empty_like(one) for one in self._trained] for _ in range(moments)]
        self._weights: list[Tensor] = [*self._module.parameters(), *self._module.buffers()]
        sizes = [tensor.numel() * tensor.element_size() for tensor in self._weights]
        self.weight_bytes = sum(sizes)
        self.largest_weight = max(sizes, default=0)
        self.operators = 0
        """That ran in the last step followed."""
        label = torch.int64.itemsize if self._phase == "training" else 0
        batched = [one for one in self._given.inputs if one.batched]
        self.input_bytes_per_image = label + sum(math.prod(one.shape) * self._stored(one).itemsize for one in batched)

    def timeline(self, batch_size: int, unit: int) -> list[Bytes]:
        """Run the step; return what is alive at each of its moments, told apart by `unit` (see `LiveBytes`)."""
        self._labels.clear()
        live = LiveBytes(unit, self._kind.granule or 1, blocked_convolutions=self._kind.blocked_convolutions)
        with self._fake:
            batch = self._given.batch(batch_size, lambda one, shape: self._allocate(shape, self._stored(one)))
            labels = torch.zeros(batch_size, dtype=torch.int64)
            moments = [tensor for moment in self._moments for tensor in moment]
            ready = [*batch.tensors, *([labels] if self._phase == "training" else [])]
            live.hold([*self._weights, *moments, *ready])
            with live:
                if self._phase == "training":
                    self._train(batch, labels)
                else:
                    # Not inference mode: there operators arrive undecomposed, and what they hold inside stays unseen.
                    with torch.no_grad(), self._precision():
                        settled(batch(self._module))
        self.operators = live.operators
        return live.timeline

    def _train(self, batch: Batch, labels: Tensor) -> None:
        with self._precision():
            labels_for = partial(self._labels_for, labels)
            loss, _ = loss_of(settled(batch(self._module)), len(labels), labels_for, self._loss)
        if loss is None:
            raise UnfitError("nothing that the network returns depends on a weight")
        loss.backward()  # type: ignore[no-untyped-call]
        # What torch's optimizers allocate: SGD works in place; AdamW takes roots, of all weights at once on a GPU.
        if len(self._moments) > 1:
            at_once = [self._moments[1]] if self._kind.autocasts_as_cuda else [[one] for one in self._moments[1]]
            for squares in at_once:
                torch._foreach_sqrt(squares)
        for weight in self._trained:
            weight.grad = None

    def _labels_for(self, usual: Tensor, shape: tuple[int, ...], classes: int, dtype: torch.dtype) -> Tensor:
        """Those of one class an image, which lie ready; of anything larger new ones, which stay to the end."""
        if shape == tuple(usual.shape):
            return usual
        self._labels.append(torch.zeros(shape, dtype=dtype))
        return self._labels[-1]

    def _stored(self, one: Input) -> torch.dtype:
        dtype = dtype_of(one)
        return self._dtype or dtype if dtype.is_floating_point else dtype

    def _like(self, tensor: Tensor) -> Tensor:
        return self._allocate(tensor.shape, self._dtype or tensor.dtype if tensor.is_floating_point() else tensor.dtype)

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        layout = self._layout if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        # Always the CPU's autocast: fake tensors stand for CPU tensors, since backward on a fake CUDA device aborts.
        with contextlib.ExitStack() as stack:
            if self._autocast:
                stack.enter_context(torch.autocast("cpu", self._autocast))
                if self._kind.autocasts_as_cuda:
                    stack.enter_context(CudaAutocast())  # type: ignore[no-untyped-call]
            yield


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the bytes that are alive whenever an operator has allocated something.

    A storage counts from the operator that first returns it until nothing refers to it any more; autograd, which keeps
    what the backward pass needs, drops its references as it goes.

    The step must run at a batch size of `batch`, larger in bytes than any storage that does not grow with the batch.
    Dividing a storage's size by `batch` then gives its bytes per image, and the remainder its constant bytes.
    Allocations round up to `granule`; `blocked_convolutions` adds what oneDNN's hold inside.
    """

    def __init__(self, batch: int, granule: int, *, blocked_convolutions: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeline: list[Bytes] = []
        self.operators = 0
        """That ran, views included."""
        self._batch = batch
        self._blocked_convolutions = blocked_convolutions
        self._granule = granule
        self._constant = self._per_image = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive before the step begins."""
        for tensor in tensors:
            self._see(tensor)
        self.timeline.append((self._constant, self._per_image))

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        constant, per_image, known = self._constant, self._per_image, len(self._storages)
        out = func(*args, **(kwargs or {}))
        self.operators += 1
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        if len(self._storages) > known:
            self.timeline.append((self._constant, self._per_image))
        for moment in convolution_workspace(func, args, out) if self._blocked_convolutions else ():
            held = [self._size(size) for size in moment]
            self.timeline.append((constant + sum(c for c, _ in held), per_image + sum(p for _, p in held)))
        return out

    def _size(self, size: int) -> Bytes:
        per_image, constant = divmod(size, self._batch)
        return -(-constant // self._granule) * self._granule, per_image

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        constant, per_image = self._size(storage.nbytes())

        def gone(_: object) -> None:
            self._constant -= constant
            self._per_image -= per_image
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self._constant += constant
        self._per_image += per_image


def convolution_workspace(func: OpOverload, args: Any, out: Any) -> Moments:
    """What a convolution on the CPU holds from moment to moment, in bytes; nothing for any other operator.

    oneDNN computes in a blocked layout: it copies the operands into it, computes, and copies the result back, all
    through torch's allocator, whose memory events show it. With channels last only the weight is copied.
    """
    if func is _CONVOLUTION:
        image, weight = args[:2]
        blocked = _blocked(out)
        return (*_operand(image), weight.nbytes, *(blocked or (out.nbytes,))), (*blocked, out.nbytes)
    if func is _BACKWARD:
        gradient, image, weight = args[:3]
        for_image, for_weight = out[:2]
        moments: list[tuple[int, ...]] = []
        kept: tuple[int, ...] = ()
        if for_image is not None:
            blocked, kept = _blocked(for_image), (for_image.nbytes,)
            moments += [(*_operand(gradient), weight.nbytes, *(blocked or kept)), (*blocked, *kept)]
        if for_weight is not None:
            made = for_weight.nbytes
            moments += [(*kept, *_operand(image), *_operand(gradient), made), (*kept, made, made)]
        return tuple(moments)
    return ()


def _operand(feature_map: Tensor) -> tuple[int, ...]:
    """Bytes of the copy that is read in its place; nothing where it is read as it is, like an image's 3 channels."""
    return _blocked(feature_map) if feature_map.shape[1] >= _block() else ()


def _blocked(feature_map: Tensor) -> tuple[int, ...]:
    """Bytes of a blocked copy, its channels filled up to whole blocks; nothing where channels stand last."""
    if feature_map.is_contiguous(memory_format=torch.channels_last):
        return ()
    batch, channels, *area = feature_map.shape
    filled = -(-channels // _block()) * _block()
    return (batch * filled * math.prod(area) * feature_map.element_size(),)


@cache
def _block() -> int:
    capability = torch.backends.cpu.get_cpu_capability()
    return next((block for prefix, block in _BLOCK_OF.items() if capability.startswith(prefix)), 8)


class CudaAutocast(TorchFunctionMode):
    """Stands in for CUDA's autocast where fake tensors have to be CPU tensors: a Swin takes a tenth more to train."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", None) in _IN_FP32:
            halves = (torch.float16, torch.bfloat16)
            args = [one.float() if isinstance(one, Tensor) and one.dtype in halves else one for one in args]
        return func(*args, **(kwargs or {}))


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


def measured_peak(step: Callable[[], object], standing: int | None = None) -> int:
    """Run `step` twice and return the peak of live CPU tensor bytes during the second run, in bytes.

    What was alive before (weights, optimizer state, inputs) is included, as in CUDA's `max_memory_allocated`:
    `standing`, or, where that is not given, all that Python can reach. The figures are the allocator's own, from the
    profiler's memory events, so compiled and autocast steps count alike; a dispatch mode would make torch run a
    compiled step eagerly. Expect `step` to have run before, else what it keeps from its first call is counted as
    belonging to the second.

    Cost: two steps, a few microseconds an operator, and a walk over all Python objects (about 0.1 s).
    """
    memory_events(step)  # for the allocator's reporter: a block that it has not seen allocated it cannot see freed
    gc.collect()
    standing = _standing_bytes() if standing is None else standing
    changes: list[int] = [event.nbytes() for event in memory_events(step) if event.name() == MEMORY]
    return standing + max(accumulate(changes, initial=0))


def memory_events(step: Callable[[], object]) -> list[Any]:
    """Run `step` and return its profiler events in order of their start; those called `MEMORY` are the CPU allocator's.

    Their `nbytes()` is positive where bytes were allocated and negative where they were freed.
    `torch.profiler.profile` would do too, but it imports torch's compiler first, which takes four seconds.
    """
    with profile(use_kineto=True, profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.kineto_results.events() if e.name() != MEMORY or e.device_type().name == "CPU"]
    return sorted(events, key=lambda event: event.start_ns())


def _standing_bytes() -> int:
    """Bytes of all CPU storages that Python can reach through a tensor, each once."""
    # type() and not isinstance(): lazy proxies answer isinstance() by doing things.
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
    # A fake tensor says that it lies on the CPU; its storage does not.
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages if storage.device.type == "cpu"}.values())
