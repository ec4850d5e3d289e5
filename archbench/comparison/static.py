"""The gate for any machine: both sides' counted, predicted and traced figures, to the letter, with nothing timed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from archbench.comparison.rows import Rows, read_rows
from archbench.comparison.sides import Project, SideRun, SideSpec, opened
from archbench.comparison.stored import compare
from archbench.model.comparison import Comparison
from archbench.model.errors import ArchbenchError, UnfitError, UsageError
from archbench.results.run import RESULTS

_SIDES = ("base", "head")
_RAN = (0, 1)
"""Exit codes of `archbench run`: 1 where a cell failed, which is for the comparison to judge."""
_MAY_DIFFER = ("torch_version", "driver_version")
"""No figure here is a time: where two interpreters have two torch versions, that is the question."""


def static_gate(
    suite: Path,
    sides: Sequence[SideSpec],
    project: Project | None,
    out: Path,
    *,
    python: str,
    options: Sequence[str] = (),
) -> Comparison:
    """Run `archbench run SUITE --static` with each side's code and compare what they say.

    `options` go with that command (`--device cpu`, `--only ...`). Leaves each side's rows in `out` as
    `base.parquet` and `head.parquet`. Raises `UsageError` or `UnfitError`, naming the side, where it cannot run.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot store a gate in {out}: {error.strerror}; give another with --out") from error
    rows = []
    with tempfile.TemporaryDirectory(prefix="archbench-static-") as folder:
        for name, side in zip(_SIDES, sides, strict=True):
            with opened(side, project, Path(folder), python) as run:
                place = Path(folder) / name
                _measure(run, suite, [*options, "--out", str(place)], place, f"--{name} {side.described}")
                rows.append(_rows(place, side))
                shutil.copyfile(place / RESULTS, out / f"{name}.parquet")
    return compare(*rows, allow=_MAY_DIFFER)


def _measure(run: SideRun, suite: Path, options: Sequence[str], place: Path, who: str) -> None:
    """Have the side's own archbench leave its figures in `place`."""
    try:
        done = subprocess.run(
            [run.python, "-m", "archbench", "run", str(suite.absolute()), "--static", *options],
            env=run.env,
            cwd=run.cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        raise UnfitError(f"{who}: cannot be started: {error.strerror}") from error
    if done.returncode not in _RAN or not place.exists():
        raise _refusal(who, done.returncode, done.stderr)


def _rows(place: Path, side: SideSpec) -> Rows:
    """The stored rows, under the name that the user gave their side."""
    return msgspec.structs.replace(read_rows(place), label=side.described)


def _refusal(who: str, code: int, stderr: str) -> ArchbenchError:
    """What the side's own archbench said last, as this command's error."""
    said = [line.strip(" │") for line in stderr.splitlines() if line.strip(" │╭╮╰╯─")]
    last = said[-1].removeprefix("archbench: ") if said else f"exit code {code}"
    if "No such option" in last:
        last = "its archbench is older than --static; install the version of this one there"
    elif "No module named archbench" in last:
        last = "has no archbench; install it there"
    return (UsageError if code == UsageError.exit_code else UnfitError)(f"{who}: {last}")
