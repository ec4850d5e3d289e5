"""The GPU: is it ours alone, cool, and running as its name promises. Reading and judging are apart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pynvml
from msgspec import Struct

from archbench.device import nvml
from archbench.device.environment import ROOT, torch_build
from archbench.device.health import HELD_DOWN, Finding, GpuProcess, note, ok, unfit, warn
from archbench.device.nvml import FOREIGN_SHARE, SLOW_S, compute_processes, family, host_pids, sm_users, temperature
from archbench.device.visible import SILENCE, visible_gpus
from archbench.model.environment import Environment, Gpu

SAFE_MARGIN_C = 10
"""A run begins only with more degrees than this left to the slowdown temperature: the soak alone takes up a few."""
BUSY_UTILISATION = 0.10
STRAY_BYTES = 2**30
"""Memory in use on an idle GPU above which there is somebody whom NVML does not name; drivers keep up to 0.6 GiB."""
RECENT_S = 1.5
"""A little more than the longest sampling period of the driver (1 s)."""
_QUESTIONS = 10
_UNWATCHED = "clocks, throttling, energy and neighbours stay unknown, and rows say so"


def gpu_findings(number: int, environment: Environment | None = None) -> Iterator[Finding]:
    """The state of `cuda:N`; with an environment, its setup too."""
    try:
        with nvml.session():
            visible = visible_gpus().gpus
            if number >= len(visible):
                raise nvml.NvmlError("device_lost")
            state = read_state(visible[number])
    except nvml.NvmlError as error:
        yield silence_finding(f"cuda:{number}", error.reason)
        return
    yield from urgent_findings(state)
    if environment is not None and environment.gpus:
        yield from setup_findings(environment.gpus[0], state, environment.cuda_version)


class GpuState(Struct, frozen=True, kw_only=True):
    """A GPU at this moment. `None` = NVML does not say."""

    temperature_c: int | None = None
    margin_c: int | None = None
    """Degrees left to the slowdown temperature."""
    contexts: tuple[GpuProcess, ...] | None = None
    """Processes that hold a context, but for us and our relatives."""
    users: tuple[GpuProcess, ...] | None = None
    """Those that still run and used the SMs in the last `RECENT_S`."""
    memory_used_bytes: int | None = None
    utilisation: float | None = None
    event_reasons: int | None = None
    compute_mode: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    cuda_driver: int | None = None
    """Newest CUDA that the driver runs: 12040 is 12.4."""
    no_users: str | None = None
    """Reason code where `users` is `None`."""
    asking_s: float = 0.0
    """How long NVML took for all of this."""


def read_state(seen: Gpu) -> GpuState:
    """Ask NVML; of a MIG slice, processes and memory are the slice's and the rest is the whole GPU's.

    Raises `NvmlError` where NVML cannot be used.
    """
    with nvml.session():
        whole = nvml.value("nvmlDeviceGetHandleByUUID", seen.uuid)
        part = whole if seen.mig_uuid is None else nvml.value("nvmlDeviceGetHandleByUUID", seen.mig_uuid)
        if whole is None or part is None:
            raise nvml.NvmlError("device_lost")
        started_s = time.perf_counter()
        celsius, _ = temperature(whole)
        contexts, users, no_users = _company_of(whole, part)
        # Version 2 does not count what the driver keeps for itself.
        memory = nvml.value("nvmlDeviceGetMemoryInfo", part, pynvml.nvmlMemory_v2)
        memory = memory or nvml.value("nvmlDeviceGetMemoryInfo", part)
        rates = nvml.value("nvmlDeviceGetUtilizationRates", whole)
        return GpuState(
            temperature_c=celsius,
            margin_c=_margin(whole, celsius),
            contexts=contexts,
            users=users,
            no_users=no_users,
            memory_used_bytes=None if memory is None else memory.used,
            utilisation=None if rates is None else rates.gpu / 100,
            event_reasons=nvml.value("nvmlDeviceGetCurrentClocksEventReasons", whole),
            compute_mode=nvml.value("nvmlDeviceGetComputeMode", whole),
            pcie_width=nvml.value("nvmlDeviceGetCurrPcieLinkWidth", whole),
            pcie_width_max=nvml.value("nvmlDeviceGetMaxPcieLinkWidth", whole),
            cuda_driver=nvml.value("nvmlSystemGetCudaDriverVersion"),
            asking_s=time.perf_counter() - started_s,
        )


_Processes = tuple[GpuProcess, ...] | None


def _company_of(whole: Any, part: Any) -> tuple[_Processes, _Processes, str | None]:
    """Who else holds a context, who of them computes, and why that is not known."""
    relatives = family()
    contexts, _ = compute_processes(part)
    if contexts is not None:
        contexts = tuple(process for process in contexts if process.pid not in relatives)
    users, no_users = sm_users(whole, time.time_ns() // 1000 - int(RECENT_S * 1e6))
    if users is None:
        return contexts, None, no_users
    # The samples of a process outlive it. Where its id is only the host's, its context tells.
    alive = psutil.pid_exists if host_pids() else lambda _: contexts is None or bool(contexts)
    busy = [user for user in users if (user.sm_share or 0.0) >= FOREIGN_SHARE and user.pid not in relatives]
    return contexts, tuple(user for user in busy if alive(user.pid)), None


def _margin(handle: Any, celsius: int | None) -> int | None:
    """Hopper and later tell the margin itself; before them it is the threshold less the temperature."""
    margin = nvml.value("nvmlDeviceGetMarginTemperature", handle)
    if margin is not None:
        return int(margin)
    threshold = nvml.value("nvmlDeviceGetTemperatureThreshold", handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    return None if threshold is None or celsius is None else int(threshold) - celsius


def urgent_findings(state: GpuState) -> Iterator[Finding]:
    """What must be right at this very moment, before every run."""
    yield from _company(state)
    if state.asking_s > SLOW_S * _QUESTIONS:
        yield warn(
            "nvml-slow",
            f"NVML took {state.asking_s:.1f} s for {_QUESTIONS} answers: it is asked seldom, and rows say so",
            "see whether a monitoring tool keeps it busy, and whether persistence mode is on (nvidia-smi -pm 1)",
        )
    yield _temperature(state)
    held = (state.event_reasons or 0) & HELD_DOWN
    if held:
        yield unfit(
            "throttled",
            f"the GPU is held down right now by heat, its power brake or its hardware (event reasons {held:#x})",
            "check cooling and power supply: every block would be rejected",
        )
    if state.compute_mode == pynvml.NVML_COMPUTEMODE_PROHIBITED:
        yield unfit("compute-mode", "the GPU's compute mode forbids computing", "sudo nvidia-smi --compute-mode=0")


def _company(state: GpuState) -> Iterator[Finding]:
    """Who computes spoils every block; who only holds a context takes memory, and nothing else."""
    if state.users:
        names = ", ".join(f"{user.pid} ({user.sm_share or 0.0:.0%} of the time)" for user in state.users)
        yield unfit("foreign-process", f"other processes compute on the GPU: {names}", "stop them, or wait")
        return
    if state.contexts:
        pids = ", ".join(str(process.pid) for process in state.contexts)
        held = sum(process.memory_bytes or 0 for process in state.contexts)
        what = f"other processes hold {held / 2**30:.1f} GiB of the GPU: {pids}; "
        if state.users is None:
            what += f"whether they compute NVML does not tell ({state.no_users})"
            yield warn("foreign-process", what, "stop them: a neighbour would spoil figures unseen")
        elif held > STRAY_BYTES:
            yield warn("foreign-process", f"{what}they do not compute", "stop them if cells run out of memory")
        else:
            yield note("foreign-process", f"{what}they do not compute")
    elif (state.utilisation or 0.0) > BUSY_UTILISATION:
        # Not unfit: the figure looks back up to a second, perhaps on our own last run.
        yield warn(
            "foreign-process",
            f"the GPU was busy {state.utilisation or 0.0:.0%} of the last second, with whose work NVML does not say",
            "if it stays so, look on the host with nvidia-smi: from inside a container others are invisible",
        )
    elif (state.memory_used_bytes or 0) > STRAY_BYTES:
        yield warn(
            "foreign-process",
            f"{(state.memory_used_bytes or 0) / 2**30:.1f} GiB of the GPU are taken, by whom NVML does not say",
            "look on the host with nvidia-smi: from inside a container others are invisible",
        )
    elif state.users is None and state.contexts is None:
        yield note("foreign-process", f"NVML does not tell who uses the GPU ({state.no_users}): rows are labelled so")
    else:
        yield ok("foreign-process", "nobody else computes on the GPU")


def _temperature(state: GpuState) -> Finding:
    if state.temperature_c is None:
        return note("temperature", "NVML does not tell the temperature")
    below = "its slowdown temperature is not told"
    if state.margin_c is not None:
        below = f"{state.margin_c} C below its slowdown temperature"
    what = f"{state.temperature_c} C, {below}"
    if state.margin_c is not None and state.margin_c <= SAFE_MARGIN_C:
        return unfit("temperature", what, "let it cool down, or improve the cooling")
    return ok("temperature", what)


def silence_finding(device: str, reason: str) -> Finding:
    """A GPU that NVML has lost is gone; one of which it never knew can be measured, unwatched."""
    if torch_build().get("hip"):
        return note("nvml", f"{device} is a ROCm GPU: {_UNWATCHED}")
    what = f"NVML does not answer for {device} ({reason})"
    remedy = SILENCE.get(reason, "see dmesg")
    if reason == "device_lost":
        return unfit("nvml", what, remedy)
    return warn("nvml", f"{what}: {_UNWATCHED}", remedy)


def setup_findings(gpu: Gpu, state: GpuState, torch_cuda: str | None) -> Iterator[Finding]:
    """How the GPU is set up; `gpu` as the environment describes it."""
    yield ok("gpu", gpu.name)
    if gpu.mig_uuid is not None:
        yield note("mig", "a MIG slice: it has no energy or power of its own, and others may heat the rest of the GPU")
    if gpu.persistence is False:
        yield note("persistence", "persistence mode is off: the driver unloads between runs", "sudo nvidia-smi -pm 1")
    if gpu.ecc is not None:
        yield ok("ecc", f"ECC is {'on' if gpu.ecc else 'off'}")
    set_to, limit = gpu.application_sm_clock_mhz, gpu.max_sm_clock_mhz
    if set_to is not None and limit is not None and set_to < limit:
        yield note("clocks", f"application clock {set_to} MHz, maximum {limit} MHz", "recorded with every run")
    if state.pcie_width and state.pcie_width_max and state.pcie_width < state.pcie_width_max:
        yield note("pcie", f"PCIe runs {state.pcie_width} of {state.pcie_width_max} lanes; copies are not measured")
    if state.compute_mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS:
        yield warn(
            "compute-mode",
            "one process at a time may use the GPU: a duel or gate needs two",
            "sudo nvidia-smi --compute-mode=0",
        )
    if state.cuda_driver is None or torch_cuda is None:
        return
    # A driver runs every minor version of its CUDA and all older ones.
    major, minor = divmod(state.cuda_driver, 1000)
    if int(torch_cuda.partition(".")[0]) > major:
        yield unfit(
            "driver",
            f"torch is built for CUDA {torch_cuda}, the driver runs up to {major}.{minor // 10}",
            "update the driver, or install a torch built for an older CUDA",
        )
    else:
        yield ok("driver", f"the driver runs CUDA {major}.{minor // 10}, torch is built for {torch_cuda}")


def absence_findings(root: Path = ROOT) -> Iterator[Finding]:
    """What it means that no GPU can be used, and why that may not be meant."""
    visible = visible_gpus()
    device_files = (root / "dev/nvidia0").exists() or (root / "proc/driver/nvidia/version").exists()
    if visible.problem is not None and device_files:
        yield warn(
            "nvml",
            f"there is an NVIDIA GPU, but NVML does not answer ({visible.problem})",
            SILENCE.get(visible.problem, "see the driver's log"),
        )
    if visible.present and not visible.gpus:
        yield warn("hidden", f"CUDA_VISIBLE_DEVICES hides {visible.present} GPU(s)", "unset it to use them")
    yield note(
        "no-gpu",
        "no GPU to measure on: only a suite's cpu section runs; device time, clocks, throttling and energy stay null",
    )


def order_findings(gpus: Sequence[Gpu], order: str | None) -> Iterator[Finding]:
    """Unlike GPUs are numbered fastest first by CUDA, and by bus by everything else."""
    if len({gpu.name.partition(" MIG ")[0] for gpu in gpus}) > 1 and order != "PCI_BUS_ID":
        yield warn(
            "device-order",
            "the GPUs differ, and CUDA numbers them by speed where nvidia-smi and archbench go by bus",
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
