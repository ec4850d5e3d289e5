"""The machine's examination: at length for `archbench doctor`, and in a moment before every run."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct

from archbench.device import nvml
from archbench.device.checks import Finding, worst
from archbench.device.checks.gpu import (
    absence_findings,
    order_findings,
    read_state,
    setup_findings,
    silence_finding,
    urgent_findings,
)
from archbench.device.checks.host import host_findings, judge_load, read_load
from archbench.device.checks.software import software_findings
from archbench.device.environment import collect_environment
from archbench.device.visible import visible_gpus
from archbench.model.environment import Environment

_PREFLIGHT_LOAD_S = 0.25
_DOCTOR_LOAD_S = 0.5


class Examination(Struct, frozen=True, kw_only=True):
    """What `archbench doctor` found."""

    fit: bool
    """No finding is `unfit`."""
    environment: Environment
    findings: tuple[Finding, ...]


def preflight(device: str) -> tuple[Finding, ...]:
    """What must be right before a run on `cpu` or `cuda:N`; under half a second.

    Another process that computes on the GPU, heat, or a throttle is `unfit`: refuse unless told otherwise. A busy CPU,
    and an NVML that does not answer, is `warn`.
    """
    if device == "cpu":
        return (judge_load(read_load(_PREFLIGHT_LOAD_S)),)
    return tuple(_gpu_now(device))


def examine(device: str) -> Examination:
    """Look at everything for runs on `cpu` or `cuda:N`; about two seconds."""
    environment = collect_environment(device)
    findings = tuple(_everything(environment))
    return Examination(fit=worst(findings) != "unfit", environment=environment, findings=findings)


def _everything(environment: Environment) -> Iterator[Finding]:
    from archbench.device.checks.timing import timing_findings  # numpy takes 0.1 s that preflight does not have

    yield judge_load(read_load(_DOCTOR_LOAD_S))
    yield from host_findings(environment)
    yield from timing_findings()
    yield from software_findings(environment)
    if environment.device == "cpu":
        yield from absence_findings()
        return
    yield from order_findings(visible_gpus().gpus, os.environ.get("CUDA_DEVICE_ORDER"))
    yield from _gpu_now(environment.device, environment)


def _gpu_now(device: str, environment: Environment | None = None) -> Iterator[Finding]:
    """The GPU's state; with an environment, its setup too."""
    ordinal = int(device.partition(":")[2] or 0)
    try:
        with nvml.session():
            visible = visible_gpus().gpus
            if ordinal >= len(visible):
                raise nvml.NvmlError("device_lost")
            state = read_state(visible[ordinal])
    except nvml.NvmlError as error:
        yield silence_finding(device, error.reason)
        return
    yield from urgent_findings(state)
    if environment is not None and environment.gpus:
        yield from setup_findings(environment.gpus[0], state, environment.cuda_version)
