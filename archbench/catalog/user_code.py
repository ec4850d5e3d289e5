"""Builds a network by calling the user's own function, `module:function`, or from an object passed by Python code."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from archbench.catalog.passed import load
from archbench.catalog.roles import in_mode
from archbench.catalog.tables import Entry
from archbench.model.cell import Network, is_passed
from archbench.model.errors import UsageError, did_you_mean, first_line


def make(entry: Entry, network: Network) -> nn.Module:
    """Call the function that `entry` names, with the options of `network` and whatever else it sets.

    `num_classes`, `in_channels` and `head` are passed only where they are set, so that a function without them works;
    one that has no `in_channels` need not know of them: they are then said of its input alone.
    A class that is a module will do as a function. Raises `UsageError`, one line, for everything that can go wrong.
    """
    function = builder_of(entry)
    if isinstance(function, nn.Module):
        return _as_it_is(function, network)
    arguments: dict[str, object] = dict(network.options)
    if network.num_classes is not None:
        arguments["num_classes"] = network.num_classes
    if network.in_channels is not None and _takes_channels(function):
        arguments["in_channels"] = network.in_channels
    if network.head != "classifier":
        arguments["head"] = network.head
    try:
        module = function(**arguments)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise UsageError(f"{entry.name} raised {_described(error)}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{entry.name} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


def builder_of(entry: Entry) -> Callable[..., object]:
    """The function, class or module that `entry` names. Raises `UsageError` where there is none."""
    return load(entry.name) if is_passed(entry.name) else _function(entry.constructor)


def _takes_channels(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(one.name == "in_channels" or one.kind is one.VAR_KEYWORD for one in parameters)


def _as_it_is(module: nn.Module, network: Network) -> nn.Module:
    """A network that was passed with its weights: they are kept, but where only shapes are asked for."""
    if network.options or network.num_classes is not None or network.head != "classifier":
        raise UsageError(f"{network.label} was passed as a module and has no options; pass one that is as you want it")
    return module.to("meta") if torch.get_default_device().type == "meta" else in_mode(module, training=True)


def _function(constructor: str) -> Callable[..., object]:
    module_name, _, path = constructor.partition(":")
    here = str(Path.cwd())
    # First for the user's module alone, as `python -m` would have it. Afterwards last: what torch imports at need is
    # not to be a file `statistics.py` that lies beside it.
    sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # so may its import
        raise UsageError(f"{constructor}: cannot import {module_name}: {_described(error)}") from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)
    for part in path.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [name for name in dir(found) if not name.startswith("_")])
            raise UsageError(f"{constructor}: {module_name} has no {path!r}{near}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{constructor}: is a {type(found).__name__}, not a function that returns a network")
    return found


def _described(error: BaseException) -> str:
    """Kind, first line and place of `error`: `ValueError: no such width (nets.py:12)`."""
    frames = traceback.extract_tb(error.__traceback__)
    # Where the call itself failed (wrong arguments), the last frame is ours and would mislead.
    inside = bool(frames) and frames[-1].filename != __file__
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if inside else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
