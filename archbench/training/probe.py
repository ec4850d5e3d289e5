"""A probe on disk: trains what is missing, several networks at once, each on a thread of its own, and keeps the rest.

`probe.parquet` is rewritten whole each time a training ends: whatever dies, only those under way are lost. It holds no
clock, so that two probes with the same settings are the same file on one machine; times are in `probe.json`.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from archbench.model.errors import Interrupted, UnfitError, UsageError, first_line
from archbench.options import ProbeOptions, keywords, several
from archbench.results.files import is_whole, read_struct, sealed_parquet, write_bytes, write_json
from archbench.training.settings import (
    ARITHMETIC,
    CIFAR10,
    DIGITS,
    SUBJECTS,
    Point,
    Settings,
    chosen,
    images_of,
    schedules,
)
from archbench.worker import run_lock

if TYPE_CHECKING:
    import pandas as pd

PROBES = Path("results") / "train-probe"
_ON_A_GPU = 2
"""Trainings at a time there: small networks leave most of it idle."""
TABLE, ABOUT = "probe.parquet", "probe.json"


class About(Struct, frozen=True, kw_only=True):
    """What a probe is of: its settings and where it ran. Times are wall seconds of each training."""

    settings: Settings
    hardware_class: str
    torch_version: str
    seconds: dict[str, float] = {}
    """By network and seed, `plain56 0`, with as many others beside it as `at_once` says."""
    at_once: int = 1
    spent_s: float = 0.0
    """From the first training to the last, over all calls."""


class Probe(Struct, frozen=True, kw_only=True, dict=True):
    """The trainings of one directory, whole or not."""

    path: Path
    about: About
    points: tuple[Point, ...]
    """By network in the order of `SUBJECTS`, seed and step."""

    @property
    def frame(self) -> pd.DataFrame:
        """A row a point, columns as `Point` has them."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.points])

    @property
    def last(self) -> list[Point]:
        """Where each training ended."""
        return list({(one.network, one.seed): one for one in self.points}.values())

    @property
    def missing(self) -> list[tuple[str, int]]:
        """What was asked for and is not trained: the probe was interrupted, or is running."""
        there = {(one.network, one.seed) for one in self.points}
        return [pair for pair in asked(self.about.settings) if pair not in there]


def asked(settings: Settings) -> list[tuple[str, int]]:
    """Every training, network and seed, in the order of the table."""
    return [(name, seed) for name in settings.subjects for seed in settings.seeds]


def read_probe(path: Path) -> Probe:
    """What a directory holds. Raises `UsageError` for one that holds no probe, or a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (path / ABOUT).exists():
        raise UsageError(f"{path}: holds no training probe; `archbench train-probe --out {path}` makes one")
    about = read_struct(path / ABOUT, About)
    if not (path / TABLE).exists():
        return Probe(path=path, about=about, points=())
    try:
        content = (path / TABLE).read_bytes()
        rows = pq.read_table(io.BytesIO(content)).to_pylist() if is_whole(content) else None
        points = msgspec.convert(rows, tuple[Point, ...])
    except (OSError, msgspec.MsgspecError, pa.ArrowException) as error:
        raise UsageError(f"{path / TABLE}: damaged ({first_line(error)}); train the probe anew with --out") from None
    return Probe(path=path, about=about, points=points)


@keywords(ProbeOptions)
def train_probe(options: ProbeOptions) -> Probe:
    """Train small networks from several seeds for the sake of their curves; a second call resumes.

    `networks`: `plain56`, `resnet56`, `relu-bn-he` and so on; by default all. `told`: called with the probe so far, the
    network and the seed of each training that ends. By default a directory is that of these settings.

    Raises `UsageError`; `UnfitError` without scikit-learn (the extra `probe`) and where a training's process died;
    after Ctrl-C `Interrupted`. What was finished is kept.
    """
    from archbench.session import describe

    data, steps = options.data, options.steps
    if any(number is not None and number < 1 for number in (options.seeds, steps, options.at_once)):
        raise UsageError("--seeds, --steps and --at-once are whole numbers of at least 1")
    subjects = chosen(several(options.networks))
    environment = describe(options.device)
    # Read here first: what is wrong with the images is said at once, and not by a process that trains.
    images = images_of(DIGITS if data is None else os.fspath(data))
    kind = DIGITS if data is None else CIFAR10
    settings = Settings(
        data=kind,
        image_size=images.train.shape[-1],
        seeds=tuple(range(options.seeds)),
        subjects=tuple(one.name for one in subjects),
        schedules=schedules(kind, steps),
        device=environment.device,
        arithmetic=ARITHMETIC,
    )
    about = About(
        settings=settings, hardware_class=environment.hardware_class, torch_version=environment.torch_version or "none"
    )
    tag = hashlib.blake2b(msgspec.json.encode(about), digest_size=4).hexdigest()
    place = Path(options.out) if options.out else PROBES / f"{kind}-{tag}"
    folder = DIGITS if data is None else str(Path(data).resolve())
    usable = len(os.sched_getaffinity(0)) if environment.device == "cpu" else _ON_A_GPU
    return _train_all(place, about, folder, options.at_once or usable, options.told or (lambda probe, name, seed: None))


Told = Callable[[Probe, str, int], None]


def _train_all(path: Path, about: About, folder: str, at_once: int, told: Told) -> Probe:
    """Train what `about` asks for and `path` lacks, and return all."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnfitError(f"cannot make {path}: {error.strerror}; give another place with --out") from None
    with run_lock(path):
        probe = _opened(path, about, at_once)
        # The deepest first: at the end no thread then waits for one long training.
        waiting = sorted(probe.missing, key=lambda pair: (-_cost(pair[0]), pair[1]))
        return _train(probe, waiting, folder, at_once, told) if waiting else probe


def _cost(name: str) -> int:
    return 0 if SUBJECTS[name].kind == "chain" else int("".join(filter(str.isdigit, name)) or 1)


def _opened(path: Path, about: About, at_once: int) -> Probe:
    if not (path / ABOUT).exists():
        write_json(path / ABOUT, msgspec.structs.replace(about, at_once=at_once))
        return read_probe(path)
    probe = read_probe(path)
    for field in ("settings", "hardware_class", "torch_version"):
        there, here = getattr(probe.about, field), getattr(about, field)
        if there != here:
            what = "settings" if field == "settings" else f"{field.replace('_', ' ')} {there}"
            raise UsageError(f"{path}: holds a probe with other {what}; give another --out, or remove it to begin anew")
    return probe


def _train(probe: Probe, waiting: Sequence[tuple[str, int]], folder: str, at_once: int, told: Told) -> Probe:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    begun, before = time.monotonic(), probe.about.spent_s
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=_begin, initargs=(stop, os.getpid())) as pool:
        try:
            jobs = {pool.submit(_one, name, seed, probe.about.settings, folder): (name, seed) for name, seed in waiting}
            left = set(jobs)
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for job in done:
                    probe = _kept(probe, job, jobs[job], before + time.monotonic() - begun)
                    told(probe, *jobs[job])
        except KeyboardInterrupt:
            raise Interrupted(probe.path) from None
        except BrokenProcessPool:
            raise UnfitError(
                f"a training's process died (killed, or out of memory); {len(probe.last)} trainings are kept in "
                f"{probe.path}, and the same command goes on"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return probe


def _kept(probe: Probe, job: Future[tuple[list[Point], float]], pair: tuple[str, int], spent_s: float) -> Probe:
    """The probe with one more training, on disk."""
    points, seconds = job.result()
    order = {name: place for place, name in enumerate(SUBJECTS)}
    everything = sorted((*probe.points, *points), key=lambda one: (order[one.network], one.seed, one.step))
    times = {**probe.about.seconds, f"{pair[0]} {pair[1]}": round(seconds, 2)}
    about = msgspec.structs.replace(probe.about, seconds=times, spent_s=round(spent_s, 1))
    write_bytes(probe.path / TABLE, sealed_parquet(_parquet(everything)))
    write_json(probe.path / ABOUT, about)
    return Probe(path=probe.path, about=about, points=tuple(everything))


def _parquet(points: Sequence[Point]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"network": pa.string(), "seed": pa.int64(), "step": pa.int64(), "gradient_norms": pa.list_(pa.float64())}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in Point.__struct_fields__])
    held = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(one) for one in points], schema=schema), held)
    return held.getvalue()


_stop: Any = None
"""In a training's process: the event that says to give up."""


def _begin(stop: Any, host: int) -> None:
    """Of a training's process: Ctrl-C is its parent's to hear, and without its parent it ends."""
    import signal

    from archbench.worker.processes import die_with

    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may differ from run to run
    die_with(host)


def _one(name: str, seed: int, settings: Settings, folder: str) -> tuple[list[Point], float]:
    """In a training's process."""
    from archbench.training.loop import train

    begun = time.monotonic()
    points = train(name, seed, settings, folder, _stop.is_set)
    return points or [], time.monotonic() - begun
