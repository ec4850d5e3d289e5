"""`archbench gate`: base and head take turns on this machine, and every cell gets a verdict."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archbench.cli.console import INTERRUPTED
from archbench.cli.unfit import refuse_unfit
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    from archbench.comparison.gate import GateBooks, GatePlay, GateSpec, Project, SideRun, SideSpec
    from archbench.comparison.gate.play import Played
    from archbench.model.cell import Plan
    from archbench.model.comparison import Comparison
    from archbench.model.environment import Environment
    from archbench.model.suite import Suite

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smh])")


def command(
    what: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file.")],
    base: Annotated[str, typer.Option(metavar="X", help="A Python interpreter, a git revision, or . as it lies here.")],
    head: Annotated[str | None, typer.Option(metavar="Y", help="The same, of what may have become slower.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Cells to keep: resnet*, resnet50@batch_size=1.")
    ] = None,
    aa: Annotated[
        bool, typer.Option("--aa", help="Base against itself: learn how widely each cell scatters here.")
    ] = False,
    static: Annotated[
        bool,
        typer.Option("--static", help="Only what is counted, predicted and traced, on any machine; nothing is timed."),
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(metavar="10m", help="Stop measuring after so long: 90s, 10m, 2h.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The gate's directory; else under results/gate/.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, md, json, junit, or another of `compare`.")
    ] = "text",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where a cell is undecided, invalid, or failed on both sides.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function architectures.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")
    ] = False,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, by processes that take turns here and now."""
    from archbench.rendering.comparison import check_format

    format = "json" if as_json else format
    check_format(format, Path())
    budget_s = None if max_time is None else seconds_of(max_time, "--max-time")
    if aa and head is not None:
        raise UsageError("--aa sets base against itself; leave --head away")
    if static and (aa or budget_s is not None):
        raise UsageError(f"{'--aa' if aa else '--max-time'} is about times, and --static takes none; leave it away")
    if head is None and not aa:
        raise UsageError("--head is missing; name what is to be compared with the base (or give --aa)")

    from archbench.comparison.gate import find_project
    from archbench.device import collect_environment, resolve_device
    from archbench.suite import read_suite
    from archbench.suite.plan import make_plan
    from archbench.worker import device_lock

    suite, text = read_suite(what, allow_code=allow_code)
    resolved = resolve_device(device)
    environment = collect_environment(resolved)
    plan = make_plan(suite, environment.kind, only=only or (), rounds=1)
    project = find_project(Path.cwd())
    sides = _sides(base, base if head is None else head, project)
    if static:
        options = _static_options(resolved, only or (), allow_code)
        place = out or Path("results") / "static" / suite.suite
        raise typer.Exit(_static(Path(what), sides, project, place, options, format=format, strict=strict))
    refuse_unfit(resolved, force)
    spec = _spec(suite, plan, sides, environment, learning=aa, allow_code=allow_code)
    with device_lock(environment.device_key):
        books = _books(spec, text, out)
        code = _run(spec, suite, plan, books, project, budget_s=budget_s, format=format, strict=strict)
    raise typer.Exit(code)


def seconds_of(text: str, option: str) -> float:
    """Seconds of `90s`, `10m` or `2h`. Raises `UsageError` for anything else, and for 0."""
    found = _TIME.fullmatch(text.strip())
    seconds = float(found["number"]) * _UNITS_S[found["unit"]] if found else 0.0
    if not seconds:
        raise UsageError(f"{option} {text!r}: is no time; write 90s, 10m or 2h")
    return seconds


def _sides(base: str, head: str, project: Project | None) -> tuple[SideSpec, SideSpec]:
    from archbench.comparison.gate import read_side, uncommitted

    one = read_side(base, "--base", project, sys.executable)
    other = read_side(head, "--head", project, sys.executable)
    if (one.kind == "interpreter") != (other.kind == "interpreter"):
        raise UsageError(
            f"--base {base} is {_kind(one)} and --head {head} {_kind(other)}; give two interpreters, or two revisions"
        )
    if project is not None and "worktree" not in (one.kind, other.kind) and one.kind == "revision":
        changed = uncommitted(project)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            print(
                f"archbench: warning: {changed[0]}{more} changed since the last commit, and neither side has these "
                "changes: --head . measures the tree as it is",
                file=sys.stderr,
            )
    return one, other


def _kind(side: SideSpec) -> str:
    return {"interpreter": "an interpreter", "revision": "a revision", "worktree": "the working tree"}[side.kind]


def _static_options(device: str, only: Sequence[str], allow_code: bool) -> list[str]:
    """The options of `archbench run` that mean the same cells."""
    chosen = [word for pattern in only for word in ("--only", pattern)]
    return ["--device", device, *chosen, *(["--allow-code"] if allow_code else [])]


def _static(
    suite: Path,
    sides: Sequence[SideSpec],
    project: Project | None,
    place: Path,
    options: Sequence[str],
    *,
    format: str,
    strict: bool,
) -> int:
    from archbench.comparison.gate.static import static_gate

    comparison = static_gate(suite, sides, project, place, python=sys.executable, options=options)
    _tell(comparison, place, format)
    return comparison.exit_code(strict)


def _spec(
    suite: Suite,
    plan: Plan,
    sides: tuple[SideSpec, SideSpec],
    environment: Environment,
    *,
    learning: bool,
    allow_code: bool,
) -> GateSpec:
    from archbench.comparison.gate import GateSpec
    from archbench.model.protocol import protocol_for
    from archbench.results import suite_hash

    protocol = protocol_for(plan.device, suite.protocol)
    environments = [_environment(side, environment) for side in sides]
    return GateSpec(
        suite=suite.suite,
        suite_hash=suite_hash(suite),
        cells=tuple(cell.cell_id for cell in plan.cells),
        device=environment.device,
        base=sides[0],
        head=sides[1],
        base_environment=environments[0],
        head_environment=environments[1],
        turns=protocol.turns,
        turn_s=protocol.turn_s,
        seed=suite.seed,
        learning=learning,
        allow_code=allow_code,
    )


def _environment(side: SideSpec, here: Environment) -> Environment:
    """Revisions run in this very interpreter; another one is asked, which also shows whether it can measure at all."""
    from archbench.worker import WorkerClient

    if side.kind != "interpreter":
        return here
    with WorkerClient(side.identity, device=here.device) as worker:
        return worker.start().environment


def _books(spec: GateSpec, text: str, out: Path | None) -> GateBooks:
    """The gate to continue, or a new one."""
    from archbench.comparison.gate import GATES, GateBooks, find_gates, new_gate_id, refuse_other

    if out is not None:
        if not GateBooks.holds(out):
            return GateBooks.create(out, spec, text)
        refuse_other(out, spec)
        return GateBooks(out)
    for path in find_gates(GATES, spec):
        if not (path / "comparison.json").exists():
            return GateBooks(path)
        break  # the last one was finished: the same command begins a new one
    return GateBooks.create(GATES / spec.suite / new_gate_id(spec), spec, text)


def _run(
    spec: GateSpec,
    suite: Suite,
    plan: Plan,
    books: GateBooks,
    project: Project | None,
    *,
    budget_s: float | None,
    format: str,
    strict: bool,
) -> int:
    from archbench.comparison.gate import GatePlay, opened
    from archbench.comparison.gate.noise import read_noise
    from archbench.model.protocol import protocol_for
    from archbench.worker import run_lock

    noise = read_noise(spec.base_environment.hardware_class)
    thresholds = {
        cell.cell_id: noise.threshold(cell.cell_id, turns=spec.turns, turn_s=spec.turn_s) for cell in plan.cells
    }
    with run_lock(books.path):
        play = GatePlay(spec, books, plan.cells, thresholds, protocol_for(plan.device, suite.protocol))
        done = sum(len(log.everything) for log in play.logs.values())
        if done:
            print(f"archbench: resuming {books.path}: {done} pairs are done", file=sys.stderr)
        with ExitStack() as stack:
            sides = [
                stack.enter_context(opened(side, project, books.path, sys.executable))
                for side in (spec.base, spec.head)
            ]
            interrupted = _play(play, spec, books, sides, budget_s)
        if interrupted:
            print(f"archbench: interrupted; the same command resumes {books.path}", file=sys.stderr)
            return INTERRUPTED
        return _conclude(play, spec, plan, books, sides, format=format, strict=strict)


def _play(play: GatePlay, spec: GateSpec, books: GateBooks, sides: Sequence[SideRun], budget_s: float | None) -> bool:
    """Play what is left to play; return whether that was interrupted."""
    from archbench.cli.gate_progress import PairProgress
    from archbench.worker import WorkerClient

    if not play.moves(settle=budget_s is not None):
        return False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is as good as Ctrl-C
    try:
        with ExitStack() as stack:
            workers = [
                stack.enter_context(
                    WorkerClient(
                        side.python,
                        device=spec.device,
                        env=side.env,
                        cwd=side.cwd,
                        log=(books.path / f"worker-{name}.log").absolute(),
                    )
                )
                for name, side in zip(("base", "head"), sides, strict=True)
            ]
            progress = stack.enter_context(PairProgress())

            def tell(played: Played) -> None:
                progress.show(
                    played.move.cell_id,
                    played.pair,
                    done=played.pairs_done,
                    left=played.pairs_left,
                    cells_open=played.cells_open,
                    seconds_left=played.seconds_left,
                )

            play.play(workers, sides, max_time_s=budget_s, tell=tell)
    except KeyboardInterrupt:
        return True
    return False


def _conclude(
    play: GatePlay,
    spec: GateSpec,
    plan: Plan,
    books: GateBooks,
    sides: Sequence[SideRun],
    *,
    format: str,
    strict: bool,
) -> int:
    from archbench.comparison.gate import conclude
    from archbench.comparison.gate.noise import read_noise, write_noise

    notes = [f"{skip.cell.cell_id} was skipped: {skip.reason}." for skip in plan.skipped]
    if spec.learning:
        pairs = {cell_id: log.everything for cell_id, log in play.logs.items()}
        noise = read_noise(spec.base_environment.hardware_class).learnt(pairs, spec)
        notes.append(f"Learnt how widely the cells scatter: {write_noise(noise)}.")
        play.thresholds = {
            cell_id: noise.threshold(cell_id, turns=spec.turns, turn_s=spec.turn_s) for cell_id in play.logs
        }
    comparison = conclude(spec, list(play.logs.values()), play.thresholds, sides, notes)
    _tell(comparison, books.path, format)
    return comparison.exit_code(strict)


def _tell(comparison: Comparison, place: Path, format: str) -> None:
    """Leave the comparison in the gate's directory, and print it."""
    from archbench.rendering.comparison import FORMATS, write_comparison

    write_comparison(comparison, "md", place / "report.md")
    write_comparison(comparison, "json", place / "comparison.json")
    text = FORMATS[format](comparison)
    if isinstance(text, str):
        print(text, end="")
        print(f"archbench: {place}", file=sys.stderr)
    else:
        for written in write_comparison(comparison, format, place / f"{format}.json"):
            print(written)
