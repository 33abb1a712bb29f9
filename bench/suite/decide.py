"""When seeds are enough: t confidence sequences, which may be looked at after every seed, and what they decide.

All from paired differences over seeds: independent, normal, with a mean and an sd of each comparison's own, both
unknown. Needs no torch: reports read the same intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOP1 = "test/top1"
ALPHA = 0.05  # the probability that anything at all in a family is wrong
EFFECT = 10.0
"""Prior variance of mean / sd in a confidence sequence. 5 to 15 are within 2 % of the narrowest on average over 5 to 30
seeds in families of 9; less leaves 4 seeds without an end, more is wider where seeds are many."""
SPREAD = 1e-6  # points; an interval without width is of equal differences, which few seeds may show by rounding alone

Top1 = Mapping[str, Mapping[str, Mapping[int, float]]]
"""By pair, row and seed: test top-1 of the last epoch, in %, of the runs that have finished."""


def anytime(differences: ArrayLike, alpha: float = ALPHA) -> tuple[float, float]:
    """Low and high of a t confidence sequence at this number of seeds.

    With probability 1 - alpha the true mean lies within the intervals of all n at once, so they may be looked at after
    every seed, and seeds may stop at any look. A family of K comparisons gives each alpha / K. differences: [n] of the
    seeds so far, n >= 1; without end where n is too small for alpha. Raises `ValueError` for none, or not finite ones.
    """
    low, high = sequence(differences, alpha)[:, -1].tolist()
    return low, high


def sequence(differences: ArrayLike, alpha: float = ALPHA) -> NDArray[np.float64]:
    """[2, n] low and high after the first, the second, ... the n-th of the differences."""
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError("a confidence sequence takes a list of at least one finite difference")
    n, x = np.arange(1, len(d) + 1), d - d[0]
    spread = np.maximum(0, (x**2).cumsum() - x.cumsum() ** 2 / n)  # of squares around the mean
    reach = np.array([anytime_reach(int(k), alpha) if k > 1 else np.inf for k in n])
    half = np.full(len(d), np.inf)
    known = np.isfinite(reach)
    half[known] = reach[known] * (spread[known] / (n[known] - 1)) ** 0.5
    return np.stack([d.cumsum() / n - half, d.cumsum() / n + half])


@cache
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
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "close" if -margin < low and high < margin else "open"


@dataclass(frozen=True)
class Decision:
    """A row beside the reference, at the first look that decided it; at the last one where none did."""

    pair: str
    method: str  # the row's title
    reference: str
    n: int  # seeds that both had finished by then
    low: float | None  # points of test top-1; None: without end
    high: float | None
    verdict: str  # of `decision`


def reference(rows: Sequence[str]) -> str:
    """The row that the others are compared with: tuned kd, else kd, else the first."""
    return next((name for name in ("kd(tuned)", "kd") if name in rows), rows[0])


def decide(top1: Top1, rows: Sequence[str], margin: float, least: int) -> list[Decision]:
    """Every row but the reference on every pair. One look after every seed that row and reference share, from `least`
    on, whatever the order in which they were trained; each of the K comparisons gets `ALPHA` / K.

    What later seeds say is not looked at: a decision stands. With probability 1 - `ALPHA` no verdict of the suite is
    wrong at any look ("better" where the mean difference is not above 0, "close" where it is not below the margin).
    """
    against = reference(rows)
    others = [(pair, row) for pair in top1 for row in rows if row != against]
    return [_decide(top1[pair], (pair, row, against), margin, least, ALPHA / len(others)) for pair, row in others]


def _decide(
    top1: Mapping[str, Mapping[int, float]], names: tuple[str, str, str], margin: float, least: int, alpha: float
) -> Decision:
    one, two = (top1.get(name, {}) for name in names[1:])
    differences = [one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())]
    if not differences:
        return Decision(*names, 0, None, None, "open")
    ends = sequence(differences, alpha).T.tolist()
    verdicts = ["open"] * (least - 1)
    verdicts += [decision(low, high, margin) if high - low > SPREAD else "open" for low, high in ends[least - 1 :]]
    n = next((n for n, verdict in enumerate(verdicts[: len(ends)], 1) if verdict != "open"), len(ends))
    low, high = (end if np.isfinite(end) else None for end in ends[n - 1])
    return Decision(*names, n, low, high, verdicts[n - 1])


def rows_to_continue(decisions: Sequence[Decision], rows: Sequence[str]) -> dict[str, list[str]]:
    """By pair, the rows that need another seed, in the order of `rows`: those that are open, with the reference and the
    plain student beside them. A row without a single seed in common has failed as often as it was asked, and stops."""
    still = {(one.pair, one.method) for one in decisions if one.verdict == "open" and one.n}
    beside = {reference(rows), "vanilla"}
    return {
        pair: [row for row in rows if row in beside or (pair, row) in still]
        for pair in dict.fromkeys(pair for pair, _ in still)
    }
