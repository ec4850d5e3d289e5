"""Writes docs/columns.md from the types themselves: every stored column and reason code.

python docs/columns_page.py > docs/columns.md
"""

from __future__ import annotations

from collections.abc import Iterable

from archbench.model.derived import ADDED, CANDIDATE, DERIVED
from archbench.model.profile import PROFILE_VERSION
from archbench.model.reasons import REASONS
from archbench.model.record import SCHEMA_VERSION, Column, columns
from archbench.rendering.content import Code, Paragraph, Section, Table, report
from archbench.rendering.run_data import summary_columns
from archbench.rendering.text import render_markdown

_TYPES = {"text": "text", "real": "float64", "whole": "int64", "flag": "bool", "texts": "list of text"}
SAMPLE_COLUMNS = {
    "cell_id": "with round and visit: the row that the timing belongs to",
    "round": "as in the row",
    "visit": "as in the row",
    "experiment": "latency (synchronised steps), throughput (bursts), device_time (behind a backlog), canary",
    "block": "which run of consecutive timings, from 0",
    "steps": "steps in this timing; the times are for all of them together",
    "host_s": "seconds by the host's clock",
    "device_s": "seconds between device events; null where there are none",
    "issue_s": "seconds in which the host issued the steps; null on the CPU",
    "kept": "false where the probe rejected the block, or the backlog did not hold",
}
"""Columns of samples.parquet, which are those of `archbench.model.record.Sample`."""

PROFILE_FIELDS = {
    "profile_version": "version of these fields",
    "cell_id, round, visit": "the row that the table belongs to",
    "step_s": "seconds of an unobserved step",
    "observed_step_s": "seconds of the observed one, to which stages and parts add up but for modules outside stages",
    "observing_cost": "observed over unobserved, less 1",
    "steps": "observed steps that the times are means of",
    "whole": "the network: times forward and backward, MACs, FLOP, bytes moved and kept, share of the roofline",
    "stages": "the same for each of its stages, in order",
    "parts": "loss, optimizer, and what belongs to no module",
}
"""Of a file in profile/, which holds one `archbench.model.profile.StageProfile`."""


def columns_markdown() -> str:
    """The page on columns and reason codes."""
    opening = Paragraph(
        "Seconds and bytes throughout; null means not measured, never 0, and `reasons` says why. "
        "A MAC is one multiply-accumulate, which is 2 FLOP. "
        f"This is schema version {SCHEMA_VERSION}, which every file carries in its metadata."
    )
    samples = tuple((f"`{name}`", meaning) for name, meaning in SAMPLE_COLUMNS.items())
    reasons = tuple(
        (f"`{code}`", reason.effect, reason.meaning, reason.remedy or "-") for code, reason in REASONS.items()
    )
    sections = (
        _section(
            "results.parquet",
            "One row a cell, round and visit: what one process measured of one cell. A column that belongs to a "
            "metric is null in a suite that does not ask for it; the others are in every row that got so far.",
            _columns(columns().values(), metrics=True),
        ),
        _section(
            "summary.parquet and summary.csv",
            "One row a cell, as the report prints it: written with each report into the run's directory, and given by "
            "`archbench.summary(path)`. Read these where the figures have to be the report's: "
            "`duckdb -c \"from 'RUN/summary.parquet'\"`, `polars.read_parquet`. The rows of results.parquet are "
            "neither corrected for drift nor judged beside each other.",
            _columns(summary_columns()),
        ),
        _section(
            "Added by archbench.load",
            "Only the whole run can tell these, so they are made when it is read, as is the reason `drift` of a row "
            "whose canary left the band of `drift_limit` around the run's median.",
            _columns(DERIVED.values()),
        ),
        _section(
            "Added by the summary over rounds",
            "`archbench.choose.summary.summarise` gives one row a cell: medians over its processes, intervals between "
            "them, the worst verdict, all reasons. Reports and decisions use it.",
            _columns(ADDED.values()),
        ),
        _section(
            "Added for decisions",
            "`pick` and the decision matrix ask for these as well; docs/picking.md has the language. A column's unit "
            "may be left out there: `latency_p99` is `latency_p99_s`.",
            _columns(CANDIDATE.values()),
        ),
        _section(
            "samples.parquet",
            "Every raw timing, so that each statistic can be computed again.",
            Table(headings=("Column", "Meaning"), rows=samples),
        ),
        _section(
            "profile/",
            "One JSON file a cell, round and visit, where the suite asks for the metric `profile`, under the name of "
            f"the row's own. Profile version {PROFILE_VERSION}. `archbench.results.RunStore.open(run).profiles()` "
            "reads them all.",
            Table(headings=("Field", "Meaning"), rows=tuple((f"`{n}`", m) for n, m in PROFILE_FIELDS.items())),
        ),
        _section(
            "Reason codes",
            "`invalid` and `suspect` reasons make the verdict, labels do not. The others stand behind a column "
            "(`latency_p99_s:too_few_samples`) and say why it is null.",
            Table(headings=("Code", "Effect", "Meaning", "What to do"), rows=reasons),
        ),
    )
    return render_markdown(report("Columns", opening, Code(_EXAMPLE, "python"), sections))


_EXAMPLE = """\
import archbench

frame = archbench.load("results/smoke/20250102T030405Z-0123abcd")
fast = frame[(frame.status == "ok") & (frame.latency_median_s < 0.010)]"""


def _section(title: str, text: str, table: Table) -> Section:
    return Section(title=title, blocks=(Paragraph(text), table))


def _columns(known: Iterable[Column], *, metrics: bool = False) -> Table:
    rows = tuple(
        (f"`{one.name}`", _TYPES[one.kind], one.unit or "", *([one.metric or ""] if metrics else []), one.description)
        for one in known
    )
    return Table(headings=("Column", "Type", "Unit", *(["Metric"] if metrics else []), "Meaning"), rows=rows)


if __name__ == "__main__":
    print(columns_markdown(), end="")
