"""All pairs of a suite in one table: rows x pairs, the mean difference to the baseline over pairs, and the rank.

The replicate stays the seed: a row's difference is averaged over its pairs within a seed, and the interval is over
seeds. It is conditional on these pairs, and says nothing of others.
"""

from __future__ import annotations

import pandas as pd

from bench.report import stats, table
from bench.report import text as t
from bench.report.columns import BOLD, Grid

FIXED = ("label", "pairs", "n", "difference", "low", "high", "rank")
CAPTION = (
    "Test top-1 of the last epoch (%), mean over seeds. − {base}: percentage points, mean over pairs within a seed, "
    "then over seeds, with its 95 % t interval, conditional on these pairs. Rank: mean over pairs, 1 is best, among "
    "rows with a finished run on every pair."
)


def build(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label, the largest mean difference first; those without one last.

    Columns: label, pairs (with a finished run), n (seeds that all its pairs share with the baseline), difference (NaN
    where n = 0; with low and high, NaN where n = 1), rank (NaN where a pair is missing), then per pair, by its name,
    mean top-1 in %. frame: one row per run; rows: `table.build` of it.
    """
    base, pairs = str(rows["baseline"].iloc[0]), [str(pair) for pair in rows["pair"].unique()]
    levels = rows.pivot(index="label", columns="pair", values="top1")[pairs].astype(float)
    out = pd.DataFrame([_over_pairs(frame, label, base) for label in levels.index], index=levels.index)
    whole = levels.dropna()
    # means over seeds that are equal but for rounding are ties
    out["rank"] = whole.round(9).rank(ascending=False).mean(axis=1).reindex(levels.index)
    out["pairs"] = levels.notna().sum(axis=1)
    out = out.join(levels).reset_index()
    key = out["difference"].where(out["label"] != base, 0.0)
    order = key.sort_values(ascending=False, kind="stable", na_position="last").index
    return out.loc[order, [*FIXED, *pairs]].reset_index(drop=True)


def _over_pairs(frame: pd.DataFrame, label: str, base: str) -> dict[str, float]:
    """n, difference, low, high of one row: its differences averaged over pairs, seed by seed."""
    if label == base:
        return {"n": 0, "difference": float("nan"), "low": float("nan"), "high": float("nan")}
    runs = stats.usable(frame)
    runs = runs[runs["label"].isin([label, base])]
    both = {label, base} <= set(runs["label"])
    long = stats.differences(runs, base) if both else pd.DataFrame(columns=["pair", "seed", "difference"])
    shared = long.pivot(index="seed", columns="pair", values="difference").dropna().astype(float)
    m = stats.moments(shared.mean(axis=1).to_numpy(float))
    return {"n": m["n"], "difference": m["mean"], "low": m["mean"] - m["half"], "high": m["mean"] + m["half"]}


def grid(overall: pd.DataFrame, rows: pd.DataFrame) -> Grid:
    """The table as text; a pair's accuracy is bold where the row is not told from the best of that pair."""
    base, pairs = str(rows["baseline"].iloc[0]), [name for name in overall if name not in FIXED]
    near = set(rows.loc[rows["with_best"], ["pair", "label"]].itertuples(index=False, name=None))
    places = {pair: t.decimals(rows.loc[rows["pair"] == pair, "top1_half"]) for pair in pairs}
    ends = t.decimals((overall["high"] - overall["low"]) / 2, [*overall["low"], *overall["high"]])
    part = overall["pairs"].nunique() > 1
    keys = ["label", "n", *(["pairs"] if part else []), "difference", "rank", *pairs]
    heads = {"label": "method", "n": "n", "pairs": "pairs", "difference": f"− {base} [95 % CI]", "rank": "rank"}
    cells: list[list[str]] = []
    values: list[list[float | str]] = []
    strong: list[list[bool]] = []
    for row in overall.to_dict("records"):
        own, label = row["label"] == base, str(row["label"])
        text = {
            "label": label,
            "n": t.NONE if own else str(int(row["n"])),
            "pairs": str(row["pairs"]),
            "difference": t.difference(row["difference"], row["low"], row["high"], int(row["n"]), ends),
            "rank": t.number(row["rank"], 1),
            **{pair: t.number(row[pair], places[pair]) for pair in pairs},
        }
        cells.append(["baseline" if own and key == "difference" else text[key] for key in keys])
        values.append([label, *(0.0 if own and key == "difference" else float(row[key]) for key in keys[1:])])
        strong.append([key in pairs and (key, label) in near for key in keys])
    titles = [heads.get(key, key.replace("->", " → ")) for key in keys]
    partial = " A row with fewer pairs averages over those alone, and does not compare with the others." if part else ""
    captions = [CAPTION.format(base=base) + partial, *[BOLD] * bool(rows["with_best"].any())]
    return Grid("all pairs", keys, titles, cells, strong, values, captions)


def markdown(overall: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The table with what it means, and a newline at its end."""
    return table.written(grid(overall, rows), title=False) + "\n"


def csv(overall: pd.DataFrame) -> str:
    """The numbers, unrounded."""
    return overall.to_csv(index=False, lineterminator="\n")
