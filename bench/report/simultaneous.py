"""Statements about many rows or many looks at once: simultaneous intervals, P(best) and ranks, confidence sequences.

All from paired differences over seeds under the t model of `stats`: independent seeds, normal differences with a mean
and an sd of each row's own, both unknown. `alpha` is the probability that anything at all in the family is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from bench.report import stats

ALPHA = 1 - stats.LEVEL
FEW = 5  # seeds; below, an interval rests on the normal model more than on the data, and "suggests" what it says
DRAWS = 20_000
EFFECT = 10.0
"""Prior variance of mean / sd in a confidence sequence. 5 to 15 are within 2 % of the narrowest on average over 5 to 30
seeds in families of 9; less leaves 4 seeds without an end, more is wider where seeds are many."""


def intervals(differences: Mapping[str, ArrayLike], alpha: float = ALPHA) -> pd.DataFrame:
    """Label, n, mean, low, high, verdict, word: t intervals of a family that hold together with probability 1 - alpha.

    differences: by label, [n] over the seeds that this row shares with the reference; n may differ from row to row.
    Bonferroni: each of the K rows gets the t quantile at 1 - alpha / (2 K) with its own n - 1 degrees of freedom, which
    keeps the family's error at alpha or less under any dependence of the rows. The correlation of the rows is not used:
    of 3 seeds its estimate has rank 2, and max-|t| quantiles from it err in 8 to 13 % of simulated suites of 10 and 36
    rows, while those from the true one are at most 7 % smaller (correlation up to 0.5), as every row is divided by
    an sd of its own. n < 2 gives NaN and "open". word: "shows", below 5 seeds "suggests": how to say the verdict.
    """
    rows, share = [], alpha / max(1, len(differences))
    for label, values in differences.items():
        m = stats.moments(np.asarray(values, dtype=float))
        half = t_quantile(m["n"], share) * m["sd"] / m["n"] ** 0.5 if m["n"] > 1 else np.nan
        low, high = m["mean"] - half, m["mean"] + half
        word = "suggests" if m["n"] < FEW else "shows"
        rows.append((label, m["n"], m["mean"], low, high, stats.standing(low, high), word))
    return pd.DataFrame(rows, columns=["label", "n", "mean", "low", "high", "verdict", "word"])


def to_reference(frame: pd.DataFrame, reference: str, metric: str = stats.TOP1) -> pd.DataFrame:
    """Pair, then the columns of `intervals`: each pair's rows against the reference, as one family.

    A row that shares one seed alone has no interval, and is not counted in the family.
    """
    long = stats.differences(frame, reference, metric)
    parts = []
    for pair, part in long.groupby("pair", sort=False):
        by_row = {str(label): d.to_numpy(float) for label, d in part.groupby("label", sort=False)["difference"]}
        family = {label: d for label, d in by_row.items() if len(d) > 1}
        alone = {label: d for label, d in by_row.items() if len(d) < 2}
        parts += [intervals(some).assign(pair=pair) for some in (family, alone) if some]
    columns = ["pair", *intervals({}).columns]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def places(frame: pd.DataFrame, metric: str = stats.TOP1) -> pd.DataFrame:
    """Pair, label, p_best, rank_low, rank_high: `best` of each pair's rows that have finished every seed of it."""
    parts = []
    for pair, part in stats.usable(frame, metric).groupby("pair", sort=False):
        values = part.pivot(index="seed", columns="label", values=metric).dropna(axis="columns")
        if values.shape[1] > 1:
            found = best(values.to_numpy(float)).rename(columns={"low": "rank_low", "high": "rank_high"})
            parts.append(found.assign(pair=pair, label=values.columns))
    columns = ["pair", "label", "p_best", "rank_low", "rank_high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def t_quantile(n: int, alpha: float) -> float:
    """What |t| of n differences exceeds with probability alpha where the true mean is 0; n >= 2."""
    return float(special.stdtrit(n - 1, 1 - alpha / 2))


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


def anytime(differences: ArrayLike, alpha: float = ALPHA) -> tuple[float, float]:
    """Low and high of a t confidence sequence at this number of seeds.

    With probability 1 - alpha the true mean lies within the intervals of all n at once, so they may be looked at after
    every seed, and seeds may stop at any look. A family of K comparisons gives each alpha / K. differences: [n] of the
    seeds so far, n >= 1; without end where n is too small for alpha.
    """
    m = stats.moments(stats.finite(differences))
    half = anytime_reach(m["n"], alpha) * m["sd"] if m["n"] > 1 else np.inf
    return m["mean"] - half, m["mean"] + half


def anytime_reach(n: int, alpha: float = ALPHA) -> float:
    """The half-width of a t confidence sequence at n >= 2 seeds, in sd (n - 1) of the differences.

    The likelihood ratio of the t statistic under mean / sd ~ N(0, g) to mean = 0, at every n and in one formula,

        M_n = (1 + n g)^(-1/2) * ((1 + x) / (1 + x / (1 + n g)))^(n/2),  x = t_n^2 / (n - 1)

    (Gonen et al. 2005, The American Statistician 59(3), for one n), is a nonnegative martingale that begins at 1, by
    the invariance of t to scale. By Ville's inequality it ever reaches 1 / alpha with a probability of at most alpha;
    solved for x at the border. This is the Gaussian-mixture sequence of Wang and Ramdas, "Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance", arXiv 2310.03722, which they set beside the flat
    mixture of Lai 1976, Annals of Statistics 4(2). That one, begun at 3 seeds, is narrower for n = 3 and 4 alone, and
    wider by 11 to 19 % for 5 to 30 seeds and alpha = 0.05 / 9.
    """
    r = 1 + n * EFFECT
    q = float(np.exp((np.log(r) - 2 * np.log(alpha)) / n))
    return float(((n - 1) / n * (q - 1) / (1 - q / r)) ** 0.5) if q < r else np.inf


def decision(low: float, high: float, margin: float = 0.0) -> str:
    """What an interval of a confidence sequence decides: "better", "worse", "close" (less than `margin` either way, in
    the differences' unit), or "open": further seeds are needed. A difference that is both is called by its sign."""
    standing = stats.standing(low, high)
    if standing in ("better", "worse"):
        return standing
    return "close" if -margin < low and high < margin else "open"
