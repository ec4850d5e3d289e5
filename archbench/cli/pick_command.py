"""`archbench pick`: which network satisfies these conditions, and why the others do not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from archbench.choose.pick import Question

_TOP = 10


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs' directories or results files; several are merged.")
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", help="A condition: 'latency_p99 <= 5ms', 'family in (resnet, densenet)'."),
    ] = None,
    minimize: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Smallest first.")] = None,
    maximize: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Largest first. Several goals give the Pareto front.")
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Rank rows together that differ in batch_size, precision, ..."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of a shortlist to print.")] = _TOP,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one object.")] = False,
) -> None:
    """Pick a network: a ranked shortlist with settings, margins and intervals, and why each other is left out.

    Without a goal the smallest latency_median comes first. Exits with 0 also where nothing satisfies the conditions.
    """
    import msgspec

    from archbench.choose.candidates import read_candidates
    from archbench.choose.pick import pick
    from archbench.cli.pick_text import lines

    question = _question(where or (), minimize or (), maximize or (), across or ())
    picked = pick(read_candidates(runs), question)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(picked), indent=2).decode())
    else:
        print("\n".join(lines(picked, top)))


def _question(
    where: list[str] | tuple[()],
    minimize: list[str] | tuple[()],
    maximize: list[str] | tuple[()],
    across: list[str] | tuple[()],
) -> Question:
    """Raises `UsageError` that names the option at fault."""
    from archbench.choose.pick import Goal, Question
    from archbench.model.derived import RANKING_KEYS
    from archbench.model.errors import UsageError, did_you_mean
    from archbench.query.parsing import number_column, parse

    goals: list[Goal] = []
    for option, names in (("minimize", minimize), ("maximize", maximize)):
        for name in names:
            try:
                goals.append(Goal(column=number_column(name).name, larger=option == "maximize"))
            except UsageError as error:
                raise UsageError(f"--{option} {name}: {error}") from None
    twice = next((one.column for n, one in enumerate(goals) if one.column in {g.column for g in goals[:n]}), None)
    if twice is not None:
        raise UsageError(f"{twice} is a goal twice; name it once, after --minimize or --maximize")
    for column in across:
        if column not in RANKING_KEYS:
            near = did_you_mean(column, RANKING_KEYS) or f"; it can be {', '.join(RANKING_KEYS)}"
            raise UsageError(f"--across {column}: rows may always differ in it, or it is no column{near}")
    return Question(
        conditions=tuple(parse(text) for text in where),
        goals=tuple(goals) or (Goal(column="latency_median_s"),),
        across=tuple(dict.fromkeys(across)),
    )
