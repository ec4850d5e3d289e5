"""Shortlists: what is ranked, what is kept apart, and why each other network is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import make_run
from decision_cells import candidates_of, row

from archbench.choose.candidates import Candidates, read_candidates
from archbench.choose.pick import Goal, Picked, Question, Ranking, pick
from archbench.model.errors import UsageError
from archbench.query.parsing import parse
from archbench.rendering.decisions import picked_report

LATENCY = Goal(column="latency_median_s")
TOP1 = Goal(column="top1", larger=True)


def ask(
    candidates: Candidates, *where: str, goals: tuple[Goal, ...] = (LATENCY,), across: tuple[str, ...] = ()
) -> Picked:
    return pick(candidates, Question(conditions=tuple(map(parse, where)), goals=goals, across=across))


def only(picked: Picked) -> Ranking:
    assert len(picked.rankings) == 1, [ranking.circumstances for ranking in picked.rankings]
    return picked.rankings[0]


def names(ranking: Ranking) -> list[str]:
    return [one.network for one in ranking.choices]


def test_each_network_stands_once_with_its_best_setting(tmp_path: Path) -> None:
    ranking = only(
        ask(
            candidates_of(
                tmp_path,
                row("resnet50", 0.020),
                row("resnet50", 0.012, compile_mode="default"),
                row("resnet50", 0.030, memory_format="channels_last"),
                row("vgg16", 0.040),
                row("resnet18", 0.010),
            )
        )
    )
    assert names(ranking) == ["resnet18", "resnet50", "vgg16"]
    assert ranking.choices[1].compile_mode == "default"
    assert ranking.choices[1].behind is not None
    assert ranking.choices[1].behind.ratio == pytest.approx(1.2)
    assert [one.rank for one in ranking.choices] == [1, 2, 3]
    figure = ranking.choices[1].figures[0]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.012, 0.012 / 1.01, 0.012 * 1.01))


def test_those_that_tie_with_the_first_share_its_rank(tmp_path: Path) -> None:
    ranking = only(ask(candidates_of(tmp_path, row("resnet50", 0.0200), row("vgg16", 0.0202), row("alexnet", 0.0300))))
    assert [(one.network, one.rank) for one in ranking.choices] == [("resnet50", 1), ("vgg16", 1), ("alexnet", 3)]
    assert ranking.choices[1].behind is not None
    assert ranking.choices[1].behind.tie


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("batch_size", {"batch_size": 8}),
        ("phase", {"phase": "training"}),
        ("precision", {"precision": "amp-bf16"}),
        ("threads", {"threads": 1}),
        ("torch_version", {"torch_version": "2.99"}),
        ("hardware_class", {"hardware_class": "another"}),
        ("protocol_version", {"protocol_version": 99}),
        ("input_size", {"network": {"input_size": 160}}),
    ],
)
def test_rows_that_differ_in_a_locked_column_are_ranked_together_only_when_asked(
    tmp_path: Path, column: str, other: dict[str, Any]
) -> None:
    candidates = candidates_of(tmp_path, row("resnet50", 0.020), row("vgg16", 0.010, **other))
    apart = ask(candidates)
    assert sorted(map(names, apart.rankings)) in ([["resnet50"], ["vgg16"]], [["resnet50"], ["vgg16[input_size=160]"]])
    assert {one.column for ranking in apart.rankings for one in ranking.circumstances} == {column}
    together = only(ask(candidates, across=(column,)))
    assert len(together.choices) == 2
    assert any(column in note.text for note in together.footnotes)


def test_settings_that_change_no_arithmetic_are_free(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path, row("resnet50", 0.02), row("vgg16", 0.01, compile_mode="default", memory_format="channels_last")
    )
    assert names(only(ask(candidates))) == ["vgg16", "resnet50"]


def test_networks_at_their_published_sizes_are_compared_with_a_footnote(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path, row("resnet50", 0.02), row("vgg16", 0.03), row("efficientnet_b4", 0.05, input_size=380)
    )
    ranking = only(ask(candidates))
    assert len(ranking.choices) == 3
    assert ranking.footnotes[0].column == "input_size"
    assert "224 px, but efficientnet_b4 380" in ranking.footnotes[0].text


def test_invalid_and_failed_rows_are_never_ranked_and_suspect_ones_carry_their_mark(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path,
        row("resnet50", 0.020, verdict="suspect", reasons=("contended",)),
        row("vgg16", 0.001, verdict="invalid", reasons=("throttled",)),
        row("alexnet", status="oom", error_message="out of memory"),
    )
    ranking = only(ask(candidates))
    assert [(one.network, one.verdict) for one in ranking.choices] == [("resnet50", "suspect")]
    assert {one.network: one.failure for one in ranking.left_out} == {
        "vgg16": "invalid: throttled",
        "alexnet": "oom: out of memory",
    }


def test_a_network_is_left_out_by_its_nearest_cell_with_every_miss_and_by_how_much(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path,
        row("resnet50", 0.009),
        row("vgg16", 0.012, top1=72.0),
        row("vgg16", 0.011, top1=72.0, compile_mode="default"),
        row("vgg16", 0.001, top1=72.0, batch_size=8),
        row("alexnet", 0.002, top1=None, accuracy_source=None),
    )
    ranking = only(ask(candidates, "batch_size == 1", "latency_median <= 10ms", "top1 >= 76"))
    assert names(ranking) == ["resnet50"]
    by_name = {one.network: one for one in ranking.left_out}
    vgg = by_name["vgg16"]
    assert "compile_mode=default" in vgg.cell_id
    assert [miss.condition for miss in vgg.misses] == ["latency_median <= 10ms", "top1 >= 76"]
    assert vgg.misses[0].actual == (("rank_latency_s", 0.011),)
    assert vgg.misses[0].excess == pytest.approx(0.1)
    (miss,) = by_name["alexnet"].misses
    assert (miss.condition, miss.actual, miss.unmeasured) == (
        "top1 >= 76",
        (("top1", None),),
        "archbench knows none",
    )


def test_a_goal_that_is_null_leaves_out_and_says_why(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path, row("resnet50", latency_p99_s=0.03), row("vgg16", reasons=("latency_p99_s:too_few_samples",))
    )
    ranking = only(ask(candidates, goals=(Goal(column="latency_p99_s"),)))
    assert names(ranking) == ["resnet50"]
    assert ranking.left_out[0].misses[0].unmeasured == "too few samples for this percentile"


def test_rows_without_accuracy_stay_in_but_are_not_ranked_by_it(tmp_path: Path) -> None:
    candidates = candidates_of(tmp_path, row("resnet50"), row("plain34", top1=None, top5=None, accuracy_source=None))
    assert sorted(names(only(ask(candidates)))) == ["plain34", "resnet50"]
    by_accuracy = only(ask(candidates, goals=(TOP1,)))
    assert names(by_accuracy) == ["resnet50"]
    assert by_accuracy.left_out[0].network == "plain34"
    assert by_accuracy.accuracies[0].startswith("Top-1 is quoted, not measured: IMAGENET1K_V2")


def test_accuracies_of_several_protocols_are_told_apart(tmp_path: Path) -> None:
    candidates = candidates_of(tmp_path, row("resnet50"), row("plain34", top1=71.0, accuracy_source="paper: 10 crops"))
    notes = only(ask(candidates, goals=(TOP1,))).accuracies
    assert notes[0].endswith("not by one protocol.")
    assert "paper: 10 crops: plain34." in notes


def test_accuracies_of_two_data_sets_are_never_ranked_together(tmp_path: Path) -> None:
    """Rows as runs stored them before there was the column: the catalogue knows what each figure is of."""
    candidates = candidates_of(
        tmp_path,
        row("resnet50", 0.02, top1=76.1),
        row("resnet18", 0.01, top1=69.8),
        row("resnet20_cifar", 0.001, top1=91.25),
        row("resnet110_cifar", 0.003, top1=93.57),
    )
    by_accuracy = {"CIFAR-10": ["resnet110_cifar", "resnet20_cifar"], "ImageNet": ["resnet50", "resnet18"]}
    for goals, where in (((TOP1,), ()), ((LATENCY, TOP1), ()), ((LATENCY,), ("top1 >= 65",))):
        rankings = ask(candidates, *where, goals=goals).rankings
        assert [one.circumstances[0].value for one in rankings] == list(by_accuracy)
        assert [set(names(one)) for one in rankings] == list(map(set, by_accuracy.values()))
    together = only(ask(candidates, goals=(TOP1,), across=("accuracy_dataset",)))
    assert names(together)[0] == "resnet110_cifar"
    assert "75 % on ImageNet" in together.footnotes[0].text
    assert names(only(ask(candidates)))[0] == "resnet20_cifar", "time says nothing of accuracy"


def test_several_goals_give_the_front_and_what_beats_the_rest(tmp_path: Path) -> None:
    candidates = candidates_of(
        tmp_path,
        row("resnet50", 0.020, top1=76.0),
        row("resnet101", 0.040, top1=78.0),
        row("vgg16", 0.050, top1=72.0),
        row("resnet18", 0.010, top1=70.0),
    )
    ranking = only(ask(candidates, goals=(LATENCY, TOP1)))
    assert names(ranking) == ["resnet18", "resnet50", "resnet101"]
    (out,) = ranking.left_out
    assert out.beaten is not None
    assert (out.network, out.beaten.by) == ("vgg16", "resnet50")
    assert [round(one.margin.ratio, 3) for one in out.beaten.comparisons if one.margin] == [2.5, 1.056]


def test_names_that_match_nothing_and_columns_that_are_null_are_warned_of(tmp_path: Path) -> None:
    picked = ask(candidates_of(tmp_path, row()), "family == renset", "peak_reserved <= 4GiB")
    assert not picked.found
    assert picked.warnings == (
        "No row has family 'renset'; did you mean resnet?",
        "peak_reserved_bytes is null in every row; on the CPU ask for peak_allocated_bytes.",
    )


def test_figures_corrected_for_drift_are_what_is_compared_and_shown(tmp_path: Path) -> None:
    rows = [
        row("resnet50", 0.020, canary_s=0.0010),
        row("vgg16", 0.0209, canary_s=0.0011),
        row("alexnet", 0.05, canary_s=0.0010),
    ]
    ranking = only(ask(candidates_of(tmp_path, *rows), "latency_median <= 19.5ms"))
    assert names(ranking) == ["vgg16"]
    assert ranking.choices[0].figures[0].value == pytest.approx(0.019)


def test_several_runs_are_put_side_by_side_by_hardware_and_the_newest_of_like_ones_counts(tmp_path: Path) -> None:
    first = row("resnet50", 0.020)
    again = row("resnet50", 0.030, run_id="20250102T030405Z-99999999")
    elsewhere = row("resnet50", 0.001, hardware_class="GPU", run_id="20250103T000000Z-00000000")
    paths = []
    for number, one in enumerate((first, again, elsewhere)):
        candidates_of(tmp_path / str(number), one)
        paths.append(next((tmp_path / str(number)).glob("*/*")))
    picked = ask(read_candidates(paths))
    figures = {ranking.circumstances[0].value: ranking.choices[0].figures[0].value for ranking in picked.rankings}
    assert figures == pytest.approx({"AMD EPYC 9654 x2": 0.030, "GPU": 0.001})
    with pytest.raises(UsageError, match="named twice"):
        read_candidates([paths[0], paths[0]])


def test_the_newest_of_two_runs_is_told_by_the_clock_whatever_they_are_called(tmp_path: Path) -> None:
    """As with `--out`, where a directory's name says nothing of its age; and the answer says which run is left out."""
    old = row("resnet50", 0.010, run_id="zzz", started_at="2026-01-02T03:04:05.000+00:00")
    new = row("resnet50", 0.030, run_id="aaa", started_at="2026-02-01T00:00:00.000+00:00")
    paths = [make_run(tmp_path / one.run_id, [one]) for one in (old, new)]
    for order in (paths, paths[::-1]):
        picked = ask(read_candidates(order))
        assert only(picked).choices[0].figures[0].value == pytest.approx(0.030)
        (told,) = picked.warnings
        assert told.startswith("Of run zzz (begun 2026-01-02 03:04 UTC) 1 cell is left out, which run aaa (begun 2026-")
        assert told.endswith("has, too: of a cell the newest counts.")
    assert ask(read_candidates(paths[:1])).warnings == ()


def test_a_compiled_network_ahead_of_one_that_was_never_compiled_is_told(tmp_path: Path) -> None:
    rows = [
        row("resnet50", 0.030, top1=76.0),
        row("resnet50", 0.010, top1=76.0, compile_mode="default"),
        row("vgg16", 0.014, top1=72.0),  # 40 % behind, but never compiled
        row("alexnet", 0.020, top1=56.0),
        row("alexnet", 0.018, top1=56.0, compile_mode="default"),
        row("vgg11", 0.025, top1=69.0),
        row("vgg11", None, top1=69.0, compile_mode="default", status="error", error_message="no graph"),
    ]
    candidates = candidates_of(tmp_path, *rows)
    told = "vgg16 was not measured under fp32, compile=default, as resnet50 was: part of the distance may be "
    told += "the setting's."
    ranking = only(ask(candidates))
    assert names(ranking) == ["resnet50", "vgg16", "alexnet", "vgg11"]
    assert [one.text for one in ranking.footnotes] == [told]
    assert [one.text for one in only(ask(candidates, goals=(LATENCY, TOP1))).footnotes] == [told]
    like_for_like = only(ask(candidates, "compile_mode == off"))
    assert (names(like_for_like)[0], like_for_like.footnotes) == ("vgg16", ())


def test_strange_names_and_an_answer_that_is_whole_json(tmp_path: Path) -> None:
    strange = ["<script>alert(1)</script>", "../../x", "x" * 300, "网络:é"]
    candidates = candidates_of(tmp_path, *(row(name, 0.01 * n) for n, name in enumerate(strange, 1)))
    picked = ask(candidates, f"architecture in ('{strange[0]}', '{strange[3]}')")
    assert names(only(picked)) == [strange[0], strange[3]]
    assert msgspec.json.decode(msgspec.json.encode(picked))["rankings"][0]["choices"][0]["network"] == strange[0]


def test_networks_by_year_and_depth(tmp_path: Path) -> None:
    """Also away from their native size; a network that the catalogue does not know satisfies neither."""
    rows = [row(name) for name in ("resnet18", "resnet50", "vit_b_16", "unheard.of:net")]
    rows.append(row("convnext_tiny", network={"input_size": 192}, input_size=192))
    candidates = candidates_of(tmp_path, *rows)
    assert set(names(only(ask(candidates, "year >= 2020", across=("input_size",))))) == {
        "vit_b_16",
        "convnext_tiny[input_size=192]",
    }
    assert names(only(ask(candidates, "depth <= 18"))) == ["resnet18"]


def test_what_the_catalogue_and_the_run_add(tmp_path: Path) -> None:
    frame = candidates_of(
        tmp_path,
        row("resnet50"),
        row("resnet50", precision="amp-bf16"),
        row("resnet50", precision="amp-bf16", batch_size=8, status="oom"),
        row("plain34"),
        row("unheard.of:net"),
    ).frame.drop_duplicates("variant")
    known = frame.set_index("variant")
    assert known.loc["resnet50", ["feature_width", "weights", "settings_ok", "settings_failed"]].tolist() == [
        2048,
        "IMAGENET1K_V1",
        2,
        1,
    ]
    assert known["pretrained"].to_dict() == {"resnet50": True, "plain34": False, "unheard.of:net": False}
    assert known.loc["resnet50", ["year", "depth"]].tolist() == [2015, 50]
    assert known.loc["unheard.of:net", ["year", "depth"]].isna().all()
    assert known.loc["unheard.of:net", ["feature_width", "weights"]].isna().all()


def test_a_stored_column_keeps_its_figure_and_the_corrected_one_has_its_own_name(tmp_path: Path) -> None:
    """The machine was at half its usual speed for one of three rows: what is ranked by stands under `rank_` alone."""
    rows = [
        row(name, 0.02, latency_p95_s=0.024, canary_s=canary)
        for name, canary in zip("abc", (1.0, 1.0, 1.5), strict=True)
    ]
    found = candidates_of(tmp_path, *rows)
    figures = found.frame.set_index("architecture").loc["c"]
    assert (figures["latency_median_s"], figures["latency_p95_s"]) == (0.02, 0.024)
    assert figures["rank_latency_s"] == pytest.approx(0.02 / 1.5)
    assert figures["rank_latency_p95_s"] == pytest.approx(0.024 / 1.5)
    first = pick(found, Question(goals=(Goal(column="latency_median_s"),))).rankings[0].choices[0]
    assert (first.network, first.figures[0].column) == ("c", "rank_latency_s")
    assert first.estimate("latency_median_s").value == pytest.approx(0.02 / 1.5)


@pytest.mark.parametrize(
    ("suspect", "setting"),
    [((0.039, 0.038, 0.270), "off"), ((0.020, 0.019, 0.021), "default")],
)
def test_a_networks_suspect_cell_is_chosen_only_where_its_interval_lies_below(
    tmp_path: Path, suspect: tuple[float, float, float], setting: str
) -> None:
    """As in the reference run, where resnet50 at 39 (38 to 270) ms came before its own 40.2 ms."""
    ends = dict(zip(("latency_median_s", "latency_ci_low_s", "latency_ci_high_s"), suspect, strict=True))
    doubtful = row("resnet50", compile_mode="default", verdict="suspect", reasons=("drift",), **ends)
    found = candidates_of(tmp_path, row("resnet50", 0.0402), row("vgg16", 0.07), doubtful)
    first = only(ask(found)).choices[0]
    assert (first.network, first.compile_mode) == ("resnet50", setting)


@pytest.mark.parametrize("column", ["peak_allocated_bytes", "macs", "rank_latency_p95_s"])
def test_where_costs_tie_a_clean_cell_comes_before_a_suspect_one(tmp_path: Path, column: str) -> None:
    """Whichever was measured first, and though the suspect one is a little better by luck."""
    clean = row("resnet50", compile_mode="default", peak_allocated_bytes=1_001_000, latency_p95_s=0.0251)
    doubtful = row("resnet50", verdict="suspect", peak_allocated_bytes=1_000_000, latency_p95_s=0.0250)
    other = row("vgg16", macs=9_000_000_000, peak_allocated_bytes=2_000_000, latency_p95_s=0.05)
    for number, order in enumerate(((doubtful, clean, other), (clean, doubtful, other))):
        candidates = candidates_of(tmp_path / str(number), *order)
        (first, _) = only(ask(candidates, goals=(Goal(column=column),))).choices
        assert (first.network, first.verdict, first.compile_mode) == ("resnet50", "ok", "default")
        front = only(ask(candidates, goals=(Goal(column=column), LATENCY))).choices
        assert {one.verdict for one in front} == {"ok"}


def test_cells_that_are_merely_unfit_are_named_as_what_they_are(tmp_path: Path) -> None:
    bad: dict[str, Any] = {"verdict": "invalid", "reasons": ("disturbed",)}
    candidates = candidates_of(tmp_path, row("resnet50", **bad), row("vgg16", **bad), row("alexnet", status="oom"))
    picked = ask(candidates, "batch_size == 1")
    assert not picked.found
    assert picked.unfit == ("2 cells: invalid: disturbed", "1 cell: oom")
    assert picked_report(picked, 10).title == (
        "No network that satisfies batch_size == 1 has figures fit to rank: 2 cells: invalid: disturbed; 1 cell: oom."
    )
    assert picked_report(ask(candidates, "batch_size == 9"), 10).title == "No network satisfies batch_size == 9."
