"""The times of both sides in the same terms: corrected by one canary where that is right, and sorted by cell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


FEWEST_KEPT = 3
"""Processes of a cell that must be left, on each side, where disturbed ones are to go: fewer say nothing of scatter."""


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

    from archbench.choose.summary import fit_rows

    drifted = np.fromiter(("drift" in codes for codes in frame["reasons"]), dtype=bool, count=len(frame))
    if not drifted.any():
        return frame
    calm = pd.Series(fit_rows(frame) & ~drifted, index=frame.index)
    left = calm.groupby([frame["run_id"], frame["cell_id"]]).transform("sum")
    return frame[~(drifted & (left >= FEWEST_KEPT).to_numpy())]


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose figures may enter a test."""
    from archbench.choose.summary import fit_rows

    return frame[fit_rows(frame)]


def _timed(frame: pd.DataFrame) -> Timed:
    from archbench.choose.summary import summarise

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
