"""Networks of the user's own: a `module:function` that a suite names, or an object that Python code passes.

Of objects, modules with their weights or callables that make one, the parent packs each under a name that says what it
is (`TinyNet#3f2a91bc`: the class's or function's name, and a hash of its content), and the worker unpacks it afresh for
every group of cells. Passing an object is consent to run its code. The parent half needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import os
import pickle
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle
from msgspec import Struct

from archbench.catalog.tables import Entry
from archbench.model.cell import Network, is_passed
from archbench.model.errors import UsageError, did_you_mean, first_line, in_one_line

if TYPE_CHECKING:
    from torch import nn

FOLDER = "ARCHBENCH_NETWORKS"
"""The environment variable that tells a worker in which directory its parent has put the packed networks."""

_LIBRARIES = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
"""What lies in here changes with a version, not from one run to the next."""


class Packed(Struct, frozen=True):
    """One network on its way to the worker."""

    name: str
    content: bytes
    modules: tuple[str, ...] = ()
    """Of the user's own that it was made of: where it is made anew they have to be, too."""

    def put(self, folder: Path) -> None:
        """Write it to where the worker looks for it, given this folder."""
        from archbench.results.files import write_bytes

        folder.mkdir(exist_ok=True)
        write_bytes(folder / f"{self.name}.pickle", self.content)


def pack(network: object) -> Packed:
    """Name an object and make it ready to travel.

    Two objects have the same name where their code, the values that the code refers to and their weights are the same,
    also in another session. Raises `UsageError` for what is neither a module nor callable, and for what cannot travel.
    """
    word = _word(network)
    if not callable(network):
        raise UsageError(f"{network!r} is no network: give a name, a torch.nn.Module, or a function that makes one")
    try:
        digest = _Digest()
        name = f"{word}#{digest.of(network)[:8]}"
        content = pickle.dumps((sys.path, "torch" in sys.modules, _dumped(network)))
    except Exception as error:  # whatever the objects' own ways to be pickled raise
        raise UsageError(
            f"{word} cannot be sent to the process that measures: {first_line(error)}; "
            "pass a function that makes the network, and let it open by itself what it needs"
        ) from error
    return Packed(name, content, tuple(sorted(digest.modules)))


def load(name: str) -> Callable[..., object]:
    """The object of that name, made anew. Raises `UsageError` where it was not sent along."""
    import torch

    path = Path(os.environ.get(FOLDER, os.devnull)) / f"{name}.pickle"
    if not path.is_file():
        raise UsageError(f"{name} was passed as an object, and only the Python code that has it can pass it again")
    try:
        search, with_torch, content = pickle.loads(path.read_bytes())
        # The caller's own modules, after all that is found here anyway.
        sys.path.extend(place for place in search if place not in sys.path)
        if not with_torch:
            return pickle.loads(content)  # type: ignore[no-any-return]
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)  # type: ignore[no-any-return]
    except Exception as error:  # so may their ways back
        raise UsageError(f"{name} cannot be made again here: {in_one_line(error)}") from error


def brings_weights(name: str) -> bool:
    """Whether a network was passed as a module, whose weights are then nobody's to change."""
    import torch

    return is_passed(name) and isinstance(load(name), torch.nn.Module)


def make(entry: Entry, network: Network) -> nn.Module:
    """Call the function that `entry` names, with the options of `network` and whatever else it sets.

    `num_classes`, `in_channels` and `head` are passed only where they are set, so that a function without them works;
    one that has no `in_channels` need not know of them: they are then said of its input alone.
    A class that is a module will do as a function. Raises `UsageError`, one line, for everything that can go wrong.
    """
    from torch import nn

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
    return load(entry.name) if is_passed(entry.name) else _found(entry.constructor)


def _takes_channels(function: Callable[..., object]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(one.name == "in_channels" or one.kind is one.VAR_KEYWORD for one in parameters)


def _as_it_is(module: nn.Module, network: Network) -> nn.Module:
    """A network that was passed with its weights: they are kept, but where only shapes are asked for."""
    import torch

    from archbench.catalog.roles import in_mode

    if network.options or network.num_classes is not None or network.head != "classifier":
        raise UsageError(f"{network.label} was passed as a module and has no options; pass one that is as you want it")
    return module.to("meta") if torch.get_default_device().type == "meta" else in_mode(module, training=True)


def _found(constructor: str) -> Callable[..., object]:
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


def _dumped(network: object) -> bytes:
    """The object as bytes; tensors by torch's own way, which keeps shared storage shared and moves them to the host."""
    torch = sys.modules.get("torch")
    if torch is None:
        return bytes(cloudpickle.dumps(network))
    file = io.BytesIO()
    torch.save(network, file, pickle_module=cloudpickle)
    return file.getvalue()


def _word(network: object) -> str:
    """The name by which people know it."""
    function = network
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return re.sub(r"\W", "", name) or "network"


class _Digest(cloudpickle.Pickler):  # type: ignore[misc]
    """Hashes an object by what it does: line numbers, file names and addresses do not count, weights and code do."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.modules: set[str] = set()
        """Of the user's own that it refers to."""
        super().__init__(self)

    def write(self, part: bytes) -> int:
        """What a pickler writes to: here, the hash itself."""
        self._hash.update(part)
        return len(part)

    def of(self, network: object) -> str:
        """The hash in hexadecimal."""
        self.dump(network)
        return self._hash.hexdigest()

    def reducer_override(self, thing: Any) -> Any:
        """How a thing is taken apart: `(repr, (what it is,), its parts)`; the parts come last, so that cycles end."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(thing, torch.Tensor):
            return repr, ("tensor",), _tensor(thing)
        if torch is not None and isinstance(thing, torch.nn.Module):
            return repr, ("module",), (type(thing), _ordered(vars(thing)))
        if isinstance(thing, CodeType):
            return repr, ("code",), _code(thing)
        if isinstance(thing, ModuleType):
            return repr, (thing.__name__,), self._source(thing)
        if not isinstance(thing, (type, FunctionType)):
            return NotImplemented
        home = _home(thing)
        if home is not None:
            return repr, (f"{home.__name__}:{thing.__qualname__}",), self._source(home)
        return repr, (thing.__qualname__,), _class(thing) if isinstance(thing, type) else _function(thing)

    def _source(self, module: ModuleType) -> bytes | None:
        """The text of a module of the user's; `None` for one of Python's or of an installed library."""
        path = getattr(module, "__file__", None)
        if path is None or path.startswith(_LIBRARIES) or not Path(path).is_file():
            return None
        self.modules.add(module.__name__)
        return Path(path).read_bytes()


_NOT_CONTENT = frozenset({"__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "_abc_impl"})


def _tensor(tensor: Any) -> tuple[object, ...]:
    byte = sys.modules["torch"].uint8
    content = b"" if tensor.is_meta else tensor.detach().cpu().contiguous().flatten().view(byte).numpy().tobytes()
    return tuple(tensor.shape), str(tensor.dtype), tensor.requires_grad, content


def _code(code: CodeType) -> tuple[object, ...]:
    constants = [sorted(map(repr, one)) if isinstance(one, frozenset) else one for one in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _class(one: type) -> tuple[object, ...]:
    return one.__bases__, sorted((name, value) for name, value in vars(one).items() if name not in _NOT_CONTENT)


def _function(function: FunctionType) -> tuple[object, ...]:
    used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__code__, function.__defaults__, function.__kwdefaults__, closure, _ordered(used)


def _names(code: CodeType) -> set[str]:
    """Every name that the code looks up, in functions inside it too."""
    inside = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inside)


def _ordered(values: Mapping[str, object]) -> list[tuple[str, object]]:
    """By name; sets of names as lists, since each process has another order of theirs."""
    return [(name, sorted(map(repr, one)) if isinstance(one, set) else one) for name, one in sorted(values.items())]


def _home(thing: type | FunctionType) -> ModuleType | None:
    """The module from which a worker can import it; `None` where it exists in this session alone."""
    module = sys.modules.get(thing.__module__ or "")
    found: object = module
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return module if found is thing and thing.__module__ != "__main__" else None
