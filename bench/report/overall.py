"""All pairs of a suite in one table: rows x pairs, the mean difference to the baseline over pairs, and the rank.

The replicate stays the seed: a row's difference is averaged over its pairs within a seed, and the interval is over
seeds. It is conditional on these pairs, and says nothing of others.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.report import stats
from bench.report import text as t
from bench.report.blocks import Column, Grid
from bench.report.columns import BOLD

FIXED = ("label", "pairs", "n", "difference", "low", "high", "rank")
CAPTION = (
    "Test top-1 of the last epoch (%), mean over seeds. − {baseline}: percentage points, mean over pairs within a "
    "seed, then over seeds, with its 95 % t interval, conditional on these pairs. Rank: mean over pairs, 1 is best, "
    "among rows with a finished run on every pair."
)


def build(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label, the largest mean difference first; those without one last.

    Columns: label, pairs (with a finished run), n (seeds that all its pairs share with the baseline), difference (NaN
    where n = 0; with low and high, NaN where n = 1), rank (NaN where a pair is missing), then per pair, by its name,
    mean top-1 in %. frame: one row per run; rows: `table.build` of it.
    """
    baseline, pairs = str(rows["baseline"].iloc[0]), [str(pair) for pair in rows["pair"].unique()]
    levels = rows.pivot(index="label", columns="pair", values="top1")[pairs].astype(float)
    out = pd.DataFrame([_over_pairs(frame, label, baseline) for label in levels.index], index=levels.index)
    whole = levels.dropna()
    # means over seeds that are equal but for rounding are ties
    out["rank"] = whole.round(9).rank(ascending=False).mean(axis=1).reindex(levels.index)
    out["pairs"] = levels.notna().sum(axis=1)
    out = out.join(levels).reset_index()
    key = out["difference"].where(out["label"] != baseline, 0.0)
    order = key.sort_values(ascending=False, kind="stable", na_position="last").index
    return out.loc[order, [*FIXED, *pairs]].reset_index(drop=True)


def _over_pairs(frame: pd.DataFrame, label: str, baseline: str) -> dict[str, float]:
    """n, difference, low, high of one row: its differences averaged over pairs, seed by seed."""
    if label == baseline:
        return {"n": 0, "difference": float("nan"), "low": float("nan"), "high": float("nan")}
    runs = stats.usable(frame)
    runs = runs[runs["label"].isin([label, baseline])]
    both = {label, baseline} <= set(runs["label"])
    long = stats.differences(runs, baseline) if both else pd.DataFrame(columns=["pair", "seed", "difference"])
    shared = long.pivot(index="seed", columns="pair", values="difference").dropna().astype(float)
    m = stats.moments(shared.mean(axis=1).to_numpy(float))
    return {"n": m["n"], "difference": m["mean"], "low": m["mean"] - m["half"], "high": m["mean"] + m["half"]}


def grid(across_pairs: pd.DataFrame, rows: pd.DataFrame) -> Grid:
    """The table as text; the best accuracy of a pair is bold, and those that are not distinguishable from it are tied.

    across_pairs: `build`; rows: `table.build` of the same runs.
    """
    baseline, labels = str(rows["baseline"].iloc[0]), list(across_pairs["label"])
    ends = across_pairs[["difference", "low", "high", "n"]]
    places = t.decimals((ends["high"] - ends["low"]) / 2, [*ends["low"], *ends["high"]])
    differences = [t.difference(mean, low, high, int(n), places) for mean, low, high, n in ends.itertuples(index=False)]
    own, partial = across_pairs["label"] == baseline, across_pairs["pairs"].nunique() > 1
    texts: dict[str, tuple[str, Iterable[object]]] = {
        "label": ("method", labels),
        "n": ("n", ends["n"].astype(int).astype(object).mask(own, t.NONE)),
        **({"pairs": ("pairs", across_pairs["pairs"])} if partial else {}),
        "difference": (f"− {baseline} [95 % CI]", pd.Series(differences).mask(own, "baseline")),
        "rank": ("rank", [t.number(rank, 1) for rank in across_pairs["rank"]]),
    }
    values = across_pairs.assign(difference=across_pairs["difference"].mask(own, 0.0))
    columns = {key: Column(head, cells, [*values[key]]) for key, (head, cells) in texts.items()}
    for pair, part in rows.groupby("pair", sort=False):
        near, best = (set(part.loc[part[key], "label"]) for key in ("with_best", "best"))
        width, values_of_pair = t.decimals(part["top1_half"]), [*across_pairs[pair]]
        cells, bold = [t.number(top1, width) for top1 in values_of_pair], [label in best for label in labels]
        tied = [label in near - best for label in labels]
        columns[str(pair)] = Column(str(pair).replace("->", " → "), cells, values_of_pair, bold, tied)
    more = " A row with fewer pairs averages over those alone, and does not compare with the others."
    captions = [CAPTION.format(baseline=baseline) + more * partial, *[BOLD] * bool(rows["with_best"].any())]
    return Grid(columns, "All pairs", captions, style="pairs")
