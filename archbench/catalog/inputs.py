"""What a network takes, made of tensors: said by a suite, by the network's own code, or an image where nobody says.

Needs torch; for the worker, and for whoever counts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn

from archbench.model.cell import Input, sides_of, text_of
from archbench.model.errors import UsageError, in_one_line

SAID_BY = ("example_inputs", "example_input_array", "dummy_inputs")
"""Names under which a network's code says what it takes: archbench's, Lightning's, transformers'."""
_PROBED = 5
"""Samples of the example that is looked at: an axis as long as that is the batch's."""

_CALLER = "the caller"

Make = Callable[[Input, tuple[int, ...]], Tensor]


class Batch(Struct, frozen=True):
    """The arguments of one call of a network."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any] = {}

    def __call__(self, forward: Callable[..., Any]) -> Any:
        """What `forward` returns for it."""
        return forward(*self.positional, **self.named)

    @property
    def tensors(self) -> list[Tensor]:
        return _leaves((self.positional, self.named), Tensor)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        return Batch(*_mapped((self.positional, self.named), Tensor, change))


class Takes(Struct, frozen=True, kw_only=True):
    """What a network takes: arguments whose tensors are described, in whatever lists and dictionaries they stand."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any] = {}
    example: Callable[[int], object] | None = None
    """Gives the tensors of so many samples, where the network's own code does."""
    by: str = ""
    """Who says so; empty: nobody, an image is tried."""

    @property
    def inputs(self) -> list[Input]:
        """Every tensor described, in order."""
        return _leaves((self.positional, self.named), Input)

    @property
    def image(self) -> tuple[int, ...] | None:
        """Channels, height and width, where it is one image and nothing else; `None` otherwise."""
        one = self.inputs[0] if len(self.inputs) == 1 else Input()
        plain = one == Input(shape=one.shape) and len(one.shape) == 3 and self.positional == (one,)
        return one.shape if plain else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input, without its batch axis."""
        return next((one.shape for one in self.inputs), ())

    @property
    def text(self) -> str | None:
        """In one word; `None` for one square image, which goes without saying."""
        image = self.image
        return None if image is not None and image[1] == image[2] else text_of(self.inputs)

    def batch(self, size: int, make: Make) -> Batch:
        """`size` samples, each tensor made from its description and its whole shape."""

        def made(one: Input) -> Tensor:
            return make(one, (size, *one.shape) if one.batched else one.shape)

        return Batch(*_mapped((self.positional, self.named), Input, made))

    def drawn(self, size: int, device: torch.device | None, generator: torch.Generator | None = None) -> Batch:
        """Random values, of torch's generator; those of the network's own example, where it has one."""
        if self.example is not None:
            with torch.device("cpu"):
                batch = _as_batch(self.example(size), self)
            return batch if device is None else batch.map(lambda tensor: tensor.to(device))
        return self.batch(size, lambda one, shape: _draw(one, shape, device, generator))

    def blank(self, size: int, device: torch.device) -> Batch:
        """The smallest legal values; without data on the meta device."""
        return self.batch(size, lambda one, shape: torch.full(shape, one.low or 0, dtype=dtype_of(one), device=device))


Taken = Takes | Sequence[int]
"""A bare shape is one tensor of it, without its batch axis."""


def takes(what: Taken) -> Takes:
    """What a network takes, of a bare shape one positional tensor of float32 that the caller named."""
    return what if isinstance(what, Takes) else Takes(positional=(Input(shape=tuple(what)),), by=_CALLER)


def takes_inputs(inputs: Sequence[Input], by: str) -> Takes:
    """Arguments as a suite lists them."""
    named: dict[str, Any] = {}
    for one in inputs:
        if one.name is not None:
            argument, dot, key = one.name.partition(".")
            if dot:
                named.setdefault(argument, {})[key] = one
            else:
                named[argument] = one
    return Takes(positional=tuple(one for one in inputs if one.name is None), named=named, by=by)


def told_by(module: nn.Module, builder: object) -> Takes | None:
    """What the network's own code says, on it, on its class or function, or beside that; `None` where it is silent."""
    home = sys.modules.get(getattr(builder, "__module__", None) or "")
    for place in (module, builder, home):
        for name in SAID_BY:
            said = getattr(place, name, None)
            if said is None or (isinstance(place, type) and not _is_free(place, name)):
                continue
            by = f"{getattr(place, '__name__', type(place).__name__)}.{name}"
            return _told(module, said, by)
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
        if isinstance(size, list | tuple) and all(isinstance(side, int) for side in size):
            return Takes(positional=(Input(shape=tuple(size)),), by=name)
    return None


def _is_free(owner: type, name: str) -> bool:
    """Whether what a class has under this name can be used without an instance, which was asked before it."""
    raw = inspect.getattr_static(owner, name)
    return not (inspect.isfunction(raw) or isinstance(raw, property))


def _told(module: nn.Module, said: object, by: str) -> Takes:
    function: Callable[[int], object] | None = said if callable(said) else None
    try:
        with torch.device("cpu"):
            example = said if function is None else function(_PROBED)
    except Exception as error:  # the user's own code
        raise UsageError(f"{by}({_PROBED}) raised {in_one_line(error)}") from error

    def describe(tensor: Tensor) -> Input:
        dtype = str(tensor.dtype).removeprefix("torch.")
        batched = tensor.dim() > 0 and (function is None or tensor.shape[0] == _PROBED)
        whole = tensor.numel() > 0 and "int" in dtype and not tensor.is_meta
        return Input(
            shape=tuple(tensor.shape[1:] if batched else tensor.shape),
            dtype=dtype,  # type: ignore[arg-type]
            low=float(tensor.min()) if whole and function is None else None,
            high=float(tensor.max()) + 1 if whole and function is None else None,
            batched=batched,
        )

    if isinstance(example, Mapping) and not set(example) <= set(_signature(module)):
        example = (example,)  # one argument, a dictionary
    positional = () if isinstance(example, Mapping) else example if isinstance(example, list | tuple) else (example,)
    named = example if isinstance(example, Mapping) else {}
    described = _mapped((tuple(positional), dict(named)), Tensor, describe)
    if not _leaves(described, Input):
        raise UsageError(f"{by} gives no tensor; give one, or several in a tuple, or by name in a dictionary")
    return Takes(positional=described[0], named=described[1], example=function, by=by)


def _as_batch(example: object, like: Takes) -> Batch:
    """An example in the arguments in which its description stands."""
    if isinstance(example, Mapping) and like.named:
        return Batch((), dict(example))
    return Batch(tuple(example) if isinstance(example, list | tuple) else (example,))


def _signature(module: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # scripted
        return []
    return [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def refused(module: nn.Module | None, given: Takes, error: BaseException) -> str:
    """What was tried and what came of it: `forward(ids) with ids float32 3x224x224 raised RuntimeError: ...`."""
    names = _signature(module) if module is not None else []
    tried = []
    for position, one in enumerate(given.positional):
        name = names[position] if position < len(names) else f"argument {position + 1}"
        tried.append(f"{name} = {_tried(one)}")
    tried += [f"{name} = {_tried(one)}" for name, one in given.named.items()]
    said = f" ({given.by} says so)" if given.by not in ("", _CALLER) else ""
    hint = (
        ""
        if given.by
        else "; nobody says what it takes, so an image was tried: say it by `inputs:`, --inputs, or a function "
        "example_inputs(batch_size) beside it"
    )
    return f"forward({', '.join(names)}) raised {in_one_line(error)} when tried with {', '.join(tried)}{said}{hint}"


def _tried(argument: object) -> str:
    inputs = _leaves(argument, Input)
    return " and ".join(
        f"{one.dtype} {'x'.join(map(str, ((1,) if one.batched else ()) + one.shape)) or 'scalar'}" for one in inputs
    )


def with_size(given: Takes, size: int | str | None, channels: int | None) -> Takes | None:
    """The same at another image size; `None` where it is not one tensor of three axes."""
    if size is None and channels is None:
        return given
    if given.image is None:
        return None
    height, width = given.image[1:] if size is None else sides_of(size)
    return Takes(positional=(Input(shape=(channels or given.image[0], height, width)),), by=given.by)


def tensors_in(tree: object) -> Iterator[Tensor]:
    """The tensors in whatever a network returns, in order: nested lists, dictionaries and dataclasses.

    What is given only when asked, as by a generator, is left alone: see `settled` of `analyze.step`.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_in(item)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from tensors_in(getattr(tree, field.name))


def dtype_of(one: Input) -> torch.dtype:
    """Torch's type of one input. Raises `AttributeError` for a name that torch does not have."""
    dtype: torch.dtype = getattr(torch, one.dtype)
    return dtype


def _draw(one: Input, shape: tuple[int, ...], device: torch.device | None, generator: torch.Generator | None) -> Tensor:
    dtype = dtype_of(one)
    if one.is_whole or one.dtype == "bool":
        high = 2 if one.high is None else int(one.high)
        return torch.randint(int(one.low or 0), high, shape, generator=generator, device=device, dtype=dtype)
    if one.low is None and one.high is None:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)
    low, top = one.low or 0.0, 1.0 if one.high is None else one.high
    return torch.rand(shape, generator=generator, device=device, dtype=dtype) * (top - low) + low


def _mapped(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dictionaries with every leaf of a kind changed; other leaves stay."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(one, kind, change) for one in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(one, kind, change) for one in tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(one, kind, change) for key, one in tree.items()}
    return tree


def _leaves(tree: Any, kind: type) -> list[Any]:
    found: list[Any] = []
    _mapped(tree, kind, found.append)
    return found
