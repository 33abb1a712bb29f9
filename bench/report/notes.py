"""How to read a report: what its numbers are conditional on, and what its tests can show at this n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.report import design, sentences, simultaneous, stats, stats_power, stats_ranks
from bench.report import text as t
from bench.report.blocks import TIED

FEW_SEEDS = (
    f"Below {simultaneous.FEW} seeds an interval rests on the normal model more than on the data: they suggest what it "
    "says."
)


def notes(frame: pd.DataFrame, rows: pd.DataFrame, suite: Mapping[str, Any]) -> list[str]:
    """What the numbers are conditional on, how the epoch was chosen, and what the tests can show at this n."""
    out = [
        f"n = {t.span(rows['n'], 'seed')} per row. A seed sets the student's initial weights, the order of the data "
        "and the augmentation, alike for all methods.",
        design.conditions(suite),
        *design.variance(frame, suite),
        "Selection rule: the last epoch. No epoch was chosen on the test split.",
        "The best of several methods is partly the luckiest: its mean is optimistic. Intervals that hold for all rows "
        "at once allow for that, single ones do not.",
    ]
    against = str(rows["reference"].iloc[0])
    out += together(rows, against)
    if (rows["difference_high"] == rows["difference_low"]).any():
        out.append("An interval of width 0 means that every seed gave the same difference; it is no certainty.")
    few = sentences.lacking(frame)
    return [*out, *[few] * bool(few), *inflation(frame), *p_values(rows), *better(frame, against), *ranked(frame)]


def together(rows: pd.DataFrame, against: str) -> list[str]:
    """Which intervals hold for many rows at once, and which for one; none where one row is compared."""
    if rows["all_low"].notna().groupby(rows["pair"]).sum().max() < 2:
        return []
    few = (rows["to_reference_n"].dropna() < simultaneous.FEW).any()
    return [
        f"What the sentence at the top calls better or worse, what {TIED} marks and what the matrix colours goes by "
        f"intervals that hold for all comparisons of a pair at once (Bonferroni): of its rows with {against}, with the "
        "best row, and of every two rows. Every other interval is a single one: of equal methods one in twenty would "
        f"seem different.{f' {FEW_SEEDS}' * bool(few)}"
    ]


def inflation(frame: pd.DataFrame) -> list[str]:
    """What choosing the best epoch on the test split would have added, where the runs recorded it."""
    name, runs = "test/top1_best_epoch_on_test", stats.usable(frame)
    if name not in runs or not runs[name].notna().any():
        return []
    gain = (runs[name] - runs[stats.TOP1]).dropna()
    rows = gain.groupby(runs["label"]).mean()
    by_row = f" ({rows.min():.2f} to {rows.max():.2f} by row)" if len(rows) > 1 else ""
    return [
        f"Selection inflation: the best epoch on the test split is on average {gain.mean():.2f} points above the last"
        f"{by_row}; a paper that reports the best epoch reports that much more."
    ]


def p_values(rows: pd.DataFrame) -> list[str]:
    """The sign-flip tests, with the smallest p-value that they could give."""
    tested, many = rows[rows["to_reference_n"].fillna(0) > 1], rows["pair"].nunique() > 1
    if tested.empty:
        return []
    reference, n = tested["reference"].iloc[0], int(tested["to_reference_n"].max())
    tests = [
        f"{f'{r.pair}, ' if many else ''}{r.label} {r.to_reference_p:.2g} ({r.to_reference_p_holm:.2g})"
        for r in tested.itertuples()
    ]
    return [
        f"Two-sided sign-flip p-values against {reference}, Holm-corrected in brackets: {'; '.join(tests)}. "
        f"With n = {n} no p-value can be below {2.0 ** (1 - n):.2g}."
    ]


def better(frame: pd.DataFrame, against: str) -> list[str]:
    """How probable it is that a row is better than the one it is compared with, and what would decide the undecided."""
    many, power = frame["pair"].nunique() > 1, f"{100 * stats_power.POWER:.0f} % power"
    rows = stats_power.outlook(frame, against)
    rows = rows[rows["p_mean"].notna()].sort_values("p_mean", ascending=False, kind="stable")
    chances, further = [], []
    for row in rows.itertuples():
        name = f"{f'{row.pair}, ' if many else ''}{row.label}"
        chances.append(f"{name} {sentences.probability(row.p_mean)}")
        further += [f"{name} {t.counted(row.further)}"] if row.state == "more" else []
    out = [f"Probability that a row's mean is above that of {against} (t model, flat prior): {'; '.join(chances)}."]
    out.append(
        f"Further seeds after which a row's interval, of those for all rows at once, would exclude 0 with {power}, if "
        f"mean and spread stay as observed (few seeds make this an order of magnitude): {'; '.join(further)}."
    )
    return out[: bool(chances) + bool(further)]


def ranked(frame: pd.DataFrame) -> list[str]:
    """Mean ranks over pairs, where there are enough of them; a supplement to the paired differences."""
    found = stats_ranks.ranks(frame)
    return [sentences.ranks(found)] if found else []
