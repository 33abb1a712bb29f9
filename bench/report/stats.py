"""Statistics over seeds: pure functions from a frame (one row per run) to a frame.

Conventions. A run counts where its status is `finished` and the metric is a finite number; `unfinished` lists the rest.
The replicate is the seed: the runs of one seed share initialisation, batches and augmentation, so methods are compared
by their differences within a seed, pair (teacher -> student) by pair. Intervals are two-sided 95 % t intervals. Metrics
keep their own unit; top-1 is in %, its differences are percentage points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats itself takes most of a second to import

LEVEL = 0.95
TOP1 = "test/top1"
EXACT_UP_TO = 16  # pairs: 2^16 sign vectors are enumerated, more are sampled
FLIPS = 100_000


def usable(frame: pd.DataFrame, metric: str = TOP1) -> pd.DataFrame:
    """The finished runs with a finite `metric`, in the frame's order. Raises `ValueError` for a frame that is unfit."""
    needs(frame, ["pair", "label", "seed", "status", metric])
    if frame.empty:
        raise ValueError("the frame has no runs")
    kept = frame[(frame["status"] == "finished") & _finite(frame[metric])]
    if kept.empty:
        raise ValueError(f"none of the {len(frame)} runs is finished with a number for {metric}")
    if (twins := kept.duplicated(["pair", "label", "seed"])).any():
        pair, name, seed = kept.loc[twins, ["pair", "label", "seed"]].iloc[0]
        raise ValueError(f"two finished runs of {name} on {pair} with seed {seed}: a seed counts once")
    return kept


def unfinished(frame: pd.DataFrame, metric: str = TOP1) -> pd.DataFrame:
    """Pair, label, seed, status and reason of the runs that no average contains."""
    columns = ["pair", "label", "seed", "status", "reason"]
    needs(frame, columns)
    counts = (frame["status"] == "finished") & (_finite(frame[metric]) if metric in frame else False)
    out = frame.loc[~counts, columns].reset_index(drop=True)
    return out.assign(reason=out["reason"].where(out["status"] != "finished", f"{metric} is not a number"))


def lacking(frame: pd.DataFrame) -> pd.DataFrame:
    """Pair, label, seeds (a sorted list): which seeds a row has not finished that another of its pair has.

    One line per row that lacks any, in the frame's order. `paired` leaves such seeds out for that row alone.
    """
    runs = usable(frame)
    of_pair, own = runs.groupby("pair")["seed"].agg(set), runs.groupby(["pair", "label"])["seed"].agg(set)
    keys = frame[["pair", "label"]].drop_duplicates().itertuples(index=False, name=None)
    rows = [(*key, sorted(map(int, of_pair.get(key[0], set()) - own.get(key, set())))) for key in keys]
    return pd.DataFrame([row for row in rows if row[2]], columns=["pair", "label", "seeds"])


def summary(frame: pd.DataFrame, metric: str = TOP1) -> pd.DataFrame:
    """Pair, label, n, mean, sd (n - 1) and half-width of the t interval over seeds; the last two NaN where n = 1."""
    groups = usable(frame, metric).groupby(["pair", "label"], sort=False)[metric]
    rows = [{"pair": pair, "label": name, **moments(part.to_numpy(float))} for (pair, name), part in groups]
    return pd.DataFrame(rows, columns=["pair", "label", "n", "mean", "sd", "half"])


def differences(frame: pd.DataFrame, baseline: str, metric: str = TOP1) -> pd.DataFrame:
    """Pair, label, seed, value, baseline's value, difference: one line per seed that a row shares with the baseline."""
    runs = usable(frame, metric)
    if baseline not in set(runs["label"]):
        raise ValueError(f"no finished run of '{baseline}'; there are {', '.join(map(str, runs['label'].unique()))}")
    runs = runs[["pair", "label", "seed"]].assign(value=runs[metric].astype(float))
    base = runs[runs["label"] == baseline].drop(columns="label").rename(columns={"value": "baseline"})
    out = runs[runs["label"] != baseline].merge(base, on=["pair", "seed"], how="inner")
    return out.assign(difference=out["value"] - out["baseline"])


def paired(frame: pd.DataFrame, baseline: str, metric: str = TOP1) -> pd.DataFrame:
    """Per pair and row other than the baseline: n shared seeds, mean difference, sd, low, high, p, smallest_p, p_holm.

    p is the two-sided sign-flip p-value; Holm's correction runs over the rows of one pair. n = 0: no seed shared.
    """
    runs, long = usable(frame, metric), differences(frame, baseline, metric)
    by_row = dict(list(long.groupby(["pair", "label"])["difference"]))
    rows: list[dict[str, Any]] = []
    for key in runs.loc[runs["label"] != baseline, ["pair", "label"]].drop_duplicates().itertuples(index=False):
        d = by_row[tuple(key)].to_numpy(float) if tuple(key) in by_row else np.empty(0)
        m, p = moments(d), (sign_flip(d), min(1.0, 2.0 ** (1 - len(d)))) if len(d) else (np.nan, np.nan)
        ends = {"low": m["mean"] - m["half"], "high": m["mean"] + m["half"]}
        rows.append({"pair": key[0], "label": key[1], **m, **ends, "p": p[0], "smallest_p": p[1]})
    out = pd.DataFrame(rows, columns=["pair", "label", "n", "mean", "sd", "low", "high", "p", "smallest_p"])
    corrected = out.groupby("pair", sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    return out.assign(p_holm=corrected.astype(float))


def complete(frame: pd.DataFrame, metric: str = TOP1) -> dict[str, pd.DataFrame]:
    """By pair, [seeds, rows]: the rows that have finished every seed that any row of the pair has."""
    groups = usable(frame, metric).groupby("pair", sort=False)
    wide = {str(pair): part.pivot(index="seed", columns="label", values=metric) for pair, part in groups}
    return {pair: values.dropna(axis="columns").astype(float) for pair, values in wide.items()}


def standing(low: float, high: float) -> str:
    """What an interval says of a difference: "better", "worse", "equal" to the digit, or "open" (also if NaN)."""
    if low == high == 0:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def sort(frame: pd.DataFrame, by: Sequence[str], ascending: Sequence[bool]) -> pd.DataFrame:
    """Pairs in the order in which they first occur; within a pair by these columns, ties as they are."""
    place = {pair: i for i, pair in enumerate(frame["pair"].unique())}
    keyed = frame.assign(_pair=frame["pair"].map(place))
    keyed = keyed.sort_values(["_pair", *by], ascending=[True, *ascending], kind="stable", ignore_index=True)
    return keyed.drop(columns="_pair")


def ratios(frame: pd.DataFrame, baseline: str, metric: str) -> pd.DataFrame:
    """Pair, label, n, ratio: median over shared seeds of value / baseline's value. For costs; 1 for the baseline."""
    long = differences(frame, baseline, metric)
    runs = usable(frame, metric)
    own = runs.loc[runs["label"] == baseline, ["pair", "label"]].assign(ratio=1.0)
    over = long[["pair", "label"]].assign(ratio=long["value"] / long["baseline"].replace(0.0, np.nan))
    groups = pd.concat([own, over]).groupby(["pair", "label"], sort=False)["ratio"]
    return groups.agg(n="count", ratio="median").reset_index()


def sign_flip(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of the mean under random signs: exact up to 16 differences, else from 100 000 named draws.

    Exact: the share of all 2^n sign vectors whose |mean| reaches the observed one. Sampled: (1 + hits) / (1 + draws).
    `scipy.stats.permutation_test` gives the same, refuses n = 1, and takes 0.4 s where this takes 9 ms (n = 16).
    """
    d = finite(differences)
    exact, n = len(d) <= EXACT_UP_TO, len(d)
    if exact:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (FLIPS, n))
    reach = abs(d.sum()) - 1e-9 * np.abs(d).sum()  # sums that differ by rounding alone are ties
    hits = int((np.abs((2.0 * bits - 1.0) @ d) >= reach).sum())
    return hits / 2**n if exact else (1 + hits) / (1 + FLIPS)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction of p-values; NaN stays NaN and is not counted."""
    raw = np.asarray(p, dtype=float)
    out = np.full(raw.shape, np.nan)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    out[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)))
    return out


def choose_baseline(frame: pd.DataFrame) -> str:
    """The row that all others are compared with: vanilla if it has finished runs, else kd, else the frame's first."""
    runs = usable(frame)
    for method in ("vanilla", "kd"):
        if method in set(runs["label"]):
            return method
        if "method" in runs and (runs["method"] == method).any():
            return str(runs.loc[runs["method"] == method, "label"].iloc[0])
    return str(runs["label"].iloc[0])


def choose_reference(frame: pd.DataFrame, baseline: str) -> str:
    """The row that answer, main figure, table and notes compare with: tuned kd, else kd, if it has finished runs on
    every pair, and is not alone; else the baseline.
    A tuned method beside an untuned KD would be the literature's mistake."""
    runs, n_pairs = usable(frame), frame["pair"].nunique()
    pairs = runs.groupby("label")["pair"].nunique()
    known = [name for name in ("kd(tuned)", "kd") if pairs.get(name) == n_pairs and len(pairs) > 1]
    return known[0] if known else baseline


def finite(differences: ArrayLike) -> NDArray[np.float64]:
    """[n] differences of one comparison, n >= 1; `ValueError` for anything else."""
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError("a paired comparison takes a list of at least one finite difference")
    return d


def moments(values: NDArray[np.float64]) -> dict[str, Any]:
    """n, mean, sd (n - 1) and half-width of the 95 % t interval of [n] numbers; what n is too small for is NaN."""
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    sd = float(values.std(ddof=1)) if n > 1 else np.nan
    if n > 1 and np.ptp(values) <= 1e-9 * np.abs(values).max():  # equal but for rounding: say 0, not 1e-14
        sd = 0.0
    half = float(t_quantile(n)) * sd / n**0.5 if n > 1 else np.nan
    return {"n": n, "mean": mean, "sd": sd, "half": half}


def t_quantile(n: ArrayLike, alpha: float = 1 - LEVEL) -> NDArray[np.float64]:
    """What |t| of n >= 2 differences exceeds with probability alpha where the true mean is 0."""
    return np.asarray(special.stdtrit(np.asarray(n) - 1, 1 - alpha / 2))


def needs(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises `ValueError` where the frame lacks one of these columns."""
    if missing := [name for name in columns if name not in frame]:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(f"the frame has no column '{missing[0]}'; it has {there}")


def _finite(column: Iterable[Any]) -> pd.Series[bool]:
    numbers = pd.to_numeric(pd.Series(column), errors="coerce")
    return numbers.notna() & np.isfinite(numbers.astype(float))
