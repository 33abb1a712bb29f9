from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate
from scipy import stats as reference

from bench.report import stats, stats_power
from bench.report.stats_power import CAP, Plan, chance, outlook, plan, power_at, seeds_needed
from tests.report.made_up import run

BAD: dict[str, tuple[list, str]] = {
    "empty": ([], "finite difference"),
    "nan": ([math.nan, 1.0], "finite difference"),
    "inf": ([math.inf], "finite difference"),
    "table": ([[1.0, 2.0]], "finite difference"),
    "text": (["x"], "could not convert"),
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
def test_only_finite_differences_are_taken(bad: list[float], why: str) -> None:
    for call in (chance, plan):
        with pytest.raises(ValueError, match=why):
            call(bad)


def test_share_counts_ties_half() -> None:
    found = chance([1.0, 2.0, -3.0, 0.0, 1e-14])
    assert (found.n, found.wins, found.ties, found.share) == (5, 2, 2, 0.6)
    assert chance([0.0, 0.0]).share == 0.5


def test_probability_of_the_mean_is_one_minus_p_of_the_one_sided_t_test() -> None:
    d = [0.9, -0.4, 1.7, 0.2, 0.3]
    assert chance(d).p_mean == pytest.approx(1 - reference.ttest_1samp(d, 0, alternative="greater").pvalue)
    assert chance(np.negative(d)).p_mean == pytest.approx(1 - chance(d).p_mean)


def test_probability_of_a_new_seed_is_the_predictive_one() -> None:
    d = np.array([0.9, -0.4, 1.7, 0.2, 0.3])
    draw, n = np.random.default_rng(0), len(d)
    sd = np.sqrt((n - 1) * d.var(ddof=1) / draw.chisquare(n - 1, 400_000))  # posterior under the prior 1 / sd
    mean = draw.normal(d.mean(), sd / n**0.5)
    assert chance(d).p_mean == pytest.approx((mean > 0).mean(), abs=0.003)
    assert chance(d).p_new == pytest.approx((draw.normal(mean, sd) > 0).mean(), abs=0.003)
    assert 0.5 < chance(d).p_new < chance(d).p_mean


def test_without_spread_or_with_one_seed() -> None:
    assert (chance([0.3] * 3).p_mean, chance([-0.3] * 3).p_new, chance([0.0] * 3).p_mean) == (1.0, 0.0, 0.5)
    one = chance([2.0])
    assert (one.n, one.wins, one.share) == (1, 1, 1.0) and math.isnan(one.p_mean) and math.isnan(one.p_new)


# R: power.t.test(delta = d, sd = 1, power = 0.8, type = "paired") gives 9.94, 14.30, 33.37, 198.15
@pytest.mark.parametrize(("effect", "n"), [(1.0, 10), (0.8, 15), (0.5, 34), (0.2, 199)])
def test_seeds_needed_equals_published_sample_sizes(effect: float, n: int) -> None:
    assert seeds_needed(effect, 1.0) == n == seeds_needed(-3 * effect, 3.0)
    assert power_at(effect, 1.0, n) >= 0.8 > power_at(effect, 1.0, n - 1)


def test_power_equals_the_integral_over_the_sample_sd() -> None:
    for effect, n in ((0.3, 5), (1.2, 4), (2.0, 3), (0.1, 50)):
        reach, f = reference.t.ppf(0.975, n - 1), n - 1

        def inside(v: float, reach: float = reach, f: int = f, shift: float = effect * n**0.5) -> float:
            return float(reference.norm.sf(reach * (v / f) ** 0.5 - shift) * reference.chi2.pdf(v, f))

        assert power_at(effect, 1.0, n) == pytest.approx(integrate.quad(inside, 0, np.inf)[0], abs=1e-6)
    assert power_at(0.0, 1.0, 7) == pytest.approx(0.025)


def test_power_is_a_number_for_any_effect_and_grows_with_n() -> None:
    for effect in np.geomspace(1e-6, 1e4, 41):
        powers = [power_at(effect, 1.0, n) for n in (2, 3, 5, 10, 50, 1000)]
        assert np.isfinite(powers).all() and (np.diff(powers) > -1e-9).all()


def test_a_plan_says_what_state_the_comparison_is_in() -> None:
    d = np.array([1.0, -0.4, 1.7, 0.2])  # mean 0.625, sd 0.91
    found = plan(d)
    assert found == Plan("more", 4, seeds_needed(d.mean(), d.std(ddof=1)))
    assert found.seeds == 19 and found.further == 15
    assert plan([1.0, 1.1, 0.9]) == Plan("decided", 3)
    assert plan([1.0, 1.0]) == Plan("decided", 2)
    assert plan([1.0, -1.0, 0.0]).state == "undecidable" == plan([0.0, 0.0]).state
    assert plan([1.0]) == Plan("unknown", 1) and plan([1.0]).further is None
    assert plan([10.0, -10.0, 0.01]) == Plan("beyond", 3)
    assert CAP == 1000 and seeds_needed(0.0888, 1.0) == 998 and seeds_needed(0.0886, 1.0) is None


def test_a_plan_holds_what_it_promises() -> None:
    """80 % of experiments with the planned number of seeds exclude 0, where mean and sd are the true ones."""
    n = seeds_needed(0.7, 1.0)
    assert n is not None
    draws = np.random.default_rng(3).normal(0.7, 1.0, (40_000, n))
    low = draws.mean(1) - reference.t.ppf(0.975, n - 1) * draws.std(1, ddof=1) / n**0.5
    assert (low > 0).mean() == pytest.approx(power_at(0.7, 1.0, n), abs=0.01) and (low > 0).mean() > 0.79


def test_undecided_always_takes_more_seeds_than_there_are() -> None:
    draw = np.random.default_rng(1)
    for _ in range(200):
        d = draw.normal(draw.normal(), 1, int(draw.integers(2, 9)))
        found, half = plan(d), stats.moments(d)["half"]
        assert (found.state == "decided") == (abs(d.mean()) > half)
        if found.seeds is not None:
            assert found.seeds > len(d)


def test_outlook_has_a_row_per_pair_and_name() -> None:
    rows = [
        run(name, s, v, pair) for pair in ("big->small", "a->b") for name, values in VALUES.items() for s, v in values
    ]
    out = outlook(pd.DataFrame(rows), "vanilla")
    assert out[["pair", "label"]].to_numpy().tolist() == [[p, n] for p in ("big->small", "a->b") for n in ("kd", "dkd")]
    kd, dkd = (out.iloc[i] for i in (0, 1))
    assert (kd["p_mean"], kd["state"], kd["further"]) == (
        pytest.approx(chance([1.0, -0.4, 1.7, 0.2]).p_mean),
        "more",
        15,
    )
    assert dkd["state"] == "unknown" and math.isnan(dkd["further"]) and math.isnan(dkd["p_mean"])
    with pytest.raises(ValueError, match="no runs"):
        outlook(pd.DataFrame(rows).iloc[:0], "vanilla")
    alone = outlook(pd.DataFrame([run("vanilla", 0, 1.0), run("kd", 1, 1.0)]), "vanilla")
    assert alone.empty and list(alone.columns) == list(out.columns)
    assert stats_power.POWER == 0.8


VALUES = {
    "vanilla": [(0, 80.0), (1, 80.0), (2, 80.0), (3, 80.0)],
    "kd": [(0, 81.0), (1, 79.6), (2, 81.7), (3, 80.2)],
    "dkd": [(3, 82.0), (4, 82.0)],
}
