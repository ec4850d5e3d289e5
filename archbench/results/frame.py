"""Stored rows as a table to work with: checked, typed, and corrected for drift beside the raw figures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from archbench.catalog import dataset_of, facts
from archbench.model.axes import PLAIN
from archbench.model.cell import Network
from archbench.model.errors import UsageError
from archbench.results.files import read_struct
from archbench.results.journal import RECORDS, read_file
from archbench.results.rows import OLD_CANARY, drift_limit, judge, sound
from archbench.results.run import RunStore

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """The stored rows of a run's directory (finished, running or killed) or of one results file, without pandas.

    Raises `UsageError` for what is neither, for no rows at all, and for files of a newer version. Damaged files of a
    run are named in a warning and left out.
    """
    place = Path(path)
    table = sound(read_file(place, RECORDS), place) if place.is_file() else RunStore.open(place).table()
    if table.num_rows == 0:
        raise UsageError(f"{place}: holds no finished cell yet")
    return table


def load_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """`read_table` as a pandas DataFrame, one row a cell, round and visit, with the columns of `DERIVED`.

    Whole numbers are `Int64`, flags `boolean`, reals float64 (null is NaN), reasons tuples of text; verdicts and
    reasons as `archbench.results.rows.judge` gives them, and no canary where that takes it for none.
    Raises `UsageError` as `read_table` does.
    """
    import pandas as pd

    table = read_table(path)
    place = Path(path)
    run = place if place.is_dir() else place.parent
    judged = judge(table, drift_limit(run))
    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    # Lists would come back as numpy arrays, which have no truth value and do not compare.
    position = table.schema.get_field_index("reasons")
    frame: pd.DataFrame = table.remove_column(position).to_pandas(types_mapper=kinds.get)
    frame.insert(position, "reasons", pd.Series([row.reasons for row in judged], dtype=object))
    frame["verdict"] = pd.Series([row.verdict for row in judged], dtype=frame["verdict"].dtype)
    for younger in ("runtime", "quantize"):  # rows stored before there was a choice
        frame[younger] = frame[younger].fillna(getattr(PLAIN, younger))
    _name_datasets(frame)
    _state_accuracies(frame, _stated(run))
    old = [OLD_CANARY in row.reasons for row in judged]
    frame.loc[old, ["canary_s", "throughput_canary_s"]] = None
    speed = pd.Series([row.speed_index for row in judged], dtype=float)
    derived = {
        "speed_index": speed,
        "latency_median_corrected_s": frame["latency_median_s"] / speed,
        "throughput_corrected_img_s": frame["throughput_img_s"] * burst_speed(frame, speed),
    }
    return pd.concat([frame, pd.DataFrame(derived)], axis=1)


def burst_speed(frame: pd.DataFrame, speed: pd.Series[float]) -> pd.Series[float]:
    """`speed`, the canary's beside the steps over a reference, as it was beside the bursts, where that is known."""
    return speed * (frame["throughput_canary_s"] / frame["canary_s"]).fillna(1.0)


def _name_datasets(frame: pd.DataFrame) -> None:
    """Rows stored before there was an `accuracy_dataset` have their accuracy from the catalogue, which knows it."""
    nameless = frame["top1"].notna() & frame["accuracy_dataset"].isna()
    if nameless.any():
        names = frame.loc[nameless, "architecture"]
        known = {name: dataset_of(name) for name in names.unique()}
        frame["accuracy_dataset"] = frame["accuracy_dataset"].astype(object).where(~nameless, names.map(known))


class _Stating(Struct):
    """The part of a stored suite that may state accuracies; readable in suites of other versions too."""

    architectures: tuple[Network, ...] = ()


def _stated(run: Path) -> list[Network]:
    """Networks whose accuracy the suite in a run's directory states; none for a results file that travels alone."""
    try:
        suite = read_struct(run / "suite.json", _Stating)
    except UsageError:
        return []
    return [network for network in suite.architectures if network.accuracy is not None]


def _state_accuracies(frame: pd.DataFrame, networks: Iterable[Network]) -> None:
    """What the run's suite states now, which may be later than the rows: nothing is measured anew for that."""
    for network in networks:
        of = frame["architecture"] == network.name
        for size in frame.loc[of, "input_size"].dropna().unique():
            sized = replace(network, input_size=network.input_size or int(size))
            rows = of & frame["variant"].isin([network.label, sized.label]) & (frame["input_size"] == size)
            known = facts(network)
            values = (known.top1, known.top5, known.accuracy_source, known.accuracy_dataset)
            frame.loc[rows, ["top1", "top5", "accuracy_source", "accuracy_dataset"]] = values
