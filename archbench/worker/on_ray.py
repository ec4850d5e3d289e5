"""The devices of a Ray cluster as a fleet: an actor holds each, whole, and tells what happens while it measures.

Nothing of the driver's disk is taken to be on the nodes: networks, the user's modules and tasks travel as content. A
node needs archbench itself, in the driver's version. Actors end with their driver, and what they measure with them.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from msgspec import Struct, json
from msgspec.structs import replace

from archbench import __version__
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError, first_line
from archbench.model.messages import MESSAGE_VERSION, Event, Task, decode_event, decode_request, encode
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.model.units import listed
from archbench.worker.client import WORKER, WorkerClient
from archbench.worker.fleet import DeviceLostError, log
from archbench.worker.sweep import run_tasks

ANSWER_S = 5.0
"""For an address to take a connection."""
JOIN_S = 30.0
"""For a cluster to take this driver in."""
FREE_S = 120.0
"""For devices to be had that others may hold, the actors of a driver that was just killed among them."""
START_S = 600.0
"""For workers to import torch, from a cold network disk."""
SAID_S = 10.0
"""Of waiting, after which that is told."""
_MODULE_BYTES = 64 << 20
_EVERYWHERE = frozenset({*sys.stdlib_module_names, "archbench", "torch", "torchvision", "timm"})
"""What every node has in its own version, also where it lies among the user's modules (an editable install)."""
_IMPORTS = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


class Greeting(Struct, frozen=True, kw_only=True):
    """What an actor says of its node."""

    archbench_version: str
    message_version: int
    protocol_version: int
    code: str = ""
    """Hash of its own files: where it is worked on, one version may be two programs."""
    node: str


class Holder:
    """On a node: holds one device and has a worker measure on it. Everything comes and goes as bytes."""

    def __init__(self, device: str, arguments: Sequence[str]) -> None:
        self._device, self._arguments = device, tuple(arguments)
        self._held = ExitStack()
        self._worker: WorkerClient | None = None

    def greet(self) -> bytes:
        """The versions here, before anything that may not fit is done."""
        return bytes(json.encode(greeting()))

    def hold(
        self, files: Mapping[str, bytes], modules: Sequence[str], images: str | None, timed: bool, force: bool
    ) -> bytes:
        """Take the device, with the user's files beside it, and describe it.

        Raises `UsageError` for a node that lacks something: all that it measured would fail, and fast.
        """
        from archbench.catalog.user_code import FOLDER
        from archbench.session import held

        if images is not None and not Path(images).is_dir():  # they may be gigabytes, and so are not sent along
            raise UsageError(f"no folder {images} there; put the images on a disk of all nodes")
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="archbench-")))
        for name, content in files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        path = os.pathsep.join(filter(None, (str(folder / "modules"), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, FOLDER: str(folder / "networks"), "PYTHONPATH": path}
        if modules:
            done = subprocess.run([sys.executable, "-c", _IMPORTS, *modules], env=env, capture_output=True)
            if done.returncode:
                why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                raise UsageError(f"cannot import {', '.join(modules)} there: {why}")
        worker = WorkerClient(device=self._device, arguments=self._arguments, env=env)
        self._worker = self._held.enter_context(worker)
        environment = worker.start().environment
        self._held.enter_context(held(environment, timed=timed, force=force))
        return bytes(json.encode(environment))

    def measure(self, task: bytes) -> Iterator[bytes]:
        """The events of one task, each as soon as it happens."""
        asked = decode_request(task)
        assert isinstance(asked, Task)
        assert self._worker is not None
        for event in run_tasks(self._worker, [asked]):
            yield encode(event)


def greeting() -> Greeting:
    """What this archbench is."""
    return Greeting(
        archbench_version=__version__,
        message_version=MESSAGE_VERSION,
        protocol_version=PROTOCOL_VERSION,
        code=_own_code(),
        node=socket.gethostname(),
    )


@cache
def _own_code() -> str:
    root = Path(__file__).parents[1]
    files = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in sorted(root.rglob("*.py")))
    return hashlib.sha256(repr(list(files)).encode()).hexdigest()


class RayDevice:
    """One device of the cluster, as the driver sees it."""

    def __init__(self, actor: Any, environment: Environment) -> None:
        self.environment = environment
        self._actor = actor

    def measure(self, task: Task) -> Iterator[Event]:
        """As of `FleetDevice`."""
        import ray

        try:
            for reference in self._actor.measure.remote(encode(task)):
                event = decode_event(ray.get(reference))
                yield event  # type: ignore[misc]  # a child's event of a task is one of these
        except ray.exceptions.RayError as error:
            raise DeviceLostError(f"{self.environment.machine} is lost: {_cause(error)}") from error

    def close(self) -> None:
        """As of `FleetDevice`."""
        import ray

        with suppress(Exception):
            ray.kill(self._actor)


class Cluster:
    """A cluster's devices of one kind, waiting to be held. Raises `UsageError` and `UnfitError`."""

    def __init__(self, address: str, *, device: str, resource: str | None, arguments: Sequence[str] = WORKER) -> None:
        ray = _connected(address)
        self._actors: list[tuple[str, Any]] = []
        """What each holds, in words, and the actor."""
        name = resource or ("GPU" if device != "cpu" else "CPU")
        nodes = [node for node in ray.nodes() if node["Alive"]]
        places = [(n["NodeID"], n["NodeManagerHostname"], *_request(n["Resources"], name)) for n in nodes]
        remote = ray.remote(max_restarts=0, max_task_retries=0)(Holder)
        for node, host, count, request in places:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            for _ in range(count):
                options = {**request, "scheduling_strategy": strategy}
                actor = remote.options(**options).remote("cpu" if device == "cpu" else "cuda:0", arguments)
                self._actors.append((f"{name} of {host}", actor))
        if not self._actors:
            raise UsageError(f"no node of the Ray cluster at {address} has a whole {name}; it has {_has(nodes)}")
        self._check_versions()

    def hold(
        self, modules: Sequence[str], files: Mapping[str, bytes], *, images: str | None, timed: bool, force: bool
    ) -> list[RayDevice]:
        """Take all devices; those that cannot be had are named in a warning. Raises `UnfitError` where none can.

        `modules`: what every node has to be able to import, once it has the `files`; `images`: a folder of every node.
        """
        answers = self._answers(
            [actor.hold.remote(dict(files), tuple(modules), images, timed, force) for _, actor in self._actors], START_S
        )
        return [RayDevice(actor, json.decode(answer, type=Environment)) for actor, answer in answers]

    def _check_versions(self) -> None:
        ours = greeting()
        answers = self._answers([actor.greet.remote() for _, actor in self._actors], FREE_S)
        for theirs in (json.decode(answer, type=Greeting) for _, answer in answers):
            if replace(theirs, code="", node="") != replace(ours, code="", node=""):
                raise UnfitError(
                    f"{theirs.node} has archbench {theirs.archbench_version} (protocol {theirs.protocol_version}), "
                    f"the driver has {__version__} (protocol {PROTOCOL_VERSION}); install the same version there"
                )
            if theirs.code != ours.code:
                raise UnfitError(
                    f"{theirs.node} has archbench {__version__}, as the driver, and it is other code; install the same"
                )

    def _answers(self, asked: list[Any], patience_s: float) -> list[tuple[Any, bytes]]:
        """What each actor answers; those that cannot are left out from now on. Raises `UnfitError` where none can."""
        import ray

        late = ray.wait(asked, num_returns=len(asked), timeout=min(SAID_S, patience_s))[1]
        if late:
            names = [name for (name, _), one in zip(self._actors, asked, strict=True) if one in late]
            log.warning(
                "not to be had yet, held by another job or slow to start: %s; waiting for %.0f s at most",
                *(listed(names, 6), patience_s),
            )
            late = ray.wait(asked, num_returns=len(asked), timeout=patience_s)[1]
        found, problems = [], []
        for (name, actor), reference in zip(self._actors, asked, strict=True):
            try:
                if reference in late:
                    raise UnfitError(f"no answer for {patience_s:.0f} s; does another job hold it?")
                found.append((name, actor, bytes(ray.get(reference))))
            except (UnfitError, ray.exceptions.RayError) as error:  # a node that has just gone is listed for a while
                problems.append(f"{name}: {_cause(error)}")
                log.warning("a device is left out: %s", problems[-1])
                ray.kill(actor)  # else it would take the device, once that is free, from whoever waits for it
        if not found:
            raise UnfitError(f"no device of the cluster can be had: {problems[0]}")
        self._actors = [(name, actor) for name, actor, _ in found]
        return [(actor, answer) for _, actor, answer in found]


def travelling(modules: Collection[str]) -> dict[str, bytes]:
    """The content of the user's modules, and of those of the user's that they import, by path below `modules/`.

    A package travels whole. What is installed in the environment is left to the nodes' own. Raises `UsageError` for a
    module that is not here, and where they are too large together.
    """
    asked = {module.partition(".")[0] for module in modules}
    found: dict[str, bytes] = {}
    waiting, seen, size = sorted(asked), set(_EVERYWHERE), 0
    while waiting:
        if (module := waiting.pop()) in seen:
            continue
        seen.add(module)
        spec = PathFinder.find_spec(module, [str(Path.cwd()), *sys.path])  # as the worker looks for it
        place = None if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin)
        if place is None:
            if module not in asked:
                continue  # perhaps it is tried, and done without
            raise UsageError(f"module {module} is not here, so it cannot be sent along; is its folder in PYTHONPATH?")
        root = Path(place)
        if not {"site-packages", "dist-packages"}.isdisjoint(root.parts):
            continue
        for path in root.rglob("*") if root.is_dir() else [root]:
            if path.is_file() and "__pycache__" not in path.parts:
                size += path.stat().st_size
                if size > _MODULE_BYTES:
                    raise UsageError(
                        f"{root}: what {', '.join(sorted(asked))} need is over {_MODULE_BYTES >> 20} MiB; install it "
                        "on the nodes"
                    )
                content = found[f"modules/{path.relative_to(root.parent).as_posix()}"] = path.read_bytes()
                waiting += _imported(content) if path.suffix == ".py" else ()
    return found


def _imported(source: bytes) -> set[str]:
    """The top-level modules that a file imports; none of one that is no Python."""
    with suppress(SyntaxError, ValueError):
        nodes = list(ast.walk(ast.parse(source)))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        return {name.partition(".")[0] for name in names}
    return set()


def _connected(address: str) -> Any:
    """Ray, connected. An address that does not answer is refused in seconds, where Ray would try for a minute."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise UsageError(
            f"--executor ray needs Ray, not installed here: {sys.executable} -m pip install 'archbench[ray]'"
        ) from None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("auto", "local") and not (host and port.isdecimal()):
        raise UsageError(f"--address {address}: is not HOST:PORT, nor `auto` for the cluster that this machine is of")
    if host:
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        except OSError as error:
            raise UnfitError(f"nothing answers at {address}: {error.strerror or error}; is the cluster up?") from None
    if ray.is_initialized():
        return ray
    logging.getLogger("ray").setLevel(logging.ERROR)
    ended: SimpleQueue[Exception | None] = SimpleQueue()

    def join() -> None:  # in a thread, as Ray itself waits for whatever it is that does not answer
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            ended.put(None)
        except Exception as error:
            ended.put(error)

    Thread(target=join, daemon=True).start()
    try:
        problem = ended.get(timeout=JOIN_S)
    except Empty:
        raise UnfitError(f"{address} is no Ray cluster, or is not well: it says nothing for {JOIN_S:.0f} s") from None
    if problem is not None:
        raise UnfitError(f"no Ray cluster at {address}: {first_line(problem)}")
    return ray


def _request(resources: Mapping[str, float], name: str) -> tuple[int, dict[str, Any]]:
    """How many whole devices a node has, and what an actor asks for to have one; on the CPU it is all cores."""
    amount = resources.get(name, 0.0)
    if name == "CPU":
        return (1, {"num_cpus": amount}) if amount >= 1 else (0, {})
    request = {"num_gpus": 1} if name == "GPU" else {"resources": {name: 1}}
    if name.startswith("accelerator_type:"):  # a label of nodes, of which there is one, and not of cards
        return int(resources.get("GPU", 0.0)) if amount else 0, {"num_gpus": 1, "resources": {name: 0.001}}
    return int(amount), {"num_cpus": 0, **request}


def _has(nodes: Sequence[Mapping[str, Any]]) -> str:
    """What the cluster's nodes have together, without what Ray keeps for itself."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node["Resources"].items():
            if not name.startswith("node:") and name not in ("memory", "object_store_memory"):
                total[name] = total.get(name, 0.0) + amount
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(total.items())) or "nothing"


def _cause(error: BaseException) -> str:
    """What went wrong on the node, in one line: Ray wraps it into a traceback."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return first_line(cause)
    if "No module named 'archbench" in str(error):
        return "a node has no archbench; install this version there"
    return first_line(error)
