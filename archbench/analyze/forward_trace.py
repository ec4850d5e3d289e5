"""Watches one forward pass: MACs, activations, depth, parameters in use, arithmetic left out; and its stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from archbench.analyze.operators import foreseen, formula_of, without_sum
from archbench.analyze.step import shape_of
from archbench.catalog.inputs import tensors_in
from archbench.model.counts import Stage, may_hold_products

_ATEN = torch.ops.aten
_ATTENTION = _ATEN.scaled_dot_product_attention

# Operators that make, copy, pick or blank data, in-place spellings included. An operator that only returns views of
# its inputs needs no place here. Any other one without MACs is arithmetic left out of the count.
_DATA_MOVES = frozenset(
    """
    _to_copy bernoulli cat channel_shuffle clone concat concatenate constant_pad_nd contiguous copy dropout embedding
    feature_dropout fill flatten flip gather im2col index index_put index_select masked_fill native_channel_shuffle
    native_dropout normal one_hot pad pixel_shuffle pixel_unshuffle random reflection_pad2d repeat repeat_interleave
    replication_pad2d reshape roll scatter select_scatter slice_scatter stack tile to tril triu unfold uniform
    upsample_nearest2d where zero
    """.split()  # noqa: SIM905 - a hundred lines as a list
)


class ForwardTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the image through the operators that run, in inference mode, while this mode is active.

    Inference mode matters: there the operators arrive as they were called (`linear`, `scaled_dot_product_attention`)
    and not yet decomposed. Each storage that depends on the image carries the number of weight layers on the longest
    path to it. Storages are the unit, not tensors: views and in-place operators need no rule of their own that way.
    Each storage seen is kept until the trace is dropped, so that one address means one storage; on meta tensors that
    costs nothing.
    """

    def __init__(self, module: nn.Module, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.activations = 0
        self.uncounted: Counter[str] = Counter()
        self._counter = FlopCounterMode(display=False)
        self._depth: dict[int, int] = {}
        self._learned: set[int] = set()
        self._used: set[int] = set()
        self._kept: list[torch.UntypedStorage] = []
        self._depth.update((self._key(tensor), 0) for tensor in inputs)
        self._parameters = {self._key(parameter): parameter for parameter in module.parameters()}
        self.hidden: dict[int, nn.Parameter] = {}
        """Parameters that operators use and the module does not have: of layers in a plain list, mostly."""
        self._learned.update(self._parameters)

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs or {})
        if (known := foreseen(func, args, kwargs)) is not None:
            out, macs = known
        elif torch.Tag.pointwise in func.tags or func.is_view or _name(func) in _DATA_MOVES:
            out, macs = func(*args, **(kwargs or {})), 0
        elif (formula := formula_of(str(func.overloadpacket), args)) is not None:
            out = func(*args, **(kwargs or {}))
            macs = formula(args, out)
        elif any(tensor.is_nested for tensor in tensors_in(args)):  # which torch's counter does not take
            out, macs = func(*args, **(kwargs or {})), 0
        else:
            # Entered for this operator alone, the counter needs not follow modules, which takes longer than counting.
            with self._counter:
                out = func(*args, **(kwargs or {}))
            macs = self._counter.get_total_flops() // 2 or without_sum(str(func.overloadpacket), args, out)
        self.macs += macs
        # Attention multiplies data with data, and where it is fused it writes no more than its result.
        is_layer = macs > 0 and func.overloadpacket is not _ATTENTION
        if is_layer:
            self.activations += sum(tensor.numel() for tensor in tensors_in(out))
        elif macs == 0 and _is_arithmetic(func, (args, kwargs), out):
            self.uncounted[str(func.overloadpacket)] += 1
        self._follow((args, kwargs), out, may_be_weight_layer=is_layer)
        return out

    def _higher_order(self, func: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
        """Those that take functions: of a choice what is chosen, attention by torch's formula, all else is left out."""
        if func is torch.ops.higher_order.cond:
            with self:
                return args[1 if args[0] else 2](*args[3])
        out = func(*args, **kwargs)
        formula = flop_registry.get(func)
        if formula is None:
            self.uncounted[str(func)] += 1
        else:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        self._follow((args, kwargs), out, may_be_weight_layer=False)
        return out

    @property
    def is_whole(self) -> bool:
        """Whether no operator that may hold products was left out."""
        return not any(map(may_hold_products, self.uncounted))

    def depth_of(self, output: Any) -> int:
        """Weight layers on the longest path to any tensor in `output` (of the whole pass, if it holds none)."""
        depths = [self._depth.get(self._key(tensor), 0) for tensor in tensors_in(output)]
        return max(depths) if depths else max(self._depth.values())

    def idle_parameters(self) -> list[nn.Parameter]:
        """The module's parameters that no operator has touched."""
        return [parameter for key, parameter in self._parameters.items() if key not in self._used]

    def _follow(self, inputs: Any, out: Any, *, may_be_weight_layer: bool) -> None:
        sources = set[int]()
        for tensor in tensors_in(inputs):
            sources.add(key := self._key(tensor))
            if type(tensor) is nn.Parameter and key not in self._parameters:
                self.hidden[key] = tensor
                self._learned.add(key)
        self._used |= sources
        learned = not sources.isdisjoint(self._learned)
        depth = max((self._depth[key] for key in sources if key in self._depth), default=None)
        for tensor in tensors_in(out):
            key = self._key(tensor)
            if depth is not None:
                self._depth[key] = max(self._depth.get(key, 0), depth + (may_be_weight_layer and learned))
                self._learned.discard(key)
            elif learned:
                self._learned.add(key)

    def _key(self, tensor: Tensor) -> int:
        if tensor.layout != torch.strided:  # sparse: no storage of its own
            return id(tensor)
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if key not in self._depth and key not in self._learned:
            self._kept.append(storage)
        return key


def _is_arithmetic(func: OpOverload, inputs: Any, out: Any) -> bool:
    """Whether `func` computes real numbers: not a move of data, not bookkeeping with indices and masks."""
    name = func.overloadpacket.__name__
    made = [tensor for tensor in tensors_in(out) if tensor.layout != torch.strided or tensor.numel()]
    real = any(tensor.is_floating_point() or tensor.is_complex() for tensor in made)
    if _name(func) in _DATA_MOVES or not made or not (real or may_hold_products(str(func.overloadpacket))):
        return False
    if any(tensor.layout != torch.strided for tensor in tensors_in((inputs, out))):
        return True
    read = {tensor.untyped_storage()._cdata for tensor in tensors_in(inputs)}
    makes_new = any(tensor.untyped_storage()._cdata not in read for tensor in made)
    return bool(read) and not name.startswith("new_") and not name.endswith("_like") and (makes_new or name[-1] == "_")


def _name(func: OpOverload) -> str:
    """The operator's name, the same in place and out of place."""
    name: str = func.overloadpacket.__name__
    return name.rstrip("_")


# A Sequential that works at this many resolutions or more is a trunk (VGG's or MobileNet's `features`): its children
# are the stages. With fewer it is itself a stage (ResNet's `layer3`) or a head.
_TRUNK_RESOLUTIONS = 3


class StageRecorder:
    """Records output shape and MACs of the top two levels of a module while it is active."""

    def __init__(self, module: nn.Module, macs_so_far: Callable[[], int]) -> None:
        self._module = module
        self._macs_so_far = macs_so_far
        self._stages: dict[str, Stage] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> StageRecorder:
        for name, child in self._module.named_children():
            self._watch(name, child)
            if isinstance(child, _CONTAINERS):
                for inner, grandchild in child.named_children():
                    self._watch(f"{name}.{inner}", grandchild)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hooks.close()

    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which the forward pass finished them; lone activations and norms are left out."""
        opened = {name for name, child in self._module.named_children() if self._is_trunk(name, child)}
        chosen: list[Stage] = []
        for name, stage in self._stages.items():
            if name in opened or ("." in name and name.partition(".")[0] not in opened):
                continue
            if stage.macs or not chosen or stage.output_shape != chosen[-1].output_shape:
                chosen.append(stage)
        return tuple(chosen)

    def _watch(self, name: str, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return  # takes no hooks
        macs_before = 0

        def before(*_: object) -> None:
            nonlocal macs_before
            macs_before = self._macs_so_far()

        def after(_module: nn.Module, _inputs: object, output: object) -> None:
            earlier = self._stages.get(name)
            self._stages[name] = Stage(
                name=name,
                kind=type(module).__name__,
                output_shape=shape_of(output),
                params=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
                macs=self._macs_so_far() - macs_before + (earlier.macs if earlier else 0),
            )

        self._hooks.enter_context(module.register_forward_pre_hook(before))
        self._hooks.enter_context(module.register_forward_hook(after))

    def _is_trunk(self, name: str, child: nn.Module) -> bool:
        """Whether the children of `child` are the stages; a list or dictionary of modules is never called itself."""
        if not isinstance(child, nn.Sequential):
            return isinstance(child, _CONTAINERS)
        inside = [self._stages.get(f"{name}.{inner}") for inner, _ in child.named_children()]
        return len({_resolution(stage) for stage in inside if stage} - {None}) >= _TRUNK_RESOLUTIONS


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _resolution(stage: Stage) -> tuple[int, int] | None:
    """Height and width of a feature map, channels first or (Swin) last; `None` for anything else."""
    shape = stage.output_shape
    if shape is None or len(shape) != 3:
        return None
    return (shape[1], shape[2]) if shape[1] == shape[2] else (shape[0], shape[1])
