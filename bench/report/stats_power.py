"""How sure a paired comparison is beyond its interval: the probability that A beats B, and how many seeds would decide.

All from the differences A - B of shared seeds, under the t model of the intervals: differences of independent seeds,
normal with unknown mean and sd. What is said holds for the teacher and the split, where the seeds share them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bench.report import stats

POWER = 0.8
CAP = 1000  # seeds; a difference that needs more is smaller than any reader of a table of accuracies means


@dataclass(frozen=True)
class Chance:
    """How probable it is that A beats B. Probabilities in [0, 1]; those of the t model NaN where n < 2."""

    n: int  # shared seeds
    wins: int  # of A
    ties: int
    share: float  # (wins + ties / 2) / n
    p_mean: float  # P(mean difference > 0)
    p_new: float  # P(difference of a new seed > 0)


def chance(differences: ArrayLike) -> Chance:
    """The probability that A beats B, from [n] differences A - B. Raises `ValueError` without a finite difference.

    share: the probability of outperforming P(A > B) over paired seeds, ties counted half (Bouthillier et al. 2021,
    "Accounting for variance in machine learning benchmarks", arXiv 2103.03098). p_mean: the posterior of the mean
    under the prior 1 / sd, t(n - 1) at the mean with scale sd / sqrt(n) (the Bayesian t-test of Benavoli et al. 2017,
    JMLR 18(77), for uncorrelated replicates), which is 1 - p of the one-sided t-test. p_new: the predictive
    distribution of one more, scale sd * sqrt(1 + 1 / n) (Gelman et al. 2013, Bayesian Data Analysis, 3rd ed., 3.2).
    """
    d = stats.finite(differences)
    m, zero = stats.moments(d), 1e-9 * np.abs(d).max()
    n, wins, ties = m["n"], int((d > zero).sum()), int((np.abs(d) <= zero).sum())
    p_mean, p_new = (_above(m["mean"], scale, n) for scale in (m["sd"] / n**0.5, m["sd"] * (1 + 1 / n) ** 0.5))
    return Chance(n, wins, ties, (wins + ties / 2) / n, p_mean, p_new)


@dataclass(frozen=True)
class Plan:
    """How many seeds decide a comparison.

    state: "decided" (the interval excludes 0), "more" (`seeds` in all would), "beyond" (not even `CAP` would),
    "undecidable" (the observed mean is 0), "unknown" (n < 2: no sd to plan with).
    """

    state: str
    n: int  # shared seeds there are
    seeds: int | None = None  # seeds in all, where state is "more"

    @property
    def further(self) -> int | None:
        return None if self.seeds is None else self.seeds - self.n


def plan(differences: ArrayLike, family: int = 1) -> Plan:
    """What it takes to decide a comparison, from its [n] differences. Raises `ValueError` without a finite difference.

    family: how many comparisons its interval is to hold for at once (`simultaneous.intervals`). The observed mean and
    sd stand for the true ones. With few seeds both are rough, so the answer is an order of magnitude; and a plan is
    made once: adding seeds until an interval excludes 0 makes a difference out of any noise.
    """
    d = stats.finite(differences)
    m = stats.moments(d)
    n, mean = m["n"], m["mean"]
    if n < 2:
        return Plan("unknown", n)
    if abs(mean) <= 1e-9 * np.abs(d).max():
        return Plan("undecidable", n)
    if abs(mean) > stats.t_quantile(n, (1 - stats.LEVEL) / family) * m["sd"] / n**0.5:
        return Plan("decided", n)
    needed = seeds_needed(mean, m["sd"], family)
    return Plan("beyond", n) if needed is None else Plan("more", n, max(needed, n + 1))


def seeds_needed(mean: float, sd: float, family: int = 1) -> int | None:
    """The smallest n for which the 95 % t interval lies on the mean's side of 0 with `POWER`; None beyond `CAP`."""
    n = np.arange(2, CAP + 1)
    enough = n[power_at(mean, sd, n, family) >= POWER]
    return int(enough[0]) if len(enough) else None


def power_at(mean: float, sd: float, n: ArrayLike, family: int = 1) -> NDArray[np.float64]:
    """The probability that the 95 % t interval of n differences lies on the true mean's side of 0; 0.025 at mean 0.

    The paired t-test's power by the noncentral t distribution (Cohen 1988, ch. 2; R's `power.t.test(type = "paired")`).
    mean, sd > 0: of the differences; n: 2 or more, any shape.
    """
    n = np.asarray(n)
    reach = stats.t_quantile(n, (1 - stats.LEVEL) / family)
    missed = special.nctdtr(n - 1, abs(mean) / sd * n**0.5, reach)  # NaN where it is too small to be computed
    return np.asarray(1 - np.nan_to_num(missed))


def outlook(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Per pair and label other than the baseline's that share a seed with it: p_mean of `chance`, state and further of
    `plan`, all rows of a pair at once; further is NaN where no number of seeds can be named."""
    long = stats.differences(frame, baseline)
    groups, rows = long.groupby(["pair", "label"], sort=False)["difference"], []
    families = groups.size().gt(1).groupby("pair").sum()
    for (pair, label), d in groups:
        more = plan(d, int(families[pair]))
        rows.append((pair, label, chance(d).p_mean, more.state, more.further))
    columns = ["pair", "label", "p_mean", "state", "further"]
    return pd.DataFrame(rows, columns=columns).astype({"further": float})


def _above(mean: float, scale: float, n: int) -> float:
    """P(x > 0) for x ~ t(n - 1) at mean with this scale."""
    if n < 2:
        return math.nan
    return float(special.stdtr(n - 1, mean / scale)) if scale else 0.5 + 0.5 * float(np.sign(mean))
