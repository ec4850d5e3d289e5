"""What everything that measures does first: name the device, see whether it is fit, and hold it against other runs.

    environment = describe(device)             # the machine and its libraries; nothing is held yet
    with held(environment, force=force):       # preflight, then the device's lock, until the block ends
        ...

`run`, `gate`, `duel`, `profile` and the pytest plugin begin so; whatever the user may have got wrong (names, suites,
places to write to) is best looked at between the two lines. What a run would measure is told here, too, and how
long that will take by what the machine did before. Never imports torch, nor pyarrow or pandas until there are stored
rows to read.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from archbench.catalog import counts_of
from archbench.device import collect_environment, preflight, resolve_device
from archbench.device.kind import kind_named, named_kind
from archbench.model.axes import STATIC, TIMED, DeviceKind
from archbench.model.cell import Cell, Group, Plan, Shard
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import FitnessWarning, UnfitError, UsageError
from archbench.model.messages import Calibrated, CellFinished, Event, Task
from archbench.model.protocol import protocol_for, times_only
from archbench.model.record import Record, RunContext
from archbench.model.suite import Suite
from archbench.options import Inputs, PlanOptions, several
from archbench.suite import read_what
from archbench.suite.duration import Prediction, learned, predict
from archbench.suite.plan import Room, make_plan
from archbench.suite.shards import parse_shard
from archbench.worker import WorkerClient, device_lock, run_tasks

if TYPE_CHECKING:
    from archbench.catalog.user_code import Packed
    from archbench.progress import Progress

_Event = TypeVar("_Event")


def describe(device: str) -> Environment:
    """The machine as it is for a run on `device` (`auto`, `cpu`, `cuda` or `cuda:N`).

    Raises `UsageError` for a device that is none, or is not in this machine.
    """
    return collect_environment(resolve_device(device))


@contextmanager
def held(environment: Environment, *, force: bool = False, timed: bool = True) -> Iterator[None]:
    """Hold the device of `environment` for the block, once the preflight has found it fit.

    What the preflight finds is a `FitnessWarning` each. Raises `UnfitError` where the device is unfit, unless `force`
    (which `ARCHBENCH_FORCE=1` in the environment is for everything: for machines that are always shared), and where
    another run of this user holds it. Without `timed` the preflight is left out: counting needs no quiet.
    """
    force = force or is_always_shared()
    for finding in preflight(environment.device) if timed else ():
        line = f"{finding.what}; {finding.remedy}" if finding.remedy else finding.what
        if finding.severity == "unfit" and not force:
            raise UnfitError(f"{line} (--force measures all the same)")
        if finding.severity in ("warn", "unfit"):
            warnings.warn(line, FitnessWarning, stacklevel=callers_level())
    with device_lock(environment.device_key):
        yield


def is_always_shared() -> bool:
    """Whether the environment says that this machine is never quiet, and that its user knows."""
    return os.environ.get("ARCHBENCH_FORCE") == "1"


def callers_level() -> int:
    """How far up the stack whoever called archbench is, so that a warning names the caller's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    return level


_OURS = ("archbench", "contextlib")


LEARNED_RUNS = 20
"""Stored runs, the latest, that a prediction learns from: reading more takes longer than it tells."""


def foreseen(what: object, options: PlanOptions) -> tuple[Suite, Plan, Prediction]:
    """What a run would measure, and how long that will take, by phase; parameters and errors as of `archbench.plan`.

    The device need not be in this machine.
    """
    suite, *_ = read_what(what, options.axes, options.inputs, allow_code=options.allow_code)
    shard, named, here = shard_of(options), named_kind(options.device), None
    if named is not None:
        kind = named.name
        with suppress(UsageError, UnfitError):
            here = describe(options.device)
    else:
        here = describe(options.device)
        kind = here.kind
    plan = make_plan(suite, kind, only=several(options.only), rounds=options.rounds, shard=shard)
    prediction = expected(plan, suite, here)
    plan = replace(plan, predicted_s=round(prediction.total, 1), predicted_from=prediction.basis)
    return suite, plan, prediction


def shard_of(options: PlanOptions) -> Shard | None:
    """The part of the suite that is asked for; `None` for all of it. Raises `UsageError`."""
    return None if options.shard is None else parse_shard(options.shard)


def one_cell(
    what: object, axes: Mapping[str, object], kind: DeviceKind, inputs: Inputs = None, *, allow_code: bool
) -> tuple[Cell, tuple[Packed, ...]]:
    """The one cell that is named, on a kind of device; every mistake is told as a run would."""
    suite, _, networks = read_what(what, axes, inputs, allow_code=allow_code)
    plan = make_plan(suite, kind)
    if plan.skipped:
        raise UsageError(f"{plan.skipped[0].cell.network.label}: {plan.skipped[0].reason}")
    if len(plan.cells) != 1:
        raise UsageError(f"these options name {len(plan.cells)} cells; give one value each, for one cell")
    return plan.cells[0], networks


def expected(
    plan: Plan, suite: Suite, environment: Environment | None, results: Path = Path("results"), *, waves: bool = True
) -> Prediction:
    """How long a run of `plan` will take on a machine; `None`: on a usual one of the plan's kind, which is not here.

    What is stored under `results` of the same class of hardware goes before constants. Without `waves` each process is
    prepared alone.
    """
    kind = kind_named(plan.device)
    rates = kind.rates(None) if environment is None else kind.rates(environment.cpu_count, environment.hardware_class)
    room = Room(kind=plan.device, cores=rates.cores, memory_bytes=rates.memory_bytes)
    if environment is not None:
        room, rates = Room.of(environment), learned(rates, _runs_of(environment.hardware_class, results))
    return predict(plan, suite, rates, room if waves else None)


def _runs_of(hardware_class: str, results: Path) -> list[tuple[Suite, list[Record]]]:
    """Suite and rows of the latest runs on such a machine; those of other versions are left out."""
    found: list[tuple[Suite, list[Record]]] = []
    for marker in sorted(results.glob("*/*/environment.json"), key=lambda path: path.parent.name, reverse=True):
        with suppress(OSError, msgspec.MsgspecError, UsageError):
            if msgspec.json.decode(marker.read_bytes(), type=Environment).hardware_class == hardware_class:
                from archbench.results import RunStore

                store = RunStore.open(marker.parent)
                found.append((store.suite, store.records()))
        if len(found) == LEARNED_RUNS:
            break
    return found


class Tasks:
    """What each process of a run is told in order to measure a group, what earlier ones found out included.

    Counts by network, memory models by its toggles: each is made once a run, by the first process that needs it.

    `calibration`: the device's ceilings as far as they are known; with `calibrate` they are to be found out anew.
    `versions`, by library: what the catalogue has counted with the same need not be counted at all. `short`: rounds
    after the first only take times again.
    """

    def __init__(
        self,
        suite: Suite,
        run_id: str,
        *,
        calibration: Calibration | None = None,
        calibrate: bool = False,
        versions: Mapping[str, str | None] = MappingProxyType({}),
        short: bool = False,
        allow_code: bool = False,
    ) -> None:
        self.calibration = calibration
        self._suite, self._run_id, self._short, self._allow_code = suite, run_id, short, allow_code
        self._versions = versions
        self._calibrate = calibrate
        self._asked: set[str | None] = set()
        self._counts: dict[str, Counts] = {}
        self._memory: dict[str, MemoryModel] = {}

    def note(self, event: Event) -> None:
        """Keep what came with it."""
        if isinstance(event, Calibrated):
            self.calibration = event.calibration
        elif isinstance(event, CellFinished):
            if event.found.counts is not None:
                self._counts[event.record.variant] = event.found.counts
            self._memory.update(event.found.memory)

    def of(
        self,
        group: Group,
        environment: Environment,
        round: int = 0,
        calibration: Calibration | None = None,
        *,
        wave: int = 0,
    ) -> Task:
        """That of a group in a round, on a device of which these ceilings are known. `wave`: see `Task`."""
        suite, later = self._suite, self._short and round > 0
        protocol = protocol_for(environment.kind, suite.protocol)
        elsewhere = tuple(metric for metric in suite.metrics if later and metric not in (*STATIC, *TIMED))
        return Task(
            group=group,
            context=RunContext(
                run_id=self._run_id, round=round, visit=group.visit, environment=environment, calibration=calibration
            ),
            protocol=times_only(protocol) if later else protocol,
            metrics=tuple(metric for metric in suite.metrics if metric not in elsewhere),
            elsewhere=elsewhere,
            percentiles=() if later else suite.percentiles,
            seed=suite.seed,
            allow_code=self._allow_code,
            images=suite.images,
            carried=self._carried(group),
            calibrate=self._calibrates(environment),
            wave=wave,
        )

    def _calibrates(self, environment: Environment) -> bool:
        """Whether a process is to find the ceilings out: the first that is asked for on a device, and no other."""
        first = environment.machine not in self._asked
        self._asked.add(environment.machine)
        return self._calibrate and first

    def _carried(self, group: Group) -> Carried:
        keys = {cell.group_id for cell in group.cells}
        network = group.cells[0].network
        return Carried(
            counts=self._counts.get(network.label) or counts_of(network, self._versions),
            memory={key: self._memory[key] for key in keys if key in self._memory},
        )


Visit = tuple[int, Group, int]
"""A round, what one process measures in it, and the wave in which it compiles; 0 for none."""


def measured(
    worker: WorkerClient,
    tasks: Tasks,
    environment: Environment,
    visits: Iterable[Visit],
    *,
    company: int = 0,
    until: float = math.inf,
) -> Generator[Event, None, None]:
    """Have a worker measure group after group, each by a process of its own, and give what happens as it happens.

    What these find out is noted in `tasks`. `company` and `until` as of `run_tasks`, errors too.
    """
    told = (tasks.of(group, environment, number, tasks.calibration, wave=wave) for number, group, wave in visits)
    for event in run_tasks(worker, told, company=company, until=until):  # which has each made when it is needed
        tasks.note(event)
        yield event


class Store(Protocol):
    """What is kept of whatever measures: as small files that `merge` folds into a large one."""

    def merge(self) -> None:
        """Fold all that is finished. Raises `UnfitError` where the disk is full; nothing is lost then."""


def followed(
    events: Generator[_Event, None, None],
    store: Store,
    shown: Progress[_Event],
    take: Callable[[_Event], None] = lambda event: None,
) -> bool:
    """Have what happens stored at once, by `take`, and show it: of a run, a gate, a duel. Says whether Ctrl-C ended it.

    However it ends, nobody measures any more then, and what is finished is folded.
    """
    try:
        with shown, closing(events):
            for event in events:
                take(event)
                shown.show(event)
    except KeyboardInterrupt:
        return True
    finally:
        store.merge()
    return False
