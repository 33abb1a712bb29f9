"""Tuned against recipe: what tuning each row was worth, seed by seed, on the test split."""

from __future__ import annotations

import pandas as pd

from bench.report import sentences, simultaneous, stats
from bench.report import text as t
from bench.report.blocks import Column, Grid, Section, Text

COLUMNS = ("pair", "row", "trials", "n", "recipe", "tuned", "difference", "low", "high", "p", "p_holm")
FAMILY = ("family_low", "family_high", "standing")
"""Of `gain`: low and high are single intervals, FAMILY are those that hold for all rows of a pair at once."""


def gain(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per pair and method that ran tuned and by its recipe, the largest mean difference first.

    recipe, tuned: mean top-1; difference: tuned - recipe over shared seeds with its 95 % t interval (NaN where n = 1);
    p: two-sided sign-flip; p_holm: corrected over the rows of a pair; family_low, family_high, standing: intervals that
    hold for all rows of a pair at once, and how tuned stands to recipe by them. Empty where no row ran both ways.
    """
    runs, rows, by_row = stats.usable(frame), [], {}
    labels = runs[runs["tuned"].eq(True) & runs["tuned_row"].notna()].drop_duplicates(["pair", "label"])
    for pair, label, baseline, trials in labels[["pair", "label", "tuned_row", "tuned_trials"]].itertuples(index=False):
        both = runs[(runs["pair"] == pair) & runs["label"].isin([label, baseline])]
        means = stats.summary(both).set_index("label")["mean"]
        if baseline in means and label in means:
            paired = stats.paired(both, baseline).iloc[0]
            by_row[pair, baseline] = stats.differences(both, baseline)["difference"].to_numpy(float)
            levels = {"pair": pair, "row": baseline, "trials": trials, "recipe": means[baseline], "tuned": means[label]}
            rows.append(levels | {"difference": paired["mean"], **paired[["n", "low", "high", "p"]]})
    out = pd.DataFrame(rows, columns=[*COLUMNS, *FAMILY]).astype({"standing": object})
    for _, part in out.groupby("pair", sort=False):
        out.loc[part.index, "p_holm"] = stats.holm(part["p"].astype(float))
        family = {str(i): by_row[pair, row] for i, pair, row in part[["pair", "row"]].itertuples(name=None)}
        out.loc[part.index, list(FAMILY)] = simultaneous.intervals(family)[["low", "high", "verdict"]].to_numpy()
    return stats.sort(out, ["difference"], [False])


def answer(rows: pd.DataFrame) -> str:
    """For how many rows tuning is distinguishably better or worse, over all pairs."""
    rows = rows[rows["n"] > 1]
    if rows.empty:
        return "One seed says nothing about tuning; run more seeds."
    many = rows["pair"].nunique() > 1
    names = [f"{row} on {pair}" if many else row for row, pair in rows[["row", "pair"]].itertuples(index=False)]
    sides = ("the tuned setting", "the recipe")
    said = sentences.over_rows(
        "method", names, list(rows["standing"]), list(rows["n"]), sides, "all methods of a pair" * many
    )
    return f"{said} The median difference is {t.signed(rows['difference'].median(), 1)} points."


def sections(rows: pd.DataFrame) -> list[Section]:
    """The part of a report; none where nothing ran both ways."""
    if rows.empty:
        return []
    places = [t.places(low, high) for low, high in rows[["low", "high"]].itertuples(index=False)]
    ends = zip(rows["difference"], rows["low"], rows["high"], rows["n"].astype(int), places, strict=True)
    columns = {
        **({"pair": Column("pair", rows["pair"])} if rows["pair"].nunique() > 1 else {}),
        "row": Column("method", rows["row"], is_text=True),
        "trials": Column("trials", [t.counted(float(n)) for n in rows["trials"]]),
        "n": Column("n", rows["n"].astype(int)),
        "recipe": Column("recipe (%)", [t.number(top1, 1) for top1 in rows["recipe"]]),
        "tuned": Column("tuned (%)", [t.number(top1, 1) for top1 in rows["tuned"]]),
        "difference": Column("tuned − recipe [95 % CI]", [t.difference(*each) for each in ends]),
        "p_holm": Column("p (Holm)", [t.number(p, 3) for p in rows["p_holm"]]),
    }
    text = (
        "Test top-1 of the last epoch, mean over seeds that no trial used. Intervals in "
        "the table are single ones. p: two-sided sign flips, corrected over the "
        "rows of a pair."
    )
    title = "Tuned against recipe"
    return [Section(title, [Text(answer(rows), "strong"), Grid(columns), Text(text)], "gain", link=title)]
