from __future__ import annotations

import pandas as pd
import pytest

from bench.report.answer import answer, judge
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
        *("best", {"better": ["dkd", "kd", "crd"]}, ["kd"]),
        [3, 2.2, 1.0, 3.4, 2.0, 1.1, 2.9, 1.00, 0.56, 1.44, 95, 3],
    ),
    "apart": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9), crd=shift(1.0, 1.1, 0.9)),
        *("best", {"better": ["kd", "crd"]}, [], [3, 3.00, 2.64, 3.36, 1.00, 0.64, 1.36, 95, 2]),
    ),
    "two": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9)),
        *("best", {"better": ["kd"]}, None, [3, 3.00, 2.75, 3.25]),
    ),
    "five": (
        rows(vanilla=[*BASE, 80.0, 81.0], kd=[83.0, 84.1, 83.4, 83.0, 84.0], crd=[80.0, 81.1, 80.4, 80.0, 81.0]),
        *("best", {"better": ["kd"], "open": ["crd"]}, [], [3.00, 2.88, 3.12, 5, 95, 2]),
    ),
    "none": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-1, 1, 0)),
        *("open", {"open": ["kd", "crd"]}, None, [0.2, -3.6, 4.0, 3, 95, 2]),
    ),
    "worse": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"open": ["kd"], "worse": ["crd"]}, None, [3, 0.2, -3.6, 4.0, 3, 95, 2]),
    ),
    "wide-top": (
        rows(vanilla=BASE, kd=shift(6.0, -1.0, 2.0), crd=shift(1.0, 1.1, 0.9)),
        *("better", {"open": ["kd"], "better": ["crd"]}, None),
        [3, 1.00, 0.64, 1.36, 2.3, -10.2, 14.9, 0, 95, 2],
    ),
    "reference-leads": (
        rows(kd=BASE, dkd=shift(-1.0, -2.2, 0.5), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"open": ["dkd"], "worse": ["crd"]}, None, [3, -0.9, -5.7, 3.9, 3, 95, 2]),
    ),
    "reference-leads-alone": (
        rows(kd=BASE, dkd=shift(-1.0, -1.2, -0.9), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"worse": ["dkd", "crd"]}, None, [3, -1.0, -1.6, -0.5, 3, 95, 2]),
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
    assert (judged.verdict, judged.rows["label"].iloc[0], judged.ties) == ("best", "block_kd", ["dkd", "kd"])
    assert numbers(lines[0]) == [1.7, 1.0, 2.4, 5]
    assert judge(other, "vanilla").verdict == "no baseline"
    prose("\n".join(lines))


def test_runs_that_share_nothing_compare_nothing(prose: Prose) -> None:
    apart = pd.DataFrame([run("vanilla", 0, 80.0), run("kd", 1, 81.0)])
    assert judge(apart, "vanilla").verdict == "no shared seed"
    assert judge(apart.assign(status="failed"), "vanilla").verdict == "unfinished"
    prose(answer(apart, "vanilla"))
    prose(answer(apart.assign(status="failed"), "vanilla"))
