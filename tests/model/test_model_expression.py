"""The language of conditions: what it says, what it refuses and where, and that nothing else ever comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.model.derived import judged_columns, judged_names
from archbench.model.errors import UsageError
from archbench.query.expression import All, Among, Any, Compare, Expression, Not, conjuncts, leaves, show
from archbench.query.parsing import ExpressionError, column_named, number_column, parse


def test_the_examples_that_people_bring() -> None:
    assert parse("latency_p99 <= 5ms") == Compare(column="latency_p99_s", operator="<=", value=0.005)
    assert parse("peak_reserved <= 4GiB") == Compare(column="peak_reserved_bytes", operator="<=", value=2.0**32)
    assert parse("top1 >= 0.75 %") == Compare(column="top1", operator=">=", value=0.75)
    assert parse("top1 >= 78") == Compare(column="top1", operator=">=", value=78.0)
    assert parse("batch_size==1") == Compare(column="batch_size", operator="==", value=1.0)
    assert parse("family in (resnet, 'densenet')") == Among(column="family", values=("resnet", "densenet"))
    assert parse("family not in (vgg,)".replace(",)", ")")) == Among(column="family", values=("vgg",), negated=True)
    assert parse("macs < 1.2G") == Compare(column="macs", operator="<", value=1.2e9)
    assert parse("phase == 'training'") == parse('phase == "training"') == parse("phase == training")
    assert parse("precision == amp-bf16") == Compare(column="precision", operator="==", value="amp-bf16")
    assert parse("mfu >= 40 %") == Compare(column="mfu", operator=">=", value=0.4)
    assert parse("latency_median <= 1.5e-3 s") == Compare(column="latency_median_s", operator="<=", value=0.0015)
    assert parse("architecture == timm:hrnet_w18") == Compare(
        column="architecture", operator="==", value="timm:hrnet_w18"
    )


def test_and_binds_tighter_than_or_and_not_tighter_than_both() -> None:
    a, b, c = (Compare(column="top1", operator=">=", value=value) for value in (1.0, 2.0, 3.0))
    assert parse("top1 >= 1 or top1 >= 2 and top1 >= 3") == Any(terms=(a, All(terms=(b, c))))
    assert parse("(top1 >= 1 or top1 >= 2) AND top1 >= 3") == All(terms=(Any(terms=(a, b)), c))
    assert parse("not top1 >= 1 and top1 >= 2") == All(terms=(Not(term=a), b))
    assert parse("not (top1 >= 1 and top1 >= 2)") == Not(term=All(terms=(a, b)))


def test_a_flag_stands_alone() -> None:
    flag = Compare(column="host_bound", operator="==", value=True)
    assert parse("host_bound") == parse("host_bound == true") == flag
    assert parse("not host_bound") == Not(term=flag)
    assert show(flag) == "host_bound"


def test_a_bare_number_is_taken_where_the_unit_is_in_the_name_or_zero() -> None:
    assert parse("latency_p99_s <= 0.005") == parse("latency_p99 <= 5ms")
    assert parse("compile_cold > 0") == Compare(column="compile_cold_s", operator=">", value=0.0)
    assert parse("throughput >= 100") == parse("throughput >= 100 img/s")


# condition: (column of the mistake, from 1; a part of the message)
MISTAKES = {
    "latncy_p99 <= 5ms": (1, "unknown column 'latncy_p99'; did you mean latency_p99"),
    "latency <= 5ms": (1, "unknown column 'latency'; did you mean latency_median"),
    "zzz <= 5ms": (1, "unknown column 'zzz'; docs/columns.md"),
    "latency_p99 <= 5": (16, "5 of what? latency_p99_s is a time; write 5ms or 5s"),
    "peak_reserved <= 4": (18, "write 4MiB or 4GiB"),
    "peak_reserved <= 4G": (18, "write 4GiB or 4GB"),
    "latency_p99 <= 4GiB": (16, "'GiB' is a size in bytes, and latency_p99_s is a time"),
    "peak_reserved <= 5 ms": (18, "'ms' is a time, and peak_reserved_bytes is a size in bytes"),
    "top1 >= 78ms": (9, "'ms' is a time, and top1 is a percentage"),
    "top1 >= 0.75": (9, "0.75 of what? top1 is in percent; write 75, or 0.75%"),
    "top5 in (.912, 93)": (10, "top5 is in percent; write 91.2, or .912%"),
    "latency_p99 <= 5 MS": (16, "did you mean ms"),
    "params <= many": (11, "'many' is not a number"),
    "top1 >= 1e999": (9, "1e999 is too large"),
    "top1 >= nan": (9, "'nan' is not a number"),
    "(top1 >= 5": (1, "this bracket is never closed"),
    "top1 >= 5)": (10, "this bracket closes none"),
    "family in (resnet": (11, "this bracket is never closed"),
    "family in resnet": (11, "'in' wants a list in brackets"),
    "family in ()": (12, "a value for family should stand here, not ')'"),
    "family in (resnet,)": (19, "a value for family should stand here"),
    "__import__('os').system('x')": (1, "__import__(...) calls a function"),
    "top1 >= max(1, 2)": (9, "max(...) calls a function"),
    "abs(top1) >= 1": (1, "abs(...) calls a function"),
    "5ms >= latency_p99": (1, "write latency_p99 <= 5ms"),
    "latency_p99 <= latency_p95": (16, "latency_p95 is a column"),
    "top1 >= 1 >= 2": (11, "to chain, write a <= b and b <= c"),
    "top1 = 5": (6, "write =="),
    "top1 =< 5": (6, "write <="),
    "top1 >= 5 && top1 < 9": (11, "write and"),
    "top1 >= 5 top1 < 9": (11, "join two conditions"),
    "hardware_class == AMD EPYC": (23, "quote text that has spaces"),
    "variant == densenet121[memory_efficient=true]": (12, "quote the text"),
    "top1": (1, "top1 alone is no condition"),
    "phase < training": (7, "use == or !="),
    "phase == train": (10, "'train' is no phase; did you mean training?"),
    "host_bound == maybe": (15, "host_bound is true or false"),
    "architecture == null": (17, "null satisfies no comparison"),
    "": (1, "empty"),
    "and": (1, "a column's name should stand here, not 'and'"),
    "not": (4, "not the end"),
    "top1 >=": (8, "a value for top1 should stand here, not the end"),
    "phase == 'training": (10, "the quotation mark ' is never closed"),
    "(" * 60 + "top1 > 1" + ")" * 60: (51, "nested deeper than 50 levels"),
    "x" * 10_001: (1, "longer than 10,000 characters"),
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text[:30])
def test_a_mistake_is_named_with_its_place(text: str) -> None:
    column, message = MISTAKES[text]
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert (caught.value.position + 1, message in str(caught.value)) == (column, True), str(caught.value)
    assert f"column {column}:" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


SIGNS = ["and", "or", "not", "in", "(", ")", ",", "<", "<=", "==", "!=", ">=", "5ms", "4GiB", "76", "%", "resnet"]
SIGNS += ["'a b'", "true", "-", "1e3", "[", '"', "é", "|"]
WORDS = [*judged_names(), *SIGNS]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)))
def test_any_text_gives_an_expression_or_a_usage_error(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(show(found)) == found


def _leaf(name: str) -> st.SearchStrategy[Expression]:
    column = judged_columns()[name]
    if column.kind == "flag":
        return st.builds(Compare, column=st.just(name), operator=st.sampled_from(["==", "!="]), value=st.booleans())
    if column.kind in ("real", "whole"):
        number = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda value: value + 0.0)
        operator = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
        several = st.lists(number, min_size=1, max_size=3).map(tuple)
        return st.one_of(
            st.builds(Compare, column=st.just(name), operator=operator, value=number),
            st.builds(Among, column=st.just(name), values=several, negated=st.booleans()),
        )
    text = st.text(st.characters(exclude_characters="'", exclude_categories=["Cs"]))
    return st.builds(Compare, column=st.just(name), operator=st.sampled_from(["==", "!="]), value=text)


NAMES = ["latency_p99_s", "peak_reserved_bytes", "top1", "macs", "mfu", "energy_j_per_img", "host_bound", "family"]
LEAVES = st.sampled_from(NAMES).flatmap(_leaf)


def _larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    terms = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, term=inner),
        st.builds(
            All, terms=st.lists(inner.filter(lambda t: not isinstance(t, All)), min_size=2, max_size=3).map(tuple)
        ),
        st.builds(Any, terms=terms.filter(lambda found: not any(isinstance(term, Any) for term in found))),
    )


@given(st.recursive(LEAVES, _larger, max_leaves=8))
def test_what_is_shown_reads_as_the_same(expression: Expression) -> None:
    assert parse(show(expression)) == expression


def test_numbers_are_shown_in_the_unit_that_is_shortest_and_exact() -> None:
    for text in (
        "latency_p99 <= 5ms",
        "latency_p99 <= 100ms",
        "latency_p99 <= 2s",
        "peak_reserved <= 4GiB",
        "macs <= 4.5G",
        "top1 >= 76",
        "params <= 25M",
    ):
        assert show(parse(text)) == text
    assert show(parse("feature_width >= 1000")) == "feature_width >= 1000"


def test_parts_of_an_expression() -> None:
    found = parse("top1 >= 76 and (phase == training or macs < 1G) and not host_bound")
    assert [show(term) for term in conjuncts(found)] == [
        "top1 >= 76",
        "phase == training or macs < 1G",
        "not host_bound",
    ]
    assert [leaf.column for leaf in leaves(found)] == ["top1", "phase", "macs", "host_bound"]


def test_columns_by_name() -> None:
    assert column_named("latency_p99").name == column_named("latency_p99_s").name == "latency_p99_s"
    assert column_named("throughput").name == "throughput_img_s"
    with pytest.raises(UsageError, match="'verdict' holds no numbers"):
        number_column("verdict")
    with pytest.raises(UsageError, match="did you mean peak_allocated, peak_reserved"):
        column_named("peak")
    assert "round" not in judged_names()
