"""The devices of a Ray cluster as a fleet: an actor holds each, whole, and tells what happens while it measures.

Nothing of the driver's disk is taken to be on the nodes: networks, the user's modules and tasks travel as content. A
node needs archbench itself, in the driver's version. Actors end with their driver, and what they measure with them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from msgspec import Struct, json

from archbench import __version__
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError, first_line
from archbench.model.messages import MESSAGE_VERSION, Event, Task, decode_event, decode_request, encode
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.worker.client import WORKER, WorkerClient
from archbench.worker.fleet import DeviceLostError, log
from archbench.worker.sweep import run_tasks

ANSWER_S = 5.0
"""For an address to take a connection."""
START_S = 600.0
"""For the devices to be had and their workers to import torch."""
_MODULE_BYTES = 64 << 20


class Greeting(Struct, frozen=True, kw_only=True):
    """What an actor says of its node."""

    archbench_version: str
    message_version: int
    protocol_version: int
    node: str


class Holder:
    """On a node: holds one device and has a worker measure on it. Everything comes and goes as bytes."""

    def __init__(self, device: str, arguments: Sequence[str]) -> None:
        self._device, self._arguments = device, tuple(arguments)
        self._held = ExitStack()
        self._folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="archbench-")))
        self._worker: WorkerClient | None = None

    def greet(self) -> bytes:
        """The versions here, before anything that may not fit is done."""
        return bytes(json.encode(greeting()))

    def hold(self, files: Mapping[str, bytes], images: str | None, timed: bool, force: bool) -> bytes:
        """Take the device, with the user's files beside it, and describe it."""
        from archbench.catalog.passed import FOLDER
        from archbench.session import held

        if images is not None and not Path(images).is_dir():  # they may be gigabytes, and so are not sent along
            raise UsageError(f"{socket.gethostname()} has no folder {images}; put the images on a disk of all nodes")
        for name, content in files.items():
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        path = os.pathsep.join(filter(None, (str(self._folder / "modules"), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, FOLDER: str(self._folder / "networks"), "PYTHONPATH": path}
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
        node=socket.gethostname(),
    )


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
        self._actors: list[Any] = []
        name = resource or ("GPU" if device != "cpu" else "CPU")
        nodes = [node for node in ray.nodes() if node["Alive"]]
        places = [(node["NodeID"], _request(node["Resources"], name)) for node in nodes]
        remote = ray.remote(max_restarts=0, max_task_retries=0)(Holder)
        for node, (count, request) in places:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            for _ in range(count):
                options = {**request, "scheduling_strategy": strategy}
                self._actors.append(remote.options(**options).remote("cpu" if device == "cpu" else "cuda:0", arguments))
        if not self._actors:
            raise UsageError(f"no node of the Ray cluster at {address} has a whole {name}; it has {_has(nodes)}")
        self._check_versions()

    def hold(
        self, files: Mapping[str, bytes], *, images: str | None = None, timed: bool, force: bool
    ) -> list[RayDevice]:
        """Take all devices; those that cannot be had are named in a warning. Raises `UnfitError` where none can.

        `images`: a folder that every node has to have.
        """
        answers = self._answers([actor.hold.remote(dict(files), images, timed, force) for actor in self._actors])
        return [RayDevice(actor, json.decode(answer, type=Environment)) for actor, answer in answers]

    def _check_versions(self) -> None:
        ours = greeting()
        answers = self._answers([actor.greet.remote() for actor in self._actors])
        for theirs in (json.decode(answer, type=Greeting) for _, answer in answers):
            for name in ("archbench_version", "message_version", "protocol_version"):
                if getattr(ours, name) != getattr(theirs, name):
                    raise UnfitError(
                        f"{theirs.node} has archbench {theirs.archbench_version} (protocol {theirs.protocol_version}), "
                        f"the driver has {__version__} (protocol {PROTOCOL_VERSION}); install the same version there"
                    )

    def _answers(self, asked: Sequence[Any]) -> list[tuple[Any, bytes]]:
        """What each actor answers; those that cannot are left out from now on. Raises `UnfitError` where none can."""
        found, problems = [], []
        for actor, reference in zip(self._actors, asked, strict=True):
            try:
                found.append((actor, _got(reference)))
            except UnfitError as error:  # a node that has just gone is still listed for a while
                problems.append(str(error))
                log.warning("a device is left out: %s", error)
        if not found:
            raise UnfitError(f"no device of the cluster can be had: {problems[0]}")
        self._actors = [actor for actor, _ in found]
        return found


def travelling(names: Collection[str]) -> dict[str, bytes]:
    """The content of the user's modules behind `module:function` names, by path below `modules/`.

    A package travels whole. What is installed in the environment is left to the nodes' own. Raises `UsageError` for a
    module that is not here, or is too large.
    """
    found: dict[str, bytes] = {}
    for module in {name.partition(":")[0].partition(".")[0] for name in names}:
        spec = PathFinder.find_spec(module, [str(Path.cwd()), *sys.path])  # as the worker looks for it
        origin = spec.origin if spec is not None else None
        if origin is None:
            raise UsageError(f"module {module} is not here, so it cannot be sent along; is its folder in PYTHONPATH?")
        if "site-packages" in Path(origin).parts:
            continue
        root = Path(origin).parent if spec is not None and spec.submodule_search_locations else Path(origin)
        files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        for path in files if root.is_dir() else [root]:
            found[f"modules/{path.relative_to(root.parent).as_posix()}"] = path.read_bytes()
    if sum(map(len, found.values())) > _MODULE_BYTES:
        raise UsageError(
            f"the modules of {', '.join(names)} are over {_MODULE_BYTES >> 20} MiB; install them on the nodes"
        )
    return found


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
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        except OSError as error:
            raise UnfitError(f"nothing answers at {address}: {error.strerror or error}; is the cluster up?") from None
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UnfitError(f"no Ray cluster at {address}: {first_line(error)}") from None
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


def _got(reference: Any) -> bytes:
    """What an actor answers. Raises `UnfitError` for one that cannot."""
    import ray

    try:
        return bytes(ray.get(reference, timeout=START_S))
    except ray.exceptions.RayError as error:
        raise UnfitError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What went wrong on the node, in one line: Ray wraps it into a traceback."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return first_line(cause)
    if "No module named 'archbench'" in str(error):
        return "a node has no archbench; install this version there"
    return first_line(error)
