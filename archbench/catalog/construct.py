"""Calls a constructor with what the user asked for, and turns its complaints into the user's language."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping

from torch import nn

from archbench.model.cell import Network
from archbench.model.errors import UsageError, did_you_mean

_PLACEHOLDERS = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def one_line(error: BaseException) -> str:
    """The first line of what `error` says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def refuse_reserved(network: Network, reserved: Collection[str]) -> None:
    """Raise `UsageError` for an option that would load weights, or that has a field of its own beside `options`."""
    for option in network.options.keys() & set(reserved):
        remedy = "archbench never loads weights" if option in _WEIGHTS else "it has a key of its own beside options"
        raise UsageError(f"{network.label}: {option} cannot be an option: {remedy}")


_WEIGHTS = frozenset({"weights", "weights_backbone", "pretrained", "checkpoint_path", "pretrained_cfg", "progress"})


def construct(
    make: Callable[..., object], arguments: Mapping[str, object], network: Network, known: Callable[[], Collection[str]]
) -> nn.Module:
    """Return `make(**arguments)`.

    Raises `UsageError` where it refuses the options that the user gave; `known` tells which it has, and is asked only
    then. Without options of the user's, what `make` raises is nobody's mistake but ours, and is let through.
    """
    try:
        module = make(**arguments)
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        if not network.options:
            raise
        names = sorted(known())
        unknown = [option for option in network.options if option not in names]
        if unknown:
            near = did_you_mean(unknown[0], names)
            raise UsageError(
                f"{network.label}: {network.name} has no option {unknown[0]!r}{near}; it has {', '.join(names)}"
            ) from error
        raise UsageError(f"{network.label}: {network.name} refuses these options: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{network.label}: got a {type(module).__name__}, not a torch.nn.Module")
    return module


def keywords(function: Callable[..., object]) -> set[str]:
    """Names of the parameters of `function` that can be given by keyword."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in _PLACEHOLDERS and p.name != "self"}
