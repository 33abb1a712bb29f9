from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bench.report import sentences, stats
from bench.report.stats_examples import examples
from bench.report.stats_power import CAP, Plan, chance, plan
from bench.report.stats_ranks import ranks
from tests.report.made_up import run


def row(*d: float) -> pd.Series:
    """`stats.paired` of kd to vanilla with these differences over seeds."""
    runs = [run("vanilla", s, 80.0) for s in range(len(d))] + [run("kd", s, 80.0 + v) for s, v in enumerate(d)]
    return stats.paired(pd.DataFrame(runs), "vanilla").iloc[0]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([4], "seed 4"),
        ([1, 0], "seeds 0 and 1"),
        ([0, 1, 2, 3], "seeds 0 to 3"),
        ([0, 2], "seeds 0 and 2"),
        ([0, 2, 5, 6, 7, 9, 9], "seeds 0, 2, 5 to 7 and 9"),
    ],
)
def test_seeds(numbers: list[int], text: str) -> None:
    assert sentences.seeds(numbers) == text


def test_who_lacks_which_seeds_stands_in_one_sentence() -> None:
    runs = pd.DataFrame([run(n, s, 80.0) for n in ("vanilla", "kd", "dkd") for s in range(5)])
    assert sentences.lacking(runs) == ""
    runs = runs.drop(runs.index[(runs["label"] == "kd") & (runs["seed"] == 3)])
    runs.loc[(runs["label"] == "dkd") & (runs["seed"] > 1), "status"] = "diverged"
    end = "each difference is over the seeds that both have."
    assert sentences.lacking(runs) == f"kd lacks seed 3 and dkd lacks seeds 2 to 4; {end}"
    two = pd.concat([runs, runs[runs["label"] != "dkd"].assign(pair="a->b")])
    expected = f"kd lacks seed 3 and dkd lacks seeds 2 to 4 on big->small; kd lacks seed 3 on a->b; {end}"
    assert sentences.lacking(two) == expected
    with pytest.raises(ValueError, match="no runs"):
        sentences.lacking(runs.iloc[:0])


def test_verdicts_are_no_stronger_than_their_intervals() -> None:
    say = sentences.verdict
    assert say("kd", "vanilla", row(1.0, 1.2, 0.9)) == "kd beats vanilla by 1.03 points [0.65, 1.41] over 3 seeds"
    assert say("kd", "vanilla", row(-1.0, -1.2, -0.9)) == "vanilla beats kd by 1.03 points [0.65, 1.41] over 3 seeds"
    near = "kd and vanilla are not distinguishable over 4 seeds: kd is ahead by 0.6 points [−0.8, 2.1]"
    assert say("kd", "vanilla", row(1.0, -0.4, 1.7, 0.2)) == near
    behind = "kd and vanilla are not distinguishable over 4 seeds: vanilla is ahead by 0.6 points [−0.8, 2.1]"
    assert say("kd", "vanilla", row(-1.0, 0.4, -1.7, -0.2)) == behind
    assert say("kd", "vanilla", row(1.0, 1.0)).endswith("over 2 seeds; few seeds: run more before relying on it")
    assert say("kd", "vanilla", row(0.0, 0.0, 0.0)) == "kd and vanilla are equal to the digit over 3 seeds"
    assert "mean difference 0 [−12.7, +12.7]" in say("kd", "vanilla", row(1.0, -1.0))
    one = "one shared seed tells kd and vanilla not apart (kd is 1.25 points ahead; no interval with n = 1)"
    assert say("kd", "vanilla", row(1.25)) == one
    assert "vanilla is 1.25 points ahead" in say("kd", "vanilla", row(-1.25))
    assert "(equal; no interval" in say("kd", "vanilla", row(0.0))
    none = {"n": 0, "mean": math.nan, "low": math.nan, "high": math.nan}
    assert say("kd", "vanilla", none) == "kd and vanilla share no finished seed, so nothing can be compared"


def test_plans() -> None:
    told = sentences.plan(plan([1.0, -0.4, 1.7, 0.2]))
    assert told.startswith("15 further seeds (19 in all) would decide it with 80 % power if mean and spread stay")
    assert told.endswith("4 seeds make this an order of magnitude")
    assert sentences.plan(Plan("more", 12, 13)) == (
        "1 further seed (13 in all) would decide it with 80 % power if mean and spread stay as observed"
    )
    assert sentences.plan(Plan("beyond", 3)).startswith(f"not even {CAP:,} seeds would decide it")
    assert sentences.plan(Plan("undecidable", 3)) == "no number of seeds decides a mean difference of 0"
    assert sentences.plan(Plan("decided", 3)) == sentences.plan(Plan("unknown", 1)) == ""


def test_chances_and_p_values() -> None:
    told = sentences.chance("kd", "vanilla", chance([1.0, -0.4, 0.0, 0.2]))
    assert told == (
        "kd is ahead of vanilla in 2 of 4 seeds, 1 tie; P(mean difference > 0) = 0.73, P(kd ahead in a new seed) = 0.61"
    )
    assert sentences.chance("kd", "vanilla", chance([1.0])) == "kd is ahead of vanilla in 1 of 1 seed"
    assert "> 0.99, P(kd" in sentences.chance("kd", "vanilla", chance([5.0, 5.1, 5.0]))
    assert "< 0.01" in sentences.chance("kd", "vanilla", chance([-5.0, -5.1, -5.0]))
    assert [sentences.p_value(p) for p in (0.0004, 0.001, 0.0625, 1.0, math.nan)] == [
        "p < 0.001",
        "p = 0.001",
        "p = 0.062",
        "p = 1.000",
        "p –",
    ]
    assert sentences.sign_flips(row(1.0, 2.0, 3.0, 4.0)) == "p = 0.125, the smallest that 4 seeds allow"
    assert sentences.sign_flips(row(1.0, -2.0, 3.0)) == "p = 0.750 (3 seeds allow none below 0.250)"
    assert sentences.sign_flips(row(*[1.0] * 20)) == "p < 0.001"


def test_errors_example_by_example() -> None:
    a, b = np.ones((2, 10), dtype=bool), np.ones((2, 10), dtype=bool)
    a[:, 0], b[0, 1], b[1, 2] = False, False, False
    told = sentences.examples("kd", "vanilla", examples(a, b))
    assert told.startswith(
        "exactly one of kd and vanilla is right on 20.0 % of 10 test examples × 2 seeds (kd on 10.0 %, vanilla on "
        "10.0 %); between students of different seeds that is 20.0 %, and 10.0 % where both are of one method; for "
        "these very students kd − vanilla is 0.0 points [−"
    )
    assert told.endswith("over test examples; exact McNemar p = 1.000")
    single = sentences.examples("kd", "vanilla", examples(a[0], b[0]))
    assert "of 10 test examples (kd on" in single and "different seeds" not in single


def test_ranks_name_their_tests() -> None:
    def frame(values: list[list[float]]) -> pd.DataFrame:
        return pd.DataFrame(
            run(n, 0, v, f"t{i}->s") for i, line in enumerate(values) for n, v in zip("abc", line, strict=True)
        )

    told = sentences.ranks(ranks(frame([[1.0, 2.0, 3.0]] * 8)))
    assert told == (
        "Mean ranks over 8 pairs (1 is best): c 1.00, b 2.00, a 3.00. Friedman's test: p < 0.001; Nemenyi's critical "
        "difference at 5 % is 1.17: c is told from a."
    )
    none = sentences.ranks(ranks(frame([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]] * 4)))
    assert none.endswith("Friedman's test: p = 1.000, so no method is told from another by its rank.")
