"""Average ranks over pairs (teacher -> student), Friedman's test and Nemenyi's critical difference. A supplement.

Ranks throw away by how much a method is better, and whether two are distinguishable depends on which others stand in
the table (Benavoli et al. 2016, JMLR 17(5)): the paired differences are the comparison, these may stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.report import stats

LEAST_METHODS = 3
LEAST_PAIRS = 5
"""Simulated without any difference (20 000 draws, 3 to 20 methods): from 5 pairs on, both tests reject in 5 % or less;
with 4 pairs and 3 methods Friedman's chi-square rejects in 7 %, and with 3 pairs Nemenyi's test hardly ever."""


@dataclass(frozen=True)
class Ranks:
    """mean: rank by label (1 is best), best first, over `pairs` pairs; p: Friedman's; critical: the difference of two
    mean ranks from which on Nemenyi's test distinguishes two labels (5 %)."""

    mean: pd.Series[float]
    pairs: int
    p: float
    critical: float

    def apart(self, a: str, b: str) -> bool:
        """Does Nemenyi's test distinguish a from b? Only after Friedman's test has shown any difference at all."""
        return self.p <= 1 - stats.LEVEL and bool(abs(self.mean[a] - self.mean[b]) >= self.critical)


def ranks(frame: pd.DataFrame) -> Ranks | None:
    """Mean ranks over the pairs in which every label has finished runs; None below 3 labels or 5 such pairs.

    In each pair the labels are ranked by their mean top-1 over seeds, ties share the middle rank. Friedman's chi-square
    test (1937, with the correction for ties); critical difference q * sqrt(k (k + 1) / (6 N)) with q of the studentised
    range over sqrt(2) (Nemenyi 1963; Demsar 2006, JMLR 7, 3.2.2).
    """
    means = stats.summary(frame).pivot(index="pair", columns="label", values="mean")
    names = list(frame["label"].unique())
    table = means.reindex(columns=names).dropna()
    k, n = len(names), len(table)
    if k < LEAST_METHODS or n < LEAST_PAIRS:
        return None
    from scipy import stats as distributions  # here: most reports have too few pairs, and need not pay for its import

    # means over seeds that are equal but for rounding are ties
    ranked = table.round(9).rank(axis=1, ascending=False, method="average")
    tied = (ranked.nunique(axis=1) == 1).all()  # everything: the statistic would be 0 / 0
    p = 1.0 if tied else float(distributions.friedmanchisquare(*(ranked[name] for name in names)).pvalue)
    q = float(distributions.studentized_range.ppf(stats.LEVEL, k, float("inf"))) / 2**0.5
    return Ranks(ranked.mean().sort_values(kind="stable"), n, p, q * (k * (k + 1) / (6 * n)) ** 0.5)
