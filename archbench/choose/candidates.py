"""The cells of one run or several as a decision sees them: a summary with what the catalogue knows, one row a cell.

How far to trust the figures of a run, in words that are the same wherever they stand. And the comparability lock, which
rows may be ranked against each other: rows that differ in a column of `RANKING_KEYS` are split into groups, each ranked
by itself, unless it was named (`across`); then they are ranked together, and the difference is a footnote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.catalog import counted_by_label, year_of
from archbench.catalog.card import weights_tag
from archbench.choose.cell_summary import CellSummary, Estimate, cell_summaries
from archbench.choose.summary import KEYS, Spread, earlier_spreads, spreads_of, summarise
from archbench.model.axes import AS_USUAL, ROLES, TOGGLES, Toggles
from archbench.model.derived import RANKING_KEYS
from archbench.model.errors import UsageError
from archbench.model.record import FAILED
from archbench.model.units import HUNDREDFOLD, counted, excess, listed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


WIDER = 3.0
"""Times the median interval from which a cell's own is an exception, named as such: one cell that a neighbour sat on
should not make the statement on all others useless."""
_OF_THE_REFERENCE = {"output_rel_error": 0.0, "output_cosine": 1.0, "output_top1_agreement": 1.0, "top1_drop": 0.0}
"""What an output is to itself."""
_LIKE = ["cell_id", "hardware_class", "torch_version", "protocol_version"]
"""Rows alike in these are of one cell on one machine."""
ACCURACY_DATASET = "accuracy_dataset"
PUBLISHED = "as published"
"""In the place of an image size: each network at the size that it was published for."""
NULL_MEANS = {
    "threads": "default",
    "inputs": "one square image",
    **{name: str(getattr(AS_USUAL, name)).lower() for name in ROLES},
}
"""What a row has in whose column nothing stands, where that says something."""
_MOST_NAMED = 6
_PLACE = ["variant", "hardware_class", "phase", "batch_size"]


class Trust(Struct, frozen=True, kw_only=True):
    """What the differences between a run's figures mean."""

    statement: str
    """A sentence or two: which differences are differences, and where that is known from."""
    apart: float | None = None
    """Two networks whose times differ by more than this, as a ratio less 1, differ; `None` where it is not known. Of
    pairs of equal networks one in twenty lies further apart."""


class Candidates(Struct, frozen=True, kw_only=True):
    """What a decision chooses from."""

    frame: pd.DataFrame
    """One row a run and cell, columns as in `archbench.model.derived.judged_columns`."""
    trust: dict[str, Trust]
    """What differences between the figures of each run mean, by run id."""
    superseded: tuple[str, ...] = ()
    """Which runs' cells are left out since a newer run has them, one sentence a run."""


def read_candidates(paths: Sequence[Path]) -> Candidates:
    """The cells of the runs (directories or results files). Raises `UsageError` for what is none, or is named twice."""
    import pandas as pd

    from archbench.results import load_frame

    frames, places = [], set()
    spreads: dict[str, Spread] = {}
    for path in paths:
        frames.append(load_frame(path))  # first: a path that leads in a circle cannot be resolved
        if path.resolve() in places:
            raise UsageError(f"{path}: this run is named twice; name it once")
        places.add(path.resolve())
        spreads |= spreads_of(frames[-1], earlier_spreads(path, frames[-1]))
    rows = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    return candidates(summarise(rows, spreads), spreads)


def candidates(summary: pd.DataFrame, spreads: Mapping[str, Spread]) -> Candidates:
    """The rows of a `summarise`d frame as a decision sees them. Of a cell measured in several like runs, the newest."""
    summary = summary.reset_index(drop=True)
    trust = {
        str(run): trust_of(cell_summaries(rows), spreads.get(str(run), Spread()))
        for run, rows in summary.groupby("run_id", sort=False)
    }
    frame = summary.assign(**_known(summary), **_settings(summary), **_outputs(summary))
    newest = _newest(frame)
    kept = frame.loc[newest].reset_index(drop=True)
    return Candidates(frame=kept, trust=trust, superseded=_told(frame, newest))


def _known(summary: pd.DataFrame) -> dict[str, pd.Series]:
    import pandas as pd

    def whole(column: str, known: dict[str, int | None]) -> pd.Series:
        return pd.to_numeric(summary[column].map(known)).astype("Float64").astype(pd.Int64Dtype())

    # What is counted here does not depend on the size of the image.
    natives = {label: re.sub(r"\[input_size=\d+\]$", "", label) for label in summary["variant"].unique()}
    counted = {label: one for label, name in natives.items() if (one := counted_by_label().get(name)) is not None}
    names = summary["architecture"].unique()
    weights = summary["architecture"].map({name: weights_tag(name) for name in names}).astype(object)
    return {
        "year": whole("architecture", {name: year_of(name) for name in names}),
        "depth": whole("variant", {label: one.counts.depth for label, one in counted.items()}),
        "feature_width": whole("variant", {label: one.feature_width for label, one in counted.items()}),
        "weights": weights.where(weights.notna(), None),
        "pretrained": weights.notna(),
    }


def _outputs(summary: pd.DataFrame) -> dict[str, pd.Series]:
    """How far outputs lie from the reference's, of cells that were not judged themselves, too.

    The reference's own lie at nothing, by definition. Others are judged at the smallest batch of their group, and a
    bound on their outputs holds for larger batches of the same setting.
    """
    found = {}
    for column, own in _OF_THE_REFERENCE.items():
        is_reference, judged_elsewhere = (
            summary["reasons"].map(lambda codes, code=f"{column}:{why}": code in codes).astype(bool)
            for why in ("is_reference", "first_batch_only")
        )
        judged = summary[column].where(~is_reference, own)
        siblings = judged.groupby([summary["run_id"], summary["group_id"]], sort=False).transform("first")
        found[column] = judged.where(~judged_elsewhere, siblings)
    return found


def _settings(summary: pd.DataFrame) -> dict[str, pd.Series[int]]:
    """Under how many bundles of toggles each network ran and failed, over all its cells of the run."""
    setting = summary.groupby(list(TOGGLES), sort=False, dropna=False).ngroup()
    network = [summary["run_id"], summary["variant"]]
    became = {"settings_ok": summary["status"] == "ok", "settings_failed": summary["status"].isin(FAILED)}
    return {
        name: setting.where(which).groupby(network, sort=False).transform("nunique").astype(np.int64)
        for name, which in became.items()
    }


def _newest(frame: pd.DataFrame) -> pd.Index[int]:
    """Rows less the older of two runs' figures of one cell on one machine: the better of two would win by luck."""
    import pandas as pd

    if frame["run_id"].nunique() < 2:
        return frame.index
    # By the clock and not by the runs' names, which are whatever `--out` said; a row with figures before one without.
    begun = pd.to_datetime(frame["started_at"], utc=True, format="ISO8601", errors="coerce")
    order = frame.assign(measured=frame["status"] == "ok", begun=begun)
    order = order.sort_values(["measured", "begun", KEYS[0]], kind="stable", na_position="first")
    return order.drop_duplicates(_LIKE, keep="last").index.sort_values()


def _told(frame: pd.DataFrame, newest: pd.Index[int]) -> tuple[str, ...]:
    """What is left out for a newer run's sake: a reader has to know which run the figures are from."""
    out = frame.drop(newest)
    if out.empty:
        return ()
    instead = out[_LIKE].merge(frame.loc[newest, [*_LIKE, "run_id"]], on=_LIKE, how="left")["run_id"]
    begun = frame.groupby("run_id")["started_at"].min()

    def named(run: str) -> str:
        return f"{run} (begun {str(begun[run])[:16].replace('T', ' ')} UTC)" if begun.notna()[run] else run

    notes = []
    for run, places in out.reset_index(drop=True).groupby("run_id", sort=False).groups.items():
        winners = " and ".join(named(one) for one in instead[places].unique())
        cells = "1 cell is" if len(places) == 1 else f"{len(places):,} cells are"
        notes.append(
            f"Of run {named(str(run))} {cells} left out, which run {winners} has, too: of a cell the newest counts."
        )
    return tuple(notes)


def trust_of(cells: Iterable[CellSummary], spread: Spread) -> Trust:
    """What is to be said of a run with these cells and this spread, earlier runs included.

    The distance beyond which two equal networks lie in one pair of twenty: sqrt(2) times the root mean square of the
    cells' own half intervals, in logs. It holds where some scatter more than others: of mixtures of normals and of
    Student's t, the 97.5 % quantile is near 1.96 standard deviations, be the tails as they may.
    """
    usable = [one for one in cells if one.is_usable]
    timed = [one for one in map(_timed, usable) if one is not None]
    if not timed:
        return Trust(statement="No time was measured." if usable else "No figure is fit to be compared.")
    halves = [one.half for one in timed if one.half]
    if (spread.latency or spread.throughput) is None or not halves:
        return Trust(
            statement="Every cell was measured by one process: how far processes differ is not known, nor which "
            "differences are real; ± is the interval within the process (`--rounds 3` tells)."
        )
    usual = median(halves)
    within = [half for half in halves if half <= WIDER * usual]
    apart = math.expm1(math.sqrt(2 * fmean(half * half for half in within)))
    wider = len(halves) - len(within)
    return Trust(statement=f"{_meaning(len(timed), apart, wider)} {_basis(spread)}", apart=apart)


def _timed(one: CellSummary) -> Estimate | None:
    """By latency, else by throughput; `None` where it has neither."""
    return next((found for measure in ("latency", "throughput") if (found := one.timed(measure)).value), None)


def _meaning(cells: int, apart: float, wider: int) -> str:
    if 1 + apart > HUNDREDFOLD:
        return "The machine was too restless to tell any two networks apart."
    if cells == 1:
        return f"Measured again, the one cell would come out up to {excess(apart)} apart."
    but = f", but for {counted(wider, 'cell')} whose own ± is much wider" if wider else ""
    return f"Two networks that differ by more than {excess(apart)} differ{but}; nearer ones may be equal."


def _basis(spread: Spread) -> str:
    groups = "one network" if spread.groups == 1 else f"{spread.groups:,} groups of cells"
    here = f"{groups} that more than one process measured" if spread.groups else ""
    before = f"{counted(spread.earlier, 'earlier run')} on this hardware" if spread.earlier else ""
    if not here:
        return f"Every cell was measured by one process; how far processes differ is known from {before}."
    return f"Known from {' and '.join(filter(None, (here, before)))}."


class Circumstance(Struct, frozen=True):
    """What all rows of a group have in common in one column that tells groups apart."""

    column: str
    value: str | int


class Footnote(Struct, frozen=True):
    """One column in which cells differ that are ranked together."""

    column: str
    text: str


class Comparables(Struct, frozen=True, kw_only=True):
    """Rows that may be ranked against each other."""

    circumstances: tuple[Circumstance, ...]
    """Empty where all rows are alike."""
    rows: NDArray[np.int64]
    """Positions in the frame: of the rows that were asked about, and of the others under the same circumstances."""


def comparable_groups(
    frame: pd.DataFrame, wanted: NDArray[np.bool_], across: Collection[str], *, by_accuracy: bool = False
) -> tuple[Comparables, ...]:
    """Split the frame's rows by every locked column in which the `wanted` ones differ, but for those in `across`.

    `by_accuracy`: what is asked judges accuracies, so that those of different data sets stand apart, too.

    One group of all rows where nothing is wanted. Groups come in the order of their circumstances, numbers ascending.
    """
    import pandas as pd

    keys: dict[str, pd.Series[Any]] = {}
    for column in RANKING_KEYS:
        values = _sizes(frame, wanted) if column == "input_size" else frame[column].astype(object)
        if column == ACCURACY_DATASET and not by_accuracy:
            continue
        if column not in across and values[wanted].nunique(dropna=False) > 1:
            keys[column] = values.where(values.notna(), NULL_MEANS.get(column, "unknown"))
    if not keys:
        return (Comparables(circumstances=(), rows=np.arange(len(frame))),)
    key_frame = pd.DataFrame(keys)
    number = key_frame.groupby(list(keys), sort=False).ngroup().to_numpy()
    groups = []
    for one in np.unique(number[wanted]):
        rows = np.flatnonzero(number == one)
        first = key_frame.iloc[rows[0]]
        own = ((name, first[name]) for name in keys)
        alike = tuple(Circumstance(n, int(v) if isinstance(v, (int, np.integer)) else str(v)) for n, v in own)
        groups.append(Comparables(circumstances=alike, rows=rows))
    return tuple(sorted(groups, key=lambda group: [_order(one.value) for one in group.circumstances]))


def differences(ranked: pd.DataFrame, across: Collection[str]) -> tuple[Footnote, ...]:
    """What rows that stand in one ranking differ in, one sentence a difference."""
    notes = []
    for column, why in RANKING_KEYS.items():
        usual = NULL_MEANS.get(column)
        known = ranked[column].dropna() if usual is None else ranked[column].astype(object).fillna(usual)
        values = known.unique()
        if column in across and len(values) > 1:
            shown = ", ".join(str(value) for value in sorted(values.tolist(), key=_order))
            notes.append(Footnote(column, f"Ranked across {column} ({shown}): {why}."))
        elif column == "input_size" and len(values) > 1:
            usual_size = ranked["input_size"].mode().iloc[0]
            others = ranked[ranked["input_size"].notna() & (ranked["input_size"] != usual_size)]
            named = [f"{row.variant} {row.input_size}" for row in others.drop_duplicates("variant").itertuples()]
            but = listed(named, _MOST_NAMED)
            told = f"Each network at the image size that it was published for: {usual_size} px, but {but}."
            notes.append(Footnote(column, told))
    return tuple(notes)


def unlike_settings(frame: pd.DataFrame, ahead: pd.DataFrame, behind: pd.DataFrame) -> tuple[Footnote, ...]:
    """Who loses to a network under a setting that they were never tried under: a tuned network against an untuned one.

    `ahead`, `behind`: rows of `frame`, pair by pair. A setting that failed was tried. One sentence a row ahead.
    """
    tried = set(frame.loc[frame["status"] != "skipped", [*_PLACE, *TOGGLES]].itertuples(index=False, name=None))
    untried: dict[tuple[str, str], list[str]] = {}
    pairs = zip(ahead[["variant", *TOGGLES]].values.tolist(), behind[_PLACE].values.tolist(), strict=True)
    for (first, *toggles), place in pairs:
        if (*place, *toggles) not in tried:
            untried.setdefault((first, Toggles(**dict(zip(TOGGLES, toggles, strict=True))).label), []).append(place[0])
    return tuple(
        Footnote(
            "setting",
            f"{listed(names, _MOST_NAMED)} {'was' if len(names) == 1 else 'were'} not measured under {setting}, as "
            f"{first} was: part of the distance may be the setting's.",
        )
        for (first, setting), names in untried.items()
    )


def accuracies(ranked: pd.DataFrame) -> tuple[str, ...]:
    """Whose weights and protocol the published accuracies are of, one sentence each; empty where there are none."""
    sources = ranked.drop_duplicates("variant").groupby("accuracy_source", sort=False)["variant"]
    if sources.ngroups < 2:
        return tuple(f"Top-1 is quoted, not measured: {source}." for source in sources.groups)
    notes = ["Top-1 is quoted, not measured, and not by one protocol."]
    for source, members in sources:
        notes.append(f"{source}: {listed(members.tolist(), _MOST_NAMED)}.")
    return tuple(notes)


def _sizes(frame: pd.DataFrame, wanted: NDArray[np.bool_]) -> pd.Series[Any]:
    """Image sizes, but `PUBLISHED` for networks at their own wherever the wanted rows have several.

    An engineer who asks for the best network means EfficientNet-B4 at 380 px and ResNet-50 at 224 px. Only a network
    that was measured at another size than its own is a different question.
    """
    sizes = frame["input_size"].astype(object)
    if sizes[wanted].nunique(dropna=False) < 2:
        return sizes
    return sizes.where(frame["variant"].str.contains("input_size=", regex=False), PUBLISHED)


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, (int, np.integer))
    return (not number, float(value) if number else 0.0, str(value))
