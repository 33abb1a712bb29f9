"""Statements about many rows at once: simultaneous intervals, P(best) and ranks. Of many looks: `bench.suite.decide`.

All from paired differences over seeds under the t model of `stats`: independent seeds, normal differences with a mean
and an sd of each row's own, both unknown. `alpha` is the probability that anything at all in the family is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bench.report import stats

ALPHA = 1 - stats.LEVEL
FEW = 5  # seeds; below, an interval rests on the normal model more than on the data, and "suggests" what it says
DRAWS = 20_000


def intervals(differences: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """Label, n, mean, low, high, verdict: t intervals of a family that hold together with 95 % probability.

    differences: by label, [n] over the seeds that this row shares with the reference; n may differ from row to row.
    Bonferroni: each of the K rows gets the t quantile at 1 - 0.05 / (2 K) with its own n - 1 degrees of freedom, which
    keeps the family's error at 5 % or less under any dependence of the rows. The correlation of the rows is not used:
    of 3 seeds its estimate has rank 2, and max-|t| quantiles from it err in 8 to 13 % of simulated suites of 10 and 36
    rows, while those from the true one are at most 7 % smaller (correlation up to 0.5), as every row is divided by
    an sd of its own. n < 2 gives NaN and "open", and
    counts for no row of K.
    """
    of_rows = {label: stats.moments(np.asarray(values, dtype=float)) for label, values in differences.items()}
    rows, k = [], sum(m["n"] > 1 for m in of_rows.values())
    for label, m in of_rows.items():
        half = float(stats.t_quantile(m["n"], ALPHA / k)) * m["sd"] / m["n"] ** 0.5 if m["n"] > 1 else np.nan
        low, high = m["mean"] - half, m["mean"] + half
        rows.append((label, m["n"], m["mean"], low, high, stats.standing(low, high)))
    return pd.DataFrame(rows, columns=["label", "n", "mean", "low", "high", "verdict"])


def to_reference(frame: pd.DataFrame, reference: str, metric: str = stats.TOP1) -> pd.DataFrame:
    """Pair, then the columns of `intervals`: each pair's rows against the reference, as one family."""
    parts = []
    for pair, part in stats.differences(frame, reference, metric).groupby("pair", sort=False):
        by_row = part.groupby("label", sort=False)["difference"]
        parts.append(intervals({str(label): d for label, d in by_row}).assign(pair=pair))
    columns = ["pair", *intervals({}).columns]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def tied(frame: pd.DataFrame, top: str) -> list[str] | None:
    """The rows of one pair that are not distinguishable from `top`; None where no row shares two seeds with it.

    The family is all rows against the top, K - 1 comparisons: enough for the row that is truly best to be among them
    with 95 %, since it alone must not fall behind any of the K - 1 others (Gupta 1965, Technometrics 7(2)).
    """
    rows = to_reference(frame, top).query("n > 1")
    return None if rows.empty else sorted(rows.loc[rows["verdict"].isin(("open", "equal")), "label"])


def places(frame: pd.DataFrame, metric: str = stats.TOP1) -> pd.DataFrame:
    """Pair, label, p_best, rank_low, rank_high: `best` of each pair's rows that have finished every seed of it."""
    parts = []
    for pair, values in stats.complete(frame, metric).items():
        if values.shape[1] > 1:
            found = best(values).rename(columns={"low": "rank_low", "high": "rank_high"})
            parts.append(found.assign(pair=pair, label=values.columns))
    columns = ["pair", "label", "p_best", "rank_low", "rank_high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def best(values: ArrayLike, seed: int = 0) -> pd.DataFrame:
    """p_best, low, high per row: the probability of having the highest true mean, and 95 % of its rank's (1 is best).

    values: [n seeds, K rows], finite, the same seeds for every row; NaN throughout where n < 2. The means are drawn as
    mean + sum_i z_i (x_i - mean) / sqrt(n (n - 1)) / sqrt(chi2_{n-1} / (n - 1)) with one z and one chi2 for all rows: a
    t distribution with n - 1 degrees of freedom and scale S / n, which exists although S is singular for K >= n. Every
    difference of two rows has by it the posterior under the prior 1 / sd (Gelman et al. 2013, Bayesian Data Analysis,
    3rd ed., 3.2), so that p_best of two rows is `stats_power.chance`'s p_mean. A bootstrap over seeds has (n - 1) / n
    of this variance and, of 3 seeds, 10 distinct samples, so it would be too sure. Rank intervals hold row by row.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"ranks take finite values of the same seeds for every row, [seeds, rows], got {x.shape}")
    n, k = x.shape
    if n < 2:
        return pd.DataFrame(np.full((k, 3), np.nan), columns=["p_best", "low", "high"])
    draw, mean = np.random.default_rng(seed), x.mean(axis=0)
    spread = (n * draw.chisquare(n - 1, DRAWS)) ** -0.5  # sqrt((n - 1) / chi2) / sqrt(n (n - 1))
    means = mean + (draw.standard_normal((DRAWS, n)) @ (x - mean)) * spread[:, None]
    means = means.round(9)  # rows that are equal but for rounding are ties, and share the best place
    top = means == means.max(axis=1, keepdims=True)
    ranks = pd.DataFrame(-means).rank(axis=1, method="min")
    low, high = ranks.quantile([ALPHA / 2, 1 - ALPHA / 2], interpolation="nearest").to_numpy()
    return pd.DataFrame({"p_best": (top / top.sum(axis=1, keepdims=True)).mean(axis=0), "low": low, "high": high})
