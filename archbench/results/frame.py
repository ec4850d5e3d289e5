"""Stored rows as a table to work with: checked, typed, and corrected for drift beside the raw figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from archbench.model.derived import DISTURBED
from archbench.model.errors import UsageError
from archbench.model.protocol import Protocol
from archbench.results.journal import read_file
from archbench.results.run import RunStore
from archbench.results.schema import RECORDS

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """The stored rows of a run's directory (finished, running or killed) or of one results file, without pandas.

    Raises `UsageError` for what is neither, for no rows at all, and for files of a newer version. Damaged files of a
    run are named in a warning and left out.
    """
    place = Path(path)
    table = read_file(place, RECORDS) if place.is_file() else RunStore.open(place).table()
    if table.num_rows == 0:
        raise UsageError(f"{place}: holds no finished cell yet")
    return table


def load_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """`read_table` as a pandas DataFrame, one row a cell, round and visit, with the columns of `DERIVED`.

    Whole numbers are `Int64`, flags `boolean`, reals float64 (null is NaN), reasons tuples of text. A row whose canary
    left the band `drift_limit` around the run's median gets the reason `drift`, and `suspect` where it was `ok`; one
    whose canary is off by the factor `DISTURBED` gets that reason and is `invalid`: only the whole run can tell. Raises
    `UsageError` as `read_table` does.
    """
    import pandas as pd

    table = read_table(path)
    place = table.schema.get_field_index("reasons")
    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    # Lists would come back as numpy arrays, which have no truth value and do not compare.
    frame: pd.DataFrame = table.remove_column(place).to_pandas(types_mapper=kinds.get)
    speed = frame["canary_s"] / frame.groupby("run_id")["canary_s"].transform("median")
    drifted = ((speed - 1).abs() > _drift_limit(Path(path))) & frame["verdict"].notna()
    disturbed = drifted & ((speed > DISTURBED) | (speed < 1 / DISTURBED))
    frame.loc[drifted & (frame["verdict"] == "ok"), "verdict"] = "suspect"
    frame.loc[disturbed, "verdict"] = "invalid"
    reasons = _marked(table["reasons"].to_pylist(), "drift", drifted & ~disturbed)
    frame.insert(place, "reasons", pd.Series(_marked(reasons, "disturbed", disturbed), dtype=object))
    derived = {
        "speed_index": speed,
        "latency_median_corrected_s": frame["latency_median_s"] / speed,
        "throughput_corrected_img_s": frame["throughput_img_s"] * speed,
    }
    return pd.concat([frame, pd.DataFrame(derived)], axis=1)


def _marked(reasons: Sequence[Sequence[str] | None], code: str, which: Iterable[bool]) -> list[tuple[str, ...]]:
    """The reasons of each row, with `code` where `which` says so."""
    return [
        (*codes, code) if marked and code not in codes else tuple(codes)
        for codes, marked in zip((codes or () for codes in reasons), which, strict=True)
    ]


class _Judging(msgspec.Struct):
    """The part of a stored suite that says how rows are judged; readable in suites of other versions too."""

    protocol: dict[str, float] = {}


def _drift_limit(path: Path) -> float:
    """The limit that the run's suite sets, else the protocol's own."""
    default = Protocol().drift_limit
    stored = (path if path.is_dir() else path.parent) / "suite.json"
    try:
        return msgspec.json.decode(stored.read_bytes(), type=_Judging).protocol.get("drift_limit", default)
    except FileNotFoundError:
        return default  # a results file that travels alone
    except msgspec.MsgspecError as error:
        raise UsageError(f"{stored}: cannot be read: {error}") from error
