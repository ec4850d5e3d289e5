"""Profiles of one cell, or of two held against each other, from what a user says to what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import asdict, replace

from archbench.catalog.user_code import FOLDER, Packed
from archbench.choose.profile_difference import Compared, difference
from archbench.device.kind import kind_named
from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell
from archbench.model.errors import UnfitError, UsageError, did_you_mean
from archbench.model.messages import CellStarted, ChildDied, PhaseStarted, ProfileDone, ProfileFailed, ProfileRequest
from archbench.model.profile import Profile
from archbench.model.suite import AXES
from archbench.options import Network, ProfileOptions, as_path, keywords
from archbench.progress import PhaseLine
from archbench.rendering.html import render_html
from archbench.rendering.profile_report import profile_report
from archbench.rendering.profile_words import findings
from archbench.results.files import write_bytes
from archbench.session import describe, held, one_cell
from archbench.worker import WorkerClient
from archbench.worker.client import HOST_GRACE_S, WorkerLostError


@keywords(ProfileOptions)
def profile(name: Network, options: ProfileOptions) -> Profile:
    """Where one step's time (seconds) and memory (bytes) go: by module, operator and stage, under the roofline.

    The network is as for `run`, `inputs`, roles and the values of axes too, one each. With `against` the profile has
    `against` and `difference` beside it. A `stage` that the network does not have is refused before anything is
    measured. Measured by a process of its own. Raises `UsageError` and `UnfitError`.
    """
    environment = describe(options.device)
    cells, networks = _cells(name, options, environment.kind)
    if options.snapshot is not None and kind_named(environment.kind).is_host:
        raise UsageError("--snapshot is of CUDA's allocator; on a CPU there is none")
    page, traced, kept = map(as_path, (options.html, options.trace, options.snapshot))
    for option, path in (("--trace", traced), ("--html", page), ("--snapshot", kept)):
        _refuse_unwritable(option, path)
    request = ProfileRequest(
        cell=cells[0],
        environment=environment,
        seed=options.seed,
        allow_code=options.allow_code,
        memory=options.memory,
        gradients=options.gradients,
        stage=options.stage,
        trace=str(traced.absolute()) if traced else None,
        snapshot=str(kept.absolute()) if kept else None,
    )
    with held(environment, force=options.force):
        first, *others = profiles = _measured(request, cells, networks, options.progress)
    if page is not None:
        write_bytes(page, render_html(profile_report(*profiles)).encode())
    return Compared(**asdict(first), against=others[0], difference=difference(first, others[0])) if others else first


def _cells(name: Network, options: ProfileOptions, kind: DeviceKind) -> tuple[list[Cell], tuple[Packed, ...]]:
    cell, networks = _cell(name, options.axes, options, kind)
    if not options.against:
        return [cell], networks
    other, _ = _cell(*_other(name, options.axes, options.against), options, kind)
    if other == cell:
        raise UsageError(f"--against {options.against}: that is the same network at the same settings")
    return [cell, other], networks


def _cell(
    network: object, axes: Mapping[str, object], options: ProfileOptions, kind: DeviceKind
) -> tuple[Cell, tuple[Packed, ...]]:
    cell, networks = one_cell(network, axes, kind, options.inputs, allow_code=options.allow_code)
    if cell.is_converted:
        raise UsageError(
            "a profile looks into PyTorch's own modules, of which nothing is left; drop runtime and quantize"
        )
    return cell, networks


def _other(network: object, axes: Mapping[str, object], against: str) -> tuple[object, dict[str, object]]:
    """`densenet121`, `densenet121@batch_size=4` or `@precision=amp-bf16`: what it does not say stays as it is."""
    name, _, settings = against.partition("@")
    changed = dict(axes)
    for setting in filter(None, settings.split(",")):
        axis, equals, value = setting.partition("=")
        if axis not in AXES or not equals or not value:
            hint = did_you_mean(axis, AXES) or f"; axes: {', '.join(AXES)}"
            raise UsageError(f"--against {against}: {setting!r} is no AXIS=VALUE{hint}")
        changed[axis] = value
    return name or network, changed


def _refuse_unwritable(option: str, path: Path | None) -> None:
    """Before anything is measured: minutes of measuring must not end at a typing mistake."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} {path}: that is a directory; name a file in it")
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}") from None


def _measured(
    request: ProfileRequest, cells: Sequence[Cell], networks: Sequence[Packed], progress: bool | None
) -> list[Profile]:
    """Profile one cell after the other; trace and snapshot are of the first."""
    requests = [request, *(replace(request, cell=cell, trace=None, snapshot=None) for cell in cells[1:])]
    profiles = []
    with TemporaryDirectory(prefix="archbench-") as folder:
        for network in networks:
            network.put(Path(folder))
        env = {**os.environ, FOLDER: folder} if networks else None
        with WorkerClient(device=request.environment.device, env=env) as worker:
            for one in requests:
                with PhaseLine(one.cell.network.label, shown=progress) as line:
                    profile = run_profile(worker, one, line.show)
                profiles.append(replace(profile, findings=findings(profile)))
    return profiles


def run_profile(
    worker: WorkerClient, request: ProfileRequest, entered: Callable[[str], None] = lambda phase: None
) -> Profile:
    """Profile in a process of its own and return what it found; `entered` is told each phase.

    Raises `UsageError` for what the network itself does wrong, `UnfitError` where the machine gives out: no memory, a
    process that died or whose phase took longer than `request.silence_s`.
    """
    label, phase = request.cell.network.label, "start"
    worker.send(request)
    try:
        while True:
            match worker.receive(request.silence_s + HOST_GRACE_S):
                case CellStarted():
                    pass
                case PhaseStarted(phase=phase):
                    entered(phase)
                case ProfileDone(profile=profile):
                    worker.receive(HOST_GRACE_S)  # `GroupFinished`: nothing of it is left when the next one begins
                    return profile
                case ProfileFailed(kind=kind, message=message):
                    raise UsageError(message) if kind == "usage" else UnfitError(message)
                case ChildDied(status=status, message=message):
                    remedy = "; try a smaller --batch-size" if status == "oom" else ""
                    raise UnfitError(f"{label}: the process died in the phase {phase!r}: {message}{remedy}")
                case other:
                    raise UnfitError(f"{label}: the worker said {type(other).__name__} in the phase {phase!r}")
    except WorkerLostError as lost:
        raise UnfitError(f"{label}: lost in the phase {phase!r}: {lost.message}") from None
    except BaseException:
        worker.kill()
        raise
