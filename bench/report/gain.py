"""Tuned against recipe: what tuning each row was worth, seed by seed, on the test split."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.report import stats
from bench.report import text as t

COLUMNS = ("pair", "row", "trials", "n", "recipe", "tuned", "difference", "low", "high", "p", "p_holm", "standing")


def gain(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per pair and method that ran tuned and by its recipe, the largest mean difference first.

    recipe, tuned: mean top-1; difference: tuned - recipe over shared seeds with its 95 % t interval (NaN where n = 1);
    p: two-sided sign-flip; p_holm: corrected over the rows of a pair; standing: `stats.standing` of tuned to recipe.
    Empty where no row ran both ways.
    """
    runs, rows = stats.usable(frame), []
    labels = runs[runs["tuned"].eq(True) & runs["tuned_row"].notna()].drop_duplicates(["pair", "label"])
    for pair, label, base, trials in labels[["pair", "label", "tuned_row", "tuned_trials"]].itertuples(index=False):
        both = runs[(runs["pair"] == pair) & runs["label"].isin([label, base])]
        means = stats.summary(both).set_index("label")["mean"]
        if base in means and label in means:
            found = stats.paired(both, base).iloc[0]
            told = {"pair": pair, "row": base, "trials": trials, "recipe": means[base], "tuned": means[label]}
            rows.append(told | {"difference": found["mean"], **found[["n", "low", "high", "p"]]})
    out = pd.DataFrame(rows, columns=list(COLUMNS))
    for _, part in out.groupby("pair", sort=False):
        out.loc[part.index, "p_holm"] = stats.holm(part["p"].astype(float))
    out["standing"] = [stats.standing(*ends) for ends in out[["low", "high"]].itertuples(index=False)]
    place = {pair: i for i, pair in enumerate(out["pair"].unique())}
    out = out.assign(_pair=out["pair"].map(place)).sort_values(["_pair", "difference"], ascending=[True, False])
    return out.drop(columns="_pair").reset_index(drop=True)


def answer(rows: pd.DataFrame) -> str:
    """For how many rows tuning is told to be better or worse, over all pairs."""
    known = rows[rows["n"] > 1]
    if known.empty:
        return "One seed says nothing about tuning; run more seeds."
    told = {word: list(known.loc[known["standing"] == word, "row"]) for word in ("better", "worse")}
    parts = [f"{word} for {len(names)} ({t.joined(names)})" for word, names in told.items() if names]
    left = len(known) - sum(map(len, told.values()))
    seeds = " to ".join(str(n) for n in sorted({int(known["n"].min()), int(known["n"].max())}))
    verdicts = ", ".join([*parts, f"not distinguishable for {left}"])
    return (
        f"Tuned against recipe, {t.plural(len(known), 'row')}: {verdicts} "
        f"(n = {seeds} seeds, 95 % t intervals of the paired difference, not corrected for the number of rows); "
        f"{t.signed(known['difference'].mean(), 1)} points on average."
    )


def section(rows: pd.DataFrame) -> str:
    """The part of report.md, without a newline at its end; empty where nothing ran both ways."""
    if rows.empty:
        return ""
    many = rows["pair"].nunique() > 1
    head = ["method", "trials", "n", "recipe (%)", "tuned (%)", "tuned − recipe [95 % CI]", "p (Holm)"]
    text = (
        "Test top-1 of the last epoch, mean over seeds that no trial used. p: two-sided sign flips, corrected over the "
        "rows of a pair."
    )
    return "\n\n".join(
        [
            "## Tuned against recipe",
            f"**{answer(rows)}**",
            t.table_of([*["pair"] * many, *head], [[*[r.pair] * many, *_cells(r)] for r in rows.itertuples()], right=6),
            text,
        ]
    )


def _cells(row: Any) -> list[str]:
    places = t.decimals([(row.high - row.low) / 2], [row.low, row.high])
    return [
        str(row.row),
        t.counted(float(row.trials)),
        str(int(row.n)),
        t.number(row.recipe, 1),
        t.number(row.tuned, 1),
        t.difference(row.difference, row.low, row.high, int(row.n), places),
        t.number(row.p_holm, 3),
    ]
