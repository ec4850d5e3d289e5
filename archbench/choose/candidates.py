"""The cells of one run or several as a decision sees them: a summary with what the catalogue knows, one row a cell.

And how far to trust the figures of a run, in words that are the same wherever they stand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from archbench.catalog import counted_by_label, year_of
from archbench.catalog.published import weights_tag
from archbench.choose.cell_summary import CellSummary, cell_summaries
from archbench.choose.margins import Estimate
from archbench.choose.summary import KEYS, Spread, earlier_spreads, spreads_of, summarise
from archbench.model.axes import TOGGLES
from archbench.model.errors import UsageError
from archbench.model.record import FAILED
from archbench.model.units import HUNDREDFOLD, counted, excess

if TYPE_CHECKING:
    import pandas as pd


WIDER = 3.0
"""Times the median interval from which a cell's own is an exception, named as such: one cell that a neighbour sat on
should not make the statement on all others useless."""


class Trust(Struct, frozen=True, kw_only=True):
    """What the differences between a run's figures mean."""

    statement: str
    """A sentence or two: which differences are differences, and where that is known from."""
    apart: float | None = None
    """Two networks whose times differ by more than this, as a ratio less 1, differ; `None` where it is not known. Of
    pairs of equal networks one in twenty lies further apart."""


_OF_THE_REFERENCE = {"output_rel_error": 0.0, "output_cosine": 1.0, "output_top1_agreement": 1.0, "top1_drop": 0.0}
"""What an output is to itself."""


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


_LIKE = ["cell_id", "hardware_class", "torch_version", "protocol_version"]
"""Rows alike in these are of one cell on one machine."""


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
