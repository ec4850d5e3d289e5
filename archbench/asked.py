"""What a user asks for, as a suite: a file, networks by name, networks as objects; and what that would measure.

Nothing is described, held or measured here, and nothing heavy loaded: planning answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Plan, Shard
from archbench.model.errors import UsageError
from archbench.model.suite import Suite
from archbench.options import Inputs, PlanOptions, several
from archbench.session import planned
from archbench.suite import is_suite_path, read_suite, suite_from_names
from archbench.suite.duration import Prediction
from archbench.suite.plan import make_plan

if TYPE_CHECKING:
    from archbench.catalog.passed import Packed


def foreseen(what: object, options: PlanOptions) -> tuple[Suite, Plan, Prediction]:
    """What a run would measure, and how long that will take, by phase; parameters and errors as of `archbench.plan`."""
    suite, *_ = read_what(what, options.axes, options.inputs, allow_code=options.allow_code)
    only: list[str] = several(options.only)
    return suite, *planned(suite, options.device, only=only, rounds=options.rounds, shard=shard_of(options))


def shard_of(options: PlanOptions) -> Shard | None:
    """The part of the suite that is asked for; `None` for all of it. Raises `UsageError`."""
    from archbench.suite.shards import parse_shard

    return None if options.shard is None else parse_shard(options.shard)


def read_what(
    what: object, axes: Mapping[str, object], inputs: Inputs = None, *, metrics: object = None, allow_code: bool = False
) -> tuple[Suite, str, tuple[Packed, ...]]:
    """The suite that was named, or made of networks; its text as YAML; the networks that were passed as objects."""
    passed: list[Packed] = []
    words = [_word(one, passed) for one in (what if isinstance(what, list | tuple) else [what])]
    given = {axis: _typed(value) for axis, value in axes.items() if value not in (None, "")}
    said = {"inputs": inputs} if inputs not in (None, "") else {}
    files = [word for word in words if isinstance(word, str) and is_suite_path(word)]
    if not files:
        wanted = None if metrics is None else _typed(metrics)
        suite = suite_from_names(words, given, common=said, metrics=wanted, allow_code=allow_code)
        return suite, msgspec.json.encode(suite).decode(), tuple(passed)
    if len(words) > 1:
        raise UsageError(f"{files[0]} is a suite file; run one suite at a time, or networks by name")
    for option in (*given, *said, *(["metrics"] if metrics is not None else [])):
        option = option.replace("_", "-")
        raise UsageError(f"--{option} goes with networks by name; a suite has its own: edit it, or choose with --only")
    return *read_suite(files[0], allow_code=allow_code), ()


def one_cell(
    what: object, axes: Mapping[str, object], kind: DeviceKind, inputs: Inputs = None, *, allow_code: bool
) -> tuple[Cell, tuple[Packed, ...]]:
    """The one cell that is named, on a kind of device; every mistake is told as a run would."""
    suite, _, networks = read_what(what, axes, inputs, allow_code=allow_code)
    plan = make_plan(suite, kind)
    if plan.skipped:
        raise UsageError(f"{plan.skipped[0].cell.network.label}: {plan.skipped[0].reason}")
    if len(plan.cells) != 1:
        raise UsageError(f"these options name {len(plan.cells)} cells; give one value each, for one cell")
    return plan.cells[0], networks


def _word(one: object, passed: list[Packed]) -> str | dict[str, Any]:
    """A network or suite as a suite would write it; objects join those `passed`, and go by the name they get there."""
    if isinstance(one, str | os.PathLike):
        return os.fspath(one)
    if isinstance(one, Mapping):
        return {**one, "name": _word(one["name"], passed)} if "name" in one else dict(one)
    from archbench.catalog.passed import pack

    packed = pack(one)
    passed.append(packed)
    return packed.name


def _typed(value: object) -> str:
    """Values of an axis as one would type them: `8`, `[1, 8]` and `"1,8"` are the same to whoever checks them."""
    if not isinstance(value, list | tuple):
        return str(value)
    return ",".join("x".join(map(str, one)) if isinstance(one, list | tuple) else str(one) for one in value)
