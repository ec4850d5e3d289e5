"""One side of a comparison as it is stored, what it says of itself, and whether two sides may be compared at all.

And their times in the same terms: corrected by one canary where that is right, and sorted by cell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from archbench.choose.summary import fit_rows, summarise
from archbench.model.cell import without_threads
from archbench.model.comparison import Side
from archbench.model.environment import Environment
from archbench.model.errors import UnfitError, UsageError, did_you_mean
from archbench.model.suite import Suite

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

NEVER = ("hardware_class", "protocol_version")
"""Where these differ, the times are of different experiments, and no flag makes a verdict of them."""
MUST_MATCH = {
    "torch_version": "the libraries are part of what is timed",
    "driver_version": "the driver is part of what is timed",
    "suite": "other suites ask for other cells",
    "applied": "the processes ran under other flags",
    "threads": "more cores do more at once",
}
"""Where these differ, comparing is refused, unless the difference is the question: `--allow-different COLUMN`."""
NOTED = ("torchvision_version", "timm_version", "cuda_version", "python_version", "archbench_version")
"""Where these differ, the comparison says so: they follow from the above, or rarely change a time."""
_FLAGS = (
    "matmul_precision",
    "cudnn_tf32",
    "cudnn_benchmark",
    "cudnn_deterministic",
    "threads",
    "interop_threads",
    "flush_denormals",
    "allocator",
)
"""Of what a process reads back at its timed step, that which belongs to the session and not to the cell."""
FEWEST_KEPT = 3
"""Processes of a cell that must be left, on each side, where disturbed ones are to go: fewer say nothing of scatter."""


class Rows(Struct, frozen=True, kw_only=True):
    """Rows of one side, with the suite and the machine behind them where they are known."""

    label: str
    frame: pd.DataFrame
    """As `load_frame` gives it; may hold several runs of the same thing."""
    suite: Suite | None = None
    environment: Environment | None = None


def read_rows(path: Path) -> Rows:
    """Read a run's directory, or one parquet file of results, which may hold several runs.

    Raises `UsageError` for what is neither, for no finished cell, and for files that this version cannot read.
    """
    from archbench.results import RunStore, load_frame

    frame = load_frame(path)
    if not path.is_dir():
        return Rows(label=str(path), frame=frame)
    store = RunStore.open(path)
    return Rows(label=str(path), frame=frame, suite=store.suite, environment=store.environment)


def side_of(rows: Rows) -> Side:
    """What the rows say of where they come from.

    Raises `UnfitError` where one side mixes what must not be mixed, and `UsageError` for a row that is there twice or
    lacks its hardware class.
    """
    frame = rows.frame
    if frame.empty:
        raise UsageError(f"{rows.label}: holds no finished cell")
    twice = frame[frame.duplicated(["run_id", "cell_id", "round", "visit"])]
    if not twice.empty:
        first = twice.iloc[0]
        raise UsageError(
            f"{rows.label}: holds {first['cell_id']} of round {first['round']} of run {first['run_id']} twice "
            f"({len(twice)} such rows); give each run once"
        )
    known = {name: _only(rows, name) for name in (*NEVER, "torch_version", "driver_version")}
    for name in ("torchvision_version", "timm_version", "cuda_version"):
        values = frame[name].dropna()
        known[name] = None if values.empty else str(values.mode().iloc[0])
    for name in NEVER:
        if known[name] is None:
            raise UsageError(f"{rows.label}: its rows lack {name}, so they cannot be compared with others")
    started = frame["started_at"].dropna()
    machine = rows.environment
    return Side(
        label=rows.label,
        run_ids=tuple(str(one) for one in frame["run_id"].unique()),
        hardware_class=str(known.pop("hardware_class")),
        protocol_version=int(str(known.pop("protocol_version"))),
        suite=rows.suite.suite if rows.suite else None,
        python_version=machine.python_version if machine else None,
        archbench_version=machine.archbench_version if machine else None,
        started_at=None if started.empty else str(started.min()),
        **known,
    )


def check_allowed(allow: Collection[str]) -> None:
    """Raises `UsageError` for a column that is not locked, or that no flag unlocks."""
    for name in allow:
        if name in NEVER:
            raise UsageError(
                f"--allow-different {name}: times of another {name} are another experiment; never compared"
            )
        if name not in MUST_MATCH:
            raise UsageError(
                f"--allow-different {name}: not a locked column; there are {', '.join(MUST_MATCH)}"
                f"{did_you_mean(name, MUST_MATCH)}"
            )


def refuse_incomparable(base: Side, head: Side, allow: Collection[str]) -> None:
    """Raises `UnfitError` naming the first difference that forbids comparing and is not among `allow`."""
    for name in (*NEVER, "suite", "torch_version", "driver_version"):
        ours, theirs = getattr(base, name), getattr(head, name)
        if ours is None or theirs is None or ours == theirs or name in allow:
            continue
        raise UnfitError(
            f"{name} differs: {ours} in {base.label}, {theirs} in {head.label}; "
            + (
                "measure both sides on the same hardware with the same archbench"
                if name in NEVER
                else f"{MUST_MATCH[name]}. If that is the question: --allow-different {name}"
            )
        )


def at_any_threads(base: Rows, head: Rows, allow: Collection[str]) -> tuple[Rows, Rows, str | None]:
    """Both sides with their cells under one name where they differ in the threads that were asked for; and the note.

    Raises `UnfitError` where they differ so and `threads` is not among `allow`, and `UsageError` where a side has a
    cell at several numbers of threads, so that nobody knows which is meant.
    """
    counts = [rows.frame["threads"].astype(object).fillna("the default") for rows in (base, head)]
    asked = [[str(one) for one in column.unique()] for column in counts]
    bare = [rows.frame["cell_id"].map(without_threads) for rows in (base, head)]
    shared = set(base.frame["cell_id"]) & set(head.frame["cell_id"])
    if set(asked[0]) == set(asked[1]) or shared or not set(bare[0]) & set(bare[1]):
        return base, head, None
    words = f"threads {', '.join(asked[0])} in {base.label}, {', '.join(asked[1])} in {head.label}"
    if "threads" not in allow:
        raise UnfitError(f"{words}: {MUST_MATCH['threads']}. If that is the question: --allow-different threads")
    if any(len(one) > 1 for one in asked):
        raise UsageError(f"{words}: a side has one number of threads where they may differ; name runs of one each")
    ours, theirs = (
        structs.replace(side, frame=side.frame.assign(cell_id=ids))
        for side, ids in zip((base, head), bare, strict=True)
    )
    return ours, theirs, f"The sides differ in {words}."


def other_flags(base: pd.Series, head: pd.Series, allow: Collection[str]) -> tuple[str, ...]:
    """`base`, `head`: each common cell's `applied`, in the same order. Returns the flags that differ, in words.

    Raises `UnfitError` for the first of them unless `applied` is among `allow`.
    """
    known = (base.notna() & head.notna()).to_numpy()
    found: dict[str, str] = {}
    for ours, theirs in sorted(set(zip(base[known], head[known], strict=True))):
        before, after = json.loads(ours), json.loads(theirs)
        for flag in _FLAGS:
            if flag == "threads" and "threads" in allow:
                continue
            if flag in before and flag in after and before[flag] != after[flag]:
                found.setdefault(flag, f"{flag} {before[flag]} in the base, {after[flag]} in the head")
    if found and "applied" not in allow:
        raise UnfitError(
            f"{'; '.join(found.values())}: {MUST_MATCH['applied']}. If that is the question: --allow-different applied"
        )
    return tuple(found.values())


def differences(base: Rows, head: Rows, ours: Side, theirs: Side) -> Iterator[str]:
    """Notes on everything that differs between the two sides and was not refused."""
    yield from changes(ours, theirs, base.environment, head.environment)
    if base.suite and head.suite and base.suite.protocol != head.suite.protocol:
        yield "The suites set different constants under `protocol:`, so the sides were measured with different care."


def changes(ours: Side, theirs: Side, here: Environment | None, there: Environment | None) -> Iterator[str]:
    """A note on what changed from one side to the other besides the code, as far as that is known of both."""
    pairs: list[tuple[str, Side | Environment, Side | Environment, str]]
    pairs = [(name.removesuffix("_version"), ours, theirs, name) for name in (*MUST_MATCH, *NOTED)]
    pairs += [
        (name, here, there, name) for name in ("kernel", "governor", "turbo", "smt", "cpu_model") if here and there
    ]
    changed = [
        f"{word} {before} → {after}"
        for word, one, other, name in pairs
        if (before := getattr(one, name, None)) != (after := getattr(other, name, None)) and None not in (before, after)
    ]
    for group in ("libraries", "settings") if here and there else ():
        before, after = getattr(here, group), getattr(there, group)
        changed += [
            f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}"
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    if changed:
        yield f"Besides the code, this changed: {', '.join(changed)}."


def _only(rows: Rows, name: str) -> str | None:
    """The one value of a column, `None` where no row has any."""
    values = rows.frame[name].dropna().unique()
    if len(values) > 1:
        raise UnfitError(
            f"{rows.label}: mixes {name} {' and '.join(str(value) for value in values[:2])}; one side is one thing"
        )
    return str(values[0]) if len(values) else None


class Timed(Struct, frozen=True, kw_only=True):
    """One side: a row a cell, and each cell's process medians in the order measured."""

    rows: pd.DataFrame
    """The rows behind, with `speed_index` and the corrected figures as they were used."""
    cells: pd.DataFrame
    """`summarise` of the rows, indexed by cell_id, however many runs they come from."""
    latencies: dict[str, NDArray[np.float64]]
    """Seconds; of valid rows only, shape (processes,). A cell without any is not in it."""
    rates: dict[str, NDArray[np.float64]]
    """Images per second, likewise."""

    @property
    def corrected(self) -> bool:
        """Some of the times are divided by the canary."""
        return bool(self.cells["drift_corrected"].any())


def timed(
    base: pd.DataFrame, head: pd.DataFrame, *, shared_canary: bool, correct: bool = True
) -> tuple[Timed, Timed, float | None]:
    """Both sides, and how much slower the head's canary ran as a share; `None` without a canary on both.

    `base`, `head`: as `load_frame` gives them. Within a run the canary's reference is its own median; two runs need one
    for both, or the machine's slow day would stay in the ratio. Not `shared_canary` (another torch runs another
    canary): each side keeps its own. A cell that lacks a canary somewhere is corrected on neither side; without
    `correct` none is: under other flags (threads, say) the canary is another, too, and dividing by it takes out what
    the flags do to the network.
    """
    medians = [float(frame["canary_s"].median()) for frame in (base, head)]
    lacking = without_canary(base) | without_canary(head) if correct else {*base["cell_id"], *head["cell_id"]}
    sides = [
        _timed(corrected(frame, medians[0] if shared_canary and not math.isnan(medians[0]) else own, lacking))
        for frame, own in zip((base, head), medians, strict=True)
    ]
    drift = medians[1] / medians[0] - 1
    return sides[0], sides[1], None if math.isnan(drift) else drift


def corrected(frame: pd.DataFrame, reference: float, lacking: set[str]) -> pd.DataFrame:
    """The rows with `speed_index` and the figures corrected by it against `reference`, a canary's time in seconds.

    A latency or rate that is not above 0 becomes null. Cells `lacking` a canary have no speed, and stay uncorrected.
    """
    from archbench.results.frame import burst_speed

    speed = (frame["canary_s"] / reference).mask(frame["cell_id"].isin(lacking))
    # A time of nothing is no time: it must not move a median either.
    latency, rate = (frame[name].where(frame[name] > 0) for name in ("latency_median_s", "throughput_img_s"))
    return frame.assign(
        speed_index=speed,
        latency_median_s=latency,
        throughput_img_s=rate,
        latency_median_corrected_s=latency / speed,
        throughput_corrected_img_s=rate * burst_speed(frame, speed),
    )


def without_canary(frame: pd.DataFrame) -> set[str]:
    """The cells that some usable row of theirs cannot be corrected for."""
    rows = usable(frame)
    return set(rows.loc[rows["canary_s"].isna(), "cell_id"])


def undisturbed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without those during which the canary was far off (`drift`), where the run's cell keeps `FEWEST_KEPT`.

    Dividing by a canary corrects for a machine that is slower, not for a neighbour that came and went: one canary of
    20 times its usual time, beside a network that it hardly touched, makes a ratio of a twentieth.
    """
    import pandas as pd

    drifted = np.fromiter(("drift" in codes for codes in frame["reasons"]), dtype=bool, count=len(frame))
    if not drifted.any():
        return frame
    calm = pd.Series(fit_rows(frame) & ~drifted, index=frame.index)
    left = calm.groupby([frame["run_id"], frame["cell_id"]]).transform("sum")
    return frame[~(drifted & (left >= FEWEST_KEPT).to_numpy())]


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose figures may enter a test."""
    return frame[fit_rows(frame)]


def _timed(frame: pd.DataFrame) -> Timed:
    # One side is one thing, however many runs it was measured in.
    cells = summarise(frame.assign(run_id="")).set_index("cell_id")
    rows = usable(frame)
    correct = rows["cell_id"].map(cells["drift_corrected"]).to_numpy(dtype=bool)
    factor = np.where(correct, rows["speed_index"].to_numpy(dtype=float), 1.0)
    return Timed(
        rows=frame,
        cells=cells,
        latencies=_by_cell(rows["cell_id"], rows["latency_median_s"].to_numpy(dtype=float) / factor),
        rates=_by_cell(rows["cell_id"], rows["throughput_img_s"].to_numpy(dtype=float) * factor),
    )


def _by_cell(ids: pd.Series, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Each cell's values that are numbers above 0."""
    import pandas as pd

    keep = np.isfinite(values) & (values > 0)
    codes, names = pd.factorize(ids.to_numpy()[keep])
    order = np.argsort(codes, kind="stable")
    pieces = np.split(values[keep][order], np.searchsorted(codes[order], np.arange(1, len(names))))
    return dict(zip(map(str, names), pieces, strict=False))  # without a name there is one empty piece
