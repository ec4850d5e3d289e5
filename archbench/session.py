"""What everything that measures does first: name the device, see whether it is fit, and hold it against other runs.

    environment = describe(device)             # the machine and its libraries; nothing is held yet
    with held(environment, force=force):       # preflight, then the device's lock, until the block ends
        ...

`run`, `gate`, `duel`, `profile` and the pytest plugin begin so; whatever the user may have got wrong (names, suites,
places to write to) is best looked at between the two lines. How long a run will take is told here, too, by what the
machine did before. Never imports torch, nor pyarrow or pandas until there are stored rows to read.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from archbench.catalog import counts_of
from archbench.device import collect_environment, preflight, resolve_device
from archbench.device.kind import kind_named, named_kind
from archbench.model.axes import STATIC, TIMED
from archbench.model.cell import Group, Plan, Shard
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.environment import Calibration, Environment
from archbench.model.errors import FitnessWarning, UnfitError, UsageError
from archbench.model.messages import Calibrated, CellFinished, Event, Task
from archbench.model.protocol import protocol_for, times_only
from archbench.model.record import Record, RunContext
from archbench.model.suite import Suite
from archbench.suite.duration import Prediction, learned, predict
from archbench.suite.plan import make_plan
from archbench.suite.waves import Room, arranged
from archbench.worker import WorkerClient, device_lock, run_tasks

if TYPE_CHECKING:
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


def planned(
    suite: Suite, device: str, *, only: Sequence[str] = (), rounds: int | None = None, shard: Shard | None = None
) -> tuple[Plan, Prediction]:
    """The plan of a run on a device, which need not be in this machine, and how long that will take, by phase.

    Raises `UsageError` for what `make_plan` refuses, and for a device that is none.
    """
    named, here = named_kind(device), None
    if named is not None:
        with suppress(UsageError, UnfitError):
            here = describe(device)
        kind = named.name
    else:
        here = describe(device)
        kind = here.kind
    plan = make_plan(suite, kind, only=only, rounds=rounds, shard=shard)
    prediction = expected(plan, suite, here)
    return replace(plan, predicted_s=round(prediction.total, 1), predicted_from=prediction.basis), prediction


def expected(
    plan: Plan, suite: Suite, environment: Environment | None, results: Path = Path("results"), *, waves: bool = True
) -> Prediction:
    """How long a run of `plan` will take on a machine; `None`: on a usual one of the plan's kind, which is not here.

    What is stored under `results` of the same class of hardware goes before constants. Without `waves` each process is
    prepared alone.
    """
    kind = kind_named(plan.device)
    rates = kind.rates(None if environment is None else environment.cpu_count)
    room = Room(kind=plan.device, cores=rates.cores, memory_bytes=rates.memory_bytes)
    if environment is not None:
        room, rates = Room.of(environment), learned(rates, _runs_of(environment.hardware_class, results))
    if not waves:
        return predict(plan, suite, rates)
    return predict(plan, suite, rates, partial(arranged, room=room, metrics=suite.metrics))


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


class CarriedFigures:
    """Counts by network, memory models by its toggles: each is made once a run, by the first process that needs it.

    `calibration`: the device's ceilings as far as they are known; `calibrate`: they are to be found out anew.
    `versions`, by library: what the catalogue has counted with the same need not be counted at all.
    """

    def __init__(
        self,
        calibration: Calibration | None = None,
        *,
        calibrate: bool = False,
        versions: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        self.calibration = calibration
        self._versions = versions
        self._calibrate = calibrate
        self._asked: set[str | None] = set()
        self._counts: dict[str, Counts] = {}
        self._memory: dict[str, MemoryModel] = {}

    def calibrates(self, environment: Environment) -> bool:
        """Whether a process is to find the ceilings out: the first that is asked for on a device, and no other."""
        first = environment.machine not in self._asked
        self._asked.add(environment.machine)
        return self._calibrate and first

    def note(self, event: Event) -> None:
        """Keep what came with it."""
        if isinstance(event, Calibrated):
            self.calibration = event.calibration
        elif isinstance(event, CellFinished):
            if event.found.counts is not None:
                self._counts[event.record.variant] = event.found.counts
            self._memory.update(event.found.memory)

    def of(self, group: Group) -> Carried:
        """What a process that measures `group` need not find out again."""
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
    suite: Suite,
    environment: Environment,
    visits: Iterable[Visit],
    found: CarriedFigures,
    *,
    run_id: str,
    short: bool = False,
    company: int = 0,
    allow_code: bool = False,
) -> Generator[Event, None, None]:
    """Have a worker measure group after group, each by a process of its own, and give what happens as it happens.

    `found`: what earlier processes found out, for later ones; it is added to. `short`: rounds after the first only
    take times again. `company` as of `run_tasks`, errors too.
    """

    def tasks() -> Iterator[Task]:  # made as they are needed: see `found`
        for number, group, wave in visits:
            yield task_for(
                suite,
                group,
                environment,
                run_id=run_id,
                round=number,
                calibration=found.calibration,
                calibrate=found.calibrates(environment),
                carried=found.of(group),
                later=short and number > 0,
                wave=wave,
                allow_code=allow_code,
            )

    for event in run_tasks(worker, tasks(), company=company):
        found.note(event)
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


def task_for(
    suite: Suite,
    group: Group,
    environment: Environment,
    *,
    run_id: str,
    round: int = 0,
    calibration: Calibration | None = None,
    calibrate: bool = False,
    carried: Carried | None = None,
    later: bool = False,
    wave: int = 0,
    allow_code: bool = False,
) -> Task:
    """What a worker is told in order to measure one group of a suite's cells.

    `calibration` is what an earlier task found out of the device; with `calibrate` this one is to find it out.
    `carried` is what earlier tasks found out of the network. With `later` they measured the group, too: this one
    only takes its times again. `wave`: see `Task`.
    """
    protocol = protocol_for(environment.kind, suite.protocol)
    elsewhere = tuple(metric for metric in suite.metrics if later and metric not in (*STATIC, *TIMED))
    return Task(
        group=group,
        context=RunContext(
            run_id=run_id, round=round, visit=group.visit, environment=environment, calibration=calibration
        ),
        protocol=times_only(protocol) if later else protocol,
        metrics=tuple(metric for metric in suite.metrics if metric not in elsewhere),
        elsewhere=elsewhere,
        percentiles=() if later else suite.percentiles,
        seed=suite.seed,
        allow_code=allow_code,
        images=suite.images,
        carried=carried or Carried(),
        calibrate=calibrate,
        wave=wave,
    )
