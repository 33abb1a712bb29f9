"""Average ranks over pairs (teacher -> student), Friedman's test and Nemenyi's critical difference. A supplement.

Ranks throw away by how much a method is better, and who is told from whom depends on which other methods stand in the
table (Benavoli et al. 2016, JMLR 17(5)): the paired differences are the comparison, these may stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.report import stats

LEAST_METHODS = 3
LEAST_PAIRS = 5
"""Simulated without any difference (20 000 draws, 3 to 20 methods): from 5 pairs on, both tests reject in 5 % or less;
with 4 pairs and 3 methods Friedman's chi-square rejects in 7 %, and with 3 pairs Nemenyi's test hardly ever."""


class NotEnough(ValueError):
    """Too few methods or pairs for a statement about ranks, and how many there are."""


@dataclass(frozen=True)
class Ranks:
    """rows: name and mean rank (1 is best), best first; over `pairs`. critical: the difference of two mean ranks from
    which on Nemenyi's test tells two names apart (5 %). left_out: pairs in which a name has no finished run."""

    rows: pd.DataFrame
    pairs: list[str]
    left_out: list[str]
    statistic: float
    p: float
    critical: float

    def apart(self, a: str, b: str) -> bool:
        """Does Nemenyi's test tell a from b? Only after Friedman's test has found any difference at all."""
        mean = self.rows.set_index(self.rows.columns[0])["rank"]
        return self.p <= 1 - stats.LEVEL and bool(abs(mean[a] - mean[b]) >= self.critical)


def ranks(frame: pd.DataFrame, metric: str = stats.TOP1, by: str = "label", *, higher: bool = True) -> Ranks:
    """Mean ranks over the pairs in which every name has finished runs. higher: is more of `metric` better?

    In each pair the names are ranked by their mean over seeds, ties share the middle rank. Friedman's chi-square test
    (1937, with the correction for ties); critical difference q * sqrt(k (k + 1) / (6 N)) with q of the studentised
    range over sqrt(2) (Nemenyi 1963; Demsar 2006, JMLR 7, 3.2.2). Raises `NotEnough` below 3 names or 5 pairs.
    """
    means = stats.summary(frame, metric, by).pivot(index="pair", columns=by, values="mean")
    names, pairs = list(frame[by].unique()), list(frame["pair"].unique())
    table = means.reindex(index=pairs, columns=names).dropna()
    left_out = [str(pair) for pair in pairs if pair not in table.index]
    if len(names) < LEAST_METHODS:
        raise NotEnough(f"ranks take {LEAST_METHODS} methods or more; there are {len(names)}")
    if len(table) < LEAST_PAIRS:
        partial = f" ({len(left_out)} more lack a method's runs)" if left_out else ""
        raise NotEnough(f"ranks take {LEAST_PAIRS} pairs with every method or more; there are {len(table)}{partial}")
    from scipy import (
        stats as distributions,
    )  # here, for most reports have too few pairs and need not pay for its import

    # means over seeds that are equal but for rounding are ties
    ranked = table.round(9).rank(axis=1, ascending=not higher, method="average")
    rows = (
        ranked.mean().rename("rank").rename_axis(by).reset_index().sort_values("rank", kind="stable", ignore_index=True)
    )
    k, used = len(names), [str(pair) for pair in table.index]
    if (ranked.nunique(axis=1) == 1).all():  # everything tied: the statistic would be 0 / 0
        statistic, p = 0.0, 1.0
    else:
        statistic, p = map(float, distributions.friedmanchisquare(*(ranked[name] for name in names)))
    q = float(distributions.studentized_range.ppf(stats.LEVEL, k, float("inf"))) / 2**0.5
    return Ranks(rows, used, left_out, statistic, p, q * (k * (k + 1) / (6 * len(used))) ** 0.5)
