from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from bench.report.stats_ranks import Ranks, ranks
from tests.report.made_up import run

# Demsar 2006, table 6: AUC of C4.5, +m, +cf, +m+cf on 14 data sets; the paper's ranks resolve the tie of "voting" so
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def frame(values: np.ndarray, names: tuple[str, ...] = NAMES, seeds: int = 2) -> pd.DataFrame:
    """values: [pairs, names]; seeds lie around them with the same mean."""
    return pd.DataFrame(
        run(name, s, float(v) + 1e-4 * (2 * s - seeds + 1), f"t{i}->s")
        for i, row in enumerate(values)
        for name, v in zip(names, row, strict=True)
        for s in range(seeds)
    )


def ranked(values: np.ndarray, names: tuple[str, ...] = NAMES, seeds: int = 2) -> Ranks:
    out = ranks(frame(values, names, seeds))
    assert out is not None
    return out


def test_the_example_of_the_paper() -> None:
    found = ranked(AUC)
    mean = found.mean
    assert {name: round(mean[name], 3) for name in NAMES} == dict(zip(NAMES, (3.143, 2.0, 2.893, 1.964), strict=True))
    assert list(mean.index) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert round(found.critical, 2) == 1.25 and found.pairs == 14
    plain = 12 * 14 / (4 * 5) * ((mean**2).sum() - 4 * 25 / 4)
    assert round(float(plain), 2) == 9.28  # the paper's, which does not correct for ties
    assert found.p == pytest.approx(reference.friedmanchisquare(*AUC.T).pvalue) and found.p < 0.05
    assert not found.apart("C4.5", "C4.5+m+cf")  # 1.179 < 1.25: "the post-hoc test is not powerful enough"


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (6, 2.850), (10, 3.164)])
def test_critical_values_are_those_of_the_papers_table(k: int, q: float) -> None:
    names = tuple(f"m{i}" for i in range(k))
    found = ranked(np.tile(np.arange(float(k)), (6, 1)), names, seeds=1)
    assert found.critical / (k * (k + 1) / 36) ** 0.5 == pytest.approx(q, abs=1e-3)
    assert list(found.mean.index) == list(reversed(names)) and found.mean.tolist() == list(range(1, k + 1))


def test_perfect_order_is_distinguished_and_ties_are_not() -> None:
    found = ranked(np.tile([1.0, 2.0, 3.0], (8, 1)), ("a", "b", "c"))
    assert found.apart("c", "a") and found.apart("a", "c") and not found.apart("b", "c")
    equal = ranked(np.ones((8, 3)), ("a", "b", "c"))
    assert equal.p == 1.0 and not equal.apart("a", "c") and equal.mean.eq(2).all()
    rounding = ranked(np.tile([0.1 + 0.2, 0.3, 0.5], (8, 1)), ("a", "b", "c"), seeds=1)
    assert rounding.mean.tolist() == [1.0, 2.5, 2.5]


def test_posthoc_says_nothing_where_friedman_found_nothing() -> None:
    values = np.tile([1.0, 2.0, 3.0], (8, 1))
    values[4:] = values[4:, ::-1]
    found = ranked(values, ("a", "b", "c"))
    assert found.p > 0.9 and not any(found.apart(x, y) for x in "abc" for y in "abc")


def test_nemenyi_alone_distinguishes_nothing() -> None:
    """Drawn at random: two mean ranks lie further apart than the critical difference, and Friedman's p is above 5 %."""
    values = [
        [5, 6, 4, 0, 7, 3, 2, 1],
        [1, 0, 7, 3, 6, 4, 5, 2],
        [1, 3, 5, 2, 7, 4, 0, 6],
        [0, 4, 3, 1, 6, 7, 5, 2],
        [5, 4, 3, 2, 7, 0, 1, 6],
        [7, 2, 3, 1, 4, 5, 6, 0],
    ]
    found = ranked(np.array(values, dtype=float), tuple("abcdefgh"), seeds=1)
    assert found.mean["d"] - found.mean["e"] > found.critical and found.p == pytest.approx(0.0869, abs=1e-4)
    assert not found.apart("d", "e")


def test_too_few_methods_or_whole_pairs_have_no_ranks() -> None:
    assert ranks(frame(AUC[:, :2], NAMES[:2])) is None and ranks(frame(AUC[:4])) is None
    assert ranks(frame(AUC[:5, :3], NAMES[:3])) is not None
    holes = frame(AUC[:6])
    holes.loc[(holes["label"] == "C4.5") & holes["pair"].isin(["t0->s", "t3->s"]), "test/top1"] = math.nan
    assert ranks(holes) is None
    with pytest.raises(ValueError, match="no runs"):
        ranks(frame(AUC).iloc[:0])


def test_pairs_that_lack_a_method_are_left_out() -> None:
    rows = frame(AUC)
    found = ranks(rows[~((rows["label"] == "C4.5+m") & (rows["pair"] == "t2->s"))])
    assert found is not None and found.pairs == 13
    assert found.p == pytest.approx(reference.friedmanchisquare(*np.delete(AUC, 2, axis=0).T).pvalue)
