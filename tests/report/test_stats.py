from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from bench.report import stats
from tests.prose import Prose
from tests.report.made_up import frame, run

GOLDEN = {"vanilla": [80.0, 82.0, 81.0, 79.0], "kd": [81.0, 84.0, 81.5, 80.5], "dkd": [80.5, 81.0, 83.0, 79.0]}


def golden() -> pd.DataFrame:
    return pd.DataFrame([run(label, seed, v) for label, values in GOLDEN.items() for seed, v in enumerate(values)])


CALLS = {
    "lacking": lambda f: stats.lacking(f),
    "summary": lambda f: stats.summary(f),
    "differences": lambda f: stats.differences(f, "vanilla"),
    "paired": lambda f: stats.paired(f, "vanilla"),
    "ratios": lambda f: stats.ratios(f, "vanilla", "test/top1"),
    "choose_baseline": lambda f: stats.choose_baseline(f),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_empty_malformed_and_double_frames_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    for runs, why in (
        (golden().iloc[:0], "no runs"),
        (golden().drop(columns="seed"), "no column 'seed'"),
        (golden().drop(columns="test/top1"), "no column 'test/top1'"),
        (pd.concat([golden(), golden().head(1)]), "vanilla on big->small with seed 0: a seed counts once"),
        (golden().assign(status="failed"), "none of the 12 runs is finished with a number for test/top1"),
    ):
        with pytest.raises(ValueError, match=why):
            call(runs)


def test_unfinished_needs_its_columns_and_lists_what_is_not_averaged() -> None:
    with pytest.raises(ValueError, match="no column 'reason'"):
        stats.unfinished(golden().drop(columns="reason"))
    assert stats.unfinished(golden()).empty
    bad = [run("x", 0, math.nan), run("x", 1, math.inf), run("x", 2, 50.0, status="diverged", reason="loss is nan")]
    out = stats.unfinished(pd.concat([golden(), pd.DataFrame(bad)]))
    assert out["seed"].tolist() == [0, 1, 2] and out["status"].tolist() == ["finished", "finished", "diverged"]
    assert out["reason"].tolist() == ["test/top1 is not a number"] * 2 + ["loss is nan"]
    everything = stats.summary(pd.concat([golden(), pd.DataFrame(bad)]))
    pd.testing.assert_frame_equal(everything, stats.summary(golden()))


def test_summary_equals_scipy() -> None:
    out = stats.summary(golden()).set_index("label")
    for label, values in GOLDEN.items():
        low, high = reference.t.interval(0.95, 3, np.mean(values), reference.sem(values))
        row = out.loc[label]
        assert (row["n"], row["mean"]) == (4, pytest.approx(np.mean(values)))
        assert row["sd"] == pytest.approx(np.std(values, ddof=1))
        assert (row["mean"] - row["half"], row["mean"] + row["half"]) == pytest.approx((low, high))


def test_paired_equals_scipy_and_hand_computation() -> None:
    out = stats.paired(golden(), "vanilla").set_index("label")
    assert set(out.index) == {"kd", "dkd"}
    for label in out.index:
        test = reference.ttest_rel(GOLDEN[label], GOLDEN["vanilla"])
        interval = test.confidence_interval(0.95)
        assert out.loc[label, ["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    # kd - vanilla = 1, 2, 0.5, 1.5: all positive, so only the two extreme sign vectors of 16 reach the sum
    assert out.loc["kd", ["n", "mean", "p"]].tolist() == [4, 1.25, 2 / 16]
    # dkd - vanilla = 0.5, -1, 2, 0: sums of +-0.5 +-1 +-2 reach 1.5 in 6 of 8 vectors
    assert out.loc["dkd", ["mean", "p"]].tolist() == [0.375, 0.75]
    assert out.loc["kd", "p_holm"] == 2 * 2 / 16 and out.loc["dkd", "p_holm"] == 0.75
    assert stats.differences(golden(), "vanilla").query("label == 'kd'")["difference"].tolist() == [1, 2, 0.5, 1.5]


def test_pairing_uses_the_seeds_both_have_and_stays_within_a_pair() -> None:
    two = pd.concat([golden(), golden().assign(pair="a->b", **{"test/top1": golden()["test/top1"] * 2})])
    two = two[~((two["label"] == "kd") & (two["seed"] == 0) & (two["pair"] == "a->b"))]
    out = stats.paired(two, "vanilla").set_index(["pair", "label"])
    assert out.loc[("big->small", "kd"), ["n", "mean"]].tolist() == [4, 1.25]
    assert out.loc[("a->b", "kd"), ["n", "mean"]].tolist() == [3, pytest.approx(2 * 4 / 3)]
    apart = pd.DataFrame([run("vanilla", 0, 80.0), run("kd", 1, 81.0)])
    row = stats.paired(apart, "vanilla").iloc[0]
    assert row["n"] == 0 and math.isnan(row["mean"]) and math.isnan(row["p"])


def test_lacking_lists_the_seeds_that_others_of_the_pair_have() -> None:
    assert stats.lacking(golden()).empty
    rows = golden()
    rows = rows[~((rows["label"] == "kd") & rows["seed"].isin([1, 3]))]
    rows.loc[(rows["label"] == "dkd") & (rows["seed"] == 0), "status"] = "diverged"
    elsewhere = pd.DataFrame([run("vanilla", 9, 1.0, "a->b"), run("kd", 9, 1.0, "a->b", "failed")])
    out = stats.lacking(pd.concat([rows, elsewhere]))
    assert out.to_dict("records") == [
        {"pair": "big->small", "label": "kd", "seeds": [1, 3]},
        {"pair": "big->small", "label": "dkd", "seeds": [0]},
        {"pair": "a->b", "label": "kd", "seeds": [9]},
    ]


def test_one_seed_gives_no_interval() -> None:
    one = golden().query("seed == 0")
    assert stats.summary(one)["half"].isna().all() and stats.summary(one)["sd"].isna().all()
    row = stats.paired(one, "vanilla").iloc[0]
    assert row["n"] == 1 and row["mean"] == 1.0 and math.isnan(row["low"]) and row["p"] == 1.0


def test_constant_input_gives_intervals_of_width_zero() -> None:
    equal = golden().assign(**{"test/top1": 80.0})
    assert stats.summary(equal)[["sd", "half"]].eq(0).all(axis=None)
    out = stats.paired(equal, "vanilla")
    assert out[["mean", "low", "high"]].eq(0).all(axis=None) and out["p"].eq(1).all()
    shifted = golden().assign(**{"test/top1": lambda f: 80.1 + f["seed"] / 3 + 0.1 * (f["label"] == "kd")})
    row = stats.paired(shifted, "vanilla").set_index("label").loc["kd"]
    assert row["low"] == row["high"] == pytest.approx(0.1) and row["p"] == 2 / 16


def test_unknown_baseline_is_named(prose: Prose) -> None:
    with pytest.raises(ValueError, match="'crd'; there are vanilla, kd, dkd") as error:
        stats.paired(golden(), "crd")
    prose(str(error.value))


def test_sign_flip_equals_scipy_exactly() -> None:
    draw = np.random.default_rng(0)
    for n in (2, 5, 9, 12):
        d = draw.normal(0.4, 1, n)
        options = {"permutation_type": "samples", "n_resamples": np.inf, "alternative": "two-sided"}
        other = reference.permutation_test((d, np.zeros(n)), lambda a, b: np.mean(a - b), **options)  # type: ignore[call-overload]
        assert stats.sign_flip(d) == pytest.approx(other.pvalue)


def test_sign_flip_beyond_sixteen_is_sampled_alike_every_time() -> None:
    d = np.random.default_rng(1).normal(0.3, 1, 17)
    signs = (np.arange(2**17)[:, None] >> np.arange(17)) & 1
    exact = float((np.abs((2.0 * signs - 1) @ d) >= abs(d.sum()) - 1e-12).mean())
    assert stats.sign_flip(d) == stats.sign_flip(d) == pytest.approx(exact, abs=0.01)
    assert stats.sign_flip(np.ones(40)) == pytest.approx(1 / 100_001)
    for bad in ([], [math.nan], [[1.0]]):
        with pytest.raises(ValueError, match="at least one finite difference"):
            stats.sign_flip(bad)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert stats.holm([]).tolist() == []


def test_ratios_are_medians_within_seeds() -> None:
    rows = golden().assign(cost=[10.0, 20.0, 40.0, 10.0, 20.0, 30.0, 80.0, 100.0, 0.0, 0.0, 0.0, 0.0])
    out = stats.ratios(rows, "vanilla", "cost").set_index("label")["ratio"]
    assert out.to_dict() == {"vanilla": 1.0, "kd": 2.0, "dkd": 0.0}  # 2, 1.5, 2, 10
    assert math.isnan(stats.ratios(rows, "dkd", "cost").set_index("label").loc["kd", "ratio"])


def test_the_baseline_is_vanilla_then_kd_then_the_first() -> None:
    rows = golden()
    assert stats.choose_baseline(rows) == "vanilla"
    failed = rows.assign(status=rows["status"].where(rows["label"] != "vanilla", "failed"))
    assert stats.choose_baseline(failed) == "kd"
    assert stats.choose_baseline(rows[rows["label"] == "dkd"]) == "dkd"
    named = pd.DataFrame([run("dkd", 0, 1.0), run("kd(tau=8)", 0, 1.0)])
    assert stats.choose_baseline(named) == "kd(tau=8)"


def test_made_up_frames_are_what_they_claim() -> None:
    assert len(frame()) == 30 and stats.unfinished(frame()).empty
