"""Gates and duels from what a user says to the verdicts: sides found, pairs played on disk, and what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from msgspec import structs

from archbench.comparison.findings import accepted_file, apply_accepted
from archbench.comparison.gate import (
    FEWEST_PAIRS,
    PAIRS,
    Duel,
    DuelPlay,
    DuelSpec,
    GatePlay,
    GateSpec,
    finish,
    open_duel,
    open_gate,
    set_thresholds,
)
from archbench.comparison.interleave import Interleave
from archbench.comparison.rows import read_rows
from archbench.comparison.sides import (
    Project,
    SideRun,
    SideSpec,
    content_at,
    find_project,
    opened,
    read_side,
    uncommitted,
)
from archbench.comparison.stored import compare
from archbench.model.cell import Cell, Plan
from archbench.model.comparison import Comparison, PairDone, SuiteLines
from archbench.model.environment import Environment
from archbench.model.errors import FitnessWarning, Interrupted, UnfitError, UsageError
from archbench.model.protocol import protocol_for
from archbench.model.suite import Suite
from archbench.model.units import listed
from archbench.options import DuelOptions, GateOptions, Inputs, PathOrText, as_path, keywords, several
from archbench.pipeline import NO_REPORT
from archbench.progress import PairProgress
from archbench.query.quantity import seconds_of
from archbench.results import suite_hash
from archbench.results.run import RESULTS
from archbench.session import callers_level, describe, followed, held
from archbench.suite import inputs_as_written, lines_of, read_suite
from archbench.suite.cells import parse_cell
from archbench.suite.plan import make_plan
from archbench.worker import WorkerClient, run_lock

FEWEST_TURNS = 3
MOST_PAIRS = 1000


@keywords(GateOptions)
def gate(what: PathOrText, options: GateOptions) -> Comparison:
    """Say of every cell of a suite whether `head` is slower than `base`, by processes that take turns here and now.

    Errors as of `run`, `Interrupted` too. `place` of the comparison is the gate's directory, by default the one that
    this call began before, or a new one: there it is told as `report.md` and `comparison.json`. `exit_code()` is what
    the command exits with.
    """
    from archbench.rendering.comparison_formats import write_comparison

    budget_s = _refuse_contradictions(options)
    suite, text = read_suite(os.fspath(what), allow_code=options.allow_code)
    environment = describe(options.device)
    plan = make_plan(suite, environment.kind, only=several(options.only), rounds=1)
    project = find_project(Path.cwd())
    sides = _sides(options.base, options.base if options.head is None else options.head, project)
    file, place = Path(what), as_path(options.out)
    if options.static:
        place = place or Path("results") / "static" / suite.suite
        found = _static_gate(file, sides, project, place, environment.device, options)
    else:
        with held(environment, force=options.force):
            spec = _spec(suite, plan, sides, environment, learning=options.aa, allow_code=options.allow_code)
            store = open_gate(spec, text, place, finished=options.accept is not None)
            place = store.path
            with run_lock(place), ExitStack() as trees:
                play = GatePlay(spec, store, plan.cells, protocol_for(plan.device, suite.protocol))
                set_thresholds(play.logs.values(), spec)
                runs = [trees.enter_context(opened(side, project, place)) for side in sides]
                _play(play, ("base", "head"), runs, spec.device, budget_s, options.progress)
                found = finish(play, spec, plan, runs)
    found = _told(found, file, lines_of(suite, text), sides[0], project, options.accept)
    found = structs.replace(found, place=str(place))
    for format, name in (("md", "report.md"), ("json", "comparison.json")):
        write_comparison(found, format, place / name)
    return found


def _static_gate(
    suite: Path, sides: Sequence[SideSpec], project: Project | None, out: Path, device: str, options: GateOptions
) -> Comparison:
    """Run `archbench run SUITE --static` with each side's code and compare what they say, with nothing timed.

    Leaves each side's rows in `out` as `base.parquet` and `head.parquet`.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot store a gate in {out}: {error.strerror}; give another with --out") from error
    patterns: list[str] = several(options.only)
    chosen = [word for pattern in patterns for word in ("--only", pattern)]
    code = ["--allow-code"] if options.allow_code else []
    words = ["run", str(suite.absolute()), "--static", "--device", device, *chosen, *code]
    rows = []
    with tempfile.TemporaryDirectory(prefix="archbench-static-") as folder:
        for name, side in zip(("base", "head"), sides, strict=True):
            place = Path(folder) / name
            with opened(side, project, Path(folder)) as run:
                _measure_static(run, [*words, "--out", str(place)], place, f"--{name} {side.described}")
            rows.append(structs.replace(read_rows(place), label=side.described))
            shutil.copyfile(place / RESULTS, out / f"{name}.parquet")
    # No figure here is a time: where two interpreters have two torch versions, that is the question.
    return compare(*rows, allow=("torch_version", "driver_version"))


def _measure_static(run: SideRun, words: Sequence[str], place: Path, who: str) -> None:
    """Have the side's own archbench leave its figures in `place`; what it says last is this command's error."""
    command = [run.python, "-m", "archbench", *words]
    nothing, pipe, env = subprocess.DEVNULL, subprocess.PIPE, {**(run.env or os.environ), NO_REPORT: "1"}
    try:
        done = subprocess.run(command, env=env, cwd=run.cwd, stdout=nothing, stderr=pipe, text=True, check=False)
    except OSError as error:
        raise UnfitError(f"{who}: cannot be started: {error.strerror}") from error
    if done.returncode in (0, 1) and place.exists():  # 1: a cell failed, which is for the comparison to judge
        return
    said = [line.strip(" │") for line in done.stderr.splitlines() if line.strip(" │╭╮╰╯─")]
    last = said[-1].removeprefix("archbench: ") if said else f"exit code {done.returncode}"
    if "No such option" in last:
        last = "its archbench is older than --static; install the version of this one there"
    elif "No module named archbench" in last:
        last = "has no archbench; install it there"
    raise (UsageError if done.returncode == UsageError.exit_code else UnfitError)(f"{who}: {last}")


def _refuse_contradictions(options: GateOptions) -> float | None:
    """The seconds that there are for measuring, once all that is asked for goes together."""
    aa = options.aa
    if options.accept is not None and (aa or not options.accept.strip()):
        raise UsageError("--aa finds nothing to --accept" if aa else "--accept needs a reason: why is it meant?")
    budget_s = None if options.max_time is None else seconds_of(options.max_time, "--max-time")
    if aa and options.head is not None:
        raise UsageError("--aa sets base against itself; leave --head away")
    if options.static and (aa or budget_s is not None):
        raise UsageError(f"{'--aa' if aa else '--max-time'} is about times, and --static takes none; leave it away")
    if options.head is None and not aa:
        raise UsageError("--head is missing; name what is to be compared with the base (or give --aa)")
    return budget_s


def _told(
    comparison: Comparison,
    suite: Path,
    lines: dict[str, int],
    base: SideSpec,
    project: Project | None,
    accept: str | None,
) -> Comparison:
    """The comparison with the lines of the suite, and what the file beside it accepts, marked as that."""
    file = accepted_file(suite)
    here, before = str(suite), ""
    if project is not None:
        here = os.path.relpath(suite, project.root)
        before = content_at(project, base, os.path.relpath(file, project.root))
    found = structs.replace(comparison, suite_file=SuiteLines(path=here, lines=lines))
    return apply_accepted(found, file, before, accept, date.today())


@keywords(DuelOptions)
def duel(*cells: str, options: DuelOptions) -> Duel:
    """Settle a close call: two or more cells take turns block by block, and each is held against the first.

    `cells`: as their ids are, `resnet50@batch_size=1,precision=amp-bf16`; what is left out has its default, and a cell
    may say itself what its network takes, `my.nets:net[inputs=16/int64]`. Errors as of `run`, `Interrupted` too. Ratios
    are of times (the cell's over the first one's).
    """
    budget_s = None if options.max_time is None else seconds_of(options.max_time, "--max-time")
    turns = options.turns
    if len(cells) < 2:
        raise UsageError(f"a duel needs two cells or more, and there is {repr(cells[0]) if cells else 'none'}")
    count = PAIRS if options.pairs is None else options.pairs
    if not FEWEST_PAIRS <= count <= MOST_PAIRS:
        raise UsageError(f"--pairs {count} is out of range; give {FEWEST_PAIRS} to {MOST_PAIRS}")
    if turns is not None and not FEWEST_TURNS <= turns <= MOST_PAIRS:
        raise UsageError(f"--turns {turns} is out of range; give {FEWEST_TURNS} to {MOST_PAIRS}")
    environment = describe(options.device)
    protocol = protocol_for(environment.kind, {} if turns is None else {"turns": turns})
    named = _cells(cells, environment, options.inputs, options.allow_code)
    spec = DuelSpec(cells=named, protocol=protocol, environment=environment)
    with held(environment, force=options.force):
        store = open_duel(spec, fresh=options.fresh)
        with run_lock(store.path):
            play = DuelPlay(spec, store, pairs=count, allow_code=options.allow_code)
            sides = [SideRun(python=sys.executable, env=None)] * len(cells)
            names = [str(number) for number in range(1, len(sides) + 1)]
            _play(play, names, sides, environment.device, budget_s, options.progress)
            return play.concluded()


def _play(
    play: Interleave,
    names: Sequence[str],
    sides: Sequence[SideRun],
    device: str,
    budget_s: float | None,
    progress: bool | None,
) -> None:
    """Play what is left to play, each side by a worker of its own. Raises `Interrupted`; finished pairs are kept."""

    def events() -> Generator[PairDone, None, None]:
        if not play.next_pairs(settle=budget_s is not None):
            return
        with ExitStack() as stack:
            workers = [
                stack.enter_context(
                    WorkerClient(
                        side.python,
                        device=device,
                        env=side.env,
                        cwd=side.cwd,
                        log=(play.store.path / f"worker-{name}.log").absolute(),
                    )
                )
                for name, side in zip(names, sides, strict=True)
            ]
            yield from play.play(workers, sides, max_time_s=budget_s)

    place = play.store.path
    if followed(events(), play.store, PairProgress(place, done=play.pairs_done, shown=progress)):
        raise Interrupted(place)


def _cells(texts: Sequence[str], environment: Environment, inputs: Inputs, allow_code: bool) -> tuple[Cell, ...]:
    found: dict[str, Cell] = {}
    for text in texts:
        cell = parse_cell(text, environment.kind, inputs=inputs_as_written(inputs), allow_code=allow_code)
        if cell.cell_id in found:
            raise UsageError(f"{text!r} is named twice; `archbench gate --aa` sets a cell against itself")
        found[cell.cell_id] = cell
    return tuple(found.values())


def _sides(base: str, head: str, project: Project | None) -> tuple[SideSpec, SideSpec]:
    one = read_side(base, "--base", project)
    other = read_side(head, "--head", project)
    if (one.kind == "interpreter") != (other.kind == "interpreter"):
        kinds = {"interpreter": "an interpreter", "revision": "a revision", "worktree": "the working tree"}
        raise UsageError(
            f"--base {base} is {kinds[one.kind]} and --head {head} {kinds[other.kind]}; give two interpreters, or two "
            "revisions"
        )
    if project is not None and "worktree" not in (one.kind, other.kind) and one.kind == "revision":
        changed = uncommitted(project)
        if changed:
            warnings.warn(
                f"{listed(changed, 1)} changed since the last commit, and neither side has these changes: --head . "
                "measures the tree as it is",
                FitnessWarning,
                stacklevel=callers_level(),
            )
    return one, other


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
