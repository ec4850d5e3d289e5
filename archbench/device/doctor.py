"""The machine examined: at length for `archbench doctor`, and in a moment before every run."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import psutil
from msgspec import Struct
from msgspec.structs import replace

from archbench.device.cpu import CpuProbe
from archbench.device.environment import ROOT, allowed_cores, collect_environment, compiler, cpu_quota, read_small
from archbench.device.health import Finding, Reading, between, note, ok, unfit, warn, worst
from archbench.device.kind import kind_named
from archbench.model.environment import Environment

_DOCTOR_LOAD_S = 0.5


class Examination(Struct, frozen=True, kw_only=True):
    """What `archbench doctor` found."""

    fit: bool
    """No finding is `unfit`."""
    environment: Environment
    findings: tuple[Finding, ...]


def preflight(device: str) -> tuple[Finding, ...]:
    """What must be right before a run on `cpu` or `cuda:N`; under half a second, or 1.5 on a machine that is taken.

    Another process that computes on the GPU, heat, a throttle, or a CPU of which others use more than half is `unfit`:
    refuse unless told otherwise. A CPU that is less busy, and an NVML that does not answer, is `warn`.
    """
    return tuple(kind_named(device.partition(":")[0]).preflight(device))


def examine(device: str) -> Examination:
    """Look at everything for runs on `cpu` or `cuda:N`; about two seconds."""
    environment = collect_environment(device)
    findings = (
        judge_load(read_load(_DOCTOR_LOAD_S)),
        *host_findings(environment),
        *timing_findings(),
        *software_findings(environment),
        *kind_named(environment.kind).examine(environment),
    )
    return Examination(fit=worst(findings) != "unfit", environment=environment, findings=findings)


_GIB = 2**30
LEAST_TORCH = "2.11"
LITTLE_DISK = 2 * _GIB
"""Inductor's cache of a suite with a compile axis, and the results, take less than this."""
_NO_DISK = 64 * 2**20
BUSY_SHARE = 0.10
"""Share of the cores' time used by others, or of the last 10 s spent waiting, above which the machine is busy."""
LITTLE_MEMORY = 2 * _GIB
"""A process with torch and a mid-sized network in training needs about this much."""
CROWDED_SHARE = 0.50
"""Share of the cores' time used by others above which nothing that is timed here is fit to be used: see the reason
`crowded`, which most rows would get."""
SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "pit", "jiffies"})
"""Clock sources that cost a microsecond a reading, or tick too slowly to time a step."""
COARSE_NS = 10_000
"""A step of the clock this long is 1 % of the shortest sample (1 ms): nothing short can be timed."""
COSTLY_NS = 2_000
"""A reading this dear goes through the kernel instead of the time-stamp counter."""
JITTERY = 0.10
"""Spread of fixed work above which a 3 % difference is out of reach in a single run."""
_READINGS = 5_000
_ELEMENTS = 32_768  # 256 KiB in and as much out: stays in the core's own cache.


class Load(Struct, frozen=True, kw_only=True):
    """How busy others keep the machine; `None` where the system does not say."""

    others: float | None
    """Share of our cores' time that others used while we slept."""
    stalled: float | None = None
    """Share of the last 10 s in which some task waited for a core (Linux pressure stall information)."""


def read_load(window_s: float, root: Path = ROOT) -> Load:
    """Sleep for the window and see who worked meanwhile. Ticks are 10 ms: 0.25 s resolves 2 % on two cores."""
    return _load_since(_look(root), window_s, root)


def _load_since(before: Reading, window_s: float, root: Path = ROOT) -> Load:
    """The load since a look, of at least this long."""
    time.sleep(max(0.0, before.at_s + window_s - time.perf_counter()))
    others = between(before, _look(root)).others
    try:
        pressure = (root / "proc/pressure/cpu").read_text()
    except OSError:
        return Load(others=others)
    some = re.search(r"some avg10=([0-9.]+)", pressure)
    return Load(others=others, stalled=float(some[1]) / 100 if some else None)


def _look(root: Path = ROOT) -> Reading:
    """The CPU's times. What this process ran and waited for, to learn the compiler's version, is its own work too."""
    reading = CpuProbe(root / "proc").read()
    assert reading.cpu is not None, "a CPU's probe reads it"
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = reading.cpu.own_s + children.ru_utime + children.ru_stime
    return replace(reading, cpu=replace(reading.cpu, own_s=own_s))


_AT_IMPORT = _look()
_JUST_S = 1.0


def settled_load(window_s: float, again_s: float) -> Load:
    """The load, looked at anew for `again_s` where the first look found most of the machine taken.

    What has just ended, an install or an import, must not refuse a run that begins after it. A command that has just
    begun has the window of its first look behind it.
    """
    just_begun = time.perf_counter() - _AT_IMPORT.at_s < window_s + _JUST_S
    load = _load_since(_AT_IMPORT, window_s) if just_begun else read_load(window_s)
    return read_load(again_s) if (load.others or 0.0) > CROWDED_SHARE else load


def judge_load(load: Load) -> Finding:
    """A busy machine is a warning, for canary and contention flag the rows that it spoils; one that is taken is unfit.

    Only what others use at this moment refuses: waiting over the last 10 s may be that of work that has ended.
    """
    words = []
    if load.others is not None:
        words.append(f"others use {load.others:.0%} of the cores' time")
    if load.stalled is not None:
        words.append(f"over the last 10 s some task waited for a core {load.stalled:.0%} of the time")
    if not words:
        return note("load", "this system does not say how busy it is", "look for other work yourself")
    if (load.others or 0.0) > CROWDED_SHARE:
        return unfit("load", "; ".join(words), "stop the other work: what is timed now is not fit to be used")
    if max(load.others or 0.0, load.stalled or 0.0) > BUSY_SHARE:
        return warn("load", "; ".join(words), "stop the other work, or expect rows marked contended")
    return ok("load", "; ".join(words))


def host_findings(host: Environment, root: Path = ROOT) -> Iterator[Finding]:
    """What the kernel says of the machine as it is set up."""
    yield _cores(host, root)
    yield from _clock_rate(host)
    yield from _neighbourhood(host, root)
    yield from _memory(host)
    source = read_small(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in SLOW_CLOCKS:
        yield warn(
            "clock-source", f"the kernel's clock is {source}", "boot with clocksource=tsc if the CPU's is stable"
        )


def _cores(host: Environment, root: Path) -> Finding:
    allowed, quota = len(allowed_cores()), cpu_quota(root)
    present = psutil.cpu_count() or allowed
    what = f"{host.cpu_count} of {present} cores usable ({host.cpu_model})"
    if quota is not None and quota < allowed:
        return warn(
            "cores",
            f"{what}; the container's quota is {quota:g} cores' worth of time over {allowed} cores",
            "give the container whole cores (--cpuset-cpus): a quota stops threads in the middle of a step",
        )
    return ok("cores", what)


def _clock_rate(host: Environment) -> Iterator[Finding]:
    if host.governor is None:
        yield note("governor", "no frequency governor is visible, as usual in a virtual machine")
    elif host.governor != "performance":
        yield warn(
            "governor",
            f"the frequency governor is {host.governor}: short steps run before the clock is up",
            "sudo cpupower frequency-set --governor performance",
        )
    else:
        yield ok("governor", "the frequency governor is performance")
    if host.turbo:
        yield note(
            "turbo",
            "turbo is on: the clock depends on temperature and on neighbours",
            "for repeatable figures turn it off; archbench records it and never changes it",
        )
    if host.smt:
        yield note(
            "smt",
            "two hardware threads share a core, so a neighbour can slow us down unseen",
            "pin the run to one thread of each core (taskset)",
        )


def _neighbourhood(host: Environment, root: Path) -> Iterator[Finding]:
    if host.hypervisor is not None:
        yield note(
            "virtual",
            f"a virtual machine ({host.hypervisor}): neighbours on the same hardware show as stolen time at best",
            "compare only within one run; the canary corrects slow drift",
        )
    if host.container is not None:
        yield note("container", f"inside a container ({host.container}): process ids and limits are its own")
    nodes = read_small(root / "sys/devices/system/node/online") or "0"
    if nodes != "0":
        yield note("numa", f"memory nodes {nodes}: remote memory is slower", "numactl --cpunodebind=0 --membind=0")


def _memory(host: Environment) -> Iterator[Finding]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    free = min(memory.available, host.memory_bytes)
    what = f"{free / _GIB:.1f} of {host.memory_bytes / _GIB:.1f} GiB of memory free"
    if free < LITTLE_MEMORY:
        yield warn("memory", what, "close other programs: cells that do not fit are skipped or fail")
    else:
        yield ok("memory", what)
    if swap.used > 0.1 * swap.total:
        yield warn("swap", f"{swap.used / _GIB:.1f} GiB are swapped out", "free memory, then: sudo swapoff -a")
    if host.transparent_hugepages == "never":
        yield note(
            "hugepages",
            "transparent huge pages are off: large tensors cost more page faults",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )


class ClockQuality(Struct, frozen=True, kw_only=True):
    """What reading a clock over and over showed."""

    step_ns: int
    """Smallest difference between two readings that differ."""
    cost_ns: float
    """Mean time of one reading."""
    backwards: int
    """Readings that were before the one ahead of them."""


def read_clock(clock: Callable[[], int] = time.perf_counter_ns, readings: int = _READINGS) -> ClockQuality:
    """Read a clock of ns `readings` times in a row."""
    stamps = [clock() for _ in range(readings)]
    steps = [after - before for before, after in pairwise(stamps)]
    return ClockQuality(
        step_ns=min((step for step in steps if step > 0), default=stamps[-1] - stamps[0]),
        cost_ns=(stamps[-1] - stamps[0]) / (readings - 1),
        backwards=sum(step < 0 for step in steps),
    )


def judge_clock(clock: ClockQuality) -> Finding:
    """Whether short steps can be timed by it."""
    what = f"the clock steps by {clock.step_ns} ns and costs {clock.cost_ns:.0f} ns a reading"
    if clock.backwards:
        return unfit("clock", f"the clock went backwards {clock.backwards} times", "check the kernel's clock source")
    if clock.step_ns <= 0 or clock.step_ns > COARSE_NS:
        return unfit("clock", what, "no short step can be timed here; check the kernel's clock source")
    if clock.cost_ns > COSTLY_NS:
        return warn("clock", what, "check the kernel's clock source (tsc is the cheap one)")
    return ok("clock", what)


def time_fixed_work(duration_s: float) -> list[float]:
    """Seconds of each repetition of the same work (about 0.3 ms: sines of an array that stays in the cache)."""
    import numpy as np  # takes 0.1 s that a preflight does not have

    source = np.linspace(0.0, 1.0, _ELEMENTS)
    target = np.empty_like(source)
    times = []
    end = time.perf_counter() + duration_s
    now = time.perf_counter()
    while now < end:
        np.sin(source, out=target)
        after = time.perf_counter()
        times.append(after - now)
        now = after
    return times


def spread(times: Sequence[float]) -> float:
    """Distance between the 10th and the 90th percentile, over the median."""
    deciles = quantiles(times, n=10, method="inclusive")
    return (deciles[8] - deciles[0]) / deciles[4]


def judge_spread(share: float) -> Finding:
    """What a spread of equal work, as `spread` gives it, says of the machine."""
    what = f"the same work took times that spread by {share:.1%} (10th to 90th percentile)"
    if share > JITTERY:
        return warn("jitter", what, "stop other work and fix the clock, or measure several rounds")
    return ok("jitter", what)


def timing_findings(duration_s: float = 1.0) -> Iterator[Finding]:
    """Try the clock and a second of fixed work."""
    yield judge_clock(read_clock())
    yield judge_spread(spread(time_fixed_work(duration_s)))


def software_findings(software: Environment) -> Iterator[Finding]:
    """Versions, the compiler that `torch.compile` calls, and room for caches and results."""
    on_gpu = software.device != "cpu"
    yield from _torch(software, on_gpu)
    yield from _torchvision(software)
    yield _compiler()
    if on_gpu and "triton" not in software.libraries:
        yield warn("triton", "triton is not installed: compiled cells will fail on the GPU", "pip install triton")
    yield from _disk()
    if threads := software.settings.get("OMP_NUM_THREADS"):
        yield note("threads", f"OMP_NUM_THREADS={threads} is set: it decides how many threads every cell uses")


def _torch(software: Environment, on_gpu: bool) -> Iterator[Finding]:
    from packaging.version import Version

    version = software.torch_version
    if version is None:
        yield unfit("torch", "torch is not installed for this Python", "pip install torch torchvision")
    elif Version(version).release < Version(LEAST_TORCH).release:
        yield unfit("torch", f"torch {version} is too old", f"pip install 'torch>={LEAST_TORCH}' torchvision")
    elif on_gpu and software.cuda_version is None:
        yield unfit("torch", f"torch {version} is built without CUDA", "install a CUDA build: see pytorch.org")
    else:
        yield ok("torch", f"torch {version}")


def _torchvision(software: Environment) -> Iterator[Finding]:
    """Whether torchvision was built for this torch: by what its own metadata asks for, as pip would."""
    from packaging.requirements import Requirement

    if software.torchvision_version is None:
        yield unfit("torchvision", "torchvision is not installed", "pip install torchvision")
        return
    asked = map(Requirement, importlib.metadata.requires("torchvision") or ())
    wanted = next((one.specifier for one in asked if one.name == "torch"), None)
    if wanted is not None and not wanted.contains(software.torch_version or "0", prereleases=True):
        yield unfit(
            "torchvision",
            f"torchvision {software.torchvision_version} wants torch{wanted}, but torch is {software.torch_version}",
            "pip install --upgrade torch torchvision",
        )
    else:
        yield ok("torchvision", f"torchvision {software.torchvision_version} fits")


def _compiler() -> Finding:
    """Inductor compiles C++ on the CPU, and Triton its launchers with the headers of this Python."""
    path = compiler()
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if path is None:
        return warn("compiler", "no C++ compiler: compiled cells will fail", "install g++ (Debian: build-essential)")
    if not header.exists():
        return warn(
            "compiler",
            f"{header} is missing: compiled cells will fail",
            "install this Python's headers (Debian: python3-dev)",
        )
    return ok("compiler", f"{path} and the headers of Python {sysconfig.get_python_version()}")


def _disk() -> Iterator[Finding]:
    places = {"caches": Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()), "results": Path.cwd()}
    for use, folder in places.items():
        standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(standing).free
        what = f"{free / 2**30:.1f} GiB free for {use} in {folder}"
        if free < _NO_DISK:
            yield unfit("disk", what, "make room: a row that cannot be written is lost")
        elif free < LITTLE_DISK:
            yield warn("disk", what, "make room, or point TORCHINDUCTOR_CACHE_DIR elsewhere")
        else:
            yield ok("disk", what)
