from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from archbench.stats.paired import holm, minimum_detectable_effect, paired, unpaired

log_ratios = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=40)


@pytest.mark.parametrize("count", [2, 5, 12, 40])
def test_paired_is_students_test(count: int) -> None:
    d = np.random.default_rng(count).normal(0.01, 0.02, count)
    answer = paired(d)
    slower = stats.ttest_1samp(d, 0.0, alternative="greater")
    assert answer.p_slower() == pytest.approx(slower.pvalue)
    assert answer.p_faster() == pytest.approx(stats.ttest_1samp(d, 0.0, alternative="less").pvalue)
    assert answer.p_slower(than=0.015) == pytest.approx(stats.ttest_1samp(d, 0.015, alternative="greater").pvalue)
    assert answer.ratio == pytest.approx(stats.gmean(np.exp(d)))
    both = stats.ttest_1samp(d, 0.0).confidence_interval(0.95)
    assert answer.interval() == pytest.approx((math.exp(both.low), math.exp(both.high)))


@pytest.mark.parametrize("count", [10, 12, 30])
def test_trimmed_is_yuens_test(count: int) -> None:
    d = np.random.default_rng(count).standard_t(2, count) / 100
    answer = paired(d, trim=0.2)
    # scipy has Yuen's test for two samples; against a second one without scatter it is the test for one.
    yuen = stats.ttest_ind(d, np.zeros(count), equal_var=False, trim=0.2, alternative="greater")
    assert answer.p_slower() == pytest.approx(yuen.pvalue)
    assert answer.freedom == pytest.approx(yuen.df)
    assert answer.mean == pytest.approx(stats.trim_mean(d, 0.2))


def test_two_wild_pairs_of_twelve_do_not_blind_the_trimmed_test() -> None:
    d = np.random.default_rng(0).normal(0.03, 0.007, 12)
    wild = np.array([*d[:-2], -0.3, -0.1])
    plain, trimmed = paired(wild).p_slower(), paired(wild, trim=0.2).p_slower()
    assert plain is not None
    assert trimmed is not None
    assert plain > 0.2
    assert trimmed < 1e-3


@pytest.mark.parametrize("sizes", [(2, 2), (5, 17), (17, 17)])
def test_unpaired_is_welchs_test(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    base, head = rng.lognormal(-4, 0.02, sizes[0]), rng.lognormal(-3.99, 0.05, sizes[1])
    answer = unpaired(base, head)
    welch = stats.ttest_ind(np.log(head), np.log(base), equal_var=False, alternative="greater")
    assert answer.p_slower() == pytest.approx(welch.pvalue)
    assert answer.freedom == pytest.approx(welch.df)
    both = stats.ttest_ind(np.log(head), np.log(base), equal_var=False).confidence_interval(0.95)
    assert answer.interval() == pytest.approx((math.exp(both.low), math.exp(both.high)))


def test_a_single_pair_has_a_ratio_and_no_certainty() -> None:
    for answer in (paired([0.1]), unpaired([1.0, 1.0], [math.exp(0.1)])):
        assert answer.ratio == pytest.approx(math.exp(0.1))
        assert answer.interval() is None
        assert answer.p_slower() is None
        assert answer.p_faster() is None
        assert answer.detectable() is None
        assert not answer.equivalent()
    # Trimmed down to a single pair, it is as good as one.
    assert paired([0.1, 0.1, 0.1], trim=0.4).interval() is None


def test_without_scatter_the_answer_is_certain() -> None:
    level, slower = paired([0.0] * 5), paired([0.1] * 5)
    assert (level.p_slower(), level.p_faster(), level.equivalent()) == (0.5, 0.5, True)
    assert (slower.p_slower(), slower.p_faster(), slower.equivalent()) == (0.0, 1.0, False)
    assert slower.interval() == pytest.approx((math.exp(0.1),) * 2)
    assert slower.detectable() == 0.0
    assert unpaired([2.0, 2.0], [2.0, 2.0]).p_slower() == 0.5


@given(log_ratios)
def test_swapping_the_sides_turns_the_answer_round(d: list[float]) -> None:
    there, back = paired(d), paired([-value for value in d])
    assert there.p_slower() == pytest.approx(back.p_faster())
    assert there.equivalent() == back.equivalent()
    low, high = there.interval() or (0, 0)
    assert back.interval() == pytest.approx((1 / high, 1 / low))


@given(log_ratios, st.floats(0, 0.3))
def test_slowing_every_pair_never_raises_p(d: list[float], slowdown: float) -> None:
    before, after = paired(d).p_slower(), paired([value + slowdown for value in d]).p_slower()
    assert before is not None
    assert after is not None
    assert after <= before + 1e-9


@given(log_ratios)
def test_interval_and_test_agree(d: list[float]) -> None:
    answer = paired(d)
    ends, p = answer.interval(0.98), answer.p_slower()
    assert ends is not None
    assert p is not None
    assume(abs(p - 0.01) > 1e-6)
    assume(answer.sd)
    assert (p < 0.01) == (ends[0] > 1)


@given(st.lists(st.floats(-0.03, 0.03), min_size=2, max_size=40), st.floats(0.005, 0.05))
def test_equivalence_is_two_one_sided_tests(d: list[float], margin: float) -> None:
    answer = paired(d)
    above, below = answer.p_slower(than=-math.log1p(margin)), answer.p_faster(than=math.log1p(margin))
    assert above is not None
    assert below is not None
    worst = max(above, below)
    assume(abs(worst - 0.05) > 1e-6)
    assert answer.equivalent(margin) == (worst < 0.05)


def test_equivalence_is_shown_wrongly_no_more_often_than_its_level() -> None:
    # The true ratio sits at the margin: "same" is wrong, and may come up in 5 %.
    rng = np.random.default_rng(3)
    shown = [paired(rng.normal(math.log(1.015), 0.004, 12)).equivalent() for _ in range(2000)]
    assert 0.035 < np.mean(shown) < 0.065
    # No difference at all and little noise: it should come up nearly always.
    assert np.mean([paired(rng.normal(0, 0.004, 12)).equivalent() for _ in range(300)]) > 0.98


def test_size_on_clustered_aa_data() -> None:
    """Processes differ by 1 %, samples within one by 1 %: process medians keep the level, pooled samples do not."""
    rng = np.random.default_rng(4)
    by_process, pooled = [], []
    for _ in range(1000):
        base, head = (rng.normal(0, 0.01, (8, 1)) + rng.normal(0, 0.01, (8, 50)) for _ in range(2))
        by_process.append(paired(np.median(head, axis=1) - np.median(base, axis=1)).p_slower())
        pooled.append(paired((head - base).ravel()).p_slower())
    assert 0.03 < np.mean(np.array(by_process) < 0.05) < 0.07
    assert np.mean(np.array(pooled) < 0.05) > 0.25


def test_size_of_the_trimmed_test() -> None:
    d = np.random.default_rng(5).normal(0, 0.007, (3000, 12))
    size = np.mean([paired(row, trim=0.2).p_slower() < 0.01 for row in d])  # type: ignore[operator]
    assert 0.008 < size < 0.016  # 1.2 %, as its docstring owns up to


def test_holm_on_a_worked_example() -> None:
    # Holm (1979): sorted p times 4, 3, 2, 1, each at least the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    assert holm([0.7, 0.9]).tolist() == [1.0, 1.0]
    for wrong in ([-0.1], [1.1], [math.nan]):
        with pytest.raises(ValueError, match="p-value"):
            holm(wrong)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_holm_lies_between_p_and_bonferroni_in_any_order(p: list[float], random: object) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([p[index] for index in order]).tolist() == adjusted[order].tolist()


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    p = np.random.default_rng(6).random((4000, 20))
    assert np.mean([(holm(row) <= 0.05).any() for row in p]) < 0.06


@pytest.mark.parametrize(("sd", "count"), [(0.007, 12), (0.02, 5), (0.05, 20)])
def test_minimum_detectable_effect_is_found_as_often_as_it_says(sd: float, count: int) -> None:
    effect = minimum_detectable_effect(sd, count, level=0.05, power=0.8)
    d = np.random.default_rng(7).normal(math.log1p(effect), sd, (2000, count))
    found = [p <= 0.05 for row in d if (p := paired(row).p_slower()) is not None]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def test_minimum_detectable_effect_solves_the_noncentral_t() -> None:
    shift = math.log1p(minimum_detectable_effect(0.01, 12, level=0.01, power=0.9)) / (0.01 / math.sqrt(12))
    assert stats.nct.sf(stats.t.ppf(0.99, 11), 11, shift) == pytest.approx(0.9, abs=1e-5)


@given(st.floats(1e-4, 0.2), st.integers(2, 50), st.floats(1.01, 3))
def test_noise_hides_and_pairs_reveal(sd: float, count: int, more: float) -> None:
    effect = minimum_detectable_effect(sd, count)
    assert minimum_detectable_effect(sd * more, count) > effect
    assert minimum_detectable_effect(sd, count + 1) < effect


def test_bad_input_is_refused() -> None:
    for wrong in ([], [math.nan], [0.1, math.inf]):
        with pytest.raises(ValueError, match="value"):
            paired(wrong)
    with pytest.raises(ValueError, match="above 0"):
        unpaired([1.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="value"):
        unpaired([], [1.0])
    with pytest.raises(ValueError, match="trim"):
        paired([0.1, 0.2], trim=0.5)
    for sd, count in ((0.01, 1), (-0.01, 5), (math.nan, 5)):
        with pytest.raises(ValueError, match="detect"):
            minimum_detectable_effect(sd, count)
    with pytest.raises(ValueError, match="power"):
        minimum_detectable_effect(0.01, 5, level=0.5, power=0.4)
