"""A gate from what a user says to the verdicts: both sides found, pairs played on disk, and what follows from them."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from archbench.comparison.gate import (
    GATES,
    GateBooks,
    GatePlay,
    GateSpec,
    Project,
    SideRun,
    SideSpec,
    conclude,
    find_gates,
    find_project,
    new_gate_id,
    opened,
    read_side,
    refuse_other,
    uncommitted,
)
from archbench.comparison.gate.noise import read_noise, write_noise
from archbench.comparison.gate.play import Played
from archbench.comparison.gate.static import static_gate
from archbench.model.cell import Plan
from archbench.model.comparison import Comparison
from archbench.model.environment import Environment
from archbench.model.errors import FitnessWarning, Interrupted, UsageError
from archbench.model.protocol import protocol_for
from archbench.model.suite import Suite
from archbench.progress import PairProgress
from archbench.results import suite_hash
from archbench.session import callers_level, describe, held
from archbench.suite import read_suite
from archbench.suite.plan import make_plan
from archbench.worker import WorkerClient, run_lock

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smh])")


def gate_of(
    what: str,
    *,
    base: str,
    head: str | None,
    only: Sequence[str],
    aa: bool,
    static: bool,
    max_time: str | None,
    out: Path | None,
    device: str,
    allow_code: bool,
    force: bool,
    progress: bool | None,
) -> tuple[Comparison, Path]:
    """The comparison and the directory in which it lies. Parameters as of `archbench.gate`; errors as there."""
    budget_s = None if max_time is None else seconds_of(max_time, "--max-time")
    if aa and head is not None:
        raise UsageError("--aa sets base against itself; leave --head away")
    if static and (aa or budget_s is not None):
        raise UsageError(f"{'--aa' if aa else '--max-time'} is about times, and --static takes none; leave it away")
    if head is None and not aa:
        raise UsageError("--head is missing; name what is to be compared with the base (or give --aa)")
    suite, text = read_suite(what, allow_code=allow_code)
    environment = describe(device)
    plan = make_plan(suite, environment.kind, only=only, rounds=1)
    project = find_project(Path.cwd())
    sides = _sides(base, base if head is None else head, project)
    if static:
        place = out or Path("results") / "static" / suite.suite
        options = _static_options(environment.device, only, allow_code)
        return static_gate(Path(what), sides, project, place, python=sys.executable, options=options), place
    with held(environment, force=force):
        spec = _spec(suite, plan, sides, environment, learning=aa, allow_code=allow_code)
        books = _books(spec, text, out)
        with run_lock(books.path):
            return _played(spec, suite, plan, books, project, budget_s=budget_s, progress=progress), books.path


def seconds_of(text: str, option: str) -> float:
    """Seconds of `90s`, `10m` or `2h`. Raises `UsageError` for anything else, and for 0."""
    found = _TIME.fullmatch(text.strip())
    seconds = float(found["number"]) * _UNITS_S[found["unit"]] if found else 0.0
    if not seconds:
        raise UsageError(f"{option} {text!r}: is no time; write 90s, 10m or 2h")
    return seconds


def _sides(base: str, head: str, project: Project | None) -> tuple[SideSpec, SideSpec]:
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
            warnings.warn(
                f"{changed[0]}{more} changed since the last commit, and neither side has these changes: --head . "
                "measures the tree as it is",
                FitnessWarning,
                stacklevel=callers_level(),
            )
    return one, other


def _kind(side: SideSpec) -> str:
    return {"interpreter": "an interpreter", "revision": "a revision", "worktree": "the working tree"}[side.kind]


def _static_options(device: str, only: Sequence[str], allow_code: bool) -> list[str]:
    """The options of `archbench run` that mean the same cells."""
    chosen = [word for pattern in only for word in ("--only", pattern)]
    return ["--device", device, *chosen, *(["--allow-code"] if allow_code else [])]


def _spec(
    suite: Suite,
    plan: Plan,
    sides: tuple[SideSpec, SideSpec],
    environment: Environment,
    *,
    learning: bool,
    allow_code: bool,
) -> GateSpec:
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
    if side.kind != "interpreter":
        return here
    with WorkerClient(side.identity, device=here.device) as worker:
        return worker.start().environment


def _books(spec: GateSpec, text: str, out: Path | None) -> GateBooks:
    """The gate to continue, or a new one."""
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


def _played(
    spec: GateSpec,
    suite: Suite,
    plan: Plan,
    books: GateBooks,
    project: Project | None,
    *,
    budget_s: float | None,
    progress: bool | None,
) -> Comparison:
    """Play what is left to play, and conclude. Raises `Interrupted`; the pairs that are finished are kept."""
    noise = read_noise(spec.base_environment.hardware_class)
    thresholds = {
        cell.cell_id: noise.threshold(cell.cell_id, turns=spec.turns, turn_s=spec.turn_s) for cell in plan.cells
    }
    play = GatePlay(spec, books, plan.cells, thresholds, protocol_for(plan.device, suite.protocol))
    with ExitStack() as stack:
        sides = [
            stack.enter_context(opened(side, project, books.path, sys.executable)) for side in (spec.base, spec.head)
        ]
        try:
            _play(play, spec, books, sides, budget_s, progress)
        except KeyboardInterrupt:
            raise Interrupted(books.path) from None
    return _conclusion(play, spec, plan, sides)


def _play(
    play: GatePlay,
    spec: GateSpec,
    books: GateBooks,
    sides: Sequence[SideRun],
    budget_s: float | None,
    progress: bool | None,
) -> None:
    with ExitStack() as stack:
        line = stack.enter_context(PairProgress(books.path, done=_done(play), shown=progress))
        if not play.moves(settle=budget_s is not None):
            return
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

        def tell(played: Played) -> None:
            line.show(
                played.move.cell_id,
                played.pair,
                done=played.pairs_done,
                left=played.pairs_left,
                cells_open=played.cells_open,
                seconds_left=played.seconds_left,
            )

        play.play(workers, sides, max_time_s=budget_s, tell=tell)


def _done(play: GatePlay) -> int:
    return sum(len(log.everything) for log in play.logs.values())


def _conclusion(play: GatePlay, spec: GateSpec, plan: Plan, sides: Sequence[SideRun]) -> Comparison:
    notes = [f"{skip.cell.cell_id} was skipped: {skip.reason}." for skip in plan.skipped]
    if spec.learning:
        pairs = {cell_id: log.everything for cell_id, log in play.logs.items()}
        noise = read_noise(spec.base_environment.hardware_class).learnt(pairs, spec)
        notes.append(f"Learnt how widely the cells scatter: {write_noise(noise)}.")
        play.thresholds = {
            cell_id: noise.threshold(cell_id, turns=spec.turns, turn_s=spec.turn_s) for cell_id in play.logs
        }
    return conclude(spec, list(play.logs.values()), play.thresholds, sides, notes)
