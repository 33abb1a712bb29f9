"""Seeds until decided: what is decided when, and that no family of comparisons errs more often than it says."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report import stats
from bench.suite.decide import Decision, Top1, anytime, decide, decision, reference, rows_to_continue

MARGIN, LEAST, MOST, SD = 0.5, 3, 30, 0.6
ROWS = ["kd", *(f"m{i}" for i in range(9))]


def simulated(effect: float, draw: np.random.Generator) -> Top1:
    """Ten rows on one pair over `MOST` seeds; nine are `effect` points above kd. The seed moves all rows alike, so that
    the differences, of sd `SD`, are correlated by 0.5 through kd."""
    own = draw.normal(0, SD / 2**0.5, (len(ROWS), MOST)) + draw.normal(70, 2, MOST)
    own[1:] += effect
    return {"big->small": {row: dict(enumerate(values)) for row, values in zip(ROWS, own.tolist(), strict=True)}}


def right(verdict: str, effect: float) -> bool:
    """Is the verdict true of this mean difference?"""
    return {"better": effect > 0, "worse": effect < 0, "close": abs(effect) < MARGIN, "open": True}[verdict]


def outcome(effect: float, count: int) -> dict[str, float]:
    """Of `count` simulated suites: share with any wrong verdict, share of rows decided, mean seeds of a row and of a
    suite (its cohorts), share of rows of the commonest verdict."""
    draw = np.random.default_rng([3, round(10 * effect)])
    suites = [decide(simulated(effect, draw), ROWS, MARGIN, LEAST) for _ in range(count)]
    rows = [row for suite in suites for row in suite]
    return {
        "wrong": float(np.mean([not all(right(row.verdict, effect) for row in suite) for suite in suites])),
        "decided": float(np.mean([row.verdict != "open" for row in rows])),
        "better": float(np.mean([row.verdict == "better" for row in rows])),
        "close": float(np.mean([row.verdict == "close" for row in rows])),
        "seeds_of_row": float(np.mean([row.n for row in rows])),
        "seeds_of_suite": float(np.mean([max(row.n for row in suite) for suite in suites])),
    }


def fixed_n(effect: float, decided: float) -> int:
    """Seeds, fixed beforehand, of which Bonferroni's t intervals decide as large a share of rows."""
    d = np.random.default_rng(4).normal(effect, SD, (4000, 100))
    for n in range(2, 101):
        x = d[:, :n]
        mean, half = x.mean(1), stats.t_quantile(n, 0.05 / 9) * x.std(1, ddof=1) / n**0.5
        if np.mean((np.abs(mean) > half) | (np.abs(mean) + half < MARGIN)) >= decided:
            return n
    return 101


def check(effects: list[float], count: int) -> None:
    for effect in effects:
        assert outcome(effect, count)["wrong"] <= 0.05, effect


def test_a_family_errs_in_five_percent_of_suites_or_less() -> None:
    check([0.0, 0.5], 300)


@pytest.mark.slow
def test_a_family_errs_in_five_percent_of_suites_or_less_whatever_the_differences() -> None:
    check([0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0], 2000)


def test_clear_differences_stop_early_and_small_ones_go_on() -> None:
    clear, none, at_the_margin = (outcome(effect, 100) for effect in (2.0, 0.0, 0.5))
    assert clear["better"] > 0.99 and clear["seeds_of_row"] < fixed_n(2.0, 0.99)
    assert 0.1 < none["close"] < 0.5 and none["seeds_of_row"] > fixed_n(0.0, none["decided"]), "the price of looking"
    assert at_the_margin["decided"] < 0.8 and at_the_margin["seeds_of_row"] > 20


def top1(*differences: float, **others: list[float]) -> Top1:
    rows = {"kd": [70.0 + i for i in range(12)], "a": [70.0 + i + d for i, d in enumerate(differences)]}
    return {"p": {name: dict(enumerate(values)) for name, values in (rows | others).items()}}


def test_a_decision_is_that_of_the_first_look_that_decides_and_stands() -> None:
    early = [2.0, 2.1, 1.9, 2.05]
    (first,) = decide(top1(*early), ["kd", "a"], MARGIN, 3)
    (later,) = decide(top1(*early, -9.0, -9.0), ["kd", "a"], MARGIN, 3)
    assert first == later and first.verdict == "better" and first.n == 3
    assert (first.low, first.high) == pytest.approx(anytime(early[:3])) and first.reference == "kd"
    (waited,) = decide(top1(*early), ["kd", "a"], MARGIN, 4)
    assert waited.n == 4 and decide(top1(*early), ["kd", "a"], MARGIN, 5)[0].verdict == "open"


def test_more_comparisons_take_more_seeds() -> None:
    rows = ["kd", "a", *map(str, range(30))]
    alone, among = decide(top1(2.0, 2.1, 1.9), ["kd", "a"], MARGIN, 3)[0], decide(top1(2.0, 2.1, 1.9), rows, MARGIN, 3)
    assert alone.verdict == "better" and among[0].verdict == "open" and among[0].low is None
    assert among[1] == Decision("p", "0", "kd", 0, None, None, "open")


def test_equal_differences_decide_nothing() -> None:
    """Accuracies are counts: a few seeds can give the same one by rounding alone."""
    assert decide(top1(*[1.0] * 12), ["kd", "a"], MARGIN, 3)[0].verdict == "open"
    assert decision(1.0, 1.0) == "better", "an interval without width would"


def test_seeds_that_one_side_lacks_are_no_difference() -> None:
    known = {"p": {"kd": {0: 70.0, 2: 70.0, 3: 70.5, 5: 71.0}, "a": {0: 72.0, 1: 99.0, 2: 72.1, 3: 72.4, 5: 73.05}}}
    (one,) = decide(known, ["kd", "a"], MARGIN, 3)
    assert one.n == 3 and (one.low, one.high) == pytest.approx(anytime([2.0, 2.1, 1.9]))


def test_the_reference_is_tuned_kd_else_kd_else_the_first_row() -> None:
    assert reference(["vanilla", "kd", "kd(tuned)"]) == "kd(tuned)"
    assert (reference(["vanilla", "kd"]), reference(["crd", "vanilla"])) == ("kd", "crd")


def test_open_rows_go_on_with_the_reference_and_the_plain_student() -> None:
    rows = ["vanilla", "kd", "a", "b", "c"]

    def made(pair: str, **verdicts: str) -> list[Decision]:
        def of(name: str, word: str) -> Decision:
            failed = word == "failed"
            return Decision(pair, name, "kd", 0 if failed else 3, None, None, "open" if failed else word)

        return [of(*one) for one in verdicts.items()]

    one = made("p", vanilla="worse", a="open", b="close", c="failed")
    assert rows_to_continue([*one, *made("q", vanilla="worse", a="better", b="close")], rows) == {
        "p": ["vanilla", "kd", "a"]
    }
    assert rows_to_continue(made("p", a="failed"), rows) == {}
