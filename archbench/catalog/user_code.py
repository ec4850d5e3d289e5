"""Builds a network by calling the user's own function, `module:function`."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from torch import nn

from archbench.catalog.construct import one_line
from archbench.catalog.entry import Entry
from archbench.model.cell import Network
from archbench.model.errors import UsageError, did_you_mean


def make(entry: Entry, network: Network) -> nn.Module:
    """Call the function that `entry` names, with the options of `network` and whatever else it sets.

    `num_classes`, `in_channels` and `head` are passed only where they are set, so that a function without them works.
    A class that is a module will do as a function. Raises `UsageError`, one line, for everything that can go wrong.
    """
    function = _function(entry.constructor)
    arguments: dict[str, object] = dict(network.options)
    if network.num_classes is not None:
        arguments["num_classes"] = network.num_classes
    if network.in_channels is not None:
        arguments["in_channels"] = network.in_channels
    if network.head != "classifier":
        arguments["head"] = network.head
    try:
        module = function(**arguments)
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(f"{entry.name} raised {_described(error)}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{entry.name} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


def _function(constructor: str) -> Callable[..., object]:
    module_name, _, path = constructor.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # As `python -m` would have it; an installed console script has its own directory there instead.
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # so may its import
        raise UsageError(f"{constructor}: cannot import {module_name}: {_described(error)}") from error
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
    return f"{type(error).__name__}: {one_line(error)}{place}"
