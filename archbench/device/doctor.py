"""The machine described, and examined: at length for `archbench doctor`, and in a moment before every run."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import asdict

from archbench.device.checks import Finding, worst
from archbench.device.checks.host import host_findings, judge_load, read_load, timing_findings
from archbench.device.host import read_host
from archbench.device.kind import kind_named
from archbench.device.software import read_software, software_findings
from archbench.model.environment import Environment

_DOCTOR_LOAD_S = 0.5


class Examination(Struct, frozen=True, kw_only=True):
    """What `archbench doctor` found."""

    fit: bool
    """No finding is `unfit`."""
    environment: Environment
    findings: tuple[Finding, ...]


def collect_environment(device: str) -> Environment:
    """Describe the machine for a run on `device` (`cpu` or `cuda:N`); never imports torch, takes about 50 ms.

    Holds nothing that changes by itself (load, temperature, free memory), so that a run can be resumed.
    """
    host = read_host()
    kind = kind_named(device.partition(":")[0])
    gpu, driver = kind.describe(device)
    described = asdict(host)
    del described["vector_unit"]  # it is part of the class
    return Environment(
        hardware_class=kind.hardware_class(host, gpu),
        device=device,
        gpus=() if gpu is None else (gpu,),
        driver_version=driver,
        **described,
        **asdict(read_software()),
    )


def preflight(device: str) -> tuple[Finding, ...]:
    """What must be right before a run on `cpu` or `cuda:N`; under half a second, or 1.5 on a machine that is taken.

    Another process that computes on the GPU, heat, a throttle, or a CPU of which others use more than half is `unfit`:
    refuse unless told otherwise. A CPU that is less busy, and an NVML that does not answer, is `warn`.
    """
    return tuple(kind_named(device.partition(":")[0]).preflight(device))


def examine(device: str) -> Examination:
    """Look at everything for runs on `cpu` or `cuda:N`; about two seconds."""
    environment = collect_environment(device)
    findings = tuple(_everything(environment))
    return Examination(fit=worst(findings) != "unfit", environment=environment, findings=findings)


def _everything(environment: Environment) -> Iterator[Finding]:
    yield judge_load(read_load(_DOCTOR_LOAD_S))
    yield from host_findings(environment)
    yield from timing_findings()
    yield from software_findings(environment)
    yield from kind_named(environment.kind).examine(environment)
