"""`archbench profile`: where the time and the memory of one step go, in one screen, and what would help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.cli.unfit import refuse_unfit
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    from archbench.model.cell import Cell
    from archbench.model.environment import Environment
    from archbench.model.messages import ProfileRequest
    from archbench.model.profile import Profile


def command(
    name: Annotated[str, typer.Argument(help="A catalogue name, torchvision:NAME, timm:NAME or module:function.")],
    batch_size: Annotated[str, typer.Option(metavar="N", help="Images in a step.")] = "1",
    phase: Annotated[str, typer.Option(help="inference or training")] = "inference",
    precision: Annotated[str, typer.Option(help="fp32, tf32, amp-bf16, ...")] = "fp32",
    compile_mode: Annotated[str, typer.Option(help="off, default, reduce-overhead, ...")] = "off",
    memory_format: Annotated[str, typer.Option(help="contiguous, channels_last")] = "contiguous",
    input_size: Annotated[str, typer.Option(help="Side of the square input, in pixels.")] = "",
    against: Annotated[
        str, typer.Option(metavar="NAME[@AXIS=VALUE,...]", help="Another network, or @AXIS=VALUE: other settings.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads of one operator, on the CPU.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels of modules to show; by default the stages.")] = None,
    stage: Annotated[str, typer.Option(help="Show only what is inside this module.")] = "",
    top: Annotated[int, typer.Option(min=0, max=60, help="Operators or kernels to show.")] = 6,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Follow memory over the step.")] = True,
    gradients: Annotated[bool, typer.Option("--gradients/--no-gradients", help="Gradients at initialisation.")] = True,
    html: Annotated[Path | None, typer.Option(metavar="PATH", help="Write everything as a page.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a trace for Perfetto.")] = None,
    snapshot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write CUDA's memory snapshot.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and inputs.")] = 0,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one object.")] = False,
) -> None:
    """Show where one step's time and memory go: by module, operator and stage, under the roofline."""
    from archbench.device import collect_environment, resolve_device
    from archbench.model.messages import ProfileRequest
    from archbench.model.suite import AXES

    if against and stage:
        raise UsageError("--stage shows the inside of one network; leave out --against, or --stage")
    values = (batch_size, input_size, phase, precision, compile_mode, memory_format)
    axes = dict(zip(AXES, values, strict=True))
    environment = collect_environment(resolve_device(device))
    cells = _cells(name, axes, against, environment, allow_code)
    if snapshot is not None and environment.device == "cpu":
        raise UsageError("--snapshot is of CUDA's allocator; on a CPU there is none")
    for option, path in (("--trace", trace), ("--html", html), ("--snapshot", snapshot)):
        _refuse_unwritable(option, path)
    refuse_unfit(environment.device, force)
    request = ProfileRequest(
        cell=cells[0],
        environment=environment,
        threads=threads,
        seed=seed,
        allow_code=allow_code,
        memory=memory,
        gradients=gradients,
        trace=str(trace.absolute()) if trace else None,
        snapshot=str(snapshot.absolute()) if snapshot else None,
    )
    profiles = _measure(request, cells[1:])
    if html is not None:
        _write_page(html, profiles)
    if as_json:
        _print_json(profiles)
    else:
        _show(profiles, depth=depth, stage=stage, top=top)
    for path in (html, trace, snapshot):
        if path is not None:
            print(f"written: {path}", file=sys.stderr)


def _cells(
    name: str, axes: dict[str, str], against: str, environment: Environment, allow_code: bool
) -> tuple[Cell, ...]:
    """The cell to profile, and the one to hold it against if there is one."""
    cell = _cell(name, axes, environment, allow_code)
    if not against:
        return (cell,)
    other = _cell(*_other(name, axes, against), environment, allow_code)
    if cell == other:
        raise UsageError(f"--against {against}: that is the same network at the same settings")
    return (cell, other)


def _cell(name: str, axes: dict[str, str], environment: Environment, allow_code: bool) -> Cell:
    """The one cell that these words name; every mistake in them is told as `archbench run` would."""
    from archbench.suite import suite_from_names
    from archbench.suite.plan import make_plan

    suite = suite_from_names([name], {axis: text for axis, text in axes.items() if text}, allow_code=allow_code)
    plan = make_plan(suite, "cpu" if environment.device == "cpu" else "cuda")
    if plan.skipped:
        raise UsageError(f"{name}: {plan.skipped[0].reason}")
    if len(plan.cells) != 1:
        raise UsageError(f"a profile is of one cell, and these options name {len(plan.cells)}; give one value each")
    return plan.cells[0]


def _other(name: str, axes: dict[str, str], against: str) -> tuple[str, dict[str, str]]:
    """`densenet121`, `densenet121@batch_size=4` or `@precision=amp-bf16`: what it does not say stays as it is."""
    from archbench.model.errors import did_you_mean
    from archbench.model.suite import AXES

    other, _, settings = against.partition("@")
    changed = dict(axes)
    for setting in filter(None, settings.split(",")):
        axis, equals, value = setting.partition("=")
        if axis not in AXES or not equals or not value:
            hint = did_you_mean(axis, AXES) or f"; axes: {', '.join(AXES)}"
            raise UsageError(f"--against {against}: {setting!r} is no AXIS=VALUE{hint}")
        changed[axis] = value
    return other or name, changed


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


def _measure(first: ProfileRequest, others: Sequence[Cell]) -> list[Profile]:
    """Profile one cell after the other; trace and snapshot are of the first."""
    from msgspec.structs import replace

    from archbench.profiler.client import run_profile
    from archbench.rendering.profile_findings import findings
    from archbench.worker import WorkerClient, device_lock

    profiles = []
    environment = first.environment
    with device_lock(environment.device_key), WorkerClient(device=environment.device) as worker:
        for request in (first, *(replace(first, cell=cell, trace=None, snapshot=None) for cell in others)):
            with _Phases(request.cell.network.label) as phases:
                profile = run_profile(worker, request, phases.show)
            profiles.append(replace(profile, findings=findings(profile)))
    return profiles


def _write_page(path: Path, profiles: Sequence[Profile]) -> None:
    from archbench.rendering.html import render_html
    from archbench.rendering.profile_report import profile_report
    from archbench.results.files import write_bytes

    write_bytes(path, render_html(profile_report(*profiles)).encode())


class _Phases:
    """What is being done, on one line of a terminal's stderr that goes away in the end."""

    def __init__(self, label: str) -> None:
        self._label = label

    def __enter__(self) -> _Phases:
        return self

    def show(self, phase: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self._label}: {phase}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_json(profiles: list[Profile]) -> None:
    import msgspec

    from archbench.choose.profile_difference import Compared, difference

    shown: Profile = profiles[0]
    if len(profiles) > 1:
        shown = Compared(
            **msgspec.structs.asdict(profiles[0]), against=profiles[1], difference=difference(profiles[0], profiles[1])
        )
    print(msgspec.json.encode(shown).decode())


def _show(profiles: list[Profile], *, depth: int | None, stage: str, top: int) -> None:
    """Print. A module that is not there is only known now: the rest, which took a minute, is shown all the same."""
    from archbench.cli.profile_text import show_difference, show_profile
    from archbench.model.errors import did_you_mean

    if len(profiles) > 1:
        show_difference(profiles[0], profiles[1], depth=depth)
        return
    profile = profiles[0]
    paths = [row.path for row in profile.modules]
    is_there = not stage or stage in paths
    show_profile(profile, depth=depth, stage=stage if is_there else "", top=top)
    if not is_there:
        near = did_you_mean(stage, paths)
        raise UsageError(f"--stage {stage}: {profile.network} runs no module of that name{near}")
