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
    "near": (
        rows(vanilla=BASE, kd=shift(2.0, 2.2, 1.8), dkd=shift(2.4, 1.9, 2.3), crd=shift(1.0, 1.1, 0.9)),
        *("best", {"better": ["dkd", "kd", "crd"]}, ["kd"], [2.2, 1.5, 2.9, 3]),
    ),
    "apart": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9), crd=shift(1.0, 1.1, 0.9)),
        *("best", {"better": ["kd", "crd"]}, [], [3.00, 2.75, 3.25, 3]),
    ),
    "two": (
        rows(vanilla=BASE, kd=shift(3.0, 3.1, 2.9)),
        *("best", {"better": ["kd"]}, None, [3.00, 2.75, 3.25, 3]),
    ),
    "none": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-1, 1, 0)),
        *("open", {"open": ["kd", "crd"]}, None, [0.2, -2.4, 2.8, 3]),
    ),
    "worse": (
        rows(vanilla=BASE, kd=shift(1.0, -1.0, 0.6), crd=shift(-3.0, -3.1, -2.9)),
        *("worse", {"open": ["kd"], "worse": ["crd"]}, None, [0.2, -2.4, 2.8, 3]),
    ),
    "wide-top": (
        rows(vanilla=BASE, kd=shift(6.0, -1.0, 2.0), crd=shift(1.0, 1.1, 0.9)),
        *("better", {"open": ["kd"], "better": ["crd"]}, None, [2.3, -6.4, 11.1, 0, 1.00, 0.75, 1.25, 3]),
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


def test_two_seeds_are_called_few() -> None:
    assert "few seeds" in answer(rows(vanilla=[80.0, 81.0], kd=[82.0, 83.01]), "vanilla")


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
