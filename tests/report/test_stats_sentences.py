from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from bench.report import sentences, stats
from bench.report.stats_examples import examples
from bench.report.stats_power import CAP, Plan, chance, plan
from bench.report.stats_ranks import ranks
from tests.prose import Prose, numbers
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


def test_who_lacks_which_seeds_stands_in_one_sentence(prose: Prose) -> None:
    runs = pd.DataFrame([run(n, s, 80.0) for n in ("vanilla", "kd", "dkd") for s in range(5)])
    assert sentences.lacking(runs) == ""
    runs = runs.drop(runs.index[(runs["label"] == "kd") & (runs["seed"] == 3)])
    runs.loc[(runs["label"] == "dkd") & (runs["seed"] > 1), "status"] = "diverged"
    two = pd.concat([runs, runs[runs["label"] != "dkd"].assign(pair="a->b")])
    lacks = [("big->small", "kd", [3]), ("big->small", "dkd", [2, 3, 4]), ("a->b", "kd", [3])]
    assert list(stats.lacking(two).itertuples(index=False, name=None)) == lacks
    for told, shown in ((sentences.lacking(runs), [3, 2, 4]), (sentences.lacking(two), [3, 2, 4, 3])):
        assert numbers(told) == shown
        prose(told)
    with pytest.raises(ValueError, match="no runs"):
        sentences.lacking(runs.iloc[:0])


@pytest.mark.parametrize(
    ("differences", "standing", "shown"),
    [
        ([1.0, 1.2, 0.9], "better", [3, 1.03, 0.65, 1.41]),
        ([-1.0, -1.2, -0.9], "worse", [3, 1.03, 0.65, 1.41]),
        ([1.0, -0.4, 1.7, 0.2], "open", [4, 0.6, -0.8, 2.1]),
        ([-1.0, 0.4, -1.7, -0.2], "open", [4, 0.6, -0.8, 2.1]),
        ([1.0, 1.0], "better", [2, 1.0, 1.0, 1.0]),
        ([0.0, 0.0, 0.0], "equal", [3]),
        ([1.0, -1.0], "open", [2, 0, -12.7, 12.7]),
        ([1.25], "open", [1.25, 1]),
        ([-1.25], "open", [1.25, 1]),
        ([0.0], "open", [1]),
    ],
    ids=["ahead", "behind", "near", "near-behind", "few", "equal", "zero", "one", "one-behind", "one-equal"],
)
def test_verdicts_are_no_stronger_than_their_intervals(
    differences: list[float], standing: str, shown: list[float], prose: Prose
) -> None:
    found = row(*differences)
    told = sentences.verdict("kd", "vanilla", found)
    assert stats.standing(found["low"], found["high"]) == standing and numbers(told) == shown
    assert ("suggest" in told) is (standing in ("better", "worse"))  # of fewer than five seeds
    if found["mean"]:
        ahead, behind = ("kd", "vanilla") if found["mean"] > 0 else ("vanilla", "kd")
        assert f"{ahead} beats {behind}" in told or f"{ahead} is" in told
    prose(told)


def test_without_a_shared_seed_there_is_no_verdict(prose: Prose) -> None:
    told = sentences.verdict("kd", "vanilla", {"n": 0, "mean": math.nan, "low": math.nan, "high": math.nan})
    assert numbers(told) == []
    prose(told)


def test_plans(prose: Prose) -> None:
    found = plan([1.0, -0.4, 1.7, 0.2])
    assert (found.state, found.n, found.further, found.seeds) == ("more", 4, 15, 19)
    for told, shown in (
        (found, [15, 19, 80, 4]),
        (Plan("more", 12, 13), [1, 13, 80]),
        (Plan("beyond", 3), [CAP, 80]),
        (Plan("undecidable", 3), [0]),
    ):
        assert numbers(sentences.plan(told)) == shown
        prose(sentences.plan(told))
    assert sentences.plan(Plan("decided", 3)) == sentences.plan(Plan("unknown", 1)) == ""


def test_chances_and_p_values(prose: Prose) -> None:
    for differences, shown in (
        ([1.0, -0.4, 0.0, 0.2], [2, 4, 1, 0, 0.73, 0.61]),  # wins, seeds, ties, > 0 by, a new seed by
        ([1.0], [1, 1]),
        ([5.0, 5.1, 5.0], [3, 3, 0, 0.99, 0.99]),
        ([-5.0, -5.1, -5.0], [0, 3, 0, 0.01, 0.01]),
    ):
        told = sentences.chance("kd", "vanilla", chance(differences))
        assert numbers(told) == shown
        prose(told)
    assert [sentences.probability(p) for p in (0.995, 0.005, 0.5, math.nan)] == ["> 0.99", "< 0.01", "0.50", "–"]
    assert [sentences.p_value(p) for p in (0.0004, 0.001, 0.0625, 1.0, math.nan)] == [
        "p < 0.001",
        "p = 0.001",
        "p = 0.062",
        "p = 1.000",
        "p –",
    ]
    for found, shown in (
        (row(1.0, 2.0, 3.0, 4.0), [0.125, 4]),
        (row(1.0, -2.0, 3.0), [0.750, 3, 0.250]),
        (row(*[1.0] * 20), [0.001]),
    ):
        assert numbers(sentences.sign_flips(found)) == shown
        prose(sentences.sign_flips(found))


def test_errors_example_by_example(prose: Prose) -> None:
    a, b = np.ones((2, 10), dtype=bool), np.ones((2, 10), dtype=bool)
    a[:, 0], b[0, 1], b[1, 2] = False, False, False
    found = examples(a, b)
    told = f"{sentences.errors('kd', 'vanilla', found)}; {sentences.by_example('kd', 'vanilla', found)}"
    shown = [20.0, 10, 2, 10.0, 10.0, 20.0, 10.0, 0.0, round(found.low, 1), round(found.high, 1), 1.000]
    assert numbers(told) == shown and found.low < 0 < found.high
    one = examples(a[0], b[0])
    single = f"{sentences.errors('kd', 'vanilla', one)}; {sentences.by_example('kd', 'vanilla', one)}"
    assert numbers(single)[:4] == [20.0, 10, 10.0, 10.0]
    for text in (told, single):
        prose(re.sub(r"\[.*\]", "[…]", text))  # its ends are drawn


def test_ranks_name_their_tests(prose: Prose) -> None:
    def frame(values: list[list[float]]) -> pd.DataFrame:
        return pd.DataFrame(
            run(n, 0, v, f"t{i}->s") for i, line in enumerate(values) for n, v in zip("abc", line, strict=True)
        )

    clear = ranks(frame([[1.0, 2.0, 3.0]] * 8))
    none = ranks(frame([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]] * 4))
    assert clear is not None and none is not None
    assert clear.apart("c", "a") and not clear.apart("c", "b")
    assert numbers(sentences.ranks(clear)) == [8, 1, 1.00, 2.00, 3.00, 0.001, 5, 1.17]
    assert none.p == 1 and numbers(sentences.ranks(none))[-1] == 1.000
    prose(sentences.ranks(clear))
    prose(sentences.ranks(none))
