"""How sure a paired comparison is beyond its interval: the probability that A beats B, and how many seeds would decide.

All from the differences A - B of shared seeds, under the t model of the intervals: differences of independent seeds,
normal with unknown mean and sd. What is said holds for the teacher and the split that the seeds share.
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
    d = _checked(differences)
    found = stats.moments(d)
    n, mean, sd = found["n"], found["mean"], found["sd"]
    zero = 1e-9 * np.abs(d).max()
    wins, ties = int((d > zero).sum()), int((np.abs(d) <= zero).sum())
    return Chance(
        n, wins, ties, (wins + ties / 2) / n, _above(mean, sd / n**0.5, n), _above(mean, sd * (1 + 1 / n) ** 0.5, n)
    )


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


def plan(differences: ArrayLike, *, power: float = POWER, cap: int = CAP) -> Plan:
    """What it takes to decide a comparison, from its [n] differences. Raises `ValueError` without a finite difference.

    The observed mean and sd stand for the true ones. With few seeds both are rough, so the answer is an order of
    magnitude; and a plan is made once: adding seeds until an interval excludes 0 makes a difference out of any noise.
    """
    d = _checked(differences)
    found = stats.moments(d)
    n, mean, sd, half = found["n"], found["mean"], found["sd"], found["half"]
    if n < 2:
        return Plan("unknown", n)
    if abs(mean) <= 1e-9 * np.abs(d).max():
        return Plan("undecidable", n)
    if abs(mean) > half:
        return Plan("decided", n)
    needed = seeds_needed(mean, sd, power=power, cap=cap)
    return Plan("beyond", n) if needed is None else Plan("more", n, max(needed, n + 1))


def seeds_needed(mean: float, sd: float, *, power: float = POWER, cap: int = CAP) -> int | None:
    """The smallest n for which the 95 % t interval lies on the mean's side of 0 with `power`; None beyond `cap`."""
    if not 0 < power < 1 or cap < 2:
        raise ValueError(f"power lies between 0 and 1 and cap is 2 or more, got {power} and {cap}")
    if power_at(mean, sd, cap) < power:
        return None
    low, high = 1, cap  # n = low is too few, n = high enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(mean, sd, middle) >= power else (middle, high)
    return high


def power_at(mean: float, sd: float, n: int) -> float:
    """The probability that the 95 % t interval of n differences lies on the true mean's side of 0; 0.025 at mean 0.

    The paired t-test's power by the noncentral t distribution (Cohen 1988, ch. 2; R's `power.t.test(type = "paired")`).
    """
    if not (math.isfinite(mean) and math.isfinite(sd) and sd >= 0 and n >= 2):
        raise ValueError(
            f"power takes a finite mean, a finite sd of 0 or more and n of 2 or more, got {mean}, {sd}, {n}"
        )
    if sd == 0:
        return 1.0 if mean else 0.0
    reach = special.stdtrit(n - 1, 0.5 + stats.LEVEL / 2)
    missed = special.nctdtr(n - 1, abs(mean) / sd * n**0.5, reach)  # NaN where it is too small to be computed
    return 1 - float(np.nan_to_num(missed))


def outlook(frame: pd.DataFrame, baseline: str, metric: str = stats.TOP1, by: str = "label") -> pd.DataFrame:
    """Per pair and name other than the baseline: n, wins, ties, share, p_mean, p_new, state, seeds (in all), further.

    See `chance` and `plan`; seeds and further are NaN where no number of seeds can be named. Names that share no seed
    with the baseline have no row.
    """
    rows = []
    for (pair, name), part in stats.differences(frame, baseline, metric, by).groupby(["pair", by], sort=False):
        found, then = chance(part["difference"]), plan(part["difference"])
        rows.append(
            {"pair": pair, by: name, **vars(found), "state": then.state, "seeds": then.seeds, "further": then.further}
        )
    columns = ["pair", by, "n", "wins", "ties", "share", "p_mean", "p_new", "state", "seeds", "further"]
    return pd.DataFrame(rows, columns=columns).astype({"seeds": float, "further": float})


def _above(mean: float, scale: float, n: int) -> float:
    """P(x > 0) for x ~ t(n - 1) at mean with this scale."""
    if n < 2:
        return math.nan
    if scale == 0:
        return 0.5 + 0.5 * float(np.sign(mean))
    return float(special.stdtr(n - 1, mean / scale))


def _checked(differences: ArrayLike) -> NDArray[np.float64]:
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError("a paired comparison takes a list of at least one finite difference")
    return d
