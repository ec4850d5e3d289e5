"""Claims from what a user says to verdicts: runs and probes found, what is missing measured where that is asked for."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from archbench.folklore.claims import OWN, Claims, Judged, judge, read_claims
from archbench.folklore.sources import Sources
from archbench.model.errors import FitnessWarning, UsageError
from archbench.options import ClaimsOptions, PathOrText, keywords, several
from archbench.query.quantity import seconds_of
from archbench.results import RunStore
from archbench.session import callers_level, describe
from archbench.training.probe import PROBES, Probe, read_probe

if TYPE_CHECKING:
    from archbench.choose.candidates import Candidates

RESULTS = Path("results")
_PATIENCE_S = 60.0
"""For a run to keep what it has, once its time is up."""


@keywords(ClaimsOptions)
def claims(options: ClaimsOptions) -> list[Judged]:
    """What tutorials and papers say of these networks, judged: a verdict a claim, with the figures that decide it.

    `runs`: stored runs; by default those of this machine under `results/` here. Raises `UsageError`.
    """
    runs: list[PathOrText] = several(options.runs)
    paths = [Path(one) for one in runs]
    time_s = None if options.measure is None else seconds_of(options.measure, "--measure")
    asked = _only(read_claims(Path(options.file or OWN)), several(options.only))
    here = describe("auto").hardware_class
    trained = read_probe(Path(options.probe)) if options.probe is not None else _own_probe(here)
    if trained is not None:
        _warn_of_another(trained.path, trained.about.hardware_class, here)
    found = judge(asked, Sources(asked.facts, _cells(paths, here), trained))
    if time_s is not None and _measured(found, time_s):
        cells = _cells([*paths, *_own_runs(here)], here)
        found = judge(asked, Sources(asked.facts, cells, _own_probe(here) or trained))
    return found


def _only(claims: Claims, only: Sequence[str]) -> Claims:
    """Those whose id or kind any pattern matches; all without one."""
    patterns = only or ("*",)
    kept = [one for one in claims.claims if any(fnmatchcase(w, p) for p in patterns for w in (one.id, one.kind))]
    if only and not kept:
        ids = f"{claims.claims[0].id} to {claims.claims[-1].id}"
        raise UsageError(f"--only {' '.join(only)}: matches no claim; they are {ids}, or a kind such as measured")
    return replace(claims, claims=tuple(kept))


def _cells(runs: Sequence[Path], here: str) -> list[Candidates]:
    """The cells of each run by itself: those of one are not left out since another has them, too."""
    from archbench.choose.candidates import read_candidates

    paths = list(dict.fromkeys(path.resolve() for path in runs)) or _own_runs(here)
    found = [read_candidates([path]) for path in paths]
    for path, one in zip(paths, found, strict=True):
        _warn_of_another(path.name, str(one.frame["hardware_class"].iloc[0]), here)
    return sorted(found, key=lambda one: str(one.frame["started_at"].dropna().min()))


def _own_runs(here: str) -> list[Path]:
    """Runs under `results` here that were measured on this class of machine."""
    found = []
    for marker in sorted(RESULTS.glob("*/*/suite.json")):
        try:
            if RunStore.open(marker.parent).environment.hardware_class == here and any(marker.parent.glob("*.parquet")):
                found.append(marker.parent.resolve())
        except UsageError:
            continue  # of another version, or damaged: nothing was said of it
    return found


def _own_probe(here: str) -> Probe | None:
    """The newest probe under `results` here of this class of machine."""
    for place in sorted(PROBES.glob("*/probe.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found = read_probe(place.parent)
        except UsageError:
            continue  # likewise
        if found.about.hardware_class == here and found.points:
            return found
    return None


def _warn_of_another(what: object, machine: str, here: str) -> None:
    if machine != here:
        text = f"{what} is of {machine}, and this machine is {here}: its verdicts are of that machine"
        warnings.warn(text, FitnessWarning, stacklevel=callers_level())


def _measured(found: Sequence[Judged], time_s: float) -> bool:
    """Run what would bring the missing figures until the time is up; whether anything was run.

    Networks that are asked for with the same options are measured by one run. Each is a command of its own, which
    keeps what it has when its time is up, as after Ctrl-C.
    """
    together: dict[tuple[str, ...], list[str]] = {}
    for command in dict.fromkeys(one for judged in found for one in judged.commands):
        words = shlex.split(command)[1:]
        first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
        together.setdefault((words[0], *words[first:]), []).extend(words[1:first])
    ends = time.monotonic() + time_s
    for (command, *options), names in together.items():
        left = ends - time.monotonic()
        if left <= 0:
            break
        _run([command, *dict.fromkeys(names), *options], left)
    return bool(together)


def _run(words: Sequence[str], limit_s: float) -> None:
    print(f"archbench: {shlex.join(['archbench', *words])}", file=sys.stderr)
    command, quiet = [sys.executable, "-m", "archbench", *words], {**os.environ, "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=quiet)
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    except KeyboardInterrupt:  # the run heard of it, too, and keeps what it has
        process.wait(_PATIENCE_S)
        raise
