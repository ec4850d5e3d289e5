"""archbench from Python: what the commands do, with the same words, as functions that return what they found.

A mistake of the caller's raises `UsageError` and a machine that is not fit `UnfitError`, with the text that the command
prints; a network that fails is a row with its reason, not an exception. Every function imports what it needs when it
is called, so that `import archbench` costs nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archbench.model.errors import Interrupted
from archbench.model.units import plain
from archbench.options import (
    CompareOptions,
    Network,
    PathOrText,
    PickOptions,
    PlanOptions,
    ReportOptions,
    RunOptions,
    as_path,
    keywords,
    several,
)

if TYPE_CHECKING:
    import pandas as pd

    from archbench.choose.pick import Picked
    from archbench.model.cell import Plan
    from archbench.model.comparison import Comparison
    from archbench.model.environment import Environment
    from archbench.model.record import Record
    from archbench.rendering.run_data import RunData
    from archbench.results import Exported, Session

_SHOWN: dict[str, Any] = {"max_rows": 30, "index": False, "na_rep": "-", "float_format": lambda value: plain(value, 4)}
"""How a run displays itself."""


class Run:
    """A run on disk: finished, running, or killed. Displays itself as a table.

    `path`: its directory. Raises `UsageError` for a directory that holds none.
    """

    def __init__(self, path: PathOrText) -> None:
        from archbench.results import RunStore, located

        self._store = RunStore.open(located(path))
        self.path: Path = self._store.path
        self.alongside: tuple[Run, ...] = ()
        """From `archbench.run` on devices of several classes of hardware: the runs of the other classes."""

    @cached_property
    def rows(self) -> list[Record]:
        """One row for each cell, round and visit, judged beside the others, as `archbench run --json` prints them."""
        return self._store.judged_records()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as `archbench.load` gives them: times in seconds, sizes in bytes, columns as in docs/columns.md."""
        return load(self.path)

    @property
    def environment(self) -> Environment:
        """The machine and the libraries."""
        return self._store.environment

    @property
    def machines(self) -> dict[str, Environment]:
        """Each device that measured a row, by its name in the column `machine`."""
        return self._store.machines

    @property
    def suite(self) -> str:
        """The suite's name; `quick` where networks were named."""
        return self._store.suite.suite

    @property
    def sessions(self) -> list[Session]:
        """Of each call that measured for this run how long it was expected to take, and took, in seconds."""
        return self._store.sessions

    @property
    def statuses(self) -> dict[str, int]:
        """How many rows ended how: `{"ok": 83, "oom": 1}`."""
        return dict(Counter(row.status for row in self.rows))

    @property
    def verdicts(self) -> dict[str, int]:
        """How many of the measured rows are `ok`, `suspect` or `invalid`."""
        return dict(Counter(row.verdict for row in self.rows if row.verdict is not None))

    @cached_property
    def _summary(self) -> RunData:
        from archbench.rendering.run_data import read_run

        return read_run(self.path)

    @property
    def trust(self) -> str:
        """Which differences between the run's figures are differences, as its report says."""
        return self._summary.trust.statement

    @keywords(ReportOptions)
    def report(self, options: ReportOptions) -> str | Path:
        """As `archbench.report` of this run."""
        return report(self.path, **vars(options))

    @keywords(PickOptions)
    def pick(self, options: PickOptions) -> Picked:
        """As `archbench.pick` from this run."""
        return pick(self.path, **vars(options))

    def table(self) -> pd.DataFrame:
        """The cells in the units in which people read them: milliseconds, images per second, MiB."""
        import pandas as pd

        from archbench.model.units import MIB, MS

        cells = self._summary.cells
        return pd.DataFrame(
            {
                "network": [cell.network for cell in cells],
                "phase": [cell.phase for cell in cells],
                "batch": [cell.batch_size for cell in cells],
                "setting": [cell.setting_label for cell in cells],
                "latency ms": [_in(cell.rank_latency_s, MS.size) for cell in cells],
                "img/s": [_in(cell.rank_throughput_img_s, 1) for cell in cells],
                "peak MiB": [_in(cell.peak_bytes, MIB.size) for cell in cells],
                "verdict": [cell.verdict or cell.status for cell in cells],
            }
        )

    def __repr__(self) -> str:
        table = self.table().to_string(**_SHOWN) if self.rows else ""
        return f"{self._headline()}\n{table}".rstrip()

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table().to_html(**_SHOWN, border=0) if self.rows else ""
        return f"<p>{escape(self._headline())}</p>\n{table}"

    def _headline(self) -> str:
        from archbench.rendering.provenance import outcome

        found = outcome(self._summary) if self.rows else "nothing finished yet"
        return f"{self.path} on {self.environment.hardware_class}: {found}"


@keywords(RunOptions)
def run(what: PathOrText | Network | Sequence[Network], options: RunOptions) -> Run:
    """Measure a suite, or a few networks; a second call resumes. What `archbench run` does.

    Each group of cells is measured by a process of its own, so the call is safe in a notebook and in a script without
    `if __name__ == "__main__"`, whatever a network does to its process. A network that is passed as an object is sent
    there: a module is measured with the weights that it has, a function is called to make one, and what was passed is
    named by its class or function and a hash of its content (`TinyNet#3f2a91bc`).

    - `what`: a suite's path; or a network, or a list of them: names, modules, functions (see `Network`). Of networks
      each axis, `batch_size` to `loss` and `runtime` and `quantize`, has one value or a list, crossed with each other;
      a suite has its own. `inputs`: as a suite has them, `[{"shape": [16], "dtype": "int64", "high": 1000}]`, or in
      short; left out, what the networks' own code says (docs/suites.md), else one image.
    - `device`: several cards take groups in turn, `cuda:0,cuda:1` or `cuda:*`. To a Ray cluster the user's code
      travels. Devices of several classes of hardware measure all of it each, at once: a run for each class, under `out`
      a folder; the run that is returned has the others `alongside`.
    - `out`: by default the directory under `results/` here that this call began before, or a new one. Of two rows of a
      cell that is measured again the better counts, then the newer; both are kept.
    - `progress`: by default a bar in terminals and notebooks, and elsewhere a line for each cell that fails; False:
      nothing is printed.

    Raises `UsageError` and `UnfitError`; warns of what may spoil figures by `FitnessWarning`; and where
    `KeyboardInterrupt` ends it, `Interrupted`, which is one and knows the `path` of the run so far.
    """
    from archbench.pipeline import carry_out_all, prepare

    found = carry_out_all(prepare(what, options))
    for path, interrupted in found:
        if interrupted:
            raise Interrupted(path)
    first, *others = (Run(path) for path, _ in found)
    first.alongside = tuple(others)
    return first


@keywords(PlanOptions)
def plan(what: PathOrText | Network | Sequence[Network], options: PlanOptions) -> Plan:
    """What `run` would measure: its cells in the order of each round, and those it would skip, with the reason.

    `predicted_s` of the plan is how long that is expected to take, seconds, and `predicted_from` what that is known by.
    Parameters as of `run`; cells may be planned for `cuda` where there is none. Raises `UsageError`.
    """
    from archbench.session import foreseen

    return foreseen(what, options)[1]


def merge(
    runs: PathOrText | Sequence[PathOrText], *, out: PathOrText | None = None, partial: bool = False
) -> list[Run]:
    """Unite runs of one suite, the shards of many machines or runs of some cells each; one run a hardware class.

    `out`: a new directory, by default one under `results/`; of several classes, it holds a run for each. `partial`: a
    shard may be missing or unfinished. Every row keeps the device that measured it (column `machine`). Raises
    `UsageError` for runs that do not belong together (suite, protocol, torch), for a row that is in two of them, and
    for a shard that is missing.
    """
    from archbench.results import merge as unite
    from archbench.results import placed

    with placed(out) as place:
        return [Run(path) for path in unite(_places(runs), place, partial=partial)]


def export(run: PathOrText, *, out: PathOrText | None = None) -> Exported:
    """Write a run as one file that `load`, `report`, `compare` and `pick` read: rows, raw timings, machines, hashes.

    `out`: a file that ends in `.archbench`; by default `SUITE-RUN.archbench` here. The result has the file's `path`
    and its `sha256`, to publish beside it. Exported twice, a run gives the same bytes. Raises `UsageError` for what is
    not a run, and `UnfitError` where the file cannot be written.
    """
    from archbench.results import export as write
    from archbench.results import located, placed

    with placed(out) as place:
        return write(located(run), place)


def load(path: PathOrText) -> pd.DataFrame:
    """Read a run (finished, running or killed) or one parquet file of results into a pandas DataFrame.

    One row per cell and round, columns as in `docs/columns.md`, times in seconds and sizes in bytes, plus
    `speed_index` and the figures corrected by it. Raises `UsageError` for what is not a run.
    """
    from archbench.results import load_frame, located

    return load_frame(located(path))


def summary(path: PathOrText) -> pd.DataFrame:
    """What the report of a run prints, as a pandas DataFrame: one row a cell, columns as in `docs/columns.md`.

    Times in seconds (the median over processes, corrected for the machine's drift where the report's are), with their
    95 % intervals; the verdict that the whole run gives; sizes in bytes. `summary.parquet` and `summary.csv` in the
    run's directory hold the same as of its last report. Raises `UsageError` for what is not a run.
    """
    from archbench.rendering.run_data import read_run, summary_frame
    from archbench.results import located

    return summary_frame(read_run(located(path)))


@keywords(ReportOptions)
def report(runs: PathOrText | Sequence[PathOrText], options: ReportOptions) -> str | Path:
    """Render stored results, of one run or of several side by side: the report as text, or where `out` now holds it.

    HTML is one page that works offline; markdown has its plots as SVG anyway. Raises `UsageError` for what is not a run
    or not known, and `UnfitError` where `out` cannot be written.
    """
    from archbench.rendering.report import FORMATS, check_format, read_report, write_report

    paths, place, format = _paths(runs), as_path(options.out), options.format
    written: list[str] = several(options.plots)
    kinds = [word.strip() for words in written for word in words.split(",") if word]
    check_format(format, kinds)
    only: list[str] = several(options.only)
    label: list[str] = several(options.label)
    if place is not None:
        return write_report(paths, format, place, only=only, label=label, table=options.table, plots=kinds)
    return FORMATS[format](read_report(paths, only=only, label=label, table=options.table))


def site(runs: PathOrText | Sequence[PathOrText], *, out: PathOrText = "site") -> Path:
    """Write a static site of runs side by side, to be published as it is; returns its index.

    An index (ratios to each device's reference, a decision matrix for each class of hardware), and for each run its
    report and its exported file. Raises `UsageError` for what is not a run, and `UnfitError` where it cannot be
    written.
    """
    from archbench.rendering.report import write_site

    return write_site(_paths(runs), Path(out))


@keywords(PickOptions)
def pick(runs: PathOrText | Sequence[PathOrText], options: PickOptions) -> Picked:
    """Which network satisfies these conditions: rankings with margins and intervals, and why each other is left out.

    All conditions have to hold; without a goal the smallest latency_median comes first. Raises `UsageError`; where
    nothing satisfies the conditions, `Picked.found` is false.
    """
    from archbench.choose.candidates import read_candidates
    from archbench.choose.pick import asked
    from archbench.choose.pick import pick as choose

    question = asked(**{name: several(words) for name, words in vars(options).items()})
    return choose(read_candidates(_paths(runs)), question)


@keywords(CompareOptions)
def compare(options: CompareOptions) -> Comparison:
    """Say of every cell whether `head` is slower than `base`, and of what is counted whether it grew.

    Both are stored runs, or parquet files of results. Raises `UsageError`, and `UnfitError` for sides that must not be
    compared (other hardware, another protocol).
    """
    from archbench.comparison import compare as judge
    from archbench.comparison import read_rows
    from archbench.comparison.noise import known_floor

    before, after = map(read_rows, _paths([options.base, options.head]))
    learnt = known_floor(str(before.frame["hardware_class"].iloc[0]))
    return judge(before, after, allow=several(options.allow_different), floors=() if learnt is None else (learnt,))


def _places(runs: PathOrText | Sequence[PathOrText]) -> Sequence[PathOrText]:
    return [runs] if isinstance(runs, str | os.PathLike) else runs


def _paths(runs: PathOrText | Sequence[PathOrText]) -> list[Path]:
    """Where runs can be read from, of directories, exported files and URLs."""
    from archbench.results import located

    return [located(run) for run in _places(runs)]


def _in(value: float | None, unit: float) -> float:
    """A figure in a unit; NaN where there is none."""
    return float("nan") if value is None else value / unit
