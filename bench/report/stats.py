"""Statistics over seeds: pure functions from a frame (one row per run) to a frame.

Conventions. A run counts where its status is `finished` and the metric is a finite number; `unfinished` lists the rest.
The replicate is the seed: the runs of one seed share initialisation, batches and augmentation, so methods are compared
by their differences within a seed, pair (teacher -> student) by pair. Intervals are two-sided 95 % t intervals. Metrics
keep their own unit; top-1 is in %, its differences are percentage points.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats itself takes most of a second to import

LEVEL = 0.95
TOP1 = "test/top1"
EXACT_UP_TO = 16  # pairs: 2^16 sign vectors are enumerated, more are sampled
FLIPS = 100_000


def usable(frame: pd.DataFrame, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """The finished runs with a finite `metric`, in the frame's order. Raises `ValueError` for a frame that is unfit."""
    if missing := [name for name in ("pair", by, "seed", "status", metric) if name not in frame]:
        raise ValueError(
            f"the frame has no column '{missing[0]}'; it has {', '.join(map(str, frame.columns)) or 'none'}"
        )
    if frame.empty:
        raise ValueError("the frame has no runs")
    kept = frame[(frame["status"] == "finished") & _finite(frame[metric])]
    if kept.empty:
        raise ValueError(f"none of the {len(frame)} runs is finished with a number for {metric}")
    if (twins := kept.duplicated(["pair", by, "seed"])).any():
        pair, name, seed = kept.loc[twins, ["pair", by, "seed"]].iloc[0]
        raise ValueError(f"two finished runs of {name} on {pair} with seed {seed}: a seed counts once")
    return kept


def unfinished(frame: pd.DataFrame, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """Pair, name, seed, status and reason of the runs that no average contains."""
    columns = ["pair", by, "seed", "status", "reason"]
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(
            f"the frame has no column '{missing[0]}'; it has {', '.join(map(str, frame.columns)) or 'none'}"
        )
    finished = frame["status"] == "finished"
    number = _finite(frame[metric]) if metric in frame else pd.Series(False, index=frame.index)
    out = frame.loc[~(finished & number), columns].reset_index(drop=True)
    return out.assign(reason=out["reason"].where(out["status"] != "finished", f"{metric} is not a number"))


def lacking(frame: pd.DataFrame, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """Pair, name, seeds (a sorted list): which seeds a name has not finished that another of its pair has.

    One row per name that lacks any, in the frame's order. `paired` leaves such seeds out for that name alone.
    """
    runs, rows = usable(frame, metric, by), []
    for pair, name in frame[["pair", by]].drop_duplicates().itertuples(index=False):
        of_pair = runs[runs["pair"] == pair]
        own = of_pair.loc[of_pair[by] == name, "seed"]
        if missing := sorted({int(seed) for seed in of_pair["seed"]} - {int(seed) for seed in own}):
            rows.append({"pair": pair, by: name, "seeds": missing})
    return pd.DataFrame(rows, columns=["pair", by, "seeds"])


def summary(frame: pd.DataFrame, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """Pair, name, n, mean, sd (n - 1) and half-width of the t interval over seeds; the last two NaN where n = 1."""
    rows = [
        {"pair": key[0], by: key[1], **moments(group[metric].to_numpy(float))}
        for key, group in usable(frame, metric, by).groupby(["pair", by], sort=False)
    ]
    return pd.DataFrame(rows, columns=["pair", by, "n", "mean", "sd", "half"])


def differences(frame: pd.DataFrame, baseline: str, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """Pair, name, seed, value, baseline's value, difference: one row per seed that a name shares with the baseline."""
    runs = usable(frame, metric, by)
    if baseline not in set(runs[by]):
        raise ValueError(f"no finished run of '{baseline}'; there are {', '.join(map(str, runs[by].unique()))}")
    runs = runs[["pair", by, "seed", metric]].rename(columns={metric: "value"})
    base = runs[runs[by] == baseline].drop(columns=by).rename(columns={"value": "baseline"})
    out = runs[runs[by] != baseline].merge(base, on=["pair", "seed"], how="inner")
    return out.assign(difference=out["value"].astype(float) - out["baseline"].astype(float))


def paired(frame: pd.DataFrame, baseline: str, metric: str = TOP1, by: str = "label") -> pd.DataFrame:
    """Per pair and name other than the baseline: n shared seeds, mean difference, sd, low, high, p, p_holm, smallest_p.

    p is the two-sided sign-flip p-value; Holm's correction runs over the names of one pair. n = 0: no seed shared.
    """
    runs, long = usable(frame, metric, by), differences(frame, baseline, metric, by)
    names = runs.loc[runs[by] != baseline, ["pair", by]].drop_duplicates()
    rows: list[dict[str, Any]] = []
    for pair, name in names.itertuples(index=False):
        d = long.loc[(long["pair"] == pair) & (long[by] == name), "difference"].to_numpy(float)
        m = moments(d)
        low, high = m["mean"] - m["half"], m["mean"] + m["half"]
        test = {
            "p": sign_flip(d) if len(d) else np.nan,
            "smallest_p": min(1.0, 2.0 ** (1 - len(d))) if len(d) else np.nan,
        }
        rows.append(
            {"pair": pair, by: name, "n": m["n"], "mean": m["mean"], "sd": m["sd"], "low": low, "high": high, **test}
        )
    out = pd.DataFrame(rows, columns=["pair", by, "n", "mean", "sd", "low", "high", "p", "smallest_p"])
    corrected = out.groupby("pair", sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    return out.assign(p_holm=corrected.astype(float))


def standing(low: float, high: float) -> str:
    """What an interval tells of a difference: "better", "worse", "equal" to the digit, or "open" (also if NaN)."""
    if low == high == 0:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def ratios(frame: pd.DataFrame, baseline: str, metric: str, by: str = "label") -> pd.DataFrame:
    """Pair, name, n, ratio: median over shared seeds of value / baseline's value. For costs; 1 for the baseline."""
    long = differences(frame, baseline, metric, by)
    over = long["value"].astype(float) / long["baseline"].astype(float).replace(0.0, np.nan)
    out = (
        long.assign(ratio=over).groupby(["pair", by], sort=False)["ratio"].agg(n="count", ratio="median").reset_index()
    )
    runs = usable(frame, metric, by)
    own = runs[runs[by] == baseline].groupby("pair", sort=False)[metric].count().rename("n").reset_index()
    return pd.concat([own.assign(**{by: baseline, "ratio": 1.0})[out.columns], out], ignore_index=True)


def sign_flip(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of the mean under random signs: exact up to 16 differences, else from 100 000 named draws.

    Exact: the share of all 2^n sign vectors whose |mean| reaches the observed one. Sampled: (1 + hits) / (1 + draws).
    """
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError("the sign-flip test takes a list of at least one finite difference")
    reach = abs(d.sum()) - 1e-9 * np.abs(d).sum()  # sums that differ by rounding alone are ties
    if len(d) <= EXACT_UP_TO:
        bits = (np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1
        return float((np.abs((2.0 * bits - 1.0) @ d) >= reach).mean())
    draw, hits = np.random.default_rng(seed), 0
    for _ in range(FLIPS // 1000):
        signs = 2.0 * draw.integers(0, 2, (1000, len(d))) - 1.0
        hits += int((np.abs(signs @ d) >= reach).sum())
    return (1 + hits) / (1 + FLIPS)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction of p-values; NaN stays NaN and is not counted."""
    raw = np.asarray(p, dtype=float)
    out = np.full(raw.shape, np.nan)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    out[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)))
    return out


def choose_baseline(frame: pd.DataFrame, by: str = "label") -> str:
    """The name that all others are compared with: vanilla if it has finished runs, else kd, else the frame's first."""
    runs = usable(frame, by=by)
    for method in ("vanilla", "kd"):
        names = list(runs.loc[runs["method"] == method, by]) if "method" in runs else []
        if method in set(runs[by]) or names:
            return method if method in set(runs[by]) else str(names[0])
    return str(runs[by].iloc[0])


def choose_reference(frame: pd.DataFrame, baseline: str) -> str:
    """The name that the answer and the notes compare with: tuned kd, else kd, if it has finished runs on every
    pair, and is not alone; else the baseline. A tuned method beside an untuned KD would be the literature's mistake."""
    runs, n_pairs = usable(frame), frame["pair"].nunique()
    if runs["label"].nunique() == 1:
        return baseline
    pairs = runs.groupby("label")["pair"].nunique()
    return next((name for name in ("kd(tuned)", "kd") if pairs.get(name) == n_pairs), baseline)


def moments(values: NDArray[np.float64]) -> dict[str, Any]:
    """n, mean, sd (n - 1) and half-width of the 95 % t interval of [n] numbers; what n is too small for is NaN."""
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    sd = float(values.std(ddof=1)) if n > 1 else np.nan
    if n > 1 and np.ptp(values) <= 1e-9 * np.abs(values).max():  # equal but for rounding: say 0, not 1e-14
        sd = 0.0
    half = float(special.stdtrit(n - 1, 0.5 + LEVEL / 2)) * sd / n**0.5 if n > 1 else np.nan
    return {"n": n, "mean": mean, "sd": sd, "half": half}


def _finite(column: Iterable[Any]) -> pd.Series[bool]:
    numbers = pd.to_numeric(pd.Series(column), errors="coerce")
    return numbers.notna() & np.isfinite(numbers.astype(float))
