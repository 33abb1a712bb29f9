from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate
from scipy import stats as reference

from bench.report import stats
from bench.report.simultaneous import best, intervals
from bench.report.stats_power import chance
from bench.suite.decide import EFFECT, anytime, anytime_reach, decision

Draws = NDArray[np.float64]


def suites(count: int, n: int, rows: int, rho: float, seed: int = 0) -> Draws:
    """[count, n, rows] differences without any true one, equicorrelated by rho within a seed, sds from 1 to 5."""
    draw = np.random.default_rng([seed, n, rows, round(100 * rho)])
    own, shared = draw.standard_normal((count, n, rows)), draw.standard_normal((count, n, 1))
    return np.asarray(((1 - rho) ** 0.5 * own + rho**0.5 * shared) * np.linspace(1, 5, rows))


def largest_t(d: Draws) -> Draws:
    """[...] max over rows of |t|, of [..., n, rows]."""
    return np.asarray((np.abs(d.mean(-2)) / d.std(-2, ddof=1) * d.shape[-2] ** 0.5).max(-1))


def family_errors(count: int, n: int, rows: int, rho: float) -> float:
    """The share of suites without a difference of which any row is called better or worse."""
    return float((largest_t(suites(count, n, rows, rho)) > stats.t_quantile(n, 0.05 / rows)).mean())


def test_intervals_by_hand() -> None:
    d = {"kd": [1.0, 2.0, 0.5, 1.5], "dkd": [0.1, -0.2, 0.1], "crd": [5.0], "none": []}
    out = intervals(d).set_index("label")
    low, high = reference.ttest_1samp(d["kd"], 0).confidence_interval(1 - 0.05 / 2)  # two have an interval
    assert out.loc["kd", ["n", "mean", "low", "high"]].tolist() == pytest.approx([4, 1.25, low, high])
    assert out["n"].tolist() == [4, 3, 1, 0] and out["verdict"].tolist() == ["open"] * 4
    assert out.loc[["crd", "none"], ["low", "high"]].isna().all(axis=None)
    one = stats.moments(np.array(d["kd"]))
    assert intervals({"kd": d["kd"]})["high"].item() == pytest.approx(one["mean"] + one["half"])
    assert intervals({}).empty


def test_verdicts_are_weaker_with_many_rows() -> None:
    alone = intervals({"up": [1.0, 1.2, 0.9, 1.1], "down": [-1.0, -1.2, -0.9, -1.1, -1.0], "same": [0.0, 0.0]})
    assert alone["verdict"].tolist() == ["better", "worse", "equal"]
    many = intervals({str(i): [1.0, 1.7, 0.6, 1.1] for i in range(36)})
    assert set(many["verdict"]) == {"open"} and intervals({"x": [1.0, 1.7, 0.6, 1.1]})["verdict"].item() == "better"


@pytest.mark.parametrize("rows", [10, 36])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_families_err_in_five_percent_of_suites_or_less(rows: int, n: int) -> None:
    """And what the true correlation would win: max |t| has a 95 % quantile at most 15 % smaller where rho is 0.5."""
    for rho in (0.0, 0.5, 0.9):
        assert 0.005 < family_errors(2000, n, rows, rho) < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    exact = np.quantile(largest_t(suites(2000, n, rows, 0.5, seed=1)), 0.95)
    assert 0.85 < exact / stats.t_quantile(n, 0.05 / rows) < 1.1


def test_the_simulated_errors_are_those_of_the_intervals() -> None:
    d = suites(60, 3, 10, 0.0) + np.linspace(0, 20, 60)[:, None, None]
    called = [intervals({str(i): suite[:, i] for i in range(10)})["verdict"].ne("open").any() for suite in d]
    assert called == list(largest_t(d) > stats.t_quantile(3, 0.005)) and 0 < sum(called) < 60


def test_the_estimated_correlation_of_three_seeds_would_err_more_often() -> None:
    """max-|t| by the estimated correlation, rows independent in truth: the reason why it is not used."""
    draw, wrong = np.random.default_rng(5), 0
    for d in suites(200, 3, 36, 0.0):
        z = draw.standard_normal((1000, 3, 3)) @ ((d - d.mean(0)) / d.std(0, ddof=1) / 2**0.5)
        wrong += bool(largest_t(d[None])[0] > np.quantile(largest_t(z), 0.95))
    assert wrong / 200 > 0.1


def test_p_best_of_two_rows_is_the_chance_of_one() -> None:
    d = np.array([0.9, -0.4, 1.7, 0.2])
    base = np.array([70.0, 71.0, 69.5, 72.0])
    out = best(np.stack([base + d, base], axis=1))
    assert out["p_best"].tolist() == pytest.approx([chance(d).p_mean, 1 - chance(d).p_mean], abs=0.01)
    assert out[["low", "high"]].to_numpy().tolist() == [[1, 2], [1, 2]]


def test_best_is_certain_without_spread_and_shared_by_equal_rows() -> None:
    x = np.array([[3.0, 2.0, 1.0]] * 4) + np.arange(4.0)[:, None]
    assert best(x)[["p_best", "low", "high"]].to_numpy().tolist() == [[1, 1, 1], [0, 2, 2], [0, 3, 3]]
    twins = best(np.stack([x[:, 0], x[:, 0], x[:, 2]], axis=1))
    assert twins["p_best"].tolist() == [0.5, 0.5, 0] and twins["low"].tolist() == [1, 1, 3]
    assert best(x[:1]).isna().all(axis=None)
    for bad in (np.zeros((0, 3)), np.zeros(3), np.array([[1.0, math.nan]])):
        with pytest.raises(ValueError, match="the same seeds for every row"):
            best(bad)


def test_ranks_of_many_rows_on_few_seeds_are_wide_and_probabilities_sum_to_one() -> None:
    draw = np.random.default_rng(2)
    x = draw.standard_normal((3, 36)) + np.linspace(0, 0.5, 36)
    out = best(x)
    assert out["p_best"].sum() == pytest.approx(1) and (out["low"] <= out["high"]).all()
    assert (out["high"] - out["low"]).median() > 10
    assert out.equals(best(x))


def misses(count: int, most: int, comparisons: int = 1, rho: float = 0.0) -> float:
    """The share of families of which any confidence sequence leaves out the true mean, 0, at any look from n = 3 on."""
    d, missed = suites(count, most, comparisons, rho), np.zeros(count, dtype=bool)
    for n in range(3, most + 1):
        missed |= largest_t(d[:, :n]) > anytime_reach(n, 0.05 / comparisons) * n**0.5
    return float(missed.mean())


@pytest.mark.parametrize(("comparisons", "rho"), [(1, 0.0), (9, 0.0), (9, 0.5)])
def test_sequences_cover_family_wise_under_continuous_monitoring(comparisons: int, rho: float) -> None:
    assert 0.01 < misses(20_000 // comparisons, 30, comparisons, rho) <= 0.05


def test_looking_every_time_with_plain_intervals_would_miss() -> None:
    d = suites(2000, 30, 1, 0.0)
    looks = [largest_t(d[:, :n]) > stats.t_quantile(n, 0.05) for n in range(3, 31)]
    assert np.any(looks, axis=0).mean() > 0.15


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_border_is_where_the_mixture_of_likelihood_ratios_is_one_over_alpha(n: int) -> None:
    """By integrating the noncentral t density over the prior of mean / sd, against Ville's threshold."""
    t = anytime_reach(n, 0.05) * n**0.5

    def mixed(effect: float) -> float:
        prior = reference.norm.pdf(effect, scale=EFFECT**0.5)
        return float(prior * reference.nct.pdf(t, n - 1, effect * n**0.5))

    ratio = integrate.quad(mixed, -8, 30, points=[0, t / n**0.5], limit=200)[0] / reference.t.pdf(t, n - 1)
    assert ratio == pytest.approx(20, rel=1e-3)


def test_the_martingale_begins_at_one_and_keeps_its_mean() -> None:
    """E[M_n] = 1 at mean 0, of the formula in the docstring."""
    for n in (2, 4, 9):
        r = 1 + n * EFFECT

        def weighted(t: float, n: int = n, r: float = r) -> float:
            x = t**2 / (n - 1)
            return float(r**-0.5 * ((1 + x) / (1 + x / r)) ** (n / 2) * reference.t.pdf(t, n - 1))

        assert 2 * integrate.quad(weighted, 0, np.inf, limit=200)[0] == pytest.approx(1, abs=1e-6)


def test_anytime_intervals_shift_and_scale_and_narrow() -> None:
    d = np.random.default_rng(3).standard_normal(30)
    low, high = anytime(d)
    assert (low + high) / 2 == pytest.approx(d.mean()) and high - low == pytest.approx(
        2 * anytime_reach(30) * d.std(ddof=1)
    )
    assert anytime(7 - 2 * d) == pytest.approx((7 - 2 * high, 7 - 2 * low))
    reach = [anytime_reach(n, 0.05 / 9) for n in range(2, 31)]
    assert reach[:2] == [math.inf] * 2 and np.diff(reach[2:]).max() < 0 and np.isfinite(anytime_reach(3))
    assert anytime([1.0]) == (-math.inf, math.inf) and anytime([0.5] * 4) == (0.5, 0.5)
    for bad in ([], [1.0, math.nan, 2.0]):
        with pytest.raises(ValueError, match="finite difference"):
            anytime(bad)


def test_decisions() -> None:
    assert [decision(*ends, 0.5) for ends in ((0.1, 0.3), (-2.0, -0.1), (-0.4, 0.3), (-0.4, 0.6))] == [
        "better",
        "worse",
        "close",
        "open",
    ]
    assert decision(0.0, 0.0) == "open" == decision(math.nan, math.nan, 0.5) and decision(0.0, 0.0, 0.1) == "close"
