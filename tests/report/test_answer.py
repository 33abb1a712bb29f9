from __future__ import annotations

from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from bench.report import stats
from bench.report.answer import answer, judge
from bench.report.figures import difference_data
from bench.report.table import build
from tests.prose import Prose, numbers
from tests.report.made_up import frame, run


def rows(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame([run(label, seed, v) for label, many in values.items() for seed, v in enumerate(many)])


BASE = [80.0, 81.0, 80.5]


def shift(*by: float) -> list[float]:
    return [b + d for b, d in zip(BASE, by, strict=True)]


# runs -> verdict, methods by standing (largest mean first), who ties with the best, and the numbers of the sentence
CASES: dict[str, tuple[pd.DataFrame, str, dict[str, list[str]], list[str] | None, list[float]]] = {
    "near": (  # t(1 - 0.05 / 6, 2) = 7.65: three rows
        rows(vanilla=BASE, kd=shift(2.0, 2.2, 1.8), dkd=shift(2.4, 1.9, 2.3), crd=shift(1.0, 1.1, 0.9)),
        *("best", {"better": ["dkd", "kd", "crd"]}, ["crd", "kd"]),  # crd: 1.2 ± 7.65 · 0.2 below dkd
        [3, 2.2, 1.0, 3.4, 2.0, 1.1, 2.9, 1.00, 0.56, 1.44, 95, 3],
    ),
    "apart": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9), crd=shift(1.0, 1.1, 0.9)),
        *("best", {"better": ["kd", "crd"]}, [], [3, 3.00, 2.64, 3.36, 1.00, 0.64, 1.36, 95]),
    ),
    "two": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9)),
        *("best", {"better": ["kd"]}, None, [3, 3.00, 2.75, 3.25]),
    ),
    "five": (
        rows(vanilla=[*BASE, 80.0, 81.0], kd=[83.0, 84.1, 83.4, 83.0, 84.0], crd=[80.0, 81.1, 80.4, 80.0, 81.0]),
        *("best", {"better": ["kd"], "open": ["crd"]}, [], [3.00, 2.89, 3.11, 5, 95]),
    ),
    "none": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-1, 1, 0)),
        *("open", {"open": ["kd", "crd"]}, None, [0.2, -3.6, 4.0, 3, 95]),
    ),
    "worse": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"open": ["kd"], "worse": ["crd"]}, None, [3, 0.2, -3.6, 4.0, 3, 95]),
    ),
    "wide-top": (
        rows(vanilla=BASE, kd=shift(6.0, -1.0, 2.0), crd=shift(1.0, 1.1, 0.9)),
        *("better", {"open": ["kd"], "better": ["crd"]}, None),
        [3, 1.00, 0.64, 1.36, 2.3, -10.2, 14.9, 0, 95],
    ),
    "reference-leads": (
        rows(kd=BASE, dkd=shift(-1.0, -2.2, 0.5), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"open": ["dkd"], "worse": ["crd"]}, None, [3, -0.9, -5.7, 3.9, 3, 95]),
    ),
    "reference-leads-alone": (
        rows(kd=BASE, dkd=shift(-1.0, -1.2, -0.9), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"worse": ["dkd", "crd"]}, None, [3, -1.0, -1.6, -0.5, 3, 95]),
    ),
    "single-alone": (  # +1.0 [0.5, 1.5] by a single interval, [-0.2, 2.2] by one of ten
        rows(kd=BASE, dkd=shift(1.0, 1.2, 0.8), **{f"m{i}": shift(-1.0, 1.0, 0.0) for i in range(9)}),
        *("open", {"open": ["dkd", *[f"m{i}" for i in range(9)]]}, None),
        [1.0, -0.6, 2.6, 3, 95, 10, 95, 1.0, 0.5, 1.5],
    ),
    "one-seed": (rows(vanilla=BASE[:1], kd=[81.5]), "one seed", {}, None, [1.5]),
    "one-method": (rows(kd=BASE), "one method", {}, None, [80.5, 1.2, 3]),
    "against-kd": (
        rows(kd=BASE, crd=shift(1.0, -1.0, 0.6)),
        *("open", {"open": ["crd"]}, None, [0.2, -2.4, 2.8, 3]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sentence_is_no_stronger_than_the_intervals(case: str, prose: Prose) -> None:
    runs, verdict, by_standing, ties, shown = CASES[case]
    baseline = str(runs["label"].iloc[0])
    judged, said = judge(runs, baseline), answer(runs, baseline)
    assert (judged.verdict, judged.ties, numbers(said)) == (verdict, ties, shown)
    if by_standing:
        assert judged.rows.groupby("standing", sort=False)["label"].agg(list).to_dict() == by_standing
    prose(said)


def of_family(one: pd.Series[float], other: pd.Series[float], family: int = 5) -> tuple[float, float]:
    """SciPy's paired t interval at the level that Bonferroni gives each of so many."""
    low, high = ttest_rel(one, other).confidence_interval(1 - 0.05 / family)
    return float(low), float(high)


def noise(count: int, below: float = 0.0) -> dict[str, list[float]]:
    return {f"m{i}": shift(-1.0 - below, 1.0 - below, -below) for i in range(count)}


def test_the_luckiest_of_36_comparisons_is_not_called_better(prose: Prose) -> None:
    """+1.7 [0.95, 2.45] by itself at n = 3, with a sign-flip p-value of 0.25: it says nothing of the best of 36."""
    runs = rows(kd=BASE, sld=shift(1.7, 2.0, 1.4), **noise(35))
    judged, said = judge(runs, "kd"), answer(runs, "kd")
    top = judged.rows.iloc[0]
    assert (top["label"], top["single_low"], top["single_high"]) == ("sld", pytest.approx(0.955, abs=1e-3), ANY)
    assert (judged.verdict, top["alone"], top["standing"]) == ("open", "better", "open")
    assert "beat" not in said and said.startswith("no method is distinguishable from kd")
    assert said.index("single 95 % intervals alone, which are not corrected") < said.index("sld by 1.7")
    prose(said)
    table = build(runs)
    assert table.loc[table["best"], "label"].tolist() == ["sld"], "bold is the best mean, whatever its interval"
    assert table["with_best"].all() and set(table["standing"].dropna()) == {"open"}
    alone = answer(rows(kd=BASE, sld=shift(1.7, 2.0, 1.4)), "kd")
    assert alone.startswith("3 seeds suggest that sld beats kd by 1.7 points [1.0, 2.4]")


@pytest.mark.parametrize("count", [2, 7])
def test_every_method_that_beats_the_reference_is_named(count: int, prose: Prose) -> None:
    """Also where the largest mean is none of theirs, and where they are more than a sentence gives numbers of."""
    better = {f"b{i}": shift(1.0 + 0.1 * i, 1.1 + 0.1 * i, 0.9 + 0.1 * i) for i in range(count)}
    for runs, verdict in (
        (rows(kd=BASE, **better), "best"),
        (rows(kd=BASE, wild=shift(9.0, -2.0, 4.0), **better), "better"),
    ):
        said = answer(runs, "kd")
        assert judge(runs, "kd").verdict == verdict and all(name in said for name in better)
        prose(said)


def test_where_the_reference_leads_the_closest_is_named(prose: Prose) -> None:
    runs = rows(kd=[*BASE, 80.0, 81.0], dkd=[79.0, 82.0, 79.5, 80.0, 79.0], crd=[70.0, 70.5, 70.0, 69.9, 70.4])
    said = answer(runs, "kd")
    assert said.startswith("kd leads") and "the closest is dkd, −0.6" in said and "largest mean" not in said
    assert "crd is distinguishably worse" in said and "suggest" not in said
    prose(said)


def test_beside_tuned_kd_all_is_held_against_it() -> None:
    """Sentence, table and figure take the same reference: untuned kd would turn the sign of dkd's difference."""
    runs = rows(kd=BASE, **{"kd(tuned)": shift(4.0, 4.1, 3.9)}, dkd=shift(2.0, 2.2, 1.9))
    reference = stats.choose_reference(runs, "kd")
    assert reference == "kd(tuned)"
    table = build(runs, "kd")
    row = table.set_index("label").loc["dkd"]
    drawn = difference_data(runs, reference).set_index("label").loc["dkd", "mean"].iloc[0]
    said = judge(runs, reference).rows.set_index("label").loc["dkd", "mean"]
    assert set(table["reference"]) == {reference} and row["to_reference"] == drawn == said == pytest.approx(
        -1.967, abs=1e-3
    )
    assert row["standing"] == "worse" and answer(runs, reference).startswith("kd(tuned) leads")


def test_rows_with_fewer_seeds_make_no_stronger_a_claim() -> None:
    runs = rows(kd=[*BASE, 80.0, 81.0], dkd=[83.0, 84.1, 83.4, 83.0, 84.0], crd=[82.0, 83.0, 82.4])
    assert answer(runs, "kd").startswith("3 to 5 seeds suggest that dkd beats kd by")


@pytest.mark.parametrize(("n", "word"), [(2, True), (4, True), (5, False)])
def test_below_five_seeds_a_verdict_is_suggested(n: int, word: bool) -> None:
    base = [80.0 + seed for seed in range(n)]
    said = answer(rows(vanilla=base, kd=[b + 2 + 0.01 * (b % 2) for b in base]), "vanilla")
    assert said.startswith(f"{n} seeds suggest that kd beats") is word and ("over" in said) is not word


def test_a_line_per_pair_also_where_the_baseline_is_missing(prose: Prose) -> None:
    other = frame({"kd": 1.0, "dkd": 1.0}, pair="a->b")
    lines = answer(pd.concat([frame(), other], ignore_index=True), "vanilla").split("\n")
    assert [line.partition(": ")[0] for line in lines] == ["big->small", "a->b"]
    judged = judge(frame(), "vanilla")
    assert (judged.verdict, judged.rows["label"].iloc[0], judged.ties) == ("best", "block_kd", ["crd", "dkd", "kd"])
    by = frame().pivot(index="seed", columns="label", values="test/top1")
    beaten = {name: of_family(by["block_kd"], by[name]) for name in by if name != "block_kd"}
    assert [name for name, (low, _) in beaten.items() if low <= 0] == judged.ties
    assert numbers(lines[0])[:4] == [1.7, *np.round(of_family(by["block_kd"], by["vanilla"]), 1), 5]
    assert judge(other, "vanilla").verdict == "no baseline"
    prose("\n".join(lines))


def test_runs_that_share_nothing_compare_nothing(prose: Prose) -> None:
    apart = pd.DataFrame([run("vanilla", 0, 80.0), run("kd", 1, 81.0)])
    assert judge(apart, "vanilla").verdict == "no shared seed"
    assert judge(apart.assign(status="failed"), "vanilla").verdict == "unfinished"
    prose(answer(apart, "vanilla"))
    prose(answer(apart.assign(status="failed"), "vanilla"))
